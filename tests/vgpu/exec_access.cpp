#include "exec_access.h"

#include <cinttypes>
#include <cstring>

#include "exec_race.h"
#include "vgpu.h"

namespace vgpu {
namespace {

const char* verb(AccessKind kind) {
  return kind == AccessKind::kRead ? "read" : kind == AccessKind::kWrite ? "write" : "update";
}

bool all_equal(const u8* p, size_t n, u8 value) {
  u8 different = 0;
  for (size_t k = 0; k < n; ++k) different |= p[k] ^ value;
  return different == 0;
}

// Shadow bytes of one lane's access; those the compiler says are unused count as set.
bool lane_equals(const u8* p, u32 n, u8 value, u32 used) {
  if (used == ~0u) {
    u64 word = 0;
    switch (n) {
      case 1: return *p == value;
      case 2: std::memcpy(&word, p, 2); return word == value * 0x0101u;
      case 4: std::memcpy(&word, p, 4); return word == value * 0x01010101u;
      case 8: std::memcpy(&word, p, 8); return word == value * 0x0101010101010101u;
      default: return all_equal(p, n, value);
    }
  }
  for (u32 k = 0; k < n; ++k) {
    if ((used >> k & 1) && p[k] != value) return false;
  }
  return true;
}

}  // namespace

bool g_counting = false;

WarpAccess::WarpAccess(Warp& w, const Instr& i, const Operand& address, i64 offset, u32 mask,
                       u32 bytes, AccessKind kind, bool ordered)
    : w_(w), i_(i), mask_(mask), bytes_(bytes), kind_(kind), ordered_(ordered) {
  const u64 add = static_cast<u64>(offset);
  if (address.is_wide || address.is_constant) {
    const auto* a = lanes_of<u64>(w, address);
    for (u32 l = 0; l < kLanes; ++l) address_[l] = a[l] + add;
  } else {
    const auto* a = lanes_of<u32>(w, address);
    for (u32 l = 0; l < kLanes; ++l) address_[l] = a[l] + add;
  }
  find_contiguous();
}

WarpAccess::WarpAccess(Warp& w, const Instr& i, const std::array<u64, kLanes>& address, u32 mask,
                       u32 bytes, AccessKind kind)
    : w_(w), i_(i), mask_(mask), bytes_(bytes), kind_(kind), ordered_(false), address_(address) {
  find_contiguous();
}

void WarpAccess::find_contiguous() {
  if (mask_ != kFullMask) return;
  u64 different = 0;
  for (u32 l = 0; l < kLanes; ++l) different |= address_[l] ^ (address_[0] + l * bytes_);
  contiguous_ = different == 0;
}

// The lanes whose addresses are in the same window as the first one's, made into offsets in it.
u32 WarpAccess::next_window(u32 lanes, StateSpace& space) {
  const u64 window = address_[static_cast<u32>(std::countr_zero(lanes))] & kWindowMask;
  u32 part = 0;
  for_lanes(lanes, [&](u32 l) {
    if ((address_[l] & kWindowMask) != window) return;
    part |= 1u << l;
    address_[l] &= ~kWindowMask;
  });
  space = window == kSharedWindow  ? StateSpace::kShared
          : window == kLocalWindow ? StateSpace::kLocal
          : window == kParamWindow ? StateSpace::kParam
                                   : StateSpace::kGlobal;
  contiguous_ = contiguous_ && part == kFullMask;
  if (space == StateSpace::kGlobal) {
    for_lanes(part, [&](u32 l) { address_[l] |= window; });
  }
  return part;
}

void WarpAccess::measure(u32 lanes) {
  if (contiguous_) {
    low_ = address_[0];
    high_ = address_[0] + kLanes * bytes_;
    return;
  }
  low_ = ~u64{0}, high_ = 0;
  for (u32 l = 0; l < kLanes; ++l) {
    const bool in = lanes >> l & 1;
    low_ = in && address_[l] < low_ ? address_[l] : low_;
    high_ = in && address_[l] > high_ ? address_[l] : high_;
  }
  high_ += bytes_;
}

void WarpAccess::report(u32 lane, const char* problem) {
  lane_fault(w_, lane, "%s: %u-byte %s at %#" PRIx64, problem, bytes_, verb(kind_), address_[lane]);
}

void WarpAccess::check_alignment(u32 lanes, const char* what) {
  u64 low_bits = 0;
  for (u32 l = 0; l < kLanes; ++l) low_bits |= lanes >> l & 1 ? address_[l] : 0;
  if ((low_bits & (bytes_ - 1)) == 0) return;
  for_lanes(lanes, [&](u32 l) {
    if (address_[l] & (bytes_ - 1)) report(l, what);
  });
}

std::byte* WarpAccess::check(StateSpace space, u32 lanes) {
  switch (space) {
    case StateSpace::kShared: return check_shared(lanes);
    case StateSpace::kLocal: return check_local(lanes);
    case StateSpace::kParam: return check_params(lanes);
    default: return check_global(lanes);
  }
}

// ---- global memory
// --------------------------------------------------------------------------------

std::byte* WarpAccess::check_global(u32 lanes) {
  check_alignment(lanes, "misaligned address");
  for (u32 rest = lanes; rest;) {
    measure(rest);
    const u32 part = check_allocation(rest);
    if (part != rest) {
      contiguous_ = false;
      measure(part);
    }
    if (g_counting) {
      count_access(w_, i_, StateSpace::kGlobal, address_.data(), i_.cache.begin, part, bytes_);
    }
    if (i_.cache.valid) check_valid(part);
    if (i_.cache.cells && options().race) {
      race_check_global({w_, address_.data(), part, bytes_, kind_, ordered_, contiguous_},
                        *i_.cache.cells, i_.cache.begin);
    }
    rest &= ~part;
  }
  return nullptr;
}

// The lanes that access the allocation which the first of them accesses; it is cached.
u32 WarpAccess::check_allocation(u32 lanes) {
  AccessCache& cache = i_.cache;
  const u32 launch = w_.block->launch->number;
  if (cache.launch == launch && low_ >= cache.begin && high_ <= cache.end) return lanes;
  const u32 first = static_cast<u32>(std::countr_zero(lanes));
  const u64 address = address_[first];
  auto* p = reinterpret_cast<void*>(address);
  const Allocation* a = find_allocation(p);
  if (!in_device_arena(p)) report(first, "out of bounds: this is no device memory");
  if (!a || !a->live || address + bytes_ > a->begin + a->size) {
    lane_fault(w_, first,
               "out of bounds: %u-byte %s at %#" PRIx64 ", offset %" PRIu64
               " of device buffer #%u of %zu bytes%s",
               bytes_, verb(kind_), address, a ? address - a->begin : 0, a ? a->id : 0,
               a ? a->size : 0, a && !a->live ? " (freed)" : "");
  }
  RaceCells& cells = cells_of(*a);
  if (a->valid && !cells.all_valid && cells.looked_in_launch != launch) {
    cells.looked_in_launch = launch;
    cells.all_valid = !std::memchr(a->valid, 0, a->size);
  }
  cache = {launch, a->begin, a->begin + a->size, cells.all_valid ? nullptr : a->valid, &cells};
  u32 part = 0;
  for_lanes(lanes, [&](u32 l) {
    part |= static_cast<u32>(address_[l] >= cache.begin && address_[l] + bytes_ <= cache.end) << l;
  });
  return part;
}

void WarpAccess::check_valid(u32 lanes) {
  u8* valid = i_.cache.valid - i_.cache.begin;
  if (kind_ == AccessKind::kWrite) {
    if (contiguous_) {
      std::memset(valid + low_, 1, high_ - low_);
    } else {
      for_lanes(lanes, [&](u32 l) { std::memset(valid + address_[l], 1, bytes_); });
    }
    return;
  }
  if (!options().init) return;
  if (contiguous_ && all_equal(valid + low_, high_ - low_, 1)) return;
  for_lanes(lanes, [&](u32 l) {
    if (!lane_equals(valid + address_[l], bytes_, 1, i_.used_bytes)) {
      report(l, "uninitialised device memory");
    }
  });
}

// ---- other spaces
// ---------------------------------------------------------------------------------

std::byte* WarpAccess::check_shared(u32 lanes) {
  Block& b = *w_.block;
  measure(lanes);
  check_alignment(lanes,
                  "misaligned shared access (the declared alignment is all that is guaranteed)");
  if (g_counting) count_access(w_, i_, StateSpace::kShared, address_.data(), 0, lanes, bytes_);
  const bool write = kind_ == AccessKind::kWrite;
  u8* state = b.shared_state.data();
  const bool inside = high_ <= b.shared_size && low_ < high_;
  if (!inside || !contiguous_ || !all_equal(state + low_, high_ - low_, kInitialised)) {
    const bool checks_init = !write && options().init;
    for_lanes(lanes, [&](u32 l) {
      if (address_[l] + bytes_ > b.shared_size) report(l, "out of bounds of shared memory");
      u8* s = state + address_[l];
      if (lane_equals(s, bytes_, kInitialised, ~0u)) return;
      if (std::memchr(s, kOutside, bytes_)) report(l, "out of bounds of every shared variable");
      if (write) {
        std::memset(s, kInitialised, bytes_);
      } else if (checks_init && !lane_equals(s, bytes_, kInitialised, i_.used_bytes)) {
        report(l, "uninitialised shared memory");
      }
    });
  }
  if (options().race) {
    race_check_shared({w_, address_.data(), lanes, bytes_, kind_, ordered_, contiguous_});
  }
  return b.shared;
}

std::byte* WarpAccess::check_local(u32 lanes) {
  check_alignment(lanes, "misaligned local address");
  for_lanes(lanes, [&](u32 l) {
    if (address_[l] + bytes_ > w_.local_size) report(l, "out of bounds of local memory");
    address_[l] += static_cast<u64>(l) * w_.local_stride;
  });
  contiguous_ = false;
  return w_.local.data();
}

std::byte* WarpAccess::check_params(u32 lanes) {
  const auto& params = w_.block->launch->params;
  if (kind_ != AccessKind::kRead) {
    report(static_cast<u32>(std::countr_zero(lanes)), "write to kernel parameters");
  }
  for_lanes(lanes, [&](u32 l) {
    if (address_[l] + bytes_ > params.size()) report(l, "out of bounds of kernel parameters");
  });
  return const_cast<std::byte*>(params.data());
}

void invalidate_shared(Warp& w, u64 address, u32 bytes) {
  std::memset(w.block->shared_state.data() + address, kUninitialised, bytes);
}

}  // namespace vgpu
