#include <catch2/catch.hpp>

#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

namespace {

// 0, 1, 2, ... in a shape
Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return raw::reshape(arange(numel(shape), dtype), shape);
}

// x in row-major order, read element by element through its strides: no kernel is involved.
std::vector<float> by_hand(const Tensor& x) {
  std::vector<float> values;
  std::vector<int64_t> index(x.dim(), 0);
  for (int64_t i = 0; i < x.numel(); ++i) {
    int64_t rest = i, offset = 0;
    for (int d = x.dim() - 1; d >= 0; --d) {
      offset += rest % x.shape()[d] * x.strides()[d];
      rest /= x.shape()[d];
    }
    values.push_back(x.data<float>()[offset]);
  }
  return values;
}

bool shares(const Tensor& a, const Tensor& b) { return a.impl().storage == b.impl().storage; }

}  // namespace

TEST_CASE("transpose and permute reorder dimensions without copying", "[host]") {
  const Tensor x = counting({2, 3, 4});
  const Tensor y = raw::transpose(x, 0, -1);
  CHECK(shares(x, y));
  CHECK(y.shape() == Shape{4, 3, 2});
  CHECK(y.to_vector<float>() == by_hand(y));
  CHECK(y.to_vector<float>()[1] == 12);
  const Tensor z = raw::permute(x, {1, -1, 0});
  CHECK(z.shape() == Shape{3, 4, 2});
  CHECK(z.to_vector<float>() == by_hand(z));
  CHECK_THAT(error_of([&] {
               raw::permute(x, {0, 1});
             }),
             Contains("permute: expected 3 dimensions for shape (2, 3, 4), got (0, 1)"));
  CHECK_THAT(error_of([&] {
               raw::permute(x, {0, 1, 1});
             }),
             Contains("permute: dimension 1 appears twice"));
  CHECK_THAT(error_of([&] { raw::transpose(x, 0, 3); }), Contains("transpose: dimension"));
}

TEST_CASE("slice takes steps, negative bounds and nothing") {
  const Tensor x = counting({7});
  const auto values = [&](int64_t begin, int64_t end, int64_t step) {
    return raw::slice(x, 0, begin, end, step).to_vector<float>();
  };
  CHECK(values(1, 6, 2) == std::vector<float>{1, 3, 5});
  CHECK(values(1, 5, 2) == std::vector<float>{1, 3});
  CHECK(values(0, 7, 3) == std::vector<float>{0, 3, 6});
  CHECK(values(-3, -1, 1) == std::vector<float>{4, 5});
  CHECK(values(0, 7, 100) == std::vector<float>{0});
  CHECK(values(7, 7, 1).empty());
  CHECK(shares(x, raw::slice(x, 0, 2, 3)));
  CHECK_THAT(error_of([&] { raw::slice(x, 0, 0, 8); }),
             Contains("slice: end: expected -7 to 7, got 8"));
  CHECK_THAT(error_of([&] { raw::slice(x, 0, -8, 2); }), Contains("slice: begin"));
  CHECK_THAT(error_of([&] { raw::slice(x, 0, 4, 2); }), Contains("slice: expected begin <= end"));
  CHECK_THAT(error_of([&] { raw::slice(x, 0, 0, 2, 0); }), Contains("slice: step"));
  CHECK_THAT(error_of([&] { raw::slice(counting({}), 0, 0, 0); }), Contains("slice: dimension"));
  const Tensor middle = raw::slice(counting({3, 5}), 1, 1, 4, 2);
  CHECK(middle.to_vector<float>() == std::vector<float>{1, 3, 6, 8, 11, 13});
}

TEST_CASE("select removes a dimension") {
  const Tensor x = counting({2, 3});
  CHECK(mismatch(raw::select(x, 0, -1), {3, 4, 5}) == "");
  CHECK(mismatch(raw::select(x, 1, 1), {1, 4}) == "");
  CHECK(raw::select(counting({1}), 0, 0).dim() == 0);
  CHECK_THAT(error_of([&] { raw::select(x, 1, 3); }),
             Contains("select: index: expected one in [-3, 3) for dimension 1 of (2, 3), got 3"));
}

TEST_CASE("expand repeats without copying") {
  const Tensor x = counting({3, 1});
  const Tensor y = raw::expand(x, {2, 3, 2});
  CHECK(shares(x, y));
  CHECK(y.to_vector<float>() == std::vector<float>{0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2});
  CHECK(raw::expand(counting({1}), {0}).numel() == 0);
  CHECK_THAT(error_of([&] {
               raw::expand(x, {2, 2});
             }),
             Contains("expand: (3, 1) does not expand to (2, 2)"));
  CHECK_THAT(error_of([&] { raw::expand(x, {3}); }), Contains("expand"));
  CHECK_THAT(error_of([&] { raw::expand(x, {3, -1}); }), Contains("expand"));
}

TEST_CASE("reshape is a view where strides allow and a copy elsewhere", "[host]") {
  const Tensor x = counting({4, 6});
  CHECK(shares(x, raw::reshape(x, {2, 2, -1})));
  CHECK(raw::reshape(x, {2, 2, -1}).shape() == Shape{2, 2, 6});
  // Rows of a slice can be cut and merged with what is evenly spaced around them, not joined.
  const Tensor part = raw::slice(x, 1, 0, 4);
  for (const auto& [shape, view] : std::vector<std::pair<Shape, bool>>{{{4, 2, 2}, true},
                                                                       {{2, 2, 4}, true},
                                                                       {{1, 4, 1, 4, 1}, true},
                                                                       {{2, 2, 2, 2}, true},
                                                                       {{16}, false},
                                                                       {{8, 2}, false},
                                                                       {{2, 8}, false}}) {
    const Tensor y = raw::reshape(part, shape);
    INFO(shape);
    CHECK(y.shape() == shape);
    CHECK(shares(part, y) == view);
    CHECK(by_hand(y) == by_hand(part));
  }
  const Tensor turned = raw::permute(counting({2, 3, 4}), {2, 0, 1});
  CHECK(shares(turned, raw::reshape(turned, {4, 6})));
  CHECK_FALSE(shares(turned, raw::reshape(turned, {8, 3})));
  CHECK(by_hand(raw::reshape(turned, {8, 3})) == by_hand(turned));
  const Tensor constant = raw::expand(counting({1}), {6});
  CHECK(shares(constant, raw::reshape(constant, {2, 3})));
  CHECK(raw::reshape(zeros({0, 3}), {5, 0}).shape() == Shape{5, 0});
  CHECK(raw::reshape(zeros({0, 3}), {-1, 3}).shape() == Shape{0, 3});
  CHECK(raw::reshape(ones({1, 1}), {}).item() == 1);
}

TEST_CASE("reshape explains what does not fit") {
  const Tensor x = zeros({4, 6});
  CHECK(error_of([&] {
          raw::reshape(x, {5, 5});
        }) == "reshape: (4, 6) has 24 elements, which do not fill (5, 5)");
  CHECK_THAT(error_of([&] { raw::reshape(x, {5, -1}); }), Contains("do not fill (5, -1)"));
  CHECK_THAT(error_of([&] { raw::reshape(x, {-1, -1}); }), Contains("at most one -1"));
  CHECK_THAT(error_of([&] { raw::reshape(x, {-2, 12}); }), Contains("negative size"));
  CHECK_THAT(error_of([&] { raw::reshape(zeros({0}), {0, -1}); }), Contains("no single value"));
  const int64_t huge = int64_t{1} << 62;
  CHECK_THAT(error_of([&] { raw::reshape(x, {huge, huge}); }), Contains("do not fill"));
}

TEST_CASE("unsqueeze and squeeze add and remove sizes of 1") {
  const Tensor x = counting({2, 3});
  CHECK(raw::unsqueeze(x, 0).shape() == Shape{1, 2, 3});
  CHECK(raw::unsqueeze(x, -1).shape() == Shape{2, 3, 1});
  CHECK(raw::unsqueeze(x, 1).is_contiguous());
  CHECK(raw::squeeze(raw::unsqueeze(x, 1), 1).shape() == x.shape());
  CHECK_THAT(error_of([&] { raw::squeeze(x, 0); }),
             Contains("squeeze: dimension 0 of (2, 3): expected size 1, got 2"));
  CHECK_THAT(error_of([&] { raw::unsqueeze(x, 3); }), Contains("unsqueeze: dimension"));
}

TEST_CASE("contiguous copies only what needs it, clone always") {
  const Tensor x = counting({2, 3});
  CHECK(raw::contiguous(x).bytes() == x.bytes());
  CHECK_FALSE(shares(raw::clone(x), x));
  CHECK_FALSE(shares(raw::contiguous(raw::transpose(x, 0, 1)), x));
  CHECK(raw::clone(zeros({0, 2})).shape() == Shape{0, 2});
}

TEST_CASE("copies of any layout keep every element", "[host]") {
  Rng rng(1);
  const Tensor x = randn({5, 37, 3, 70}, rng, DType::f32);
  for (const Dims& order : {Dims{0, 1, 2, 3}, Dims{3, 2, 1, 0}, Dims{0, 2, 1, 3}, Dims{1, 0, 3, 2},
                            Dims{0, 3, 2, 1}, Dims{2, 3, 0, 1}}) {
    INFO(order);
    const Tensor view = raw::permute(x, order);
    const std::vector<float> expected = by_hand(view);
    CHECK(raw::clone(view).to_vector<float>() == expected);
    // Into memory of another layout.
    const Tensor y = raw::permute(zeros(x.shape()), order);
    raw::copy_(y, raw::clone(view));
    CHECK(by_hand(y) == expected);
  }
  const Tensor rows = raw::slice(zeros({9, 11}), 1, 2, 9, 2);  // (9, 4)
  raw::copy_(rows, counting({4}));
  CHECK(by_hand(rows) == by_hand(raw::expand(counting({4}), {9, 4})));
}

TEST_CASE("large copies are complete, aligned or not", "[host]") {
  const int64_t n = 5 << 20;
  Rng rng(2);
  const Tensor x = raw::uniform({n + 8}, rng);
  for (int64_t shift : {0, 3}) {
    const Tensor part = raw::slice(x, 0, shift, n + shift);
    CHECK(same_bits(raw::clone(part), part));
    const Tensor y = raw::slice(zeros({n + 8}), 0, 5, n + 5);
    raw::copy_(y, part);
    CHECK(std::memcmp(y.bytes(), part.bytes(), n * 4) == 0);
    CHECK(raw::select(y, 0, n - 1).item() != 0);
  }
  const Tensor heads =
      raw::permute(raw::reshape(raw::slice(x, 0, 0, n), {32, 2, 1280, 64}), {0, 2, 1, 3});
  CHECK(raw::clone(heads).to_vector<float>() == by_hand(heads));
}

TEST_CASE("cast converts every pair of dtypes") {
  const DType all[] = {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8};
  for (DType from : all) {
    for (DType to : all) {
      const Tensor x = raw::cast(from_vector<double>({0, 1, 100}, {3}), from);
      INFO(from << " to " << to);
      CHECK(x.dtype() == from);
      CHECK(raw::cast(x, to).dtype() == to);
      CHECK(mismatch(raw::cast(raw::cast(x, to), DType::f64), {0, 1, 100}) == "");
    }
  }
}

TEST_CASE("casts of floats to integers truncate and saturate") {
  const double inf = INFINITY;
  const Tensor x = from_vector<double>({-1.9, 1.9, 300, -1e30, 1e30, inf, -inf, NAN}, {8});
  CHECK(mismatch(raw::cast(x, DType::u8), {0, 1, 255, 0, 255, 255, 0, 0}) == "");
  CHECK(mismatch(raw::cast(x, DType::i32),
                 {-1, 1, 300, -2147483648.0, 2147483647, 2147483647, -2147483648.0, 0}) == "");
  const auto wide = raw::cast(raw::cast(x, DType::f32), DType::i64).to_vector<int64_t>();
  CHECK(wide[4] == INT64_MAX);
  CHECK(wide[3] == INT64_MIN);
  CHECK(wide[7] == 0);
  CHECK(raw::cast(from_vector<int32_t>({257, -1}, {2}), DType::u8).to_vector<uint8_t>() ==
        std::vector<uint8_t>{1, 255});
}

TEST_CASE("bf16 rounds once, to nearest even") {
  const auto bits = [](double x, DType from) {
    return raw::cast(raw::cast(from_vector<double>({x}, {1}), from), DType::bf16)
        .to_vector<Bf16>()[0]
        .bits;
  };
  for (DType from : {DType::f64, DType::f32}) {
    CHECK(bits(1.0, from) == 0x3f80);
    CHECK(bits(1.0 + 0x1p-8, from) == 0x3f80);            // tie, down to even
    CHECK(bits(1.0 + 3 * 0x1p-8, from) == 0x3f82);        // tie, up to even
    CHECK(bits(1.0 + 0x1p-8 + 0x1p-20, from) == 0x3f81);  // above the tie
    CHECK(bits(-2.0, from) == 0xc000);
    CHECK(bits(3.4e38, from) == 0x7f80);
    CHECK(bits(INFINITY, from) == 0x7f80);
    CHECK((bits(NAN, from) & 0x7fff) > 0x7f80);
  }
  // Through a float this would become a tie and round down.
  CHECK(bits(1.0 + 0x1p-8 + 0x1p-40, DType::f64) == 0x3f81);
  CHECK(bits(-1.0 - 0x1p-8 - 0x1p-40, DType::f64) == 0xbf81);
  CHECK(bits(1.0 + 3 * 0x1p-8 - 0x1p-40, DType::f64) == 0x3f81);
}

TEST_CASE("to keeps tensors that are there already and refuses devices this build lacks",
          "[host]") {
  const Tensor x = zeros({2});
  CHECK(raw::to(x, {}).bytes() == x.bytes());
  CHECK_THAT(error_of([&] { raw::to(x, {DeviceKind::cuda, 0}); }), Contains("no CUDA"));
}

TEST_CASE("copy_ and add_ broadcast their source") {
  const Tensor y = zeros({2, 3});
  raw::copy_(y, from_vector<float>({1, 2, 3}, {3}));
  CHECK(mismatch(y, {1, 2, 3, 1, 2, 3}) == "");
  raw::add_(y, from_vector<float>({10, 20}, {2, 1}), 0.5);
  CHECK(mismatch(y, {6, 7, 8, 11, 12, 13}) == "");
  raw::add_(raw::transpose(y, 0, 1), from_vector<float>({1, 2, 3}, {3, 1}));
  CHECK(mismatch(y, {7, 9, 11, 12, 14, 16}) == "");
  raw::add_(y, y);
  CHECK(mismatch(y, {14, 18, 22, 24, 28, 32}) == "");
  const Tensor counts = full({2}, 5, DType::i64);
  raw::add_(counts, full({}, 2, DType::i64), -2);
  CHECK(mismatch(counts, {1, 1}) == "");
  CHECK_THAT(error_of([&] { raw::add_(counts, counts, 0.5); }),
             Contains("0.5 is not a value of the tensor's dtype i64"));
  raw::fill_(raw::slice(y, 1, 0, 3, 2), 0);
  CHECK(mismatch(y, {0, 18, 0, 0, 28, 0}) == "");
}

TEST_CASE("in-place functions read overlapping sources before they write") {
  const Tensor x = counting({200000});
  raw::copy_(raw::slice(x, 0, 1, 200000), raw::slice(x, 0, 0, 199999));
  CHECK(same_bits(raw::slice(x, 0, 1, 200000), counting({199999})));
  CHECK(raw::select(x, 0, 0).item() == 0);
  const Tensor large = counting({300, 300});
  const Tensor expected = raw::add(large, raw::transpose(large, 0, 1));
  raw::add_(large, raw::transpose(large, 0, 1));
  CHECK(same_bits(large, expected));
  const Tensor square = counting({3, 3});
  raw::add_(square, raw::transpose(square, 0, 1));
  CHECK(mismatch(square, {0, 4, 8, 4, 8, 12, 8, 12, 16}) == "");
}

TEST_CASE("in-place functions refuse targets they cannot write") {
  const Tensor y = raw::expand(zeros({1, 3}), {2, 3});
  const Tensor x = ones({2, 3});
  CHECK_THAT(error_of([&] { raw::add_(y, x); }),
             Contains("add_: the target of shape (2, 3) is expanded"));
  CHECK_THAT(error_of([&] { raw::copy_(y, x); }), Contains("copy_: the target"));
  CHECK_THAT(error_of([&] { raw::fill_(y, 1); }), Contains("fill_: the target"));
  CHECK(y.version() == 0);
  CHECK_THAT(error_of([&] { raw::copy_(zeros({3}), x); }),
             Contains("copy_: source of shape (2, 3) does not fit into (3,)"));
  CHECK_THAT(error_of([&] { raw::add_(x, zeros({4})); }),
             Contains("add_: shapes do not broadcast"));
  CHECK_THAT(error_of([&] {
               raw::add_(x, zeros({2, 3}, DType::f64));
             }),
             Contains("add_: dtypes differ: target is f32, source is f64"));
}
