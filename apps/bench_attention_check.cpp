// The checks of bench attention: a kernel that computes something else is not worth timing.
#include <cmath>

#include "apps/bench_attention.h"
#include "autograd/ops.h"

namespace centroid::apps {

namespace {

constexpr double kOutputTolerance = 2e-5, kGradientTolerance = 1e-4, kExactTolerance = 1e-9;

// max |a - b| / max |b|; infinite for what is not finite, so that a comparison fails.
double relative_error(const Tensor& a, const Tensor& b) {
  const Tensor wide = raw::cast(a, DType::f64), expected = raw::cast(b, DType::f64);
  if (raw::has_nonfinite(wide) || raw::has_nonfinite(expected)) return INFINITY;
  const double largest = raw::max(raw::abs(expected)).item();
  const double error = raw::max(raw::abs(raw::sub(wide, expected))).item();
  return largest > 0 ? error / largest : (error > 0 ? INFINITY : 0);
}

double largest_error(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, relative_error(a[i], b[i]));
  return largest;
}

AttentionProblem with_dtype(const AttentionProblem& p, DType dtype) {
  AttentionProblem other = p;
  for (Tensor* x : {&other.q, &other.k, &other.v, &other.dout}) {
    *x = raw::cast(x->detach(), dtype);
  }
  for (Tensor* x : {&other.q, &other.k, &other.v}) x->set_requires_grad();
  return other;
}

// softmax(q k^T / sqrt(E)) v in plain operations.
Tensor plain_attention(const AttentionProblem& p) {
  const auto heads_first = [](const Tensor& x) { return permute(x, {0, 2, 1, 3}); };
  const double scale = 1 / std::sqrt(static_cast<double>(p.q.size(3)));
  const Tensor scores = matmul(heads_first(p.q), permute(p.k, {0, 2, 3, 1}));  // (B, H, L, S)
  const Tensor weights = masked_softmax(scores, scale, p.lengths, p.lengths, p.causal);
  return heads_first(matmul(weights, heads_first(p.v)));
}

void check_precision(const BenchVariant& variant, const AttentionSizes& sizes, uint64_t seed,
                     AttentionCheck& check) {
  const int64_t length = 300;  // beyond the usual numbers of clusters; no multiple of a tile
  // The same values on both sides: what f32 rounds away is not the kernel's error.
  const AttentionProblem drawn = [&] {
    AttentionProblem p = make_attention_problem(sizes, 2, length, DType::f32, seed);
    p.lengths = Lengths({length, 211});
    return p;
  }();
  const auto attention = nn::make_attention(variant.spec);
  const AttentionProblem wide = with_dtype(drawn, DType::f64), narrow = drawn;
  nn::Choices choices;
  const Tensor expected = attend(*attention, wide, false, &choices);
  const Tensor out = attend(*attention, narrow, false, nullptr, &choices);
  CENTROID_CHECK(out.is_contiguous(), "bench: ", variant.name,
                 ": expected output in (B, L, H, D) memory");
  check.output = relative_error(out, expected);
  check.gradient = largest_error(take_gradients(narrow, out), take_gradients(wide, expected));
  CENTROID_CHECK(check.output <= kOutputTolerance && check.gradient <= kGradientTolerance,
                 "bench: ", variant.name, " in f32 differs from its f64 run: expected at most ",
                 kOutputTolerance, " of the output and ", kGradientTolerance,
                 " of the gradients, got ", check.output, " and ", check.gradient);
}

void check_exact(const BenchVariant& variant, const AttentionSizes& sizes, uint64_t seed,
                 AttentionCheck& check) {
  const nn::Capabilities can = nn::make_attention(variant.name)->capabilities();
  const std::string& options = can.exact_options;
  if (options == "-") return;
  const bool joined = options.empty() || options[0] == '(';
  const auto attention = nn::make_attention(variant.name + (joined ? "" : ":") + options);
  // As short as the options suppose.
  AttentionProblem p = make_attention_problem(sizes, 2, 11, DType::f64, seed);
  p.lengths = Lengths({11, 7});
  const Tensor out = attend(*attention, p, false);
  const std::vector<Tensor> grads = take_gradients(p, out);
  const Tensor expected = plain_attention(p);
  check.exact =
      std::max(relative_error(out, expected), largest_error(grads, take_gradients(p, expected)));
  CENTROID_CHECK(*check.exact <= kExactTolerance, "bench: ", variant.name, " with '", options,
                 "' is not full attention: expected an error of at most ", kExactTolerance,
                 ", got ", *check.exact);
}

}  // namespace

AttentionCheck check_attention(const BenchVariant& variant, const AttentionSizes& sizes,
                               uint64_t seed) {
  AttentionCheck check;
  check.name = variant.name;
  check_precision(variant, sizes, seed, check);
  if (variant.plain) check_exact(variant, sizes, seed, check);
  return check;
}

}  // namespace centroid::apps
