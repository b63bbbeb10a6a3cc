#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// Plain softmax of n values; logarithms on request.
template <typename T>
void plain_softmax(const T* x, int64_t n, T* y, bool logarithm = false) {
  T most = -std::numeric_limits<T>::infinity(), sum = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, x[i]);
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - most);
  for (int64_t i = 0; i < n; ++i) {
    y[i] = logarithm ? x[i] - most - std::log(sum) : std::exp(x[i] - most) / sum;
  }
}

template <typename T>
std::vector<T> plain_rows(const Tensor& x, bool logarithm) {
  const std::vector<T> v = values<T>(x);
  std::vector<T> y(v.size());
  const int64_t n = x.size(-1);
  for (size_t r = 0; r < v.size(); r += n) plain_softmax(&v[r], n, &y[r], logarithm);
  return y;
}

template <typename T>
std::vector<T> plain_rows_backward(const Tensor& y, const Tensor& dy, bool logarithm,
                                   double scale) {
  const std::vector<T> vy = values<T>(y), vdy = values<T>(dy);
  std::vector<T> dx(vy.size());
  const size_t n = y.size(-1);
  for (size_t r = 0; r < vy.size(); r += n) {
    T sum = 0;
    for (size_t i = r; i < r + n; ++i) sum += logarithm ? vdy[i] : vdy[i] * vy[i];
    for (size_t i = r; i < r + n; ++i) {
      dx[i] = logarithm ? vdy[i] - std::exp(vy[i]) * sum : T(scale) * vy[i] * (vdy[i] - sum);
    }
  }
  return dx;
}

const std::vector<Shape> kRowShapes{{1}, {7}, {3, 1}, {5, 17}, {2, 3, 64}, {4, 501}, {3, 40000}};

}  // namespace

TEMPLATE_TEST_CASE("softmax and log_softmax agree with plain sums, also their backwards", "", float,
                   double) {
  Rng rng(1);
  for (const Shape& shape : kRowShapes) {
    const Tensor x = randn(shape, rng, dtype_of<TestType>(), 5);
    const Tensor dy = randn(shape, rng, dtype_of<TestType>());
    const Tensor y = raw::softmax(x), z = raw::log_softmax(x);
    INFO(shape);
    const auto rows = [&](bool logarithm) {
      return [&, logarithm]<typename U>(U) { return plain_rows<U>(x, logarithm); };
    };
    const auto back = [&](const Tensor& of, bool logarithm, double scale) {
      return [&, logarithm, scale]<typename U>(U) {
        return plain_rows_backward<U>(of, dy, logarithm, scale);
      };
    };
    CHECK(excess_of<TestType>(y, rows(false)) == "");
    CHECK(excess_of<TestType>(z, rows(true)) == "");
    CHECK(excess_of<TestType>(raw::softmax_backward(dy, y, 0.25), back(y, false, 0.25)) == "");
    CHECK(excess_of<TestType>(raw::log_softmax_backward(dy, z), back(z, true, 1)) == "");
    CHECK(same_bits(raw::softmax(strided(x)), y));
    CHECK(same_bits(raw::log_softmax(strided(x)), z));
    CHECK(same_bits(raw::softmax_backward(strided(dy), strided(y)), raw::softmax_backward(dy, y)));
  }
}

TEMPLATE_TEST_CASE("softmax of large, masked, infinite and NaN rows", "", float, double) {
  const DType dtype = dtype_of<TestType>();
  const auto softmax_of = [&](std::vector<double> row) {
    const int64_t n = static_cast<int64_t>(row.size());
    return raw::softmax(raw::cast(from_vector(row, {n}), dtype));
  };
  CHECK(mismatch(softmax_of({1e30, 1e30, -1e30}), {0.5, 0.5, 0}) == "");
  CHECK(mismatch(softmax_of({-kInf, 3, -kInf}), {0, 1, 0}) == "");
  CHECK(mismatch(softmax_of({-kInf, -kInf}), {0, 0}) == "");
  CHECK(mismatch(softmax_of({1, kNan, 2}), {kNan, kNan, kNan}) == "");
  CHECK(mismatch(softmax_of({-kInf, kNan}), {kNan, kNan}) == "");
  CHECK(mismatch(softmax_of({kInf, 1}), {kNan, kNan}) == "");
  const Tensor masked = raw::cast(from_vector<double>({-kInf, -kInf, -kInf, 0}, {2, 2}), dtype);
  CHECK(mismatch(raw::log_softmax(masked), {-kInf, -kInf, -kInf, 0}) == "");
  CHECK(raw::softmax(empty({0, 4}, dtype)).shape() == Shape{0, 4});
  CHECK(raw::softmax(empty({4, 0}, dtype)).shape() == Shape{4, 0});
}

TEST_CASE("softmax explains what it needs") {
  CHECK(error_of([] { raw::softmax(zeros({})); }) ==
        "softmax: x: expected at least one dimension, got a scalar");
  CHECK(error_of([] { raw::log_softmax(zeros({2}, DType::i64)); }) ==
        "log_softmax: x: expected f32 or f64, got i64 (raw::cast converts)");
  CHECK(error_of([] {
          raw::softmax_backward(zeros({2, 3}), zeros({3, 2}));
        }) == "softmax_backward: dy: expected shape (3, 2), got (2, 3)");
}

namespace {

struct Mask {
  Lengths queries, keys;
  bool causal;
};

template <typename T>
std::vector<T> plain_masked(const Tensor& x, double scale, const Mask& mask) {
  const int64_t heads = x.size(1), queries = x.size(2), n = x.size(3);
  const std::vector<T> v = values<T>(x);
  std::vector<T> y(v.size());
  for (int64_t r = 0; r < x.size(0) * heads * queries; ++r) {
    const int64_t b = r / (heads * queries), l = r % queries;
    if (!mask.queries.empty() && l >= mask.queries[b]) continue;
    std::vector<T> kept;
    for (int64_t s = 0; s < n; ++s) {
      const bool valid = (mask.keys.empty() || s < mask.keys[b]) && (!mask.causal || s <= l);
      if (valid) kept.push_back(T(scale) * v[r * n + s]);
    }
    plain_softmax(kept.data(), static_cast<int64_t>(kept.size()), &y[r * n]);
  }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("masked_softmax keeps valid keys only, zeros elsewhere", "", float, double) {
  Rng rng(2);
  const Lengths none, q({4, 0, 3}), k({5, 2, 0});
  for (const Shape& shape : {Shape{3, 2, 4, 5}, Shape{3, 1, 5, 5}, Shape{3, 1, 7, 5}}) {
    const Tensor x = randn(shape, rng, dtype_of<TestType>(), 3);
    for (const Mask& mask : {Mask{none, none, false}, Mask{none, none, true}, Mask{q, k, false},
                             Mask{none, k, true}, Mask{q, none, true}}) {
      for (double scale : {0.3, 1.0, -2.0}) {
        const Tensor y = raw::masked_softmax(x, scale, mask.queries, mask.keys, mask.causal);
        CHECK(excess_of<TestType>(
                  y, [&]<typename U>(U) { return plain_masked<U>(x, scale, mask); }) == "");
        CHECK(same_bits(
            raw::masked_softmax(strided(x), scale, mask.queries, mask.keys, mask.causal), y));
      }
    }
  }
}

TEST_CASE("masked_softmax does not look at masked entries", "[host]") {
  const Tensor x = full({1, 1, 2, 3}, kNan);
  for (int64_t i : {0, 3, 4}) x.data<float>()[i] = 1;
  CHECK(mismatch(raw::masked_softmax(x, 1, {}, Lengths({2}), true), {1, 0, 0, 0.5, 0.5, 0}) == "");
}

TEST_CASE("masked_softmax explains wrong lengths") {
  const Tensor x = zeros({2, 1, 3, 4});
  CHECK(error_of([&] {
          raw::masked_softmax(x, 1, {}, Lengths({4, 5}), false);
        }) == "masked_softmax: keys: length of item 1: expected 0 to 4, got 5");
  CHECK_THAT(error_of([&] { raw::masked_softmax(x, 1, Lengths({3}), {}, false); }),
             Catch::Contains("expected one per item, 2, got 1"));
  CHECK_THAT(error_of([&] {
               raw::masked_softmax(zeros({3, 4}), 1, {}, {}, false);
             }),
             Catch::Contains("(B, H, L, S)"));
}

namespace {

template <typename T>
struct PlainNorm {
  std::vector<T> y, mean, rstd, dx, dgain, dbias;
};

template <typename T>
PlainNorm<T> plain_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, const Tensor& dy,
                        double eps) {
  const int64_t n = x.size(-1), rows = x.numel() / n;
  const std::vector<T> vx = values<T>(x), vg = values<T>(gain), vb = values<T>(bias),
                       vdy = values<T>(dy);
  PlainNorm<T> r{std::vector<T>(vx.size()), std::vector<T>(rows), std::vector<T>(rows),
                 std::vector<T>(vx.size()), std::vector<T>(n),    std::vector<T>(n)};
  for (int64_t row = 0; row < rows; ++row) {
    const T *px = &vx[row * n], *pdy = &vdy[row * n];
    T mean = 0, var = 0, sum_g = 0, sum_gh = 0;
    for (int64_t i = 0; i < n; ++i) mean += px[i];
    mean /= n;
    for (int64_t i = 0; i < n; ++i) var += (px[i] - mean) * (px[i] - mean);
    const T rstd = 1 / std::sqrt(var / n + static_cast<T>(eps));
    r.mean[row] = mean, r.rstd[row] = rstd;
    for (int64_t i = 0; i < n; ++i) {
      const T h = (px[i] - mean) * rstd;
      r.y[row * n + i] = h * vg[i] + vb[i];
      r.dgain[i] += pdy[i] * h;
      r.dbias[i] += pdy[i];
      sum_g += pdy[i] * vg[i];
      sum_gh += pdy[i] * vg[i] * h;
    }
    for (int64_t i = 0; i < n; ++i) {
      const T h = (px[i] - mean) * rstd;
      r.dx[row * n + i] = rstd * (pdy[i] * vg[i] - sum_g / n - h * sum_gh / n);
    }
  }
  return r;
}

}  // namespace

TEMPLATE_TEST_CASE("layer_norm and its gradients agree with plain sums", "[host]", float, double) {
  Rng rng(3);
  const DType dtype = dtype_of<TestType>();
  for (const Shape& shape :
       {Shape{5}, Shape{4, 1}, Shape{1, 33}, Shape{3, 7, 64}, Shape{3001, 17}}) {
    const int64_t n = shape[-1];
    const Tensor x = randu(shape, rng, 1, 3, dtype), gain = randn({n}, rng, dtype);
    const Tensor bias = randn({n}, rng, dtype), dy = randn(shape, rng, dtype);
    const auto y = raw::layer_norm(x, gain, bias, 1e-3);
    const auto exact = plain_norm<long double>(x, gain, bias, dy, 1e-3);
    const auto plain = plain_norm<TestType>(x, gain, bias, dy, 1e-3);
    INFO(shape);
    CHECK(excess<TestType>(y.y, exact.y, plain.y) == "");
    CHECK(excess<TestType>(y.mean, exact.mean, plain.mean) == "");
    CHECK(excess<TestType>(y.rstd, exact.rstd, plain.rstd) == "");
    const auto g = raw::layer_norm_backward(x, gain, y.mean, y.rstd, dy, true, true, true);
    CHECK(excess<TestType>(g.dx, exact.dx, plain.dx) == "");
    CHECK(excess<TestType>(g.dgain, exact.dgain, plain.dgain) == "");
    CHECK(excess<TestType>(g.dbias, exact.dbias, plain.dbias) == "");
    CHECK(same_bits(raw::layer_norm(strided(x), strided(gain), strided(bias), 1e-3).y, y.y));
    const auto one =
        raw::layer_norm_backward(strided(x), gain, y.mean, y.rstd, strided(dy), false, true, false);
    CHECK(same_bits(one.dgain, g.dgain));
    CHECK_FALSE((one.dx.defined() || one.dbias.defined()));
    const auto dx = raw::layer_norm_backward(x, gain, y.mean, y.rstd, dy, true, false, false).dx;
    CHECK(same_bits(dx, g.dx));
  }
}

TEST_CASE("layer_norm without gain and bias is layer_norm with 1 and 0") {
  Rng rng(4);
  const Tensor x = randn({6, 9}, rng), dy = randn({6, 9}, rng);
  const Tensor one = ones({9}, DType::f64), zero = zeros({9}, DType::f64);
  const auto a = raw::layer_norm(x, {}, {}), b = raw::layer_norm(x, one, zero);
  CHECK(mismatch(a.y, b.y, 1e-15, 1e-15) == "");
  CHECK(mismatch(raw::layer_norm_backward(x, {}, a.mean, a.rstd, dy, true, false, false).dx,
                 raw::layer_norm_backward(x, one, a.mean, a.rstd, dy, true, false, false).dx, 1e-15,
                 1e-15) == "");
}

TEST_CASE("layer_norm handles constant rows, empty batches and NaN", "[host]") {
  const auto constant = raw::layer_norm(full({2, 4}, 7), {}, {});
  CHECK(mismatch(constant.y, zeros({2, 4})) == "");
  CHECK(raw::layer_norm(empty({0, 4}), {}, {}).y.shape() == Shape{0, 4});
  const Tensor none = empty({0, 4}), no_rows = empty({0});
  const auto g = raw::layer_norm_backward(none, {}, no_rows, no_rows, none, true, true, true);
  CHECK(mismatch(g.dgain, zeros({4})) == "");
  const Tensor x = zeros({2, 3}, DType::f64);
  x.data<double>()[4] = kNan;
  CHECK(mismatch(raw::layer_norm(x, {}, {}).y, {0, 0, 0, kNan, kNan, kNan}) == "");
}

TEST_CASE("row operations give the same bits on any number of threads") {
  Rng rng(5);
  const Tensor x = randn({3001, 50}, rng, DType::f32), dy = randn({3001, 50}, rng, DType::f32);
  const Tensor gain = randn({50}, rng, DType::f32), targets = randint({3001}, 50, rng);
  CHECK(same_on_any_threads([&] {
    const auto y = raw::layer_norm(x, gain, {});
    const auto g = raw::layer_norm_backward(x, gain, y.mean, y.rstd, dy, true, true, true);
    const auto loss = raw::cross_entropy(x, targets, -1, 0.1, true);
    return std::vector{y.y, g.dx, g.dgain, g.dbias, raw::softmax(x), loss.losses, loss.dlogits};
  }));
}

TEST_CASE("layer_norm explains what does not fit") {
  const Tensor x = zeros({2, 6});
  CHECK(error_of([&] { raw::layer_norm(x, zeros({5}), {}); }) ==
        "layer_norm: gain: expected shape (6,), got (5,)");
  CHECK(error_of([&] { raw::layer_norm(x, {}, zeros({6}, DType::f64)); }) ==
        "layer_norm: dtypes differ: x is f32, bias is f64 (raw::cast converts)");
  CHECK_THAT(error_of([&] {
               raw::layer_norm(zeros({2, 0}), {}, {});
             }),
             Catch::Contains("at least one element"));
  CHECK_THAT(error_of([&] {
               raw::layer_norm_backward(x, {}, zeros({3}), zeros({2}), x, true, false, false);
             }),
             Catch::Contains("mean: expected shape (2,), got (3,)"));
}

namespace {

template <typename T>
std::pair<std::vector<T>, std::vector<T>> plain_cross_entropy(const Tensor& x,
                                                              const Tensor& targets, int64_t ignore,
                                                              double smoothing) {
  const size_t n = x.size(-1);
  const std::vector<T> logs = plain_rows<T>(x, true);
  const std::vector<int64_t> target = targets.to_vector<int64_t>();
  std::vector<T> loss(target.size()), dx(logs.size());
  const T s = static_cast<T>(smoothing);
  for (size_t r = 0; r < target.size(); ++r) {
    if (target[r] == ignore) continue;
    for (size_t i = 0; i < n; ++i) {
      const T wanted = (static_cast<int64_t>(i) == target[r] ? 1 - s : T(0)) + s / n;
      loss[r] -= wanted * logs[r * n + i];
      dx[r * n + i] = std::exp(logs[r * n + i]) - wanted;
    }
  }
  return {loss, dx};
}

}  // namespace

TEMPLATE_TEST_CASE("cross_entropy and its gradient agree with plain sums", "", float, double) {
  Rng rng(6);
  for (const Shape& shape : {Shape{5}, Shape{4, 1}, Shape{3, 7}, Shape{2, 9, 51}, Shape{2, 3000}}) {
    for (double smoothing : {0.0, 0.1, 1.0}) {
      const Tensor x = randn(shape, rng, dtype_of<TestType>(), 4);
      Shape rows = shape;
      rows.erase(shape.size() - 1);
      const Tensor targets = randint(rows, shape[-1], rng);
      const int64_t ignore = rows.size() == 2 ? targets.to_vector<int64_t>()[3] : -100;
      const auto y = raw::cross_entropy(x, targets, ignore, smoothing, true);
      const auto exact = plain_cross_entropy<long double>(x, targets, ignore, smoothing);
      const auto plain = plain_cross_entropy<TestType>(x, targets, ignore, smoothing);
      INFO(shape << " smoothing " << smoothing);
      CHECK(y.losses.shape() == rows);
      CHECK(excess<TestType>(y.losses, exact.first, plain.first) == "");
      CHECK(excess<TestType>(y.dlogits, exact.second, plain.second) == "");
      const auto alone = raw::cross_entropy(strided(x), targets, ignore, smoothing, false);
      CHECK(mismatch(alone.losses, y.losses, 1e-6, 1e-6) == "");
      CHECK_FALSE(alone.dlogits.defined());
    }
  }
}

TEST_CASE("cross_entropy gives ignored positions loss 0 and gradient 0, whatever their logits") {
  const Tensor x = full({2, 3}, kNan), targets = from_vector<int64_t>({-100, 1}, {2});
  const auto y = raw::cross_entropy(x, targets, -100, 0, true);
  CHECK(mismatch(y.losses, {0, kNan}) == "");
  CHECK(mismatch(y.dlogits, {0, 0, 0, kNan, kNan, kNan}) == "");
}

TEST_CASE("cross_entropy names the target that is no class", "[host]") {
  const Tensor x = zeros({2, 2, 5});
  const auto with = [&](const Tensor& targets, double smoothing = 0) {
    return error_of([&] { raw::cross_entropy(x, targets, -100, smoothing, true); });
  };
  CHECK(with(from_vector<int64_t>({0, 4, 5, 1}, {2, 2})) ==
        "cross_entropy: target at position 2: expected 0 to 4 or the ignored -100, got 5");
  CHECK_THAT(with(from_vector<int64_t>({0, -1, 0, 1}, {2, 2})), Catch::Contains("got -1"));
  CHECK(with(zeros({2, 3}, DType::i64)) ==
        "cross_entropy: targets: expected shape (2, 2), got (2, 3)");
  CHECK(with(zeros({2, 2}, DType::i32)) == "cross_entropy: targets: expected i64, got i32");
  CHECK_THAT(with(zeros({2, 2}, DType::i64), 1.5), Catch::Contains("smoothing: expected 0 to 1"));
}

TEMPLATE_TEST_CASE("rotary turns pairs by their angle and back", "", float, double) {
  Rng rng(7);
  const DType dtype = dtype_of<TestType>();
  for (const Shape& shape :
       {Shape{2, 5, 3, 8}, Shape{1, 1, 1, 2}, Shape{2, 0, 3, 4}, Shape{3, 40, 2, 32}}) {
    const Tensor x = randn(shape, rng, dtype);
    const Tensor angles = randn({shape[1], shape[3] / 2}, rng, dtype, 10);
    const Tensor y = raw::rotary(x, angles);
    CHECK(excess_of<TestType>(y, [&]<typename U>(U) {
            const std::vector<U> vx = values<U>(x), va = values<U>(angles);
            std::vector<U> out(vx.size());
            for (size_t i = 0; i < vx.size(); i += 2) {
              const int64_t pair = static_cast<int64_t>(i) % shape[3] / 2;
              const int64_t l = static_cast<int64_t>(i) / (shape[2] * shape[3]) % shape[1];
              const U angle = va[l * shape[3] / 2 + pair];
              out[i] = vx[i] * std::cos(angle) - vx[i + 1] * std::sin(angle);
              out[i + 1] = vx[i] * std::sin(angle) + vx[i + 1] * std::cos(angle);
            }
            return out;
          }) == "");
    CHECK(mismatch(raw::rotary(y, angles, true), x, 1e-5, 1e-5) == "");
    CHECK(same_bits(raw::rotary(strided(x), strided(angles)), y));
  }
  CHECK(error_of([] {
          raw::rotary(zeros({1, 2, 3, 5}), zeros({2, 2}));
        }) == "rotary: x: expected (B, L, H, E) with even E, got (1, 2, 3, 5)");
  CHECK(error_of([] {
          raw::rotary(zeros({1, 2, 3, 4}), zeros({3, 2}));
        }) == "rotary: angles: expected shape (2, 2), got (3, 2)");
}
