// Finds the function that executes an instruction.
#include "exec.h"
#include "vgpu.h"

namespace vgpu {

Opcode::Opcode(std::string_view text) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    parts_.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  taken_.resize(parts_.size());
  taken_[0] = true;
}

bool Opcode::has(std::string_view modifier) const {
  return std::find(parts_.begin() + 1, parts_.end(), modifier) != parts_.end();
}

bool Opcode::take(std::string_view modifier) {
  for (size_t p = 1; p < parts_.size(); ++p) {
    if (taken_[p] || parts_[p] != modifier) continue;
    taken_[p] = true;
    return true;
  }
  return false;
}

int Opcode::take_one_of(std::initializer_list<std::string_view> modifiers) {
  int index = 0;
  for (const std::string_view m : modifiers) {
    if (take(m)) return index;
    ++index;
  }
  return -1;
}

Type Opcode::peek_type(u32 k) const {
  for (size_t p = parts_.size(); p-- > 1;) {
    const Type t = type_named(parts_[p]);
    if (t != Type::kNone && k-- == 0) return t;
  }
  return Type::kNone;
}

Type Opcode::take_type() {
  for (size_t p = parts_.size(); p-- > 1;) {
    const Type t = type_named(parts_[p]);
    if (t == Type::kNone || taken_[p]) continue;
    taken_[p] = true;
    return t;
  }
  return Type::kNone;
}

Rounding Opcode::take_rounding() {
  if (take("rn") || take("rni")) return Rounding::kNearest;
  if (take("rz") || take("rzi")) return Rounding::kZero;
  if (take("rm") || take("rmi")) return Rounding::kDown;
  if (take("rp") || take("rpi")) return Rounding::kUp;
  if (take("rna")) return Rounding::kNearestAway;
  return Rounding::kNone;
}

StateSpace Opcode::take_space() {
  if (take("global")) return StateSpace::kGlobal;
  if (take("shared") || take("shared::cta")) return StateSpace::kShared;
  if (take("local")) return StateSpace::kLocal;
  if (take("param") || take("param::entry") || take("param::func")) return StateSpace::kParam;
  if (take("const")) return StateSpace::kConst;
  return StateSpace::kGeneric;
}

std::string_view Opcode::untaken() const {
  const auto it = std::find(taken_.begin(), taken_.end(), false);
  return it == taken_.end() ? std::string_view() : parts_[static_cast<size_t>(it - taken_.begin())];
}

namespace {

void unknown_opcode(Warp&, const Instr& i, u32) {
  fault("the PTX engine does not implement '%s'", std::string(i.text).c_str());
}

using Decoder = Execute (*)(Instr&, Opcode&);
constexpr Decoder kDecoders[] = {decode_half,    decode_float,   decode_arithmetic, decode_bits,
                                 decode_compare, decode_convert, decode_move,       decode_memory,
                                 decode_atomic,  decode_async,   decode_warp,       decode_matrix,
                                 decode_control};

void unknown_modifier(Warp&, const Instr& i, u32) {
  for (const Decoder decoder : kDecoders) {
    Opcode op(i.text);
    Instr scratch = i;
    if (!decoder(scratch, op)) continue;
    fault("the PTX engine does not implement '.%s' of '%s'", std::string(op.untaken()).c_str(),
          std::string(i.text).c_str());
  }
}

}  // namespace

void decode(Instr& i) {
  i.exec = unknown_opcode;
  for (const Decoder decoder : kDecoders) {
    Opcode op(i.text);
    Instr scratch = i;
    if (const Execute exec = decoder(scratch, op)) {
      const bool complete = op.untaken().empty();
      if (complete) i = scratch;
      i.exec = complete ? exec : unknown_modifier;
      return;
    }
  }
}

}  // namespace vgpu
