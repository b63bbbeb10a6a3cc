// The main kernels on usual shapes, for the counters of the virtual device (make resources): which
// blocks they start, how much memory they touch. Hidden: it checks nothing. Only what has run
// counts, so that each test waits for the device.
#include <catch2/catch.hpp>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "nn/layers.h"
#include "nn/lfmmi.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "tensor/backend.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Tensor on_device(const Shape& shape, uint64_t seed) {
  Rng rng(seed, "traffic");
  return raw::normal(shape, rng, 0, 1, DType::f32, kCuda);
}

// (B, L, H, E) memory seen as (B, H, L, E), as projections leave it.
Tensor heads(int64_t length, uint64_t seed) {
  Tensor x = on_device({1, length, 2, 64}, seed);
  x.set_requires_grad();
  return x;
}

void attend(const std::string& spec, int64_t length) {
  const auto attention = nn::make_attention(spec);
  const auto view = [](const Tensor& x) { return permute(x, {0, 2, 1, 3}); };
  const Tensor q = heads(length, 1), k = heads(length, 2), v = heads(length, 3);
  Rng rng(7, "traffic");
  const Tensor out = attention->attend({.q = view(q),
                                        .k = view(k),
                                        .v = view(v),
                                        .causal = attention->capabilities().causal_only,
                                        .training = true,
                                        .rng = &rng});
  backward(out, on_device(out.shape(), 4));
}

}  // namespace

TEST_CASE("traffic: rows, losses and elementwise kernels", "[.traffic]") {
  Tensor x = on_device({64, 384}, 1), gain = on_device({384}, 2), bias = on_device({384}, 3);
  for (Tensor* t : {&x, &gain, &bias}) t->set_requires_grad();
  Tensor y = layer_norm(gelu(x), gain, bias);
  y = softmax(y) + log_softmax(y);
  Rng data(5, "traffic");
  backward(nn::cross_entropy(y, raw::to(randint({64}, 384, data), kCuda)));
  const Tensor dropped = raw::dropout(x, 0.1, Rng(1, "traffic").reserve(1));
  raw::clone(raw::transpose(dropped, 0, 1));
  raw::sum(dropped, {0});
  raw::cumsum(x, 1);
  raw::topk(x, 8);
  raw::sort(x);
  Tensor logits = on_device({4, 40, 30}, 6);
  logits.set_requires_grad();
  const std::vector<std::vector<int32_t>> labels{{1, 2, 3}, {4, 5}, {6}, {7, 7, 8}};
  backward(nn::ctc(logits, Lengths({40, 40, 40, 40}), labels));
  const nn::LfmmiGraph graph(nn::Ngram(labels, 30, {.order = 2}), nn::Topology::one_state);
  backward(nn::lfmmi(logits, {}, labels, graph));
  cuda::synchronize(0);
}

TEST_CASE("traffic: a linear layer, an embedding and an optimiser step", "[.traffic]") {
  set_default_device(kCuda);
  Rng init(1, "traffic");
  nn::Linear linear(64, 96, init);
  nn::Embedding embedding(40, 64, init);
  set_default_device(Device{});
  nn::NamedTensors parameters = linear.named_parameters();
  for (const auto& [name, w] : embedding.named_parameters())
    parameters.emplace_back("e." + name, w);
  nn::Optimizer optimizer(parameters, {.kind = "adamw"});
  Rng data(5, "traffic");
  const Tensor index = raw::to(randint({8, 24}, 40, data), kCuda);
  backward(sum(linear.forward(embedding.forward(index))));
  optimizer.step(1e-3, nn::grad_norm(parameters, 1).scale);
  cuda::synchronize(0);
}

TEST_CASE("traffic: attention", "[.traffic]") {
  attend("full:dropout=0.1", 256);
  attend("clustered:clusters=16", 256);
  attend("improved-clustered:clusters=16,topk=32", 256);
  attend("causal-improved-clustered:block=64,clusters=8,topk=16", 256);
  attend("reformer", 128);
  attend("causal-linear", 128);
  attend("local:window=16", 256);
  set_math_mode(MathMode::tf32);
  attend("full", 128);
  set_math_mode(MathMode::bf16);
  attend("full", 128);
  set_math_mode(MathMode::f32);
  cuda::synchronize(0);
}
