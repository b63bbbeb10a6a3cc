#pragma once
// Elementwise loops over strided, broadcast tensors.
//
// The output is cut, in its row-major order, into chunks (parallel) and tiles (L1-sized). Each
// input presents a tile as consecutive elements: a pointer into its memory where it is contiguous,
// else a small buffer packed row by row. So every operation needs one loop, contiguous and
// vectorised, however its inputs are broadcast or transposed; packing costs an extra pass through
// L1 only. Large outputs are computed in a buffer too, and stored past the caches (simd.h).
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tensor/parallel.h"
#include "tensor/simd.h"
#include "tensor/tensor.h"

namespace centroid {

inline constexpr int64_t kGrain = 32768;           ///< elements per parallel chunk of cheap work
inline constexpr int64_t kTile = 1024;             ///< elements per tile: three f64 tiles fit in L1
inline constexpr int64_t kStreamBytes = 12 << 20;  ///< outputs from this size bypass the caches

/// Sizes and strides with dimensions of size 1 dropped and neighbours merged where all of N tensors
/// step evenly across them: what is left are the loops that are needed.
template <int N>
struct Loops {
  int dims = 0;
  int64_t size[kMaxDims];
  int64_t stride[N][kMaxDims];

  /// All of one shape; `order` lists its dimensions from the outermost loop to the innermost.
  Loops(const Shape& shape, const Dims& order, const Strides* const (&strides)[N]) {
    for (const int64_t d : order) {
      if (shape[d] == 1) continue;
      bool merge = dims > 0;
      for (int t = 0; t < N; ++t) {
        merge = merge && stride[t][dims - 1] == shape[d] * (*strides[t])[d];
      }
      if (!merge) size[dims++] = 1;
      size[dims - 1] *= shape[d];
      for (int t = 0; t < N; ++t) stride[t][dims - 1] = (*strides[t])[d];
    }
    if (dims > 0) return;
    dims = 1;
    size[0] = 1;
    for (int t = 0; t < N; ++t) stride[t][0] = 1;
  }
};

/// Visits the elements [begin, end) of a row-major walk over `loops` as pieces of innermost rows:
/// calls f(offsets[N], length), offsets in elements.
template <int N, typename F>
void for_each_row(const Loops<N>& loops, int64_t begin, int64_t end, const F& f) {
  const int inner = loops.dims - 1;
  int64_t index[kMaxDims], offset[N] = {};
  int64_t rest = begin;
  for (int d = inner; d >= 0; --d) {
    index[d] = rest % loops.size[d];
    rest /= loops.size[d];
    for (int t = 0; t < N; ++t) offset[t] += index[d] * loops.stride[t][d];
  }
  while (begin < end) {
    const int64_t length = std::min(end - begin, loops.size[inner] - index[inner]);
    f(offset, length);
    begin += length;
    for (int t = 0; t < N; ++t) offset[t] -= index[inner] * loops.stride[t][inner];
    index[inner] = 0;
    for (int d = inner - 1; d >= 0; --d) {
      for (int t = 0; t < N; ++t) offset[t] += loops.stride[t][d];
      if (++index[d] < loops.size[d]) break;
      for (int t = 0; t < N; ++t) offset[t] -= loops.size[d] * loops.stride[t][d];
      index[d] = 0;
    }
  }
}

/// 0, 1, ..., n-1: dimensions in row-major order.
inline Dims row_major_order(int n) {
  Dims order;
  for (int d = 0; d < n; ++d) order.push_back(d);
  return order;
}

/// An input of an elementwise operation: a tensor expanded to the output's shape. T is its element
/// type, or any type of its width for operations that only move bytes.
template <typename T>
class Operand {
 public:
  explicit Operand(const Tensor& x)
      : base_(reinterpret_cast<const T*>(x.bytes())),
        loops_(x.shape(), row_major_order(x.dim()), {&x.strides()}) {}

  bool contiguous() const { return loops_.dims == 1 && stride() == 1; }
  bool constant() const { return loops_.dims == 1 && stride() == 0; }
  const T* base() const { return base_; }

  /// Copies elements [begin, begin + n) of the row-major walk to `out`.
  void pack(int64_t begin, int64_t n, T* out) const {
    const int64_t step = loops_.stride[0][loops_.dims - 1];
    for_each_row(loops_, begin, begin + n, [&](const int64_t* offset, int64_t length) {
      const T* x = base_ + offset[0];
      if (step == 1) {
        std::memcpy(out, x, length * sizeof(T));
      } else if (step == 0) {
        std::fill_n(out, length, *x);
      } else {
        for (int64_t i = 0; i < length; ++i) out[i] = x[i * step];
      }
      out += length;
    });
  }

 private:
  int64_t stride() const { return loops_.stride[0][0]; }

  const T* base_;
  Loops<1> loops_;
};

namespace detail {

// One thread's view of an operand: hands out tiles.
template <typename T>
class TileReader {
 public:
  explicit TileReader(const Operand<T>& operand) : operand_(operand) {
    if (operand.constant()) std::fill_n(buffer_, kTile, *operand.base());
  }
  const T* tile(int64_t begin, int64_t n) {
    if (operand_.contiguous()) return operand_.base() + begin;
    if (!operand_.constant()) operand_.pack(begin, n, buffer_);
    return buffer_;
  }

 private:
  const Operand<T>& operand_;
  alignas(64) T buffer_[kTile];
};

// Inputs and output are the same memory or do not overlap, hence ivdep.
template <typename Out, typename F, typename... In>
void apply_contiguous(const F& f, int64_t n, Out* out, const In*... in) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = f(in[i]...);
}

template <typename Out, typename F, typename... In>
void map_tiles(const F& f, int64_t begin, int64_t end, Out* out, bool stream,
               TileReader<In>&&... in) {
  alignas(64) Out buffer[kTile];
  for (int64_t i = begin; i < end; i += kTile) {
    const int64_t n = std::min(kTile, end - i);
    Out* target = stream ? buffer : out + i;
    apply_contiguous(f, n, target, in.tile(i, n)...);
    if (stream) simd::stream_copy(out + i, buffer, n * sizeof(Out));
  }
  if (stream) simd::stream_fence();
}

}  // namespace detail

/// y[i] = f(in[i]...) for a contiguous y of element type Out and inputs expanded to y's shape.
template <typename Out, typename F, typename... In>
void map(const Tensor& y, const F& f, const Operand<In>&... in) {
  Out* out = reinterpret_cast<Out*>(y.bytes());
  const int64_t n = y.numel();
  // A tile that was read from the output's own memory is in the cache already.
  const bool in_place = ((static_cast<const void*>(in.base()) == out) || ...);
  const bool stream = !in_place && n * static_cast<int64_t>(sizeof(Out)) >= kStreamBytes;
  const bool direct = !stream && (in.contiguous() && ...);
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    if (direct) {
      detail::apply_contiguous(f, end - begin, out + begin, in.base() + begin...);
    } else {
      detail::map_tiles(f, begin, end, out, stream, detail::TileReader<In>(in)...);
    }
  });
}

}  // namespace centroid
