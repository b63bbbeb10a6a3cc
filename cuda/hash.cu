// Sign hashes. A block takes a tile of rows of one head against all 64 planes: a matrix product of
// which only the signs are kept.
//
// 16 x 16 threads; thread (tx, ty) sums, in the order of e, rows ty + 16 i against planes
// tx + 16 j, so that one ballot over a warp gives 16 bits of two rows' codes. Tiles of both
// operands go through shared memory, kDepth numbers of each row at a time: rows as they are, read
// as broadcasts of 16 bytes; planes permuted such that a thread's four lie together.
#include "cuda/vectors.cuh"

namespace centroid::cuda {
namespace {

constexpr int kBits = 64;
constexpr int kSide = 16;               // threads along planes, and along rows
constexpr int kPlanes = kBits / kSide;  // per thread
constexpr int kDepth = 32;
static_assert(kSide * kSide == kThreads && 2 * kSide == kWarp);

template <typename T>
struct HashTile {
  static constexpr int kPerThread = sizeof(T) == 4 ? 8 : 4;  // rows
  static constexpr int kRows = kSide * kPerThread;
  static constexpr int kPitch = kDepth + kVector<T>;  // neighbouring rows in different banks
};

template <typename T>
struct HashArguments {
  Rows4<const T> x;
  const T *planes, *bias;
  const int64_t* lengths;  // or null
  int64_t* codes;
  int heads, positions, width, tiles;  // tiles of rows per head
  bool vectors;                        // rows can be read 16 bytes at a time
};

// Rows [l0, l0 + kRows) from column e0 on; zeros beyond the valid rows and the width.
template <typename T>
CENTROID_DEVICE void load_rows(const HashArguments<T>& a, int b, int h, int l0, int valid, int e0,
                               T* tile) {
  using Tile = HashTile<T>;
  constexpr int kVectors = kDepth / kVector<T>;
#pragma unroll 2
  for (int i = threadIdx.x; i < Tile::kRows * kVectors; i += kThreads) {
    const int row = i / kVectors, e = e0 + i % kVectors * kVector<T>;
    Vector<T> value = {};
    if (l0 + row < valid) {
      const T* from = a.x.at(b, h, l0 + row) + e;
      if (a.vectors) {
        if (e < a.width) value = *reinterpret_cast<const Vector<T>*>(from);
      } else {
        for (int j = 0; j < kVector<T>; ++j) value.at[j] = e + j < a.width ? from[j] : T(0);
      }
    }
    *reinterpret_cast<Vector<T>*>(tile + row * Tile::kPitch + (e - e0)) = value;
  }
}

// Of plane c, element e stands at tile[e][c % 16 * 4 + c / 16].
template <typename T>
CENTROID_DEVICE void load_planes(const HashArguments<T>& a, int e0, T* tile) {
#pragma unroll 4
  for (int i = threadIdx.x; i < kDepth * kBits; i += kThreads) {
    const int e = e0 + i / kBits, c = i % kPlanes * kSide + i % kBits / kPlanes;
    tile[i] = e < a.width ? a.planes[int64_t{e} * kBits + c] : T(0);
  }
}

template <typename T>
CENTROID_DEVICE void multiply_tiles(const T* rows, const T* planes,
                                    T (&sum)[HashTile<T>::kPerThread][kPlanes]) {
  using Tile = HashTile<T>;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll 1
  for (int e = 0; e < kDepth; e += kVector<T>) {
    Vector<T> plane[kVector<T>][kPlanes / kVector<T>];
#pragma unroll
    for (int k = 0; k < kVector<T>; ++k) {
#pragma unroll
      for (int j = 0; j < kPlanes / kVector<T>; ++j) {
        const T* from = planes + (e + k) * kBits + tx * kPlanes;
        plane[k][j] = reinterpret_cast<const Vector<T>*>(from)[j];
      }
    }
#pragma unroll
    for (int i = 0; i < Tile::kPerThread; ++i) {
      const Vector<T> x =
          *reinterpret_cast<const Vector<T>*>(rows + (ty + kSide * i) * Tile::kPitch + e);
#pragma unroll
      for (int k = 0; k < kVector<T>; ++k) {
#pragma unroll
        for (int j = 0; j < kPlanes; ++j) {
          sum[i][j] = fma(x.at[k], plane[k][j / kVector<T>].at[j % kVector<T>], sum[i][j]);
        }
      }
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) hash_kernel(HashArguments<T> a) {
  using Tile = HashTile<T>;
  __shared__ __align__(16) T rows[Tile::kRows * Tile::kPitch];
  __shared__ __align__(16) T planes[kDepth * kBits];
  __shared__ unsigned long long codes[Tile::kRows];
  const int bh = blockIdx.x / a.tiles, l0 = blockIdx.x % a.tiles * Tile::kRows;
  const int b = bh / a.heads, h = bh % a.heads;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  const int valid =
      a.lengths ? static_cast<int>(min(a.lengths[b], int64_t{a.positions})) : a.positions;
  T sum[Tile::kPerThread][kPlanes] = {};
  for (int e0 = 0; l0 < valid && e0 < a.width; e0 += kDepth) {
    load_rows(a, b, h, l0, valid, e0, rows);
    load_planes(a, e0, planes);
    __syncthreads();
    multiply_tiles<T>(rows, planes, sum);
    __syncthreads();
  }
  T bias[kPlanes];
#pragma unroll
  for (int j = 0; j < kPlanes; ++j) bias[j] = a.bias[tx + kSide * j];
#pragma unroll
  for (int i = 0; i < Tile::kPerThread; ++i) {
    unsigned long long code = 0;
#pragma unroll
    for (int j = 0; j < kPlanes; ++j) {
      const unsigned both = __ballot_sync(kFullMask, sum[i][j] > bias[j]);
      const unsigned own = ty % 2 ? both >> kSide : both & 0xffffu;
      code |= static_cast<unsigned long long>(own) << (kSide * j);
    }
    const int row = ty + kSide * i;
    if (tx == 0) codes[row] = l0 + row < valid ? code : 0;
  }
  __syncthreads();
  const int row = threadIdx.x, count = min(Tile::kRows, a.positions - l0);
  if (row < count) a.codes[int64_t{bh} * a.positions + l0 + row] = static_cast<int64_t>(codes[row]);
}

}  // namespace

void hash_codes(const Tensor& x, const Tensor& planes, const Tensor& bias, const Tensor& lengths,
                const Tensor& codes) {
  dispatch_float(x.dtype(), "hash_codes", [&]<typename T>() {
    const int64_t tiles = div_up(x.size(2), HashTile<T>::kRows);
    const HashArguments<T> arguments{rows4<const T>(x),
                                     planes.data<T>(),
                                     bias.data<T>(),
                                     data_or_null<const int64_t>(lengths),
                                     codes.data<int64_t>(),
                                     static_cast<int>(x.size(1)),
                                     static_cast<int>(x.size(2)),
                                     static_cast<int>(x.size(3)),
                                     static_cast<int>(tiles),
                                     in_vectors<T>(x)};
    launch(hash_kernel<T>, static_cast<unsigned>(x.size(0) * x.size(1) * tiles), kThreads, 0,
           arguments);
  });
}

}  // namespace centroid::cuda
