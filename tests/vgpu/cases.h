#pragma once
// Programs that run on the virtual device in processes of their own: planted bugs, workloads with
// known results, and scenarios that need settings. test_vgpu.cpp starts them.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace vgpu::test {

/// A mistake, and its correct twin, which must run without a report.
struct Bug {
  const char* name;
  const char* report;            ///< what the report must say
  const char* kernel = nullptr;  ///< then the report also names it and a line marked "bug: NAME"
  void (*run)(bool buggy) = nullptr;
  const char* setting = nullptr;  ///< an environment variable it needs, as "VGPU_GUARD=1"
  int arch = 75;                  ///< that the bug needs
};
std::vector<Bug> kernel_bugs();
std::vector<Bug> host_bugs();

/// A computation that checks its own result.
struct Workload {
  const char* name;
  void (*run)();
  int arch = 75;
};
std::vector<Workload> workloads();
std::vector<Workload> ordered_workloads();

/// A host program that checks what the runtime answers.
struct Scenario {
  const char* name;
  void (*run)();
  std::vector<const char*> settings = {};
  int exit_code = 0;
  const char* output = nullptr;  ///< what it must print on stderr
};
std::vector<Scenario> device_scenarios();
std::vector<Scenario> stream_scenarios();
std::vector<Scenario> cublas_scenarios();

/// Ends the process with exit code 1 and a message unless `condition` holds.
inline void require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s\n", what.c_str());
  std::exit(1);
}

inline void require_success(cudaError_t error, const char* what) {
  require(error == cudaSuccess, std::string(what) + ": " + cudaGetErrorString(error));
}

/// Device memory that is freed at the end.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size) {
    require_success(cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T)), "cudaMalloc");
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    const size_t bytes = size_ * sizeof(T);
    require_success(cudaMemcpy(data_, values.data(), bytes, cudaMemcpyHostToDevice), "upload");
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return size_; }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    const size_t bytes = size_ * sizeof(T);
    require_success(cudaMemcpy(values.data(), data_, bytes, cudaMemcpyDeviceToHost), "download");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

/// Waits for everything and fails on an error.
inline void finish() { require_success(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

}  // namespace vgpu::test
