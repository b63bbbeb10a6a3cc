// Runs warps, blocks and kernels. Lanes of a warp that have diverged take turns: those at the
// lowest pc run, until they reach the others, which suits the layout of code that nvcc prints.
#include <cxxabi.h>
#include <cstdarg>
#include <cstring>
#include <numeric>

#include "exec.h"
#include "exec_access.h"
#include "exec_barrier.h"
#include "exec_race.h"
#include "exec_stats.h"
#include "vgpu.h"

namespace vgpu {
namespace {

constexpr u64 kSlice = 1 << 20;  // instructions a warp may issue before others get their turn
constexpr u32 kSeededSlice = 200;
constexpr size_t kSeededBlocks = 3;  // resident at a time with a seed

const Warp* g_running = nullptr;

std::string running_warp() {
  if (!g_running) return "";
  const Warp& w = *g_running;
  const Block& b = *w.block;
  const dim3 n = b.launch->block;
  char text[640];
  std::string s = "kernel " + demangled(b.launch->function->name);
  std::snprintf(text, sizeof text, ", block (%u,%u,%u), ", b.id.x, b.id.y, b.id.z);
  s += text;
  if (w.reported_lane >= 0) {
    const u32 t = w.first_thread() + static_cast<u32>(w.reported_lane);
    std::snprintf(text, sizeof text, "thread (%u,%u,%u) in ", t % n.x, t / n.x % n.y,
                  t / (n.x * n.y));
    s += text;
  }
  std::snprintf(text, sizeof text, "warp %u, lanes %08x", w.index, w.active);
  s += text;
  if (!w.instr) return s;
  return s + "\n==   at " + source_of(*w.frame->function, *w.instr) + ": " +
         std::string(w.instr->text);
}

// ---- warps
// ----------------------------------------------------------------------------------------

struct Group {
  u32 lanes = 0;
  u32 pc = 0;
  u32 stop = ~0u;  // the lowest pc of other lanes: they are met there
};

// The lanes at the lowest pc of those that can run, with any that were waiting there.
Group pick(Frame& f) {
  Group g;
  const u32 candidates = f.live & ~f.blocked;
  if (!candidates) return g;
  u32 lowest = ~0u;
  for (u32 l = 0; l < kLanes; ++l) {
    lowest = candidates >> l & 1 && f.pc[l] < lowest ? f.pc[l] : lowest;
  }
  for (u32 l = 0; l < kLanes; ++l) {
    const bool live = f.live >> l & 1;
    g.lanes |= static_cast<u32>(live && f.pc[l] == lowest) << l;
    g.stop = live && f.pc[l] > lowest && f.pc[l] < g.stop ? f.pc[l] : g.stop;
  }
  g.pc = lowest;
  f.blocked &= ~g.lanes;
  return g;
}

// A branch taken by some lanes, to its target. True when the group stays together and may go on at
// `pc`.
bool take_branch(Warp& w, const Instr& i, const Group& g, u32 taken, u32& pc) {
  if (taken == g.lanes) {
    pc = i.target;
    return pc < g.stop;
  }
  set_pc(*w.frame, g.lanes, pc);
  set_pc(*w.frame, taken, i.target);
  w.reschedule = true;
  return false;
}

// Runs a group until it diverges, meets other lanes, blocks, or has issued up to `limit`.
template <bool kCounting>
void run_group(Warp& w, const Group& g, u64 limit) {
  const Function& f = *w.frame->function;
  const Instr* code = f.code.data();
  const u32 end = std::min(g.stop, static_cast<u32>(f.code.size()));
  u32 pc = g.pc;
  w.reschedule = false;
  while (pc < end) {
    const Instr& i = code[pc];
    u32 guard;
    std::memcpy(&guard, w.regs + i.guard, sizeof guard);
    const u32 active = g.lanes & (guard ^ i.guard_flip);
    ++w.issued;
    if (kCounting) count_issue(f, pc, active);
    ++pc;
    if (!active) continue;
    w.instr = &i;
    w.active = active;
    if (i.flow == Flow::kNext) {
      i.exec(w, i, active);
    } else if (i.flow == Flow::kBranch) {
      if (!take_branch(w, i, g, active, pc) || w.issued >= limit) break;
    } else {
      w.next = pc;
      set_pc(*w.frame, g.lanes, pc);
      i.exec(w, i, active);
      if (w.reschedule) return;
    }
  }
  if (w.reschedule) return;
  if (pc >= f.code.size()) {
    return_lanes(w, g.lanes);
  } else {
    set_pc(*w.frame, g.lanes, pc);
  }
}

// The report is about the first of the lanes that wait.
[[noreturn]] void report_warp_deadlock(Warp& w) {
  const Frame& f = *w.frame;
  w.active = f.blocked;
  w.instr = &f.function->code[f.pc[static_cast<u32>(std::countr_zero(f.blocked))]];
  u32 outside = 0;
  for (u32 d = 0; d + 1 < w.depth; ++d) outside |= w.frames[d]->live;
  outside &= ~f.live;
  fault("deadlock in a warp: lanes %08x wait for lanes that never come%s", f.blocked,
        outside ? ", as those did not take part in the call of this function" : "");
}

// ---- blocks
// ---------------------------------------------------------------------------------------

void set_up(Block& b, const Launch& launch) {
  const Function& f = *launch.function;
  const u32 dynamic = f.module->dynamic_shared();
  b.launch = &launch;
  constexpr u32 kRedZone = 64;
  b.shared_size =
      (launch.dynamic_shared ? dynamic + launch.dynamic_shared : f.shared_bytes) + kRedZone;
  if (b.shared_state.size() < b.shared_size) {
    b.shared_state.resize(b.shared_size);
    b.shared_lines.resize(b.shared_size / sizeof(RegisterLine) + 1);
    b.shared_writes.resize(b.shared_size / 4 + 4);
    b.shared_reads.resize(b.shared_size / 4 + 4);
    b.shared = b.shared_lines.data()->bytes;
  }
  std::fill(b.shared_state.begin(), b.shared_state.end(), kOutside);
  b.warps.resize(launch.warps());
  const u32 stride = (f.local_bytes + 15) / 16 * 16 + (f.calls ? kCallStack : 0);
  for (u32 k = 0; k < b.warps.size(); ++k) {
    Warp& w = b.warps[k];
    const u32 threads = std::min(kLanes, launch.threads() - kLanes * k);
    w.block = &b;
    w.index = k;
    w.lanes = threads == kLanes ? kFullMask : (1u << threads) - 1;
    w.local_stride = stride;
    w.local_size = f.calls ? stride : f.local_bytes;
    const size_t local = static_cast<size_t>(stride) * kLanes;
    if (w.local.size() != local) w.local.assign(local, std::byte{0xff});
  }
}

void poison_shared(Block& b, u32 offset, u32 size) {
  std::memset(b.shared_state.data() + offset, kUninitialised, size);
  if (options().poison) std::memset(b.shared + offset, 0xff, size);
}

void start(Block& b, u64 linear) {
  const Launch& launch = *b.launch;
  const Function& f = *launch.function;
  const dim3 grid = launch.grid;
  b.linear = static_cast<u32>(linear);
  b.id = dim3(static_cast<u32>(linear % grid.x), static_cast<u32>(linear / grid.x % grid.y),
              static_cast<u32>(linear / (static_cast<u64>(grid.x) * grid.y)));
  for (const Variable& v : f.shared) poison_shared(b, v.offset, v.size);
  if (launch.dynamic_shared) poison_shared(b, f.module->dynamic_shared(), launch.dynamic_shared);
  b.barriers = {};
  b.exited_threads = 0;
  b.fenced = false;
  for (Warp& w : b.warps) {
    w.depth = 0;
    w.exited = 0;
    w.issued = 0;
    w.carry = 0;
    w.instr = nullptr;
    w.reported_lane = -1;
    w.at_barrier = w.yielded = false;
    w.copies.clear();
    w.committed.fill(0);
    push_frame(w, f, w.lanes, nullptr);
  }
  race_begin_segment(b);
}

// Gives every warp a turn; true when the block has ended.
bool run_block(Block& b) {
  const bool seeded = options().seed != 0;
  std::vector<u32> order(b.warps.size());
  std::iota(order.begin(), order.end(), 0u);
  for (u32 k = static_cast<u32>(order.size()); seeded && k > 1; --k) {
    std::swap(order[k - 1], order[rng().below(k)]);
  }
  bool ran = false, finished = true;
  for (const u32 k : order) {
    Warp& w = b.warps[k];
    if (w.done() || w.at_barrier) continue;
    ran = true;
    g_running = &w;
    run_warp(w, seeded ? 1 + rng().below(kSeededSlice) : kSlice);
  }
  for (const Warp& w : b.warps) finished = finished && w.done();
  if (!ran && !finished) report_barrier_deadlock(b);
  return finished;
}

// With a seed several blocks are resident, their warps interleaved.
void run_blocks(const Launch& launch) {
  static std::vector<std::unique_ptr<Block>> pool;
  const size_t resident = options().seed ? kSeededBlocks : 1;
  while (pool.size() < resident) pool.push_back(std::make_unique<Block>());
  std::vector<Block*> idle, active;
  for (size_t k = 0; k < resident; ++k) {
    set_up(*pool[k], launch);
    idle.push_back(pool[k].get());
  }
  const u64 blocks = static_cast<u64>(launch.grid.x) * launch.grid.y * launch.grid.z;
  for (u64 next = 0; next < blocks || !active.empty();) {
    while (next < blocks && !idle.empty()) {
      start(*idle.back(), next++);
      active.push_back(idle.back());
      idle.pop_back();
    }
    const size_t k = active.size() > 1 ? rng().below(static_cast<u32>(active.size())) : 0;
    if (run_block(*active[k])) {
      idle.push_back(active[k]);
      active.erase(active.begin() + static_cast<std::ptrdiff_t>(k));
    }
  }
}

// Device memory is reachable, and reports name the running warp, also when a fault unwinds.
struct RunningScope {
  RunningScope() {
    set_fault_context(running_warp);
    device_access_begin();
  }
  ~RunningScope() {
    g_running = nullptr;
    device_access_end();
    set_fault_context(nullptr);
  }
};

}  // namespace

void run_warp(Warp& w, u64 instructions) {
  const u64 limit = w.issued + instructions;
  for (const auto& [s, o] : w.frame->function->specials) {
    if (s == Special::kClock) std::fill_n(lanes_of<u32>(w, o), kLanes, static_cast<u32>(w.issued));
    if (s == Special::kClock64) std::fill_n(lanes_of<u64>(w, o), kLanes, w.issued);
  }
  while (!w.done() && !w.at_barrier && !w.yielded && w.issued < limit) {
    if (!w.frame->live) {
      pop_frame(w);
      continue;
    }
    const Group g = pick(*w.frame);
    if (!g.lanes) report_warp_deadlock(w);
    if (g_counting) {
      run_group<true>(w, g, limit);
    } else {
      run_group<false>(w, g, limit);
    }
  }
  w.yielded = false;
}

void lane_fault(Warp& w, u32 lane, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  w.reported_lane = static_cast<int>(lane);
  fault("%s", text);
}

std::string demangled(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), &std::free);
  return text ? text.get() : name;
}

void set_running(const Warp& w) { g_running = &w; }

std::string file_name(const Function& f, u32 file) {
  const auto it = f.module->files.find(file);
  return it == f.module->files.end() ? "?" : it->second.substr(it->second.rfind('/') + 1);
}

std::string source_of(const Function& f, const Instr& i) {
  std::string text;
  for (u32 k = i.location; k || text.empty(); k = f.locations[k].parent) {
    const Location& l = f.locations[k];
    text +=
        (text.empty() ? "" : ", inlined at ") + file_name(f, l.file) + ":" + std::to_string(l.line);
  }
  return text;
}

Location own_location(const Function& f, const Instr& i) {
  u32 k = i.location;
  while (f.locations[k].parent) {
    const auto file = f.module->files.find(f.locations[k].file);
    if (file == f.module->files.end() || file->second.find("/include/") == std::string::npos) break;
    k = f.locations[k].parent;
  }
  return f.locations[k];
}

void run_kernel(Launch launch) {
  static u32 launches = 0;
  launch.number = ++launches;
  const RunningScope scope;
  race_begin_launch();
  const Function& f = *launch.function;
  ++f.launches;
  f.most_threads = std::max(f.most_threads, launch.threads());
  f.most_dynamic_shared = std::max(f.most_dynamic_shared, launch.dynamic_shared);
  run_blocks(launch);
}

}  // namespace vgpu
