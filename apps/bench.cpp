// bench: kernels, attention and training steps, checked first, then timed beside the machine's
// limits.
#include "apps/bench.h"

#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "apps/common/args.h"
#include "tensor/backend.h"
#include "tensor/ops.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

// Independent chains of fused multiply-adds: enough of them to hide the latency.
double fma_chains(int64_t iterations) {
  typedef float Vec __attribute__((vector_size(64)));
  Vec acc[12];
  for (int i = 0; i < 12; ++i) acc[i] = Vec{} + (i + 1.0f);
  const Vec a = Vec{} + 0.999f, b = Vec{} + 1e-3f;
  for (int64_t n = 0; n < iterations; ++n) {
    for (int i = 0; i < 12; ++i) acc[i] = acc[i] * a + b;
  }
  float sum = 0;
  for (int i = 0; i < 12; ++i) sum += acc[i][0];
  return sum;
}

}  // namespace

double time_once(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  const Device device = default_device();
  if (device.kind == DeviceKind::cuda) cuda::synchronize(device.index);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::vector<double> time_rounds(int rounds, const std::function<void()>& f) {
  f();
  std::vector<double> times;
  for (int r = 0; r < rounds; ++r) times.push_back(time_once(f));
  return times;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

namespace {

// Of a CUDA device: a copy kernel, and a product of large matrices.
double device_copy_bandwidth() {
  const int64_t n = int64_t{64} << 20;
  const Tensor from = zeros({n}), to = zeros({n});
  const auto times = time_rounds(9, [&] { raw::copy_(to, from); });
  return 8.0 * n / *std::min_element(times.begin(), times.end());
}

double device_peak_flops() {
  const double n = 4096;
  const Tensor a = zeros({4096, 4096}), b = zeros({4096, 4096});
  const auto times = time_rounds(5, [&] { raw::matmul(a, b); });
  return 2 * n * n * n / *std::min_element(times.begin(), times.end());
}

}  // namespace

double copy_bandwidth() {
  if (default_device().kind == DeviceKind::cuda) return device_copy_bandwidth();
  const int64_t n = int64_t{64} << 20;  // bytes: twice the largest cache of the usual desktop
  const Tensor from = full({n}, 1, DType::u8, Device{});
  const Tensor to = full({n}, 0, DType::u8, Device{});
  const auto times = time_rounds(9, [&] {
    parallel_for(0, n, n / num_threads(), [&](int64_t begin, int64_t end) {
      std::memcpy(to.data<uint8_t>() + begin, from.data<uint8_t>() + begin, end - begin);
    });
  });
  return 2.0 * n / *std::min_element(times.begin(), times.end());
}

double peak_flops() {
  if (default_device().kind == DeviceKind::cuda) return device_peak_flops();
  const int64_t iterations = 1 << 20;
  volatile double sink = 0;
  const auto times = time_rounds(5, [&] {
    parallel_for(0, num_threads(), 1, [&](int64_t, int64_t) { sink = fma_chains(iterations); });
  });
  return 2.0 * 16 * 12 * iterations * num_threads() / *std::min_element(times.begin(), times.end());
}

std::string blas_kernels() { return openblas_get_corename(); }

std::string own_kernels() {
#if defined(__AVX512F__)
  return "AVX-512";
#elif defined(__AVX2__)
  return "AVX2";
#elif defined(__aarch64__)
  return "NEON";
#else
  return "baseline";
#endif
}

}  // namespace centroid::apps

int main(int argc, char** argv) {
  using namespace centroid::apps;
  CLI::App app{"Benchmarks: results are checked first, then timed beside the machine's limits."};
  app.require_subcommand(1);
  register_bench_ops(app);
  register_bench_attention(app);
  register_bench_train(app);
  return run_app(argc, argv, app);
}
