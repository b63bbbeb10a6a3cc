// Floating-point arithmetic and conversions against the host.
#include <cfenv>

#include "exec_float_types.h"
#include "test_ptx.h"

using namespace vgpu;
using namespace vgpu::test;

namespace {

struct Mode {
  const char* name;
  int rounding;
};
constexpr Mode kModes[] = {
    {"rn", FE_TONEAREST}, {"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};

// A value that the compiler cannot compute with before it is used.
template <class T>
T held(T x) {
  volatile T v = x;
  return v;
}

// f() with the processor's rounding set; its operands must be held().
template <class F>
auto rounded(int mode, F f) {
  const int before = std::fegetround();
  std::fesetround(mode);
  volatile auto result = f();
  std::fesetround(before);
  return static_cast<decltype(f())>(result);
}

template <class T>
void arithmetic(const std::string& type) {
  for (const Mode& m : kModes) {
    const std::string t = "." + std::string(m.name) + "." + type + " d, a";
    const int mode = m.rounding;
    check2<T>("add" + t + ", b;",
              [=](T a, T b) { return rounded(mode, [&]() -> T { return held(a) + held(b); }); });
    check2<T>("sub" + t + ", b;",
              [=](T a, T b) { return rounded(mode, [&]() -> T { return held(a) - held(b); }); });
    check2<T>("mul" + t + ", b;",
              [=](T a, T b) { return rounded(mode, [&]() -> T { return held(a) * held(b); }); });
    check2<T>("div" + t + ", b;",
              [=](T a, T b) { return rounded(mode, [&]() -> T { return held(a) / held(b); }); });
    check3<T>("fma" + t + ", b, c;", [=](T a, T b, T c) {
      return rounded(mode, [&]() -> T { return std::fma(held(a), held(b), held(c)); });
    });
    check1<T>("sqrt" + t + ";",
              [=](T a) { return rounded(mode, [&]() -> T { return std::sqrt(held(a)); }); });
    check1<T>("rcp" + t + ";",
              [=](T a) { return rounded(mode, [&]() -> T { return 1 / held(a); }); });
  }
  auto smaller = [](T a, T b) {
    return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
  };
  auto larger = [](T a, T b) {
    return a != a ? b : b != b ? a : a == b ? (std::signbit(a) ? b : a) : std::max(a, b);
  };
  check2<T>("min." + type + " d, a, b;", smaller);
  check2<T>("max." + type + " d, a, b;", larger);
  check1<T>("neg." + type + " d, a;", [](T a) { return -a; });
  check1<T>("abs." + type + " d, a;", [](T a) { return std::fabs(a); });
  check2<T>("copysign." + type + " d, a, b;", [](T a, T b) { return std::copysign(b, a); });
}

template <class T>
void comparisons(const std::string& type) {
  auto with = [&](const char* op, auto f) {
    check2<T>("setp." + std::string(op) + "." + type + " p, a, b;\nselp.u32 d, 1, 0, p;",
              [=](T a, T b) { return static_cast<u32>(f(a, b)); });
  };
  auto nan = [](T a, T b) { return std::isnan(a) || std::isnan(b); };
  with("eq", [](T a, T b) { return a == b; });
  with("ne", [=](T a, T b) { return a != b && !nan(a, b); });
  with("lt", [](T a, T b) { return a < b; });
  with("le", [](T a, T b) { return a <= b; });
  with("gt", [](T a, T b) { return a > b; });
  with("ge", [](T a, T b) { return a >= b; });
  with("equ", [=](T a, T b) { return a == b || nan(a, b); });
  with("neu", [](T a, T b) { return a != b; });
  with("ltu", [=](T a, T b) { return a < b || nan(a, b); });
  with("leu", [=](T a, T b) { return a <= b || nan(a, b); });
  with("gtu", [=](T a, T b) { return a > b || nan(a, b); });
  with("geu", [=](T a, T b) { return a >= b || nan(a, b); });
  with("num", [=](T a, T b) { return !nan(a, b); });
  with("nan", nan);
}

using Quad = __float128;

// The 16-bit float nearest to x, ties to even, by comparing the neighbours.
template <class H>
u16 nearest(Quad x, bool is_nan) {
  if (is_nan) return kCanonicalHalfNan;
  constexpr u16 kInfinity = std::is_same_v<H, Half> ? 0x7c00 : 0x7f80;
  const Quad limit =
      std::is_same_v<H, Half> ? Quad(65536) : Quad(0x1p127) * 2;  // next value, were there one
  auto value = [&](u32 bits) {
    return bits >= kInfinity ? limit : Quad(to_float(H{static_cast<u16>(bits)}));
  };
  const Quad magnitude = x < 0 ? -x : x;
  u32 low = 0, high = kInfinity;
  while (high - low > 1) {
    const u32 middle = (low + high) / 2;
    (value(middle) <= magnitude ? low : high) = middle;
  }
  const Quad below = magnitude - value(low), above = value(high) - magnitude;
  const u32 bits = below < above || (below == above && low % 2 == 0) ? low : high;
  return static_cast<u16>(bits | (x < 0 ? 0x8000 : 0));
}

template <class H>
std::vector<u16> half_corners() {
  std::vector<u16> v = {0,      0x8000, 1,      0x8001, 0x3ff,  0x400,  0x7f,   0x80,
                        0x3c00, 0xbc00, 0x3f80, 0xbf80, 0x7bff, 0xfbff, 0x7f7f, 0xff7f,
                        0x7c00, 0xfc00, 0x7f80, 0xff80, 0x7fff, 0x3555, 0x4248, 0x5640};
  std::mt19937 random(3);
  for (int k = 0; k < 20; ++k) v.push_back(static_cast<u16>(random()));
  return v;
}

// -0 where the sum is an exact zero depends on signs only: the float result has it right.
template <class H>
u16 reference(Quad exact, float approximate) {
  if (approximate != approximate || std::isinf(approximate) || exact == 0) {
    H h;
    round_to(h, approximate);
    if (exact != 0 || approximate != approximate) return h.bits;
    return std::signbit(approximate) ? 0x8000 : 0;
  }
  return nearest<H>(exact, false);
}

template <class H>
void half_arithmetic(const std::string& type) {
  auto f = [](u16 bits) { return to_float(H{bits}); };
  auto q = [](u16 bits) { return Quad(to_float(H{bits})); };
  const auto [a, b] = pairs(half_corners<H>(), half_corners<H>());
  std::vector<u16> c;
  for (size_t k = 0; k < a.size(); ++k) c.push_back(a[(k * 13 + 5) % a.size()]);
  auto finite = [=](u16 x) { return std::isfinite(f(x)); };
  check<u16>(
      "add." + type + " d, a, b;",
      [=](u16 x, u16 y) {
        return finite(x) && finite(y) ? reference<H>(q(x) + q(y), f(x) + f(y))
                                      : reference<H>(1, f(x) + f(y));
      },
      a, b);
  check<u16>(
      "mul." + type + " d, a, b;",
      [=](u16 x, u16 y) -> u16 {
        const float product = f(x) * f(y);
        if (!finite(x) || !finite(y)) return reference<H>(1, product);
        const Quad exact = q(x) * q(y);
        return exact == 0 ? reference<H>(0, product)
                          : nearest<H>(exact, false) | (std::signbit(product) ? 0x8000 : 0);
      },
      a, b);
  check<u16>(
      "fma.rn." + type + " d, a, b, c;",
      [=](u16 x, u16 y, u16 z) -> u16 {
        const double sum = std::fma(static_cast<double>(f(x)), static_cast<double>(f(y)),
                                    static_cast<double>(f(z)));
        if (!finite(x) || !finite(y) || !finite(z)) return reference<H>(1, static_cast<float>(sum));
        const Quad product = q(x) * q(y);
        Quad exact = product + q(z);
        // An addend too small for 113 bits still decides ties.
        if (exact == product && z & 0x7fff)
          exact += product * Quad(((x ^ y ^ z) & 0x8000) ? -1e-30 : 1e-30);
        if (exact == 0) return std::signbit(sum) ? 0x8000 : 0;
        return static_cast<u16>(nearest<H>(exact, false) | (std::signbit(sum) ? 0x8000 : 0));
      },
      a, b, c);
  check<u16>(
      "neg." + type + " d, a;", [](u16 x) { return static_cast<u16>(x ^ 0x8000); },
      half_corners<H>());
  check<u16>(
      "abs." + type + " d, a;", [](u16 x) { return static_cast<u16>(x & 0x7fff); },
      half_corners<H>());
  check<u16>(
      "max." + type + " d, a, b;",
      [=](u16 x, u16 y) {
        H h;
        round_to(h, maximum(f(x), f(y)));
        return h.bits;
      },
      a, b);
  check<u32>(
      "setp.lt." + type + " p, a, b;\nselp.u32 d, 1, 0, p;",
      [=](u16 x, u16 y) { return static_cast<u32>(f(x) < f(y)); }, a, b);
}

void near(const std::string& body, double tolerance, double (*f)(double)) {
  std::vector<float> a;
  for (int k = 1; k < 512; ++k) a.push_back(static_cast<float>(k) * 0.01172f);
  pad(a);
  const std::vector<float> got = run<float>(body, false, a);
  for (size_t k = 0; k < a.size(); ++k) {
    INFO(body << " of " << a[k]);
    REQUIRE(std::fabs(got[k] - f(a[k])) <= tolerance * std::max(1.0, std::fabs(f(a[k]))));
  }
}

// To an integer type with a rounding mode, clamped.
template <class D, class S>
D integer_from(S x, int mode) {
  constexpr bool kBig = sizeof(D) == 8 || sizeof(S) == 8;
  if (x != x) return kBig ? static_cast<D>(u64{1} << (8 * sizeof(D) - 1)) : D{0};
  const S r = mode == FE_TONEAREST    ? std::nearbyint(x)
              : mode == FE_TOWARDZERO ? std::trunc(x)
              : mode == FE_DOWNWARD   ? std::floor(x)
                                      : std::ceil(x);
  const Quad exact = r;
  if (exact <= Quad(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
  if (exact >= Quad(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
  return static_cast<D>(r);
}

template <class D, class S>
void to_integer(const std::string& types) {
  for (const Mode& m : kModes) {
    check1<S>("cvt." + std::string(m.name) + "i." + types + " d, a;",
              [mode = m.rounding](S a) { return integer_from<D>(a, mode); });
  }
}

template <class D, class S>
void from_number(const std::string& types) {
  for (const Mode& m : kModes) {
    check1<S>("cvt." + std::string(m.name) + "." + types + " d, a;", [mode = m.rounding](S a) {
      return rounded(mode, [&]() -> D { return static_cast<D>(held(a)); });
    });
  }
}

}  // namespace

TEST_CASE("float arithmetic in every rounding", "[opcodes]") {
  arithmetic<float>("f32");
  arithmetic<double>("f64");
  check2<float>("add.f32 d, a, b;", [](float a, float b) { return a + b; });
  check3<float>("mad.rn.f32 d, a, b, c;",
                [](float a, float b, float c) { return std::fma(a, b, c); });
}

TEST_CASE("NaN results are canonical", "[opcodes]") {
  const std::vector<u32> nans(64, 0xffc12345);
  for (const char* body :
       {"add.f32 d, a, a;", "mul.f32 d, a, a;", "fma.rn.f32 d, a, a, a;", "max.f32 d, a, a;"}) {
    CHECK(run<u32>(body, false, nans) == std::vector<u32>(64, 0x7fffffff));
  }
  check2<float>("min.NaN.f32 d, a, b;", [](float a, float b) {
    return std::isnan(a) || std::isnan(b) ? NAN : minimum(a, b);
  });
}

TEST_CASE("flushing and saturation", "[opcodes]") {
  auto flush = [](float x) {
    return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
  };
  auto saturate = [](float x) { return x > 0 ? std::min(x, 1.0f) : 0.0f; };
  check2<float>("add.ftz.f32 d, a, b;",
                [=](float a, float b) { return flush(flush(a) + flush(b)); });
  check2<float>("mul.ftz.f32 d, a, b;",
                [=](float a, float b) { return flush(flush(a) * flush(b)); });
  check2<float>("add.sat.f32 d, a, b;", [=](float a, float b) { return saturate(a + b); });
  check3<float>("fma.rn.ftz.sat.f32 d, a, b, c;", [=](float a, float b, float c) {
    return saturate(flush(std::fma(flush(a), flush(b), flush(c))));
  });
  check1<float>("cvt.sat.f32.f32 d, a;", saturate);
  check1<float>("cvt.ftz.f32.f32 d, a;", flush);
  check2<float>("setp.lt.ftz.f32 p, a, b;\nselp.u32 d, 1, 0, p;",
                [=](float a, float b) { return static_cast<u32>(flush(a) < flush(b)); });
}

TEST_CASE("float comparisons and classes", "[opcodes]") {
  comparisons<float>("f32");
  comparisons<double>("f64");
  check1<float>("testp.finite.f32 p, a;\nselp.u32 d, 1, 0, p;",
                [](float a) { return static_cast<u32>(std::isfinite(a)); });
  check1<double>("testp.subnormal.f64 p, a;\nselp.u32 d, 1, 0, p;",
                 [](double a) { return static_cast<u32>(std::fpclassify(a) == FP_SUBNORMAL); });
  check2<float, float>("set.gt.f32.f32 d, a, b;",
                       [](float a, float b) { return a > b ? 1.0f : 0.0f; });
  check2<float, float>("slct.b32.f32 d, 5, 6, a;", [](float a, float) { return a >= 0 ? 5u : 6u; });
}

TEST_CASE("approximate functions", "[opcodes]") {
  near("ex2.approx.f32 d, a;", 2e-7, [](double x) { return std::exp2(x); });
  near("ex2.approx.ftz.f32 d, a;", 2e-7, [](double x) { return std::exp2(x); });
  near("lg2.approx.f32 d, a;", 2e-7, [](double x) { return std::log2(x); });
  near("rcp.approx.f32 d, a;", 2e-7, [](double x) { return 1 / x; });
  near("rcp.approx.ftz.f32 d, a;", 2e-7, [](double x) { return 1 / x; });
  near("sqrt.approx.f32 d, a;", 2e-7, [](double x) { return std::sqrt(x); });
  near("rsqrt.approx.f32 d, a;", 2e-7, [](double x) { return 1 / std::sqrt(x); });
  near("sin.approx.f32 d, a;", 2e-7, [](double x) { return std::sin(x); });
  near("cos.approx.ftz.f32 d, a;", 2e-7, [](double x) { return std::cos(x); });
  near("tanh.approx.f32 d, a;", 2e-7, [](double x) { return std::tanh(x); });
  const auto third = run<double>("rcp.approx.ftz.f64 d, a;", false, std::vector<double>(64, 3.0));
  CHECK(std::fabs(third[0] - 1.0 / 3) < 1e-6);
  near("div.full.f32 d, a, 0f40400000;", 2e-7, [](double x) { return x / 3; });
  check1<float>("ex2.approx.f32 d, a;", [](float a) {
    return std::isnan(a) ? NAN : static_cast<float>(std::exp2(static_cast<double>(a)));
  });
  check2<float>("div.approx.f32 d, a, b;", [](float a, float b) {
    return std::fabs(b) > 0x1p126f && std::isfinite(b) ? a * 0 : a / b;
  });
}

TEST_CASE("16-bit floats, rounded once", "[opcodes]") {
  half_arithmetic<Half>("f16");
  half_arithmetic<Bfloat>("bf16");
  // Ties that a second rounding would decide wrongly: 1.0078125 * 1.0078125 + 2^-100 and - 2^-100.
  const auto twice = [](u16 x) { return std::vector<u16>(64, x); };
  CHECK(run<u16>("fma.rn.bf16 d, a, b, c;", false, twice(0x3fc0), twice(0x3f81),
                 twice(0x0d80))[0] == 0x3fc2);
  CHECK(run<u16>("fma.rn.bf16 d, a, b, c;", false, twice(0x3fc0), twice(0x3f81),
                 twice(0x8d80))[0] == 0x3fc1);
  check2<u32>("add.bf16x2 d, a, b;", [](u32 a, u32 b) {
    auto one = [](u32 x, u32 y) -> u32 {
      Bfloat r;
      round_to(r, to_float(Bfloat{static_cast<u16>(x)}) + to_float(Bfloat{static_cast<u16>(y)}));
      return r.bits;
    };
    return one(a, b) | one(a >> 16, b >> 16) << 16;
  });
  check2<u32>("fma.rn.relu.f16x2 d, a, b, 0;", [](u32 a, u32 b) {
    auto one = [](u32 x, u32 y) -> u32 {
      const float v =
          to_float(Half{static_cast<u16>(x)}) * to_float(Half{static_cast<u16>(y)}) + 0.0f;
      Half r;
      round_to(r, v > 0 || v != v ? v : 0.0f);
      return r.bits;
    };
    return one(a, b) | one(a >> 16, b >> 16) << 16;
  });
}

TEST_CASE("floats to integers", "[opcodes]") {
  to_integer<i32, float>("s32.f32");
  to_integer<u32, float>("u32.f32");
  to_integer<i64, float>("s64.f32");
  to_integer<u64, float>("u64.f32");
  to_integer<i16, float>("s16.f32");
  to_integer<u16, float>("u16.f32");
  to_integer<i32, double>("s32.f64");
  to_integer<u32, double>("u32.f64");
  to_integer<i64, double>("s64.f64");
  to_integer<u64, double>("u64.f64");
  check1<float>("cvt.rzi.u8.f32 d, a;",
                [](float a) { return static_cast<u32>(integer_from<u8>(a, FE_TOWARDZERO)); });
  check1<float>("cvt.rzi.s8.f32 d, a;",
                [](float a) { return static_cast<u32>(integer_from<i8>(a, FE_TOWARDZERO)); });
  check1<u16>("cvt.rni.s32.f16 d, a;",
              [](u16 a) { return integer_from<i32>(to_float(Half{a}), FE_TONEAREST); });
}

TEST_CASE("integers and floats to floats", "[opcodes]") {
  from_number<float, i32>("f32.s32");
  from_number<float, u32>("f32.u32");
  from_number<float, i64>("f32.s64");
  from_number<float, u64>("f32.u64");
  from_number<double, i64>("f64.s64");
  from_number<double, u64>("f64.u64");
  from_number<float, double>("f32.f64");
  from_number<float, i16>("f32.s16");
  check1<i32>("cvt.rn.f64.s32 d, a;", [](i32 a) { return static_cast<double>(a); });
  check1<float>("cvt.f64.f32 d, a;", [](float a) { return static_cast<double>(a); });
  for (const Mode& m : kModes) {
    check1<float>("cvt." + std::string(m.name) + "i.f32.f32 d, a;", [mode = m.rounding](float a) {
      return rounded(mode, [&]() -> float { return std::nearbyint(held(a)); });
    });
  }
  check1<double>("cvt.rmi.f64.f64 d, a;", [](double a) { return std::floor(a); });
}

TEST_CASE("conversions to and from 16-bit floats", "[opcodes]") {
  check<float>(
      "cvt.f32.f16 d, a;", [](u16 a) { return to_float(Half{a}); }, half_corners<Half>());
  check<float>(
      "cvt.f32.bf16 d, a;", [](u16 a) { return to_float(Bfloat{a}); }, half_corners<Bfloat>());
  std::vector<float> x = corners<float>();
  for (u32 k = 0; k < 64; ++k)
    x.push_back(std::bit_cast<float>(0x3f800000 + 0x1000 * k));  // ties of all formats
  auto to_half = [](float a) { return nearest<Half>(a, false); };
  auto whole = [](auto round) {
    return [=](float a) -> u16 {
      if (std::isinf(a)) return std::signbit(a) ? 0xff80 : 0x7f80;
      return std::isnan(a) ? 0x7fff
             : a == 0      ? (std::signbit(a) ? 0x8000 : 0)
                           : static_cast<u16>(round(a));
    };
  };
  check<u16>(
      "cvt.rn.bf16.f32 d, a;",
      whole([](float a) { return nearest<Bfloat>(a, false) | (std::signbit(a) ? 0x8000 : 0); }), x);
  check<u16>("cvt.rz.bf16.f32 d, a;", whole([](float a) { return std::bit_cast<u32>(a) >> 16; }),
             x);
  check<u16>(
      "cvt.rn.f16.f32 d, a;",
      [=](float a) -> u16 {
        if (std::isnan(a)) return 0x7fff;
        const u16 sign = std::signbit(a) ? 0x8000 : 0;
        return std::isinf(a) || std::fabs(a) >= 65520 ? sign | 0x7c00
                                                      : static_cast<u16>(to_half(a) | sign);
      },
      x);
  // The upper half comes first.
  check<u32>(
      "cvt.rn.bf16x2.f32 d, a, 0f40490FDB;",
      [=](float a) -> u32 {
        Bfloat h;
        round_to(h, a);
        return static_cast<u32>(h.bits) << 16 | 0x4049;
      },
      x);
  check<u32>(
      "cvt.rna.tf32.f32 d, a;",
      [](float a) {
        const u32 bits = std::bit_cast<u32>(a);
        return !std::isfinite(a) ? bits : (bits + 0x1000) & ~0x1fffu;
      },
      x);
  check<u16>(
      "cvt.rn.f16.f64 d, a;",
      [](double a) -> u16 {
        if (std::isnan(a)) return 0x7fff;
        const u16 sign = std::signbit(a) ? 0x8000 : 0;
        return std::fabs(a) >= 65520 ? sign | 0x7c00
                                     : static_cast<u16>(nearest<Half>(a, false) | sign);
      },
      corners<double>());
  check1<i32>("cvt.rn.bf16.s32 d, a;", [](i32 a) { return nearest<Bfloat>(a, false); });
  check1<i64>("cvt.rn.bf16.s64 d, a;", [](i64 a) { return nearest<Bfloat>(a, false); });
}

TEST_CASE("integers to integers", "[opcodes]") {
  check1<u64>("cvt.u32.u64 d, a;", [](u64 a) { return static_cast<u32>(a); });
  check1<i32>("cvt.s64.s32 d, a;", [](i32 a) { return static_cast<i64>(a); });
  check1<u32>("cvt.u64.u32 d, a;", [](u32 a) { return static_cast<u64>(a); });
  check1<u16>("cvt.u32.u16 d, a;", [](u16 a) { return static_cast<u32>(a); });
  check1<i16>("cvt.s32.s16 d, a;", [](i16 a) { return static_cast<i32>(a); });
  check1<u32>("cvt.s32.s8 d, a;", [](u32 a) { return static_cast<i32>(static_cast<i8>(a)); });
  check1<u32>("cvt.u16.u32 d, a;", [](u32 a) { return static_cast<u16>(a); });
  check1<u32>("cvt.s8.s32 d, a;", [](u32 a) { return static_cast<u32>(static_cast<i8>(a)); });
  check1<i32>("cvt.sat.u8.s32 d, a;",
              [](i32 a) { return static_cast<u32>(std::clamp(a, 0, 255)); });
  check1<i32>("cvt.sat.s16.s32 d, a;",
              [](i32 a) { return static_cast<i16>(std::clamp(a, -32768, 32767)); });
  check1<i64>("cvt.sat.u32.s64 d, a;",
              [](i64 a) { return static_cast<u32>(std::clamp<i64>(a, 0, 0xffffffff)); });
  check1<u64>("cvt.sat.s32.u64 d, a;",
              [](u64 a) { return static_cast<i32>(std::min<u64>(a, INT32_MAX)); });
  // Registers wider than the types.
  check1<u64>("cvt.s64.s32 d, a;", [](u64 a) { return static_cast<i64>(static_cast<i32>(a)); });
  check1<u64>("cvt.rn.f32.s32 d, a;",
              [](u64 a) { return static_cast<float>(static_cast<i32>(a)); });
  check1<u64>("cvt.s32.s8 x, a;\ncvt.s64.s8 d, a;",
              [](u64 a) { return static_cast<i64>(static_cast<i8>(a)); });
  check1<u32>("cvt.s16.s32 u, a;\ncvt.u64.u16 v, a;\nadd.u64 d, u, v;", [](u32 a) {
    return static_cast<u64>(static_cast<i64>(static_cast<i16>(a))) + static_cast<u16>(a);
  });
}
