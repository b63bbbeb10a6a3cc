// bench attention: every variant over the length, forward and forward + backward, beside full
// attention; checked first.
#include "apps/bench_attention.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/bench.h"
#include "apps/common/args.h"
#include "apps/common/log.h"
#include "autograd/ops.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

struct AttentionCommand {
  CommonOptions common;
  AttentionSizes sizes;
  int rounds = 5;
  std::vector<int64_t> lengths = {128,  192,  256,  384,   512,   768,  1024,
                                  2048, 4096, 8192, 16384, 32768, 65536};
  std::string variants, out;
  int64_t clusters = 100, bits = 63, iterations = 10, topk = 32, max_full = 8192;
  bool check = true;

  void run();

 private:
  std::vector<BenchVariant> chosen_variants() const;
  std::string fill_options(const std::string& name) const;
  bool can_run(const BenchVariant& variant, AttentionReport& report) const;
  bool grows(const BenchVariant& variant) const;
  std::vector<BenchVariant> variants_for(int64_t length, AttentionReport& report);
  void time_length(int64_t length, AttentionReport& report, const std::function<void()>& tick);

  std::map<std::string, bool> grows_;
};

// ---- variants -----------------------------------------------------------------------------------

// Cuts a list of variants at its commas, except those in parentheses and those between options: a
// piece whose first special character is '=' goes on with the options of the piece before.
std::vector<std::string> split_variants(const std::string& list) {
  std::vector<std::string> pieces(1);
  int depth = 0;
  for (char c : list) {
    depth += (c == '(') - (c == ')');
    if (c == ',' && depth == 0) {
      pieces.emplace_back();
    } else {
      pieces.back() += c;
    }
  }
  std::vector<std::string> variants;
  for (const std::string& piece : pieces) {
    const size_t special = piece.find_first_of("=:(");
    if (!variants.empty() && special != std::string::npos && piece[special] == '=') {
      variants.back() += "," + piece;
    } else {
      variants.push_back(piece);
    }
  }
  return variants;
}

// Whether the variant has the option that `spec` ends with; throws when the value is bad.
bool accepts(const std::string& spec) {
  try {
    nn::make_attention(spec);
    return true;
  } catch (const Error& error) {
    if (std::string(error.what()).find("has no option") == std::string::npos) throw;
    return false;
  }
}

// No dropout in any variant; the sizes of clustering in those that have clusters.
std::string AttentionCommand::fill_options(const std::string& name) const {
  std::string spec = name;
  const auto add = [&](const std::string& option) {
    const std::string longer = spec + (spec == name ? ":" : ",") + option;
    if (!accepts(longer)) return false;
    spec = longer;
    return true;
  };
  add("dropout=0");
  if (!add(concat("clusters=", clusters))) return spec;
  add(concat("bits=", bits));
  add(concat("iterations=", iterations));
  add(concat("topk=", topk));
  return spec;
}

std::vector<BenchVariant> AttentionCommand::chosen_variants() const {
  std::vector<std::string> names =
      variants.empty() ? nn::attention_names() : split_variants(variants);
  // Full attention first: it is what the others are compared with.
  std::stable_partition(names.begin(), names.end(), [](const auto& n) { return n == "full"; });
  std::vector<BenchVariant> chosen;
  for (const std::string& name : names) {
    nn::make_attention(name);  // throws for unknown names and options, listing the valid ones
    for (const BenchVariant& other : chosen) {
      CENTROID_CHECK(other.name != name, "bench: --variants names ", name, " twice");
    }
    const bool plain = name.find_first_of(":(") == std::string::npos;
    chosen.push_back({.name = name, .spec = plain ? fill_options(name) : name, .plain = plain});
  }
  return chosen;
}

bool AttentionCommand::can_run(const BenchVariant& variant, AttentionReport& report) const {
  const nn::Capabilities can = nn::make_attention(variant.spec)->capabilities();
  if (sizes.causal ? can.causal : !can.causal_only) return true;
  report.notes.push_back(variant.name + " is left out: it " +
                         (sizes.causal ? "cannot be causal" : "can only be causal (--causal)"));
  return false;
}

// Whether the time per token grows with the length: as many tokens in one sequence cost 4 times
// what they cost in 4 sequences where all pairs are formed, and the same where they are not.
bool AttentionCommand::grows(const BenchVariant& variant) const {
  const auto attention = nn::make_attention(variant.spec);
  const auto seconds = [&](int64_t batch, int64_t length) {
    NoGrad no_grad;
    const auto p = make_attention_problem(sizes, batch, length, DType::f32, common.seed);
    const auto times = time_rounds(3, [&] { attend(*attention, p, false); });
    return *std::min_element(times.begin(), times.end());
  };
  return seconds(1, max_full) > 2 * seconds(4, (max_full + 3) / 4);
}

std::vector<BenchVariant> AttentionCommand::variants_for(int64_t length, AttentionReport& report) {
  std::vector<BenchVariant> chosen;
  for (const BenchVariant& variant : report.variants) {
    if (length > max_full) {
      if (!grows_.contains(variant.name)) {
        grows_[variant.name] = grows(variant);
        if (grows_[variant.name]) {
          report.notes.push_back(concat(variant.name, " is left out beyond ", max_full,
                                        ": its time per token grows with the length (--max-full)"));
        }
      }
      if (grows_[variant.name]) continue;
    }
    chosen.push_back(variant);
  }
  return chosen;
}

// ---- measuring ----------------------------------------------------------------------------------

size_t block_bytes(const Tensor& x) {
  return CachingAllocator::size_class(x.numel() * size_of(x.dtype()));
}

// The peak beyond what was there before and `results`, as a multiple of `size` bytes.
double extra_memory(const std::function<std::vector<Tensor>()>& f, double size) {
  CachingAllocator& memory = allocator(default_device());
  memory.empty_cache();  // reused blocks may be larger than asked for
  memory.reset_peak();
  const double before = memory.stats().active;
  const std::vector<Tensor> results = f();
  double expected = before;
  for (const Tensor& x : results) expected += block_bytes(x);
  return std::max(0.0, memory.stats().peak - expected) / size;
}

struct Case {
  std::unique_ptr<nn::Attention> attention;
  AttentionResult result;

  Tensor forward(const AttentionProblem& p) const {
    NoGrad no_grad;
    return attend(*attention, p, false);
  }
  std::vector<Tensor> forward_backward(const AttentionProblem& p) const {
    const Tensor out = attend(*attention, p, true);
    std::vector<Tensor> results = take_gradients(p, out);
    results.push_back(out.detach());
    return results;
  }
};

void AttentionCommand::time_length(int64_t length, AttentionReport& report,
                                   const std::function<void()>& tick) {
  const int64_t batch = std::max<int64_t>(1, sizes.tokens / length);
  const auto problem = make_attention_problem(sizes, batch, length, DType::f32, common.seed);
  std::vector<Case> cases;
  for (const BenchVariant& variant : variants_for(length, report)) {
    Case c{nn::make_attention(variant.spec),
           {.name = variant.name, .length = length, .batch = batch}};
    const double one = problem.q.numel() * 4.0;  // bytes of q, and of k, v, the output, ...
    c.result.forward.extra_memory =
        extra_memory([&]() -> std::vector<Tensor> { return {c.forward(problem)}; }, 4 * one);
    c.result.both.extra_memory = extra_memory([&] { return c.forward_backward(problem); }, 8 * one);
    cases.push_back(std::move(c));
    tick();
  }
  for (int r = 0; r <= rounds; ++r) {  // the first round only warms up
    for (Case& c : cases) {
      const double forward = time_once([&] { c.forward(problem); });
      const double both = time_once([&] { c.forward_backward(problem); });
      tick();
      if (r == 0) continue;
      c.result.forward.seconds.push_back(forward);
      c.result.both.seconds.push_back(both);
    }
  }
  for (Case& c : cases) report.results.push_back(std::move(c.result));
}

void AttentionCommand::run() {
  apply(common);
  if (!out.empty()) make_report_folder(out);  // before the long part
  AttentionReport report;
  report.sizes = sizes;
  report.rounds = rounds;
  report.threads = num_threads();
  report.kernels = concat("OpenBLAS ", blas_kernels(), ", own kernels ", own_kernels());
  for (const BenchVariant& variant : chosen_variants()) {
    if (can_run(variant, report)) report.variants.push_back(variant);
  }
  CENTROID_CHECK(!report.variants.empty(), "bench: no variant is left: ", report.notes.back());
  for (size_t i = 0; check && i < report.variants.size(); ++i) {
    report.checks.push_back(check_attention(report.variants[i], sizes, common.seed));
  }
  report.peak_flops = peak_flops();
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  const int64_t per_length = static_cast<int64_t>(report.variants.size()) * (rounds + 2);
  int64_t done = 0;
  {
    ProgressOptions shown;
    shown.label = "attention";
    shown.total = per_length * static_cast<int64_t>(lengths.size());
    shown.unit = "cases";
    Progress progress(shown);
    for (int64_t length : lengths) {
      const int64_t end = done + per_length;
      time_length(length, report, [&] {
        ++done;
        progress.update(done, static_cast<double>(done), {{"length", std::to_string(length)}});
      });
      done = end;  // variants left out have not ticked
    }
    progress.update(done, static_cast<double>(done), {});
  }
  if (!out.empty()) write_report(report, out);
  if (common.json) {
    std::cout << report_json(report).dump(2) << "\n";
  } else {
    std::cout << report_text(report, false);
  }
}

}  // namespace

// ---- problems -----------------------------------------------------------------------------------

AttentionProblem make_attention_problem(const AttentionSizes& sizes, int64_t batch, int64_t length,
                                        DType dtype, uint64_t seed) {
  Rng rng(seed, "attention");
  const Shape shape = {batch, length, sizes.heads, sizes.size};
  const auto draw = [&] { return raw::cast(raw::normal(shape, rng), dtype); };
  AttentionProblem p{
      .q = draw(), .k = draw(), .v = draw(), .dout = draw(), .lengths = {}, .causal = sizes.causal};
  for (Tensor* x : {&p.q, &p.k, &p.v}) x->set_requires_grad();
  return p;
}

Tensor attend(nn::Attention& attention, const AttentionProblem& p, bool training,
              nn::Choices* record, const nn::Choices* replay) {
  Rng rng(7, "attention");
  const auto heads_first = [](const Tensor& x) { return permute(x, {0, 2, 1, 3}); };
  return heads_first(attention.attend({.q = heads_first(p.q),
                                       .k = heads_first(p.k),
                                       .v = heads_first(p.v),
                                       .q_lengths = p.lengths,
                                       .k_lengths = p.lengths,
                                       .causal = p.causal,
                                       .training = training,
                                       .rng = &rng,
                                       .record = record,
                                       .replay = replay}));
}

std::vector<Tensor> take_gradients(const AttentionProblem& p, const Tensor& out) {
  backward(out, p.dout);
  std::vector<Tensor> grads;
  for (const Tensor* x : {&p.q, &p.k, &p.v}) {
    // Variants that use the queries as keys give k none.
    grads.push_back(x->grad().defined() ? x->grad() : zeros(x->shape(), x->dtype()));
    x->set_grad({});
  }
  return grads;
}

void register_bench_attention(CLI::App& app) {
  auto command = std::make_shared<AttentionCommand>();
  CLI::App* sub = app.add_subcommand("attention", "Attention variants over the sequence length");
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->capture_default_str()->group("Benchmark");
  };
  const CLI::Range positive(1, 10000000);
  add("--variants", command->variants, "Variants such as full,clustered:clusters=50; default: all");
  add("--lengths", command->lengths, "Sequence lengths")->delimiter(',')->check(positive);
  add("--rounds", command->rounds, "Timed rounds, interleaved over variants; medians are printed")
      ->check(CLI::Range(1, 1000));
  add("--tokens", command->sizes.tokens, "Batch x length; the batch is 1 beyond")->check(positive);
  add("--heads", command->sizes.heads, "Heads")->check(CLI::Range(1, 1024));
  add("--head-size", command->sizes.size, "Size of a head")->check(CLI::Range(1, 1024));
  add("--max-full", command->max_full, "Variants that form all pairs end at this length")
      ->check(positive);
  add_switch(*sub, "causal", command->sizes.causal, "Queries see no later keys")
      ->group("Benchmark");
  add_switch(*sub, "check", command->check, "Check results before timing")->group("Benchmark");
  add("--out", command->out, "Folder for attention.md, attention.json and attention.png");
  const auto option = [&](const std::string& name, auto& value, const std::string& help) {
    add(name, value, help)->check(positive)->group("Variants given without options");
  };
  option("--clusters", command->clusters, "Clusters");
  option("--bits", command->bits, "Bits of a hash code");
  option("--iterations", command->iterations, "Iterations of k-means");
  option("--topk", command->topk, "Keys per cluster with exact products");
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
