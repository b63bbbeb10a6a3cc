#include "tests/tensor/reference.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// (N, M, K) x (N, K, P), both contiguous.
template <typename T>
std::vector<T> plain_product(const Tensor& a, const Tensor& b) {
  const int64_t n = a.size(0), m = a.size(1), k = a.size(2), p = b.size(2);
  const std::vector<T> va = values<T>(a), vb = values<T>(b);
  std::vector<T> y(n * m * p);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t r = 0; r < m; ++r) {
      for (int64_t c = 0; c < p; ++c) {
        T sum = 0;
        for (int64_t j = 0; j < k; ++j) {
          sum += va[(i * m + r) * k + j] * vb[(i * k + j) * p + c];
        }
        y[(i * m + r) * p + c] = sum;
      }
    }
  }
  return y;
}

template <typename T>
std::string product_excess(const Tensor& y, const Tensor& a3, const Tensor& b3) {
  return excess_of<T>(y, [&]<typename U>(U) { return plain_product<U>(a3, b3); });
}

// The last two dimensions in column-major memory.
Tensor column_major(const Tensor& x) {
  return raw::transpose(raw::clone(raw::transpose(x, -1, -2)), -1, -2);
}

// Part of a wider and taller buffer.
Tensor inside_larger(const Tensor& x) {
  const Tensor buffer = full({x.size(0) + 3, x.size(1) + 5}, kNan, x.dtype());
  const Tensor part = raw::slice(raw::slice(buffer, 0, 1, 1 + x.size(0)), 1, 2, 2 + x.size(1));
  raw::copy_(part, x);
  return part;
}

Tensor batch_of_one(const Tensor& x) { return raw::unsqueeze(raw::contiguous(x), 0); }

}  // namespace

TEMPLATE_TEST_CASE("matmul agrees with the triple loop for odd sizes and every layout", "", float,
                   double) {
  Rng rng(1);
  for (const auto& [m, k, p] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {1, 7, 1}, {7, 1, 5}, {3, 17, 33}, {33, 5, 2}, {1, 65, 40}, {40, 65, 1}}) {
    const Tensor a = randn({m, k}, rng, dtype_of<TestType>());
    const Tensor b = randn({k, p}, rng, dtype_of<TestType>());
    const Tensor stepped =
        raw::slice(raw::clone(raw::expand(raw::unsqueeze(a, 2), {m, k, 2})), 2, 0, 1);
    for (const Tensor& left : {a, column_major(a), inside_larger(a), raw::squeeze(stepped, 2)}) {
      for (const Tensor& right : {b, column_major(b), inside_larger(b)}) {
        CHECK(product_excess<TestType>(raw::matmul(left, right), batch_of_one(a),
                                       batch_of_one(b)) == "");
      }
    }
  }
}

TEST_CASE("matmul with an inner size of 0 gives zeros, with an outer size of 0 nothing") {
  CHECK(mismatch(raw::matmul(empty({2, 0}), empty({0, 3})), zeros({2, 3}), 0, 0) == "");
  CHECK(raw::matmul(empty({0, 4}), empty({4, 3})).shape() == Shape{0, 3});
  CHECK(raw::matmul(empty({5, 2, 4}), empty({5, 4, 0})).shape() == Shape{5, 2, 0});
  CHECK(raw::matmul(empty({0, 2, 4}), empty({4, 3})).shape() == Shape{0, 2, 3});
}

TEST_CASE("matmul treats 1-D arguments as NumPy does") {
  const Tensor a = from_vector<double>({1, 2, 3}, {3});
  const Tensor b = from_vector<double>({1, 0, 2, -1, 0, 1}, {3, 2});
  CHECK(raw::matmul(a, a).shape() == Shape{});
  CHECK(raw::matmul(a, a).item<double>() == 14);
  CHECK(mismatch(raw::matmul(a, b), from_vector<double>({5, 1}, {2})) == "");
  CHECK(mismatch(raw::matmul(raw::transpose(b, 0, 1), a), from_vector<double>({5, 1}, {2})) == "");
  const Tensor batch = raw::expand(b, {4, 3, 2});
  CHECK(raw::matmul(a, batch).shape() == Shape{4, 2});
  CHECK(raw::matmul(raw::transpose(batch, 1, 2), a).shape() == Shape{4, 2});
  CHECK(mismatch(raw::matmul(strided(a), b), from_vector<double>({5, 1}, {2})) == "");
}

TEMPLATE_TEST_CASE("matmul broadcasts batch dimensions", "", float, double) {
  Rng rng(2);
  const DType dtype = dtype_of<TestType>();
  const auto check = [&](const Shape& sa, const Shape& sb, const Shape& batch) {
    const Tensor a = randn(sa, rng, dtype), b = randn(sb, rng, dtype);
    Shape full_a = batch, full_b = batch;
    full_a.push_back(a.size(-2)), full_a.push_back(a.size(-1));
    full_b.push_back(b.size(-2)), full_b.push_back(b.size(-1));
    const auto flat = [](const Tensor& x, const Shape& shape) {
      return raw::reshape(raw::contiguous(raw::expand(x, shape)), {-1, x.size(-2), x.size(-1)});
    };
    Shape expected = batch;
    expected.push_back(a.size(-2)), expected.push_back(b.size(-1));
    for (const Tensor& left : {a, column_major(a), strided(a)}) {
      const Tensor y = raw::matmul(left, b);
      CHECK(y.shape() == expected);
      CHECK(product_excess<TestType>(y, flat(a, full_a), flat(b, full_b)) == "");
    }
  };
  check({5, 3, 4}, {4, 6}, {5});
  check({3, 4}, {5, 4, 6}, {5});
  check({2, 5, 3, 4}, {5, 4, 6}, {2, 5});
  check({2, 1, 3, 4}, {5, 4, 6}, {2, 5});
  check({2, 5, 3, 4}, {2, 5, 4, 1}, {2, 5});
  check({2, 1, 2, 3, 4}, {3, 1, 4, 2}, {2, 3, 2});
  check({1, 1, 30, 70}, {3, 70, 50}, {1, 3});
  check({70, 2, 3}, {70, 3, 2}, {70});  // more items than panels
}

TEST_CASE("matmul reads heads of (B, L, H, E) memory without copies", "[host]") {
  Rng rng(3);
  for (int64_t length : {5, 230}) {  // below and above the work that makes a call worthwhile
    const Tensor q = randn({2, length, 3, 8}, rng), k = randn({2, length, 3, 8}, rng);
    const Tensor heads_q = raw::transpose(q, 1, 2);
    const Tensor heads_k = raw::permute(k, {0, 2, 3, 1});
    const auto before = allocator({}).stats().allocations;
    const Tensor y = raw::matmul(heads_q, heads_k);
    const auto after = allocator({}).stats().allocations;
    if (length > 100) CHECK(after - before == 1);  // the result
    CHECK(product_excess<double>(y, raw::reshape(raw::contiguous(heads_q), {6, length, 8}),
                                 raw::reshape(raw::contiguous(heads_k), {6, 8, length})) == "");
  }
}

TEST_CASE("matmul walks batch dimensions in any order of memory") {
  Rng rng(8);
  const Tensor a = raw::permute(randn({2, 2, 3, 80, 80}, rng), {2, 1, 0, 3, 4});
  const Tensor b = randn({3, 2, 2, 80, 80}, rng);
  const auto flat = [](const Tensor& x) { return raw::reshape(raw::contiguous(x), {12, 80, 80}); };
  CHECK(product_excess<double>(raw::matmul(a, b), flat(a), flat(b)) == "");
}

TEST_CASE("matmul uses transposed views as they are", "[host]") {
  const Tensor a = ones({300, 40}), b = ones({300, 50});
  const auto before = allocator({}).stats().allocations;
  const Tensor y = raw::matmul(raw::transpose(a, 0, 1), b);
  CHECK(allocator({}).stats().allocations - before == 1);
  CHECK(mismatch(y, full({40, 50}, 300)) == "");
}

TEST_CASE("matmul of large sizes is right in every panel, on any number of threads") {
  Rng rng(4);
  struct Case {
    int64_t n, m, k, p;
    bool column_major_a, column_major_b;
  };
  for (const Case& c : {Case{1, 1501, 40, 333, false, true}, Case{1, 97, 1301, 201, true, false},
                        Case{3, 211, 33, 190, false, false}, Case{24, 50, 16, 50, false, true},
                        Case{1, 2100, 8, 1100, true, true}, Case{2, 171, 171, 171, true, false}}) {
    const Tensor a = randn({c.n, c.m, c.k}, rng, DType::f32);
    const Tensor b = randn({c.n, c.k, c.p}, rng, DType::f32);
    const Tensor left = c.column_major_a ? column_major(a) : a;
    const Tensor right = c.column_major_b ? column_major(b) : b;
    CHECK(product_excess<float>(raw::matmul(left, right), a, b) == "");
    CHECK(same_on_any_threads([&] { return std::vector{raw::matmul(left, right)}; }));
  }
}

TEST_CASE("matmul of a batch with one shared matrix is one tall product") {
  Rng rng(5);
  const Tensor a = randn({6, 50, 30}, rng, DType::f32), w = randn({30, 20}, rng, DType::f32);
  CHECK(same_bits(raw::matmul(a, w),
                  raw::reshape(raw::matmul(raw::reshape(a, {300, 30}), w), {6, 50, 20})));
  const Tensor rows = randn({3000, 30}, rng, DType::f32);
  const Tensor odd = view_of(rows, 0, {3000, 1, 30}, {30, 7777, 1});  // its stride does not matter
  CHECK(same_bits(raw::matmul(odd, w), raw::unsqueeze(raw::matmul(rows, w), 1)));
  const Tensor part = raw::slice(a, 1, 3, 43);  // rows do not follow each other
  CHECK(same_bits(raw::matmul(part, w), raw::matmul(raw::contiguous(part), w)));
}

TEST_CASE("matmul lets NaN and infinity through, also times 0, and only to their rows", "[host]") {
  const Tensor a = zeros({20, 30}, DType::f64), b = zeros({30, 10}, DType::f64);
  a.data<double>()[3 * 30 + 29] = kNan;
  b.data<double>()[17 * 10 + 4] = kInf;
  const std::vector<double> y = raw::matmul(a, b).to_vector<double>();
  for (int r = 0; r < 20; ++r) {
    for (int c = 0; c < 10; ++c) CHECK(std::isnan(y[r * 10 + c]) == (r == 3 || c == 4));
  }
}

TEST_CASE("matmul explains what does not fit") {
  const Tensor a = zeros({8, 128, 64});
  CHECK(error_of([&] {
          raw::matmul(a, zeros({8, 32, 128}));
        }) == "matmul: inner sizes differ: a is (8, 128, 64), b is (8, 32, 128): 64 vs 32");
  CHECK(error_of([&] {
          raw::matmul(a, zeros({8, 128, 64}));
        }) ==
        "matmul: inner sizes differ: a is (8, 128, 64), b is (8, 128, 64): 64 vs 128 "
        "(transpose b?)");
  CHECK_THAT(error_of([&] {
               raw::matmul(a, zeros({3, 64, 2}));
             }),
             Catch::Contains("matmul") && Catch::Contains("(8,)") && Catch::Contains("(3,)"));
  CHECK(error_of([&] {
          raw::matmul(a, zeros({64, 2}, DType::f64));
        }) == "matmul: dtypes differ: a is f32, b is f64 (raw::cast converts)");
  CHECK(error_of([&] {
          raw::matmul(zeros({2, 2}, DType::i64), zeros({2, 2}, DType::i64));
        }) == "matmul: a: expected f32 or f64, got i64 (raw::cast converts)");
  CHECK_THAT(error_of([&] { raw::matmul(zeros({}), a); }),
             Catch::Contains("at least one dimension"));
  CHECK_THAT(error_of([&] { raw::matmul(Tensor(), a); }), Catch::Contains("got none"));
}

namespace {

template <typename T>
std::vector<T> plain_linear(const Tensor& x, const Tensor& w, const Tensor& bias, bool relu) {
  const int64_t in = w.size(1), out = w.size(0), rows = in ? x.numel() / in : 0;
  const std::vector<T> vx = values<T>(x), vw = values<T>(w);
  const std::vector<T> vb = bias.defined() ? values<T>(bias) : std::vector<T>(out);
  std::vector<T> y(rows * out);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      T sum = 0;
      for (int64_t i = 0; i < in; ++i) sum += vx[r * in + i] * vw[o * in + i];
      sum += vb[o];
      y[r * out + o] = relu && sum < 0 ? 0 : sum;
    }
  }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("linear adds the bias, applies the activation and keeps what was before", "",
                   float, double) {
  Rng rng(6);
  const DType dtype = dtype_of<TestType>();
  for (const Shape& shape : {Shape{5}, Shape{1, 5}, Shape{3, 7, 5}, Shape{2, 0, 5}}) {
    const Tensor x = randn(shape, rng, dtype), w = randn({9, 5}, rng, dtype);
    const Tensor bias = randn({9}, rng, dtype);
    for (const Tensor& b : {bias, strided(bias), Tensor()}) {
      for (const Tensor& input : {x, strided(x)}) {
        const auto reference = [&](bool relu) {
          return [&, relu]<typename U>(U) { return plain_linear<U>(x, w, b, relu); };
        };
        Tensor pre = x;
        CHECK(excess_of<TestType>(raw::linear(input, w, b, {}, &pre), reference(false)) == "");
        CHECK_FALSE(pre.defined());
        const Tensor y = raw::linear(input, w, b, {true, Unary::relu}, &pre);
        CHECK(y.dim() == x.dim());
        CHECK(y.size(-1) == 9);
        CHECK(excess_of<TestType>(y, reference(true)) == "");
        CHECK(pre.shape() == y.shape());
        CHECK(excess_of<TestType>(pre, reference(false)) == "");
        CHECK(same_bits(raw::linear(input, w, b, {true, Unary::relu}), y));
      }
    }
  }
}

TEST_CASE("linear applies every activation as the unary operation does") {
  Rng rng(7);
  const Tensor x = randn({6, 5}, rng), w = randn({9, 5}, rng), bias = randn({9}, rng);
  const Tensor pre = raw::linear(x, w, bias);
  for (Unary op : {Unary::gelu, Unary::tanh, Unary::silu, Unary::sigmoid, Unary::square}) {
    CHECK(mismatch(raw::linear(x, w, bias, {true, op}), raw::unary(op, pre), 1e-15, 1e-15) == "");
  }
}

TEST_CASE("linear explains what does not fit") {
  const Tensor x = zeros({2, 6}), w = zeros({8, 5});
  CHECK(error_of([&] { raw::linear(x, w, {}); }) ==
        "linear: last size of x: expected 5 (weight is (8, 5)), got x (2, 6)");
  CHECK(error_of([&] {
          raw::linear(zeros({2, 5}), w, zeros({5}));
        }) == "linear: bias: expected shape (8,), got (5,)");
  CHECK(error_of([&] {
          raw::linear(zeros({2, 5}), zeros({5}), {});
        }) == "linear: weight: expected (O, I), got (5,)");
  CHECK_THAT(error_of([&] {
               raw::linear(zeros({2, 5}), w, {}, {true, Unary::elu});
             }),
             Catch::Contains("linear: activation") && Catch::Contains("elu"));
}
