#pragma once
// PTX, decoded for execution. The dialect is what nvcc prints: ISA 9.0, compute_75 to compute_120.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace vgpu {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using i8 = int8_t;
using i16 = int16_t;
using i32 = int32_t;
using i64 = int64_t;

constexpr u32 kLanes = 32;
constexpr u32 kFullMask = ~0u;

/// Scalar types. Untyped bits (.b32) are unsigned integers of their size.
enum class Type : u8 {
  kNone,
  kPred,
  kU8,
  kU16,
  kU32,
  kU64,
  kS8,
  kS16,
  kS32,
  kS64,
  kF16,
  kBF16,
  kF32,
  kF64,
  kF16x2,
  kBF16x2
};
constexpr bool is_signed(Type t) { return t >= Type::kS8 && t <= Type::kS64; }
constexpr bool is_integer(Type t) { return t >= Type::kU8 && t <= Type::kS64; }
constexpr bool is_half(Type t) {
  return t == Type::kF16 || t == Type::kBF16 || t == Type::kF16x2 || t == Type::kBF16x2;
}
/// Size in bytes; 4 for predicates.
u32 size_of(Type t);
/// The type a word such as "u32" or "b64" names; kNone when it names none.
Type type_named(std::string_view word);

enum class StateSpace : u8 { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

/// An operand: where its 32 lanes are in the register file of a frame. Lanes of up to 4 bytes take
/// 4 bytes each, 64-bit ones 8. A constant is there in both forms, so that any type can read it. A
/// predicate is one word of 32 bits.
struct Operand {
  u32 narrow = 0, wide = 0;  ///< byte offsets; equal for a register, which has one form only
  bool is_wide = false, is_constant = false, is_predicate = false, negated = false;
};

struct Warp;
struct Instr;
using Execute = void (*)(Warp&, const Instr&, u32 mask);

/// How the warp's main loop treats an instruction.
enum class Flow : u8 { kNext, kBranch, kControl };

/// The rounding of a floating-point result, and for conversions .rni and the like.
enum class Rounding : u8 { kNone, kNearest, kZero, kDown, kUp, kNearestAway };

/// What the last checked access of an instruction learned, good until the launch ends.
struct AccessCache {
  u32 launch = 0;
  u64 begin = 0, end = 0;
  u8* valid = nullptr;  ///< null when every byte is initialised
  struct RaceCells* cells = nullptr;
};

/// An instruction. The fields below `exec` are set by the parser, the rest by the decoder of its
/// opcode and mean what that decoder says.
struct Instr {
  Execute exec = nullptr;
  const Operand* ops = nullptr;  ///< all operands, those of braces and `d|p` flattened
  std::array<u8, 7> group{};     ///< index of the first operand of each operand group
  u8 groups = 0;                 ///< operand groups as written, separated by commas
  Flow flow = Flow::kNext;
  u32 guard = 0, guard_flip = 0;      ///< byte offset of the guard predicate, and ~0 for @!p
  u32 target = 0;                     ///< of a branch
  i64 offset = 0, second_offset = 0;  ///< the constants in [reg + constant], two for cp.async
  u32 location = 0;                   ///< index into Function::locations
  u32 used_bytes = ~0u;               ///< .pragma "used_bytes_mask" of a vector load
  StateSpace symbol_space =
      StateSpace::kGeneric;  ///< of the symbol an address names: kLocal for call params
  std::string_view text;     ///< opcode with modifiers
  const std::vector<u32>* table = nullptr;  ///< targets of brx.idx
  std::string_view callee;                  ///< of a direct call
  const struct CallSite* call = nullptr;

  u8 op = 0, mode = 0, count = 1;  ///< suboperation, variant, elements of a vector
  Type type = Type::kNone, from = Type::kNone;
  StateSpace space = StateSpace::kGeneric;
  Rounding rounding = Rounding::kNone;
  bool ftz = false, saturate = false, flag = false;
  mutable AccessCache cache;

  /// The k-th operand of a group.
  const Operand& in_group(u32 g, u32 k = 0) const { return ops[group[g] + k]; }
  u32 group_size(u32 g) const { return group[g + 1] - group[g]; }
};

/// Where a call finds its arguments and leaves its result, in the caller's local memory.
struct CallSite {
  std::vector<u32> arguments, results;  ///< local offsets of .param variables
};

/// The special registers that have a value for each launch, block, warp or lane.
enum class Special : u8 {
  kTidX,
  kTidY,
  kTidZ,
  kNTidX,
  kNTidY,
  kNTidZ,
  kCtaX,
  kCtaY,
  kCtaZ,
  kNCtaX,
  kNCtaY,
  kNCtaZ,
  kLane,
  kWarp,
  kNWarp,
  kSm,
  kNSm,
  kGrid,
  kMaskEq,
  kMaskLt,
  kMaskLe,
  kMaskGt,
  kMaskGe,
  kDynamicShared,
  kTotalShared,
  kClock,
  kClock64
};

/// A constant in a frame's register file; `local` ones are addresses in the frame's local memory.
struct Constant {
  u32 narrow, wide;
  u64 value;
  bool local;
};

struct Variable {
  std::string name;
  u32 offset = 0, size = 0, align = 1;
};

/// A source position from .loc, with the place that its function is inlined at.
struct Location {
  u32 file = 0, line = 0;
  u32 parent = 0;  ///< index into Function::locations; 0: not inlined
};

/// Counters of an instruction, collected when options().stats names a file.
struct Counters {
  u64 issued = 0, lanes = 0;  ///< warp instructions; lanes that took part
  u64 sectors = 0, sectors_ideal = 0;
  u64 passes = 0, passes_ideal = 0;
};

/// A kernel or device function.
struct Function {
  std::string name;
  struct Module* module = nullptr;
  bool is_kernel = false, calls = false;
  std::vector<Variable> params, results;  ///< offsets: kernels in the parameter buffer, else local
  std::vector<Variable> shared;
  u32 param_bytes = 0, shared_bytes = 0, local_bytes = 0, register_bytes = 0, max_threads = 0;
  std::vector<Instr> code;
  std::vector<Operand> operands;
  std::vector<Constant> constants;
  std::map<Special, Operand> specials;
  std::deque<std::vector<u32>> tables;
  std::deque<CallSite> call_sites;
  std::vector<Location> locations;         ///< the first one is no place
  mutable std::vector<Counters> counters;  ///< one for each instruction
  mutable u64 launches = 0;
  mutable u32 most_threads = 0, most_dynamic_shared = 0;  ///< of any launch, per block
};

struct Token {
  enum class Kind : u8 { kWord, kNumber, kPunctuation, kString, kLocation, kEnd };
  Kind kind = Kind::kEnd;
  std::string_view text;
  u64 value = 0;  ///< of a number; of a location an index into Module::places
};

/// A .loc directive: file, line and column, and those it is inlined at, or zeros.
struct Place {
  std::array<u32, 3> at{}, inlined_at{};
};

/// One PTX file. Functions are parsed when they are first asked for: a file of many kernels costs a
/// test only those that it launches.
struct Module {
  std::string text;
  u32 target = 0;  ///< compute capability, as 80
  std::map<u32, std::string> files;
  std::vector<Place> places;
  std::vector<Token> tokens;
  struct Global {
    void* address;
    size_t size;
  };
  std::map<std::string, Global, std::less<>> globals;
  struct Header {
    size_t first_token;
    bool is_kernel;
  };
  std::map<std::string, Header, std::less<>> headers;
  std::vector<std::string> function_names;  ///< addresses of functions are indices into this
  std::map<std::string, std::unique_ptr<Function>, std::less<>> functions;
  std::map<std::string, u32, std::less<>> shared;  ///< alignment of module-level dynamic arrays

  explicit Module(std::string_view ptx);
  Module(const Module&) = delete;
  /// Null when there is none.
  Function* find(std::string_view name);
  /// Where the dynamic array starts. It has exactly the largest alignment declared, at least 16.
  u32 dynamic_shared() const;
};

/// Static shared variables are below this offset in the shared window (ptxas allows 48 KB of them),
/// the dynamic array is above.
constexpr u32 kStaticShared = 64 * 1024;
/// Addresses of functions, as indirect calls use them.
constexpr u64 kFunctionWindow = 0x0400'0000'0000'0000;

/// The tokens of a PTX file, whose names of files and places go into `module`.
std::vector<Token> tokenize(std::string_view text, Module& module);

/// Parses the function whose declaration starts behind its .entry or .func at `first_token`.
std::unique_ptr<Function> parse_function(Module& module, size_t first_token, bool is_kernel);

/// An opcode split at its dots. Decoders take the modifiers they implement; an instruction with one
/// that nobody has taken stops the program when it is executed.
class Opcode {
 public:
  explicit Opcode(std::string_view text);
  std::string_view base() const { return parts_[0]; }
  /// Whether a modifier is there that has not been taken; it is now.
  bool take(std::string_view modifier);
  /// The index of the first of `modifiers` that is there, or -1.
  int take_one_of(std::initializer_list<std::string_view> modifiers);
  bool has(std::string_view modifier) const;
  /// The k-th type from the end, without taking it; kNone when there is no such type.
  Type peek_type(u32 k = 0) const;
  /// Takes the last type that has not been taken.
  Type take_type();
  Rounding take_rounding();
  /// Takes the state space, by default generic. Subspaces as in shared::cta are plain ones.
  StateSpace take_space();
  /// The first modifier nobody has taken; empty when there is none.
  std::string_view untaken() const;

 private:
  std::vector<std::string_view> parts_;
  std::vector<bool> taken_;
};

/// Sets `exec` and the decoder's fields of an instruction.
void decode(Instr& instr);

}  // namespace vgpu
