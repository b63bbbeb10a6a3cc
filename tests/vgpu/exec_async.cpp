// cp.async: copies from global to shared memory whose bytes land when their thread waits for them.
// Until then the destination is uninitialised, so that a missing wait is reported.
#include <cstring>

#include "exec_race.h"

namespace vgpu {
namespace {

// The bytes that are read of each lane's source: a third size, or a predicate to ignore it.
u32 source_bytes(const Warp& w, const Instr& i, u32 l, u32 bytes) {
  if (i.groups < 4) return bytes;
  const Operand& o = i.in_group(3);
  if (o.is_predicate) return predicate(w, o) >> l & 1 ? 0 : bytes;
  return std::min(lane_u32(w, o, l), bytes);
}

void copy(Warp& w, const Instr& i, u32 mask) {
  const u32 bytes = lane_u32(w, i.in_group(2), 0);
  u32 whole = 0;
  std::array<u32, kLanes> size{};
  for_lanes(mask, [&](u32 l) {
    size[l] = source_bytes(w, i, l, bytes);
    whole |= static_cast<u32>(size[l] == bytes) << l;
  });
  const Operand& from = i.in_group(1);
  std::array<u64, kLanes> source{};
  for_lanes(mask, [&](u32 l) {
    source[l] = lane_address(w, from, l) + static_cast<u64>(i.second_offset);
  });
  WarpAccess reads(w, i, from, i.second_offset, whole, bytes, AccessKind::kRead, false);
  if (whole) reads.run(StateSpace::kGlobal, [](std::byte*, u32) {});
  for_lanes(mask & ~whole, [&](u32 l) {
    for (u32 k = 0; k < size[l]; ++k) {
      WarpAccess part(w, i, from, i.second_offset + k, 1u << l, 1, AccessKind::kRead, false);
      part.run(StateSpace::kGlobal, [](std::byte*, u32) {});
    }
  });
  WarpAccess writes(w, i, i.in_group(0), i.offset, mask, bytes, AccessKind::kWrite, false);
  writes.run(StateSpace::kShared, [&](std::byte*, u32 lanes) {
    for_lanes(lanes, [&](u32 l) {
      invalidate_shared(w, writes.at(l), bytes);
      w.copies.push_back({l, w.committed[l], static_cast<u32>(writes.at(l)), size[l],
                          bytes - size[l], reinterpret_cast<const std::byte*>(source[l])});
    });
  });
}

void land(Warp& w, const AsyncCopy& c) {
  Block& b = *w.block;
  if (c.bytes) std::memcpy(b.shared + c.shared, c.source, c.bytes);
  std::memset(b.shared + c.shared + c.bytes, 0, c.zeros);
  std::memset(b.shared_state.data() + c.shared, kInitialised, c.bytes + c.zeros);
  if (!options().race) return;
  std::array<u64, kLanes> address{};
  address[c.lane] = c.shared;
  race_check_shared(
      {w, address.data(), 1u << c.lane, c.bytes + c.zeros, AccessKind::kWrite, false, false});
}

void commit(Warp& w, const Instr&, u32 mask) {
  for_lanes(mask, [&](u32 l) { ++w.committed[l]; });
}

// Until at most `pending` committed groups of each lane are under way; with i.flag, until none is,
// committed or not.
void wait(Warp& w, const Instr& i, u32 mask) {
  const u32 pending = i.flag ? 0 : lane_u32(w, i.ops[0], 0);
  std::erase_if(w.copies, [&](const AsyncCopy& c) {
    if (!(mask >> c.lane & 1)) return false;
    if (!i.flag && c.group + pending >= w.committed[c.lane]) return false;
    land(w, c);
    return true;
  });
}

}  // namespace

Execute decode_async(Instr& i, Opcode& op) {
  if (op.base() != "cp" || !op.take("async")) return nullptr;
  if (op.take("commit_group")) return commit;
  if (op.take("wait_group")) return wait;
  if (op.take("wait_all")) {
    i.flag = true;
    return wait;
  }
  op.take_one_of({"ca", "cg"});
  op.take("shared") || op.take("shared::cta");
  op.take("global");
  op.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  return copy;
}

}  // namespace vgpu
