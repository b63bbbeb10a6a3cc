#pragma once
// What the attention battery is made of: problems, modes, and the loop over registered variants.
#include <catch2/catch.hpp>
#include <functional>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "tests/support.h"

namespace centroid::test {

using namespace centroid::nn;

// ---- problems -----------------------------------------------------------------------------------

struct Problem {
  Tensor q, k, v;  // (B, H, L, E), (B, H, S, E), (B, H, S, D)
  Lengths q_lengths{}, k_lengths{};
  bool causal = false;
};

struct Sizes {
  int64_t batch = 2, heads = 3, queries = 7, keys = 7, width = 4, value_width = 5;
};

inline Problem make_problem(const Sizes& s, uint64_t seed = 1, DType dtype = DType::f64) {
  Rng rng(seed, "problem");
  return {.q = randn({s.batch, s.heads, s.queries, s.width}, rng, dtype),
          .k = randn({s.batch, s.heads, s.keys, s.width}, rng, dtype),
          .v = randn({s.batch, s.heads, s.keys, s.value_width}, rng, dtype)};
}

// How a variant may be called: causally or not, with as many keys as queries or not.
struct Mode {
  std::string name;
  bool causal = false, cross = false;

  Sizes sizes() const { return cross ? Sizes{.queries = 7, .keys = 11} : Sizes{}; }
  // Lengths for the keys that go with `queries`.
  Lengths keys(const std::vector<int64_t>& queries, const std::vector<int64_t>& of_cross) const {
    return cross ? of_cross : queries;
  }
};

inline std::vector<Mode> modes_of(const Capabilities& can) {
  std::vector<Mode> modes;
  if (!can.causal_only) modes.push_back({.name = "self"});
  if (can.cross) modes.push_back({.name = "cross", .cross = true});
  if (can.causal) modes.push_back({.name = "causal", .causal = true});
  if (can.causal && can.cross) {
    modes.push_back({.name = "causal cross", .causal = true, .cross = true});
  }
  return modes;
}

inline Problem make_problem(const Mode& mode, uint64_t seed = 1, DType dtype = DType::f64) {
  Problem p = make_problem(mode.sizes(), seed, dtype);
  p.causal = mode.causal;
  return p;
}

// Every call draws from the same stream: variants that choose at random choose alike.
inline Tensor run(Attention& attention, const Problem& p, bool training = false,
                  Choices* record = nullptr, const Choices* replay = nullptr) {
  Rng rng(7, "battery");
  return attention.attend({.q = p.q,
                           .k = p.k,
                           .v = p.v,
                           .q_lengths = p.q_lengths,
                           .k_lengths = p.k_lengths,
                           .causal = p.causal,
                           .training = training,
                           .rng = &rng,
                           .record = record,
                           .replay = replay});
}

struct Result {
  Tensor out;
  std::vector<Tensor> grads;  // of q, k, v
};

// The output and the gradients for a fixed random cotangent.
inline Result run_with_gradients(Attention& attention, Problem p, bool training = false,
                                 Choices* record = nullptr, const Choices* replay = nullptr) {
  for (Tensor* x : {&p.q, &p.k, &p.v}) *x = raw::clone(*x).set_requires_grad();
  if (attention.capabilities().shared_qk) p.k.set_grad(zeros(p.k.shape(), p.k.dtype()));
  const Tensor out = run(attention, p, training, record, replay);
  Rng rng(3, "cotangent");
  backward(out, randn(out.shape(), rng, out.dtype()));
  return {out.detach(), {p.q.grad(), p.k.grad(), p.v.grad()}};
}

inline Tensor item(const Tensor& x, int64_t b) { return raw::slice(x, 0, b, b + 1); }
inline Tensor prefix(const Tensor& x, int64_t length) { return raw::slice(x, 2, 0, length); }
inline Tensor beyond(const Tensor& x, int64_t length) {
  return raw::slice(x, 2, length, x.size(2));
}

inline std::string not_zero(const Tensor& x) {
  return mismatch(x, zeros(x.shape(), x.dtype()), 0, 0);
}

// ---- the loop over variants ---------------------------------------------------------------------

inline std::vector<std::string> specs() {
  std::vector<std::string> all = attention_names();
  for (const std::string& name : attention_names()) {
    for (const std::string& options : make_attention(name)->capabilities().test_options) {
      all.push_back(name + ":" + options);
    }
  }
  return all;
}

// Calls f(attention, mode) for every variant in every mode it can be called in, one section each.
inline void for_each_variant(const std::function<void(Attention&, const Mode&)>& f) {
  for (const std::string& spec : specs()) {
    const auto attention = make_attention(spec);
    for (const Mode& mode : modes_of(attention->capabilities())) {
      DYNAMIC_SECTION(spec << ", " << mode.name) { f(*attention, mode); }
    }
  }
}

}  // namespace centroid::test
