#pragma once
// What the attention kernels are made of: small matrix products held in registers, transposition,
// powers of two, and scratch memory. Host code; any vector width (tensor/simd.h).
#include <array>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "tensor/math.h"
#include "tensor/simd.h"

namespace centroid::cpu {

/// Elements per vector.
template <typename T>
inline constexpr int64_t kLanes = simd::kVectorBytes / sizeof(T);

/// The next multiple of a vector: what a row of scratch memory takes.
template <typename T>
constexpr int64_t padded(int64_t n) {
  return (n + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

/// A signed integer as wide as T: comparisons of vectors of T give vectors of it.
template <typename T>
using IntOf = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;

/// Blocks of memory that a thread's tasks hand on to each other: memory fresh from the system costs
/// a page fault every 4 KiB, more than many tasks compute in the time.
class ScratchPool {
 public:
  static ScratchPool& of_thread() {
    thread_local ScratchPool pool;
    return pool;
  }
  ~ScratchPool() {
    for (const Block& block : free_) std::free(block.data);
  }
  struct Block {
    size_t bytes = 0;
    void* data = nullptr;
  };
  /// A block of at least `bytes`, aligned to a cache line.
  Block take(size_t bytes) {
    for (Block& block : free_) {
      if (block.bytes < bytes || block.bytes > 4 * bytes + 4096) continue;
      std::swap(block, free_.back());
      const Block found = free_.back();
      free_.pop_back();
      return found;
    }
    const size_t size = (bytes + 127) / 64 * 64;
    void* data = std::aligned_alloc(64, size);
    if (!data) throw std::bad_alloc();
    return {size, data};
  }
  void give_back(Block block) {
#if defined(CENTROID_SYSTEM_ALLOC)
    constexpr size_t kMost = 0;  // memory checkers want to see every block come and go
#else
    constexpr size_t kMost = 32;
#endif
    constexpr size_t kLargest = size_t{4} << 20;
    if (free_.size() < kMost && block.bytes <= kLargest) {
      free_.push_back(block);
    } else {
      std::free(block.data);
    }
  }

 private:
  std::vector<Block> free_;
};

/// Aligned, uninitialised memory of one task.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t n) : block_(ScratchPool::of_thread().take(n * sizeof(T))) {}
  ~Scratch() { ScratchPool::of_thread().give_back(block_); }
  Scratch(const Scratch&) = delete;
  T* get() const { return static_cast<T*>(block_.data); }
  operator T*() const { return get(); }  // NOLINT: reads as the array it is

 private:
  ScratchPool::Block block_;
};

// ---- products -----------------------------------------------------------------------------------

/// Rows that will be needed soon. A product asks for a few of their lines before each of its
/// blocks: to ask for all of them at once would stop it for as long as they take to come.
class Ahead {
 public:
  Ahead() = default;
  /// `bytes` of each of the rows list[0], list[1], ... of memory (of 0, 1, ... without a list),
  /// `stride` apart. Rows below 0 are passed over.
  Ahead(const void* rows, int64_t stride, int64_t bytes, const int32_t* list, int64_t count,
        bool write) {
    if (rows && count > 0 && bytes > 0) {
      parts_[0] = {static_cast<const char*>(rows), stride, bytes, list, count, write};
    }
  }
  /// These and then others, of one more kind.
  Ahead operator+(const Ahead& then) const {
    Ahead both = *this;
    both.parts_[parts_[0].count > 0] = then.parts_[0];
    return both;
  }
  int64_t lines() const { return parts_[0].lines() + parts_[1].lines(); }
  void ask(int64_t lines) {
    for (; lines > 0 && row_ < parts_[part_].count; --lines) {
      const Part& p = parts_[part_];
      const int64_t row = p.list ? p.list[row_] : row_;
      if (row >= 0 && p.write) __builtin_prefetch(p.rows + row * p.stride + at_, 1);
      // Not into the first level, which the product fills.
      if (row >= 0 && !p.write) __builtin_prefetch(p.rows + row * p.stride + at_, 0, 1);
      at_ += simd::kLineBytes;
      if (at_ < p.bytes) continue;
      at_ = 0;
      if (++row_ == p.count && part_ == 0) row_ = 0, part_ = 1;
    }
  }

 private:
  struct Part {
    const char* rows = nullptr;
    int64_t stride = 0, bytes = 0;
    const int32_t* list = nullptr;
    int64_t count = 0;
    bool write = false;
    int64_t lines() const { return count * ((bytes + simd::kLineBytes - 1) / simd::kLineBytes); }
  };
  Part parts_[2];
  int part_ = 0;
  int64_t row_ = 0, at_ = 0;  // what comes next: a row of the part, and where in it
};

namespace detail {

// With 32 registers, 12 rows of 2 vectors leave room for the operands; with 16, 6 rows do.
inline constexpr int kRows = simd::kVectorBytes == 64 ? 12 : 6;

// One block of R rows and V vectors of columns, summed over k in order, each term by one fma.
template <typename T, int R, int V>
void multiply_block(int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b, int64_t ldb,
                    T* c, int64_t ldc, int64_t columns, bool add) {
  using Vec = simd::Vector<T>;
  Vec sum[R][V] = {};
  // Every third row has a pointer of its own: more would not fit into the integer registers.
  const T* at[(R + 2) / 3];
  for (int r = 0; r < R; r += 3) at[r / 3] = a + r * a_row;
  for (int64_t i = 0; i < k; ++i) {
    Vec row[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) row[v] = simd::load(b + i * ldb + v * kLanes<T>);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const T factor = at[r / 3][r % 3 * a_row];
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) sum[r][v] += factor * row[v];
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r += 3) at[r / 3] += a_col;
  }
  if (columns == V * kLanes<T>) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < V; ++v) {
        T* to = c + r * ldc + v * kLanes<T>;
        simd::store(to, add ? simd::load(to) + sum[r][v] : sum[r][v]);
      }
    }
    return;
  }
  alignas(64) T rows[R][V * kLanes<T>];
  std::memcpy(rows, sum, sizeof rows);
  for (int r = 0; r < R; ++r) {
    for (int64_t j = 0; j < columns; ++j) {
      c[r * ldc + j] = add ? c[r * ldc + j] + rows[r][j] : rows[r][j];
    }
  }
}

template <typename T>
using BlockFunction = void (*)(int64_t, const T*, int64_t, int64_t, const T*, int64_t, T*, int64_t,
                               int64_t, bool);

template <typename T, int V, size_t... R>
constexpr std::array<BlockFunction<T>, sizeof...(R)> block_functions(std::index_sequence<R...>) {
  return {&multiply_block<T, static_cast<int>(R) + 1, V>...};
}

}  // namespace detail

/// c (m, n) = a (m, k) b (k, n), or += when `add`. `a` has any strides; rows of `b` are readable to
/// the next multiple of a vector beyond n, and what stands there does not matter; of `c` only the n
/// columns are touched. Every element is a sum over k in order, whatever m and n.
template <typename T>
void multiply(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row, int64_t a_col, const T* b,
              int64_t ldb, T* c, int64_t ldc, bool add, Ahead ahead = {}) {
  using Rows = std::make_index_sequence<detail::kRows>;
  static constexpr auto kOne = detail::block_functions<T, 1>(Rows{});
  static constexpr auto kTwo = detail::block_functions<T, 2>(Rows{});
  constexpr int64_t kWide = 2 * kLanes<T>;
  const int64_t blocks = ((m + detail::kRows - 1) / detail::kRows) * ((n + kWide - 1) / kWide);
  const int64_t lines = blocks > 0 ? (ahead.lines() + blocks - 1) / blocks : 0;
  for (int64_t i = 0; i < m; i += detail::kRows) {
    const int64_t rows = std::min<int64_t>(detail::kRows, m - i);
    for (int64_t j = 0; j < n; j += kWide) {
      const int64_t columns = std::min(kWide, n - j);
      ahead.ask(lines);
      const auto& block = columns > kLanes<T> ? kTwo : kOne;
      block[rows - 1](k, a + i * a_row, a_row, a_col, b + j, ldb, c + i * ldc + j, ldc, columns,
                      add);
    }
  }
}

// ---- transposition ------------------------------------------------------------------------------

namespace detail {

// Swaps the off-diagonal halves of ever smaller blocks: log2(lanes) rounds of shuffles.
template <typename T, typename Row>
void transpose_square(const Row& x, int64_t column, T* y, int64_t ldy) {
  using Vec = simd::Vector<T>;
  using Mask = simd::Vector<IntOf<T>>;
  constexpr int n = kLanes<T>;
  Vec row[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) row[i] = simd::load(x(i) + column);
#pragma GCC unroll 4
  for (int w = n / 2; w >= 1; w /= 2) {
    Mask low{}, high{};
    for (int l = 0; l < n; ++l) {
      low[l] = l & w ? l - w + n : l;
      high[l] = l & w ? l + n : l + w;
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      if (i & w) continue;
      const Vec a = row[i], b = row[i + w];
      row[i] = __builtin_shuffle(a, b, low);
      row[i + w] = __builtin_shuffle(a, b, high);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) simd::store(y + i * ldy, row[i]);
}

}  // namespace detail

/// y (columns, padded(rows)) = rows x(0), x(1), ... of `columns` numbers, transposed; the padding
/// is 0.
template <typename T, typename Row>
void transpose_rows(const Row& x, int64_t rows, int64_t columns, T* y, int64_t ldy) {
  constexpr int64_t n = kLanes<T>;
  for (int64_t i = 0; i < rows; i += n) {
    const int64_t height = std::min(n, rows - i);
    const auto row = [&](int64_t r) { return x(i + r); };
    int64_t j = 0;
    if (height == n) {
      for (; j + n <= columns; j += n) detail::transpose_square(row, j, y + j * ldy + i, ldy);
    }
    for (; j < columns; ++j) {
      for (int64_t r = 0; r < height; ++r) y[j * ldy + i + r] = row(r)[j];
      for (int64_t r = height; r < n; ++r) y[j * ldy + i + r] = 0;
    }
  }
}

/// y (columns, padded(rows)) = x (rows, columns) transposed; the padding is 0.
template <typename T>
void transpose(const T* x, int64_t ldx, int64_t rows, int64_t columns, T* y, int64_t ldy) {
  transpose_rows([=](int64_t r) { return x + r * ldx; }, rows, columns, y, ldy);
}

/// y (rows, columns) = x (columns, rows) transposed, into rows of any stride.
template <typename T>
void transpose_back(const T* x, int64_t ldx, int64_t rows, int64_t columns, T* y, int64_t ldy) {
  constexpr int64_t n = kLanes<T>;
  int64_t i = 0;
  for (; i + n <= rows; i += n) {
    int64_t j = 0;
    for (; j + n <= columns; j += n) {
      const auto row = [&](int64_t r) { return x + (j + r) * ldx; };
      detail::transpose_square(row, i, y + i * ldy + j, ldy);
    }
    for (; j < columns; ++j) {
      for (int64_t r = 0; r < n; ++r) y[(i + r) * ldy + j] = x[j * ldx + i + r];
    }
  }
  for (; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) y[i * ldy + j] = x[j * ldx + i];
  }
}

/// y (ldy >= columns) = one row, the rest 0: a row of an operand `b` of `multiply`.
template <typename T>
void copy_row(const T* x, int64_t columns, T* y, int64_t ldy) {
  int64_t j = 0;
  for (; j + kLanes<T> <= columns; j += kLanes<T>) simd::store(y + j, simd::load(x + j));
  for (; j < columns; ++j) y[j] = x[j];
  for (; j < ldy; ++j) y[j] = 0;
}
template <typename T>
void copy_rows(const T* x, int64_t ldx, int64_t rows, int64_t columns, T* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r) copy_row(x + r * ldx, columns, y + r * ldy, ldy);
}

// ---- powers of two ------------------------------------------------------------------------------

/// 2^x lane by lane for x <= 0 (and a little above); exactly 0 below -126, NaN for NaN.
inline simd::Vector<float> exp2_nonpositive(simd::Vector<float> x) {
  using Vec = simd::Vector<float>;
  using Bits = simd::Vector<uint32_t>;   // unsigned: what is far below -126 wraps, and is not used
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x + kRound;
  const Vec r = (x - (shifted - kRound)) * 0.693147181f;
  const Bits k = (Bits)shifted << 23;  // the integer, moved to the exponent
  const Vec power = (Vec)((Bits)(1.0f + math::detail::expm1_polynomial(r)) + k);
  return x < -126.0f ? Vec{} : power;
}
inline simd::Vector<double> exp2_nonpositive(simd::Vector<double> x) {
  for (int l = 0; l < kLanes<double>; ++l) x[l] = std::exp2(x[l]);
  return x;
}

inline constexpr double kLog2E = 1.4426950408889634;
inline constexpr double kLn2 = 0.6931471805599453;

}  // namespace centroid::cpu
