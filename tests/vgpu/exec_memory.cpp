// ld and st.
#include <cstring>

#include "exec_access.h"

namespace vgpu {
namespace {

template <class E>
void put_element(const Warp& w, const Operand& d, u32 l, E value) {
  if (d.is_wide) {
    lanes_of<u64>(w, d)[l] = static_cast<u64>(value);
  } else {
    lanes_of<u32>(w, d)[l] = static_cast<u32>(value);
  }
}

// Elements as raw bits; loads of signed ones extend the sign to the register's width.
template <class E>
void load(Warp& w, const Instr& i, u32 mask) {
  constexpr u32 kSize = sizeof(E);
  const u32 stride = kSize * i.count;
  WarpAccess a(w, i, i.in_group(1), i.offset, mask, stride, AccessKind::kRead, i.flag);
  a.run(i.space, [&](const std::byte* base, u32 lanes) {
    auto value_at = [&](u32 l, u32 k) {
      E value;
      std::memcpy(&value, base + a.at(l) + k * kSize, kSize);
      return value;
    };
    for (u32 k = 0; k < i.count; ++k) {
      const Operand& d = i.ops[k];
      if (kSize >= 4 && a.contiguous() && i.count == 1 && d.is_wide == (kSize == 8)) {
        std::memcpy(lanes_of<E>(w, d), base + a.at(0), kLanes * kSize);
      } else if (lanes == kFullMask && !d.is_wide && kSize <= 4) {
        for (u32 l = 0; l < kLanes; ++l) lanes_of<u32>(w, d)[l] = static_cast<u32>(value_at(l, k));
      } else {
        for_lanes(lanes, [&](u32 l) { put_element(w, d, l, value_at(l, k)); });
      }
    }
  });
}

// The same constant in all lanes, at an address that needs no checks: how kernels get arguments.
template <class E>
void load_param(Warp& w, const Instr& i, u32 mask) {
  const std::byte* p = w.block->launch->params.data() + i.offset;
  for (u32 k = 0; k < i.count; ++k) {
    E value;
    std::memcpy(&value, p + lane_address(w, i.in_group(1), 0) + k * sizeof(E), sizeof(E));
    for_lanes(mask, [&](u32 l) { put_element(w, i.ops[k], l, value); });
  }
}

template <class E>
void store(Warp& w, const Instr& i, u32 mask) {
  constexpr u32 kSize = sizeof(E);
  const u32 stride = kSize * i.count;
  WarpAccess a(w, i, i.in_group(0), i.offset, mask, stride, AccessKind::kWrite, i.flag);
  a.run(i.space, [&](std::byte* base, u32 lanes) {
    for (u32 k = 0; k < i.count; ++k) {
      const Operand& s = i.in_group(1, k);
      const bool same_width = s.is_constant || s.is_wide == (kSize == 8);
      if (kSize >= 4 && a.contiguous() && i.count == 1 && same_width) {
        std::memcpy(base + a.at(0), lanes_of<E>(w, s), kLanes * kSize);
        continue;
      }
      for_lanes(lanes, [&](u32 l) {
        const u64 bits =
            s.is_wide || (s.is_constant && kSize == 8) ? lanes_of<u64>(w, s)[l] : lane_u32(w, s, l);
        std::memcpy(base + a.at(l) + k * kSize, &bits, kSize);
      });
    }
  });
}

template <class F>
Execute for_element(Type t, F f) {
  switch (t) {
    case Type::kU8: return f.template operator()<u8>();
    case Type::kS8: return f.template operator()<i8>();
    case Type::kF16:
    case Type::kBF16: return f.template operator()<u16>();
    case Type::kF16x2:
    case Type::kBF16x2:
    case Type::kF32: return f.template operator()<u32>();
    case Type::kF64: return f.template operator()<u64>();
    default: return for_integer(t, f);
  }
}

// Hints that change no result: caching, eviction and prefetch.
void take_hints(Opcode& op) {
  op.take_one_of({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  op.take("nc");
  for (const std::string_view level : {"L1", "L2"}) {
    for (const std::string_view policy :
         {"::evict_last", "::evict_first", "::evict_normal", "::evict_unchanged", "::no_allocate",
          "::64B", "::128B", "::256B", "::cache_hint"}) {
      op.take(std::string(level) + std::string(policy));
    }
  }
}

// Orders the access among threads: it counts as atomic for the race detector.
bool take_ordering(Opcode& op) {
  if (op.take("weak")) return false;
  const bool ordered =
      op.take("volatile") || op.take_one_of({"relaxed", "acquire", "release", "mmio"}) >= 0;
  op.take_one_of({"cta", "cluster", "gpu", "sys"});
  return ordered;
}

// ld.param in a kernel reads its parameters; names of call arguments, and .param in a device
// function, are local memory.
StateSpace param_space(const Instr& i) {
  return i.symbol_space == StateSpace::kLocal ? StateSpace::kLocal : StateSpace::kParam;
}

}  // namespace

Execute decode_memory(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  const bool loads = o == "ld" || o == "ldu";
  if (!loads && o != "st") {
    if (o != "prefetch" && o != "prefetchu" && o != "discard" && o != "applypriority")
      return nullptr;
    op.take_space();
    op.take_one_of({"L1", "L2", "L2::evict_last", "L2::evict_normal", "L2::128"});
    return [](Warp&, const Instr&, u32) {};
  }
  i.count = op.take("v2") ? 2 : op.take("v4") ? 4 : op.take("v8") ? 8 : 1;
  i.space = op.take_space();
  if (i.space == StateSpace::kParam) i.space = param_space(i);
  i.flag = take_ordering(op);
  take_hints(op);
  i.type = op.take_type();
  if (i.type == Type::kNone) return nullptr;
  const Operand& address = i.in_group(loads ? 1 : 0);
  const bool uniform_param = i.space == StateSpace::kParam && address.is_constant;
  return for_element(i.type, [&]<class E>() -> Execute {
    return !loads ? store<E> : uniform_param ? load_param<E> : load<E>;
  });
}

}  // namespace vgpu
