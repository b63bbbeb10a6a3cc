// Integer arithmetic, logic, bit fields, comparisons and moves against the host.
#include "test_ptx.h"

using namespace vgpu;
using namespace vgpu::test;

namespace {

template <class T>
std::string name_of() {
  return (std::is_signed_v<T> ? "s" : "u") + std::to_string(8 * sizeof(T));
}
template <class T>
using Wider =
    std::conditional_t<sizeof(T) == 8,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>,
                       std::conditional_t<std::is_signed_v<T>, i64, u64>>;

template <class T>
void integer_arithmetic() {
  const std::string t = "." + name_of<T>() + " d, a";
  using W = Wider<T>;
  constexpr int kBits = 8 * sizeof(T);
  check2<T>("add" + t + ", b;",
            [](T a, T b) { return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b)); });
  check2<T>("sub" + t + ", b;",
            [](T a, T b) { return static_cast<T>(static_cast<u64>(a) - static_cast<u64>(b)); });
  check2<T>("mul.lo" + t + ", b;",
            [](T a, T b) { return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b)); });
  check2<T>("mul.hi" + t + ", b;", [](T a, T b) {
    return static_cast<T>(static_cast<W>(a) * static_cast<W>(b) >> kBits);
  });
  check3<T>("mad.lo" + t + ", b, c;", [](T a, T b, T c) {
    return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b) + static_cast<u64>(c));
  });
  check3<T>("mad.hi" + t + ", b, c;", [](T a, T b, T c) {
    return static_cast<T>(static_cast<u64>(static_cast<W>(a) * static_cast<W>(b) >> kBits) +
                          static_cast<u64>(c));
  });
  check2<T>("min" + t + ", b;", [](T a, T b) { return std::min(a, b); });
  check2<T>("max" + t + ", b;", [](T a, T b) { return std::max(a, b); });
  check3<T>("sad" + t + ", b, c;", [](T a, T b, T c) {
    const u64 difference = a < b ? static_cast<u64>(b) - static_cast<u64>(a)
                                 : static_cast<u64>(a) - static_cast<u64>(b);
    return static_cast<T>(static_cast<u64>(c) + difference);
  });
  auto quotient = [](T a, T b) -> T {
    if (b == 0) return static_cast<T>(-1);
    return static_cast<T>(static_cast<__int128>(a) / b);  // the one overflow wraps
  };
  check2<T>("div" + t + ", b;", quotient);
  check2<T>("rem" + t + ", b;", [](T a, T b) -> T {
    return b == 0 ? a : static_cast<T>(static_cast<__int128>(a) % b);
  });
  if constexpr (std::is_signed_v<T>) {
    check1<T>("neg" + t + ";", [](T a) { return static_cast<T>(0 - static_cast<u64>(a)); });
    check1<T>("abs" + t + ";", [](T a) {
      return static_cast<T>(a < 0 ? 0 - static_cast<u64>(a) : static_cast<u64>(a));
    });
  }
}

template <class T, class W>
void wide_arithmetic() {
  const std::string t = ".wide." + name_of<T>() + " d, a, b";
  using U = std::make_unsigned_t<W>;
  check2<T>("mul" + t + ";",
            [](T a, T b) { return static_cast<W>(static_cast<U>(a) * static_cast<U>(b)); });
  check3<T, T, W>("mad" + t + ", c;", [](T a, T b, W c) {
    return static_cast<W>(static_cast<U>(a) * static_cast<U>(b) + static_cast<U>(c));
  });
}

template <class T>
void shifts() {
  using U = std::make_unsigned_t<T>;
  constexpr u32 kBits = 8 * sizeof(T);
  check2<U, u32>("shl.b" + std::to_string(kBits) + " d, a, b;",
                 [](U a, u32 n) { return n < kBits ? static_cast<U>(a << n) : U{0}; });
  check2<U, u32>("shr.u" + std::to_string(kBits) + " d, a, b;",
                 [](U a, u32 n) { return n < kBits ? static_cast<U>(a >> n) : U{0}; });
  check2<T, u32>("shr.s" + std::to_string(kBits) + " d, a, b;",
                 [](T a, u32 n) { return static_cast<T>(a >> std::min(n, kBits - 1)); });
}

template <class T>
void logic() {
  const std::string t = "." + bits_of<T>() + " d, a";
  check2<T>("and" + t + ", b;", [](T a, T b) { return static_cast<T>(a & b); });
  check2<T>("or" + t + ", b;", [](T a, T b) { return static_cast<T>(a | b); });
  check2<T>("xor" + t + ", b;", [](T a, T b) { return static_cast<T>(a ^ b); });
  check1<T>("not" + t + ";", [](T a) { return static_cast<T>(~a); });
  check1<T>("cnot" + t + ";", [](T a) { return static_cast<T>(a == 0); });
}

// Bit by bit, as the PTX ISA words it.
template <class T>
T extracted(T a, u32 position, u32 length) {
  constexpr u32 kBits = 8 * sizeof(T);
  position &= 255, length &= 255;
  auto bit = [&](u32 k) -> u64 { return static_cast<u64>(a) >> std::min(k, kBits - 1) & 1; };
  const bool negative =
      std::is_signed_v<T> && length && bit(std::min(position + length - 1, kBits - 1));
  u64 result = 0;
  for (u32 k = 0; k < kBits; ++k) {
    const bool inside = k < length && position + k < kBits;
    result |= (inside ? bit(position + k) : negative) << k;
  }
  return static_cast<T>(result);
}
template <class T>
T inserted(T field, T base, u32 position, u32 length) {
  position &= 255, length &= 255;
  for (u32 k = 0; k < length && position + k < 8 * sizeof(T); ++k) {
    const T bit = T{1} << (position + k);
    base = field >> k & 1 ? base | bit : base & ~bit;
  }
  return base;
}

template <class T, class F>
void compare_with(const std::string& op, F f) {
  check2<T>("setp." + op + " p, a, b;\nselp.u32 d, 1, 0, p;",
            [=](T a, T b) { return static_cast<u32>(f(a, b)); });
}
template <class T>
void comparisons() {
  const std::string t = name_of<T>();
  compare_with<T>("eq." + t, [](T a, T b) { return a == b; });
  compare_with<T>("ne." + t, [](T a, T b) { return a != b; });
  compare_with<T>((std::is_signed_v<T> ? "lt." : "lo.") + t, [](T a, T b) { return a < b; });
  compare_with<T>((std::is_signed_v<T> ? "le." : "ls.") + t, [](T a, T b) { return a <= b; });
  compare_with<T>("gt." + t, [](T a, T b) { return a > b; });
  compare_with<T>("ge." + t, [](T a, T b) { return a >= b; });
}

}  // namespace

TEST_CASE("integer arithmetic of every type and corner", "[opcodes]") {
  integer_arithmetic<u16>();
  integer_arithmetic<i16>();
  integer_arithmetic<u32>();
  integer_arithmetic<i32>();
  integer_arithmetic<u64>();
  integer_arithmetic<i64>();
  wide_arithmetic<u16, u32>();
  wide_arithmetic<i16, i32>();
  wide_arithmetic<u32, u64>();
  wide_arithmetic<i32, i64>();
}

TEST_CASE("saturating, 24-bit and dot product arithmetic", "[opcodes]") {
  auto clamp = [](i64 v) { return static_cast<i32>(std::clamp<i64>(v, INT32_MIN, INT32_MAX)); };
  check2<i32>("add.sat.s32 d, a, b;", [=](i32 a, i32 b) { return clamp(i64{a} + b); });
  check2<i32>("sub.sat.s32 d, a, b;", [=](i32 a, i32 b) { return clamp(i64{a} - b); });
  auto low24 = [](i32 v) {
    return static_cast<i64>(static_cast<i32>(static_cast<u32>(v) << 8) >> 8);
  };
  check2<i32>("mul24.lo.s32 d, a, b;",
              [=](i32 a, i32 b) { return static_cast<i32>(low24(a) * low24(b)); });
  check2<i32>("mul24.hi.s32 d, a, b;",
              [=](i32 a, i32 b) { return static_cast<i32>(low24(a) * low24(b) >> 16); });
  check3<u32>("mad24.lo.u32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>(u64{a & 0xffffff} * (b & 0xffffff)) + c;
  });
  auto dot4 = [](auto part_a, auto part_b, u32 a, u32 b, u32 c) {
    using A = decltype(part_a);
    using B = decltype(part_b);
    for (int k = 0; k < 4; ++k)
      c += static_cast<u32>(static_cast<A>(a >> 8 * k) * static_cast<B>(b >> 8 * k));
    return c;
  };
  check3<u32>("dp4a.u32.u32 d, a, b, c;",
              [=](u32 a, u32 b, u32 c) { return dot4(u8{}, u8{}, a, b, c); });
  check3<u32>("dp4a.s32.s32 d, a, b, c;",
              [=](u32 a, u32 b, u32 c) { return dot4(i8{}, i8{}, a, b, c); });
  check3<u32>("dp4a.s32.u32 d, a, b, c;",
              [=](u32 a, u32 b, u32 c) { return dot4(i8{}, u8{}, a, b, c); });
  check3<u32>("dp2a.hi.s32.u32 d, a, b, c;", [](u32 a, u32 b, u32 c) {
    return c + static_cast<u32>(static_cast<i16>(a) * static_cast<u8>(b >> 16)) +
           static_cast<u32>(static_cast<i16>(a >> 16) * static_cast<u8>(b >> 24));
  });
}

TEST_CASE("carry chains", "[opcodes]") {
  // 128-bit sums and differences from 32- and 64-bit halves.
  check2<u64>(
      "add.cc.u32 x, 0xffffffff, 1;\n{.reg .b32 al, ah, bl, bh;\nmov.b64 {al, ah}, a;\nmov.b64 "
      "{bl, bh}, b;\n"
      "add.cc.u32 al, al, bl;\naddc.u32 ah, ah, bh;\nmov.b64 d, {al, ah};}",
      [](u64 a, u64 b) { return a + b; });
  check2<u64>(
      "{.reg .b32 al, ah, bl, bh;\nmov.b64 {al, ah}, a;\nmov.b64 {bl, bh}, b;\n"
      "sub.cc.u32 al, al, bl;\nsubc.u32 ah, ah, bh;\nmov.b64 d, {al, ah};}",
      [](u64 a, u64 b) { return a - b; });
  check2<u64>("add.cc.s64 u, a, b;\naddc.cc.s64 v, a, 0;\naddc.u64 d, 0, 0;", [](u64 a, u64 b) {
    const unsigned __int128 carry = (static_cast<unsigned __int128>(a) + b) >> 64;
    return static_cast<u64>((a + carry) >> 64);
  });
  check2<u64>("sub.cc.u64 u, a, b;\nsubc.u64 d, a, b;",
              [](u64 a, u64 b) { return a - b - (a < b); });
  // The 64-bit product of 32-bit numbers from its halves, with an addend.
  check3<u32, u32, u64>(
      "{.reg .b32 l, h, cl, ch;\nmov.b64 {cl, ch}, c;\nmad.lo.cc.u32 l, a, b, cl;\n"
      "madc.hi.u32 h, a, b, ch;\nmov.b64 d, {l, h};}",
      [](u32 a, u32 b, u64 c) { return u64{a} * b + c; });
  check3<u32>(
      "mad.lo.cc.u32 x, a, b, c;\nmadc.lo.cc.u32 x, a, b, c;\nmadc.hi.cc.u32 y, a, b, c;\naddc.u32 "
      "d, 0, 0;",
      [](u32 a, u32 b, u32 c) {
        const u64 low = static_cast<u32>(u64{a} * b), high = u64{a} * b >> 32;
        const u64 second = low + c + (low + c >> 32);
        return static_cast<u32>((high + c + (second >> 32)) >> 32);
      });
  check3<u32>("add.cc.u32 x, a, b;\naddc.cc.u32 y, b, c;\naddc.u32 d, a, c;",
              [](u32 a, u32 b, u32 c) {
                const u64 second = u64{b} + c + (u64{a} + b >> 32);
                return static_cast<u32>(a + c + (second >> 32));
              });
  check3<u32>("sub.cc.u32 x, a, b;\nsubc.cc.u32 y, b, c;\nsubc.u32 d, a, c;",
              [](u32 a, u32 b, u32 c) {
                const bool borrow = i64{b} - c - (a < b) < 0;
                return a - c - borrow;
              });
  check3<u32, u32, u32>("mad.hi.cc.u32 x, a, b, c;\naddc.u32 d, 0, 0;", [](u32 a, u32 b, u32 c) {
    return static_cast<u32>(((u64{a} * b >> 32) + c) >> 32);
  });
}

TEST_CASE("logic and shifts, also beyond the width", "[opcodes]") {
  logic<u16>();
  logic<u32>();
  logic<u64>();
  shifts<i16>();
  shifts<i32>();
  shifts<i64>();
  for (const char* table : {"0x80", "0x96", "0xe8", "0xca", "0x1b"}) {
    const u32 t = static_cast<u32>(std::strtoul(table, nullptr, 16));
    check3<u32>(std::string("lop3.b32 d, a, b, c, ") + table + ";", [=](u32 a, u32 b, u32 c) {
      u32 r = 0;
      for (int k = 0; k < 32; ++k)
        r |= (t >> ((a >> k & 1) * 4 + (b >> k & 1) * 2 + (c >> k & 1)) & 1) << k;
      return r;
    });
  }
  auto joined = [](u32 low, u32 high) { return u64{high} << 32 | low; };
  check3<u32>("shf.l.wrap.b32 d, a, b, c;", [=](u32 a, u32 b, u32 c) {
    return static_cast<u32>(joined(a, b) << (c & 31) >> 32);
  });
  check3<u32>("shf.r.wrap.b32 d, a, b, c;",
              [=](u32 a, u32 b, u32 c) { return static_cast<u32>(joined(a, b) >> (c & 31)); });
  check3<u32>("shf.l.clamp.b32 d, a, b, c;", [=](u32 a, u32 b, u32 c) {
    return static_cast<u32>(joined(a, b) << std::min(c, 32u) >> 32);
  });
  check3<u32>("shf.r.clamp.b32 d, a, b, c;", [=](u32 a, u32 b, u32 c) {
    return static_cast<u32>(joined(a, b) >> std::min(c, 32u));
  });
}

TEST_CASE("bit counting and fields", "[opcodes]") {
  check1<u32>("popc.b32 d, a;", [](u32 a) { return static_cast<u32>(std::popcount(a)); });
  check1<u64>("popc.b64 d, a;", [](u64 a) { return static_cast<u32>(std::popcount(a)); });
  check1<u32>("clz.b32 d, a;", [](u32 a) { return static_cast<u32>(std::countl_zero(a)); });
  check1<u64>("clz.b64 d, a;", [](u64 a) { return static_cast<u32>(std::countl_zero(a)); });
  check1<u32>("brev.b32 d, a;", [](u32 a) {
    u32 r = 0;
    for (int k = 0; k < 32; ++k) r |= (a >> k & 1) << (31 - k);
    return r;
  });
  check1<u64>("brev.b64 d, a;", [](u64 a) {
    u64 r = 0;
    for (int k = 0; k < 64; ++k) r |= (a >> k & 1) << (63 - k);
    return r;
  });
  check1<u32>("bfind.u32 d, a;",
              [](u32 a) { return a ? 31u - static_cast<u32>(std::countl_zero(a)) : ~0u; });
  check1<u32>("bfind.shiftamt.u32 d, a;",
              [](u32 a) { return a ? static_cast<u32>(std::countl_zero(a)) : ~0u; });
  check1<i64>("bfind.s64 d, a;", [](i64 a) {
    const u64 v = static_cast<u64>(a < 0 ? ~a : a);
    return v ? 63u - static_cast<u32>(std::countl_zero(v)) : ~0u;
  });
  check3<u32, u32, u32>("bfe.u32 d, a, b, c;",
                        [](u32 a, u32 b, u32 c) { return extracted(a, b, c); });
  check3<i32, u32, u32>("bfe.s32 d, a, b, c;",
                        [](i32 a, u32 b, u32 c) { return extracted(a, b, c); });
  check3<u64, u32, u32>("bfe.u64 d, a, b, c;",
                        [](u64 a, u32 b, u32 c) { return extracted(a, b, c); });
  check3<i64, u32, u32>("bfe.s64 d, a, b, c;",
                        [](i64 a, u32 b, u32 c) { return extracted(a, b, c); });
  check3<u32, u32, u32>("bfi.b32 d, a, 0x12345678, b, c;",
                        [](u32 a, u32 b, u32 c) { return inserted(a, 0x12345678u, b, c); });
  check3<u64, u32, u32>("bfi.b64 d, a, 0x123456789abcdef0, b, c;", [](u64 a, u32 b, u32 c) {
    return inserted(a, u64{0x123456789abcdef0}, b, c);
  });
  auto ones = [](u64 position, u64 length) {
    return static_cast<u32>(((1ull << std::min<u64>(length, 32)) - 1) << position);
  };
  check2<u32>("bmsk.clamp.b32 d, a, b;", [=](u32 a, u32 b) { return a > 31 ? 0 : ones(a, b); });
  check2<u32>("bmsk.wrap.b32 d, a, b;", [=](u32 a, u32 b) { return ones(a & 31, b & 31); });
}

TEST_CASE("prmt in all modes", "[opcodes]") {
  auto byte = [](u32 a, u32 b, u32 selector) -> u32 {
    const u32 v = static_cast<u32>((u64{b} << 32 | a) >> 8 * (selector & 7)) & 255;
    return selector & 8 ? (v & 128 ? 255 : 0) : v;
  };
  check3<u32>("prmt.b32 d, a, b, c;", [=](u32 a, u32 b, u32 c) {
    u32 r = 0;
    for (u32 k = 0; k < 4; ++k) r |= byte(a, b, c >> 4 * k & 15) << 8 * k;
    return r;
  });
  auto modes = [&](const char* mode, auto selector) {
    check3<u32>(std::string("prmt.b32.") + mode + " d, a, b, c;", [=](u32 a, u32 b, u32 c) {
      u32 r = 0;
      for (u32 k = 0; k < 4; ++k) r |= byte(a, b, selector(c & 3, k)) << 8 * k;
      return r;
    });
  };
  modes("f4e", [](u32 c, u32 k) { return c + k; });
  modes("b4e", [](u32 c, u32 k) { return (c - k) & 7; });
  modes("rc8", [](u32 c, u32) { return c; });
  modes("ecl", [](u32 c, u32 k) { return std::max(c, k); });
  modes("ecr", [](u32 c, u32 k) { return std::min(c, k); });
  modes("rc16", [](u32 c, u32 k) { return (c & 1) * 2 + (k & 1); });
}

TEST_CASE("comparison, selection and predicate logic", "[opcodes]") {
  comparisons<u16>();
  comparisons<i16>();
  comparisons<u32>();
  comparisons<i32>();
  comparisons<u64>();
  comparisons<i64>();
  check2<i32>("setp.lt.s32 q, a, 5;\nsetp.lt.and.s32 p, a, b, q;\nselp.u32 d, 1, 0, p;",
              [](i32 a, i32 b) { return static_cast<u32>(a < b && a < 5); });
  check2<i32>("setp.lt.s32 q, a, 5;\nsetp.ge.or.s32 p, a, b, !q;\nselp.u32 d, 1, 0, p;",
              [](i32 a, i32 b) { return static_cast<u32>(a >= b || a >= 5); });
  // The second result is the complement before it is combined.
  check2<i32>(
      "{.reg .pred r, s;\nsetp.ne.s32 q, b, 0;\nsetp.eq.xor.s32 r|s, a, b, q;\nselp.u32 x, 1, 0, "
      "r;\n"
      "selp.u32 y, 2, 0, s;\nor.b32 d, x, y;}",
      [](i32 a, i32 b) {
        return static_cast<u32>(((a == b) != (b != 0)) + 2 * ((a != b) != (b != 0)));
      });
  check2<u32>("setp.gt.u32 p, a, b;\n@p mov.u32 d, 7;\n@!p mov.u32 d, 9;",
              [](u32 a, u32 b) { return a > b ? 7u : 9u; });
  check2<u32>(
      "{.reg .pred r;\nsetp.gt.u32 p, a, 8;\nsetp.gt.u32 q, b, 8;\nand.pred r, p, q;\nxor.pred q, "
      "q, p;\nor.pred p, r, q;\n"
      "not.pred q, p;\nmov.pred r, q;\nselp.b32 d, 3, 4, r;}",
      [](u32 a, u32 b) { return a > 8 || b > 8 ? 4u : 3u; });
  check2<u64, i32>("slct.b64.s32 d, a, 17, b;", [](u64 a, i32 b) { return b >= 0 ? a : u64{17}; });
  check2<i32>("set.le.u32.s32 d, a, b;", [](i32 a, i32 b) { return a <= b ? ~0u : 0u; });
  check2<i32>("set.le.f32.s32 d, a, b;", [](i32 a, i32 b) { return a <= b ? 1.0f : 0.0f; });
  check2<u64>("setp.eq.u64 p, a, b;\nselp.b64 d, a, 5, p;",
              [](u64 a, u64 b) { return a == b ? a : 5; });
  check2<u16>("setp.lt.u16 p, a, b;\nselp.b16 d, a, b, p;",
              [](u16 a, u16 b) { return std::min(a, b); });
}

TEST_CASE("moving, packing and narrowing", "[opcodes]") {
  check1<u64>("{.reg .b32 l, h;\nmov.b64 {l, h}, a;\nmov.b64 d, {h, l};}",
              [](u64 a) { return a << 32 | a >> 32; });
  check1<u32>("{.reg .b16 l, h;\nmov.b32 {l, h}, a;\nmov.b32 d, {h, l};}",
              [](u32 a) { return a << 16 | a >> 16; });
  check1<u64>(
      "{.reg .b16 p0, p1, p2, p3;\nmov.b64 {p0, p1, p2, p3}, a;\nmov.b64 d, {p3, p2, p1, p0};}",
      [](u64 a) { return a << 48 | (a & 0xffff0000) << 16 | (a >> 16 & 0xffff0000) | a >> 48; });
  check1<u16>("mov.b32 d, {0, a};", [](u16 a) { return static_cast<u32>(a) << 16; });
  // A 16-bit register has no upper half, whatever was computed in it.
  check2<u16>("add.u16 a, a, b;\nmov.b32 d, {a, a};", [](u16 a, u16 b) {
    const u16 s = static_cast<u16>(a + b);
    return static_cast<u32>(s) << 16 | s;
  });
  check1<i16>("neg.s16 a, a;\nmov.b32 d, {a, 1};",
              [](i16 a) { return static_cast<u32>(static_cast<u16>(-a)) | 1u << 16; });
}
