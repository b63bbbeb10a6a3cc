#pragma once
// Counters for performance regression tests. With VGPU_STATS=FILE they are written to FILE at exit:
//
//   kernel softmax_kernel<128>(float const*, float*, int)
//     launches 2  threads 128  shared 0  warp instructions 1204  active lanes 94.9%
//     softmax.cu:37  issued 96  lanes 100.0%  sectors 64/64
//     softmax.cu:52  issued 12  lanes 3.1%  bank passes 24/12
//
// threads, shared: of the largest block launched, and of its dynamic shared memory in bytes.
// sectors: 32-byte pieces of global memory that the accesses of a warp touch, and the fewest that
// hold as many different bytes. bank passes: how often a shared memory access of a warp goes
// through the 32 banks of 4 bytes, and the fewest possible: an access of 8 or 16 bytes per lane
// goes in halves or quarters of the warp. Lanes that read the same word share it.
//
// The numbers depend on the PTX and the launches only, not on addresses, seeds or the machine;
// kernels and lines are sorted. Blocks that wait for each other in a loop are the exception.
#include "exec.h"

namespace vgpu {

/// Starts to collect when options().stats names a file, which is written at exit.
void start_counting();
void count_issue(const Function& f, u32 pc, u32 active);

/// The text for the file.
std::string stats_text();

}  // namespace vgpu
