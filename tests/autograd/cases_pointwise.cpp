#include "tests/autograd/cases.h"

namespace centroid::test {
namespace {

template <typename F>
void add_binary(std::vector<Case>& cases, const std::string& name, F f, double low, double high,
                const GradcheckOptions& options = {}) {
  const struct {
    const char* what;
    Shape a, b;
  } kShapes[] = {{"same shape", {3, 5}, {3, 5}}, {"rows", {3, 5}, {5}},
                 {"columns", {3, 5}, {3, 1}},    {"both broadcast", {3, 1}, {2, 1, 4}},
                 {"scalar", {}, {2, 3}},         {"one element", {1}, {1}}};
  for (const auto& s : kShapes) {
    cases.push_back({name + ": " + s.what,
                     [f](const Tensors& x) { return Tensors{f(x[0], x[1])}; },
                     {param(s.a, low, high, 1), param(s.b, low, high, 2)},
                     options});
  }
  cases.push_back({name + ": empty",
                   [f](const Tensors& x) { return Tensors{f(x[0], x[1])}; },
                   {param({0, 3}), param({3}, low, high)},
                   zero_allowed()});
}

template <typename F>
void add_unary(std::vector<Case>& cases, const std::string& name, F f, double low = -2,
               double high = 2, GradcheckOptions options = {}) {
  for (const Shape& shape : {Shape{3, 5}, Shape{1}, Shape{}, Shape{2, 3, 4}}) {
    cases.push_back({name + ": " + to_string(shape),
                     [f](const Tensors& x) { return Tensors{f(x[0])}; },
                     {param(shape, low, high)},
                     options});
  }
  options.allow_zero = true;
  options.decision_gap = nullptr;
  cases.push_back({name + ": empty",
                   [f](const Tensors& x) { return Tensors{f(x[0])}; },
                   {param({2, 0})},
                   options});
}

}  // namespace

std::vector<Case> pointwise_cases() {
  using T = const Tensor&;
  std::vector<Case> cases;
  add_binary(
      cases, "operator+", [](T a, T b) { return a + b; }, -2, 2);
  add_binary(
      cases, "operator-", [](T a, T b) { return a - b; }, -2, 2);
  add_binary(
      cases, "operator*", [](T a, T b) { return a * b; }, -2, 2);
  add_binary(
      cases, "operator/", [](T a, T b) { return a / b; }, 0.5, 2);
  add_binary(
      cases, "pow", [](T a, T b) { return pow(a, b); }, 0.5, 2);
  // Of two single elements one is never chosen: its derivative is zero.
  GradcheckOptions choice = gap(no_ties);
  choice.allow_zero = true;
  add_binary(
      cases, "minimum", [](T a, T b) { return minimum(a, b); }, -2, 2, choice);
  add_binary(
      cases, "maximum", [](T a, T b) { return maximum(a, b); }, -2, 2, choice);
  add_binary(
      cases, "where",
      [](T a, T b) {
        // A fixed condition of b's shape, so that all three arguments broadcast.
        std::vector<uint8_t> bits(b.numel());
        for (size_t i = 0; i < bits.size(); ++i) bits[i] = i % 3 == 1;
        return where(from_vector(bits, b.shape()), a, b * 2.0 + a);
      },
      -2, 2);

  add_unary(cases, "operator-: x", [](T x) { return -x; });
  add_unary(cases, "operator+: x + 3", [](T x) { return x + 3.0; });
  add_unary(cases, "operator+: 3 + x", [](T x) { return 3.0 + x; });
  add_unary(cases, "operator-: x - 3", [](T x) { return x - 3.0; });
  add_unary(cases, "operator-: 3 - x", [](T x) { return 3.0 - x; });
  add_unary(cases, "operator*: x * 3", [](T x) { return x * 3.0; });
  add_unary(cases, "operator*: 3 * x", [](T x) { return 3.0 * x; });
  add_unary(cases, "operator/: x / 3", [](T x) { return x / 3.0; });
  add_unary(
      cases, "operator/: 3 / x", [](T x) { return 3.0 / x; }, 0.5, 2);
  add_unary(cases, "pow: cube", [](T x) { return pow(x, 3.0); });
  add_unary(
      cases, "pow: root", [](T x) { return pow(x, 0.5); }, 0.5, 2);
  add_unary(
      cases, "clamp", [](T x) { return clamp(x, -1.5, 1.5); }, -2, 2, gap(away_from({-1.5, 1.5})));
  add_unary(cases, "exp", [](T x) { return exp(x); });
  add_unary(
      cases, "log", [](T x) { return log(x); }, 0.5, 2);
  add_unary(
      cases, "sqrt", [](T x) { return sqrt(x); }, 0.5, 2);
  add_unary(
      cases, "rsqrt", [](T x) { return rsqrt(x); }, 0.5, 2);
  add_unary(cases, "tanh", [](T x) { return tanh(x); });
  add_unary(cases, "sigmoid", [](T x) { return sigmoid(x); });
  // A tensor of one element may be on the flat side of relu.
  GradcheckOptions corner = gap(away_from({0}));
  corner.allow_zero = true;
  add_unary(
      cases, "relu", [](T x) { return relu(x); }, -2, 2, corner);
  add_unary(cases, "gelu", [](T x) { return gelu(x); });
  add_unary(
      cases, "elu", [](T x) { return elu(x); }, -2, 2, gap(away_from({0})));
  add_unary(cases, "silu", [](T x) { return silu(x); });
  add_unary(cases, "softplus", [](T x) { return softplus(x); });
  add_unary(
      cases, "abs", [](T x) { return abs(x); }, -2, 2, gap(away_from({0})));
  add_unary(cases, "sin", [](T x) { return sin(x); });
  add_unary(cases, "cos", [](T x) { return cos(x); });
  add_unary(cases, "square", [](T x) { return square(x); });
  add_unary(
      cases, "unary: reciprocal", [](T x) { return unary(Unary::reciprocal, x); }, 0.5, 2);
  add_unary(cases, "cast: same", [](T x) { return cast(x, DType::f64) * 2.0; });
  return cases;
}

}  // namespace centroid::test
