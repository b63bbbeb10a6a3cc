#include "tensor/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#if defined(_OPENMP)
#include <omp.h>
#endif

namespace centroid {
namespace {

std::atomic<int> g_threads{0};
thread_local bool t_inside = false;

// Keeps the first exception of a parallel region: none may leave it by itself.
class FirstError {
 public:
  void capture() {
    std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
  void rethrow() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
};

int default_threads() {
#if defined(_OPENMP)
  return std::max(1, omp_get_max_threads());
#else
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

}  // namespace

int num_threads() {
  const int n = g_threads.load(std::memory_order_relaxed);
  if (n > 0) return n;
  static const int all = default_threads();
  return all;
}

void set_num_threads(int n) { g_threads = std::max(0, n); }

namespace detail {

void run_chunks(int64_t chunks, void* context, ChunkFunction f) {
  const int threads = static_cast<int>(std::min<int64_t>(num_threads(), chunks));
  if (threads <= 1 || t_inside) {
    for (int64_t c = 0; c < chunks; ++c) f(context, c);
    return;
  }
  FirstError error;
  std::atomic<int64_t> next{0};
  auto work = [&] {
    t_inside = true;
    try {
      for (int64_t c; (c = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) f(context, c);
    } catch (...) {
      error.capture();
      next = chunks;
    }
    t_inside = false;
  };
#if defined(_OPENMP) && !defined(CENTROID_STD_THREADS)
#pragma omp parallel num_threads(threads)
  work();
#else
  std::vector<std::thread> pool;
  for (int t = 1; t < threads; ++t) pool.emplace_back(work);
  work();
  for (auto& thread : pool) thread.join();
#endif
  error.rethrow();
}

}  // namespace detail
}  // namespace centroid
