#include "exec_race.h"

#include <unordered_map>
#include <unordered_set>

namespace vgpu {
namespace {

// A stamp: segment 31 bits, __syncwarp count 15, thread 10, flags 3, bytes 4; 0 is nobody. The sign
// bit stays clear, so that stamps compare as signed numbers, which AVX2 can do.
constexpr u32 kSegmentShift = 32, kEpochShift = 17, kThreadShift = 7;
constexpr u64 kEpochs = 1 << 15;
constexpr u64 kManyWarps = 1 << 6;  // read by several warps of the segment's block; thread unknown
constexpr u64 kManyLanes = 1 << 5;  // read by several lanes of the warp
constexpr u64 kManyBlocks = kManyWarps | kManyLanes;
constexpr u64 kOrdered = 1 << 4;  // atomic, volatile or stronger
constexpr u64 kBytes = 15;
constexpr u64 kLaneOfThread = u64{kLanes - 1} << kThreadShift;
constexpr u64 kSegmentOnly = ~((1ull << kSegmentShift) - 1);

u64 segment_of(u64 stamp) { return stamp >> kSegmentShift; }
u64 epoch_of(u64 stamp) { return stamp >> kEpochShift & (kEpochs - 1); }
u32 thread_of(u64 stamp) { return stamp >> kThreadShift & 1023; }

// Work of a stream: a launch, or a copy or fill. Its segments start at `first`.
struct TaskRecord {
  u32 first, task;
};

// When a block last did an ordered access to an address after a fence: its segment then.
using Releases = std::unordered_map<u32, u32>;

struct State {
  u32 next_segment = 1;
  u32 launch_first = 1;            // first segment of the running launch
  u32 safe = 1;                    // segments below are of work ordered before the running one
  std::vector<u32> segment_block;  // of the running launch, from launch_first
  std::vector<TaskRecord> tasks;
  std::unordered_map<u64, Releases> releases;                 // by address
  std::unordered_map<u32, std::unordered_set<u64>> acquired;  // by block: addresses
  std::unordered_map<unsigned, RaceCells> cells;              // by allocation
};
State& state() {
  static State s;
  return s;
}

u32 block_of(u64 segment) { return state().segment_block[segment - state().launch_first]; }

u32 task_of(u64 segment) {
  const auto& tasks = state().tasks;
  const auto it = std::upper_bound(tasks.begin(), tasks.end(), segment,
                                   [](u64 s, const TaskRecord& t) { return s < t.first; });
  return it == tasks.begin() ? 0 : std::prev(it)->task;
}

bool task_is_ordered(u32 task) {
  return !streams_can_overlap() || task == running_task() || ordered_before_running(task);
}

// One lane's access to one word.
struct Visit {
  const RaceAccess& a;
  u32 lane;
  u64 address;  // of the word's first byte that is accessed
  u64 mine;     // stamp
  bool shared;
};

const char* verb(bool write, bool ordered) {
  return !write ? "read" : ordered ? "atomic update" : "write";
}

[[noreturn]] void report(const Visit& v, u64 earlier, bool earlier_wrote) {
  const char* space = v.shared ? "shared" : "global";
  const char* now = verb(v.a.kind != AccessKind::kRead, v.a.ordered);
  const char* before = verb(earlier_wrote, earlier & kOrdered);
  if (segment_of(earlier) < state().launch_first) {
    lane_fault(v.a.w, v.lane,
               "data race on global memory at %#lx between streams: %s after %s by work in another "
               "stream that this one does not wait for",
               v.address, now, before);
  }
  const u32 block = v.a.w.block->linear, other = block_of(segment_of(earlier));
  if (other != block || (earlier & kManyBlocks) == kManyBlocks) {
    lane_fault(v.a.w, v.lane,
               "data race on %s memory at %#lx: %s by block %u, %s by block %u, and nothing orders "
               "the blocks of a launch",
               space, v.address, now, block, before, other);
  }
  const u32 thread = v.a.w.first_thread() + v.lane;
  if (earlier & kManyBlocks) {
    lane_fault(
        v.a.w, v.lane,
        "data race on %s memory at %#lx: %s by thread %u after %s by several threads with no "
        "barrier between",
        space, v.address, now, thread, before);
  }
  lane_fault(
      v.a.w, v.lane,
      "data race on %s memory at %#lx: %s by thread %u after %s by thread %u with no barrier "
      "between",
      space, v.address, now, thread, before, thread_of(earlier));
}

// Whether a fence and an ordered access of the other block, and an ordered access of this one to
// the same address, come between: how the last block of a launch takes the results of the others.
bool ordered_by_atomics(const Visit& v, u64 earlier) {
  State& s = state();
  const auto mine = s.acquired.find(v.a.w.block->linear);
  if (mine == s.acquired.end()) return false;
  if ((earlier & kManyBlocks) == kManyBlocks) return true;  // who has read is not known
  for (const u64 address : mine->second) {
    const Releases& by_block = s.releases[address];
    const auto release = by_block.find(block_of(segment_of(earlier)));
    if (release != by_block.end() && release->second >= segment_of(earlier)) return true;
  }
  return false;
}

bool ordered_before(const Visit& v, u64 earlier) {
  if (!(earlier & v.mine & kBytes)) return true;
  if (earlier & v.mine & kOrdered) return true;
  const u64 segment = segment_of(earlier), now = segment_of(v.mine);
  if (segment < state().launch_first) {
    return task_is_ordered(task_of(segment));
  }
  const bool many_blocks = (earlier & kManyBlocks) == kManyBlocks;
  if (many_blocks || block_of(segment) != v.a.w.block->linear) {
    return ordered_by_atomics(v, earlier);
  }
  if (segment != now) return true;
  if (earlier & kManyWarps) return false;
  if (thread_of(earlier) / kLanes != thread_of(v.mine) / kLanes) return false;
  if (epoch_of(earlier) < epoch_of(v.mine)) return true;
  return thread_of(earlier) == thread_of(v.mine) && !(earlier & kManyLanes);
}

// A word keeps one reader: `mine` takes the place of the one before, or both become several readers
// of the bytes they have in common. What is forgotten can hide a race, not make one up.
u64 merged_reader(u64 before, u64 mine, u32 block) {
  const u64 common = before & mine & kBytes;
  if (segment_of(before) < state().launch_first || !common) return mine;
  const u64 ordered = before & mine & kOrdered;
  const u64 here = mine & kSegmentOnly;
  const bool many_blocks = (before & kManyBlocks) == kManyBlocks;
  if (many_blocks || block_of(segment_of(before)) != block)
    return here | kManyBlocks | ordered | common;
  if (segment_of(before) != segment_of(mine)) return mine;
  if (before & kManyWarps) return here | kManyWarps | ordered | common;
  if (thread_of(before) / kLanes != thread_of(mine) / kLanes) {
    return here | kManyWarps | ordered | common;
  }
  if (epoch_of(before) < epoch_of(mine)) return mine;
  if (thread_of(before) == thread_of(mine) && !(before & kManyLanes)) {
    return (mine & ~(kOrdered | kBytes)) | ordered | ((before | mine) & kBytes);
  }
  return (mine & ~(kOrdered | kBytes)) | kManyLanes | ordered | common;
}

u64 merged_writer(u64 before, u64 mine) {
  const bool same = (before & ~kBytes) == (mine & ~kBytes);
  return same ? before | mine : mine;
}

// What decides without looking at anything else: the word was last accessed before `floor`, or by
// the same lane in the same epoch.
bool nothing_new(u64 stamp, u64 mine, u64 floor) {
  return stamp < floor || ((stamp ^ mine) & ~(kOrdered | kBytes)) == 0;
}

void visit(const Visit& v, u64& writer, u64& reader, u64 floor) {
  const bool reads = v.a.kind == AccessKind::kRead;
  if (!nothing_new(writer, v.mine, floor) && !ordered_before(v, writer)) report(v, writer, true);
  if (reads) {
    reader = reader < floor ? v.mine : merged_reader(reader, v.mine, v.a.w.block->linear);
    return;
  }
  if (!nothing_new(reader, v.mine, floor) && !ordered_before(v, reader)) report(v, reader, false);
  writer = merged_writer(writer, v.mine);
}

// Consecutive words, kWords for each of the 32 lanes, that are all nothing new.
template <u32 kWords>
bool visit_row(const RaceAccess& a, u64* writers, u64* readers, u64 floor, u64 flags) {
  const u64* stamps = a.w.stamps.data();
  const i64 limit = static_cast<i64>(floor);
  u64 unusual = 0;
  for (u32 k = 0; k < kLanes * kWords; ++k) {
    const bool write_ok = static_cast<i64>(writers[k]) < limit;
    const bool read_ok = static_cast<i64>(readers[k]) < limit ||
                         ((readers[k] ^ stamps[k / kWords]) & ~(kOrdered | kBytes)) == 0;
    unusual |= !(write_ok & read_ok);
  }
  if (unusual) return false;
  u64* to = a.kind == AccessKind::kRead ? readers : writers;
  for (u32 k = 0; k < kLanes * kWords; ++k) to[k] = stamps[k / kWords] | flags;
  return true;
}

bool visit_contiguous(const RaceAccess& a, u64* writers, u64* readers, u64 floor, u64 flags) {
  switch (a.bytes) {
    case 4: return visit_row<1>(a, writers, readers, floor, flags);
    case 8: return visit_row<2>(a, writers, readers, floor, flags);
    case 16: return visit_row<4>(a, writers, readers, floor, flags);
    default: return false;
  }
}

// Two lanes stand for all when all read one address that nobody has written: two make it a word
// read by several lanes.
u32 representatives(const RaceAccess& a) {
  const u64 address = a.address[std::countr_zero(a.mask)];
  u64 different = 0;
  for (u32 l = 0; l < kLanes; ++l) different |= a.mask >> l & 1 ? a.address[l] ^ address : 0;
  if (different) return a.mask;
  const u32 rest = a.mask & (a.mask - 1);
  return a.mask ^ (rest & (rest - 1));
}

void check(const RaceAccess& a, u64* writers, u64* readers, u64 first_address, u64 floor,
           bool shared) {
  const u64 ordered = a.ordered ? kOrdered : 0;
  const bool reads = a.kind == AccessKind::kRead;
  if (a.contiguous) {
    const u64 word = (a.address[0] - first_address) / 4;
    if (visit_contiguous(a, writers + word, readers + word, floor, ordered | kBytes)) return;
  }
  const u32 some = reads ? representatives(a) : a.mask;
  for_lanes(a.mask, [&](u32 l) {
    const u64 offset = a.address[l] - first_address;
    const u64 bytes = a.bytes >= 4 ? kBytes : ((1u << a.bytes) - 1) << (offset & 3);
    const u64 mine = a.w.stamps[l] | ordered | bytes;
    // Words already known as read by several lanes of this warp, or by several warps, in this
    // segment do not change with another such reader.
    const u64 by_warps = (mine & kSegmentOnly) | kManyWarps | ordered | bytes;
    const u64 by_lanes = (mine | kManyLanes) & ~kLaneOfThread;
    for (u64 word = offset / 4; word <= (offset + a.bytes - 1) / 4; ++word) {
      u64 &writer = writers[word], &reader = readers[word];
      if (reads && writer < floor) {
        if (reader == by_warps || (reader & ~kLaneOfThread) == by_lanes || !(some >> l & 1))
          continue;
      }
      visit({a, l, first_address + std::max(word * 4, offset), mine, shared}, writer, reader,
            floor);
    }
  });
}

// An ordered access: releases what the block has done before a fence, and acquires what others have
// released here.
void synchronise(const RaceAccess& a) {
  State& s = state();
  Block& b = *a.w.block;
  if (!b.fenced && s.releases.empty()) return;
  for_lanes(a.mask, [&](u32 l) {
    if (s.releases.contains(a.address[l])) s.acquired[b.linear].insert(a.address[l]);
    if (b.fenced) s.releases[a.address[l]][b.linear] = b.segment;
  });
}

u32 new_segment() {
  State& s = state();
  if (s.next_segment > 0x7fff'fff0) fault("race detector: too many barriers in one process");
  return s.next_segment++;
}

// Forgets the shadows of freed memory, and tasks that everything from now on is ordered after.
void tidy() {
  State& s = state();
  std::erase_if(s.cells, [](const auto& entry) { return !entry.second.allocation->live; });
  size_t done = 0;
  while (done < s.tasks.size() && task_is_ordered(s.tasks[done].task)) ++done;
  s.safe = done == s.tasks.size() ? s.next_segment : s.tasks[done].first;
  s.tasks.erase(s.tasks.begin(), s.tasks.begin() + static_cast<std::ptrdiff_t>(done));
}

void begin_task() {
  State& s = state();
  tidy();
  s.launch_first = s.next_segment;
  s.tasks.push_back({s.next_segment, running_task()});
}

void set_stamps(Warp& w, u32 segment) {
  for (u32 l = 0; l < kLanes; ++l) {
    w.stamps[l] = static_cast<u64>(segment) << kSegmentShift |
                  static_cast<u64>(w.first_thread() + l) << kThreadShift;
  }
}

}  // namespace

RaceCells& cells_of(const Allocation& allocation) {
  RaceCells& c = state().cells[allocation.id];
  if (!c.allocation) {
    c.allocation = &allocation;
    const size_t words = allocation.size / 4 + 2;
    // calloc: pages of large shadows that nobody touches cost nothing.
    c.writes.reset(static_cast<u64*>(std::calloc(words, sizeof(u64))));
    c.reads.reset(static_cast<u64*>(std::calloc(words, sizeof(u64))));
  }
  return c;
}

void race_begin_launch() {
  State& s = state();
  begin_task();
  s.segment_block.clear();
  s.releases.clear();
  s.acquired.clear();
}

void race_begin_segment(Block& block) {
  block.segment = new_segment();
  state().segment_block.push_back(block.linear);
  for (Warp& w : block.warps) set_stamps(w, block.segment);
}

void race_sync_lanes(Warp& w, u32 mask) {
  u64 latest = 0;
  for_lanes(mask, [&](u32 l) { latest = std::max(latest, epoch_of(w.stamps[l])); });
  if (latest + 1 == kEpochs) return race_begin_segment(*w.block);
  for_lanes(mask, [&](u32 l) {
    w.stamps[l] = (w.stamps[l] & ~((kEpochs - 1) << kEpochShift)) | (latest + 1) << kEpochShift;
  });
}

void race_fence(Block& block) { block.fenced = true; }

void race_check_shared(const RaceAccess& a) {
  Block& b = *a.w.block;
  const u64 floor = static_cast<u64>(b.segment) << kSegmentShift;
  check(a, b.shared_writes.data(), b.shared_reads.data(), 0, floor, true);
}

void race_check_global(const RaceAccess& a, RaceCells& cells, u64 first_address) {
  if (a.ordered) synchronise(a);
  const u64 aligned = first_address & ~u64{3};
  const u64 floor = static_cast<u64>(state().safe) << kSegmentShift;
  check(a, cells.writes.get(), cells.reads.get(), aligned, floor, false);
}

void race_check_range(const void* p, size_t bytes, bool write) {
  const Allocation* a = find_allocation(p);
  if (!a || !bytes) return;
  RaceCells& cells = cells_of(*a);
  begin_task();
  const u64 segment = static_cast<u64>(new_segment()) << kSegmentShift;
  const u64 floor = static_cast<u64>(state().safe) << kSegmentShift;
  const u64 base = a->begin & ~u64{3};
  const u64 begin = reinterpret_cast<u64>(p) - base, end = begin + bytes;
  auto conflicts = [&](u64 stamp, u64 mine) {
    return stamp >= floor && (stamp & mine & kBytes) && segment_of(stamp) < state().launch_first &&
           !task_is_ordered(task_of(segment_of(stamp)));
  };
  for (u64 word = begin / 4; word <= (end - 1) / 4; ++word) {
    const u64 first = std::max(begin, word * 4) & 3,
              behind = std::min(end, word * 4 + 4) - word * 4;
    const u64 mine = segment | ((1u << behind) - (1u << first));
    if (conflicts(cells.writes[word], mine) || (write && conflicts(cells.reads[word], mine))) {
      fault(
          "data race on global memory at %#lx between streams: %s after an access by work in "
          "another stream that this one does not wait for",
          base + word * 4 + first, write ? "write" : "read");
    }
    (write ? cells.writes : cells.reads)[word] = mine;
  }
}

}  // namespace vgpu
