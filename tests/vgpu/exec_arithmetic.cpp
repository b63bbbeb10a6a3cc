// Integer arithmetic.
#include <cstdlib>

#include "exec.h"

namespace vgpu {
namespace {

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wide =
    std::conditional_t<sizeof(T) == 8,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                       std::conditional_t<std::is_signed_v<T>, i64, u64>>;

template <class T>
T add(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
}
template <class T>
T subtract(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
}
// In 32 bits for 16-bit types, whose product would overflow int.
template <class T>
T multiply(T a, T b) {
  using U = std::conditional_t<sizeof(T) < 4, u32, Unsigned<T>>;
  return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
}
template <class T>
T multiply_high(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}

struct Add {
  template <class T>
  static T apply(T a, T b) {
    return add(a, b);
  }
};
struct Subtract {
  template <class T>
  static T apply(T a, T b) {
    return subtract(a, b);
  }
};
struct Multiply {
  template <class T>
  static T apply(T a, T b) {
    return multiply(a, b);
  }
};
struct MultiplyHigh {
  template <class T>
  static T apply(T a, T b) {
    return multiply_high(a, b);
  }
};
struct Min {
  template <class T>
  static T apply(T a, T b) {
    return a < b ? a : b;
  }
};
struct Max {
  template <class T>
  static T apply(T a, T b) {
    return a > b ? a : b;
  }
};
// Division by zero is undefined in PTX; all ones and the dividend are what the hardware's
// subroutine gives.
struct Divide {
  template <class T>
  static T apply(T a, T b) {
    if (b == 0) return static_cast<T>(-1);
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return subtract<T>(0, a);
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  static T apply(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
struct Negate {
  template <class T>
  static T apply(T a) {
    return subtract<T>(0, a);
  }
};
struct Absolute {
  template <class T>
  static T apply(T a) {
    return a < 0 ? subtract<T>(0, a) : a;
  }
};
struct SaturatedAdd {
  static i32 apply(i32 a, i32 b) {
    return static_cast<i32>(std::clamp<i64>(static_cast<i64>(a) + b, INT32_MIN, INT32_MAX));
  }
};
struct SaturatedSubtract {
  static i32 apply(i32 a, i32 b) {
    return static_cast<i32>(std::clamp<i64>(static_cast<i64>(a) - b, INT32_MIN, INT32_MAX));
  }
};

template <class T, class Op>
void binary(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T>(
      w, mask, [](T a, T b) { return Op::apply(a, b); }, i.ops[0], i.ops[1], i.ops[2]);
}
template <class T, class Op>
void binary_each(Warp& w, const Instr& i, u32 mask) {
  map_each_lane<T, T, T>(
      w, mask, [](T a, T b) { return Op::apply(a, b); }, i.ops[0], i.ops[1], i.ops[2]);
}
template <class T, class Op>
void unary(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T>(
      w, mask, [](T a) { return Op::apply(a); }, i.ops[0], i.ops[1]);
}
template <class T, class Op>
void multiply_add(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T, T>(
      w, mask, [](T a, T b, T c) { return add(Op::apply(a, b), c); }, i.ops[0], i.ops[1], i.ops[2],
      i.ops[3]);
}

template <class T, class W>
void multiply_wide(Warp& w, const Instr& i, u32 mask) {
  map_lanes<W, T, T>(
      w, mask, [](T a, T b) { return multiply(static_cast<W>(a), static_cast<W>(b)); }, i.ops[0],
      i.ops[1], i.ops[2]);
}
template <class T, class W>
void multiply_add_wide(Warp& w, const Instr& i, u32 mask) {
  map_lanes<W, T, T, W>(
      w, mask, [](T a, T b, W c) { return add(multiply(static_cast<W>(a), static_cast<W>(b)), c); },
      i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

template <class T>
void sum_of_absolute_difference(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T, T>(
      w, mask, [](T a, T b, T c) { return add(c, a < b ? subtract(b, a) : subtract(a, b)); },
      i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

// 24-bit operands; the low or the high 32 of the 48 bits of the product.
template <bool kSigned, bool kAdd>
void multiply_24(Warp& w, const Instr& i, u32 mask) {
  auto extend = [](u32 v) -> i64 {
    return kSigned ? static_cast<i64>(static_cast<i32>(v << 8) >> 8)
                   : static_cast<i64>(v & 0xffffff);
  };
  for_lanes(mask, [&](u32 l) {
    const u64 product =
        static_cast<u64>(extend(lane_u32(w, i.ops[1], l)) * extend(lane_u32(w, i.ops[2], l)));
    const u32 part = static_cast<u32>(i.flag ? product >> 16 : product);
    lanes_of<u32>(w, i.ops[0])[l] = part + (kAdd ? lane_u32(w, i.ops[3], l) : 0);
  });
}

enum class Carry : u8 { kAdd, kSubtract, kMadLow, kMadHigh };

// CC.CF is the carry out of an addition and the borrow out of a subtraction. mode bit 0: sets it;
// bit 1: uses it.
template <class T, Carry kOp>
void with_carry(Warp& w, const Instr& i, u32 mask) {
  using W = Wide<T>;
  for_lanes(mask, [&](u32 l) {
    const W a = lanes_of<T>(w, i.ops[1])[l], b = lanes_of<T>(w, i.ops[2])[l];
    const W in = i.mode & 2 ? w.carry >> l & 1 : 0;
    W result;
    if (kOp == Carry::kAdd) {
      result = a + b + in;
    } else if (kOp == Carry::kSubtract) {
      result = a - b - in;
    } else {
      const W product = a * b;
      result = (kOp == Carry::kMadLow ? static_cast<W>(static_cast<T>(product))
                                      : product >> (8 * sizeof(T))) +
               lanes_of<T>(w, i.ops[3])[l] + in;
    }
    lanes_of<T>(w, i.ops[0])[l] = static_cast<T>(result);
    if (i.mode & 1) {
      const u32 out = static_cast<u32>(result >> (8 * sizeof(T))) & 1;
      w.carry = (w.carry & ~(1u << l)) | out << l;
    }
  });
}

Execute decode_carry(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  const bool sets = op.take("cc"), uses = o.back() == 'c';
  i.mode = static_cast<u8>(sets | uses << 1);
  const bool wide = size_of(op.take_type()) == 8;
  if (o == "add" || o == "addc")
    return wide ? with_carry<u64, Carry::kAdd> : with_carry<u32, Carry::kAdd>;
  if (o == "sub" || o == "subc") {
    return wide ? with_carry<u64, Carry::kSubtract> : with_carry<u32, Carry::kSubtract>;
  }
  if (op.take("hi"))
    return wide ? with_carry<u64, Carry::kMadHigh> : with_carry<u32, Carry::kMadHigh>;
  op.take("lo");
  return wide ? with_carry<u64, Carry::kMadLow> : with_carry<u32, Carry::kMadLow>;
}

Execute decode_wide(Type t, bool adds) {
  switch (t) {
    case Type::kU16: return adds ? multiply_add_wide<u16, u32> : multiply_wide<u16, u32>;
    case Type::kS16: return adds ? multiply_add_wide<i16, i32> : multiply_wide<i16, i32>;
    case Type::kU32: return adds ? multiply_add_wide<u32, u64> : multiply_wide<u32, u64>;
    case Type::kS32: return adds ? multiply_add_wide<i32, i64> : multiply_wide<i32, i64>;
    default: return nullptr;
  }
}

Execute decode_multiply(Opcode& op, Type t, bool adds) {
  if (op.take("wide")) return decode_wide(t, adds);
  const bool high = op.take("hi");
  op.take("lo");
  return for_integer(t, [=]<class T>() -> Execute {
    if (adds) return high ? multiply_add<T, MultiplyHigh> : multiply_add<T, Multiply>;
    return high ? binary<T, MultiplyHigh> : binary<T, Multiply>;
  });
}

template <class Op>
Execute binary_of(Type t) {
  return for_integer(t, []<class T>() -> Execute { return binary<T, Op>; });
}

Execute decode_signed(std::string_view o, Type t) {
  return for_integer(
      t, [=]<class T>() -> Execute { return o == "neg" ? unary<T, Negate> : unary<T, Absolute>; });
}

Execute decode_24(Instr& i, Opcode& op, Type t) {
  const bool adds = op.base() == "mad24";
  i.flag = op.take("hi");
  op.take("lo");
  if (t == Type::kS32) return adds ? multiply_24<true, true> : multiply_24<true, false>;
  return adds ? multiply_24<false, true> : multiply_24<false, false>;
}

}  // namespace

Execute decode_arithmetic(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (!is_integer(op.peek_type())) return nullptr;
  if (o == "addc" || o == "subc" || o == "madc" ||
      ((o == "add" || o == "sub" || o == "mad") && op.has("cc"))) {
    return decode_carry(i, op);
  }
  static constexpr std::string_view kNames[] = {"add", "sub", "mul", "mad", "div",   "rem",  "min",
                                                "max", "neg", "abs", "sad", "mul24", "mad24"};
  if (std::find(std::begin(kNames), std::end(kNames), o) == std::end(kNames)) return nullptr;
  const Type t = op.take_type();
  if (t == Type::kS32 && (o == "add" || o == "sub") && op.take("sat")) {
    return o == "add" ? binary<i32, SaturatedAdd> : binary<i32, SaturatedSubtract>;
  }
  if (o == "add") return binary_of<Add>(t);
  if (o == "sub") return binary_of<Subtract>(t);
  if (o == "min") return binary_of<Min>(t);
  if (o == "max") return binary_of<Max>(t);
  if (o == "mul" || o == "mad") return decode_multiply(op, t, o == "mad");
  if (o == "div" || o == "rem") {
    return for_integer(t, [&]<class T>() -> Execute {
      return o == "div" ? binary_each<T, Divide> : binary_each<T, Remainder>;
    });
  }
  if (o == "sad") {
    return for_integer(t, []<class T>() -> Execute { return sum_of_absolute_difference<T>; });
  }
  if (o == "neg" || o == "abs") return decode_signed(o, t);
  return decode_24(i, op, t);
}

}  // namespace vgpu
