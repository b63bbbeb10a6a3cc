#pragma once
// Groups of widely varying size as items of work of at most so many rows, without anyone counting
// the rows first. Every position of `order` that is a multiple of `rows` begins an item, and so
// does every group; item i begins at the i-th of these positions in ascending order. There are
// tiles + groups items, some of them empty, and each block finds its own by a search in offsets.
#include "cuda/launch.cuh"

namespace centroid::cuda {

CENTROID_DEVICE int lane_of_warp() { return static_cast<int>(threadIdx.x % kWarp); }
CENTROID_DEVICE int warp_of_block() { return static_cast<int>(threadIdx.x / kWarp); }

/// How many of 0 .. n - 1 `holds` is true of, when it is true up to some point and false from there
/// on. The whole warp must call it, with the same arguments; takes log32(n) loads one after
/// another.
template <typename Predicate>
CENTROID_DEVICE int warp_partition_point(int n, const Predicate& holds) {
  int low = 0, high = n;  // true below `low`, false from `high` on
  while (low < high) {
    const int part = (high - low + kWarp - 1) / kWarp;
    const int last = low + (lane_of_warp() + 1) * part - 1;
    const int whole = __popc(__ballot_sync(kFullMask, last < high && holds(last)));
    low += whole * part;
    high = min(high, low + part - 1);
  }
  return low;
}

struct GroupItems {
  int rows, tiles, groups;

  GroupItems(int64_t positions, int64_t groups, int rows)
      : rows(rows),
        tiles(static_cast<int>(div_up(positions, rows))),
        groups(static_cast<int>(groups)) {}
  CENTROID_HD int count() const { return tiles + groups; }

  struct Item {
    int group, begin, end;  // positions in `order`
    bool first;             // of its group
  };
  /// Item i of the groups with these offsets; also where it is empty, end <= begin. The whole warp
  /// must call it.
  CENTROID_DEVICE Item at(const int32_t* offsets, int i) const {
    const int group =
        warp_partition_point(groups, [&](int g) { return first_of_group(g, offsets[g]) <= i; }) - 1;
    if (group < 0) return {0, 0, 0, false};
    const int start = offsets[group];
    const bool first = first_of_group(group, start) == i;
    const int next = (i - group) * rows;  // i - group multiples of `rows` begin up to this item
    return {group, max(0, first ? start : next - rows),
            min(min(next, tiles * rows), offsets[group + 1]), first};
  }

  /// The first item of a group: those that begin at its first position, if there are two, are the
  /// empty end of the group before it and then this one.
  CENTROID_DEVICE int first_of_group(int group, int begin) const {
    return group + min(tiles, begin / rows + 1);
  }
  /// How many items of a group have positions; they follow each other from its first item.
  CENTROID_DEVICE int with_rows(int begin, int end) const {
    return begin < end ? 1 + (end - 1) / rows - begin / rows : 0;
  }
};

}  // namespace centroid::cuda
