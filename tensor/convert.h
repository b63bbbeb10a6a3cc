#pragma once
// Conversions between element types, defined for every value.
#include <limits>
#include <type_traits>

#include "tensor/dtype.h"
#include "tensor/philox.h"

namespace centroid {

CENTROID_HD float to_float(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
CENTROID_HD Bf16 to_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(x != x ? (bits >> 16) | 0x40u : rounded)};
}
/// Rounds once: going through a nearest float could round a tie that is none. The float in between
/// is rounded to odd (towards zero, then the last bit set if anything was lost), which keeps ties
/// apart.
CENTROID_HD Bf16 to_bf16(double x) {
  const float nearest = static_cast<float>(x);
  uint32_t bits = __builtin_bit_cast(uint32_t, nearest);
  const double back = nearest;
  if (back != x && x == x) {
    const bool away = x < 0 ? back < x : back > x;
    bits = (away ? bits - 1 : bits) | 1u;
  }
  return to_bf16(__builtin_bit_cast(float, bits));
}

namespace detail {

// The ends of an integer type's range, as constants that device code can use too.
template <typename T>
struct Range {
  static constexpr T kFirst = std::numeric_limits<T>::min(), kLast = std::numeric_limits<T>::max();
  static constexpr T kHalf = kLast / 2 + 1;  // half of the first value that is too large
};

}  // namespace detail

/// `x` as a To. Floats become integers by truncation towards zero, saturating at the ends of the
/// range, NaN becoming 0; integers become narrower ones modulo 2^bits.
template <typename To, typename From>
CENTROID_HD To convert(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, Bf16>) {
    return convert<To>(to_float(x));
  } else if constexpr (std::is_same_v<To, Bf16>) {
    if constexpr (std::is_same_v<From, float>)
      return to_bf16(x);
    else
      return to_bf16(static_cast<double>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    using Range = detail::Range<To>;
    if (!(x < From(Range::kHalf) * 2)) return x != x ? To(0) : Range::kLast;
    return x < From(Range::kFirst) ? Range::kFirst : static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

/// Calls like dispatch_numeric, and for bf16 too.
template <typename F>
decltype(auto) dispatch_any(DType dtype, F&& f) {
  if (dtype == DType::bf16) return f.template operator()<Bf16>();
  return dispatch_numeric(dtype, "", std::forward<F>(f));
}

}  // namespace centroid
