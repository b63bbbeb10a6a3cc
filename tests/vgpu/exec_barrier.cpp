#include "exec_barrier.h"

#include "exec_race.h"
#include "vgpu.h"

namespace vgpu {
namespace {

bool is_reduction(BarrierOp op) { return op >= BarrierOp::kCount; }

// What the threads of a released warp learn from bar.red.
void store_result(Warp& w, const Barrier& b) {
  const Instr& i = *w.instr;
  const u32 live = w.lanes & ~w.exited;
  switch (static_cast<BarrierOp>(i.op)) {
    case BarrierOp::kCount:
      for_lanes(live, [&](u32 l) { lanes_of<u32>(w, i.ops[0])[l] = b.true_count; });
      break;
    case BarrierOp::kAnd:
      set_predicate(w, i.ops[0], live, b.true_count == b.total ? ~0u : 0);
      break;
    case BarrierOp::kOr: set_predicate(w, i.ops[0], live, b.true_count ? ~0u : 0); break;
    default: break;
  }
}

void release(Block& block, Barrier& b) {
  for_lanes(b.waiting, [&](u32 k) {
    Warp& w = block.warps[k];
    store_result(w, b);
    w.at_barrier = false;
  });
  b = {};
  race_begin_segment(block);
}

// Lanes of one warp that are elsewhere are waited for; the barrier is an error when they are
// waiting, too, or have ended.
bool whole_warp_is_here(Warp& w, const Instr& i, u32 mask) {
  const u32 live = w.lanes & ~w.exited;
  if (mask == live) {
    if (w.exited) fault("__syncthreads() after lanes %08x of the warp have exited", w.exited);
    return true;
  }
  Frame& f = *w.frame;
  f.blocked |= mask;
  set_pc(f, mask, w.next - 1);
  w.reschedule = true;
  if ((f.live & ~f.blocked) == 0) {
    fault("divergent barrier: lanes %08x wait at '%s', lanes %08x of the same warp elsewhere", mask,
          std::string(i.text).c_str(), live & ~mask);
  }
  return false;
}

// The number of warps that a barrier is for. 0 threads: all of the block.
u32 warps_expected(const Warp& w, const Instr& i, u32 count_group, bool has_count) {
  if (!has_count) return w.block->launch->warps();
  const u32 threads = lane_u32(w, i.in_group(count_group), 0);
  if (threads == 0 || threads % kLanes)
    fault("barrier for %u threads: not a multiple of 32", threads);
  return threads / kLanes;
}

void check_same_line(const Warp& w, Barrier& b, const Instr& i) {
  const Function& f = *w.frame->function;
  auto same = [](const Location& x, const Location& y) {
    return x.file == y.file && x.line == y.line;
  };
  if (b.site && b.site != &i && !same(own_location(f, *b.site), own_location(f, i))) {
    fault("divergent __syncthreads(): warps wait at %s and at %s", source_of(f, *b.site).c_str(),
          source_of(f, i).c_str());
  }
  b.site = &i;
}

}  // namespace

// bar.sync id, threads;  bar.arrive id, threads;  bar.red.op d, id, threads, predicate
void barrier(Warp& w, const Instr& i, u32 mask) {
  if (!whole_warp_is_here(w, i, mask)) return;
  const auto op = static_cast<BarrierOp>(i.op);
  const u32 id_group = is_reduction(op) ? 1 : 0;
  const u32 operands = i.groups - (is_reduction(op) ? 2u : 0u);
  const u32 id = lane_u32(w, i.in_group(id_group), static_cast<u32>(std::countr_zero(mask)));
  Block& block = *w.block;
  if (id >= block.barriers.size()) fault("barrier %u: there are only 16", id);
  Barrier& b = block.barriers[id];
  const bool has_count = operands > 1;
  const u32 expected = warps_expected(w, i, id_group + 1, has_count);
  if (b.expected && b.expected != expected) {
    fault("barrier %u: one warp says that it is for %u threads, another for %u", id,
          b.expected * kLanes, expected * kLanes);
  }
  b.expected = expected;
  if (!has_count) check_same_line(w, b, i);
  ++b.arrived;
  b.total += static_cast<u32>(std::popcount(mask));
  if (is_reduction(op)) {
    b.true_count += static_cast<u32>(std::popcount(predicate(w, i.in_group(i.groups - 1u)) & mask));
  }
  if (op != BarrierOp::kArrive) {
    b.waiting |= 1u << w.index;
    w.at_barrier = w.reschedule = true;
    w.barrier_id = id;
  }
  if (b.arrived == b.expected) release(block, b);
}

void report_barrier_deadlock(Block& block) {
  u32 id = 0;
  for (const Warp& w : block.warps) {
    if (!w.at_barrier) continue;
    id = w.barrier_id;
    set_running(w);
  }
  const Barrier& b = block.barriers[id];
  if (block.exited_threads) {
    fault("%s: %u threads of the block have exited and cannot arrive at barrier %u",
          b.site ? "__syncthreads()" : "bar.sync", block.exited_threads, id);
  }
  fault("deadlock: barrier %u waits for %u threads, %u have arrived and no other will", id,
        b.expected * kLanes, b.arrived * kLanes);
}

}  // namespace vgpu
