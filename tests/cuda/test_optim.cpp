// Optimiser kernels: lists of parameters in one launch.
#include <catch2/catch.hpp>

#include "nn/optim.h"
#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// Around a chunk of 4096, tails of 16-byte accesses, nothing, and more tensors than one launch
// takes.
Shape size_of_parameter(size_t i) {
  constexpr int64_t kSizes[] = {1, 4096, 0, 4095, 4097, 10003, 3, 8192};
  return {i < 8 ? kSizes[i] : static_cast<int64_t>(i)};
}

Tensors parameters(size_t count, Rng& rng) {
  Tensors xs;
  for (size_t i = 0; i < count; ++i) xs.push_back(randn(size_of_parameter(i), rng));
  return xs;
}

// w, dw, m, v of each parameter.
Tensors with_state(size_t count, Rng& rng) {
  Tensors xs;
  for (const Tensor& w : parameters(count, rng)) {
    xs.push_back(w);
    xs.push_back(randn(w.shape(), rng));
    xs.push_back(randn(w.shape(), rng));
    xs.push_back(raw::square(randn(w.shape(), rng)));
  }
  return xs;
}

Tensors copies(const Tensors& xs) {
  Tensors ys;
  for (const Tensor& x : xs) ys.push_back(raw::clone(x));
  return ys;
}

Tensor scalar(double value, Device device) { return full({1}, value, DType::f64, device); }

Computation adam(const AdamRule& rule, double scale = 1) {
  return [=](const Tensors& inputs) {
    const Tensors xs = copies(inputs);
    std::vector<AdamTensors> list;
    for (size_t i = 0; i < xs.size(); i += 4) {
      const double rectify = i % 12 == 0 ? 0 : 1.0 / static_cast<double>(i + 1);
      list.push_back({xs[i], xs[i + 1], xs[i + 2], xs[i + 3], 0.01 * static_cast<double>(i % 3),
                      0.1, 0.2, rectify});
    }
    const Device device = xs[0].device();
    CENTROID_DISPATCH(device, adam_step, list, scale == 1 ? Tensor() : scalar(scale, device), rule);
    return xs;
  };
}

Computation sgd(double mu, bool nesterov, double scale = 1) {
  return [=](const Tensors& inputs) {
    const Tensors xs = copies(inputs);
    std::vector<SgdTensors> list;
    for (size_t i = 0; i < xs.size(); i += 4) {
      list.push_back({xs[i], xs[i + 1], mu == 0 ? Tensor() : xs[i + 2], 0.1});
    }
    const Device device = xs[0].device();
    CENTROID_DISPATCH(device, sgd_step, list, scale == 1 ? Tensor() : scalar(scale, device), 0.3,
                      mu, nesterov);
    return xs;
  };
}

}  // namespace

TEST_CASE("cuda: sgd_step") {
  Rng rng(1);
  const Tensors few = with_state(8, rng);
  CHECK(disagreement(sgd(0, false), few) == "");
  CHECK(disagreement(sgd(0.9, false), few) == "");
  CHECK(disagreement(sgd(0.9, true, 0.25), few) == "");
}

TEST_CASE("cuda: adam_step") {
  Rng rng(2);
  CHECK(disagreement(adam({1e-2, 0.9, 0.999, 1e-8, false}), with_state(8, rng)) == "");
  CHECK(disagreement(adam({1e-2, 0.9, 0.98, 1e-6, true}, 0.3), with_state(8, rng)) == "");
  CHECK(disagreement(adam({1e-2, 0.9, 0.98, 1e-6, true}), with_state(70, rng)) == "");
  CHECK(disagreement(adam({1e-2, 0.9, 0.98, 1e-6, true}),
                     {zeros({0}), zeros({0}), zeros({0}), zeros({0})}) == "");
}

TEST_CASE("cuda: parameters that 16-byte accesses cannot reach are stepped too") {
  Rng rng(3);
  const auto f = [](const Tensors& xs) {
    Tensors ys = copies(xs);
    for (Tensor& y : ys) y = view_of(y, 1, {y.numel() - 1}, {1});
    const std::vector<EmaTensors> list{{ys[0], ys[1]}};
    CENTROID_DISPATCH(ys[0].device(), ema_step, list, 0.25);
    return ys;
  };
  CHECK(disagreement(f, {randn({5000}, rng), randn({5000}, rng)}) == "");
}

TEST_CASE("cuda: a scale that is not finite stops the step") {
  Rng rng(4);
  const Tensors before = moved(with_floats(with_state(5, rng), DType::f32), kCuda);
  for (double bad : {double(NAN), -double(INFINITY)}) {
    for (const Tensors& after :
         {adam({1e-2, 0.9, 0.999, 1e-8, false}, bad)(before), sgd(0.9, false, bad)(before)}) {
      for (size_t i = 0; i < before.size(); ++i) {
        CHECK(same_bits(raw::to(after[i], {}), raw::to(before[i], {})));
      }
    }
  }
}

TEST_CASE("cuda: lists may mix dtypes") {
  Rng rng(5);
  const Tensor a = randn({5000}, rng, DType::f32), b = randn({3}, rng, DType::f64);
  const auto run = [&](Device device) {
    const Tensor wa = raw::clone(raw::to(a, device)), wb = raw::clone(raw::to(b, device));
    std::vector<EmaTensors> list{{wa, full({5000}, 2, DType::f32, device)},
                                 {wb, full({3}, 2, DType::f64, device)}};
    CENTROID_DISPATCH(device, ema_step, list, 0.5);
    return moved({wa, wb, raw::sum_squares({wa, wb})}, Device{});
  };
  const Tensors host = run(Device{}), device = run(kCuda);
  for (size_t i = 0; i < host.size(); ++i) CHECK(mismatch(device[i], host[i], 1e-12, 0) == "");
}

TEST_CASE("cuda: sum_squares") {
  Rng rng(6);
  const auto f = [](const Tensors& xs) { return Tensors{raw::sum_squares(xs)}; };
  CHECK(disagreement(f, parameters(8, rng)) == "");
  CHECK(disagreement(f, parameters(70, rng)) == "");
  CHECK(disagreement(f, {zeros({0}, DType::f64)}) == "");
  CHECK(disagreement(f, {full({3}, 1e30, DType::f64)}) == "");  // squares leave f32
  CHECK(disagreement(f, {full({3}, NAN, DType::f64), zeros({2}, DType::f64)}) == "");
}

TEST_CASE("cuda: optimisers with clipping on the device, and averages") {
  Rng rng(7);
  const Tensors initial = parameters(5, rng), gradients = parameters(5, rng);
  for (const char* kind : {"sgd", "adamw", "radam"}) {
    const auto f = [&](const Tensors& xs) {
      nn::NamedTensors named;
      Tensors ws;
      for (size_t i = 0; i < initial.size(); ++i) {
        ws.push_back(raw::clone(xs[i]).set_requires_grad());
        named.emplace_back(std::to_string(i), ws[i]);
      }
      nn::OptimizerOptions options;
      options.kind = kind;
      options.momentum = options.kind == "sgd" ? 0.9 : 0;
      options.decay_vectors = true;
      options.weight_decay = 0.1;
      nn::Optimizer optimizer(named, options);
      nn::Ema ema(named, 0.9);
      for (int step = 0; step < 3; ++step) {
        for (size_t i = 0; i < ws.size(); ++i) ws[i].set_grad(xs[initial.size() + i]);
        optimizer.step(0.01, nn::grad_norm(named, step == 1 ? 1000 : 0.5).scale);
        ema.update(named);
      }
      Tensors results{nn::grad_norm(named, 0).norm};
      for (size_t i = 0; i < ws.size(); ++i) {
        results.push_back(ws[i].detach());
        results.push_back(ema.averages()[i].second);
      }
      return results;
    };
    Tensors inputs = initial;
    inputs.insert(inputs.end(), gradients.begin(), gradients.end());
    CHECK(disagreement(f, inputs) == "");
  }
}
