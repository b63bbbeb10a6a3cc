#pragma once
// bar and barrier: the 16 barriers of a block.
#include "exec.h"

namespace vgpu {

enum class BarrierOp : u8 { kSync, kArrive, kCount, kAnd, kOr };

void barrier(Warp& w, const Instr& i, u32 mask);

/// Faults: every warp of the block that is left waits at a barrier.
[[noreturn]] void report_barrier_deadlock(Block& b);

}  // namespace vgpu
