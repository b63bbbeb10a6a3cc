// Pinned host memory, the copies that are in flight on it, and host access to closed memory.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "streams.h"

namespace vgpu {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPinnedAlignment = 64;

struct Block {
  size_t bytes;
  bool registered;  // by cudaHostRegister: its pages are not ours to close
};

std::map<uintptr_t, Block>& blocks() {
  static auto* all = new std::map<uintptr_t, Block>;
  return *all;
}

std::vector<const Transfer*>& in_flight() {
  static auto* all = new std::vector<const Transfer*>;
  return *all;
}

uintptr_t address_of(const void* p) { return reinterpret_cast<uintptr_t>(p); }
size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// The block that holds an address, or end().
auto block_at(uintptr_t address) {
  auto it = blocks().upper_bound(address);
  if (it == blocks().begin()) return blocks().end();
  --it;
  return address < it->first + it->second.bytes ? it : blocks().end();
}

// ---- closing the pages of copies in flight (VGPU_GUARD) -----------------------------------------

bool touches(const Transfer& transfer, uintptr_t low, size_t bytes) {
  Region range;
  range.data = reinterpret_cast<char*>(low), range.width = bytes;
  return transfer.region().overlaps(range);
}

int protection_of_page(uintptr_t page) {
  int protection = PROT_READ | PROT_WRITE;
  for (const Transfer* transfer : in_flight()) {
    if (!touches(*transfer, page, kPage)) continue;
    if (transfer->direction() == Transfer::Direction::to_host) return PROT_NONE;
    protection = PROT_READ;
  }
  return protection;
}

void protect_pages(const Region& region) {
  if (!options().guard) return;
  const auto block = block_at(address_of(region.data));
  if (block == blocks().end() || block->second.registered) return;
  const uintptr_t end = address_of(region.data) + region.extent();
  for (uintptr_t page = address_of(region.data) / kPage * kPage; page < end; page += kPage) {
    mprotect(reinterpret_cast<void*>(page), kPage, protection_of_page(page));
  }
  watch_closed_memory();
}

// Opens pages that other copies in flight have closed: the runtime itself is about to use them.
void open_pages(const Region& region) {
  if (!options().guard) return;
  const auto block = block_at(address_of(region.data));
  if (block == blocks().end() || block->second.registered) return;
  const uintptr_t low = address_of(region.data) / kPage * kPage;
  const size_t bytes = round_up(address_of(region.data) + region.extent(), kPage) - low;
  mprotect(reinterpret_cast<void*>(low), bytes, PROT_READ | PROT_WRITE);
}

// ---- the handler --------------------------------------------------------------------------------

struct sigaction previous_handler;

const char* access_name(const void* context) {
  constexpr int kWriteBit = 2;  // of the page fault's error code
  const auto* registers = static_cast<const ucontext_t*>(context);
  return registers->uc_mcontext.gregs[REG_ERR] & kWriteBit ? "writes" : "reads";
}

// True when the access may be repeated.
bool handle_pinned(uintptr_t address, const char* access) {
  if (running_task() == 0) {
    for (const Transfer* transfer : in_flight()) {
      if (!touches(*transfer, address, 1)) continue;
      fault("host code %s pinned memory at %#lx while a copy %s it is in flight", access, address,
            transfer->direction() == Transfer::Direction::to_host ? "into" : "from");
    }
  }
  // A neighbour on the same page: correct, and from here on the page is not watched.
  if (block_at(address) == blocks().end()) return false;
  return mprotect(reinterpret_cast<void*>(address / kPage * kPage), kPage,
                  PROT_READ | PROT_WRITE) == 0;
}

void on_segv(int, siginfo_t* info, void* context) {
  const auto address = address_of(info->si_addr);
  const char* access = access_name(context);
  if (in_device_arena(info->si_addr)) {
    const Allocation* record = lookup(info->si_addr);
    fault("host code %s device memory at %#lx (offset %ld of %sbuffer #%u, %zu bytes)", access,
          address, record ? static_cast<long>(address - record->begin) : 0L,
          record && !record->live ? "freed " : "", record ? record->id : 0,
          record ? record->size : 0);
  }
  if (handle_pinned(address, access)) return;
  sigaction(SIGSEGV, &previous_handler, nullptr);  // and the access is repeated
}

}  // namespace

void watch_closed_memory() {
  struct sigaction present;
  sigaction(SIGSEGV, nullptr, &present);
  if ((present.sa_flags & SA_SIGINFO) && present.sa_sigaction == on_segv) return;
  previous_handler = present;
  struct sigaction ours = {};
  ours.sa_sigaction = on_segv;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &ours, nullptr);
}

// ---- blocks -------------------------------------------------------------------------------------

HostMemory host_memory(const Region& region) {
  const uintptr_t begin = address_of(region.data), end = begin + region.extent();
  const auto block = block_at(begin);
  if (block != blocks().end()) {
    return end <= block->first + block->second.bytes ? HostMemory::pinned : HostMemory::straddling;
  }
  const auto next = blocks().lower_bound(begin);
  return next != blocks().end() && next->first < end ? HostMemory::straddling
                                                     : HostMemory::pageable;
}

// Each block has pages of its own and a closed page behind; as with device memory no address is
// used twice.
void* allocate_pinned(size_t bytes) {
  const size_t pages = round_up(bytes, kPage);
  void* low =
      mmap(nullptr, pages + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (low == MAP_FAILED) return nullptr;
  mprotect(static_cast<char*>(low) + pages, kPage, PROT_NONE);
  char* p = static_cast<char*>(low) + pages - round_up(bytes, kPinnedAlignment);
  if (options().poison) std::memset(p, 0xff, bytes);
  blocks()[address_of(p)] = {bytes, false};
  return p;
}

bool release_pinned(void* p) {
  const auto it = blocks().find(address_of(p));
  if (it == blocks().end() || it->second.registered) return false;
  const uintptr_t low = it->first / kPage * kPage;
  const size_t bytes = round_up(it->first + it->second.bytes, kPage) - low;
  blocks().erase(it);
  madvise(reinterpret_cast<void*>(low), bytes, MADV_DONTNEED);
  mprotect(reinterpret_cast<void*>(low), bytes, PROT_NONE);
  return true;
}

bool register_pinned(void* p, size_t bytes) {
  Region region;
  region.data = static_cast<char*>(p), region.width = bytes;
  if (host_memory(region) != HostMemory::pageable) return false;
  blocks()[address_of(p)] = {bytes, true};
  return true;
}

bool unregister_pinned(void* p) {
  const auto it = blocks().find(address_of(p));
  if (it == blocks().end() || !it->second.registered) return false;
  blocks().erase(it);
  return true;
}

// ---- copies in flight ---------------------------------------------------------------------------

Transfer::Transfer(const Region& region, Direction direction)
    : region_(region), direction_(direction) {
  const auto other = [&](Direction wanted) {
    return std::any_of(in_flight().begin(), in_flight().end(), [&](const Transfer* t) {
      return t->direction() == wanted && t->region().overlaps(region_);
    });
  };
  open_pages(region);
  if (direction == Direction::from_host) {
    // What an earlier copy is still going to write here changes without the host's doing.
    checked_ = !other(Direction::to_host);
    if (checked_) checksum_ = checksum();
  } else if (options().poison && !other(Direction::from_host)) {
    // A host that reads the result too early finds no old values that look right.
    for (size_t row = 0; row < region.height; ++row) {
      std::memset(region.data + row * region.pitch, 0xff, region.width);
    }
  }
  in_flight().push_back(this);
  protect_pages(region_);
}

Transfer::~Transfer() {
  std::erase(in_flight(), this);
  protect_pages(region_);
}

void Transfer::arrive(const std::string& what) {
  std::erase(in_flight(), this);
  open_pages(region_);
  if (checked_ && checksum() != checksum_) {
    fault(
        "%s: the pinned host memory at %p was changed while the copy was in flight (wait for an "
        "event before reusing it)",
        what.c_str(), static_cast<void*>(region_.data));
  }
}

uint64_t Transfer::checksum() const {
  uint64_t hash = 0x9e3779b97f4a7c15ull;
  for (size_t row = 0; row < region_.height; ++row) {
    const char* p = region_.data + row * region_.pitch;
    for (size_t i = 0; i < region_.width; i += sizeof(uint64_t)) {
      uint64_t word = 0;
      std::memcpy(&word, p + i, std::min(sizeof word, region_.width - i));
      hash = (hash ^ word) * 0xd6e8feb86659fd93ull;
      hash ^= hash >> 32;
    }
  }
  return hash;
}

}  // namespace vgpu
