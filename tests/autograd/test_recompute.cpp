#include <catch2/catch.hpp>

#include "autograd/recompute.h"
#include "tests/autograd/cases.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

struct Model {
  std::vector<Tensor> weights;
  int runs = 0;

  explicit Model(int layers, int64_t width = 16) {
    Rng rng(2);
    for (int i = 0; i < layers; ++i) {
      weights.push_back(randn({width, width}, rng, DType::f32, 0.3).set_requires_grad());
    }
  }

  // Residual, so that an input is used several times within the segment; dropout draws from `rng`.
  std::vector<Tensor> layer(const Tensor& x, size_t i, Rng& rng) {
    ++runs;
    const Tensor h = dropout(gelu(matmul(x, weights[i])), 0.3, rng);
    return {x + softmax(h) * 2.0 + tanh(matmul(h, transpose(weights[i], 0, 1))) * x};
  }

  // The loss; `segments` of the layers are recomputed.
  Tensor run(Tensor x, bool checkpointed, Rng& rng) {
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto f = [this, i, &rng](const Tensors& in) { return layer(in[0], i, rng); };
      // x is also used outside of the segment, before and after it.
      const Tensor skip = x * 0.5;
      const Tensor y = checkpointed ? recompute(f, {x}, {&rng})[0] : f({x})[0];
      x = y + skip + x * 0.1;
    }
    return mean(square(x));
  }

  Tensors take_gradients() {
    Tensors result;
    for (const Tensor& w : weights) {
      result.push_back(w.grad());
      w.set_grad({});
    }
    return result;
  }
};

}  // namespace

TEST_CASE("recomputed gradients are bit-identical, with dropout and shared weights") {
  Model model(4);
  model.weights[3] = model.weights[0];  // one parameter in two segments
  Rng data(9);
  for (const bool input_needs_grad : {true, false}) {
    Tensor x = randn({5, 16}, data, DType::f32);
    x.set_requires_grad(input_needs_grad);
    Rng rng(4, "dropout");
    const Tensor plain = model.run(x, false, rng);
    backward(plain);
    const Tensors expected = model.take_gradients();
    const Tensor expected_dx = x.grad();
    const RngState after = rng.state();
    x.set_grad({});

    Rng again(4, "dropout");
    model.runs = 0;
    const Tensor loss = model.run(x, true, again);
    CHECK(same_bits(loss.detach(), plain.detach()));
    CHECK(model.runs == 4);
    CHECK(again.state() == after);
    again.next();  // whatever happens to the generator between the two runs
    const RngState moved = again.state();
    backward(loss);
    CHECK(model.runs == 8);
    CHECK(again.state() == moved);
    const Tensors actual = model.take_gradients();
    for (size_t i = 0; i < 3; ++i) CHECK(same_bits(actual[i], expected[i]));
    CHECK(x.grad().defined() == input_needs_grad);
    if (input_needs_grad) CHECK(same_bits(x.grad(), expected_dx));
  }
}

TEST_CASE("recompute keeps only the inputs of the segments", "[host]") {
  Model model(6, 64);
  Rng data(9);
  const Tensor x = randn({500, 64}, data, DType::f32);
  uint64_t peak[2];
  for (const bool checkpointed : {false, true}) {
    Rng rng(4);
    const uint64_t before = allocator({}).stats().active;
    allocator({}).reset_peak();
    backward(model.run(x, checkpointed, rng));
    peak[checkpointed] = allocator({}).stats().peak - before;
    model.take_gradients();
  }
  INFO("plain " << peak[0] << " bytes, recomputed " << peak[1] << " bytes");
  CHECK(peak[1] * 2 < peak[0]);
}

TEST_CASE("recompute passes gradcheck, nested and with several inputs and outputs") {
  const auto inner = [](const Tensors& x) {
    return Tensors{sin(x[0]) * x[1], exp(x[1] * 0.3) + x[0]};
  };
  const auto outer = [&](const Tensors& x) {
    const Tensors y = recompute(inner, {x[0] * 2.0, x[1]});
    const Tensors z = recompute(inner, {y[1], y[0]});
    return Tensors{z[0] + x[0], tanh(z[1] * 0.1), y[0]};
  };
  const auto nested = [&](const Tensors& x) { return recompute(outer, x); };
  const GradcheckReport report = gradcheck(nested, {param({2, 3}), param({3}, -1, 1)});
  CHECK((report.ok ? "" : report.message) == "");
  const Tensor a = param({2, 3}), b = param({3});
  const auto gradients = [&](const TensorFunction& f) {
    a.set_grad({});
    b.set_grad({});
    const Tensors y = f({a, b});
    backward(sum(y[0] * y[1]));
    return Tensors{a.grad(), b.grad()};
  };
  const Tensors plain = gradients([](const Tensors& x) {
    const auto g = [](const Tensors& v) {
      return Tensors{sin(v[0]) * v[1], exp(v[1] * 0.3) + v[0]};
    };
    const Tensors y = g({x[0] * 2.0, x[1]});
    const Tensors z = g({y[1], y[0]});
    return Tensors{z[0] + x[0], tanh(z[1] * 0.1), y[0]};
  });
  const Tensors actual = gradients(nested);
  for (size_t i = 0; i < 2; ++i) CHECK(same_bits(actual[i], plain[i]));
}

TEST_CASE("recompute with an output that is an input, an index, or unused") {
  const Tensor x = param({2, 5});
  const auto f = [](const Tensors& in) {
    const auto [values, index] = topk(in[0], 2);
    return Tensors{in[0], index, values, in[0] * 3.0};
  };
  const Tensors y = recompute(f, {x});
  CHECK(y[1].dtype() == DType::i64);
  CHECK_FALSE(needs_grad(y[1]));
  backward(sum(y[0]) + sum(y[3]));
  CHECK(mismatch(x.grad(), std::vector<double>(10, 4.0)) == "");
}

TEST_CASE("nothing is recorded when nothing needs a gradient") {
  int runs = 0;
  const auto f = [&](const Tensors& in) {
    ++runs;
    return Tensors{in[0] * 2.0};
  };
  CHECK_FALSE(needs_grad(recompute(f, {ones({2})})[0]));
  {
    NoGrad no_grad;
    CHECK_FALSE(needs_grad(recompute(f, {param({2})})[0]));
  }
  CHECK(runs == 2);
  CHECK(needs_grad(recompute(f, {param({2})})[0]));
}

TEST_CASE("choices are made once and replayed, also by nested segments") {
  int chosen = 0;
  const auto pick = [&] {
    return replayable([&] {
      ++chosen;  // another choice at each call
      return Tensors{full({}, chosen, DType::f64)};
    })[0];
  };
  const auto inner = [&](const Tensors& x) { return Tensors{x[0] * pick() * x[0]}; };
  const auto outer = [&](const Tensors& x) {
    const Tensor first = x[0] * pick();
    const Tensor second = recompute(inner, {first})[0];
    return Tensors{second * pick()};
  };
  Tensor x = full({}, 2, DType::f64);
  x.set_requires_grad();
  const Tensor y = recompute(outer, {x})[0];  // ((1 x) 2 (1 x)) 3 = 6 x^2
  CHECK(y.item() == 24);
  CHECK(chosen == 3);
  backward(y, {}, /*retain_graph=*/true);
  CHECK(mismatch(x.grad(), {24}) == "");
  CHECK(chosen == 3);
  backward(y);
  CHECK(mismatch(x.grad(), {48}) == "");
  CHECK(chosen == 3);
  CHECK(pick().item() == 4);  // outside, simply a choice
}

TEST_CASE("a segment that does not repeat itself is refused") {
  const Tensor x = param({4});
  int run = 0;
  const auto run_twice = [&](const TensorFunction& f) {
    run = 0;
    const Tensor y = sum(recompute(f, {x})[0]);
    return error_of([&] { backward(y); });
  };
  CHECK_THAT(run_twice([&](const Tensors& in) { return Tensors{slice(in[0], 0, 0, 3 - run++)}; }),
             Contains("recompute: backward: the second run: result 0: expected shape (3,)"));
  CHECK_THAT(run_twice([&](const Tensors& in) {
               if (run++ == 0) replayable([] { return Tensors{}; });
               return Tensors{in[0] * 2.0};
             }),
             Contains("the second run: expected 1 choices as in the first, got 0"));
  CHECK_THAT(run_twice([&](const Tensors& in) {
               if (run++ == 1) replayable([] { return Tensors{}; });
               return Tensors{in[0] * 2.0};
             }),
             Contains("the second run asks for choice 1, the first run made 0"));
  CHECK_THAT(run_twice([&](const Tensors& in) {
               return run++ == 0 ? Tensors{in[0] * 2.0} : Tensors{in[0] * 2.0, in[0]};
             }),
             Contains("the second run: expected 1 results as in the first, got 2"));
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("an input that was changed in place between the runs is refused") {
  const Tensor x = param({4});
  const Tensor y = sum(recompute([](const Tensors& in) { return Tensors{in[0] * 2.0}; }, {x})[0]);
  raw::fill_(x, 1);
  CHECK_THAT(error_of([&] { backward(y); }),
             Contains("recompute: backward: a saved value of shape (4,) was changed in place"));
}

TEST_CASE("exceptions leave recording, choices and generators as they were") {
  const Tensor x = param({4});
  Rng rng(1);
  CHECK_THAT(error_of([&] {
               recompute([](const Tensors&) -> Tensors { throw Error("first"); }, {x}, {&rng});
             }),
             Contains("first"));
  CHECK(grad_enabled());
  int chosen = 0;
  replayable([&] { return ++chosen, Tensors{}; });
  CHECK(chosen == 1);

  bool fail = false;
  const auto f = [&](const Tensors& in) {
    if (fail) throw Error("second");
    return Tensors{dropout(in[0], 0.5, rng)};
  };
  const Tensor y = sum(recompute(f, {x}, {&rng})[0]);
  fail = true;
  const RngState state = rng.state();
  CHECK_THAT(error_of([&] { backward(y); }), Contains("recompute: backward: second"));
  CHECK(rng.state() == state);
  CHECK(grad_enabled());
  replayable([&] { return ++chosen, Tensors{}; });
  CHECK(chosen == 2);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("a long chain of recomputed segments runs and is freed without recursion", "[host]") {
  const Tensor x = param({1});
  Tensor y = x;
  const auto f = [](const Tensors& in) { return Tensors{in[0] * 1.0}; };
  for (int i = 0; i < 100000; ++i) y = recompute(f, {y})[0];
  backward(y);
  CHECK(mismatch(x.grad(), {1}) == "");
  y = x;
  for (int i = 0; i < 100000; ++i) y = recompute(f, {y})[0];
}
