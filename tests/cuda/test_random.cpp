// Random tensors: the same bits as on the CPU, whatever the size, the type and the state.
#include <catch2/catch.hpp>

#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

const int64_t kSizes[] = {0, 1, 3, 4, 5, 1023, 1024, 4099};

// Whether a computation on a device of its own, with an own stream of numbers, gives equal bits.
bool equal_bits(const std::function<Tensor(Device, Rng&)>& f) {
  Rng host(11, "test"), device(11, "test");
  host.reserve(5), device.reserve(5);
  return same_bits(raw::to(f(kCuda, device), Device{}), f(Device{}, host)) &&
         host.state() == device.state();
}

}  // namespace

TEST_CASE("cuda uniform and normal: bits of the CPU") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const int64_t n : kSizes) {
      CAPTURE(dtype, n);
      CHECK(equal_bits([&](Device d, Rng& rng) { return raw::uniform({n}, rng, 0, 1, dtype, d); }));
      CHECK(equal_bits(
          [&](Device d, Rng& rng) { return raw::uniform({n}, rng, -0.3, 1.7, dtype, d); }));
      CHECK(equal_bits(
          [&](Device d, Rng& rng) { return raw::normal({n}, rng, 0.1, 0.7, dtype, d); }));
    }
  }
}

TEST_CASE("cuda normal: the tails") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    CHECK(equal_bits([&](Device d, Rng& rng) {
      return raw::normal({4, 25001}, rng, 0, 1, dtype, d);
    }));
  }
}

TEST_CASE("cuda uniform and normal: a counter and a key that use all 64 bits") {
  const RngState state{0xfedcba9876543210, 0xfffffffffffffff0};
  for (const DType dtype : {DType::f32, DType::f64}) {
    // Tensors that do not begin at a multiple of 16 bytes.
    for (const int64_t begin : {0, 1, 2}) {
      Tensor results[2];
      for (const Device device : {Device{}, kCuda}) {
        const Tensor y = zeros({150}, dtype, device);
        CENTROID_DISPATCH(device, uniform, state, 0.5, 2.0, raw::slice(y, 0, begin, 100));
        CENTROID_DISPATCH(device, normal, state, 0.5, 2.0, raw::slice(y, 0, 100 + begin, 149));
        results[device == kCuda] = raw::to(y, Device{});
      }
      CHECK(same_bits(results[0], results[1]));
    }
  }
}

TEST_CASE("cuda dropout: bits of the CPU, for every row length") {
  Rng rng(3);
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const double p : {0.0, 0.1, 0.5, 0.9999}) {
      for (const Shape& shape : {Shape{1}, Shape{7, 1}, Shape{5, 3}, Shape{4, 8}, Shape{3, 12},
                                 Shape{40, 17}, Shape{3, 5, 64}, Shape{2, 4100}, Shape{0, 4}}) {
        CAPTURE(dtype, p, shape);
        const Tensor x = randn(shape, rng, dtype);
        const RngState state{0x123456789abcdef, 0xfedcba9876543210};
        const Tensor y = raw::dropout(raw::to(x, kCuda), p, state);
        CHECK(same_bits(raw::to(y, Device{}), raw::dropout(x, p, state)));
      }
    }
  }
}

TEST_CASE("cuda dropout: rows that are not aligned") {
  const RngState state{7, 9};
  const Tensor x = arange(100, DType::f32, Device{});
  const Tensor device_x = raw::to(x, kCuda);
  for (const int64_t begin : {1, 2, 4}) {
    const auto part = [&](const Tensor& t) {
      return raw::dropout(raw::slice(t, 0, begin, begin + 96), 0.5, state);
    };
    CHECK(same_bits(raw::to(part(device_x), Device{}), part(x)));
  }
}
