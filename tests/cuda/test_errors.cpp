// What goes wrong on a CUDA device is an Error that says what and where.
#include <cuda_runtime_api.h>

#include <catch2/catch.hpp>
#include <cstdio>

#include "autograd/ops.h"
#include "tensor/backend.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

// The output of this program, run on hidden tests with other settings.
std::string output_of(const std::string& settings, const std::string& tests) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  std::FILE* pipe = ::popen((settings + " " + self + " '" + tests + "' 2>&1").c_str(), "r");
  REQUIRE(pipe);
  std::string text;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
  ::pclose(pipe);
  return text;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Whether the device is the virtual one of tests/vgpu, which sees every access out of bounds.
bool emulated() { return std::getenv("CENTROID_EMULATED") != nullptr; }

}  // namespace

TEST_CASE("cuda: a device that is not there is an error") {
  const std::string text = error_of([] { empty({1}, DType::f32, {DeviceKind::cuda, 99}); });
  CHECK(contains(text, "cuda:99"));
  CHECK(contains(text, "CUDA devices"));
}

TEST_CASE("cuda: tensors of two devices do not mix") {
  const Tensor host = ones({2, 2}, DType::f32, Device{}), device = ones({2, 2}, DType::f32, kCuda);
  CHECK(contains(error_of([&] { raw::add(host, device); }), "device"));
  CHECK(contains(error_of([&] { raw::matmul(device, host); }), "device"));
}

TEST_CASE("cuda: memory that does not suffice is an error with sizes") {
  const std::string text = error_of([] { empty({int64_t{1} << 40}, DType::f64, kCuda); });
  CHECK(contains(text, "CUDA memory: asked for 8796093022208 bytes"));
  CHECK(contains(text, "in use"));
  CHECK(contains(text, "cached"));
  CHECK(contains(text, "free"));
  CHECK(ones({3}, DType::f32, kCuda).to_vector<float>() == std::vector<float>{1, 1, 1});
}

TEST_CASE("cuda: what the cache holds is given back before memory runs out") {
  CachingAllocator& memory = cuda::allocator(0);
  memory.empty_cache();
  cuda::synchronize(0);
  size_t free = 0, total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  const int64_t part = static_cast<int64_t>(free / 8);
  for (int i = 0; i < 6; ++i) empty({part + 4096 * i}, DType::u8, kCuda);
  const Tensor most = empty({6 * part}, DType::u8, kCuda);
  CHECK(most.numel() == 6 * part);
  CHECK(memory.stats().cached < free / 4);
}

TEST_CASE("cuda: an index out of range is reported when results are asked for") {
  const Tensor table = ones({4, 3}, DType::f32, kCuda);
  const Tensor index = from_vector<int64_t>({0, 7, 1}, {3}, kCuda);
  const Tensor rows = raw::embedding(table, index);  // does not wait
  const std::string text = error_of([&] { rows.to_vector<float>(); });
  CHECK(contains(text, "embedding: index 7 at position 1"));
  CHECK(contains(text, "[0, 4)"));
  CHECK(rows.to_vector<float>()[0] == 1);  // reported once
}

TEST_CASE("fault: a kernel that reads beyond its tensor", "[.fault]") {
  const Tensor x = ones({100}, DType::f32, kCuda);
  const Tensor wrong = view_of(x, 0, {100000}, {1});
  std::printf("%s\n", error_of([&] { cuda::synchronize((raw::exp(wrong), 0)); }).c_str());
}

TEST_CASE("cuda: CENTROID_SYNC=1 names the kernel that faulted") {
  if (!emulated()) return;  // hardware need not notice such an access
  const std::string settings = "VGPU_FAULT=error CENTROID_ALLOC=system ";
  const std::string named = output_of(settings + "CENTROID_SYNC=1", "[.fault]");
  INFO(named);
  CHECK(contains(named, "unary: "));
  const std::string unnamed = output_of(settings + "CENTROID_SYNC=0", "[.fault]");
  INFO(unnamed);
  CHECK(contains(unnamed, "CENTROID_SYNC=1"));
}
