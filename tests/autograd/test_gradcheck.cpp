// The checker is checked with derivatives that are wrong in the ways derivatives go wrong.
#include <catch2/catch.hpp>

#include "tests/autograd/cases.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

// y = x^2 with the given backward, which knows no x.
std::string verdict(Backward1 f) {
  const GradcheckReport report = gradcheck(
      [&](const Tensors& x) { return Tensors{record("mine", raw::square(x[0]), {x[0]}, f)}; },
      {param({3, 5})});
  return report.ok ? "ok" : report.message;
}

// y = x^2 with the given derivative; the right one is 2 x dy.
using Derivative = std::function<Tensor(const Tensor& x, const Tensor& dy)>;

std::string square_verdict(const Derivative& derivative) {
  const GradcheckReport report = gradcheck(
      [&](const Tensors& x) {
        return Tensors{record(
            "mine", raw::square(x[0]), {x[0]},
            [&, x = Saved(x[0])](const Tensor& dy) -> Grads { return {derivative(x.get(), dy)}; })};
      },
      {param({3, 5})});
  return report.ok ? "ok" : report.message;
}

}  // namespace

TEST_CASE("gradcheck accepts a right derivative and reports how close it was") {
  CHECK(square_verdict([](const Tensor& x, const Tensor& dy) {
          return raw::mul(raw::mul(x, dy), 2);
        }) == "ok");
  const GradcheckReport report =
      gradcheck([](const Tensors& x) { return Tensors{sin(x[0])}; }, {param({3, 5})});
  CHECK(report.ok);
  CHECK(report.worst > 0);
  CHECK(report.worst < 1e-8);
  CHECK_THAT(report.message, Contains("input 0 (3, 5) at (") && Contains("numeric"));
}

TEST_CASE("gradcheck rejects a wrong sign, a wrong factor, and a gradient without dy") {
  CHECK_THAT(square_verdict(
                 [](const Tensor& x, const Tensor& dy) { return raw::mul(raw::mul(x, dy), -2); }),
             Contains("numeric") && Contains("analytic"));
  CHECK_THAT(square_verdict([](const Tensor& x, const Tensor& dy) {
               return raw::mul(raw::mul(x, dy), 2.001);
             }),
             Contains("numeric"));
  CHECK_THAT(square_verdict([](const Tensor& x, const Tensor&) { return raw::mul(x, 2); }),
             Contains("numeric"));
}

TEST_CASE("gradcheck names the worst of several wrong elements") {
  const std::string message = square_verdict([](const Tensor& x, const Tensor& dy) {
    const Tensor dx = raw::mul(raw::mul(x, dy), 2);
    raw::add_(raw::select(raw::select(dx, 0, 0), 0, 2), ones({}, DType::f64));
    raw::add_(raw::select(raw::select(dx, 0, 2), 0, 4), ones({}, DType::f64));
    raw::fill_(raw::select(raw::select(dx, 0, 1), 0, 3), 100);
    return dx;
  });
  CHECK_THAT(message, Contains("input 0 (3, 5) at (1, 3): numeric") && Contains("analytic 100"));
}

TEST_CASE("gradcheck rejects NaN") {
  CHECK_THAT(verdict([](const Tensor& dy) { return Grads{raw::mul(dy, NAN)}; }),
             Contains("input 0: the gradient that backward gives has NaN or Inf"));
  const GradcheckReport report =
      gradcheck([](const Tensors& x) { return Tensors{log(x[0])}; }, {param({3}, -2, -1)});
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message, Contains("output of shape (3,) has NaN or Inf"));
  // Finite at the input, NaN within one step of it.
  const GradcheckReport near =
      gradcheck([](const Tensors& x) { return Tensors{log(x[0])}; }, {param({3}, 4e-6, 5e-6)});
  CHECK_FALSE(near.ok);
  CHECK_THAT(near.message, Contains("numeric") && Contains("nan"));
}

TEST_CASE("gradcheck rejects missing gradients and missing broadcast sums") {
  CHECK_THAT(verdict([](const Tensor&) { return Grads{{}}; }), Contains("analytic 0"));
  const auto no_sum = [](const Tensors& x) {
    return Tensors{record("mine", raw::add(x[0], x[1]), {x[0], x[1]}, [](const Tensor& dy) {
      return Grads{dy, dy};
    })};
  };
  const GradcheckReport report = gradcheck(no_sum, {param({3, 5}), param({5})});
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message,
             Contains("mine: backward: gradient of input 1: expected f64 (5,), got f64 "
                      "(3, 5) (raw::sum_to undoes a broadcast)"));
  CHECK_THAT(verdict([](const Tensor&) {
               return Grads{ones({5, 3}, DType::f64)};
             }),
             Contains("expected f64 (3, 5), got f64 (5, 3)"));
}

TEST_CASE("gradcheck rejects vacuous checks unless told otherwise") {
  const auto constant = [](const Tensors& x) { return Tensors{sum(x[0]) * 0.0, x[1]}; };
  GradcheckReport report = gradcheck(constant, {param({3}), param({2})});
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message, Contains("input 0 (3,): vacuous"));
  CHECK(gradcheck(constant, {param({3}), param({2})}, zero_allowed()).ok);
  const auto detached = [](const Tensors& x) { return Tensors{raw::clone(x[0]).detach()}; };
  report = gradcheck(detached, {param({3})}, zero_allowed());
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message, Contains("analytic 0"));
  const auto unrelated = [](const Tensors&) { return Tensors{ones({2}, DType::f64)}; };
  CHECK_THAT(gradcheck(unrelated, {param({3})}).message, Contains("vacuous"));
}

TEST_CASE("gradcheck notices a backward that changes what it saved") {
  const GradcheckReport report = gradcheck(
      [](const Tensors& x) {
        const Tensor kept = raw::mul(x[0], 2);
        return Tensors{record("mine", raw::square(x[0]), {x[0]}, [kept](const Tensor& dy) -> Grads {
          const Tensor dx = raw::mul(kept, dy);
          raw::fill_(kept, 0);
          return {dx};
        })};
      },
      {param({3, 5})});
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message, Contains("input 0: backward run twice gave different gradients"));
}

TEST_CASE("gradcheck notices a derivative that is right for contiguous inputs only") {
  const GradcheckReport report = gradcheck(
      [](const Tensors& x) {
        const bool dense = x[0].is_contiguous();
        return Tensors{record("mine", raw::square(x[0]), {x[0]},
                              [dense, x = Saved(x[0])](const Tensor& dy) -> Grads {
                                return {raw::mul(raw::mul(x.get(), dy), dense ? 2 : 3)};
                              })};
      },
      {param({3, 5})});
  CHECK_FALSE(report.ok);
  CHECK_THAT(report.message, Contains("a non-contiguous input: input 0 at ("));
}

TEST_CASE("gradcheck redraws inputs that are near a decision, and gives up in the end") {
  Tensor x = zeros({4}, DType::f64);
  x.set_requires_grad();
  GradcheckOptions options = gap(away_from({0}), 1e-2);
  const auto f = [](const Tensors& in) { return Tensors{abs(in[0])}; };
  CHECK(gradcheck(f, {x}, options).ok);
  CHECK_FALSE(gradcheck(f, {x}).ok);
  options.decision_gap = [](const Tensors&) { return 0.0; };
  CHECK_THAT(error_of([&] { gradcheck(f, {x}, options); }),
             Contains("gradcheck: expected inputs at least 0.01 from every decision, found none in "
                      "100 draws"));
}

TEST_CASE("gradcheck explains inputs it cannot use") {
  const auto f = [](const Tensors& x) { return x; };
  CHECK_THAT(error_of([&] { gradcheck(f, {ones({2}, DType::f64)}); }),
             Contains("expected an input that requires a gradient"));
  Tensor x = ones({2}, DType::f32);
  x.set_requires_grad();
  CHECK_THAT(error_of([&] { gradcheck(f, {x}); }), Contains("expected f64 inputs, got f32 (2,)"));
  CHECK_THAT(
      gradcheck([](const Tensors& in) { return Tensors{cast(in[0], DType::f32)}; }, {param({2})})
          .message,
      Contains("expected f64 outputs, got f32"));
}

TEST_CASE("gradcheck leaves the caller's inputs alone") {
  const Tensor x = param({3});
  const std::vector<double> before = x.to_vector<double>();
  CHECK(gradcheck([](const Tensors& in) { return Tensors{exp(in[0])}; }, {x}).ok);
  CHECK(x.to_vector<double>() == before);
  CHECK_FALSE(x.grad().defined());
}
