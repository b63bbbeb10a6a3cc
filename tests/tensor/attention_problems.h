#pragma once
// Attention composed of plain operations - matmul, softmax, dropout, matmul - which the fused
// kernels are compared with, and problems to compare them on.
#include "tests/tensor/reference.h"

namespace centroid::test {

// ---- the composition ----------------------------------------------------------------------------

struct Problem {
  Tensor q, k, v;  // (B, H, L, E), (B, H, S, E), (B, H, S, D)
  Tensor visible;  // u8, expands to (B, H, L, S)
  Tensor dout, dlse;
  double scale = 1;
  WeightDropout dropout{};
};

struct Results {
  Tensor out, lse, dq, dk, dv;
  std::vector<Tensor> all() const { return {out, lse, dq, dk, dv}; }
};
inline const char* const kNames[] = {"out", "lse", "dq", "dk", "dv"};

inline Tensor drop(const Tensor& x, const WeightDropout& dropout) {
  return dropout.p > 0 ? raw::dropout(x, dropout.p, dropout.state) : x;
}

// With P the weights: d out / d scores as for any softmax, and d lse / d scores = P.
inline Results composed(const Problem& p) {
  const Tensor kt = raw::transpose(p.k, 2, 3), vt = raw::transpose(p.v, 2, 3);
  const Tensor scores = raw::mul(raw::matmul(p.q, kt), p.scale);
  const Tensor seen = raw::where(p.visible, scores, full({1}, -kInf, p.q.dtype()));
  const Tensor weights = raw::softmax(seen), dropped = drop(weights, p.dropout);
  Results r{raw::matmul(dropped, p.v), raw::logsumexp(seen, {3}), {}, {}, {}};
  r.dv = raw::matmul(raw::transpose(dropped, 2, 3), p.dout);
  const Tensor dweights = drop(raw::matmul(p.dout, vt), p.dropout);
  const Tensor dscores = raw::add(raw::softmax_backward(dweights, weights, p.scale),
                                  raw::mul(raw::mul(weights, raw::unsqueeze(p.dlse, 3)), p.scale));
  r.dq = raw::matmul(dscores, p.k);
  r.dk = raw::matmul(raw::transpose(dscores, 2, 3), p.q);
  return r;
}

inline Problem in_precision(const Problem& p, DType dtype) {
  Problem r = p;
  for (Tensor* x : {&r.q, &r.k, &r.v, &r.dout, &r.dlse}) {
    // Every precision gets the f32 values, so that rounding the inputs is no difference.
    *x = raw::cast(raw::cast(*x, DType::f32), dtype);
  }
  return r;
}

// ---- problems -----------------------------------------------------------------------------------

struct Sizes {
  int64_t batch, heads, queries, keys, width, value_width;
};

inline Problem make_problem(const Sizes& s, uint64_t seed) {
  Rng rng(seed, "attention");
  Problem p;
  p.q = randn({s.batch, s.heads, s.queries, s.width}, rng);
  p.k = randn({s.batch, s.heads, s.keys, s.width}, rng);
  p.v = randn({s.batch, s.heads, s.keys, s.value_width}, rng);
  p.dout = randn({s.batch, s.heads, s.queries, s.value_width}, rng);
  p.dlse = randn({s.batch, s.heads, s.queries}, rng);
  p.scale = 1 / std::sqrt(static_cast<double>(s.width));
  return p;
}

// The same problem in other memory: (B, L, H, E), then without any unit stride, then values that
// all heads share.
inline Problem laid_out(Problem p, int layout) {
  for (Tensor* x : {&p.q, &p.k, &p.v, &p.dout}) {
    if (layout == 1) *x = raw::transpose(raw::clone(raw::transpose(*x, 1, 2)), 1, 2);
    if (layout == 2) *x = strided(*x);
  }
  if (layout == 2) p.dlse = strided(p.dlse);
  if (layout == 3) p.v = raw::expand(raw::slice(p.v, 1, 0, 1), p.v.shape());
  return p;
}

/// One thread while it lives: thousands of small loops are not worth waking others for.
class OneThread {
 public:
  OneThread() : before_(num_threads()) { set_num_threads(1); }
  ~OneThread() { set_num_threads(before_); }
  OneThread(const OneThread&) = delete;

 private:
  int before_;
};

// ---- rounding errors in f32 ---------------------------------------------------------------------

// Collects results of f32, to be judged together: single rows have too few rounding errors for a
// ratio of the largest ones to mean anything.
struct Judge {
  std::vector<float> got, plain;
  std::vector<long double> exact;
  void add(const Tensor& fused_f32, const Tensor& composed_f32, const Tensor& composed_f64) {
    const auto g = values<float>(fused_f32), p = values<float>(composed_f32);
    const auto e = values<long double>(composed_f64);
    REQUIRE(g.size() == e.size());
    for (size_t i = 0; i < e.size(); ++i) {
      if (e[i] == -kInf && g[i] == -kInf) continue;  // the log of no sum
      got.push_back(g[i]), plain.push_back(p[i]), exact.push_back(e[i]);
    }
  }
  std::string verdict() const {
    return excess<float>(from_vector(got, {static_cast<int64_t>(got.size())}), exact, plain);
  }
};

}  // namespace centroid::test
