// Kernels that move or set elements: copy, cast, fill, arange.
//
// Elements are moved as integers of their width. A copy between rows of one direction is map() of
// strides.cuh with loops that follow the output's memory. A transposing copy goes through tiles of
// 32 x 32 elements in shared memory: a block of 32 x 8 threads reads the tile along x's rows and
// writes it along y's; rows of 33 elements put the elements of a column into different banks.
#include "cuda/strides.cuh"
#include "tensor/convert.h"

namespace centroid::cuda {
namespace {

constexpr int kTile = 32, kTileRows = 8;

struct Same {
  template <typename T>
  CENTROID_DEVICE T operator()(T x) const {
    return x;
  }
};

template <typename T>
struct Constant {
  T value;
  CENTROID_DEVICE T operator()() const { return value; }
};

template <typename To>
struct Convert {
  template <typename From>
  CENTROID_DEVICE To operator()(From x) const {
    return convert<To>(x);
  }
};

template <typename T>
struct Count {
  T* to;
  CENTROID_DEVICE void operator()(int64_t i) const { to[i] = static_cast<T>(i); }
};

// Tiles, in an order of their own, and what is inside of one. The four offsets of a tile are its
// first element in y and in x, its row and its column.
struct Tiles {
  Walk<4> walk;
  uint32_t rows, columns;
  int32_t y_step, x_step;  // from row to row of y, from column to column of x
};

template <typename T>
__global__ void __launch_bounds__(kTile* kTileRows)
    transpose_kernel(const __grid_constant__ Tiles tiles, const T* x, T* y) {
  __shared__ T tile[kTile][kTile + 1];
  const uint32_t lane = threadIdx.x % kTile, first = threadIdx.x / kTile;
  for (uint32_t i = blockIdx.x; i < tiles.walk.count; i += gridDim.x) {
    int32_t at[4];
    tiles.walk.offsets(i, at);
    const uint32_t height = min(tiles.rows - at[2], kTile),
                   width = min(tiles.columns - at[3], kTile);
    const T* from = x + at[1];
    T* to = y + at[0];
#pragma unroll
    for (uint32_t c = first; c < kTile; c += kTileRows) {
      if (c < width && lane < height)
        tile[c][lane] = from[static_cast<int32_t>(c) * tiles.x_step + lane];
    }
    __syncthreads();
#pragma unroll
    for (uint32_t r = first; r < kTile; r += kTileRows) {
      if (r < height && lane < width)
        to[static_cast<int32_t>(r) * tiles.y_step + lane] = tile[lane][r];
    }
    __syncthreads();
  }
}

// y is contiguous along the innermost loop, x along loop `rows`.
template <typename T>
void copy_transposed(const Loops<2>& loops, int rows, const T* x, T* y) {
  const int columns = loops.dims - 1;
  Shape shape;
  Strides strides[4];
  const auto add = [&](int64_t size, int64_t a, int64_t b, int64_t row, int64_t column) {
    shape.push_back(size);
    const int64_t values[4] = {a, b, row, column};
    for (int t = 0; t < 4; ++t) strides[t].push_back(values[t]);
  };
  for (int d = 0; d < columns; ++d) {
    if (d != rows) add(loops.size[d], loops.stride[0][d], loops.stride[1][d], 0, 0);
  }
  const int64_t y_step = loops.stride[0][rows], x_step = loops.stride[1][columns];
  add(div_up(loops.size[rows], kTile), kTile * y_step, kTile, kTile, 0);
  add(div_up(loops.size[columns], kTile), kTile, kTile * x_step, 0, kTile);
  const Loops<4> tiles(shape, row_major_order(shape.size()),
                       {&strides[0], &strides[1], &strides[2], &strides[3]});
  const Tiles all{Walk<4>(tiles), static_cast<uint32_t>(loops.size[rows]),
                  static_cast<uint32_t>(loops.size[columns]), static_cast<int32_t>(y_step),
                  static_cast<int32_t>(x_step)};
  launch(transpose_kernel<T>, grid_for(all.walk.count), kTile * kTileRows, 0, all, x, y);
}

// The loop along which x is contiguous, if turning pays; else -1.
int turned_loop(const Loops<2>& loops) {
  const int inner = loops.dims - 1;
  if (loops.stride[0][inner] != 1 || loops.stride[1][inner] < 2 || loops.size[inner] < 8) return -1;
  for (int d = 0; d < inner; ++d) {
    if (loops.stride[1][d] == 1 && loops.size[d] >= 8) return d;
  }
  return -1;
}

// Loops in the order of y's memory, its smallest stride innermost.
Loops<2> copy_loops(const Tensor& x, const Tensor& y) {
  Dims order = row_major_order(y.dim());
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return y.strides()[static_cast<int>(a)] > y.strides()[static_cast<int>(b)];
  });
  return Loops<2>(y.shape(), order, {&y.strides(), &x.strides()});
}

}  // namespace

void copy(const Tensor& x, const Tensor& y) {
  if (y.numel() == 0) return;
  const Loops<2> loops = copy_loops(x, y);
  if (loops.dims == 1 && loops.stride[0][0] == 1 && loops.stride[1][0] == 1) {
    if (x.bytes() == y.bytes()) return;
    CENTROID_CUDA(cudaMemcpyAsync(y.bytes(), x.bytes(), y.numel() * size_of(y.dtype()),
                                  cudaMemcpyDeviceToDevice, stream()));
    return;
  }
  dispatch_bytes(y.dtype(), [&]<typename T>() {
    const T* from = reinterpret_cast<const T*>(x.bytes());
    T* to = reinterpret_cast<T*>(y.bytes());
    for_each_part(loops, kPartLimit, [&](const Loops<2>& part, const Start<2>& start) {
      const int turned = turned_loop(part);
      if (turned < 0)
        detail::Map<T(T)>::run(Same{}, part, to + start.at[0], from + start.at[1]);
      else
        copy_transposed(part, turned, from + start.at[1], to + start.at[0]);
    });
  });
}

void cast(const Tensor& x, const Tensor& y) {
  dispatch_any(x.dtype(), [&]<typename From>() {
    dispatch_any(y.dtype(), [&]<typename To>() {
      if constexpr (std::is_same_v<From, To>)
        copy(x, y);
      else
        map<To(From)>(Convert<To>{}, y, x);
    });
  });
}

void fill(const Tensor& y, double value) {
  dispatch_any(y.dtype(), [&]<typename T>() { map<T()>(Constant<T>{convert<T>(value)}, y); });
}

void arange(const Tensor& y) {
  dispatch_numeric(y.dtype(), "arange",
                   [&]<typename T>() { for_each(y.numel(), Count<T>{y.data<T>()}); });
}

}  // namespace centroid::cuda
