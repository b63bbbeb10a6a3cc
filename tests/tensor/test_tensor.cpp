#include <catch2/catch.hpp>

#include "tensor/tensor.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Contains;

TEST_CASE("an undefined tensor says so when used") {
  const Tensor x;
  CHECK_FALSE(x.defined());
  CHECK_FALSE(x.requires_grad());
  CHECK(error_of([&] { x.shape(); }) == "tensor: used before it was given a value");
  CHECK(error_of([&] { x.bytes(); }) == "tensor: used before it was given a value");
}

TEST_CASE("factories fill what they say") {
  CHECK(mismatch(zeros({2, 3}), std::vector<double>(6, 0.0)) == "");
  CHECK(mismatch(ones({4}, DType::i32), std::vector<double>(4, 1.0)) == "");
  CHECK(mismatch(full({2}, -2.5, DType::f64), {-2.5, -2.5}) == "");
  CHECK(mismatch(arange(4), {0, 1, 2, 3}) == "");
  CHECK(arange(4).dtype() == DType::i64);
  CHECK(arange(0).numel() == 0);
  CHECK(mismatch(arange(3, DType::f32), {0, 1, 2}) == "");
  CHECK(full({}, 7.0).item() == 7);
  CHECK(full({3}, 1.0, DType::bf16).to_vector<Bf16>()[2].bits == 0x3f80);
  CHECK(from_vector<uint8_t>({1, 2}, {2, 1}).size(-1) == 1);
}

TEST_CASE("a tensor too large for the streaming threshold is filled to the last element") {
  const int64_t n = (16 << 20) / 4 + 3;
  const Tensor x = full({n}, 2.5);
  CHECK(raw::min(x).item() == 2.5);
  CHECK(raw::max(x).item() == 2.5);
}

TEST_CASE("impossible sizes are errors") {
  CHECK(error_of([] { empty({2, -1}); }) == "empty: negative size in shape (2, -1)");
  const int64_t huge = int64_t{1} << 40;
  CHECK_THAT(error_of([&] { empty({huge, huge}); }), Contains("more elements than 64 bits count"));
  CHECK_THAT(error_of([&] {
               empty({huge, int64_t{1} << 22});
             }),
             Contains("needs more bytes than 64 bits count"));
  CHECK_THAT(error_of([&] { empty({int64_t{1} << 58}); }), Contains("memory: asked for"));
  CHECK(error_of([] {
          from_vector<float>({1, 2, 3}, {2, 2});
        }) == "from_vector: shape (2, 2) needs 4 values, got 3");
}

TEST_CASE("data asks for the tensor's own dtype", "[host]") {
  const Tensor x = zeros({2});
  CHECK(x.data<float>()[1] == 0);
  CHECK(error_of([&] { x.data<double>(); }) ==
        "data: tensor is f32, asked for as f64 (raw::cast converts)");
  CHECK_THAT(error_of([&] { x.to_vector<int64_t>(); }), Contains("asked for as i64"));
}

TEST_CASE("item reads one element of any numeric dtype") {
  CHECK(full({1, 1}, 3, DType::u8).item() == 3);
  CHECK(full({}, -4, DType::i32).item<int32_t>() == -4);
  CHECK(error_of([] { zeros({2}).item(); }) == "item: expected one element, got shape (2,)");
  CHECK(error_of([] { zeros({0}).item(); }) == "item: expected one element, got shape (0,)");
}

TEST_CASE("contiguity ignores strides that are never used") {
  const Tensor x = zeros({2, 3});
  CHECK(x.is_contiguous());
  CHECK_FALSE(raw::transpose(x, 0, 1).is_contiguous());
  CHECK(raw::transpose(zeros({1, 3}), 0, 1).is_contiguous());
  CHECK(raw::transpose(zeros({0, 3}), 0, 1).is_contiguous());
  CHECK(raw::expand(zeros({1}), {1, 1}).is_contiguous());
  CHECK_FALSE(raw::expand(zeros({1}), {2}).is_contiguous());
}

TEST_CASE("to_vector reads views in row-major order") {
  const Tensor x = raw::reshape(arange(6), {2, 3});
  CHECK(raw::transpose(x, 0, 1).to_vector<int64_t>() == std::vector<int64_t>{0, 3, 1, 4, 2, 5});
  CHECK(raw::slice(x, 1, 0, 3, 2).to_vector<int64_t>() == std::vector<int64_t>{0, 2, 3, 5});
}

TEST_CASE("only float leaves can require a gradient") {
  Tensor x = zeros({2});
  x.set_requires_grad();
  CHECK(x.requires_grad());
  CHECK_FALSE(x.detach().requires_grad());
  CHECK(x.detach().bytes() == x.bytes());
  CHECK_THAT(error_of([] { zeros({2}, DType::i64).set_requires_grad(); }),
             Contains("requires_grad: expected a float tensor, got i64"));
  x.set_requires_grad(false);
  CHECK_FALSE(x.requires_grad());
}

TEST_CASE("in-place functions count a version that views share") {
  const Tensor x = zeros({2, 3});
  const Tensor row = raw::select(x, 0, 1);
  CHECK(x.version() == 0);
  raw::fill_(row, 1);
  raw::add_(x, row);
  raw::copy_(x, row);
  CHECK(x.version() == 3);
  CHECK(row.version() == 3);
}

TEST_CASE("in-place functions refuse results of recorded operations") {
  const Tensor x = zeros({2});
  // Any record will do: nothing in tensor/ looks inside.
  x.impl().grad_fn = std::shared_ptr<Node>(std::make_shared<int>(0), reinterpret_cast<Node*>(1));
  CHECK_THAT(error_of([&] { raw::add_(x, ones({2})); }),
             Contains("add_: in-place change of the result of a recorded operation"));
  CHECK_THAT(error_of([&] { raw::fill_(x, 1); }), Contains("fill_"));
  CHECK_THAT(error_of([&] { raw::copy_(x, ones({2})); }), Contains("copy_"));
  CHECK(x.version() == 0);
  CHECK(mismatch(x, {0, 0}) == "");
  raw::fill_(x.detach(), 3);
  CHECK(mismatch(x, {3, 3}) == "");
}
