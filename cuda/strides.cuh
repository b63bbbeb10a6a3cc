#pragma once
// Elementwise kernels over strided, broadcast tensors: map<Out(In...)>(f, y, in...).
//
// The host merges dimensions that all tensors step evenly across (Loops of tensor/iterate.h) and
// cuts what is left into parts whose indices and offsets fit in 31 bits. A thread computes 16 bytes
// at once, with one index computation, where rows allow it: then inputs are read as vectors, or as
// one number where they are constant along a row. Else it computes four elements that lie a block
// apart. A single loop, which is what contiguous tensors become, needs no division.
#include <utility>

#include "cuda/indices.h"
#include "cuda/launch.cuh"

namespace centroid::cuda {

/// Loops as a kernel walks them: position i of the row-major order -> offsets into N tensors.
template <int N>
struct Walk {
  int dims = 1;
  uint32_t count = 0;           // elements
  Divisor size[kMaxDims];       // innermost loop first
  int32_t stride[N][kMaxDims];  // in elements

  /// Of units of `unit` elements, which do not cross a row unless there is one row only.
  explicit Walk(const Loops<N>& loops, int unit = 1) : dims(loops.dims) {
    int64_t n = 1;
    for (int d = 0; d < dims; ++d) {
      const int from = dims - 1 - d;
      const int64_t width = d == 0 ? unit : 1;
      n *= loops.size[from];
      size[d] = Divisor(div_up(loops.size[from], width));
      for (int t = 0; t < N; ++t) {
        stride[t][d] = static_cast<int32_t>(loops.stride[t][from] * width);
      }
    }
    count = static_cast<uint32_t>(n);
  }

  CENTROID_DEVICE void offsets(uint32_t i, int32_t (&offset)[N]) const {
#pragma unroll
    for (int t = 0; t < N; ++t) offset[t] = 0;
#pragma unroll
    for (int d = 0; d < kMaxDims; ++d) {
      const bool last = d + 1 == dims;
      const uint32_t rest = last ? 0 : size[d].quotient(i);
      const int32_t index = static_cast<int32_t>(i - rest * size[d].d);
#pragma unroll
      for (int t = 0; t < N; ++t) offset[t] += index * stride[t][d];
      if (last) break;
      i = rest;
    }
  }
};

/// V elements that are read or written at once.
template <typename T, int V>
struct alignas(sizeof(T) * V) Pack {
  T v[V];
};

/// The first `count` of V elements from x on, as one vector if x is aligned to them.
template <int V, typename T>
CENTROID_DEVICE Pack<T, V> load_pack(const T* x, int64_t count, bool aligned) {
  Pack<T, V> pack;
  if (count >= V && aligned) return *reinterpret_cast<const Pack<T, V>*>(x);
#pragma unroll
  for (int j = 0; j < V; ++j) pack.v[j] = j < count ? x[j] : T{};
  return pack;
}
template <int V, typename T>
CENTROID_DEVICE void store_pack(T* y, const Pack<T, V>& pack, int64_t count, bool aligned) {
  if (count >= V && aligned) {
    *reinterpret_cast<Pack<T, V>*>(y) = pack;
    return;
  }
#pragma unroll
  for (int j = 0; j < V; ++j) {
    if (j < count) y[j] = pack.v[j];
  }
}
/// Whether x can be read as a Pack<T, V>.
template <int V, typename T>
bool is_aligned(const T* x) {
  return reinterpret_cast<uintptr_t>(x) % sizeof(Pack<T, V>) == 0;
}

namespace detail {

// Of a row that is constant, x[0] V times.
template <int V, typename T>
CENTROID_DEVICE Pack<T, V> load_row(const T* x, bool constant, uint32_t count) {
  if (!constant) return load_pack<V>(x, count, true);
  Pack<T, V> pack;
  const T value = *x;
#pragma unroll
  for (int j = 0; j < V; ++j) pack.v[j] = value;
  return pack;
}

template <int V, typename F, typename Out, typename... In>
CENTROID_DEVICE void map_packs(const F& f, uint32_t count, Out* y, const Pack<In, V>&... in) {
  Pack<Out, V> result;
#pragma unroll
  for (int j = 0; j < V; ++j) result.v[j] = f(in.v[j]...);
  store_pack<V>(y, result, count, true);
}

// y[offset[0]] = f(in[offset[1]], ...), K being 1, 2, ...
template <int V, size_t... K, typename F, typename Out, typename... In>
CENTROID_DEVICE void map_vectors(std::index_sequence<K...>, const Walk<1 + sizeof...(In)>& walk,
                                 const F& f, Out* y, const In*... in) {
  const uint32_t units = (walk.count + V - 1) / V, step = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < units; i += step) {
    int32_t offset[1 + sizeof...(In)];
    walk.offsets(i, offset);
    const uint32_t count = walk.count - i * V;
    map_packs<V>(f, count, y + offset[0],
                 load_row<V>(in + offset[K], walk.stride[K][0] == 0, count)...);
  }
}

inline constexpr int kScattered = 4;  // elements of a thread that are not one vector

template <size_t... K, typename F, typename Out, typename... In>
CENTROID_DEVICE void map_elements(std::index_sequence<K...>, const Walk<1 + sizeof...(In)>& walk,
                                  const F& f, Out* y, const In*... in) {
  constexpr uint32_t kBlock = kThreads * kScattered;
  for (uint32_t first = blockIdx.x * kBlock + threadIdx.x; first < walk.count;
       first += gridDim.x * kBlock) {
    // Results are stored after the last load, so that all loads are under way together.
    Out result[kScattered];
    int32_t to[kScattered];
#pragma unroll
    for (int j = 0; j < kScattered; ++j) {
      const uint32_t i = first + j * kThreads;
      if (i < walk.count) {
        int32_t offset[1 + sizeof...(In)];
        walk.offsets(i, offset);
        to[j] = offset[0];
        result[j] = f(in[offset[K]]...);
      }
    }
#pragma unroll
    for (int j = 0; j < kScattered; ++j) {
      if (first + j * kThreads < walk.count) y[to[j]] = result[j];
    }
  }
}

template <int V, typename F, typename Out, typename... In>
__global__ void __launch_bounds__(kThreads)
    map_kernel(const __grid_constant__ Walk<1 + sizeof...(In)> walk, const F f, Out* y,
               const In*... in) {
  const auto inputs = []<size_t... K>(std::index_sequence<K...>) {
    return std::index_sequence<K + 1 ...>{};
  }
  (std::index_sequence_for<In...>{});
  if constexpr (V > 1)
    map_vectors<V>(inputs, walk, f, y, in...);
  else
    map_elements(inputs, walk, f, y, in...);
}

/// Whether rows can be read and written `unit` elements at once.
template <int N>
bool rows_have_units(const Loops<N>& loops, int unit, const void* const (&data)[N],
                     const size_t (&bytes)[N]) {
  const int inner = loops.dims - 1;
  if (unit == 1 || loops.stride[0][inner] != 1) return false;
  if (loops.dims > 1 && loops.size[inner] % unit != 0) return false;
  for (int t = 0; t < N; ++t) {
    if (loops.stride[t][inner] == 0) continue;  // read one by one
    if (loops.stride[t][inner] != 1) return false;
    if (reinterpret_cast<uintptr_t>(data[t]) % (unit * bytes[t]) != 0) return false;
    for (int d = 0; d < inner; ++d) {
      if (loops.stride[t][d] % unit != 0) return false;
    }
  }
  return true;
}

/// Whether neighbours in a row lie far apart in memory while those of another dimension are
/// neighbours: a copy, which turns such tensors through shared memory, then costs less than reading
/// them element by element.
inline bool is_turned(const Tensor& x) {
  const Loops<1> loops(x.shape(), row_major_order(x.dim()), {&x.strides()});
  const int inner = loops.dims - 1;
  bool turned = false;
  for (int d = 0; d <= inner; ++d) {
    if (loops.stride[0][d] == 0) return false;  // a copy would be larger
    turned = turned || (d < inner && loops.stride[0][d] == 1 && loops.size[d] >= 8);
  }
  return turned && loops.stride[0][inner] >= 8 && loops.size[inner] >= 8;
}

inline Tensor without_turns(const Tensor& x) {
  if (!is_turned(x)) return x;
  const Tensor y = empty(x.shape(), x.dtype(), x.device());
  copy(x, y);
  return y;
}

template <typename Signature>
struct Map;

template <typename Out, typename... In>
struct Map<Out(In...)> {
  static constexpr int kTensors = 1 + sizeof...(In);
  static constexpr int kUnit = 16 / std::max({sizeof(Out), sizeof(In)...});

  template <typename F>
  static void run(const F& f, const Loops<kTensors>& loops, Out* y, const In*... in) {
    for_each_part(loops, kPartLimit, [&](const auto& part, const auto& start) {
      run_part(f, part, start, std::index_sequence_for<In...>{}, y, in...);
    });
  }

 private:
  template <typename F, size_t... K>
  static void run_part(const F& f, const Loops<kTensors>& part, const Start<kTensors>& start,
                       std::index_sequence<K...>, Out* y, const In*... in) {
    start_kernel(f, part, y + start.at[0], (in + start.at[K + 1])...);
  }

  template <typename F>
  static void start_kernel(const F& f, const Loops<kTensors>& loops, Out* y, const In*... in) {
    const bool vectors = rows_have_units(loops, kUnit, {y, in...}, {sizeof(Out), sizeof(In)...});
    const Walk<kTensors> walk(loops, vectors ? kUnit : 1);
    const int64_t per_block = int64_t{kThreads} * (vectors ? kUnit : kScattered);
    const unsigned grid = grid_for(div_up(walk.count, per_block));
    if (vectors)
      launch(map_kernel<kUnit, F, Out, In...>, grid, kThreads, 0, walk, f, y, in...);
    else
      launch(map_kernel<1, F, Out, In...>, grid, kThreads, 0, walk, f, y, in...);
  }
};

}  // namespace detail

/// y[i] = f(in[i]...) for inputs expanded to y's shape, any strides: map<Out(In...)>(f, y, in...),
/// the types being those of the elements or others of their width. An input may be y itself.
template <typename Signature, typename F, typename... Inputs>
void map(const F& f, const Tensor& y, const Inputs&... in) {
  if (y.numel() == 0) return;
  const auto run = [&]<typename Out, typename... In>(std::type_identity<Out(In...)>,
                                                     const auto&... x) {
    const Loops<1 + sizeof...(In)> loops(y.shape(), row_major_order(y.dim()),
                                         {&y.strides(), &x.strides()...});
    detail::Map<Signature>::run(f, loops, reinterpret_cast<Out*>(y.bytes()),
                                reinterpret_cast<const In*>(x.bytes())...);
  };
  run(std::type_identity<Signature>{}, detail::without_turns(in)...);
}

}  // namespace centroid::cuda
