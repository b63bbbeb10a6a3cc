// Every attention variant gives the same on a CUDA device as on the CPU, when it makes the same
// choices; and it makes the same choices where they follow from integers alone.
#include "tests/cuda/compare.h"
#include "tests/nn/attention_battery.h"

using namespace centroid;
using namespace centroid::test;

namespace {

Choices moved_choices(const Choices& choices, Device device) {
  Choices result;
  for (const auto& [name, tensor] : choices) result[name] = raw::to(tensor, device);
  return result;
}

Problem problem_of(const Mode& mode, const Tensors& xs) {
  Problem p{.q = xs[0], .k = xs[1], .v = xs[2]};
  p.q_lengths = Lengths({mode.sizes().queries, 4});
  p.k_lengths = mode.keys({mode.sizes().queries, 4}, {11, 5});
  p.causal = mode.causal;
  return p;
}

// The output and the gradients by q, k and v (an undefined one stays so).
Computation with_choices(Attention& attention, const Mode& mode, const Choices& choices) {
  return [&attention, mode, choices](const Tensors& xs) -> Tensors {
    const Choices here = moved_choices(choices, xs[0].device());
    Problem p = problem_of(mode, xs);
    for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::clone(*x).set_requires_grad();
    const Tensor out = run(attention, p, /*training=*/true, nullptr, &here);
    Rng rng(3, "cotangent");
    const Tensor dout = randn(out.shape(), rng, DType::f32);
    backward(out, raw::to(raw::cast(dout, out.dtype()), out.device()));
    return {out.detach(), p.q.grad(), p.k.grad(), p.v.grad()};
  };
}

}  // namespace

TEST_CASE("cuda: variants agree with the CPU for the same choices") {
  for_each_variant([](Attention& attention, const Mode& mode) {
    // The example with a kernel of its own recomputes weights from their log-sum, which costs bits
    // that the CPU's graph keeps; test_own_kernel.cpp compares it.
    if (attention.capabilities().exact_options.starts_with("stride=")) return;
    const Problem drawn = make_problem(mode, 1, DType::f32);
    const Problem p = problem_of(mode, {drawn.q, drawn.k, drawn.v});
    Choices choices;
    run(attention, p, /*training=*/true, &choices);
    CHECK(disagreement(with_choices(attention, mode, choices), {drawn.q, drawn.k, drawn.v}) == "");
  });
}

TEST_CASE("cuda: clusters are the same as the CPU's") {
  for (const char* spec : {"clustered:clusters=5", "improved-clustered:clusters=3,bits=17,topk=2",
                           "causal-improved-clustered:block=5,clusters=3,bits=16,topk=2"}) {
    const auto attention = make_attention(spec);
    Problem p = make_problem({.queries = 37, .keys = 37}, 1, DType::f32);
    p.causal = attention->capabilities().causal_only;
    Choices host, device;
    run(*attention, p, true, &host);
    for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::to(*x, kCuda);
    run(*attention, p, true, &device);
    for (const auto& [name, tensor] : host) {
      if (name == "topk" || name == "mass") continue;  // follow from sums: last bits may differ
      INFO(spec << ", " << name);
      CHECK(same_bits(tensor, raw::to(device.at(name), Device{})));
    }
  }
}
