#pragma once
// The few things plain loops do not give: folds over many lanes, and stores that bypass the caches.
// Built on GCC's vector extension, so the same source compiles for AVX-512, AVX2, SSE and Arm; host
// code only.
#include <algorithm>
#include <cstddef>
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

template <typename T>
Vector<T> load(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <typename T>
void store(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof v);
}

/// One bit per lane of a comparison's result, lane 0 lowest.
template <typename V>
uint64_t mask_bits(const V& lanes) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  if constexpr (sizeof lanes == 64 && sizeof(lanes[0]) == 4) {
    return _mm512_movepi32_mask((__m512i)lanes);
  } else if constexpr (sizeof lanes == 64 && sizeof(lanes[0]) == 8) {
    return _mm512_movepi64_mask((__m512i)lanes);
  }
#elif defined(__AVX__)
  if constexpr (sizeof lanes == 32 && sizeof(lanes[0]) == 4) {
    return _mm256_movemask_ps((__m256)lanes);
  } else if constexpr (sizeof lanes == 32 && sizeof(lanes[0]) == 8) {
    return _mm256_movemask_pd((__m256d)lanes);
  }
#endif
  uint64_t bits = 0;
  for (size_t i = 0; i < sizeof lanes / sizeof(lanes[0]); ++i) {
    bits |= static_cast<uint64_t>(lanes[i] != 0) << i;
  }
  return bits;
}

/// The lanes whose bit in `mask` is set, moved together to the front; the others are undefined.
template <typename V>
V compress(const V& x, uint64_t mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof x == 64 && sizeof(x[0]) == 4) {
    return (V)_mm512_maskz_compress_epi32(static_cast<__mmask16>(mask), (__m512i)x);
  } else if constexpr (sizeof x == 64 && sizeof(x[0]) == 8) {
    return (V)_mm512_maskz_compress_epi64(static_cast<__mmask8>(mask), (__m512i)x);
  }
#endif
  V y = x;
  for (int next = 0; mask; mask &= mask - 1) y[next++] = x[__builtin_ctzll(mask)];
  return y;
}

/// Set bits of every lane.
inline Vector<uint64_t> popcount(Vector<uint64_t> x) {
#if defined(__AVX512VPOPCNTDQ__)
  return (Vector<uint64_t>)_mm512_popcnt_epi64((__m512i)x);
#else
  for (size_t i = 0; i < sizeof x / 8; ++i) x[i] = __builtin_popcountll(x[i]);
  return x;
#endif
}

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
      total[v] = op(total[v], load(x + i + v * kPerVector));
    }
  }
  std::memcpy(lane, total, sizeof lane);
  for (int j = 0; i + j < n; ++j) lane[j] = op(lane[j], x[i + j]);
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    for (int j = 0; j < width; ++j) lane[j] = op(lane[j], lane[j + width]);
  }
  return lane[0];
}

// ---- stores past the caches ---------------------------------------------------------------------
// For results too large to be found in a cache again. Writing a line the usual way first reads it:
// a third of the traffic of a copy. Only whole, aligned lines are worth it. Call `stream_fence`
// before another thread may read. Without such stores the functions below copy as usual.

inline constexpr int kLineBytes = 64;

/// Bytes from `p` to the next multiple of a line.
inline int64_t bytes_to_line(const void* p) {
  return static_cast<int64_t>(-reinterpret_cast<uintptr_t>(p) % kLineBytes);
}

/// Copies one line; both addresses are multiples of kLineBytes.
inline void stream_line(void* to, const void* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), _mm512_load_si512(from));
#elif defined(__AVX__)
  for (int i = 0; i < 2; ++i) {
    _mm256_stream_si256(static_cast<__m256i*>(to) + i,
                        _mm256_load_si256(static_cast<const __m256i*>(from) + i));
  }
#elif defined(__x86_64__)
  for (int i = 0; i < 4; ++i) {
    _mm_stream_si128(static_cast<__m128i*>(to) + i,
                     _mm_load_si128(static_cast<const __m128i*>(from) + i));
  }
#else
  std::memcpy(to, from, kLineBytes);
#endif
}

/// memcpy that streams all whole lines of `to`.
inline void stream_copy(void* to, const void* from, int64_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  auto* in = static_cast<const std::byte*>(from);
  int64_t i = std::min(bytes, bytes_to_line(out));
  std::memcpy(out, in, i);
  for (; i + kLineBytes <= bytes; i += kLineBytes) {
    alignas(kLineBytes) std::byte line[kLineBytes];
    std::memcpy(line, in + i, kLineBytes);
    stream_line(out + i, line);
  }
  std::memcpy(out + i, in + i, bytes - i);
}

/// Makes the stores of `stream_copy` visible before any later store.
inline void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace centroid::simd
