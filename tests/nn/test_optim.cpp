// Optimisers against a reference in double precision, closed forms, state, clipping, averages.
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "nn/optim.h"
#include "tensor/ops.h"

using namespace centroid;
using namespace centroid::nn;
using Catch::Matchers::Contains;

namespace {

// One scalar parameter's life under each rule, straight from the papers.
struct Reference {
  OptimizerOptions o;
  double m = 0, v = 0;
  int t = 0;

  double step(double w, double dw, double lr) {
    ++t;
    if (o.kind != "adamw") dw += o.weight_decay * w;
    if (o.kind == "sgd") {
      m = o.momentum * m + dw;
      return w - lr * (o.nesterov ? dw + o.momentum * m : m);
    }
    if (o.kind == "adamw") w -= lr * o.weight_decay * w;
    m = o.beta1 * m + (1 - o.beta1) * dw;
    v = o.beta2 * v + (1 - o.beta2) * dw * dw;
    const double m_hat = m / (1 - std::pow(o.beta1, t));
    const double l = std::sqrt(v / (1 - std::pow(o.beta2, t))) + o.eps;
    if (o.kind != "radam") return w - lr * m_hat / l;
    const double rho_inf = 2 / (1 - o.beta2) - 1;
    const double b = std::pow(o.beta2, t), rho = rho_inf - 2 * t * b / (1 - b);
    if (rho <= 5) return w - lr * m_hat;
    const double r =
        std::sqrt(((rho - 4) * (rho - 2) * rho_inf) / ((rho_inf - 4) * (rho_inf - 2) * rho));
    return w - lr * r * m_hat / l;
  }
};

std::vector<OptimizerOptions> all_options() {
  std::vector<OptimizerOptions> all;
  for (const char* kind : {"sgd", "adam", "adamw", "radam"}) {
    for (double decay : {0.0, 0.1}) {
      OptimizerOptions o;
      o.kind = kind;
      o.weight_decay = decay;
      o.beta2 = 0.95;  // RAdam leaves its first steps within the 20 of the tests
      all.push_back(o);
    }
  }
  OptimizerOptions o;
  o.kind = "sgd";
  o.momentum = 0.9;
  all.push_back(o);
  o.weight_decay = 0.05;
  o.nesterov = true;
  all.push_back(o);
  return all;
}

NamedTensors make_parameters(DType dtype, uint64_t seed = 1) {
  Rng rng(seed);
  return {{"a.weight", raw::normal({3, 5}, rng, 0, 1, dtype).set_requires_grad()},
          {"a.bias", raw::normal({7}, rng, 0, 1, dtype).set_requires_grad()}};
}

// Gradients that depend on nothing but (step, parameter).
void set_grads(const NamedTensors& parameters, int step) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Tensor& w = parameters[i].second;
    Rng rng = Rng(100 + i).fork(static_cast<uint64_t>(step));
    w.set_grad(raw::normal(w.shape(), rng, 0, 2, w.dtype()));
  }
}

template <typename T>
void compare_with_reference(const OptimizerOptions& o, double tolerance) {
  const NamedTensors parameters = make_parameters(dtype_of<T>());
  std::vector<std::vector<double>> expected;
  std::vector<std::vector<Reference>> references;
  for (const auto& [name, w] : parameters) {
    Reference reference{o};
    if (w.dim() < 2) reference.o.weight_decay = 0;
    expected.emplace_back();
    for (T x : w.template to_vector<T>()) expected.back().push_back(x);
    references.emplace_back(expected.back().size(), reference);
  }
  Optimizer optimizer(parameters, o);
  for (int step = 0; step < 20; ++step) {
    const double lr = 0.05 / (1 + 0.1 * step);
    set_grads(parameters, step);
    optimizer.step(lr);
    for (size_t p = 0; p < parameters.size(); ++p) {
      const std::vector<T> grad = parameters[p].second.grad().template to_vector<T>();
      const std::vector<T> values = parameters[p].second.template to_vector<T>();
      for (size_t i = 0; i < grad.size(); ++i) {
        expected[p][i] = references[p][i].step(expected[p][i], grad[i], lr);
        INFO(o.kind << " decay " << o.weight_decay << " momentum " << o.momentum << " step " << step
                    << " " << parameters[p].first << " element " << i);
        REQUIRE(std::abs(values[i] - expected[p][i]) <=
                tolerance * std::max(1.0, std::abs(expected[p][i])));
      }
    }
  }
  CHECK(optimizer.steps() == 20);
}

std::vector<float> values(const NamedTensors& tensors) {
  std::vector<float> all;
  for (const auto& [name, w] : tensors) {
    const std::vector<float> some = w.to_vector<float>();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

OptimizerOptions of_kind(const std::string& kind) {
  OptimizerOptions o;
  o.kind = kind;
  return o;
}

}  // namespace

TEST_CASE("every optimiser takes the steps of a double-precision reference", "[optim]") {
  for (const OptimizerOptions& o : all_options()) {
    compare_with_reference<double>(o, 1e-12);
    compare_with_reference<float>(o, 2e-5);
  }
}

TEST_CASE("Adam's first step is lr * sign(gradient)", "[optim]") {
  Tensor w = from_vector<double>({1, 2, 3}, {3}).set_requires_grad();
  OptimizerOptions o = of_kind("adam");
  o.eps = 1e-30;
  Optimizer optimizer({{"w", w}}, o);
  w.set_grad(from_vector<double>({0.5, -1e-6, 1e6}, {3}));
  optimizer.step(0.25);
  const std::vector<double> expected = {0.75, 2.25, 2.75};
  for (int i = 0; i < 3; ++i) CHECK(w.to_vector<double>()[i] == Approx(expected[i]).epsilon(1e-12));
}

TEST_CASE("AdamW with a zero gradient only shrinks matrices, vectors when asked", "[optim]") {
  for (bool vectors : {false, true}) {
    Tensor w = full({2, 1}, 2, DType::f64).set_requires_grad();
    Tensor b = full({2}, 2, DType::f64).set_requires_grad();
    OptimizerOptions o = of_kind("adamw");
    o.weight_decay = 0.5;
    o.decay_vectors = vectors;
    Optimizer optimizer({{"w", w}, {"b", b}}, o);
    w.set_grad(zeros({2, 1}, DType::f64));
    b.set_grad(zeros({2}, DType::f64));
    optimizer.step(0.1);
    CHECK(w.to_vector<double>()[1] == Approx(2 * (1 - 0.1 * 0.5)));
    CHECK(b.to_vector<double>()[1] == Approx(vectors ? 1.9 : 2.0));
  }
}

TEST_CASE("momentum under a constant gradient approaches lr / (1 - mu) per step", "[optim]") {
  Tensor w = zeros({1}, DType::f64).set_requires_grad();
  OptimizerOptions o = of_kind("sgd");
  o.momentum = 0.5;
  Optimizer optimizer({{"w", w}}, o);
  double previous = 0;
  for (int i = 0; i < 60; ++i) {
    previous = w.item();
    w.set_grad(ones({1}, DType::f64));
    optimizer.step(0.1);
  }
  CHECK(previous - w.item() == Approx(0.2).epsilon(1e-9));
}

TEST_CASE("SGD on a quadratic contracts by 1 - lr", "[optim]") {
  Tensor w = full({4}, 1, DType::f64).set_requires_grad();
  Optimizer optimizer({{"w", w}}, of_kind("sgd"));
  for (int i = 0; i < 10; ++i) {
    w.set_grad(raw::clone(w.detach()));
    optimizer.step(0.25);
  }
  CHECK(w.to_vector<double>()[3] == Approx(std::pow(0.75, 10)));
}

TEST_CASE("RAdam's rectifier is 0 while rho_t <= 5 and approaches 1", "[optim]") {
  for (int t = 1; t <= 5; ++t) CHECK(radam_rectifier(t, 0.999) == 0);
  CHECK(radam_rectifier(6, 0.999) > 0);
  double previous = 0;
  for (int t = 6; t < 20000; t += 97) {
    CHECK(radam_rectifier(t, 0.999) > previous);
    previous = radam_rectifier(t, 0.999);
  }
  CHECK(previous == Approx(1).margin(1e-3));
  CHECK(radam_rectifier(1000, 0.5) == 0);  // rho_inf = 3
}

TEST_CASE("a state saved and loaded continues bit for bit", "[optim]") {
  for (const OptimizerOptions& o : all_options()) {
    const NamedTensors one = make_parameters(DType::f32);
    Optimizer first(one, o);
    for (int step = 0; step < 7; ++step) {
      set_grads(one, step);
      first.step(0.01);
    }
    const NamedTensors two = make_parameters(DType::f32);
    for (size_t i = 0; i < two.size(); ++i) raw::copy_(two[i].second, one[i].second);
    Optimizer second(two, o);
    second.load_state(first.state());
    CHECK(second.steps() == 7);
    for (int step = 7; step < 12; ++step) {
      set_grads(one, step);
      set_grads(two, step);
      first.step(0.01);
      second.step(0.01);
    }
    INFO(o.kind);
    CHECK(values(one) == values(two));
  }
}

TEST_CASE("a parameter without a gradient is left alone and starts afresh later", "[optim]") {
  const NamedTensors parameters = make_parameters(DType::f32);
  const Tensor &weight = parameters[0].second, &bias = parameters[1].second;
  Optimizer optimizer(parameters, of_kind("adam"));
  const std::vector<float> before = bias.to_vector<float>();
  for (int step = 0; step < 50; ++step) {
    weight.set_grad(ones(weight.shape()));
    optimizer.step(0.01);
  }
  CHECK(bias.to_vector<float>() == before);
  for (const auto& [name, tensor] : optimizer.state()) CHECK(!name.starts_with("a.bias"));
  bias.set_grad(full(bias.shape(), 3));
  optimizer.step(0.01);
  CHECK(before[0] - bias.to_vector<float>()[0] == Approx(0.01).epsilon(1e-3));
  optimizer.zero_grad();
  CHECK(!bias.grad().defined());
}

TEST_CASE("a state that does not fit is refused as a whole", "[optim]") {
  const NamedTensors parameters = make_parameters(DType::f32);
  Optimizer optimizer(parameters, of_kind("adam"));
  set_grads(parameters, 0);
  optimizer.step(0.01);
  NamedTensors state = optimizer.state();
  for (auto& [name, tensor] : state) {
    if (name == "a.weight.m") name = "b.weight.m";
    if (name == "a.bias.v") tensor = zeros({8});
  }
  Optimizer other(parameters, of_kind("adam"));
  CHECK_THROWS_WITH(other.load_state(state),
                    Contains("missing: a.weight.m") && Contains("unexpected: b.weight.m") &&
                        Contains("a.bias.v: expected f32 (7,), got f32 (8,)"));
  CHECK(other.steps() == 0);
  Optimizer sgd(parameters, of_kind("sgd"));
  CHECK_THROWS_WITH(sgd.load_state(optimizer.state()), Contains("unexpected: a.weight.m"));
  CHECK_THROWS_WITH(sgd.load_state({}), Contains("missing: step"));
}

TEST_CASE("wrong optimiser options name the option", "[optim]") {
  const NamedTensors parameters = make_parameters(DType::f32);
  CHECK_THROWS_WITH(Optimizer(parameters, of_kind("adamx")),
                    Contains("expected sgd, adam, adamw or radam, got 'adamx'"));
  OptimizerOptions o = of_kind("sgd");
  o.nesterov = true;
  CHECK_THROWS_WITH(Optimizer(parameters, o), Contains("nesterov"));
  o = of_kind("adam");
  o.beta2 = 1;
  CHECK_THROWS_WITH(Optimizer(parameters, o), Contains("beta2") && Contains("got 1"));
  Optimizer fine(parameters, of_kind("adam"));
  CHECK_THROWS_WITH(fine.step(std::nan("")), Contains("learning rate"));
  CHECK_THROWS_WITH(fine.step(-1), Contains("got -1"));
  CHECK_THROWS_WITH(Optimizer({parameters[0], parameters[0]}, of_kind("adam")),
                    Contains("two parameters are named 'a.weight'"));
  CHECK_THROWS_WITH(Optimizer({{"i", zeros({2}, DType::i64)}}, of_kind("adam")),
                    Contains("expected f32 or f64, got i64"));
}

TEST_CASE("clipping scales to the global norm, measures, and leaves non-finite ones", "[optim]") {
  const NamedTensors parameters = make_parameters(DType::f32);
  const Tensor &weight = parameters[0].second, &bias = parameters[1].second;
  const Tensor shared = full({3, 5}, 2);
  const auto reset = [&] {
    weight.set_grad(shared);
    bias.set_grad(full({7}, 2));
  };
  const double norm = std::sqrt(22 * 4.0);
  reset();
  CHECK(clip_grad_norm(parameters, 0) == Approx(norm));
  CHECK(weight.grad().to_vector<float>()[0] == 2);
  CHECK(clip_grad_norm(parameters, 100) == Approx(norm));
  CHECK(bias.grad().to_vector<float>()[6] == 2);
  CHECK(clip_grad_norm(parameters, 1) == Approx(norm));
  CHECK(weight.grad().to_vector<float>()[14] == Approx(2 / norm));
  CHECK(clip_grad_norm(parameters, 0) == Approx(1));
  CHECK(shared.to_vector<float>()[0] == 2);  // another owner's tensor is not scaled
  bias.set_grad({});
  CHECK(clip_grad_norm(parameters, 0.5) == Approx(std::sqrt(15 / 22.0)));
  bias.set_grad(full({7}, std::numeric_limits<double>::infinity()));
  reset();
  bias.set_grad(full({7}, std::numeric_limits<double>::infinity()));
  CHECK(!std::isfinite(clip_grad_norm(parameters, 1)));
  CHECK(weight.grad().to_vector<float>()[0] == 2);
  CHECK_THROWS_WITH(clip_grad_norm(parameters, -1), Contains("max_norm"));
}

TEST_CASE("clipping by a factor on the device steps alike and skips bad steps", "[optim]") {
  const auto run = [](bool on_device, double infinity_at) {
    const NamedTensors parameters = make_parameters(DType::f64);
    Optimizer optimizer(parameters, of_kind("adam"));
    for (int step = 0; step < 4; ++step) {
      for (const auto& [name, w] : parameters) {
        const double g = step == infinity_at ? INFINITY : 0.1 + step;
        w.set_grad(full(w.shape(), g, w.dtype()));
      }
      if (on_device) {
        const GradNorm g = grad_norm(parameters, 1);
        optimizer.step(0.1, g.scale);
        if (!std::isfinite(g.norm.item())) optimizer.retract();
      } else if (std::isfinite(clip_grad_norm(parameters, 1))) {
        optimizer.step(0.1);
      }
    }
    return std::pair{raw::clone(parameters[0].second.detach()), optimizer.steps()};
  };
  for (double infinity_at : {-1, 0, 2}) {
    const auto [w, steps] = run(true, infinity_at);
    const auto [expected, expected_steps] = run(false, infinity_at);
    CHECK(raw::max(raw::abs(raw::sub(w, expected))).item() < 1e-14);
    CHECK(steps == expected_steps);
  }
  const NamedTensors none = {{"w", zeros({2})}};
  CHECK(grad_norm(none, 1).scale.item() == 1);
  CHECK(grad_norm(none, 0).scale.item() == 1);
}

TEST_CASE("EMA follows its recurrence and swaps there and back", "[optim]") {
  Tensor w = from_vector<double>({1, -2}, {2}).set_requires_grad();
  const NamedTensors parameters = {{"w", w}};
  Ema ema(parameters, 0.9);
  double expected = 1;
  for (int i = 1; i <= 5; ++i) {
    raw::fill_(w, i);
    ema.update(parameters);
    expected = 0.9 * expected + 0.1 * i;
  }
  CHECK(ema.averages()[0].second.to_vector<double>()[0] == Approx(expected).epsilon(1e-12));
  ema.swap(parameters);
  CHECK(w.to_vector<double>()[0] == Approx(expected).epsilon(1e-12));
  CHECK(ema.averages()[0].second.to_vector<double>()[0] == 5);
  ema.swap(parameters);
  CHECK(w.to_vector<double>()[0] == 5);
  CHECK(w.requires_grad());
  CHECK_THROWS_WITH(ema.update({}), Contains("expected 1 parameters, got 0"));
  CHECK_THROWS_WITH(ema.swap({{"u", w}}), Contains("expected parameter w, got u"));
  CHECK_THROWS_WITH(Ema(parameters, 1), Contains("decay"));
}

TEST_CASE("parameters without elements do not disturb a step", "[optim]") {
  Tensor w = zeros({0, 3}).set_requires_grad();
  w.set_grad(zeros({0, 3}));
  Optimizer optimizer({{"w", w}}, of_kind("adamw"));
  optimizer.step(0.1);
  CHECK(optimizer.steps() == 1);
  CHECK(clip_grad_norm({{"w", w}}, 1) == 0);
}
