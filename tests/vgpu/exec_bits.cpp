// Logic, shifts and bit fields.
#include "exec.h"

namespace vgpu {
namespace {

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

struct And {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a & b);
  }
};
struct Or {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a | b);
  }
};
struct Xor {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a ^ b);
  }
};
struct Not {
  template <class T>
  static T apply(T a) {
    return static_cast<T>(~a);
  }
};
// C's !, as an integer.
struct LogicalNot {
  template <class T>
  static T apply(T a) {
    return a == 0;
  }
};
// Amounts beyond the width give what shifting bit by bit would.
struct ShiftLeft {
  template <class T>
  static T apply(T a, u32 n) {
    const T shifted = static_cast<T>(a << (n & (kBits<T> - 1)));
    return n < kBits<T> ? shifted : T{0};
  }
};
struct ShiftRight {
  template <class T>
  static T apply(T a, u32 n) {
    if constexpr (std::is_signed_v<T>) {
      return static_cast<T>(a >> (n < kBits<T> ? n : kBits<T> - 1));
    } else {
      const T shifted = static_cast<T>(a >> (n & (kBits<T> - 1)));
      return n < kBits<T> ? shifted : T{0};
    }
  }
};

template <class T, class Op>
void binary(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T>(
      w, mask, [](T a, T b) { return Op::apply(a, b); }, i.ops[0], i.ops[1], i.ops[2]);
}
template <class T, class Op>
void unary(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T>(
      w, mask, [](T a) { return Op::apply(a); }, i.ops[0], i.ops[1]);
}
template <class T, class Op>
void shift(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, u32>(
      w, mask, [](T a, u32 n) { return Op::apply(a, n); }, i.ops[0], i.ops[1], i.ops[2]);
}

template <class T>
void count_ones(Warp& w, const Instr& i, u32 mask) {
  map_lanes<u32, T>(
      w, mask, [](T a) { return static_cast<u32>(std::popcount(a)); }, i.ops[0], i.ops[1]);
}
template <class T>
void count_leading_zeros(Warp& w, const Instr& i, u32 mask) {
  map_lanes<u32, T>(
      w, mask, [](T a) { return static_cast<u32>(std::countl_zero(a)); }, i.ops[0], i.ops[1]);
}

u32 reversed(u32 v) {
  v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
  v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
  v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(v);
}
u64 reversed(u64 v) {
  return static_cast<u64>(reversed(static_cast<u32>(v))) << 32 |
         reversed(static_cast<u32>(v >> 32));
}
template <class T>
void reverse(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T>(
      w, mask, [](T a) { return reversed(a); }, i.ops[0], i.ops[1]);
}

// The most significant bit that is not a copy of the sign; all ones when there is none. With
// .shiftamt, how far to shift it left to the top.
template <class T>
void find_leading_bit(Warp& w, const Instr& i, u32 mask) {
  using U = std::make_unsigned_t<T>;
  auto find = [&](T a) -> u32 {
    const U bits = static_cast<U>(std::is_signed_v<T> && a < 0 ? ~a : a);
    const u32 above = static_cast<u32>(std::countl_zero(bits));
    return bits == 0 ? ~0u : i.flag ? above : kBits<T> - 1 - above;
  };
  map_lanes<u32, T>(w, mask, find, i.ops[0], i.ops[1]);
}

// Bits beyond the top are zero, or copies of the sign bit.
template <class T>
T bit_field(T value, u32 position, u32 length) {
  using U = std::make_unsigned_t<T>;
  position &= 255;
  length &= 255;
  if (length == 0) return 0;
  U bits = static_cast<U>(ShiftRight::apply(value, position));
  if (length >= kBits<T>) return static_cast<T>(bits);
  const U field = static_cast<U>((U{1} << length) - 1);
  bits &= field;
  const u32 top = std::min(position + length - 1, kBits<T> - 1);
  const bool negative = std::is_signed_v<T> && static_cast<U>(value) >> top & 1;
  return static_cast<T>(negative ? bits | static_cast<U>(~field) : bits);
}
template <class T>
void extract_field(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, u32, u32>(w, mask, bit_field<T>, i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

template <class T>
T with_field(T field, T base, u32 position, u32 length) {
  position &= 255;
  length &= 255;
  if (position >= kBits<T> || length == 0) return base;
  const T ones = length >= kBits<T> ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << length) - 1);
  const T in = static_cast<T>(ones << position);
  return static_cast<T>((base & ~in) | (static_cast<T>(field << position) & in));
}
template <class T>
void insert_field(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T, u32, u32>(w, mask, with_field<T>, i.ops[0], i.ops[1], i.ops[2], i.ops[3],
                               i.ops[4]);
}

void bit_mask(Warp& w, const Instr& i, u32 mask) {
  auto make = [&](u32 position, u32 length) -> u32 {
    if (i.flag) position &= 31, length &= 31;  // .wrap
    if (position >= 32 || length == 0) return 0;
    return (length >= 32 ? ~0u : (1u << length) - 1) << position;
  };
  map_lanes<u32, u32, u32>(w, mask, make, i.ops[0], i.ops[1], i.ops[2]);
}

// Selectors of the modes of prmt, by the two low bits of the third operand.
enum PermuteMode : u8 {
  kSelect,
  kForward4,
  kBackward4,
  kReplicate8,
  kEdgeLeft,
  kEdgeRight,
  kReplicate16
};
u32 permute_selector(u8 mode, u32 control) {
  const u32 c = control & 3;
  switch (mode) {
    case kForward4: return 0x3210 + 0x1111 * c;
    case kBackward4: {
      static constexpr u32 kSelectors[] = {0x5670, 0x6701, 0x7012, 0x0123};
      return kSelectors[c];
    }
    case kReplicate8: return 0x1111 * c;
    case kEdgeLeft: {
      static constexpr u32 kSelectors[] = {0x3210, 0x3211, 0x3222, 0x3333};
      return kSelectors[c];
    }
    case kEdgeRight: {
      static constexpr u32 kSelectors[] = {0x0000, 0x1110, 0x2210, 0x3210};
      return kSelectors[c];
    }
    case kReplicate16: return c & 1 ? 0x3232 : 0x1010;
    default: return control;
  }
}
// In the plain mode, bit 3 of a selector replicates the byte's sign.
void permute(Warp& w, const Instr& i, u32 mask) {
  auto select = [&](u32 a, u32 b, u32 control) {
    const u64 bytes = a | static_cast<u64>(b) << 32;
    const u32 selector = permute_selector(i.mode, control);
    u32 result = 0;
    for (u32 k = 0; k < 4; ++k) {
      const u32 nibble = selector >> (4 * k);
      u32 byte = static_cast<u32>(bytes >> (8 * (nibble & 7))) & 255;
      if (nibble & 8) byte = byte & 128 ? 255 : 0;
      result |= byte << (8 * k);
    }
    return result;
  };
  map_lanes<u32, u32, u32, u32>(w, mask, select, i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

// The immediate is a truth table, indexed by the bits of a, b and c.
void logic3(Warp& w, const Instr& i, u32 mask) {
  const u32 table = lane_u32(w, i.ops[4], 0);
  auto apply = [table](u32 a, u32 b, u32 c) {
    u32 result = 0;
    for (u32 k = 0; k < 8; ++k) {
      const u32 term = (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
      result |= table >> k & 1 ? term : 0;
    }
    return result;
  };
  map_lanes<u32, u32, u32, u32>(w, mask, apply, i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

template <bool kLeft, bool kWrap>
void funnel_shift(Warp& w, const Instr& i, u32 mask) {
  auto apply = [](u32 low, u32 high, u32 amount) {
    const u64 value = low | static_cast<u64>(high) << 32;
    const u32 n = kWrap ? amount & 31 : amount < 32 ? amount : 32;
    return static_cast<u32>(kLeft ? value << n >> 32 : value >> n);
  };
  map_lanes<u32, u32, u32, u32>(w, mask, apply, i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

// d = c + the dot product of four bytes, or of two halves of a with two bytes of b.
template <bool kSignedA, bool kSignedB>
void dot_product(Warp& w, const Instr& i, u32 mask) {
  const u32 n = i.count, width = 32 / n, first = i.flag ? 2 : 0;
  auto part = [](u32 v, u32 k, u32 bits, bool is_signed) -> i32 {
    const u32 field = v >> (k * bits) << (32 - bits);
    return is_signed ? static_cast<i32>(field) >> (32 - bits)
                     : static_cast<i32>(field >> (32 - bits));
  };
  auto dot = [&](u32 a, u32 b, u32 c) {
    for (u32 k = 0; k < n; ++k) {
      c += static_cast<u32>(part(a, k, width, kSignedA) * part(b, first + k, 8, kSignedB));
    }
    return c;
  };
  map_each_lane<u32, u32, u32, u32>(w, mask, dot, i.ops[0], i.ops[1], i.ops[2], i.ops[3]);
}

template <class Op>
Execute bits_of(Type t) {
  return for_bits(t, []<class T>() -> Execute { return binary<T, Op>; });
}

Execute decode_dot(Instr& i, Opcode& op) {
  i.count = op.base() == "dp4a" ? 4 : 2;
  if (i.count == 2) i.flag = op.take("hi"), op.take("lo");
  const bool signed_b = is_signed(op.take_type()), signed_a = is_signed(op.take_type());
  if (signed_a) return signed_b ? dot_product<true, true> : dot_product<true, false>;
  return signed_b ? dot_product<false, true> : dot_product<false, false>;
}

Execute decode_permute(Instr& i, Opcode& op) {
  op.take_type();
  i.mode = static_cast<u8>(op.take_one_of({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1);
  return permute;
}

Execute decode_funnel(Opcode& op) {
  op.take_type();
  const bool left = op.take("l"), wrap = op.take("wrap");
  op.take("r");
  op.take("clamp");
  if (left) return wrap ? funnel_shift<true, true> : funnel_shift<true, false>;
  return wrap ? funnel_shift<false, true> : funnel_shift<false, false>;
}

Execute decode_shift(std::string_view o, Type t) {
  if (o == "shl") {
    return for_bits(t, []<class T>() -> Execute { return shift<T, ShiftLeft>; });
  }
  return for_integer(t, []<class T>() -> Execute { return shift<T, ShiftRight>; });
}

Execute decode_count(std::string_view o, bool wide) {
  if (o == "popc") return wide ? count_ones<u64> : count_ones<u32>;
  if (o == "clz") return wide ? count_leading_zeros<u64> : count_leading_zeros<u32>;
  return wide ? reverse<u64> : reverse<u32>;
}

Execute decode_field(std::string_view o, Type t) {
  if (o == "bfi") return size_of(t) == 8 ? insert_field<u64> : insert_field<u32>;
  switch (t) {
    case Type::kU32: return extract_field<u32>;
    case Type::kS32: return extract_field<i32>;
    case Type::kU64: return extract_field<u64>;
    case Type::kS64: return extract_field<i64>;
    default: return nullptr;
  }
}

Execute decode_find(Instr& i, Opcode& op, Type t) {
  i.flag = op.take("shiftamt");
  return for_integer(t, []<class T>() -> Execute { return find_leading_bit<T>; });
}

}  // namespace

Execute decode_bits(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (!is_integer(op.peek_type())) return nullptr;
  if (o == "dp4a" || o == "dp2a") return decode_dot(i, op);
  if (o == "prmt") return decode_permute(i, op);
  if (o == "shf") return decode_funnel(op);
  static constexpr std::string_view kNames[] = {"and",   "or",  "xor",  "not",  "cnot",
                                                "shl",   "shr", "popc", "clz",  "brev",
                                                "bfind", "bfe", "bfi",  "bmsk", "lop3"};
  if (std::find(std::begin(kNames), std::end(kNames), o) == std::end(kNames)) return nullptr;
  const Type t = op.take_type();
  if (o == "and") return bits_of<And>(t);
  if (o == "or") return bits_of<Or>(t);
  if (o == "xor") return bits_of<Xor>(t);
  if (o == "not") return for_bits(t, []<class T>() -> Execute { return unary<T, Not>; });
  if (o == "cnot") return for_bits(t, []<class T>() -> Execute { return unary<T, LogicalNot>; });
  if (o == "shl" || o == "shr") return decode_shift(o, t);
  if (o == "bfe" || o == "bfi") return decode_field(o, t);
  if (o == "bfind") return decode_find(i, op, t);
  if (o == "lop3") return logic3;
  if (o == "bmsk") {
    i.flag = op.take("wrap");
    op.take("clamp");
    return bit_mask;
  }
  return decode_count(o, size_of(t) == 8);
}

}  // namespace vgpu
