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

inline constexpr int64_t kGrain = 32768;  ///< elements per parallel chunk of cheap work
inline constexpr int64_t kTile = 1024;    ///< elements per tile: three f64 tiles fit in L1
inline constexpr int64_t kLongRow =
    128;  ///< rows from this length are not packed with their neighbours
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

  /// The most elements from `begin` on that a tile should take: up to the end of a long row, which
  /// is then found in place.
  int64_t row_limit(int64_t begin) const {
    const int64_t row = loops_.size[loops_.dims - 1];
    return loops_.dims > 1 && row >= kLongRow ? row - begin % row : kTile;
  }

  /// Where elements [begin, begin + n) of the row-major walk lie one after the other; null if they
  /// do not.
  const T* find(int64_t begin, int64_t n) const {
    int d = loops_.dims - 1;
    if (loops_.stride[0][d] != 1) return nullptr;
    int64_t rest = begin / loops_.size[d], offset = begin % loops_.size[d];
    if (offset + n > loops_.size[d]) return nullptr;
    while (--d > 0) {
      offset += rest % loops_.size[d] * loops_.stride[0][d];
      rest /= loops_.size[d];
    }
    return base_ + offset + (d == 0 ? rest * loops_.stride[0][0] : 0);
  }

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
  int64_t row_limit(int64_t begin) const { return operand_.row_limit(begin); }
  const T* tile(int64_t begin, int64_t n) {
    if (operand_.constant()) return buffer_;
    if (const T* x = operand_.find(begin, n)) return x;
    operand_.pack(begin, n, buffer_);
    return buffer_;
  }

 private:
  const Operand<T>& operand_;
  alignas(64) T buffer_[kTile];
};

// Inputs and output are the same memory or do not overlap, hence ivdep.
template <typename Out, typename F, typename... In>
void apply(const F& f, int64_t n, Out* out, const In*... in) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = f(in[i]...);
}

// The same with whole cache lines written past the caches. The inner loop becomes vector code whose
// registers are stored directly; unrolled, it would be taken for scalar code first.
template <typename Out, typename F, typename... In>
void apply_streaming(const F& f, int64_t n, Out* out, const In*... in) {
  constexpr int kLine = simd::kLineBytes / sizeof(Out);
  const int64_t head = std::min<int64_t>(n, simd::bytes_to_line(out) / sizeof(Out));
  apply(f, head, out, in...);
  int64_t i = head;
  for (; i + kLine <= n; i += kLine) {
    alignas(simd::kLineBytes) Out line[kLine];
#pragma GCC ivdep
#pragma GCC unroll 1
    for (int j = 0; j < kLine; ++j) line[j] = f(in[i + j]...);
    simd::stream_line(out + i, line);
  }
  apply(f, n - i, out + i, in + i...);
}

template <typename Out, typename F, typename... In>
void apply_tiles(const F& f, int64_t begin, int64_t end, Out* out, bool stream,
                 TileReader<In>&&... in) {
  for (int64_t i = begin, n; i < end; i += n) {
    n = std::min({kTile, end - i, in.row_limit(i)...});
    if (stream)
      apply_streaming(f, n, out + i, in.tile(i, n)...);
    else
      apply(f, n, out + i, in.tile(i, n)...);
  }
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
  const bool direct = (in.contiguous() && ...);
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    if (!direct) {
      detail::apply_tiles(f, begin, end, out, stream, detail::TileReader<In>(in)...);
    } else if (stream) {
      detail::apply_streaming(f, end - begin, out + begin, in.base() + begin...);
    } else {
      detail::apply(f, end - begin, out + begin, in.base() + begin...);
    }
    if (stream) simd::stream_fence();
  });
}

}  // namespace centroid
