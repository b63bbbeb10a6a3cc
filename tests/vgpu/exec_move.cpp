// mov, packing, and addresses of state spaces.
#include "exec.h"
#include "vgpu.h"

namespace vgpu {
namespace {

template <class T>
void move(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T>(
      w, mask, [](T a) { return a; }, i.ops[0], i.ops[1]);
}

// mov.b64 d, {a, b} and the reverse: i.count parts of one register of i.mode bits.
void pack_parts(Warp& w, const Instr& i, u32 mask) {
  const u32 bits = i.mode / i.count;
  for_lanes(mask, [&](u32 l) {
    u64 value = 0;
    for (u32 k = 0; k < i.count; ++k) {
      value |= (lane_bits(w, i.in_group(1, k), l) & ((1ull << bits) - 1)) << (bits * k);
    }
    if (i.mode == 64) {
      lanes_of<u64>(w, i.ops[0])[l] = value;
    } else {
      lanes_of<u32>(w, i.ops[0])[l] = static_cast<u32>(value);
    }
  });
}
void unpack_parts(Warp& w, const Instr& i, u32 mask) {
  const u32 bits = i.mode / i.count;
  const Operand& from = i.in_group(1);
  for_lanes(mask, [&](u32 l) {
    const u64 value = i.mode == 64 ? lanes_of<u64>(w, from)[l] : lane_u32(w, from, l);
    for (u32 k = 0; k < i.count; ++k) {
      lanes_of<u32>(w, i.in_group(0, k))[l] =
          static_cast<u32>(value >> (bits * k) & ((1ull << bits) - 1));
    }
  });
}

u64 window_of(StateSpace space) {
  switch (space) {
    case StateSpace::kShared: return kSharedWindow;
    case StateSpace::kLocal: return kLocalWindow;
    case StateSpace::kParam: return kParamWindow;
    default: return 0;
  }
}

void to_generic(Warp& w, const Instr& i, u32 mask) {
  const u64 window = window_of(i.space);
  map_lanes<u64, u64>(
      w, mask, [=](u64 a) { return a | window; }, i.ops[0], i.ops[1]);
}
void from_generic(Warp& w, const Instr& i, u32 mask) {
  const u64 window = window_of(i.space);
  map_lanes<u64, u64>(
      w, mask, [=](u64 a) { return a ^ window; }, i.ops[0], i.ops[1]);
}
void is_in_space(Warp& w, const Instr& i, u32 mask) {
  u32 result = 0;
  for_lanes(mask, [&](u32 l) {
    const u64 a = lanes_of<u64>(w, i.ops[1])[l];
    const bool in = i.space == StateSpace::kGlobal
                        ? in_device_arena(reinterpret_cast<const void*>(a))
                        : (a & kWindowMask) == window_of(i.space);
    result |= static_cast<u32>(in) << l;
  });
  set_predicate(w, i.ops[0], mask, result);
}

Execute decode_mov(Instr& i, Opcode& op) {
  const u32 size = size_of(op.take_type());
  if (i.group_size(0) == 1 && i.group_size(1) == 1) {
    return size == 8 ? move<u64> : size == 4 ? move<u32> : size == 2 ? move<u16> : nullptr;
  }
  i.mode = static_cast<u8>(8 * size);
  const bool packs = i.group_size(1) > 1;
  i.count = static_cast<u8>(i.group_size(packs ? 1 : 0));
  return packs ? pack_parts : unpack_parts;
}

}  // namespace

Execute decode_move(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (o == "mov") return decode_mov(i, op);
  if (o == "cvta") {
    const bool to = op.take("to");
    i.space = op.take_space();
    op.take_type();
    return to ? from_generic : to_generic;
  }
  if (o == "isspacep") {
    i.space = op.take_space();
    return is_in_space;
  }
  return nullptr;
}

}  // namespace vgpu
