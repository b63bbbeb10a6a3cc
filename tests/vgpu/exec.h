#pragma once
// The state of running kernels: launches, blocks, warps and the frames of their functions.
#include <cuda_runtime_api.h>

#include <bit>
#include <string>

#include "ptx.h"

namespace vgpu {

/// A kernel launch that is running.
struct Launch {
  const Function* function;
  dim3 grid, block;
  u32 dynamic_shared;
  std::vector<std::byte> params;
  u32 number = 0;
  u32 threads() const { return block.x * block.y * block.z; }
  u32 warps() const { return (threads() + kLanes - 1) / kLanes; }
};

// The windows of generic addresses. An address in the local window means the accessing thread's own
// local memory. Device memory has its host address.
constexpr u64 kWindowMask = 0xff00'0000'0000'0000;
constexpr u64 kSharedWindow = 0x0100'0000'0000'0000;
constexpr u64 kLocalWindow = 0x0200'0000'0000'0000;
constexpr u64 kParamWindow = 0x0300'0000'0000'0000;

/// Local memory of a thread for functions that its kernel calls.
constexpr u32 kCallStack = 4 * 1024;

struct alignas(64) RegisterLine {
  std::byte bytes[64];
};

/// A function some lanes of a warp are executing. All lanes that a call finds active share a frame;
/// it ends when the last of them returns.
struct Frame {
  const Function* function = nullptr;
  std::vector<RegisterLine> registers;
  u32 local_base = 0;
  u32 live = 0;     ///< lanes that have neither returned nor exited
  u32 blocked = 0;  ///< lanes waiting at a warp-wide instruction for others
  const CallSite* site = nullptr;
  alignas(64) std::array<u32, kLanes> pc{};
};

/// A cp.async whose bytes land when its thread waits for it.
struct AsyncCopy {
  u32 lane, group, shared, bytes, zeros;
  const std::byte* source;
};

struct Warp {
  struct Block* block = nullptr;
  u32 index = 0;
  u32 lanes = 0;  ///< lanes that exist
  u32 exited = 0;
  std::byte* regs = nullptr;  ///< register file of the running frame
  Frame* frame = nullptr;
  std::vector<std::unique_ptr<Frame>> frames;
  u32 depth = 0;  ///< frames in use

  u32 next = 0;  ///< pc behind the running instruction
  const Instr* instr = nullptr;
  u32 active = 0;  ///< lanes that execute it
  int reported_lane = -1;
  bool reschedule = false, yielded = false, at_barrier = false;
  u32 barrier_id = 0, barrier_predicate = 0;
  u64 issued = 0;

  u32 carry = 0;  ///< CC.CF of each lane
  std::vector<std::byte> local;
  u32 local_stride = 0;  ///< bytes from one lane's local memory to the next one's
  u32 local_size = 0;    ///< bytes of it that variables, or calls, may use
  std::vector<AsyncCopy> copies;
  std::array<u32, kLanes> committed{};           ///< cp.async groups of each lane
  alignas(64) std::array<u64, kLanes> stamps{};  ///< of the race detector

  bool done() const { return exited == lanes; }
  u32 first_thread() const { return index * kLanes; }
};

/// One of a block's 16 barriers. Warps arrive as a whole.
struct Barrier {
  u32 expected = 0, arrived = 0;  ///< warps; expected is 0 while nobody has arrived
  u32 waiting = 0;                ///< warps, one bit each
  u32 true_count = 0, total = 0;  ///< threads, for bar.red
  const Instr* site = nullptr;    ///< of a barrier for the whole block
};

/// What a byte of shared memory is.
enum SharedState : u8 { kOutside = 0, kUninitialised = 1, kInitialised = 3 };

struct Block {
  const Launch* launch = nullptr;
  dim3 id;
  u32 linear = 0;
  std::vector<Warp> warps;
  std::vector<RegisterLine> shared_lines;
  std::byte* shared = nullptr;
  u32 shared_size = 0;
  std::vector<u8> shared_state;
  std::vector<u64> shared_writes, shared_reads;  ///< stamps of the race detector, one per word
  u32 segment = 0;                               ///< interval between barriers, unique among all
  bool fenced = false;                           ///< a thread has executed a fence since ...
  std::array<Barrier, 16> barriers{};
  u32 exited_threads = 0;
};

// ---- lanes --------------------------------------------------------------------------------------

template <size_t kBytes>
struct StorageOf {
  typedef u32 __attribute__((may_alias)) type;
};
template <>
struct StorageOf<8> {
  typedef u64 __attribute__((may_alias)) type;
};
/// How registers hold a value of type T: as u32, or u64 when it has 8 bytes.
template <class T>
using Storage = typename StorageOf<sizeof(T)>::type;

template <class T>
Storage<T>* lanes_of(const Warp& w, const Operand& o) {
  return reinterpret_cast<Storage<T>*>(w.regs + (sizeof(T) == 8 ? o.wide : o.narrow));
}

template <class T, class S>
inline T unpack(S stored) {
  if constexpr (sizeof(T) < 4) {
    return static_cast<T>(stored);
  } else {
    return std::bit_cast<T>(stored);
  }
}

/// Values of less than 32 bits are zero-extended when unsigned and sign-extended when signed.
template <class T>
inline auto pack(T value) {
  if constexpr (sizeof(T) < 4) {
    return static_cast<u32>(value);
  } else if constexpr (sizeof(T) == 4) {
    return std::bit_cast<u32>(value);
  } else {
    return std::bit_cast<u64>(value);
  }
}

/// d[l] = f(s[l]...) for the lanes of `mask`. All lanes are computed, so f must be harmless on
/// any bits; registers either coincide or are disjoint, so the loops have no other dependences.
template <class D, class... S, class F, class... O>
[[gnu::always_inline]] inline void map_lanes(Warp& w, u32 mask, F f, const Operand& d,
                                             const O&... s) {
  auto* out = lanes_of<D>(w, d);
  auto run = [&](const auto*... in) __attribute__((always_inline)) {
    if (mask == kFullMask) {
#pragma GCC ivdep
      for (u32 l = 0; l < kLanes; ++l) out[l] = pack<D>(f(unpack<S>(in[l])...));
    } else {
#pragma GCC ivdep
      for (u32 l = 0; l < kLanes; ++l) {
        const auto value = pack<D>(f(unpack<S>(in[l])...));
        out[l] = mask >> l & 1 ? value : out[l];
      }
    }
  };
  run(lanes_of<S>(w, s)...);
}

template <class F>
inline void for_lanes(u32 mask, F f) {
  for (; mask; mask &= mask - 1) f(static_cast<u32>(std::countr_zero(mask)));
}

/// As map_lanes, for functions that are dear or may trap: only the lanes of `mask` are computed.
template <class D, class... S, class F, class... O>
inline void map_each_lane(Warp& w, u32 mask, F f, const Operand& d, const O&... s) {
  for_lanes(mask,
            [&](u32 l) { lanes_of<D>(w, d)[l] = pack<D>(f(unpack<S>(lanes_of<S>(w, s)[l])...)); });
}

inline u32 lane_u32(const Warp& w, const Operand& o, u32 l) { return lanes_of<u32>(w, o)[l]; }
/// A lane whatever the width of the register.
inline u64 lane_bits(const Warp& w, const Operand& o, u32 l) {
  return o.is_wide ? lanes_of<u64>(w, o)[l] : lanes_of<u32>(w, o)[l];
}
/// An address: constants are 64-bit.
inline u64 lane_address(const Warp& w, const Operand& o, u32 l) {
  return o.is_wide || o.is_constant ? lanes_of<u64>(w, o)[l] : lanes_of<u32>(w, o)[l];
}

inline u32 predicate(const Warp& w, const Operand& o) {
  if (o.is_constant) {  // an immediate: the same in all lanes
    return (lane_u32(w, o, 0) != 0 ? kFullMask : 0) ^ (o.negated ? kFullMask : 0);
  }
  return *lanes_of<u32>(w, o) ^ (o.negated ? kFullMask : 0);
}
inline void set_predicate(Warp& w, const Operand& o, u32 mask, u32 value) {
  auto& p = *lanes_of<u32>(w, o);
  p = (p & ~mask) | (value & mask);
}

inline void set_pc(Frame& f, u32 mask, u32 pc) {
  for (u32 l = 0; l < kLanes; ++l) f.pc[l] = mask >> l & 1 ? pc : f.pc[l];
}

/// fault() with a lane for the report to name.
[[noreturn]] void lane_fault(Warp& w, u32 lane, const char* format, ...)
    __attribute__((format(printf, 3, 4)));

// ---- decoders: null when the opcode is not theirs
// -------------------------------------------------

Execute decode_arithmetic(Instr& i, Opcode& op);  // exec_arithmetic.cpp: integer
Execute decode_bits(Instr& i, Opcode& op);        // exec_bits.cpp
Execute decode_compare(Instr& i, Opcode& op);     // exec_compare.cpp: setp, set, selp, predicates
Execute decode_float(Instr& i, Opcode& op);       // exec_float.cpp
Execute decode_half(Instr& i, Opcode& op);        // exec_half.cpp
Execute decode_convert(Instr& i, Opcode& op);     // exec_convert.cpp
Execute decode_move(Instr& i, Opcode& op);        // exec_move.cpp: mov, cvta
Execute decode_memory(Instr& i, Opcode& op);      // exec_memory.cpp: ld, st
Execute decode_atomic(Instr& i, Opcode& op);      // exec_atomic.cpp
Execute decode_async(Instr& i, Opcode& op);       // exec_async.cpp: cp.async
Execute decode_warp(Instr& i, Opcode& op);        // exec_warp.cpp: shuffles, votes, ...
Execute decode_matrix(Instr& i, Opcode& op);      // exec_matrix.cpp
Execute decode_control(Instr& i, Opcode& op);     // exec_control.cpp

/// Calls f.operator()<T>() with the C++ type of an integer type of at least 16 bits; null for
/// others.
template <class F>
Execute for_integer(Type t, F f) {
  switch (t) {
    case Type::kU16: return f.template operator()<u16>();
    case Type::kU32: return f.template operator()<u32>();
    case Type::kU64: return f.template operator()<u64>();
    case Type::kS16: return f.template operator()<i16>();
    case Type::kS32: return f.template operator()<i32>();
    case Type::kS64: return f.template operator()<i64>();
    default: return nullptr;
  }
}

/// As for_integer, for untyped bits.
template <class F>
Execute for_bits(Type t, F f) {
  switch (size_of(t)) {
    case 2: return f.template operator()<u16>();
    case 4: return f.template operator()<u32>();
    case 8: return f.template operator()<u64>();
    default: return nullptr;
  }
}

// ---- control (exec_control.cpp, exec_schedule.cpp) ----------------------------------------------

void exit_lanes(Warp& w, u32 mask);
void return_lanes(Warp& w, u32 mask);
/// Enters a frame for a call of `function` by the lanes of `mask`.
void push_frame(Warp& w, const Function& function, u32 mask, const CallSite* site);
void pop_frame(Warp& w);
/// Runs until the warp is done, waits at a barrier, or has issued so many instructions.
void run_warp(Warp& w, u64 instructions);
/// The source position of an instruction, as "file.cu:12" or "a.cuh:3, inlined at file.cu:12".
std::string source_of(const Function& f, const Instr& i);
/// The innermost position that is not in a header of the toolkit.
Location own_location(const Function& f, const Instr& i);
std::string file_name(const Function& f, u32 file);
/// The warp that reports of faults describe.
void set_running(const Warp& w);
std::string demangled(const std::string& name);
void run_kernel(Launch launch);

}  // namespace vgpu
