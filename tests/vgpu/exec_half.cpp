// Arithmetic on 16-bit floats, alone or in pairs: computed in single precision, whose rounding
// cannot change what the second rounding gives (24 >= 2 * 11 + 2 bits), and fma rounded to odd
// first.
#include "exec_float_types.h"

#include "exec.h"

namespace vgpu {
namespace {

enum HalfOp : u8 { kAdd, kSub, kMul, kFma, kMin, kMax, kNeg, kAbs, kExp2, kTanh };

template <HalfOp kOp>
float compute(float a, float b, float c, bool propagate) {
  switch (kOp) {
    case kAdd: return a + b;
    case kSub: return a - b;
    case kMul: return a * b;
    case kFma: return fma_to_odd(a, b, c);
    case kMin: return minimum(a, b, propagate);
    case kMax: return maximum(a, b, propagate);
    case kExp2: return exp2_of(a);
    case kTanh: return std::tanh(a);
    default: return a;
  }
}

// Negation and absolute value keep the bits of a NaN.
template <class H, HalfOp kOp>
u16 element(u16 a, u16 b, u16 c, const Instr& i) {
  if (kOp == kNeg) return a ^ 0x8000;
  if (kOp == kAbs) return a & 0x7fff;
  auto value = [&](u16 bits) {
    const float x = to_float(H{bits});
    return i.ftz && (bits & 0x7fff) < 0x0400 ? std::copysign(0.0f, x) : x;
  };
  float r = compute<kOp>(value(a), value(b), value(c), i.flag);
  if (i.saturate) r = saturated(r);
  if (i.mode) r = r > 0 ? r : r != r ? r : 0;  // .relu
  H h;
  round_to(h, r);
  if (i.ftz && (h.bits & 0x7fff) < 0x0400) h.bits &= 0x8000;
  return h.bits;
}

template <class H, HalfOp kOp, u32 kCount>
void execute(Warp& w, const Instr& i, u32 mask) {
  constexpr u32 kOperands = kOp == kFma ? 3 : kOp <= kMax ? 2 : 1;
  auto apply = [&](u32 a, u32 b, u32 c) {
    u32 result = 0;
    for (u32 e = 0; e < kCount; ++e) {
      result |= static_cast<u32>(element<H, kOp>(static_cast<u16>(a >> (16 * e)),
                                                 static_cast<u16>(b >> (16 * e)),
                                                 static_cast<u16>(c >> (16 * e)), i))
                << (16 * e);
    }
    return result;
  };
  const Operand &a = i.ops[1], &b = kOperands > 1 ? i.ops[2] : a, &c = kOperands > 2 ? i.ops[3] : a;
  map_each_lane<u32, u32, u32, u32>(w, mask, apply, i.ops[0], a, b, c);
}

template <HalfOp kOp>
Execute of_type(Type t) {
  switch (t) {
    case Type::kF16: return execute<Half, kOp, 1>;
    case Type::kF16x2: return execute<Half, kOp, 2>;
    case Type::kBF16: return execute<Bfloat, kOp, 1>;
    case Type::kBF16x2: return execute<Bfloat, kOp, 2>;
    default: return nullptr;
  }
}

}  // namespace

Execute decode_half(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  static constexpr std::string_view kNames[] = {"add", "sub", "mul", "fma", "min",
                                                "max", "neg", "abs", "ex2", "tanh"};
  const auto name = std::find(std::begin(kNames), std::end(kNames), o);
  if (!is_half(op.peek_type()) || name == std::end(kNames)) return nullptr;
  const Type t = op.take_type();
  op.take("rn");
  op.take("approx");
  const bool bfloat = t == Type::kBF16 || t == Type::kBF16x2;
  // For bf16 only ex2 has .ftz, and flushes what is subnormal in single precision, which bf16
  // shares.
  i.ftz = bfloat ? false : op.take("ftz");
  if (bfloat && o == "ex2") op.take("ftz");
  i.saturate = op.take("sat");
  i.mode = op.take("relu");
  i.flag = op.take("NaN");
  switch (static_cast<HalfOp>(name - std::begin(kNames))) {
    case kAdd: return of_type<kAdd>(t);
    case kSub: return of_type<kSub>(t);
    case kMul: return of_type<kMul>(t);
    case kFma: return of_type<kFma>(t);
    case kMin: return of_type<kMin>(t);
    case kMax: return of_type<kMax>(t);
    case kNeg: return of_type<kNeg>(t);
    case kAbs: return of_type<kAbs>(t);
    case kExp2: return of_type<kExp2>(t);
    case kTanh: return of_type<kTanh>(t);
  }
  return nullptr;
}

}  // namespace vgpu
