// bench ops: pointwise kernels and reductions beside the copy bandwidth, products beside OpenBLAS's
// own threading, rows of neural networks beside both limits.
#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench.h"
#include "apps/common/args.h"
#include "nn/lfmmi.h"
#include "tensor/ops.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

using nlohmann::json;

struct OpsCommand {
  CommonOptions common;
  int rounds = 9;
  int64_t mib = 64;
  std::vector<std::string> parts = {"pointwise", "matmul", "rows", "losses"};

  void run();

 private:
  void check(const std::string& name, double got, double expected, double tolerance) const;
  void memory_case(const std::string& name, int tensors, const std::function<Tensor()>& f,
                   const std::function<double(int64_t)>& expected);
  void memory_cases();
  void matmul_case(const std::string& name, int64_t batch, int64_t m, int64_t k, int64_t n, bool ta,
                   bool tb);
  void matmul_cases();
  void row_case(const std::string& name, double bytes, double flops,
                const std::function<void()>& f);
  void row_cases();
  void loss_cases();
  void ctc_case(int64_t batch, int64_t time, int64_t classes, int64_t labels);
  void path_cases(const Tensor& logits, const std::vector<int64_t>& targets,
                  const Lengths& lengths);

  double copy_ = 0, peak_ = 0;
  std::FILE* text_ = stdout;  // stderr when stdout is for JSON
  Tensor a_, b_;
  json results_ = json::array();
};

void OpsCommand::check(const std::string& name, double got, double expected,
                       double tolerance) const {
  CENTROID_CHECK(std::abs(got - expected) <= tolerance * std::max(1.0, std::abs(expected)),
                 "bench: ", name, " is wrong: expected ", expected, ", got ", got);
}

void OpsCommand::memory_case(const std::string& name, int tensors, const std::function<Tensor()>& f,
                             const std::function<double(int64_t)>& expected) {
  const Tensor y = f();
  for (int64_t i = 0; i < y.numel(); i += 1 + y.numel() / 1000) {
    check(name, y.data<float>()[i], expected(i), y.numel() == 1 ? 1e-4 : 1e-6);
  }
  const double seconds = median(time_rounds(rounds, f));
  const double bandwidth = tensors * 4.0 * a_.numel() / seconds;
  std::fprintf(text_, "%-24s %9.3f ms %8.1f GB/s  %5.2f of copy\n", name.c_str(), seconds * 1e3,
               bandwidth / 1e9, bandwidth / copy_);
  results_.push_back({{"name", name},
                      {"ms", seconds * 1e3},
                      {"gb_per_s", bandwidth / 1e9},
                      {"of_copy", bandwidth / copy_}});
}

void OpsCommand::memory_cases() {
  const int64_t n = (mib << 20) / 4;
  Rng rng(common.seed, "bench");
  a_ = raw::uniform({n}, rng, -1, 1);
  b_ = raw::uniform({n}, rng, -1, 1);
  const float *a = a_.data<float>(), *b = b_.data<float>();
  std::fprintf(text_, "\npointwise and reductions, f32, %lld MiB each; copy bandwidth %.1f GB/s\n",
               static_cast<long long>(mib), copy_ / 1e9);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i];
  const double largest = *std::max_element(a, a + n);
  memory_case(
      "copy", 2, [&] { return raw::clone(a_); }, [&](int64_t i) { return a[i]; });
  memory_case(
      "scale", 2, [&] { return raw::mul(a_, 0.5); }, [&](int64_t i) { return 0.5 * a[i]; });
  memory_case(
      "relu", 2, [&] { return raw::relu(a_); }, [&](int64_t i) { return std::max(a[i], 0.0f); });
  memory_case(
      "add", 3, [&] { return raw::add(a_, b_); }, [&](int64_t i) { return a[i] + b[i]; });
  memory_case(
      "mul", 3, [&] { return raw::mul(a_, b_); }, [&](int64_t i) { return a[i] * b[i]; });
  memory_case(
      "sum", 1, [&] { return raw::sum(a_); }, [&](int64_t) { return sum; });
  memory_case(
      "max", 1, [&] { return raw::max(a_); }, [&](int64_t) { return largest; });
  memory_case(
      "exp", 2, [&] { return raw::exp(a_); }, [&](int64_t i) { return std::exp(a[i]); });
  memory_case(
      "gelu", 2, [&] { return raw::gelu(a_); },
      [&](int64_t i) { return 0.5 * a[i] * (1 + std::erf(a[i] * std::sqrt(0.5))); });
  a_ = b_ = {};
}

void OpsCommand::matmul_case(const std::string& name, int64_t batch, int64_t m, int64_t k,
                             int64_t n, bool ta, bool tb) {
  Rng rng(common.seed, name);
  Tensor a = raw::uniform(ta ? Shape{batch, k, m} : Shape{batch, m, k}, rng, -1, 1);
  Tensor b = raw::uniform(tb ? Shape{batch, n, k} : Shape{batch, k, n}, rng, -1, 1);
  const Tensor va = ta ? raw::transpose(a, 1, 2) : a, vb = tb ? raw::transpose(b, 1, 2) : b;
  Tensor y, peer = empty({batch, m, n});
  const auto ours = [&] { y = raw::matmul(va, vb); };
  const auto theirs = [&] {
    for (int64_t i = 0; i < batch; ++i) {
      cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m,
                  n, k, 1, a.data<float>() + i * m * k, ta ? m : k, b.data<float>() + i * k * n,
                  tb ? k : n, 0, peer.data<float>() + i * m * n, n);
    }
  };
  std::vector<double> our_times, their_times;
  for (int r = 0; r <= rounds; ++r) {  // interleaved; the first round only warms up
    openblas_set_num_threads(num_threads());
    const double t = time_rounds(1, theirs)[0];
    const double o = time_rounds(1, ours)[0];
    if (r > 0) our_times.push_back(o), their_times.push_back(t);
  }
  check(name, raw::max(raw::abs(raw::sub(y, peer))).item(), 0, 1e-5 * std::sqrt(double(k)) + 1e-5);
  const double flops = 2.0 * batch * m * k * n, o = median(our_times), t = median(their_times);
  std::fprintf(text_, "%-36s %9.3f ms %8.1f GFLOP/s  %5.2f of peak  %5.2fx OpenBLAS\n",
               name.c_str(), o * 1e3, flops / o / 1e9, flops / o / peak_, t / o);
  results_.push_back({{"name", name},
                      {"ms", o * 1e3},
                      {"gflops", flops / o / 1e9},
                      {"of_peak", flops / o / peak_},
                      {"speed_of_openblas", t / o}});
}

void OpsCommand::matmul_cases() {
  std::fprintf(
      text_,
      "\nproducts, f32; peak %.0f GFLOP/s; the last column compares with one call of OpenBLAS "
      "(%s kernels) on %d threads\n",
      peak_ / 1e9, blas_kernels().c_str(), num_threads());
  struct Case {
    const char* name;
    int64_t batch, m, k, n;
    bool ta, tb;
  };
  const Case cases[] = {{"512 x 512 x 512", 1, 512, 512, 512, false, false},
                        {"1024 x 1024 x 1024", 1, 1024, 1024, 1024, false, false},
                        {"2048 x 2048 x 2048", 1, 2048, 2048, 2048, false, false},
                        {"linear 3200 x 192 x 768 (NT)", 1, 3200, 192, 768, false, true},
                        {"linear 3200 x 768 x 192 (NT)", 1, 3200, 768, 192, false, true},
                        {"linear 3200 x 192 x 192 (NT)", 1, 3200, 192, 192, false, true},
                        {"weight grad 768 x 3200 x 192 (TN)", 1, 768, 3200, 192, true, false},
                        {"weight grad 192 x 3200 x 192 (TN)", 1, 192, 3200, 192, true, false},
                        {"scores 24 x 800 x 32 x 800 (NT)", 24, 800, 32, 800, false, true},
                        {"values 24 x 800 x 800 x 32", 24, 800, 800, 32, false, false}};
  for (const Case& c : cases) matmul_case(c.name, c.batch, c.m, c.k, c.n, c.ta, c.tb);
}

void OpsCommand::row_case(const std::string& name, double bytes, double flops,
                          const std::function<void()>& f) {
  const double seconds = median(time_rounds(rounds, f));
  std::fprintf(text_, "%-36s %9.3f ms %8.1f GB/s  %5.2f of copy %8.1f GFLOP/s\n", name.c_str(),
               seconds * 1e3, bytes / seconds / 1e9, bytes / seconds / copy_,
               flops / seconds / 1e9);
  results_.push_back({{"name", name},
                      {"ms", seconds * 1e3},
                      {"gb_per_s", bytes / seconds / 1e9},
                      {"gflops", flops / seconds / 1e9}});
}

void OpsCommand::row_cases() {
  std::fprintf(text_, "\nrows of neural networks, f32 (exp and the like count as one operation)\n");
  Rng rng(common.seed, "rows");
  const Tensor x = raw::normal({3200, 768}, rng), gain = ones({768}), bias = zeros({768});
  const double n = x.numel();
  const Tensor y = raw::softmax(x);
  check("softmax", raw::sum(y).item(), 3200, 1e-5);
  row_case("softmax 3200 x 768", 8 * n, 4 * n, [&] { raw::softmax(x); });
  row_case("softmax backward", 12 * n, 4 * n, [&] { raw::softmax_backward(x, y); });
  const auto norm = raw::layer_norm(x, gain, bias);
  check("layer norm", raw::mean(raw::square(norm.y)).item(), 1, 1e-3);
  row_case("layer norm", 8 * n, 7 * n, [&] { raw::layer_norm(x, gain, bias); });
  row_case("layer norm backward", 12 * n, 14 * n,
           [&] { raw::layer_norm_backward(x, gain, norm.mean, norm.rstd, y, true, true, true); });
  const RngState state = rng.reserve(1);
  const double kept = raw::sum(raw::dropout(ones({3200, 768}), 0.25, state)).item() / n;
  check("dropout", kept, 1, 1e-2);
  row_case("dropout", 8 * n, n, [&] { raw::dropout(x, 0.1, state); });
}

// What a recogniser of phones computes with 4x subsampling, and without any.
void OpsCommand::loss_cases() {
  std::fprintf(text_, "\nlosses of sequences with their gradient, f32\n");
  for (const int64_t time : {240, 1000}) ctc_case(16, time, time == 240 ? 51 : 50, 90);
}

void OpsCommand::ctc_case(int64_t batch, int64_t time, int64_t classes, int64_t labels) {
  Rng rng(common.seed, "losses");
  const Tensor logits = raw::normal({batch, time, classes}, rng);
  const Tensor targets =
      raw::cast(raw::clamp(raw::uniform({batch, labels}, rng, 1, classes - 0.01), 1, classes - 1),
                DType::i32);
  const Lengths lengths(std::vector<int64_t>(batch, time)),
      sizes(std::vector<int64_t>(batch, labels));
  const auto loss = raw::ctc(logits, targets, lengths, sizes, 0, true);
  check("ctc gradient sums", raw::sum(loss.dlogits).item(), 0, 1e-3);
  const double states = double(batch) * time * (2 * labels + 1);
  row_case(concat("ctc ", batch, " x ", time, " x ", classes, ", ", labels, " labels"),
           8.0 * logits.numel(), 8 * states,
           [&] { raw::ctc(logits, targets, lengths, sizes, 0, true); });
  if (time < 1000) path_cases(logits, raw::cast(targets, DType::i64).to_vector<int64_t>(), lengths);
}

// The two halves of LF-MMI on the logits and targets of ctc.
void OpsCommand::path_cases(const Tensor& logits, const std::vector<int64_t>& targets,
                            const Lengths& lengths) {
  const int64_t batch = logits.size(0), time = logits.size(1), classes = logits.size(2);
  const auto labels = static_cast<int64_t>(targets.size()) / batch;
  std::vector<std::vector<int32_t>> sequences;
  for (auto from = targets.begin(); from != targets.end(); from += labels) {
    sequences.emplace_back(from, from + labels);
  }
  const nn::LfmmiGraph graph(nn::Ngram(sequences, classes, {.order = 3, .states = 100}),
                             nn::Topology::one_state);
  std::vector<nn::FrameGraph> numerators;
  std::vector<const Fsa*> acceptors;
  for (const auto& s : sequences) numerators.push_back(graph.numerator(nn::transcript(s)));
  for (const auto& n : numerators) acceptors.push_back(&n.fsa);
  const auto run = [&](const std::string& name, const FsaBatch& fsa, double arcs, double leaky) {
    const auto sums = raw::forward_backward(logits, lengths, fsa, leaky, true);
    check(name, raw::sum(sums.posteriors).item(), double(batch) * time, 1e-3);
    row_case(concat(name, ", ", static_cast<int64_t>(arcs), " arcs"), 8.0 * logits.numel(),
             7 * double(batch) * time * arcs,
             [&] { raw::forward_backward(logits, lengths, fsa, leaky, true); });
  };
  const FsaBatch each = pack(acceptors, classes);
  run("lfmmi numerators", each, double(each.by_to.weight.numel()) / batch, 0);
  const FsaBatch& shared = graph.packed_denominator(Device{});
  run("lfmmi denominator", shared, double(shared.by_to.weight.numel()), 1e-5);
}

void OpsCommand::run() {
  const Device device = apply(common);
  CENTROID_CHECK(device.kind == DeviceKind::cpu,
                 "bench ops: expected --device cpu, whose kernels "
                 "and limits it measures, got ",
                 device, " (attention and train measure any device)");
  if (common.json) text_ = stderr;
  copy_ = copy_bandwidth();
  peak_ = peak_flops();
  std::fprintf(text_,
               "%d threads, OpenBLAS kernels %s, copy %.1f GB/s, fma %.0f GFLOP/s; medians of %d\n",
               num_threads(), blas_kernels().c_str(), copy_ / 1e9, peak_ / 1e9, rounds);
  const auto wanted = [&](const char* part) {
    return std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  if (wanted("pointwise")) memory_cases();
  if (wanted("matmul")) matmul_cases();
  if (wanted("rows")) row_cases();
  if (wanted("losses")) loss_cases();
  if (!common.json) return;
  std::cout << json{{"threads", num_threads()},
                    {"copy_gb_per_s", copy_ / 1e9},
                    {"peak_gflops", peak_ / 1e9},
                    {"blas_kernels", blas_kernels()},
                    {"cases", results_}}
                   .dump(2)
            << "\n";
}

}  // namespace

void register_bench_ops(CLI::App& app) {
  auto command = std::make_shared<OpsCommand>();
  CLI::App* sub = app.add_subcommand("ops", "Kernels beside the machine's limits");
  sub->add_option("--rounds", command->rounds, "Timed rounds; medians are printed")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000))
      ->group("Benchmark");
  sub->add_option("--part", command->parts, "pointwise, matmul, rows, losses")
      ->delimiter(',')
      ->check(CLI::IsMember(command->parts))
      ->capture_default_str()
      ->group("Benchmark");
  sub->add_option("--mib", command->mib, "Size of the tensors of pointwise kernels, in MiB")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096))
      ->group("Benchmark");
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
