// Comparisons, selection and predicate logic.
#include "exec_float_types.h"

#include "exec.h"

namespace vgpu {
namespace {

// The unordered forms (equ ...) are true when an operand is NaN.
enum class Compare : u8 {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,
  kNum,
  kNan
};
// How the result of setp and set is combined with a predicate; kept in Instr::mode.
enum class Combine : u8 { kNone, kAnd, kOr, kXor };

inline float widened(float x) { return x; }
inline double widened(double x) { return x; }
inline float widened(Half x) { return to_float(x); }
inline float widened(Bfloat x) { return to_float(x); }
template <class T>
requires std::is_integral_v<T>
inline T widened(T x) { return x; }

template <Compare kOp, class T>
bool compare(T a, T b) {
  switch (kOp) {
    case Compare::kEq: return a == b;
    case Compare::kNe: return (a < b) | (a > b);
    case Compare::kLt: return a < b;
    case Compare::kLe: return a <= b;
    case Compare::kGt: return a > b;
    case Compare::kGe: return a >= b;
    case Compare::kEqu: return !((a < b) | (a > b));
    case Compare::kNeu: return a != b;
    case Compare::kLtu: return !(a >= b);
    case Compare::kLeu: return !(a > b);
    case Compare::kGtu: return !(a <= b);
    case Compare::kGeu: return !(a < b);
    case Compare::kNum: return (a == a) & (b == b);
    default: return (a != a) | (b != b);
  }
}

template <class T, Compare kOp>
u32 compare_lanes(const Warp& w, const Instr& i, u32 a, u32 b) {
  const auto *x = lanes_of<T>(w, i.ops[a]), *y = lanes_of<T>(w, i.ops[b]);
  u32 bits[kLanes];
  for (u32 l = 0; l < kLanes; ++l) {
    T p, q;
    if constexpr (sizeof(T) == 2 && !std::is_integral_v<T>) {
      p.bits = static_cast<u16>(x[l]), q.bits = static_cast<u16>(y[l]);
    } else {
      p = unpack<T>(x[l]), q = unpack<T>(y[l]);
    }
    bool r;
    if constexpr (std::is_floating_point_v<T>) {
      r = i.ftz ? compare<kOp>(flushed(p), flushed(q)) : compare<kOp>(p, q);
    } else {
      r = compare<kOp>(widened(p), widened(q));
    }
    bits[l] = r ? ~0u : 0;
  }
  u32 result = 0;
  for (u32 l = 0; l < kLanes; l += 8) {
    const __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bits + l));
    result |= static_cast<u32>(_mm256_movemask_ps(_mm256_castsi256_ps(part))) << l;
  }
  return result;
}

u32 combine(Combine how, u32 value, u32 with) {
  switch (how) {
    case Combine::kAnd: return value & with;
    case Combine::kOr: return value | with;
    case Combine::kXor: return value ^ with;
    default: return value;
  }
}

// setp.op p|q, a, b, c: p = (a op b) bool c, q = !(a op b) bool c.
template <class T, Compare kOp>
void set_predicate_of(Warp& w, const Instr& i, u32 mask) {
  const u32 a = i.group[1], result = compare_lanes<T, kOp>(w, i, a, a + 1);
  const auto how = static_cast<Combine>(i.mode);
  const u32 with = how == Combine::kNone ? 0 : predicate(w, i.in_group(3));
  set_predicate(w, i.ops[0], mask, combine(how, result, with));
  if (i.group_size(0) > 1) set_predicate(w, i.ops[1], mask, combine(how, ~result, with));
}

// Comparison of pairs of halves: p is that of the lower ones, q that of the upper ones.
template <class H, Compare kOp>
void set_predicates_of_pairs(Warp& w, const Instr& i, u32 mask) {
  const auto how = static_cast<Combine>(i.mode);
  const u32 with = how == Combine::kNone ? 0 : predicate(w, i.in_group(3));
  for (u32 e = 0; e < 2; ++e) {
    u32 result = 0;
    for (u32 l = 0; l < kLanes; ++l) {
      const H a{static_cast<u16>(lane_u32(w, i.in_group(1), l) >> (16 * e))};
      const H b{static_cast<u16>(lane_u32(w, i.in_group(2), l) >> (16 * e))};
      result |= static_cast<u32>(compare<kOp>(to_float(a), to_float(b))) << l;
    }
    set_predicate(w, i.ops[e], mask, combine(how, result, with));
  }
}

// set: all ones, or 1.0, or a half 1.0 in each lane where the comparison holds.
template <class T, Compare kOp>
void set_value_of(Warp& w, const Instr& i, u32 mask) {
  u32 result = compare_lanes<T, kOp>(w, i, 1, 2);
  const auto how = static_cast<Combine>(i.mode);
  if (how != Combine::kNone) result = combine(how, result, predicate(w, i.ops[3]));
  const u32 value = i.type == Type::kF32    ? 0x3f800000
                    : i.type == Type::kF16  ? 0x3c00
                    : i.type == Type::kBF16 ? 0x3f80
                                            : ~0u;
  for_lanes(mask, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = result >> l & 1 ? value : 0; });
}

template <class T>
void select(Warp& w, const Instr& i, u32 mask) {
  const u32 p = predicate(w, i.ops[3]);
  auto *d = lanes_of<T>(w, i.ops[0]), *a = lanes_of<T>(w, i.ops[1]), *b = lanes_of<T>(w, i.ops[2]);
#pragma GCC ivdep
  for (u32 l = 0; l < kLanes; ++l) {
    const auto value = p >> l & 1 ? a[l] : b[l];
    d[l] = mask >> l & 1 ? value : d[l];
  }
}

// slct d, a, b, c: a when c >= 0.
template <class T, class C>
void select_by_sign(Warp& w, const Instr& i, u32 mask) {
  map_lanes<T, T, T, C>(
      w, mask, [](T a, T b, C c) { return c >= 0 ? a : b; }, i.ops[0], i.ops[1], i.ops[2],
      i.ops[3]);
}

enum class Logic : u8 { kAnd, kOr, kXor, kNot, kMove };
template <Logic kOp>
void predicate_logic(Warp& w, const Instr& i, u32 mask) {
  const u32 a = predicate(w, i.ops[1]);
  const u32 b = kOp == Logic::kNot || kOp == Logic::kMove ? 0 : predicate(w, i.ops[2]);
  set_predicate(w, i.ops[0], mask,
                kOp == Logic::kAnd   ? a & b
                : kOp == Logic::kOr  ? a | b
                : kOp == Logic::kXor ? a ^ b
                : kOp == Logic::kNot ? ~a
                                     : a);
}

enum class FloatClass : u8 { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <class T>
void test_class(Warp& w, const Instr& i, u32 mask) {
  u32 result = 0;
  for (u32 l = 0; l < kLanes; ++l) {
    const T x = unpack<T>(lanes_of<T>(w, i.ops[1])[l]);
    bool r = false;
    switch (static_cast<FloatClass>(i.op)) {
      case FloatClass::kFinite: r = std::isfinite(x); break;
      case FloatClass::kInfinite: r = std::isinf(x); break;
      case FloatClass::kNumber: r = x == x; break;
      case FloatClass::kNotANumber: r = x != x; break;
      case FloatClass::kNormal: r = std::isnormal(x); break;
      case FloatClass::kSubnormal: r = std::fpclassify(x) == FP_SUBNORMAL; break;
    }
    result |= static_cast<u32>(r) << l;
  }
  set_predicate(w, i.ops[0], mask, result);
}

template <class F>
Execute for_compare(int index, F f) {
  switch (static_cast<Compare>(index)) {
    case Compare::kEq: return f.template operator()<Compare::kEq>();
    case Compare::kNe: return f.template operator()<Compare::kNe>();
    case Compare::kLt: return f.template operator()<Compare::kLt>();
    case Compare::kLe: return f.template operator()<Compare::kLe>();
    case Compare::kGt: return f.template operator()<Compare::kGt>();
    case Compare::kGe: return f.template operator()<Compare::kGe>();
    case Compare::kEqu: return f.template operator()<Compare::kEqu>();
    case Compare::kNeu: return f.template operator()<Compare::kNeu>();
    case Compare::kLtu: return f.template operator()<Compare::kLtu>();
    case Compare::kLeu: return f.template operator()<Compare::kLeu>();
    case Compare::kGtu: return f.template operator()<Compare::kGtu>();
    case Compare::kGeu: return f.template operator()<Compare::kGeu>();
    case Compare::kNum: return f.template operator()<Compare::kNum>();
    case Compare::kNan: return f.template operator()<Compare::kNan>();
  }
  return nullptr;
}

template <Compare kOp>
Execute compare_of(const Instr& i, bool value) {
  auto pick = [&]<class T>() -> Execute {
    return value ? set_value_of<T, kOp> : set_predicate_of<T, kOp>;
  };
  switch (i.from) {
    case Type::kF32: return pick.template operator()<float>();
    case Type::kF64: return pick.template operator()<double>();
    case Type::kF16: return pick.template operator()<Half>();
    case Type::kBF16: return pick.template operator()<Bfloat>();
    case Type::kF16x2: return value ? nullptr : set_predicates_of_pairs<Half, kOp>;
    case Type::kBF16x2: return value ? nullptr : set_predicates_of_pairs<Bfloat, kOp>;
    default: return for_integer(i.from, pick);
  }
}

Execute decode_set(Instr& i, Opcode& op) {
  const bool value = op.base() == "set";
  i.from = op.take_type();
  i.ftz = op.take("ftz");
  if (value) {
    i.type = op.take_type();
    if (size_of(i.type) == 2 && is_integer(i.type)) return nullptr;
  }
  i.mode = static_cast<u8>(op.take_one_of({"and", "or", "xor"}) + 1);
  int index = op.take_one_of(
      {"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
  // For unsigned integers the comparisons have names of their own.
  if (index < 0) {
    const int alias = op.take_one_of({"lo", "ls", "hi", "hs"});
    if (alias < 0) return nullptr;
    index = static_cast<int>(Compare::kLt) + alias;
  }
  return for_compare(index, [&]<Compare kOp>() -> Execute { return compare_of<kOp>(i, value); });
}

Execute decode_select(Opcode& op) {
  return for_bits(op.take_type(), []<class T>() -> Execute { return select<T>; });
}

Execute decode_select_by_sign(Opcode& op) {
  const Type c = op.take_type(), t = op.take_type();
  return for_bits(t, [=]<class T>() -> Execute {
    return c == Type::kF32 ? select_by_sign<T, float> : select_by_sign<T, i32>;
  });
}

}  // namespace

Execute decode_compare(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (o == "setp" || o == "set") return decode_set(i, op);
  if (o == "selp") return decode_select(op);
  if (o == "slct") return decode_select_by_sign(op);
  if (o == "testp") {
    i.op = static_cast<u8>(
        op.take_one_of({"finite", "infinite", "number", "notanumber", "normal", "subnormal"}));
    return op.take_type() == Type::kF64 ? test_class<double> : test_class<float>;
  }
  if (op.peek_type() != Type::kPred) return nullptr;
  if (o == "vote") return nullptr;
  op.take_type();
  if (o == "and") return predicate_logic<Logic::kAnd>;
  if (o == "or") return predicate_logic<Logic::kOr>;
  if (o == "xor") return predicate_logic<Logic::kXor>;
  if (o == "not") return predicate_logic<Logic::kNot>;
  if (o == "mov") return predicate_logic<Logic::kMove>;
  return nullptr;
}

}  // namespace vgpu
