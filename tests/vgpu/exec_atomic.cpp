// atom and red: lanes one after another.
#include <cstring>

#include "exec_float_types.h"

#include "exec_access.h"

namespace vgpu {
namespace {

enum class Update : u8 {
  kAdd,
  kMin,
  kMax,
  kExchange,
  kCompareSwap,
  kAnd,
  kOr,
  kXor,
  kIncrement,
  kDecrement
};

template <class T>
T updated_integer(Update op, T old, T value) {
  using U = std::make_unsigned_t<T>;
  switch (op) {
    case Update::kAdd: return static_cast<T>(static_cast<U>(old) + static_cast<U>(value));
    case Update::kMin: return std::min(old, value);
    case Update::kMax: return std::max(old, value);
    case Update::kAnd: return static_cast<T>(old & value);
    case Update::kOr: return static_cast<T>(old | value);
    case Update::kXor: return static_cast<T>(old ^ value);
    case Update::kIncrement: return old >= value ? T{0} : static_cast<T>(old + 1);
    case Update::kDecrement: return old == 0 || old > value ? value : static_cast<T>(old - 1);
    default: return value;
  }
}

template <class T>
T updated(Update op, T old, T value) {
  if constexpr (std::is_integral_v<T>) {
    return updated_integer(op, old, value);
  } else {
    switch (op) {
      case Update::kAdd: return canonical(old + value);
      case Update::kMin: return minimum(old, value);
      case Update::kMax: return maximum(old, value);
      default: return value;
    }
  }
}

template <class H>
u32 updated_pair(Update op, u32 old, u32 value, u32 elements) {
  u32 result = 0;
  for (u32 e = 0; e < elements; ++e) {
    const float a = to_float(H{static_cast<u16>(old >> (16 * e))});
    const float b = to_float(H{static_cast<u16>(value >> (16 * e))});
    H h;
    round_to(h, updated(op, a, b));
    result |= static_cast<u32>(h.bits) << (16 * e);
  }
  return result;
}

// M is what is in memory: T, or its bits for 16-bit floats.
template <class M, class F>
void update(Warp& w, const Instr& i, u32 mask, F f) {
  const u32 g = i.mode;  // group of the address: red has no destination
  WarpAccess a(w, i, i.in_group(g), i.offset, mask, sizeof(M), AccessKind::kUpdate, true);
  a.run(i.space, [&](std::byte* base, u32 lanes) {
    for_lanes(lanes, [&](u32 l) {
      M old;
      std::memcpy(&old, base + a.at(l), sizeof(M));
      const M value = unpack<M>(lanes_of<M>(w, i.in_group(g + 1))[l]);
      const M result = f(old, value, l);
      std::memcpy(base + a.at(l), &result, sizeof(M));
      if (g) lanes_of<M>(w, i.ops[0])[l] = pack<M>(old);
    });
  });
}

template <class T>
void number(Warp& w, const Instr& i, u32 mask) {
  update<T>(w, i, mask,
            [&](T old, T value, u32) { return updated(static_cast<Update>(i.op), old, value); });
}

template <class T>
void compare_swap(Warp& w, const Instr& i, u32 mask) {
  update<T>(w, i, mask, [&](T old, T expected, u32 l) {
    return old == expected ? unpack<T>(lanes_of<T>(w, i.in_group(i.mode + 2))[l]) : old;
  });
}

template <class H, class M>
void half(Warp& w, const Instr& i, u32 mask) {
  update<M>(w, i, mask, [&](M old, M value, u32) {
    return static_cast<M>(updated_pair<H>(static_cast<Update>(i.op), old, value, sizeof(M) / 2));
  });
}

}  // namespace

Execute decode_atomic(Instr& i, Opcode& op) {
  if (op.base() != "atom" && op.base() != "red") return nullptr;
  i.mode = op.base() == "atom";
  i.space = op.take_space();
  op.take_one_of({"relaxed", "acquire", "release", "acq_rel"});
  op.take_one_of({"cta", "cluster", "gpu", "sys"});
  op.take("noftz");
  const int update =
      op.take_one_of({"add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"});
  const Type t = op.take_type();
  if (update < 0) return nullptr;
  i.op = static_cast<u8>(update);
  if (static_cast<Update>(update) == Update::kCompareSwap) {
    return for_bits(t, []<class T>() -> Execute { return compare_swap<T>; });
  }
  switch (t) {
    case Type::kF32: return number<float>;
    case Type::kF64: return number<double>;
    case Type::kF16: return half<Half, u16>;
    case Type::kF16x2: return half<Half, u32>;
    case Type::kBF16: return half<Bfloat, u16>;
    case Type::kBF16x2: return half<Bfloat, u32>;
    default: return for_integer(t, []<class T>() -> Execute { return number<T>; });
  }
}

}  // namespace vgpu
