// Kernels that move or set elements: copy, cast, fill, arange.
#include <algorithm>
#include <cstring>

#include "tensor/convert.h"
#include "tensor/iterate.h"
#include "tensor/kernels.h"

namespace centroid::cpu {
namespace {

// A block of a transpose: one side's rows fill whole cache lines on reading, the other's on
// writing.
constexpr int64_t kBlock = 64;

bool streams(int64_t bytes) { return bytes >= kStreamBytes; }

template <typename T>
void copy_contiguous(const T* x, T* y, int64_t n) {
  const bool stream = streams(n * static_cast<int64_t>(sizeof(T)));
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    if (!stream) {
      std::memcpy(y + begin, x + begin, (end - begin) * sizeof(T));
    } else {
      simd::stream_copy(y + begin, x + begin, (end - begin) * sizeof(T));
      simd::stream_fence();
    }
  });
}

template <typename T>
void copy_rows(const Loops<2>& loops, const T* x, T* y, int64_t n, bool stream) {
  const int inner = loops.dims - 1;
  const int64_t y_step = loops.stride[0][inner], x_step = loops.stride[1][inner];
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    for_each_row(loops, begin, end, [&](const int64_t* offset, int64_t length) {
      T* to = y + offset[0];
      const T* from = x + offset[1];
      if (y_step == 1 && x_step == 1) {
        if (stream)
          simd::stream_copy(to, from, length * sizeof(T));
        else
          std::memcpy(to, from, length * sizeof(T));
      } else if (y_step == 1 && x_step == 0) {
        std::fill_n(to, length, *from);
      } else {
        for (int64_t i = 0; i < length; ++i) to[i * y_step] = from[i * x_step];
      }
    });
    if (stream) simd::stream_fence();
  });
}

// y is contiguous along the innermost loop, x along loop `d`. Blocks of kBlock x kBlock go through
// a buffer, so that powers of two as strides do not throw each other out of the cache.
template <typename T>
void copy_transposed(const Loops<2>& loops, int d, const T* x, T* y) {
  const int inner = loops.dims - 1;
  const int64_t columns = loops.size[inner], rows = loops.size[d];
  const int64_t x_step = loops.stride[1][inner], y_step = loops.stride[0][d];
  const int64_t bands = (rows + kBlock - 1) / kBlock;
  int64_t outer = 1;
  for (int k = 0; k < inner; ++k) outer *= k == d ? 1 : loops.size[k];
  const int64_t grain = std::max<int64_t>(1, kGrain / (kBlock * columns));
  parallel_for(0, outer * bands, grain, [&](int64_t begin, int64_t end) {
    alignas(64) T block[kBlock][kBlock];
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item % bands * kBlock, height = std::min(kBlock, rows - row);
      const T* from = x + row;
      T* to = y + row * y_step;
      int64_t rest = item / bands;
      for (int k = inner - 1; k >= 0; --k) {
        if (k == d) continue;
        from += rest % loops.size[k] * loops.stride[1][k];
        to += rest % loops.size[k] * loops.stride[0][k];
        rest /= loops.size[k];
      }
      for (int64_t c = 0; c < columns; c += kBlock) {
        const int64_t width = std::min(kBlock, columns - c);
        for (int64_t j = 0; j < width; ++j) {
          std::memcpy(block[j], from + (c + j) * x_step, height * sizeof(T));
        }
        for (int64_t i = 0; i < height; ++i) {
          for (int64_t j = 0; j < width; ++j) to[i * y_step + c + j] = block[j][i];
        }
      }
    }
  });
}

template <typename T>
void copy_elements(const Tensor& x, const Tensor& y) {
  // Loops follow y's memory: its smallest stride innermost.
  Dims order = row_major_order(y.dim());
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return y.strides()[static_cast<int>(a)] > y.strides()[static_cast<int>(b)];
  });
  const Loops<2> loops(y.shape(), order, {&y.strides(), &x.strides()});
  const T* from = reinterpret_cast<const T*>(x.bytes());
  T* to = reinterpret_cast<T*>(y.bytes());
  const int inner = loops.dims - 1;
  const int64_t n = y.numel(), row_bytes = loops.size[inner] * static_cast<int64_t>(sizeof(T));
  const bool y_dense = loops.stride[0][inner] == 1, x_dense = loops.stride[1][inner] == 1;
  if (loops.dims == 1 && y_dense && x_dense) return copy_contiguous(from, to, n);
  if (y_dense && !x_dense && loops.size[inner] >= 8) {
    for (int d = 0; d < inner; ++d) {
      if (loops.stride[1][d] == 1 && loops.size[d] >= 8) {
        return copy_transposed(loops, d, from, to);
      }
    }
  }
  // Rows that do not fill whole cache lines would share them between the two kinds of stores.
  const bool stream = streams(n * static_cast<int64_t>(sizeof(T))) && y.is_contiguous() &&
                      x_dense && row_bytes % 64 == 0;
  copy_rows(loops, from, to, n, stream);
}

}  // namespace

void copy(const Tensor& x, const Tensor& y) {
  if (y.numel() == 0) return;
  dispatch_bytes(y.dtype(), [&]<typename T>() { copy_elements<T>(x, y); });
}

void cast(const Tensor& x, const Tensor& y) {
  dispatch_any(x.dtype(), [&]<typename From>() {
    dispatch_any(y.dtype(), [&]<typename To>() {
      map<To>(
          y, [](From v) { return convert<To>(v); }, Operand<From>(x));
    });
  });
}

void fill(const Tensor& y, double value) {
  if (y.numel() == 0) return;
  dispatch_any(y.dtype(), [&]<typename T>() {
    const T v = convert<T>(value);
    T* to = y.data<T>();
    const Loops<1> loops(y.shape(), row_major_order(y.dim()), {&y.strides()});
    const int64_t step = loops.stride[0][loops.dims - 1], n = y.numel();
    const bool stream = streams(n * static_cast<int64_t>(sizeof(T))) && y.is_contiguous();
    alignas(64) T tile[kTile];
    if (stream) std::fill_n(tile, kTile, v);
    parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
      if (stream) {
        for (int64_t i = begin; i < end; i += kTile) {
          simd::stream_copy(to + i, tile, std::min(kTile, end - i) * sizeof(T));
        }
        return simd::stream_fence();
      }
      for_each_row(loops, begin, end, [&](const int64_t* offset, int64_t length) {
        T* row = to + offset[0];
        if (step == 1)
          std::fill_n(row, length, v);
        else
          for (int64_t i = 0; i < length; ++i) row[i * step] = v;
      });
    });
  });
}

void arange(const Tensor& y) {
  dispatch_numeric(y.dtype(), "arange", [&]<typename T>() {
    T* to = y.data<T>();
    parallel_for(0, y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to[i] = static_cast<T>(i);
    });
  });
}

}  // namespace centroid::cpu
