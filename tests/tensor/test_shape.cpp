#include <catch2/catch.hpp>

#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

TEST_CASE("a shape prints as a tuple") {
  CHECK(to_string(Shape{}) == "()");
  CHECK(to_string(Shape{5}) == "(5,)");
  CHECK(to_string(Shape{8, 128, 64}) == "(8, 128, 64)");
}

TEST_CASE("sizes can be read from the end, inserted and erased") {
  Shape shape = {2, 3, 5};
  CHECK(shape[-1] == 5);
  CHECK(shape[-3] == 2);
  CHECK(shape.back() == 5);
  shape.insert(0, 7);
  CHECK(shape == Shape{7, 2, 3, 5});
  shape.insert(4, 9);
  CHECK(shape == Shape{7, 2, 3, 5, 9});
  shape.insert(2, 1);
  CHECK(shape == Shape{7, 2, 1, 3, 5, 9});
  CHECK(error_of([&] { shape.insert(0, 1); }) == "shape: at most 6 dimensions, got more");
  shape.erase(5);
  shape.erase(0);
  CHECK(shape == Shape{2, 1, 3, 5});
  CHECK_FALSE(shape == Shape{2, 1, 3});
}

TEST_CASE("the number of elements is the product of the sizes") {
  CHECK(numel({}) == 1);
  CHECK(numel({3, 4}) == 12);
  CHECK(numel({3, 0, 4}) == 0);
}

TEST_CASE("row-major strides") {
  CHECK(contiguous_strides({2, 3, 5}) == Strides{15, 5, 1});
  CHECK(contiguous_strides({}) == Strides{});
}

TEST_CASE("shapes broadcast from the right") {
  CHECK(broadcast_shapes({2, 3}, {3}, "add") == Shape{2, 3});
  CHECK(broadcast_shapes({3}, {2, 1}, "add") == Shape{2, 3});
  CHECK(broadcast_shapes({4, 1, 5}, {3, 1}, "add") == Shape{4, 3, 5});
  CHECK(broadcast_shapes({}, {2, 3}, "add") == Shape{2, 3});
  CHECK(broadcast_shapes({0}, {1}, "add") == Shape{0});
  const std::string error = error_of([] { broadcast_shapes({2, 3}, {4}, "add"); });
  CHECK_THAT(error, Catch::Contains("add: shapes do not broadcast: a is (2, 3), b is (4,)"));
  CHECK_THAT(error_of([] { broadcast_shapes({0}, {2}, "mul"); }), Catch::Contains("mul"));
}

TEST_CASE("dimensions may count from the end") {
  CHECK(normalize_dim(-1, 3, "sum") == 2);
  CHECK(normalize_dim(0, 3, "sum") == 0);
  CHECK(error_of([] { normalize_dim(3, 3, "sum"); }) ==
        "sum: dimension: expected one in [-3, 3), got 3");
  CHECK_THAT(error_of([] { normalize_dim(-1, 0, "sum"); }), Catch::Contains("sum: dimension"));
}

TEST_CASE("dtypes have names, sizes and kinds") {
  CHECK(concat(DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8) ==
        "f64f32bf16i64i32u8");
  CHECK(size_of(DType::f64) == 8);
  CHECK(size_of(DType::bf16) == 2);
  CHECK(size_of(DType::u8) == 1);
  CHECK(is_float(DType::bf16));
  CHECK_FALSE(is_float(DType::i64));
}

TEST_CASE("devices are read from text", "[host]") {
  CHECK(parse_device("cpu") == Device{});
  CHECK(parse_device("cuda") == Device{DeviceKind::cuda, 0});
  CHECK(parse_device("cuda:3") == Device{DeviceKind::cuda, 3});
  CHECK(to_string(parse_device("cuda:3")) == "cuda:3");
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "CPU"}) {
    CHECK(error_of([&] { parse_device(text); }) ==
          concat("device: expected cpu, cuda or cuda:N, got '", text, "'"));
  }
  CHECK_THAT(error_of([] {
               require_device({DeviceKind::cuda, 0});
             }),
             Catch::Contains("device cuda:0: this build has no CUDA"));
}
