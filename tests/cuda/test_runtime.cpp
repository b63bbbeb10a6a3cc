// The runtime of the CUDA backend: copies, devices, memory.
#include <catch2/catch.hpp>

#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

TEST_CASE("cuda: values go to the device and come back") {
  for (int64_t n : {0, 1, 7, 300000}) {
    std::vector<float> values(n);
    for (int64_t i = 0; i < n; ++i) values[i] = static_cast<float>(i) * 0.5f - 3;
    const Tensor host = from_vector(values, {n}, Device{});
    const Tensor device = raw::to(host, kCuda);
    CHECK(device.device() == kCuda);
    CHECK(raw::to(device, Device{}).to_vector<float>() == values);
    CHECK(device.to_vector<float>() == values);
    CHECK(from_vector(values, {n}, kCuda).to_vector<float>() == values);
  }
}

TEST_CASE("cuda: arange") {
  CHECK(arange(1000, DType::i32, kCuda).to_vector<int32_t>() ==
        arange(1000, DType::i32, Device{}).to_vector<int32_t>());
}
