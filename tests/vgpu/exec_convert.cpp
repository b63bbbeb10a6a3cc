// cvt: conversions between types.
#include <limits>
#include <utility>

#include "exec_float_types.h"

#include "exec.h"

namespace vgpu {
namespace {

// ---- integers to integers -----------------------------------------------------------------------

// The register may be wider than the destination type: the result is extended to it.
template <class D>
void store(Warp& w, const Operand& d, u32 l, D value) {
  if constexpr (std::is_integral_v<D>) {
    if (d.is_wide) {
      lanes_of<u64>(w, d)[l] = static_cast<u64>(value);
    } else {
      lanes_of<u32>(w, d)[l] = static_cast<u32>(value);
    }
  } else {
    lanes_of<D>(w, d)[l] = pack<D>(value);
  }
}

template <class D, class S>
void integer(Warp& w, const Instr& i, u32 mask) {
  map_lanes<D, S>(
      w, mask, [](S s) { return static_cast<D>(s); }, i.ops[0], i.ops[1]);
}

template <class D, class S>
D clamped(S s) {
  if (std::cmp_less(s, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (std::cmp_greater(s, std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  return static_cast<D>(s);
}

// With .sat, or between registers wider than the types.
template <class D, class S>
void integer_general(Warp& w, const Instr& i, u32 mask) {
  for_lanes(mask, [&](u32 l) {
    const S s = static_cast<S>(lane_bits(w, i.ops[1], l));
    store<D>(w, i.ops[0], l, i.saturate ? clamped<D>(s) : static_cast<D>(s));
  });
}

// ---- floats to integers -------------------------------------------------------------------------

template <class T>
T rounded_to_integer(T x, Rounding r) {
  switch (r) {
    case Rounding::kNearest: return std::nearbyint(x);
    case Rounding::kZero: return std::trunc(x);
    case Rounding::kDown: return std::floor(x);
    case Rounding::kUp: return std::ceil(x);
    default: return x;
  }
}

// NaN gives 0, but 1 << (bits - 1) when either side has 64 bits. Values out of range are clamped.
template <class D, class S>
D to_integer(S x, Rounding r) {
  constexpr bool kBig = sizeof(D) == 8 || sizeof(S) == 8;
  if (x != x) return kBig ? static_cast<D>(D{1} << (8 * sizeof(D) - 1)) : D{0};
  x = rounded_to_integer(x, r);
  // 2^bits or 2^(bits - 1): exact in S, unlike the largest integer.
  constexpr S kEnd = static_cast<S>(std::numeric_limits<D>::max() / 2 + 1) * 2;
  if (x >= kEnd) return std::numeric_limits<D>::max();
  if (x <= static_cast<S>(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  return static_cast<D>(x);
}

// ---- reading and rounding floats ----------------------------------------------------------------

inline float widened(float x) { return x; }
inline double widened(double x) { return x; }
inline float widened(Half x) { return to_float(x); }
inline float widened(Bfloat x) { return to_float(x); }

template <class T>
T load(const Warp& w, const Operand& o, u32 l) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(lane_bits(w, o, l));
  } else if constexpr (sizeof(T) == 2) {
    return T{static_cast<u16>(lanes_of<u32>(w, o)[l])};
  } else {
    return unpack<T>(lanes_of<T>(w, o)[l]);
  }
}

// To one neighbour of x in single precision, when its nearest value is on the wrong side.
template <class S>
float directed(S x, float nearest, Rounding r) {
  const bool above = nearest > x, below = nearest < x;
  if ((r == Rounding::kDown && above) || (r == Rounding::kZero && above && x > 0)) {
    return std::nextafter(nearest, -INFINITY);
  }
  if ((r == Rounding::kUp && below) || (r == Rounding::kZero && below && x < 0)) {
    return std::nextafter(nearest, INFINITY);
  }
  return nearest;
}

template <class S>
float to_single(S x, Rounding r) {
  const float nearest = static_cast<float>(x);
  if (r == Rounding::kNone || r == Rounding::kNearest) return nearest;
  using Exact = std::conditional_t<std::is_integral_v<S>, long double, double>;
  const Exact exact = static_cast<Exact>(x), rounded = static_cast<Exact>(nearest);
  if (rounded == exact) return nearest;
  return directed<Exact>(exact, nearest, r);
}

template <class S>
double to_double(S x, Rounding r) {
  const double nearest = static_cast<double>(x);
  const long double exact = static_cast<long double>(x);
  if (r == Rounding::kNone || r == Rounding::kNearest || nearest == exact) return nearest;
  const bool up = r == Rounding::kUp || (r == Rounding::kZero && exact < 0);
  if (up == (nearest > exact)) return nearest;
  return std::nextafter(nearest, up ? INFINITY : -INFINITY);
}

// A float from which rounding to 16 bits is right: large integers and doubles are rounded to odd.
template <class S>
float single_for_half(S x) {
  if constexpr (sizeof(S) == 8 || (std::is_integral_v<S> && sizeof(S) == 4)) {
    double d = static_cast<double>(x);
    if constexpr (std::is_integral_v<S> && sizeof(S) == 8) {
      const long double exact = static_cast<long double>(x);
      if (d != exact) {
        u64 bits = std::bit_cast<u64>(d);
        if (std::fabs(static_cast<long double>(d)) > std::fabs(exact)) --bits;
        d = std::bit_cast<double>(bits | 1);
      }
    }
    return to_odd(d);
  } else {
    return static_cast<float>(x);
  }
}

template <class D, class S>
D converted(S source, const Instr& i) {
  if constexpr (std::is_integral_v<D>) {
    auto x = widened(source);
    if (i.ftz && sizeof(S) == 4) x = flushed(x);
    return to_integer<D>(x, i.rounding);
  } else {
    auto value = [&] {
      if constexpr (std::is_integral_v<S>) {
        return source;
      } else {
        auto x = widened(source);
        if (i.ftz && sizeof(S) == 4) x = flushed(x);
        return i.flag ? rounded_to_integer(x, i.rounding) : x;
      }
    }();
    const Rounding r = i.flag ? Rounding::kNearest : i.rounding;
    if constexpr (sizeof(D) == 2) {
      float x = single_for_half(value);
      if (i.mode) x = x > 0 ? x : x != x ? x : 0;  // .relu
      if (i.saturate) x = saturated(x);
      D d;
      round_to(d, x, r == Rounding::kNone ? Rounding::kNearest : r);
      return d;
    } else if constexpr (sizeof(D) == 4) {
      float x = canonical(to_single(value, r));
      if (i.ftz) x = flushed(x);
      return i.saturate ? saturated(x) : x;
    } else {
      const double x = to_double(value, r);
      return i.saturate ? saturated(x) : x;
    }
  }
}

template <class D, class S>
void convert(Warp& w, const Instr& i, u32 mask) {
  for_lanes(mask, [&](u32 l) {
    const D d = converted<D, S>(load<S>(w, i.ops[1], l), i);
    if constexpr (sizeof(D) == 2 && !std::is_integral_v<D>) {
      lanes_of<u32>(w, i.ops[0])[l] = d.bits;
    } else {
      store<D>(w, i.ops[0], l, d);
    }
  });
}

// ---- frequent ones, a warp at a time
// --------------------------------------------------------------

template <class D, class S>
void nearest(Warp& w, const Instr& i, u32 mask) {
  map_lanes<D, S>(
      w, mask, [](S s) { return static_cast<D>(s); }, i.ops[0], i.ops[1]);
}
void from_bfloat(Warp& w, const Instr& i, u32 mask) {
  map_lanes<u32, u32>(
      w, mask, [](u32 bits) { return bits << 16; }, i.ops[0], i.ops[1]);
}
void to_bfloat(Warp& w, const Instr& i, u32 mask) {
  auto round = [](float x) -> u32 {
    const u32 bits = std::bit_cast<u32>(x);
    return x != x ? kCanonicalHalfNan : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  map_lanes<u32, float>(w, mask, round, i.ops[0], i.ops[1]);
}

// cvt.rn.bf16x2.f32 d, a, b: a becomes the upper half.
template <class H>
void pair_from_singles(Warp& w, const Instr& i, u32 mask) {
  auto one = [&](float x) -> u32 {
    if (i.mode) x = x > 0 ? x : x != x ? x : 0;
    H h;
    round_to(h, x, i.rounding);
    return h.bits;
  };
  map_each_lane<u32, float, float>(
      w, mask, [&](float a, float b) { return one(a) << 16 | one(b); }, i.ops[0], i.ops[1],
      i.ops[2]);
}

// tf32 keeps 10 bits of the mantissa.
void to_tf32(Warp& w, const Instr& i, u32 mask) {
  auto round = [&](u32 bits) {
    const bool special = (bits & 0x7f800000) == 0x7f800000;
    const u32 add = i.rounding == Rounding::kZero          ? 0
                    : i.rounding == Rounding::kNearestAway ? 0x1000
                                                           : 0xfff + (bits >> 13 & 1);
    if (i.mode && bits >> 31) bits = 0;
    return special ? bits : (bits + add) & ~0x1fffu;
  };
  map_each_lane<u32, u32>(w, mask, round, i.ops[0], i.ops[1]);
}

// ---- choosing one
// ---------------------------------------------------------------------------------

template <class F>
Execute for_any(Type t, F f) {
  switch (t) {
    case Type::kU8: return f.template operator()<u8>();
    case Type::kS8: return f.template operator()<i8>();
    case Type::kF16: return f.template operator()<Half>();
    case Type::kBF16: return f.template operator()<Bfloat>();
    case Type::kF32: return f.template operator()<float>();
    case Type::kF64: return f.template operator()<double>();
    default: return for_integer(t, f);
  }
}

template <class D>
Execute from_type(const Instr& i) {
  const Operand &d = i.ops[0], &s = i.ops[1];
  const bool plain = !i.saturate && d.is_wide == (sizeof(D) == 8) &&
                     (s.is_constant || s.is_wide == (size_of(i.from) == 8));
  return for_any(i.from, [&]<class S>() -> Execute {
    if constexpr (std::is_integral_v<D> && std::is_integral_v<S>) {
      return plain ? integer<D, S> : integer_general<D, S>;
    } else {
      return convert<D, S>;
    }
  });
}

Execute decode_fast(const Instr& i) {
  if (i.ftz || i.saturate || i.flag || i.mode) return nullptr;
  const Type d = i.type, s = i.from;
  const bool nearest_even = i.rounding == Rounding::kNearest;
  if (d == Type::kF32 && s == Type::kBF16) return from_bfloat;
  if (d == Type::kBF16 && s == Type::kF32 && nearest_even) return to_bfloat;
  if (i.ops[0].is_wide != (size_of(d) == 8) || (i.ops[1].is_wide != (size_of(s) == 8)))
    return nullptr;
  if (d == Type::kF32 && s == Type::kS32 && nearest_even) return nearest<float, i32>;
  if (d == Type::kF32 && s == Type::kU32 && nearest_even) return nearest<float, u32>;
  if (d == Type::kF64 && s == Type::kF32) return nearest<double, float>;
  if (d == Type::kF64 && s == Type::kS32) return nearest<double, i32>;
  return nullptr;
}

}  // namespace

Execute decode_convert(Instr& i, Opcode& op) {
  if (op.base() != "cvt") return nullptr;
  i.flag = op.has("rni") || op.has("rzi") || op.has("rmi") || op.has("rpi");
  i.rounding = op.take_rounding();
  i.ftz = op.take("ftz");
  i.saturate = op.take("sat");
  i.mode = op.take("relu");
  i.from = op.take_type();
  if (op.take("tf32")) return i.from == Type::kF32 ? to_tf32 : nullptr;
  i.type = op.take_type();
  if (i.type == Type::kNone || i.from == Type::kNone) return nullptr;
  if (i.type == Type::kF16x2) return i.from == Type::kF32 ? pair_from_singles<Half> : nullptr;
  if (i.type == Type::kBF16x2) return i.from == Type::kF32 ? pair_from_singles<Bfloat> : nullptr;
  if (const Execute fast = decode_fast(i)) return fast;
  return for_any(i.type, [&]<class D>() -> Execute { return from_type<D>(i); });
}

}  // namespace vgpu
