// Reductions over the middle of (A, n, C).
//
// The order of additions is a function of the sizes alone. Rows (C = 1) are cut into chunks of
// kChunk elements, each folded over fixed lanes (simd.h); columns (C > 1) into blocks of rows that
// are added up side by side. The results of chunks and blocks are combined in their order, float
// sums in f64.
#include <cmath>
#include <vector>

#include "tensor/functors.h"
#include "tensor/iterate.h"
#include "tensor/kernels.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kChunk = 4096;        // elements of a row folded at once
constexpr int64_t kRowBlock = 128;      // at least so many rows of columns added up in f32
constexpr int64_t kColumnBlock = 1024;  // columns side by side: their totals stay in L1

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What partial results are combined in.
template <typename Op, typename T>
using Wide =
    std::conditional_t<std::is_same_v<Op, simd::Sum> && std::is_floating_point_v<T>, double, T>;

// x (rows, n) -> y (rows)
template <typename Op, typename T>
void reduce_rows(const T* x, T* y, int64_t rows, int64_t n) {
  const int64_t chunks = ceil_div(n, kChunk);
  if (chunks <= 1) {
    parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) y[r] = simd::fold<Op>(x + r * n, n);
                 });
    return;
  }
  std::vector<T> partial(rows * chunks);
  parallel_for(0, rows * chunks, kGrain / kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t r = item / chunks, first = item % chunks * kChunk;
      partial[item] = simd::fold<Op>(x + r * n + first, std::min(kChunk, n - first));
    }
  });
  for (int64_t r = 0; r < rows; ++r) {
    Wide<Op, T> total = Op::template identity<Wide<Op, T>>;
    for (int64_t c = 0; c < chunks; ++c) total = Op{}(total, Wide<Op, T>(partial[r * chunks + c]));
    y[r] = static_cast<T>(total);
  }
}

// total[c] = op over r of x[r * stride + c]; rows >= 1. Four rows at a time spare three of four
// loads and stores of the totals.
template <typename Op, typename T>
void add_rows(const T* x, int64_t rows, int64_t columns, int64_t stride, T* total) {
  constexpr int kStep = simd::kVectorBytes / sizeof(T);
  const Op op;
  std::copy_n(x, columns, total);
  int64_t r = 1;
  for (; r + 4 <= rows; r += 4) {
    const T *x0 = x + r * stride, *x1 = x0 + stride, *x2 = x1 + stride, *x3 = x2 + stride;
    int64_t c = 0;
    for (; c + kStep <= columns; c += kStep) {
      const auto low = op(simd::load(x0 + c), simd::load(x1 + c));
      const auto high = op(simd::load(x2 + c), simd::load(x3 + c));
      simd::store(total + c, op(simd::load(total + c), op(low, high)));
    }
    for (; c < columns; ++c) total[c] = op(total[c], op(op(x0[c], x1[c]), op(x2[c], x3[c])));
  }
  for (; r < rows; ++r) {
    const T* row = x + r * stride;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) total[c] = op(total[c], row[c]);
  }
}

// The same for few, contiguous columns: `fold` rows are treated as one wide row, whose totals are
// then combined.
template <typename Op, typename T>
void add_narrow_rows(const T* x, int64_t rows, int64_t columns, T* total) {
  constexpr int64_t kWide = 128;
  const Op op;
  const int64_t fold = kWide / columns, wide_rows = rows / fold;
  if (wide_rows < 2) return add_rows<Op>(x, rows, columns, columns, total);
  T wide[kWide];
  add_rows<Op>(x, wide_rows, fold * columns, fold * columns, wide);
  add_rows<Op>(wide, fold, columns, columns, total);
  for (int64_t r = wide_rows * fold; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) total[c] = op(total[c], x[r * columns + c]);
  }
}

// x (A, n, C) -> y (A, C), n >= 1
template <typename Op, typename T>
void reduce_columns(const T* x, T* y, int64_t A, int64_t n, int64_t C) {
  const int64_t block = std::max(kRowBlock, kGrain / C), blocks = ceil_div(n, block);
  const int64_t bands = ceil_div(C, kColumnBlock);
  std::vector<T> partial(blocks > 1 ? A * blocks * C : 0);
  T* totals = blocks > 1 ? partial.data() : y;  // (A, blocks, C)
  const int64_t work = std::min(n, block) * std::min(C, kColumnBlock);
  parallel_for(
      0, A * blocks * bands, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) {
          const int64_t c = item % bands * kColumnBlock, columns = std::min(kColumnBlock, C - c);
          const int64_t a = item / bands / blocks, r = item / bands % blocks * block;
          const int64_t rows = std::min(block, n - r);
          const T* from = x + (a * n + r) * C + c;
          T* total = totals + item / bands * C + c;
          if (C <= 32)
            add_narrow_rows<Op>(from, rows, columns, total);
          else
            add_rows<Op>(from, rows, columns, C, total);
        }
      });
  if (blocks == 1) return;
  parallel_for(0, A * C, std::max<int64_t>(1, kGrain / blocks), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* column = partial.data() + i / C * blocks * C + i % C;
      Wide<Op, T> total = Op::template identity<Wide<Op, T>>;
      for (int64_t b = 0; b < blocks; ++b) total = Op{}(total, Wide<Op, T>(column[b * C]));
      y[i] = static_cast<T>(total);
    }
  });
}

template <typename Op, typename T>
void reduce_typed(const Tensor& x, const Tensor& y) {
  const int64_t A = x.size(0), n = x.size(1), C = x.size(2);
  const T* in = reinterpret_cast<const T*>(x.bytes());
  T* out = reinterpret_cast<T*>(y.bytes());
  if (n == 0)
    std::fill_n(out, A * C, Op::template identity<T>);
  else if (C == 1)
    reduce_rows<Op>(in, out, A, n);
  else if (C > 1)
    reduce_columns<Op>(in, out, A, n, C);
}

// ---- argmax, argmin ----------------------------------------------------------------------------

// Position of the first element of x[0..n) that equals `value`, NaN equalling NaN.
template <typename T>
int64_t find_first(const T* x, int64_t n, T value) {
  constexpr int64_t kStep = 64;
  const bool nan = value != value;
  int64_t i = 0;
  for (; i + kStep <= n; i += kStep) {  // whole steps without a branch inside: vector code
    int found = 0;
    for (int64_t j = 0; j < kStep; ++j) found |= nan ? x[i + j] != x[i + j] : x[i + j] == value;
    if (found) break;
  }
  while (i < n && !(nan ? x[i] != x[i] : x[i] == value)) ++i;
  return i;
}

// x (n, stride) -> index (columns), columns <= kColumnBlock
template <typename Op, typename T>
void arg_columns(const T* x, int64_t n, int64_t columns, int64_t stride, int64_t* index) {
  T best[kColumnBlock];
  std::copy_n(x, columns, best);
  std::fill_n(index, columns, 0);
  for (int64_t r = 1; r < n; ++r) {
    const T* row = x + r * stride;
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) {
      const T next = Op{}(best[c], row[c]);
      // The first NaN wins over all numbers, and over later NaNs, which change nothing.
      const bool changed = next != best[c] && best[c] == best[c];
      index[c] = changed ? r : index[c];
      best[c] = next;
    }
  }
}

template <typename Op, typename T>
void argreduce_typed(const Tensor& x, const Tensor& y) {
  const int64_t A = x.size(0), n = x.size(1), C = x.size(2);
  const T* in = x.data<T>();
  int64_t* out = y.data<int64_t>();
  const int64_t bands = ceil_div(C, kColumnBlock);
  const int64_t work = n * std::min(C, kColumnBlock);
  parallel_for(0, A * bands, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t item = begin; item < end; ++item) {
                   const int64_t a = item / bands, c = item % bands * kColumnBlock;
                   const T* from = in + a * n * C + c;
                   if (C == 1) {
                     out[a] = find_first(from, n, simd::fold<Op>(from, n));
                   } else {
                     arg_columns<Op>(from, n, std::min(kColumnBlock, C - c), C, out + a * C + c);
                   }
                 }
               });
}

// ---- logsumexp, cumsum -------------------------------------------------------------------------

// m + log sum exp(x - m) with m = max x. Where m is infinite or NaN it is the result itself.
template <typename T>
T row_logsumexp(const T* x, int64_t n) {
  const T m = simd::fold<simd::Max>(x, n);
  if (!std::isfinite(m)) return m;
  alignas(64) T tile[kTile];
  double total = 0;
  for (int64_t i = 0; i < n; i += kTile) {
    const int64_t count = std::min(kTile, n - i);
    for (int64_t j = 0; j < count; ++j) tile[j] = math::exp(x[i + j] - m);
    total += simd::fold<simd::Sum>(tile, count);
  }
  return m + static_cast<T>(std::log(total));
}

// Running sums of `columns` columns side by side; floats accumulate in f64.
template <typename T>
void cumsum_columns(const T* x, T* y, int64_t n, int64_t columns, int64_t stride) {
  using Total = Wide<simd::Sum, T>;
  Total total[kColumnBlock];
  std::fill_n(total, columns, Total(0));
  for (int64_t r = 0; r < n; ++r) {
#pragma GCC ivdep
    for (int64_t c = 0; c < columns; ++c) {
      total[c] = math::add(total[c], Total(x[r * stride + c]));
      y[r * stride + c] = static_cast<T>(total[c]);
    }
  }
}

template <typename T>
void cumsum_row(const T* x, T* y, int64_t n) {
  Wide<simd::Sum, T> total = 0;
  for (int64_t i = 0; i < n; ++i) {
    total = math::add(total, static_cast<Wide<simd::Sum, T>>(x[i]));
    y[i] = static_cast<T>(total);
  }
}

template <typename Op>
void reduce_with(const Tensor& x, const Tensor& y) {
  dispatch_numeric(x.dtype(), "reduce", [&]<typename T>() {
    if constexpr (std::is_same_v<Op, simd::Sum> && std::is_integral_v<T>) {
      reduce_typed<Op, std::make_unsigned_t<T>>(x, y);  // wraps
    } else {
      reduce_typed<Op, T>(x, y);
    }
  });
}

}  // namespace

void reduce(Reduce op, const Tensor& x, const Tensor& y) {
  switch (op) {
    case Reduce::sum: return reduce_with<simd::Sum>(x, y);
    case Reduce::max: return reduce_with<simd::Max>(x, y);
    case Reduce::min: return reduce_with<simd::Min>(x, y);
  }
}

void argreduce(Reduce op, const Tensor& x, const Tensor& y) {
  dispatch_numeric(x.dtype(), "argreduce", [&]<typename T>() {
    if (op == Reduce::max)
      argreduce_typed<simd::Max, T>(x, y);
    else
      argreduce_typed<simd::Min, T>(x, y);
  });
}

void logsumexp(const Tensor& x, const Tensor& y) {
  const int64_t rows = x.size(0), n = x.size(1);
  dispatch_float(x.dtype(), "logsumexp", [&]<typename T>() {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(0, rows, std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, n)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t r = begin; r < end; ++r) out[r] = row_logsumexp(in + r * n, n);
                 });
  });
}

void cumsum(const Tensor& x, const Tensor& y) {
  const int64_t A = x.size(0), n = x.size(1), C = x.size(2);
  const int64_t bands = ceil_div(C, kColumnBlock);
  const int64_t work = std::max<int64_t>(1, n * std::min(C, kColumnBlock));
  dispatch_numeric(x.dtype(), "cumsum", [&]<typename T>() {
    const T* in = x.data<T>();
    T* out = y.data<T>();
    parallel_for(
        0, A * bands, std::max<int64_t>(1, kGrain / work), [&](int64_t begin, int64_t end) {
          for (int64_t item = begin; item < end; ++item) {
            const int64_t c = item % bands * kColumnBlock, offset = item / bands * n * C + c;
            if (C == 1)
              cumsum_row(in + offset, out + offset, n);
            else
              cumsum_columns(in + offset, out + offset, n, std::min(kColumnBlock, C - c), C);
          }
        });
  });
}

}  // namespace centroid::cpu
