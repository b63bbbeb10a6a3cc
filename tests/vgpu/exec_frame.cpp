// Frames: register files of kernels and device functions, calls and returns.
#include <cstring>

#include "exec.h"
#include "vgpu.h"

namespace vgpu {
namespace {

u32 special_value(const Warp& w, Special s, u32 l) {
  const Block& b = *w.block;
  const dim3 n = b.launch->block, grid = b.launch->grid;
  const u32 t = w.first_thread() + l;
  switch (s) {
    case Special::kTidX: return t % n.x;
    case Special::kTidY: return t / n.x % n.y;
    case Special::kTidZ: return t / (n.x * n.y);
    case Special::kNTidX: return n.x;
    case Special::kNTidY: return n.y;
    case Special::kNTidZ: return n.z;
    case Special::kCtaX: return b.id.x;
    case Special::kCtaY: return b.id.y;
    case Special::kCtaZ: return b.id.z;
    case Special::kNCtaX: return grid.x;
    case Special::kNCtaY: return grid.y;
    case Special::kNCtaZ: return grid.z;
    case Special::kLane: return l;
    case Special::kWarp: return w.index;
    case Special::kNWarp: return 64;
    case Special::kSm: return b.linear & 3;
    case Special::kNSm: return 4;
    case Special::kGrid: return b.launch->number;
    case Special::kMaskEq: return 1u << l;
    case Special::kMaskLt: return (1u << l) - 1;
    case Special::kMaskLe: return static_cast<u32>((2ull << l) - 1);
    case Special::kMaskGt: return ~static_cast<u32>((2ull << l) - 1);
    case Special::kMaskGe: return ~((1u << l) - 1);
    case Special::kDynamicShared: return b.launch->dynamic_shared;
    case Special::kTotalShared: return b.launch->function->shared_bytes + b.launch->dynamic_shared;
    default: return static_cast<u32>(w.issued);
  }
}

void set_specials(Warp& w, const Function& f) {
  for (const auto& [s, o] : f.specials) {
    for (u32 l = 0; l < kLanes; ++l) {
      if (o.is_wide) {
        lanes_of<u64>(w, o)[l] = w.issued;
      } else {
        lanes_of<u32>(w, o)[l] = special_value(w, s, l);
      }
    }
  }
}

// The register file of a function: poisoned, with its constants.
void prepare(Warp& w, Frame& frame, const Function& f, u32 local_base) {
  const bool same = frame.function == &f && frame.local_base == local_base;
  frame.function = &f;
  frame.local_base = local_base;
  if (!same) {
    frame.registers.resize((f.register_bytes + sizeof(RegisterLine) - 1) / sizeof(RegisterLine));
    std::memset(frame.registers.data(), 0xff, frame.registers.size() * sizeof(RegisterLine));
  }
  w.frame = &frame;
  w.regs = frame.registers.data()->bytes;
  if (!same) {
    for (const Constant& c : f.constants) {
      const u64 value = c.value + (c.local ? local_base : 0);
      Operand o;
      o.narrow = c.narrow, o.wide = c.wide;
      std::fill_n(lanes_of<u32>(w, o), kLanes, static_cast<u32>(value));
      std::fill_n(lanes_of<u64>(w, o), kLanes, value);
    }
  }
  set_specials(w, f);
}

std::byte* local_at(Warp& w, u32 l, u32 offset) {
  return w.local.data() + static_cast<size_t>(l) * w.local_stride + offset;
}

}  // namespace

void push_frame(Warp& w, const Function& f, u32 mask, const CallSite* site) {
  const Frame* caller = w.depth ? w.frame : nullptr;
  const u32 base = caller ? (caller->local_base + caller->function->local_bytes + 15) / 16 * 16 : 0;
  if (caller && base + f.local_bytes > w.local_stride) {
    fault("stack overflow: %u bytes of local memory at call depth %u", base + f.local_bytes,
          w.depth);
  }
  if (w.depth == w.frames.size()) w.frames.push_back(std::make_unique<Frame>());
  Frame& frame = *w.frames[w.depth++];
  prepare(w, frame, f, base);
  frame.live = mask;
  frame.blocked = 0;
  frame.site = site;
  frame.pc.fill(0);
  if (!caller) return;
  if (site->arguments.size() != f.params.size()) {
    fault("call of %s with %zu arguments instead of %zu", f.name.c_str(), site->arguments.size(),
          f.params.size());
  }
  for (size_t k = 0; k < f.params.size(); ++k) {
    for_lanes(mask, [&](u32 l) {
      std::memcpy(local_at(w, l, base + f.params[k].offset),
                  local_at(w, l, caller->local_base + site->arguments[k]), f.params[k].size);
    });
  }
  w.reschedule = true;
}

void pop_frame(Warp& w) {
  --w.depth;
  w.frame = w.frames[w.depth - 1].get();
  w.regs = w.frame->registers.data()->bytes;
}

// Results go to the caller lane by lane: lanes may return at different places.
void return_lanes(Warp& w, u32 mask) {
  if (w.depth == 1) return exit_lanes(w, mask);
  Frame& frame = *w.frame;
  const Frame& caller = *w.frames[w.depth - 2];
  const auto& results = frame.function->results;
  for (size_t k = 0; k < std::min(results.size(), frame.site->results.size()); ++k) {
    for_lanes(mask, [&](u32 l) {
      std::memcpy(local_at(w, l, caller.local_base + frame.site->results[k]),
                  local_at(w, l, frame.local_base + results[k].offset), results[k].size);
    });
  }
  frame.live &= ~mask;
  w.reschedule = true;
}

void exit_lanes(Warp& w, u32 mask) {
  for (u32 d = 0; d < w.depth; ++d) w.frames[d]->live &= ~mask;
  w.exited |= mask;
  w.block->exited_threads += static_cast<u32>(std::popcount(mask));
  w.reschedule = true;
}

}  // namespace vgpu
