// Putting attention over parts of the keys together again.
#include <vector>

#include "tensor/cpu/attention/visible.h"
#include "tensor/cpu/rows.h"
#include "tensor/merge.h"
#include "tensor/parallel.h"

namespace centroid::cpu {
namespace {

constexpr int64_t kAhead = 4;  // rows that are asked for in advance

// log sum_n signs_n e^(lse_n) of row r, and the shares signs_n e^(lse_n - lse) of the parts; 0 for
// those without keys, and for part 0 and what is taken from it where only rounding is left.
template <typename T>
T shares_of(const Tensor& lses, const double* signs, int64_t r, T* shares) {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  const int64_t parts = lses.size(0), rows = lses.size(1);
  const T left = share_left(lses.data<T>(), signs, parts, rows, r);
  T top = -kInf, sum = 0;
  for (int64_t n = left == 0; n < parts; ++n) {
    if (signs[n] > 0) top = std::max(top, lses.data<T>()[n * rows + r]);
  }
  std::fill_n(shares, parts, T(0));
  if (top == -kInf) return top;
  for (int64_t n = 0; n < parts; ++n) {
    if (left == 0 && (n == 0 || signs[n] < 0)) continue;
    shares[n] = static_cast<T>(signs[n]) * std::exp(lses.data<T>()[n * rows + r] - top);
    if (signs[n] > 0) sum += n == 0 ? left * shares[0] : shares[n];
  }
  for (int64_t n = 0; n < parts; ++n) shares[n] /= sum;
  return top + std::log(sum);
}

}  // namespace

void merge_attention(const Tensor& outs, const Tensor& lses, const Tensor& signs, const Tensor& out,
                     const Tensor& lse) {
  const int64_t parts = outs.size(0), rows = outs.size(1), width = outs.size(2);
  dispatch_float(outs.dtype(), "merge_attention", [&]<typename T>() {
    parallel_for(0, rows, row_grain(width * parts), [&](int64_t begin, int64_t end) {
      std::vector<T> shares(parts);
      for (int64_t r = begin; r < end; ++r) {
        lse.data<T>()[r] = shares_of(lses, signs.data<double>(), r, shares.data());
        T* __restrict to = out.data<T>() + r * width;
        std::fill_n(to, width, T(0));
        for (int64_t n = 0; n < parts; ++n) {
          const T* __restrict from = outs.data<T>() + (n * rows + r) * width;
          const T share = shares[n];
          for (int64_t d = 0; d < width; ++d) to[d] += share * from[d];
        }
      }
    });
  });
}

// With w_n = signs_n e^(lse_n - lse): out = sum_n w_n out_n, d w_n / d lse_m = w_n ([n = m] - w_m):
//   dout_n = w_n dout,   dlse_n = w_n (dout . (out_n - out) + dlse).
void merge_attention_backward(const Tensor& outs, const Tensor& lses, const Tensor& signs,
                              const Tensor& out, const Tensor& lse, const Tensor& dout,
                              const Tensor& dlse, const Tensor& douts, const Tensor& dlses) {
  const int64_t parts = outs.size(0), rows = outs.size(1), width = outs.size(2);
  dispatch_float(outs.dtype(), "merge_attention_backward", [&]<typename T>() {
    parallel_for(0, rows, row_grain(width * parts), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T log_sum = lse.data<T>()[r];
        const double* sign = signs.data<double>();
        const T left = share_left(lses.data<T>(), sign, parts, rows, r);
        const T* __restrict dy = dout.data<T>() + r * width;
        const T base = row_dot(dy, out.data<T>() + r * width, width) -
                       (dlse.defined() ? dlse.data<T>()[r] : T(0));
        for (int64_t n = 0; n < parts; ++n) {
          const int64_t at = n * rows + r;
          const bool empty = log_sum == -std::numeric_limits<T>::infinity() ||
                             (left == 0 && (n == 0 || sign[n] < 0));
          const T size = empty ? T(0) : std::exp(lses.data<T>()[at] - log_sum);
          const T share = static_cast<T>(sign[n]) * size;
          T* __restrict dx = douts.data<T>() + at * width;
          for (int64_t d = 0; d < width; ++d) dx[d] = share * dy[d];
          dlses.data<T>()[at] = share * (row_dot(dy, outs.data<T>() + at * width, width) - base);
        }
      }
    });
  });
}

void correct_rows(const Tensor& top, const Tensor& labels, const Tensor& top_mass,
                  const Tensor& mass, const Tensor& top_of_group, const Tensor& out_of_group,
                  const Tensor& out) {
  const int64_t batch = top.size(0), heads = top.size(1), queries = top.size(2);
  const int64_t width = top.size(3), groups = mass.size(2);
  const int32_t* of = labels.data<int32_t>();
  dispatch_float(top.dtype(), "correct_rows", [&]<typename T>() {
    const std::vector<Rows<T>> outs = all_rows<T>(out);
    const std::vector<Rows<const T>> tops = all_rows<const T>(top);
    const T *all_kept = top_mass.data<T>(), *all_taken = mass.data<T>();
    const T *of_top_rows = top_of_group.data<T>(), *of_all_rows = out_of_group.data<T>();
    // Position by position through all heads: in the memory of a projection they lie together.
    parallel_for(0, batch * queries, row_grain(heads * width), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * heads; i < end * heads; ++i) {
        const int64_t l = i / heads % queries, bh = i / heads / queries * heads + i % heads;
        const int64_t label = of[bh * queries + l];
        T* __restrict to = outs[bh][l];
        if (label < 0) {
          std::fill_n(to, width, T(0));
          continue;
        }
        const int64_t at = bh * groups + label;
        const T kept = all_kept[at], taken = all_taken[at];
        const T* __restrict x = tops[bh][l];
        const T* __restrict of_top = of_top_rows + at * width;
        const T* __restrict of_all = of_all_rows + at * width;
        for (int64_t d = 0; d < width; ++d) to[d] = kept * x[d] + (of_all[d] - taken * of_top[d]);
      }
    });
  });
}

// With G the sum of dout over a group: dtop = top_mass dout, dtop_mass = sum_l dout_l . top_l,
// dout_of_group = G, dtop_of_group = -mass G and dmass = -G . top_of_group.
void correct_rows_backward(const Tensor& top, const Tensor& order, const Tensor& offsets,
                           const Tensor& top_mass, const Tensor& mass, const Tensor& top_of_group,
                           const Tensor& dout, const Tensor& dtop, const Tensor& dtop_mass,
                           const Tensor& dmass, const Tensor& dtop_of_group,
                           const Tensor& dout_of_group) {
  const int64_t queries = top.size(2), width = top.size(3), groups = mass.size(2);
  dispatch_float(top.dtype(), "correct_rows_backward", [&]<typename T>() {
    const std::vector<Rows<const T>> all_douts = all_rows<const T>(dout);
    const std::vector<Rows<const T>> all_tops = all_rows<const T>(top);
    const std::vector<Rows<T>> all_dtops = all_rows<T>(dtop);
    // Queries of no group come last in the order.
    parallel_for(0, top.size(0) * top.size(1), 1, [&](int64_t begin, int64_t end) {
      for (int64_t bh = begin; bh < end; ++bh) {
        const int32_t* member = order.data<int32_t>() + bh * queries;
        for (int64_t i = offsets.data<int32_t>()[bh * (groups + 1) + groups]; i < queries; ++i) {
          std::fill_n(all_dtops[bh][member[i]], width, T(0));
        }
      }
    });
    parallel_for(0, mass.numel(), 8, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        const int64_t bh = at / groups;
        const int32_t* offset = offsets.data<int32_t>() + bh * (groups + 1) + at % groups;
        const T kept = top_mass.data<T>()[at], taken = mass.data<T>()[at];
        T* __restrict total = dout_of_group.data<T>() + at * width;
        std::fill_n(total, width, T(0));
        T dkept = 0;
        const int32_t* member = order.data<int32_t>() + bh * queries;
        const Rows<const T> douts = all_douts[bh], tops = all_tops[bh];
        const Rows<T> dtops = all_dtops[bh];
        for (int32_t i = offset[0]; i < offset[1]; ++i) {
          if (const int64_t ahead = i + kAhead; ahead < queries) {
            prefetch_row(douts[member[ahead]], width);
            prefetch_row(tops[member[ahead]], width);
            prefetch_row<true>(dtops[member[ahead]], width);
          }
          const int32_t l = member[i];
          const T* __restrict dy = douts[l];
          T* __restrict dx = dtops[l];
          for (int64_t d = 0; d < width; ++d) {
            dx[d] = kept * dy[d];
            total[d] += dy[d];
          }
          dkept += row_dot(dy, tops[l], width);
        }
        dtop_mass.data<T>()[at] = dkept;
        const T* __restrict of_top = top_of_group.data<T>() + at * width;
        dmass.data<T>()[at] = -row_dot<T>(total, of_top, width);
        T* __restrict dof_top = dtop_of_group.data<T>() + at * width;
        for (int64_t d = 0; d < width; ++d) dof_top[d] = -taken * total[d];
      }
    });
  });
}

}  // namespace centroid::cpu
