#pragma once
// The race detector: for every 4 bytes of memory, who last wrote and who last read them.
//
// An interval of a block between two barriers is a segment, with a number unique in the process. A
// stamp packs who accessed a word: segment, count of __syncwarp of the lane, thread, which of the
// bytes. Accesses of one segment are ordered within a thread, and within a warp by __syncwarp. In
// segments of the same block they are ordered by the barrier. Other blocks of the launch are
// ordered only by a fence and an atomic access to one address that both make; launches by their
// streams.
#include <memory>

#include "exec.h"
#include "exec_access.h"
#include "vgpu.h"

namespace vgpu {

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

/// The shadow of a device allocation.
struct RaceCells {
  const Allocation* allocation = nullptr;
  std::unique_ptr<u64[], FreeDeleter> writes, reads;  ///< one stamp for each word
  bool all_valid = false;                             ///< every byte is initialised, which stays so
  u32 looked_in_launch = 0;
};

RaceCells& cells_of(const Allocation& allocation);

/// Starts a launch; the stamps of all work ordered before it need no more looking at.
void race_begin_launch();
/// A new segment of a block, and the stamps of its warps' lanes.
void race_begin_segment(Block& block);
/// __syncwarp() of some lanes.
void race_sync_lanes(Warp& w, u32 mask);
void race_fence(Block& block);

struct RaceAccess {
  Warp& w;
  const u64* address;  ///< of each lane, from the first byte that the stamps are of
  u32 mask, bytes;
  AccessKind kind;
  bool ordered, contiguous;
};
void race_check_shared(const RaceAccess& a);
void race_check_global(const RaceAccess& a, RaceCells& cells, u64 first_address);

/// Stream work other than kernels: copies and fills (called by the runtime).
void race_check_range(const void* p, size_t bytes, bool write);

}  // namespace vgpu
