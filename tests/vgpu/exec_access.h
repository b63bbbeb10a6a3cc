#pragma once
// Checked access of a warp to memory.
#include "exec.h"

namespace vgpu {

enum class AccessKind : u8 { kRead, kWrite, kUpdate };

/// The addresses at which the lanes of a warp execute a memory instruction, made into host
/// addresses part by part: a generic access may touch several state spaces.
class WarpAccess {
 public:
  /// `ordered`: atomic, volatile, relaxed or stronger, so that it races with no other such access.
  WarpAccess(Warp& w, const Instr& i, const Operand& address, i64 offset, u32 mask, u32 bytes,
             AccessKind kind, bool ordered);
  WarpAccess(Warp& w, const Instr& i, const std::array<u64, kLanes>& address, u32 mask, u32 bytes,
             AccessKind kind);

  /// Checks bounds, alignment, initialisation and races; then calls f(base, lanes) with the lanes
  /// whose data are at base + at(lane).
  template <class F>
  void run(StateSpace space, F f) {
    if (space != StateSpace::kGeneric) return f(check(space, mask_), mask_);
    for (u32 rest = mask_; rest;) {
      const u32 part = next_window(rest, space);
      f(check(space, part), part);
      rest &= ~part;
    }
  }

  u64 at(u32 lane) const { return address_[lane]; }
  /// Whether all 32 lanes take part and follow each other in memory.
  bool contiguous() const { return contiguous_; }

 private:
  void find_contiguous();
  u32 next_window(u32 lanes, StateSpace& space);
  std::byte* check(StateSpace space, u32 lanes);
  std::byte* check_global(u32 lanes);
  u32 check_allocation(u32 lanes);
  void check_valid(u32 lanes);
  std::byte* check_shared(u32 lanes);
  std::byte* check_local(u32 lanes);
  std::byte* check_params(u32 lanes);
  void check_alignment(u32 lanes, const char* what);
  [[noreturn]] void report(u32 lane, const char* problem);
  void measure(u32 lanes);

  Warp& w_;
  const Instr& i_;
  const u32 mask_, bytes_;
  const AccessKind kind_;
  const bool ordered_;
  bool contiguous_ = false;
  u64 low_ = 0, high_ = 0;  // of the lanes being checked: first byte, behind the last byte
  alignas(64) std::array<u64, kLanes> address_;
};

/// Counts what an access costs in sectors or bank passes (exec_stats.cpp). Addresses are relative
/// to `base`: an allocation starts a sector, as it would on a device.
void count_access(const Warp& w, const Instr& i, StateSpace space, const u64* address, u64 base,
                  u32 mask, u32 bytes);

/// Makes shared memory that an asynchronous copy is about to fill unreadable.
void invalidate_shared(Warp& w, u64 address, u32 bytes);

/// Whether counters are collected.
extern bool g_counting;

}  // namespace vgpu
