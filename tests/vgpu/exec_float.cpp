// Arithmetic in single and double precision.
#include "exec_float_types.h"

#include "exec.h"

namespace vgpu {
namespace {

// Sets the rounding of SSE arithmetic. The compiler does not know: operands and results of what is
// to be rounded go through hold().
class RoundingScope {
 public:
  explicit RoundingScope(Rounding r) : before_(_mm_getcsr()) {
    const unsigned mode = r == Rounding::kZero   ? _MM_ROUND_TOWARD_ZERO
                          : r == Rounding::kDown ? _MM_ROUND_DOWN
                          : r == Rounding::kUp   ? _MM_ROUND_UP
                                                 : _MM_ROUND_NEAREST;
    _mm_setcsr((before_ & ~static_cast<unsigned>(_MM_ROUND_MASK)) | mode);
  }
  ~RoundingScope() { _mm_setcsr(before_); }
  RoundingScope(const RoundingScope&) = delete;

 private:
  unsigned before_;
};
template <class T>
T hold(T x) {
  asm volatile("" : "+x"(x));
  return x;
}

struct Add {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return canonical(a + b);
  }
};
struct Subtract {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return canonical(a - b);
  }
};
struct Multiply {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return canonical(a * b);
  }
};
struct Divide {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return canonical(a / b);
  }
};
// A product with an approximate reciprocal, which is 0 for a large divisor.
struct DivideApprox {
  static constexpr int kOperands = 2;
  static float apply(float a, float b) {
    return canonical(std::fabs(b) > 0x1p126f && std::fabs(b) < INFINITY ? a * 0.0f : a / b);
  }
};
struct Fma {
  static constexpr int kOperands = 3;
  template <class T>
  static T apply(T a, T b, T c) {
    return canonical(std::fma(a, b, c));
  }
};
template <bool kPropagate>
struct Min {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return minimum(a, b, kPropagate);
  }
};
template <bool kPropagate>
struct Max {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T a, T b) {
    return maximum(a, b, kPropagate);
  }
};
struct CopySign {
  static constexpr int kOperands = 2;
  template <class T>
  static T apply(T sign, T magnitude) {
    return std::copysign(magnitude, sign);
  }
};
struct Negate {
  static constexpr int kOperands = 1;
  template <class T>
  static T apply(T a) {
    return -a;
  }
};
struct Absolute {
  static constexpr int kOperands = 1;
  template <class T>
  static T apply(T a) {
    return std::fabs(a);
  }
};
struct Reciprocal {
  static constexpr int kOperands = 1;
  template <class T>
  static T apply(T a) {
    return canonical(1 / a);
  }
};
struct SquareRoot {
  static constexpr int kOperands = 1;
  template <class T>
  static T apply(T a) {
    return canonical(std::sqrt(a));
  }
};
struct ReciprocalRoot {
  static constexpr int kOperands = 1;
  static float apply(float a) {
    return canonical(static_cast<float>(1 / std::sqrt(static_cast<double>(a))));
  }
  static double apply(double a) { return 1 / std::sqrt(a); }
};
struct Exp2 {
  static constexpr int kOperands = 1;
  static float apply(float a) { return exp2_of(a); }
};
template <float (*kFunction)(float)>
struct Library {
  static constexpr int kOperands = 1;
  static constexpr bool kDear = true;
  static float apply(float a) { return canonical(kFunction(a)); }
};

template <class T, class Op>
void plain(Warp& w, const Instr& i, u32 mask) {
  if constexpr (requires { Op::kDear; }) {
    map_each_lane<T, T>(
        w, mask, [](T a) { return Op::apply(a); }, i.ops[0], i.ops[1]);
  } else if constexpr (Op::kOperands == 1) {
    map_lanes<T, T>(
        w, mask, [](T a) { return Op::apply(a); }, i.ops[0], i.ops[1]);
  } else if constexpr (Op::kOperands == 2) {
    map_lanes<T, T, T>(
        w, mask, [](T a, T b) { return Op::apply(a, b); }, i.ops[0], i.ops[1], i.ops[2]);
  } else {
    map_lanes<T, T, T, T>(
        w, mask, [](T a, T b, T c) { return Op::apply(a, b, c); }, i.ops[0], i.ops[1], i.ops[2],
        i.ops[3]);
  }
}

// With .ftz, .sat or a directed rounding.
template <class T, class Op>
void modified(Warp& w, const Instr& i, u32 mask) {
  const RoundingScope scope(i.rounding);
  auto operand = [&](u32 k, u32 l) {
    const T x = unpack<T>(lanes_of<T>(w, i.ops[k])[l]);
    return hold(i.ftz ? flushed(x) : x);
  };
  for_lanes(mask, [&](u32 l) {
    T r;
    if constexpr (Op::kOperands == 1) {
      r = Op::apply(operand(1, l));
    } else if constexpr (Op::kOperands == 2) {
      r = Op::apply(operand(1, l), operand(2, l));
    } else {
      r = Op::apply(operand(1, l), operand(2, l), operand(3, l));
    }
    r = hold(r);
    if (i.ftz) r = flushed(r);
    if (i.saturate) r = saturated(r);
    lanes_of<T>(w, i.ops[0])[l] = pack<T>(r);
  });
}

template <class T, class Op>
Execute variant(const Instr& i) {
  const bool directed = i.rounding != Rounding::kNone && i.rounding != Rounding::kNearest;
  return i.ftz || i.saturate || directed ? modified<T, Op> : plain<T, Op>;
}

template <class Op>
Execute both(const Instr& i) {
  return i.type == Type::kF32 ? variant<float, Op>(i) : variant<double, Op>(i);
}

template <class Op>
Execute single(const Instr& i) {
  return i.type == Type::kF32 ? variant<float, Op>(i) : nullptr;
}

Execute decode_function(const Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  const bool approximate = op.take("approx");
  if (o == "div") {
    return approximate ? single<DivideApprox>(i) : (op.take("full"), both<Divide>(i));
  }
  if (o == "rcp") return both<Reciprocal>(i);
  if (o == "sqrt") return both<SquareRoot>(i);
  if (o == "rsqrt") return both<ReciprocalRoot>(i);
  if (o == "ex2") return single<Exp2>(i);
  if (o == "lg2") return single<Library<std::log2>>(i);
  if (o == "sin") return single<Library<std::sin>>(i);
  if (o == "cos") return single<Library<std::cos>>(i);
  return single<Library<std::tanh>>(i);
}

Execute decode_extremum(const Instr& i, Opcode& op) {
  const bool propagate = op.take("NaN");
  if (op.base() == "min") return propagate ? both<Min<true>>(i) : both<Min<false>>(i);
  return propagate ? both<Max<true>>(i) : both<Max<false>>(i);
}

}  // namespace

Execute decode_float(Instr& i, Opcode& op) {
  const Type t = op.peek_type();
  if (t != Type::kF32 && t != Type::kF64) return nullptr;
  const std::string_view o = op.base();
  static constexpr std::string_view kNames[] = {
      "add", "sub", "mul",  "fma",   "mad", "min", "max", "neg", "abs", "copysign",
      "div", "rcp", "sqrt", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"};
  if (std::find(std::begin(kNames), std::end(kNames), o) == std::end(kNames)) return nullptr;
  i.type = op.take_type();
  i.ftz = op.take("ftz");
  i.saturate = op.take("sat");
  i.rounding = op.take_rounding();
  if (o == "add") return both<Add>(i);
  if (o == "sub") return both<Subtract>(i);
  if (o == "mul") return both<Multiply>(i);
  if (o == "fma" || o == "mad") return both<Fma>(i);
  if (o == "min" || o == "max") return decode_extremum(i, op);
  if (o == "neg") return both<Negate>(i);
  if (o == "abs") return both<Absolute>(i);
  if (o == "copysign") return both<CopySign>(i);
  return decode_function(i, op);
}

}  // namespace vgpu
