#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/node.h"
#include "tensor/rng.h"

namespace centroid {
namespace {

using Tensors = std::vector<Tensor>;

// The same values in memory of another order: the last two dimensions transposed, or every second
// element of a longer buffer.
Tensor rearranged(const Tensor& x) {
  if (x.dim() >= 2) return raw::transpose(raw::clone(raw::transpose(x, -1, -2)), -1, -2);
  if (x.dim() == 0) return raw::clone(x);
  const Tensor view =
      raw::slice(zeros({2 * x.size(0)}, x.dtype(), x.device()), 0, 0, 2 * x.size(0), 2);
  raw::copy_(view, x);
  return view;
}

std::string position(int64_t i, const Shape& shape) {
  Dims index = shape;
  for (int d = shape.size() - 1; d >= 0; --d) {
    index[d] = i % shape[d];
    i /= shape[d];
  }
  return to_string(index);
}

class Checker {
 public:
  Checker(const TensorFunction& f, const Tensors& inputs, const GradcheckOptions& options)
      : f_(f), options_(options), rng_(options.seed, "gradcheck") {
    bool any = false;
    for (const Tensor& x : inputs) {
      CENTROID_CHECK(!x.requires_grad() || x.dtype() == DType::f64,
                     "gradcheck: expected f64 inputs, got ", x.dtype(), " ", x.shape());
      inputs_.push_back(x.defined() ? raw::clone(x).detach() : x);
      checked_.push_back(x.requires_grad());
      any |= x.requires_grad();
    }
    CENTROID_CHECK(any, "gradcheck: expected an input that requires a gradient, got none");
    move_from_decisions();
  }

  GradcheckReport run() {
    if (const std::string problem = draw_weights(); !problem.empty()) return failed(problem);
    try {
      analytic_ = gradients(/*rearrange=*/false, /*times=*/1, /*twice=*/true);
      if (report_.message.empty()) check_variants();
    } catch (const Error& error) {
      return failed(error.what());
    }
    if (!report_.message.empty()) return report_;
    for (size_t i = 0; i < inputs_.size() && report_.message.empty(); ++i) {
      if (checked_[i]) compare_with_differences(i);
    }
    report_.ok = report_.message.empty();
    if (report_.ok) report_.message = worst_;
    return report_;
  }

 private:
  GradcheckReport failed(const std::string& message) {
    report_.ok = false;
    report_.message = message;
    return report_;
  }

  void move_from_decisions() {
    if (!options_.decision_gap) return;
    const Tensors originals = inputs_;
    for (int draw = 0; options_.decision_gap(inputs_) < options_.min_gap; ++draw) {
      CENTROID_CHECK(draw < options_.max_draws, "gradcheck: expected inputs at least ",
                     options_.min_gap, " from every decision, found none in ", options_.max_draws,
                     " draws");
      for (size_t i = 0; i < inputs_.size(); ++i) {
        if (checked_[i]) {
          inputs_[i] =
              raw::add(originals[i], raw::normal(originals[i].shape(), rng_, 0, 1, DType::f64));
        }
      }
    }
  }

  // Fresh leaves with the inputs' values.
  Tensors leaves(bool rearrange) const {
    Tensors result;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      Tensor x = inputs_[i];
      if (x.defined()) x = rearrange ? rearranged(x) : raw::clone(x);
      if (checked_[i]) x.set_requires_grad();
      result.push_back(x);
    }
    return result;
  }

  // One weight per element of every float output; says what is wrong with the outputs, if anything.
  std::string draw_weights() {
    NoGrad no_grad;
    for (const Tensor& y : f_(leaves(false))) {
      if (!y.defined() || !is_float(y.dtype())) {
        weights_.push_back({});
        continue;
      }
      if (y.dtype() != DType::f64) return concat("expected f64 outputs, got ", y.dtype());
      if (!detail::is_finite(y)) return concat("output of shape ", y.shape(), " has NaN or Inf");
      std::vector<double> w(y.numel());
      for (double& v : w) v = rng_.normal();
      weights_.push_back(from_vector(w, y.shape(), y.device()));
    }
    return "";
  }

  double loss_value(const Tensors& ys) const {
    CENTROID_CHECK(ys.size() == weights_.size(), "gradcheck: f returned ", weights_.size(),
                   " tensors, then ", ys.size());
    double total = 0;
    for (size_t i = 0; i < ys.size(); ++i) {
      if (!weights_[i].defined()) continue;
      const auto y = ys[i].to_vector<double>(), w = weights_[i].to_vector<double>();
      CENTROID_CHECK(y.size() == w.size(),
                     "gradcheck: f returned another shape for the same inputs");
      for (size_t j = 0; j < y.size(); ++j) total += w[j] * y[j];
    }
    return total;
  }

  // sum(w * f(x)), `times` times over, as one recorded operation: no other derivative is involved.
  Tensor loss(const Tensors& xs, int times) const {
    Tensors ys, ws;
    double value = 0;
    for (int k = 0; k < times; ++k) {
      const Tensors outputs = f_(xs);
      value += loss_value(outputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (!weights_[i].defined()) continue;
        ys.push_back(outputs[i]);
        ws.push_back(weights_[i]);
      }
    }
    return record("gradcheck", full({}, value, DType::f64), ys,
                  [ws](const Tensor&) -> Grads { return ws; });
  }

  // The gradients of the checked inputs, by backward; undefined where none arrived.
  Tensors gradients(bool rearrange, int times, bool twice) {
    const Tensors xs = leaves(rearrange);
    const Tensor y = loss(xs, times);
    if (needs_grad(y)) backward(y, {}, /*retain_graph=*/twice);
    Tensors result;
    for (const Tensor& x : xs) {
      result.push_back(x.defined() && x.grad().defined() ? raw::clone(x.grad()) : Tensor());
      if (twice && x.defined()) x.set_grad({});
    }
    if (twice && needs_grad(y)) {
      backward(y);
      for (size_t i = 0; i < xs.size(); ++i) compare_runs(i, xs[i], result[i]);
    }
    return result;
  }

  void compare_runs(size_t i, const Tensor& x, const Tensor& first) {
    if (!checked_[i]) return;
    const Tensor second = x.grad();
    bool same = first.defined() == second.defined();
    if (same && first.defined()) {
      const auto a = first.to_vector<double>(), b = second.to_vector<double>();
      same = a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
    }
    if (!same) failed(concat("input ", i, ": backward run twice gave different gradients"));
  }

  void check_variants() {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!detail::is_finite(analytic_[i])) {
        failed(concat("input ", i, ": the gradient that backward gives has NaN or Inf"));
        return;
      }
    }
    compare_variant("a non-contiguous input", gradients(true, 1, false), 1);
    if (report_.message.empty()) {
      compare_variant("an input used twice", gradients(false, 2, false), 2);
    }
  }

  // Rounding aside, `other` is `factor` times the analytic gradients.
  void compare_variant(const char* what, const Tensors& other, double factor) {
    for (size_t i = 0; i < inputs_.size(); ++i) {
      if (!checked_[i]) continue;
      const std::vector<double> a = values(analytic_[i], i), b = values(other[i], i);
      for (size_t j = 0; j < a.size(); ++j) {
        if (difference(factor * a[j], b[j]) <= 1e-9) continue;
        failed(concat(what, ": input ", i, " at ", position(j, inputs_[i].shape()),
                      ": expected the gradient ", factor * a[j], ", got ", b[j]));
        return;
      }
    }
  }

  std::vector<double> values(const Tensor& dx, size_t i) const {
    return dx.defined() ? dx.to_vector<double>() : std::vector<double>(inputs_[i].numel(), 0.0);
  }

  static double difference(double a, double b) {
    return std::fabs(a - b) / std::max({1.0, std::fabs(a), std::fabs(b)});
  }

  double loss_at(size_t i, int64_t j, double value) const {
    Tensors xs = leaves(false);
    std::vector<double> elements = xs[i].to_vector<double>();
    elements[j] = value;
    xs[i] = from_vector(elements, xs[i].shape(), xs[i].device());
    NoGrad no_grad;
    return loss_value(f_(xs));
  }

  void compare_with_differences(size_t i) {
    const std::vector<double> x = inputs_[i].to_vector<double>();
    const std::vector<double> analytic = values(analytic_[i], i);
    double largest = 0;
    for (size_t j = 0; j < x.size(); ++j) {
      // The step that is taken is the one that x + h and x - h, rounded, really are apart.
      const double up = x[j] + options_.step, down = x[j] - options_.step;
      const double numeric = (loss_at(i, j, up) - loss_at(i, j, down)) / (up - down);
      const double error = difference(numeric, analytic[j]);
      largest = std::max({largest, std::fabs(numeric), std::fabs(analytic[j])});
      if (std::isnan(error) || error >= report_.worst) {
        worst_ = concat("input ", i, " ", inputs_[i].shape(), " at ",
                        position(j, inputs_[i].shape()), ": numeric ", numeric, ", analytic ",
                        analytic[j], ", scaled difference ", error);
        report_.worst = error;
      }
      if (std::isnan(error)) break;
    }
    if (!(report_.worst <= options_.tolerance)) {
      failed(worst_);
    } else if (largest <= options_.tolerance && !options_.allow_zero) {
      failed(concat("input ", i, " ", inputs_[i].shape(),
                    ": vacuous: the derivative is zero everywhere (allow_zero accepts that)"));
    }
  }

  const TensorFunction& f_;
  const GradcheckOptions& options_;
  Rng rng_;
  Tensors inputs_, weights_, analytic_;
  std::vector<bool> checked_;
  std::string worst_;
  GradcheckReport report_;
};

}  // namespace

GradcheckReport gradcheck(const TensorFunction& f, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options) {
  return Checker(f, inputs, options).run();
}

}  // namespace centroid
