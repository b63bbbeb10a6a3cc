// Indexing kernels. Their indices have been checked (check_index) before they run.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/kernels.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kGrain = 16384;    // elements a chunk should hold to be worth a thread
constexpr int64_t kMinColumns = 64;  // narrowest block of columns worth its own pass over the index

enum class Elements { moved, numeric };

// Calls f with the data of x, index and y as pointers of their element types; elements that are
// only moved may come as unsigned integers of their width.
template <Elements elements, typename F>
void with_data(const char* op, const Tensor& x, const Tensor& index, const Tensor& y, const F& f) {
  dispatch_index(index.dtype(), op, [&]<typename I>() {
    const auto call = [&]<typename T>() {
      f(reinterpret_cast<const T*>(x.bytes()), index.data<I>(), reinterpret_cast<T*>(y.bytes()));
    };
    if constexpr (elements == Elements::moved) {
      dispatch_bytes(y.dtype(), call);
    } else {
      dispatch_numeric(y.dtype(), op, call);
    }
  });
}

// Visits all rows (a, i) of an array (A, m, C) in parallel, as `f(a, i, c_begin, c_end)`; rows
// longer than a chunk come in pieces, so one long row is shared between threads too.
template <typename F>
void for_each_row(int64_t A, int64_t m, int64_t C, const F& f) {
  parallel_for(0, A * m * C, kGrain, [&](int64_t begin, int64_t end) {
    const int64_t row = begin / C;
    int64_t a = row / m, i = row % m, c = begin % C;
    for (int64_t at = begin; at < end; c = 0) {
      const int64_t c_end = std::min(C, c + end - at);
      f(a, i, c, c_end);
      at += c_end - c;
      if (++i == m) i = 0, ++a;
    }
  });
}

// A block y[a, n_begin:n_end, c_begin:c_end] of an array y (A, n, C).
struct Block {
  int64_t a, n_begin, n_end, c_begin, c_end;
};

// Cuts y (A, n, C) into blocks, by slices, then columns, then destinations, until there is one for
// each thread, and calls `f(block)` in parallel. `f` adds all addends (A, m, C) of its block in
// order of i. Every element of y lies in one block, so it receives the same addends in the same
// order however y is cut: the number of blocks may follow the number of threads without changing a
// bit.
template <typename F>
void for_each_destination(int64_t A, int64_t m, int64_t n, int64_t C, const F& f) {
  if (A * m * C == 0) return;
  const int64_t wanted = A * m * C < 2 * kGrain ? 1 : num_threads();
  const int64_t per_slice = (wanted + A - 1) / A;
  const int64_t columns = std::clamp<int64_t>(C / kMinColumns, 1, per_slice);
  const int64_t ranges = std::min(n, (per_slice + columns - 1) / columns);
  const int64_t grain = wanted == 1 ? A : std::max<int64_t>(1, kGrain / (m * C));
  parallel_for(0, A * columns * ranges, grain, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t a = part / (columns * ranges);
      const int64_t column = part / ranges % columns, range = part % ranges;
      f(Block{a, n * range / ranges, n * (range + 1) / ranges, C * column / columns,
              C * (column + 1) / columns});
    }
  });
}

// y += x; integers wrap around, as in NumPy.
template <typename T>
void accumulate(T& y, T x) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    y = static_cast<T>(static_cast<U>(static_cast<U>(y) + static_cast<U>(x)));
  } else {
    y += x;
  }
}

}  // namespace

void gather(const Tensor& x, const Tensor& index, const Tensor& y) {
  const int64_t A = y.size(0), n = x.size(1), m = y.size(1), C = y.size(2);
  with_data<Elements::moved>("gather", x, index, y, [=](auto* px, auto* pi, auto* py) {
    for_each_row(A, m, C, [=](int64_t a, int64_t i, int64_t c_begin, int64_t c_end) {
      const auto* from = px + a * n * C;
      const auto* at = pi + (a * m + i) * C;
      auto* to = py + (a * m + i) * C;
      for (int64_t c = c_begin; c < c_end; ++c) to[c] = from[at[c] * C + c];
    });
  });
}

void index_select(const Tensor& x, const Tensor& index, const Tensor& y) {
  const int64_t A = y.size(0), n = x.size(1), m = y.size(1), C = y.size(2);
  with_data<Elements::moved>("index_select", x, index, y, [=](auto* px, auto* pi, auto* py) {
    for_each_row(A, m, C, [=](int64_t a, int64_t i, int64_t c_begin, int64_t c_end) {
      const auto* from = px + (a * n + pi[i]) * C + c_begin;
      auto* to = py + (a * m + i) * C + c_begin;
      if (c_end - c_begin == 1) {
        *to = *from;
      } else {
        std::memcpy(to, from, (c_end - c_begin) * sizeof *to);
      }
    });
  });
}

void scatter_add(const Tensor& index, const Tensor& x, const Tensor& y) {
  const int64_t A = y.size(0), n = y.size(1), C = y.size(2), m = x.size(1);
  with_data<Elements::numeric>("scatter_add", x, index, y, [=](auto* px, auto* pi, auto* py) {
    for_each_destination(A, m, n, C, [=](const Block& block) {
      for (int64_t i = 0; i < m; ++i) {
        const int64_t row = (block.a * m + i) * C;
        for (int64_t c = block.c_begin; c < block.c_end; ++c) {
          const int64_t j = pi[row + c];
          if (j < block.n_begin || j >= block.n_end) continue;
          accumulate(py[(block.a * n + j) * C + c], px[row + c]);
        }
      }
    });
  });
}

void index_add(const Tensor& index, const Tensor& x, const Tensor& y) {
  const int64_t A = y.size(0), n = y.size(1), C = y.size(2), m = x.size(1);
  with_data<Elements::numeric>("index_add", x, index, y, [=](auto* px, auto* pi, auto* py) {
    for_each_destination(A, m, n, C, [=](const Block& block) {
      for (int64_t i = 0; i < m; ++i) {
        const int64_t j = pi[i];
        if (j < block.n_begin || j >= block.n_end) continue;
        const auto* from = px + (block.a * m + i) * C;
        auto* to = py + (block.a * n + j) * C;
        for (int64_t c = block.c_begin; c < block.c_end; ++c) accumulate(to[c], from[c]);
      }
    });
  });
}

void one_hot(const Tensor& index, const Tensor& y) {
  const int64_t R = y.size(0), V = y.size(1);
  with_data<Elements::numeric>("one_hot", y, index, y, [=](auto*, auto* pi, auto* py) {
    for_each_row(1, R, V, [=](int64_t, int64_t r, int64_t c_begin, int64_t c_end) {
      std::fill(py + r * V + c_begin, py + r * V + c_end, 0);
      if (pi[r] >= c_begin && pi[r] < c_end) py[r * V + pi[r]] = 1;
    });
  });
}

void check_index(const char*, const Tensor& index, int64_t n, const Tensor& bad) {
  const int64_t count = index.numel();
  std::vector<int64_t> first((count + kGrain - 1) / kGrain, -1);  // of each chunk
  dispatch_index(index.dtype(), "check_index", [&]<typename I>() {
    const I* pi = index.data<I>();
    auto outside = [n](I value) {
      return static_cast<uint64_t>(int64_t{value}) >= static_cast<uint64_t>(n);
    };
    parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      // The whole chunk at once first: a loop without an exit vectorises.
      bool any = false;
      for (int64_t i = begin; i < end; ++i) any |= outside(pi[i]);
      if (any) first[begin / kGrain] = std::find_if(pi + begin, pi + end, outside) - pi;
    });
  });
  const auto found = std::find_if(first.begin(), first.end(), [](int64_t at) { return at >= 0; });
  *bad.data<int64_t>() = found == first.end() ? -1 : *found;
}

}  // namespace centroid::cpu
