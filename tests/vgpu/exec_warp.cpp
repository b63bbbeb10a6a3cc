// Instructions in which the lanes of a warp take part together.
#include "exec.h"
#include "exec_race.h"
#include "vgpu.h"

namespace vgpu {
namespace {

// True when every lane of `members` is here. If not, these wait: when the others arrive, the
// instruction is executed again.
bool converged(Warp& w, u32 members, u32 lanes) {
  members &= w.lanes;
  if (lanes & ~members) {
    fault("warp primitive: lanes %08x execute it but are not in its mask %08x", lanes & ~members,
          members);
  }
  if (members & w.exited) {
    fault("warp primitive: its mask %08x names lanes that have exited: %08x", members,
          members & w.exited);
  }
  if (lanes == members) return true;
  w.frame->blocked |= lanes;
  set_pc(*w.frame, lanes, w.next - 1);
  w.reschedule = true;
  return false;
}

// Calls f(lanes) for each set of lanes with equal masks; lanes here may belong to disjoint ones.
template <class F>
void for_members(Warp& w, const Operand& o, u32 mask, F f) {
  const auto* masks = lanes_of<u32>(w, o);
  for (u32 rest = mask; rest;) {
    const u32 members = masks[std::countr_zero(rest)];
    u32 group = 0;
    for_lanes(rest, [&](u32 l) { group |= static_cast<u32>(masks[l] == members) << l; });
    rest &= ~group;
    if (converged(w, members, group)) f(group);
  }
}

enum class Shuffle : u8 { kUp, kDown, kButterfly, kIndex };

// The lane that lane l reads; `in_range` is false when it would be outside the segment.
u32 source_lane(Shuffle mode, u32 l, u32 b, u32 c, bool& in_range) {
  const u32 segment = c >> 8 & 31, first = l & segment, last = first | (c & 31 & ~segment);
  u32 from;
  switch (mode) {
    case Shuffle::kUp:  // here c's low bits are the first lane of the segment
      from = l - b;
      in_range = static_cast<i32>(from) >= static_cast<i32>(last);
      return in_range ? from : l;
    case Shuffle::kDown: from = l + b; break;
    case Shuffle::kButterfly: from = l ^ b; break;
    default: from = first | (b & ~segment); break;
  }
  in_range = from <= last;
  return in_range ? from : l;
}

void shuffle(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(4), mask, [&](u32 group) {
    std::array<u32, kLanes> value, result;
    const auto* a = lanes_of<u32>(w, i.in_group(1));
    std::copy(a, a + kLanes, value.begin());
    const auto *b = lanes_of<u32>(w, i.in_group(2)), *c = lanes_of<u32>(w, i.in_group(3));
    u32 in_range = 0;
    for_lanes(group, [&](u32 l) {
      bool ok;
      const u32 from = source_lane(static_cast<Shuffle>(i.op), l, b[l] & 31, c[l], ok);
      if (!(group >> from & 1)) {
        lane_fault(w, l, "shuffle: lane %u reads lane %u, which takes no part", l, from);
      }
      result[l] = value[from];
      in_range |= static_cast<u32>(ok) << l;
    });
    for_lanes(group, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = result[l]; });
    if (i.group_size(0) > 1) set_predicate(w, i.ops[1], group, in_range);
  });
}

enum class Vote : u8 { kAll, kAny, kUniform, kBallot };

void vote(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(2), mask, [&](u32 group) {
    const u32 p = predicate(w, i.in_group(1)) & group;
    bool result = false;
    switch (static_cast<Vote>(i.op)) {
      case Vote::kBallot:
        for_lanes(group, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = p; });
        return;
      case Vote::kAll: result = p == group; break;
      case Vote::kAny: result = p != 0; break;
      case Vote::kUniform: result = p == group || p == 0; break;
    }
    set_predicate(w, i.ops[0], group, result ? ~0u : 0);
  });
}

template <class T>
void match(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(2), mask, [&](u32 group) {
    std::array<T, kLanes> value;
    const auto* a = lanes_of<T>(w, i.in_group(1));
    std::copy(a, a + kLanes, value.begin());
    bool same = true;
    for_lanes(group, [&](u32 l) {
      u32 equal = 0;
      for (u32 k = 0; k < kLanes; ++k) equal |= static_cast<u32>(value[k] == value[l]) << k;
      equal &= group;
      same = same && equal == group;
      lanes_of<u32>(w, i.ops[0])[l] = equal;
    });
    if (!i.flag) return;  // match.any
    if (!same) for_lanes(group, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = 0; });
    if (i.group_size(0) > 1) set_predicate(w, i.ops[1], group, same ? ~0u : 0);
  });
}

enum class Reduce : u8 { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <class T>
void reduce(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(2), mask, [&](u32 group) {
    const auto* a = lanes_of<u32>(w, i.in_group(1));
    T result = static_cast<T>(a[std::countr_zero(group)]);
    for_lanes(group & (group - 1), [&](u32 l) {
      const T v = static_cast<T>(a[l]);
      switch (static_cast<Reduce>(i.op)) {
        case Reduce::kAdd:
          result = static_cast<T>(static_cast<u32>(result) + static_cast<u32>(v));
          break;
        case Reduce::kMin: result = std::min(result, v); break;
        case Reduce::kMax: result = std::max(result, v); break;
        case Reduce::kAnd: result &= v; break;
        case Reduce::kOr: result |= v; break;
        case Reduce::kXor: result ^= v; break;
      }
    });
    for_lanes(group, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = static_cast<u32>(result); });
  });
}

void synchronise(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(0), mask, [&](u32 group) { race_sync_lanes(w, group); });
}

void active_mask(Warp& w, const Instr& i, u32 mask) {
  for_lanes(mask, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = mask; });
}

// elect.sync d|p, mask: one lane, the lowest, is chosen.
void elect(Warp& w, const Instr& i, u32 mask) {
  for_members(w, i.in_group(1), mask, [&](u32 group) {
    const u32 leader = static_cast<u32>(std::countr_zero(group));
    for_lanes(group, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = leader; });
    if (i.group_size(0) > 1) set_predicate(w, i.ops[1], group, 1u << leader);
  });
}

Execute decode_collective(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  const Type t = op.take_type();
  if (o == "shfl") {
    i.op = static_cast<u8>(op.take_one_of({"up", "down", "bfly", "idx"}));
    return shuffle;
  }
  if (o == "vote") {
    i.op = static_cast<u8>(op.take_one_of({"all", "any", "uni", "ballot"}));
    return vote;
  }
  if (o == "match") {
    i.flag = op.take("all");
    op.take("any");
    return size_of(t) == 8 ? match<u64> : match<u32>;
  }
  i.op = static_cast<u8>(op.take_one_of({"add", "min", "max", "and", "or", "xor"}));
  return t == Type::kS32 ? reduce<i32> : t == Type::kU32 ? reduce<u32> : nullptr;
}

}  // namespace

Execute decode_warp(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (o == "activemask") {
    op.take_type();
    return active_mask;
  }
  const bool is_sync = o == "bar" && op.has("warp");
  if (!is_sync && o != "shfl" && o != "vote" && o != "match" && o != "redux" && o != "elect") {
    return nullptr;
  }
  if (!op.take("sync")) return nullptr;  // the forms without a mask were for sm_60 and older
  i.flow = Flow::kControl;
  if (is_sync) {
    op.take("warp");
    return synchronise;
  }
  return o == "elect" ? elect : decode_collective(i, op);
}

}  // namespace vgpu
