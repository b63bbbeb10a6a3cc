// Random tensors from Philox blocks: element i depends on the state and on i only. Every product
// that is added to something is an explicit fma, so that all compilers and devices round alike.
#include <algorithm>
#include <cmath>

#include "tensor/iterate.h"
#include "tensor/kernels.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kBlocks = 64;   // Philox blocks per step: enough for the vectoriser
constexpr int64_t kDraws = 1024;  // per task: a normal one takes as long as dozens of products

// y[i] = f(word i) for i in [0, n), word i being word i % 4 of block i / 4 of the stream.
template <typename T, typename F>
void generate(RngState state, const Tensor& y, const F& f) {
  T* out = y.data<T>();
  parallel_for(0, y.numel(), kDraws, [&](int64_t begin, int64_t end) {
    uint32_t words[kBlocks][4];
    for (int64_t i = begin; i < end; i += 4 * kBlocks) {  // begin is a multiple of 4
      const int64_t n = std::min(4 * kBlocks, end - i);
      const uint64_t counter = state.counter + i / 4;
      for (int64_t b = 0; b < (n + 3) / 4; ++b) {
        const PhiloxBlock block = philox(state.key, counter + b, 0);
        for (int w = 0; w < 4; ++w) words[b][w] = block[w];
      }
      for (int64_t j = 0; j < n; ++j) out[i + j] = static_cast<T>(f(words[j / 4][j % 4]));
    }
  });
}

// Scales `n` elements of one row, whose first is at column 0 of lane `lane`, by the mask.
template <typename T>
void dropout_row(RngState state, uint64_t lane, uint32_t threshold, T scale, int64_t n, const T* x,
                 T* y) {
  for (int64_t c = 0; c < n; c += 8 * kBlocks) {
    const int64_t count = std::min(8 * kBlocks, n - c);
    uint16_t half[kBlocks][8];
    for (int64_t b = 0; b < (count + 7) / 8; ++b) {
      const PhiloxBlock block = philox(state.key, state.counter, lane + c / 8 + b);
      for (int h = 0; h < 8; ++h) half[b][h] = static_cast<uint16_t>(block[h / 2] >> (h % 2 * 16));
    }
    const uint16_t* draw = half[0];
    for (int64_t i = 0; i < count; ++i) y[c + i] = draw[i] >= threshold ? x[c + i] * scale : T(0);
  }
}

}  // namespace

void uniform(RngState state, double low, double high, const Tensor& y) {
  dispatch_float(y.dtype(), "uniform", [&]<typename T>() {
    generate<T>(state, y, [=](uint32_t bits) { return std::fma(high - low, bits * 0x1p-32, low); });
  });
}

void normal(RngState state, double mean, double stddev, const Tensor& y) {
  dispatch_float(y.dtype(), "normal", [&]<typename T>() {
    generate<T>(state, y,
                [=](uint32_t bits) { return std::fma(stddev, normal_from_bits(bits), mean); });
  });
}

void dropout(RngState state, double p, const Tensor& x, const Tensor& y) {
  const int64_t rows = x.size(0), n = x.size(1);
  const int64_t lanes = (n + 7) / 8;
  const uint32_t threshold = static_cast<uint32_t>(p * 65536 + 0.5);
  dispatch_float(y.dtype(), "dropout", [&]<typename T>() {
    const T scale = static_cast<T>(65536.0 / (65536.0 - threshold));
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) {
                     dropout_row(state, r * lanes, threshold, scale, n, in + r * n, out + r * n);
                   }
                 });
  });
}

}  // namespace centroid::cpu
