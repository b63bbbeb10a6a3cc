#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;

namespace {

struct Sgd {
  double lr, decay, mu;
  bool nesterov;
};

template <typename T>
void plain_sgd(std::vector<T>& w, const std::vector<T>& dw, std::vector<T>& v, const Sgd& s) {
  for (size_t i = 0; i < w.size(); ++i) {
    T g = dw[i] + T(s.decay) * w[i];
    if (s.mu != 0) {
      v[i] = T(s.mu) * v[i] + g;
      g = s.nesterov ? g + T(s.mu) * v[i] : v[i];
    }
    w[i] -= T(s.lr) * g;
  }
}

struct Adam {
  double lr, beta1, beta2, eps, decay;
  bool decoupled;
  double rectify;
};

// Steps `first` to `last` as the papers write them.
template <typename T>
void plain_adam(std::vector<T>& w, const std::vector<T>& dw, std::vector<T>& m, std::vector<T>& v,
                const Adam& s, int first, int last) {
  for (int t = first; t <= last; ++t) {
    const T correction1 = 1 - std::pow(T(s.beta1), T(t));
    const T correction2 = 1 - std::pow(T(s.beta2), T(t));
    for (size_t i = 0; i < w.size(); ++i) {
      T g = dw[i];
      if (s.decoupled) {
        w[i] -= T(s.lr) * T(s.decay) * w[i];
      } else {
        g += T(s.decay) * w[i];
      }
      m[i] = T(s.beta1) * m[i] + (1 - T(s.beta1)) * g;
      v[i] = T(s.beta2) * v[i] + (1 - T(s.beta2)) * g * g;
      const T mean = m[i] / correction1;
      if (s.rectify > 0) {
        w[i] -= T(s.lr) * T(s.rectify) * mean / (std::sqrt(v[i] / correction2) + T(s.eps));
      } else {
        w[i] -= T(s.lr) * mean;
      }
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("sgd_step with and without momentum, Nesterov's form and decay", "", float,
                   double) {
  Rng rng(1);
  const DType dtype = dtype_of<TestType>();
  for (const int64_t n : {0, 1, 77, 70001}) {
    for (const Sgd& s : {Sgd{0.1, 0, 0, false}, Sgd{0.1, 0.01, 0, false},
                         Sgd{0.1, 0.01, 0.9, false}, Sgd{0.1, 0.01, 0.9, true}}) {
      const Tensor w = randn({n}, rng, dtype), dw = randn({n}, rng, dtype);
      const Tensor v = s.mu != 0 ? randn({n}, rng, dtype) : Tensor();
      const auto initial_v = v.defined() ? v : zeros({n}, dtype);
      auto exact_w = values<long double>(w), exact_v = values<long double>(initial_v);
      auto plain_w = values<TestType>(w), plain_v = values<TestType>(initial_v);
      for (int step = 0; step < 3; ++step) {
        cpu::sgd_step({{w, dw, v, s.decay}}, {}, s.lr, s.mu, s.nesterov);
        plain_sgd(exact_w, values<long double>(dw), exact_v, s);
        plain_sgd(plain_w, values<TestType>(dw), plain_v, s);
      }
      CHECK(excess<TestType>(w, exact_w, plain_w) == "");
      if (v.defined()) CHECK(excess<TestType>(v, exact_v, plain_v) == "");
    }
  }
}

TEMPLATE_TEST_CASE("adam_step: Adam, AdamW and both kinds of RAdam's steps", "", float, double) {
  Rng rng(2);
  const DType dtype = dtype_of<TestType>();
  for (const int64_t n : {0, 1, 77, 70001}) {
    for (const Adam& s :
         {Adam{1e-2, 0.9, 0.999, 1e-8, 0, false, 1}, Adam{1e-2, 0.9, 0.98, 1e-6, 0.1, false, 1},
          Adam{1e-2, 0.9, 0.999, 1e-8, 0.1, true, 1}, Adam{1e-2, 0.9, 0.999, 1e-8, 0.1, true, 0.37},
          Adam{1e-2, 0.9, 0.999, 1e-8, 0, false, 0}}) {
      const Tensor w = randn({n}, rng, dtype), dw = randn({n}, rng, dtype);
      const Tensor m = zeros({n}, dtype), v = zeros({n}, dtype);
      auto exact_w = values<long double>(w), exact_m = values<long double>(m),
           exact_v = values<long double>(v);
      auto plain_w = values<TestType>(w), plain_m = values<TestType>(m),
           plain_v = values<TestType>(v);
      for (int t = 1; t <= 4; ++t) {
        cpu::adam_step(
            {{w, dw, m, v, s.decay, 1 - std::pow(s.beta1, t), 1 - std::pow(s.beta2, t), s.rectify}},
            {}, {s.lr, s.beta1, s.beta2, s.eps, s.decoupled});
      }
      plain_adam(exact_w, values<long double>(dw), exact_m, exact_v, s, 1, 4);
      plain_adam(plain_w, values<TestType>(dw), plain_m, plain_v, s, 1, 4);
      INFO("n " << n << " decay " << s.decay << " rectify " << s.rectify);
      CHECK(excess<TestType>(w, exact_w, plain_w) == "");
      CHECK(excess<TestType>(m, exact_m, plain_m) == "");
      CHECK(excess<TestType>(v, exact_v, plain_v) == "");
    }
  }
}

TEST_CASE("sum_squares adds in double precision", "[host]") {
  Rng rng(3);
  for (const int64_t n : {0, 1, 1000, 100003}) {
    const Tensor x = randn({n}, rng, DType::f32), y = zeros({1}, DType::f64);
    long double expected = 0;
    for (long double v : values<long double>(x)) expected += v * v;
    cpu::sum_squares({x}, y);
    CHECK(y.item<double>() == Approx(static_cast<double>(expected)).epsilon(1e-12));
    cpu::sum_squares({raw::cast(x, DType::f64)}, y);
    CHECK(y.item<double>() == Approx(static_cast<double>(expected)).epsilon(1e-12));
  }
  const Tensor y = zeros({1}, DType::f64);
  cpu::sum_squares({full({3}, 1e30)}, y);  // beyond f32's squares
  CHECK(y.item<double>() == Approx(3e60));
  cpu::sum_squares({full({3}, kNan)}, y);
  CHECK(std::isnan(y.item<double>()));
}

TEST_CASE("optimiser steps and sum_squares give the same bits on any number of threads") {
  Rng rng(4);
  const Tensor w0 = randn({200001}, rng, DType::f32), dw = randn({200001}, rng, DType::f32);
  CHECK(same_on_any_threads([&] {
    const Tensor w = raw::clone(w0), m = zeros({200001}), v = zeros({200001});
    const Tensor squares = zeros({1}, DType::f64);
    cpu::adam_step({{w, dw, m, v, 0.01, 0.1, 0.001, 1}}, {}, {1e-3, 0.9, 0.999, 1e-8, true});
    cpu::sgd_step({{w, dw, m, 0.01}}, {}, 1e-3, 0.9, true);
    cpu::sum_squares({w, dw}, squares);
    return std::vector{w, m, v, squares};
  }));
}

TEST_CASE("a NaN gradient makes its own weight NaN and no other", "[host]") {
  const Tensor w = ones({3}), dw = zeros({3}), m = zeros({3}), v = zeros({3});
  dw.data<float>()[1] = static_cast<float>(kNan);
  cpu::adam_step({{w, dw, m, v, 0, 0.1, 0.001, 1}}, {}, {1e-3, 0.9, 0.999, 1e-8, false});
  CHECK(mismatch(w, {1, kNan, 1}) == "");
}

TEST_CASE(
    "a list of parameters is stepped as each alone, whatever their sizes "
    "and dtypes",
    "[host]") {
  Rng rng(5);
  std::vector<AdamTensors> list, alone;
  for (const int64_t n : {1, 40000, 0, 32768, 7}) {
    const DType dtype = n == 7 ? DType::f64 : DType::f32;
    const Tensor w = randn({n}, rng, dtype), m = randn({n}, rng, dtype);
    const AdamTensors p{w, randn({n}, rng, dtype), m, raw::square(m), 0.01 * double(n), 0.1, 0.2,
                        1};
    list.push_back(p);
    alone.push_back(
        {raw::clone(p.w), p.dw, raw::clone(p.m), raw::clone(p.v), p.decay, 0.1, 0.2, 1});
  }
  const AdamRule rule{1e-3, 0.9, 0.999, 1e-8, true};
  cpu::adam_step(list, {}, rule);
  std::vector<Tensor> gradients;
  for (size_t i = 0; i < list.size(); ++i) {
    cpu::adam_step({alone[i]}, full({1}, 1, DType::f64), rule);
    CHECK(same_bits(list[i].w, alone[i].w));
    CHECK(same_bits(list[i].m, alone[i].m));
    CHECK(same_bits(list[i].v, alone[i].v));
    gradients.push_back(list[i].dw);
  }
  const Tensor together = zeros({1}, DType::f64), one = zeros({1}, DType::f64);
  cpu::sum_squares(gradients, together);
  double sum = 0;
  for (const Tensor& x : gradients) {
    cpu::sum_squares({x}, one);
    sum += one.item<double>();
  }
  CHECK(together.item<double>() == sum);
}

TEST_CASE(
    "a scale multiplies the gradients, and one that is not finite stops "
    "the step") {
  Rng rng(6);
  const Tensor w = randn({100}, rng), dw = randn({100}, rng), v = zeros({100}, DType::f64);
  const Tensor before = raw::clone(w);
  for (double bad : {kNan, -1.0 / 0.0}) {
    cpu::sgd_step({{w, dw, v, 0.1}}, full({1}, bad, DType::f64), 0.1, 0.9, false);
    cpu::adam_step({{w, dw, v, v, 0.1, 1, 1, 1}}, full({1}, bad, DType::f64), {});
  }
  CHECK(same_bits(w, before));
  CHECK(mismatch(v, zeros({100}, DType::f64)) == "");
  const Tensor half = raw::mul(dw, 0.5), other = raw::clone(w);
  cpu::sgd_step({{w, dw, {}, 0.1}}, full({1}, 0.5, DType::f64), 0.1, 0, false);
  cpu::sgd_step({{other, half, {}, 0.1}}, {}, 0.1, 0, false);
  CHECK(mismatch(w, other, 1e-14, 1e-14) == "");
}

TEST_CASE("ema_step moves averages towards values", "[host]") {
  const Tensor average = full({3}, 2), value = full({3}, 6);
  cpu::ema_step({{average, value}}, 0.25);
  CHECK(mismatch(average, {3, 3, 3}) == "");
}
