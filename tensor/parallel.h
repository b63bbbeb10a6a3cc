#pragma once
// Data-parallel loops whose results do not depend on the number of threads.
#include <cstdint>
#include <functional>

namespace centroid {

/// Number of threads that `parallel_for` may use, and how to set it (0 = all cores).
int num_threads();
void set_num_threads(int n);

namespace detail {
using ChunkFunction = void (*)(void* context, int64_t chunk);
void run_chunks(int64_t chunks, void* context, ChunkFunction f);
}  // namespace detail

/// Cuts [begin, end) into chunks of exactly `grain` (the last may be shorter) and calls
/// `f(chunk_begin, chunk_end)` for each, in parallel. The cut depends on `grain` alone, so a loop
/// whose chunks are independent gives the same bits on any number of threads. Nested calls run
/// serially. The first exception thrown by `f` is rethrown after all chunks have ended.
template <typename F>
void parallel_for(int64_t begin, int64_t end, int64_t grain, const F& f) {
  if (end <= begin) return;
  if (grain < 1) grain = 1;
  if (end - begin <= grain) return f(begin, end);
  struct Context {
    const F& f;
    int64_t begin, end, grain;
  } context{f, begin, end, grain};
  detail::run_chunks((end - begin + grain - 1) / grain, &context, [](void* raw, int64_t chunk) {
    auto& c = *static_cast<Context*>(raw);
    const int64_t first = c.begin + chunk * c.grain;
    c.f(first, first + c.grain < c.end ? first + c.grain : c.end);
  });
}

}  // namespace centroid
