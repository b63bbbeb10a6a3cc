#pragma once
// What the two directions of gathered attention share: the keys and the queries of one group,
// gathered into consecutive memory. The lanes of a vector are keys, and then value columns: a group
// may have few queries, but its list of keys is long and shared by all of them.
#include <vector>

#include "tensor/cpu/attention/visible.h"

namespace centroid::cpu {

inline constexpr int64_t kGroupQueries = 48;  ///< rows of a group that are worked on at once

/// A score that leaves weight only when no other key is seen; in units of ln 2.
inline constexpr double kLastResort = -1e5;

/// The inputs of gathered_attention, and where to find the groups of one (item, head).
template <typename T>
struct Gathered {
  const Tensor &q, &extra, &k, &v;
  const Groups& groups;
  KeyRule rule;
  double scale;
  const WeightDropout &dropout, &extra_dropout;
  int64_t heads = q.size(1), queries = q.size(2), keys = k.size(2), count = groups.count();
  int64_t width = q.size(3), value_width = v.size(3), list = groups.keys.size(3);
  int64_t padded_list = padded<T>(list), padded_width = padded<T>(width);
  int64_t padded_value = padded<T>(value_width);

  // Keys and values of one head that fit into a second-level cache are there after a few groups.
  static constexpr int64_t kNear = 512 << 10;
  bool far = keys * (width + value_width) * static_cast<int64_t>(sizeof(T)) > kNear;

  /// Rows on a list of keys, to be asked for.
  template <typename R>
  Ahead ahead_keys(const R& of_keys, const int32_t* at, int64_t n, int64_t columns) const {
    return of_keys.ahead(at, far && at ? n : 0, columns);
  }

  // Looked up once: there is a call for every group.
  const int32_t* all_lists = groups.keys.template data<int32_t>();
  const int32_t* all_members = groups.order.template data<int32_t>();
  const int32_t* all_offsets = groups.offsets.template data<int32_t>();

  const int32_t* listed(int64_t bh, int64_t group) const {
    return all_lists + (bh * count + group) * list;
  }
  const int32_t* members(int64_t bh) const { return all_members + bh * queries; }
  const int32_t* offsets(int64_t bh) const { return all_offsets + bh * (count + 1); }
};

/// The keys on one group's list. `_t` is transposed: (E, padded_list) and alike. Forward needs k_t
/// and v_rows, backward k_t, v_t and k_rows.
template <typename T>
struct GroupKeys {
  std::vector<int32_t> at;  ///< positions, without the missing ones
  Scratch<T> k_t, k_rows, v_t, v_rows;

  GroupKeys(const Gathered<T>& g, bool backward)
      : k_t(g.width * g.padded_list),
        k_rows(backward ? g.padded_list * g.padded_width : 0),
        v_t(backward ? g.value_width * g.padded_list : 0),
        v_rows(backward ? 0 : g.padded_list * g.padded_value),
        backward_(backward) {
    at.reserve(g.list);
  }
  int64_t size() const { return static_cast<int64_t>(at.size()); }

  void gather(const Gathered<T>& g, int64_t bh, int64_t group) {
    const int32_t* list = g.listed(bh, group);
    at.clear();
    for (int64_t i = 0; i < g.list; ++i) {
      if (list[i] >= 0) at.push_back(list[i]);
    }
    const Rows<const T> k(g.k, bh), v(g.v, bh);
    const auto k_row = [&](int64_t i) { return k[at[i]]; };
    const auto v_row = [&](int64_t i) { return v[at[i]]; };
    transpose_rows<T>(k_row, size(), g.width, k_t, g.padded_list);
    const T unit = static_cast<T>(g.scale * kLog2E);  // scores are in units of ln 2
    for (int64_t e = 0; e < g.width * g.padded_list; ++e) k_t[e] *= unit;
    if (backward_) transpose_rows<T>(v_row, size(), g.value_width, v_t, g.padded_list);
    for (int64_t i = 0; i < size(); ++i) {
      if (backward_) {
        copy_row(k_row(i), g.width, k_rows + i * g.padded_width, g.padded_width);
      } else {
        copy_row(v_row(i), g.value_width, v_rows + i * g.padded_value, g.padded_value);
      }
    }
  }

 private:
  bool backward_;
};

/// Up to kGroupQueries queries of one group; the group's extra query, if any, comes last.
template <typename T>
struct GroupRows {
  std::vector<int32_t> at;  ///< positions; -1 is the extra query
  int64_t group = 0;
  // What is next in turn: members, from `next` on, and the list of keys, if it is another.
  const int32_t *next = nullptr, *next_keys = nullptr;
  int64_t soon = 0;

  int64_t size() const { return static_cast<int64_t>(at.size()); }

  /// The next rows of `group`, from its `from`-th on; false when there are none.
  bool take(const Gathered<T>& g, int64_t bh, int64_t of_group, int64_t from) {
    const int32_t *order = g.members(bh), *offset = g.offsets(bh) + of_group;
    group = of_group;
    const int64_t members = offset[1] - offset[0], all = members + (g.extra.defined() ? 1 : 0);
    at.clear();
    for (int64_t i = from; i < std::min(all, from + kGroupQueries); ++i) {
      at.push_back(i < members ? order[offset[0] + i] : -1);
    }
    const int64_t done = std::min(members, from + size());
    const bool more = done < members, ends = of_group + 1 == g.count;
    next = order + offset[0] + done;
    soon = std::min(kGroupQueries, more ? members - done : ends ? 0 : offset[2] - offset[1]);
    next_keys = more || ends ? nullptr : g.listed(bh, of_group + 1);
    return !at.empty();
  }

  /// Where row i lies in a tensor that belongs to the queries, and in the one of the extra ones.
  template <typename R>
  auto row(const R& of_queries, const R& of_extra, int64_t i) const {
    return at[i] >= 0 ? of_queries[at[i]] : of_extra[group];
  }

  /// Rows of n elements that these queries have in a tensor; that the next ones have.
  template <typename R>
  Ahead ahead(const R& of_queries, int64_t n) const {
    return of_queries.ahead(at.data(), size(), n);
  }
  template <typename R>
  Ahead ahead_next(const R& of_queries, int64_t n) const {
    return of_queries.ahead(next, soon, n);
  }

  /// y (rows, ld) = the rows of a tensor; the rest of each row 0.
  void gather(const Rows<const T>& of_queries, const Rows<const T>& of_extra, int64_t n, T* y,
              int64_t ld) const {
    for (int64_t i = 0; i < size(); ++i) {
      copy_row<T>(row(of_queries, of_extra, i), n, y + i * ld, ld);
    }
  }
};

/// scores (rows, padded_list) = scale q k^T, with -inf for what the rule hides and in the padding.
template <typename T>
void group_scores(const Gathered<T>& g, const GroupRows<T>& rows, const GroupKeys<T>& keys,
                  const T* q, T* scores, const Ahead& ahead) {
  multiply<T>(rows.size(), keys.size(), g.width, q, g.padded_width, 1, keys.k_t, g.padded_list,
              scores, g.padded_list, false, ahead);
  for (int64_t i = 0; i < rows.size(); ++i) {
    T* row = scores + i * g.padded_list;
    std::fill(row + keys.size(), row + g.padded_list, -std::numeric_limits<T>::infinity());
    if (g.rule == KeyRule::all || rows.at[i] < 0) continue;
    for (int64_t j = 0; j < keys.size(); ++j) {
      if (keys.at[j] == rows.at[i]) row[j] = static_cast<T>(kLastResort);
    }
  }
}

/// The factors that dropout puts on the weights of row i: 0, or 1 / (1 - p).
template <typename T>
void group_dropout(const Gathered<T>& g, const GroupRows<T>& rows, const GroupKeys<T>& keys,
                   int64_t bh, int64_t i, T* factors) {
  const bool member = rows.at[i] >= 0;
  const WeightDropout& dropout = member ? g.dropout : g.extra_dropout;
  const uint32_t threshold = static_cast<uint32_t>(dropout.p * 65536 + 0.5);
  const T scale = static_cast<T>(65536.0 / (65536.0 - threshold));
  const uint64_t row = member ? bh * g.queries + rows.at[i] : bh * g.count + rows.group;
  for (int64_t j = 0; j < keys.size(); ++j) {
    const int32_t s = keys.at[j];
    const PhiloxBlock block =
        philox(dropout.state.key, dropout.state.counter, row * ((g.keys + 7) / 8) + s / 8);
    const uint32_t draw = block[s % 8 / 2] >> (s % 2 * 16) & 0xffff;
    factors[j] = draw >= threshold ? scale : T(0);
  }
}

}  // namespace centroid::cpu
