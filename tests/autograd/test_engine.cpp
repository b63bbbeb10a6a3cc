#include <catch2/catch.hpp>
#include <limits>

#include "tests/autograd/cases.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

Tensor leaf(const std::vector<double>& values) {
  Tensor x = from_vector(values, {static_cast<int64_t>(values.size())});
  x.set_requires_grad();
  return x;
}

// y = x, with a backward of the test's own.
Tensor probe(const Tensor& x, Backward1 f) { return record("probe", raw::clone(x), {x}, f); }

struct CheckNan {
  explicit CheckNan(bool on) : before(check_nan()) { set_check_nan(on); }
  ~CheckNan() { set_check_nan(before); }
  bool before;
};

}  // namespace

TEST_CASE("a diamond adds what comes along both sides") {
  const Tensor x = leaf({2, -3});
  const Tensor shared = x * 2.0;
  backward(sum(shared * shared + shared * 5.0));  // 4 x^2 + 10 x
  CHECK(mismatch(x.grad(), {26, -14}) == "");
}

TEST_CASE("an input used twice by one operation gets both gradients") {
  const Tensor x = leaf({2, -3});
  backward(sum(x * x));
  CHECK(mismatch(x.grad(), {4, -6}) == "");
  x.set_grad({});
  backward(sum(x + x));
  CHECK(mismatch(x.grad(), {2, 2}) == "");
  x.set_grad({});
  backward(sum(x - x));
  CHECK(mismatch(x.grad(), {0, 0}) == "");
}

TEST_CASE("operations run in descending order of creation, each once") {
  std::vector<int> order;
  const Tensor x = leaf({1});
  const auto step = [&](const Tensor& in, int number) {
    return probe(in, [&order, number](const Tensor& dy) -> Grads {
      order.push_back(number);
      return {dy};
    });
  };
  const Tensor a = step(x, 1), b = step(a, 2), c = step(a, 3), d = step(x, 4);
  backward(sum(cat({step(b + c, 5), d, a}, 0)));
  CHECK(order == std::vector<int>{5, 4, 3, 2, 1});
  CHECK(mismatch(x.grad(), {4}) == "");
}

TEST_CASE("gradients of leaves accumulate over backward runs") {
  const Tensor x = leaf({2, 3});
  for (int run = 1; run <= 3; ++run) {
    backward(sum(x * x));
    CHECK(mismatch(x.grad(), {4.0 * run, 6.0 * run}) == "");
  }
}

TEST_CASE("accumulation writes into no buffer that anyone else can see") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor dy = from_vector<double>({10, 20}, {2});
  backward(a + b, dy);
  CHECK(a.grad().impl().storage != b.grad().impl().storage);
  CHECK(a.grad().impl().storage != dy.impl().storage);
  const Tensor seen = a.grad();  // a handle that a user keeps
  backward(a + b, dy);
  CHECK(mismatch(dy, {10, 20}) == "");
  CHECK(mismatch(seen, {10, 20}) == "");
  CHECK(mismatch(a.grad(), {20, 40}) == "");
  CHECK(mismatch(b.grad(), {20, 40}) == "");
  raw::fill_(a.grad(), 0);
  CHECK(mismatch(b.grad(), {20, 40}) == "");
}

TEST_CASE("an operation may return dy, a saved value or a view for several inputs") {
  const Tensor x = leaf({1, 2});
  const Tensor constant = from_vector<double>({5, 7}, {2});
  const Tensor u = x * 1.0, v = x * 1.0;
  const auto f = [saved = Saved(constant)](const Tensor& dy) -> Grads {
    return {dy, dy, saved.get(), saved.get(), raw::slice(saved.get(), 0, 0, 2)};
  };
  const Tensor y = record("odd", raw::clone(u), {u, v, u, v, u}, f);
  const Tensor z = y + y * 2.0;
  backward(z, ones({2}, DType::f64), /*retain_graph=*/true);
  // du = dy + 2 c, dv = dy + c, dx = du + dv, dy = 3
  CHECK(mismatch(x.grad(), {21, 27}) == "");
  CHECK(mismatch(constant, {5, 7}) == "");
  backward(z, ones({2}, DType::f64));
  CHECK(mismatch(x.grad(), {42, 54}) == "");
  CHECK(mismatch(constant, {5, 7}) == "");
}

TEST_CASE("the second backward adds in place when only the leaf holds the gradient") {
  const Tensor x = leaf({2, 3});
  backward(sum(x * x));
  const void* buffer = x.grad().bytes();
  backward(sum(x * x));
  CHECK(x.grad().bytes() == buffer);
}

TEST_CASE("gradients of leaves are dense") {
  const Tensor x = param({3, 4});
  backward(sum(x));  // dx is one number, repeated with stride 0
  CHECK(x.grad().is_contiguous());
  CHECK(x.grad().impl().storage->bytes == 12 * sizeof(double));
  Tensor view = raw::transpose(ones({3, 4}, DType::f64), 0, 1);
  view.set_requires_grad();
  backward(sum(view * 2.0));
  CHECK(view.grad().is_contiguous());
  CHECK(view.grad().shape() == Shape{4, 3});
}

TEST_CASE("a chain of a million operations runs and is freed without recursion", "[host]") {
  constexpr int kLength = 1000000;
  const Tensor x = leaf({1});
  {
    Tensor y = x;
    for (int i = 0; i < kLength; ++i) y = y + 1.0;
    CHECK(y.item() == 1 + kLength);
    backward(y);
    CHECK(mismatch(x.grad(), {1}) == "");
  }
  Tensor y = x;
  for (int i = 0; i < kLength; ++i) y = y * 1.0;
  y = {};  // destroyed without a backward
  CHECK(x.shared_impl().use_count() == 1);
}

TEST_CASE("a second backward throws unless the first retained the graph") {
  const Tensor x = leaf({2, 3});
  const Tensor y = sum(square(x));
  backward(y, {}, /*retain_graph=*/true);
  backward(y);
  CHECK(mismatch(x.grad(), {8, 12}) == "");
  const std::string error = error_of([&] { backward(y); });
  CHECK_THAT(error, Contains("sum: backward: the saved values were freed"));
  CHECK_THAT(error, Contains("retain_graph"));
  CHECK(mismatch(x.grad(), {8, 12}) == "");
}

TEST_CASE("saved values are freed on the way", "[host]") {
  const Tensor x = leaf(std::vector<double>(1000, 0.5));
  const uint64_t before = allocator({}).stats().active;
  const Tensor y = sum(exp(exp(exp(x))));
  const uint64_t recorded = allocator({}).stats().active;
  CHECK(recorded >= before + 3 * 8000);
  backward(y);
  CHECK(allocator({}).stats().active <= before + 8000 + 8000);  // the gradient, y, and slack
}

TEST_CASE("a saved value that was changed in place is refused") {
  const Tensor x = leaf({2, 3});
  const Tensor y = sum(square(x));
  raw::fill_(x, 5);
  const std::string error = error_of([&] { backward(y); });
  CHECK_THAT(error, Contains("square: backward: a saved value of shape (2,) was changed in place"));
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("results of recorded operations refuse changes in place") {
  const Tensor y = leaf({2, 3}) * 2.0;
  CHECK_THAT(error_of([&] { raw::add_(y, y); }), Contains("in-place change"));
}

TEST_CASE("nothing is recorded under NoGrad") {
  const Tensor x = param({3, 4});
  {
    NoGrad no_grad;
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE(needs_grad(x * 2.0));
    CHECK_FALSE(needs_grad(contiguous(x)));  // the raw operation returns x itself
    CHECK_FALSE(needs_grad(reshape(x, {3, 4})));
    {
      NoGrad again(/*off=*/false);
      CHECK(needs_grad(x * 2.0));
    }
    CHECK_FALSE(grad_enabled());
  }
  CHECK(grad_enabled());
  CHECK(needs_grad(x * 2.0));
  CHECK_FALSE(needs_grad(ones({2}) * 2.0));
}

TEST_CASE("record leaves its arguments as they are") {
  const Tensor x = param({3, 4});
  const Tensor y = contiguous(x);
  CHECK(y.grad_fn());
  CHECK_FALSE(x.grad_fn());
  CHECK(x.requires_grad());
  const Tensor z = contiguous(y);
  CHECK(z.grad_fn() != y.grad_fn());
  const Tensor cached = ones({2}, DType::f64);
  const Tensor recorded = record("cached", cached, {x}, [](const Tensor&) { return Grads{{}}; });
  CHECK(needs_grad(recorded));
  CHECK_FALSE(needs_grad(cached));
}

TEST_CASE("backward explains what it cannot do") {
  const Tensor x = param({2, 3});
  CHECK_THAT(error_of([&] { backward(x * 2.0); }),
             Contains("expected y of one element or a gradient dy, got y of shape (2, 3)"));
  CHECK_THAT(error_of([&] { backward(ones({})); }), Contains("y of shape () has no history"));
  CHECK_THAT(error_of([&] { backward(Tensor()); }), Contains("used before it was given a value"));
  CHECK_THAT(error_of([&] {
               backward(x * 2.0, ones({3, 2}, DType::f64));
             }),
             Contains("dy: expected f64 (2, 3), got f64 (3, 2)"));
  CHECK_THAT(error_of([&] {
               backward(x * 2.0, ones({2, 3}, DType::f32));
             }),
             Contains("dy: expected f64 (2, 3), got f32 (2, 3)"));
  CHECK_THAT(error_of([&] { continue_backward({x}, {x}); }),
             Contains("expected a running backward"));
}

TEST_CASE("backward from a leaf gives it the gradient") {
  const Tensor x = leaf({2});
  backward(x);
  CHECK(mismatch(x.grad(), {1}) == "");
}

TEST_CASE("gradients of the wrong shape, dtype or number name the operation") {
  const Tensor x = param({2, 3});
  const auto error = [&](Backward1 f) { return error_of([&] { backward(sum(probe(x, f))); }); };
  CHECK_THAT(error([](const Tensor&) { return Grads{ones({3}, DType::f64)}; }),
             Contains("probe: backward: gradient of input 0: expected f64 (2, 3), got f64 (3,)"));
  CHECK_THAT(error([](const Tensor&) {
               return Grads{ones({2, 3}, DType::f32)};
             }),
             Contains("probe: backward: gradient of input 0: expected f64 (2, 3), got f32 (2, 3)"));
  CHECK_THAT(error([](const Tensor& dy) {
               return Grads{dy, dy};
             }),
             Contains("probe: backward: expected 1 gradients, one per input, got 2"));
  CHECK_THAT(error([](const Tensor&) -> Grads { throw std::runtime_error("disk on fire"); }),
             Contains("probe: backward: disk on fire"));
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("no leaf changes when backward throws") {
  const Tensor x = leaf({1}), w = leaf({2});
  const Tensor bad = probe(x, [](const Tensor&) -> Grads { throw Error("no"); });
  const Tensor y = bad * w;  // w's gradient is known before `bad` runs
  CHECK_THAT(error_of([&] { backward(y); }), Contains("probe: backward: no"));
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("an undefined gradient is zero, and an operation without one does not run") {
  const Tensor x = leaf({1, 2}), w = leaf({3, 4});
  bool ran = false;
  const Tensor u = probe(x, [&](const Tensor& dy) -> Grads {
    ran = true;
    return {dy};
  });
  const Tensor y = record("half", raw::clone(w), {u, w}, [](const Tensor& dy) -> Grads {
    return {{}, dy};
  });
  backward(sum(y));
  CHECK_FALSE(ran);
  CHECK_FALSE(x.grad().defined());
  CHECK(mismatch(w.grad(), {1, 1}) == "");
}

TEST_CASE("operations are told which gradients are needed") {
  const Tensor x = leaf({1}), constant = from_vector<double>({2}, {1});
  Needs seen;
  const Tensor y = record("asked", std::vector<Tensor>{raw::clone(x), raw::clone(x)},
                          {constant, x, Tensor(), x * 1.0},
                          [&](const std::vector<Tensor>& dys, const Needs& needs) -> Grads {
                            seen = needs;
                            CHECK_FALSE(dys[0].defined());
                            CHECK(dys[1].defined());
                            return {{}, dys[1], {}, {}};
                          })[1];
  backward(y);
  CHECK(seen == Needs{false, true, false, true});
}

TEST_CASE("hooks see the complete gradient once and may replace it") {
  const Tensor x = leaf({1, 2});
  int calls = 0;
  add_hook(x, [&](const Tensor& dx) -> Tensor {
    ++calls;
    CHECK(mismatch(dx, {5, 5}) == "");
    return {};
  });
  add_hook(x, [](const Tensor& dx) { return raw::mul(dx, 10); });
  const Tensor y = sum(x * 2.0) + sum(x * 3.0);
  backward(y, {}, true);
  CHECK(calls == 1);
  CHECK(mismatch(x.grad(), {50, 50}) == "");
  backward(y);
  CHECK(calls == 2);
  CHECK(mismatch(x.grad(), {100, 100}) == "");

  CHECK_THAT(error_of([&] { add_hook(x * 2.0, {}); }), Contains("add_hook: expected a leaf"));
  CHECK_THAT(error_of([&] { add_hook(ones({2}), {}); }), Contains("add_hook: expected a leaf"));
  const Tensor w = leaf({1, 2});
  add_hook(w, [](const Tensor&) { return ones({3}, DType::f64); });
  CHECK_THAT(error_of([&] { backward(sum(w)); }),
             Contains("hook: expected a gradient f64 (2,), got f64 (3,)"));
}

TEST_CASE("the NaN check names the first operation that made one") {
  const Tensor x = leaf({1, -1});
  CHECK_NOTHROW(log(x));
  CheckNan on(true);
  CHECK_THAT(error_of([&] { exp(log(x)); }), Contains("log: forward: output 0 of shape (2,)"));
  {
    NoGrad no_grad;
    CHECK_THAT(error_of([&] { log(x); }), Contains("log: forward"));
  }
  const Tensor zero = leaf({0, 1});
  const Tensor y = sum(sqrt(zero) * 2.0);  // finite, with an infinite slope
  CHECK_THAT(error_of([&] { backward(y); }),
             Contains("sqrt: backward: gradient of input 0 of shape (2,): expected finite values"));
  CHECK_FALSE(zero.grad().defined());
  CHECK_THAT(error_of([&] { backward(zero * 2.0, full({2}, NAN, DType::f64)); }),
             Contains("backward: dy of shape (2,): expected finite values"));
  set_check_nan(false);
  const Tensor again = sum(sqrt(zero));
  CHECK_NOTHROW(backward(again));
}

TEST_CASE("a Saved value has no history and may be empty") {
  const Tensor y = leaf({1, 2}) * 2.0;
  CHECK_FALSE(needs_grad(Saved(y).get()));
  CHECK_FALSE(Saved().get().defined());
  CHECK_FALSE(Saved(Tensor()).get().defined());
  CHECK_FALSE(saved_if(false, y).get().defined());
}

TEST_CASE("a backward may run inside a backward") {
  const Tensor x = leaf({3});
  const Tensor y = probe(x, [](const Tensor& dy) -> Grads {
    Tensor inner = from_vector<double>({5}, {1});
    inner.set_requires_grad();
    NoGrad grad(false);
    backward(square(inner));
    return {raw::mul(dy, inner.grad())};
  });
  backward(y * 2.0);
  CHECK(mismatch(x.grad(), {20}) == "");
}
