// Random tensors from Philox blocks, bit for bit those of the CPU: a thread computes one block and
// what depends on it, four numbers of a stream or eight elements of a dropout mask.
#include "cuda/strides.cuh"

namespace centroid::cuda {
namespace {

struct Uniform {
  double low, width;
  CENTROID_DEVICE double operator()(uint32_t bits) const { return fma(width, bits * 0x1p-32, low); }
};
struct Normal {
  double mean, stddev;
  CENTROID_DEVICE double operator()(uint32_t bits) const {
    return fma(stddev, normal_from_bits(bits), mean);
  }
};

// y[4 i + w] = f(word w of block i)
template <typename T, typename F>
struct Generate {
  RngState state;
  F f;
  int64_t n;
  T* y;
  bool aligned;

  CENTROID_DEVICE void operator()(int64_t i) const {
    const PhiloxBlock block = philox(state.key, state.counter + i, 0);
    Pack<T, 4> values;
#pragma unroll
    for (int w = 0; w < 4; ++w) values.v[w] = static_cast<T>(f(block.word[w]));
    store_pack<4>(y + 4 * i, values, n - 4 * i, aligned);
  }
};

template <typename F>
void generate(const char* op, RngState state, const F& f, const Tensor& y) {
  dispatch_float(y.dtype(), op, [&]<typename T>() {
    T* to = y.data<T>();
    for_each(div_up(y.numel(), 4), Generate<T, F>{state, f, y.numel(), to, is_aligned<4>(to)});
  });
}

// Eight elements of a row, whose decisions are the half-words of one block.
template <typename T>
struct Dropout {
  RngState state;
  uint32_t threshold;
  T scale;
  int64_t columns, lanes;  // of a row; blocks of a row
  const T* x;
  T* y;
  bool aligned;  // every four elements of every row

  CENTROID_DEVICE void operator()(int64_t i) const {
    const int64_t row = quotient(i, lanes);
    const int64_t column = (i - row * lanes) * 8, offset = row * columns + column;
    const PhiloxBlock block = philox(state.key, state.counter, i);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t at = offset + 4 * half, count = columns - column - 4 * half;
      Pack<T, 4> values = load_pack<4>(x + at, count, aligned);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t word = block.word[2 * half + j / 2];
        const uint32_t draw = j % 2 ? word >> 16 : word & 0xffffu;
        values.v[j] = draw >= threshold ? values.v[j] * scale : T(0);
      }
      store_pack<4>(y + at, values, count, aligned);
    }
  }
};

}  // namespace

void uniform(RngState state, double low, double high, const Tensor& y) {
  generate("uniform", state, Uniform{low, high - low}, y);
}

void normal(RngState state, double mean, double stddev, const Tensor& y) {
  generate("normal", state, Normal{mean, stddev}, y);
}

void dropout(RngState state, double p, const Tensor& x, const Tensor& y) {
  const int64_t rows = x.size(0), n = x.size(1), lanes = div_up(n, 8);
  const uint32_t threshold = static_cast<uint32_t>(p * 65536 + 0.5);
  dispatch_float(y.dtype(), "dropout", [&]<typename T>() {
    const T scale = static_cast<T>(65536.0 / (65536.0 - threshold));
    const T* from = x.data<T>();
    T* to = y.data<T>();
    const bool aligned = n % 4 == 0 && is_aligned<4>(from) && is_aligned<4>(to);
    for_each(rows * lanes, Dropout<T>{state, threshold, scale, n, lanes, from, to, aligned});
  });
}

}  // namespace centroid::cuda
