#pragma once
// The few things plain loops do not give: folds over many lanes, and stores that bypass the caches.
// Built on GCC's vector extension, so the same source compiles for AVX-512, AVX2, SSE and Arm; host
// code only.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace centroid::simd {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};
/// As many elements as one register holds; arithmetic and comparisons work lane by lane.
template <typename T>
using Vector = typename VectorOf<T>::type;

// The operations folded over. They apply to elements and to Vectors alike, hence `|`, not `||`.
// Integer sums must be folded unsigned: they wrap.
struct Sum {
  template <typename T>
  static constexpr T identity = 0;
  template <typename V>
  V operator()(V total, V x) const {
    return total + x;
  }
};
struct Max {
  template <typename T>
  static constexpr T identity = std::numeric_limits<T>::has_infinity
                                    ? -std::numeric_limits<T>::infinity()
                                    : std::numeric_limits<T>::lowest();
  /// NaN wins: it replaces any value, and nothing compares above it.
  template <typename V>
  V operator()(V best, V x) const {
    return (x > best) | (x != x) ? x : best;
  }
};
struct Min {
  template <typename T>
  static constexpr T identity = std::numeric_limits<T>::has_infinity
                                    ? std::numeric_limits<T>::infinity()
                                    : std::numeric_limits<T>::max();
  template <typename V>
  V operator()(V best, V x) const {
    return (x < best) | (x != x) ? x : best;
  }
};

/// op over x[0..n), `Op` one of Sum, Max, Min; the identity when n is 0. The elements go to
/// 256 / sizeof(T) lanes, which are then combined pairwise: the order, and so the rounding, depends
/// on n alone, not on the width of the registers.
template <typename Op, typename T>
T fold(const T* x, int64_t n, Op op = {}) {
  constexpr int kLanes = 256 / sizeof(T), kVectors = 256 / kVectorBytes;
  constexpr int kPerVector = kVectorBytes / sizeof(T);
  if (n < kLanes) {
    T total = Op::template identity<T>;
    for (int64_t i = 0; i < n; ++i) total = op(total, x[i]);
    return total;
  }
  alignas(64) T lane[kLanes];
  std::memcpy(lane, x, sizeof lane);
  Vector<T> total[kVectors];
  std::memcpy(total, lane, sizeof lane);
  int64_t i = kLanes;
  for (; i + kLanes <= n; i += kLanes) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      Vector<T> next;
      std::memcpy(&next, x + i + v * kPerVector, sizeof next);
      total[v] = op(total[v], next);
    }
  }
  std::memcpy(lane, total, sizeof lane);
  for (int j = 0; i + j < n; ++j) lane[j] = op(lane[j], x[i + j]);
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] = op(lane[j], lane[j + width]);
  }
  return lane[0];
}

/// memcpy whose stores go past the caches: for results too large to be found there again. Writing a
/// line the usual way first reads it, a third of the traffic of a copy. Call `stream_fence` before
/// another thread may read.
inline void stream_copy(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  auto* in = static_cast<const std::byte*>(from);
#if defined(__x86_64__)
  const size_t misaligned = reinterpret_cast<uintptr_t>(out) % 64;
  const size_t head = std::min(bytes, misaligned == 0 ? 0 : 64 - misaligned);
  std::memcpy(out, in, head);
  size_t i = head;
  for (; i + 64 <= bytes; i += 64) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
#elif defined(__AVX__)
    for (int j = 0; j < 64; j += 32) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(out + i + j),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i + j)));
    }
#else
    for (int j = 0; j < 64; j += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + i + j),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i + j)));
    }
#endif
  }
  std::memcpy(out + i, in + i, bytes - i);
#else
  std::memcpy(out, in, bytes);
#endif
}

/// Makes the stores of `stream_copy` visible before any later store.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace centroid::simd
