// Device memory: an arena in which every allocation has pages of its own with a closed page behind
// them, and in which no address is handed out twice.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "streams.h"

namespace vgpu {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kArenaBytes = size_t{1} << 42;
// CUDA promises this alignment of allocations. Each ends as close to a closed page as it allows.
constexpr size_t kAlignment = 256;

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

class Arena {
 public:
  Arena() {
    void* p =
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fault("no address space for device memory");
    begin_ = reinterpret_cast<uintptr_t>(p);
    next_ = begin_ + kPage;
  }

  bool contains(const void* p) const {
    return reinterpret_cast<uintptr_t>(p) - begin_ < kArenaBytes;
  }

  // Addresses only grow, so the records are in order.
  Allocation* lookup(const void* p) {
    if (!contains(p)) return nullptr;
    const auto address = reinterpret_cast<uintptr_t>(p);
    auto after = std::upper_bound(records_.begin(), records_.end(), address,
                                  [](uintptr_t a, const Allocation& r) { return a < r.begin; });
    return after == records_.begin() ? nullptr : &*--after;
  }

  Allocation* allocate(size_t bytes, int device) {
    const size_t pages = round_up(std::max<size_t>(bytes, 1), kPage);
    if (pages + kPage > begin_ + kArenaBytes - next_)
      fault("the arena of device memory is used up");
    const uintptr_t low = next_;
    next_ += pages + kPage;
    set_protection(low, pages, PROT_READ | PROT_WRITE);
    Allocation record{};
    record.begin = low + pages - round_up(std::max<size_t>(bytes, 1), kAlignment);
    record.size = bytes, record.live = true, record.device = device;
    record.id = static_cast<unsigned>(records_.size() + 1);
    if (options().poison) std::memset(reinterpret_cast<void*>(record.begin), 0xff, bytes);
    if (options().init) {
      record.valid = static_cast<uint8_t*>(std::calloc(std::max<size_t>(bytes, 1), 1));
      if (!record.valid) fault("no host memory to track %zu bytes", bytes);
    }
    records_.push_back(record);
    live_[record.begin] = &records_.back();
    if (device != kAnyDevice) count(device, static_cast<int64_t>(bytes));
    if (depth_ == 0 && options().guard) protect(record, false);
    return &records_.back();
  }

  void release(Allocation& record) {
    record.live = false;
    live_.erase(record.begin);
    if (record.device != kAnyDevice) count(record.device, -static_cast<int64_t>(record.size));
    watch_closed_memory();
    const auto [low, bytes] = pages_of(record);
    madvise(reinterpret_cast<void*>(low), bytes, MADV_DONTNEED);
    set_protection(low, bytes, PROT_NONE);
    std::free(record.valid);
    record.valid = nullptr;
  }

  void open() {
    if (depth_++ == 0) protect_all(true);
  }
  void close() {
    if (--depth_ == 0) protect_all(false);
  }
  void close_entirely() {
    if (depth_ > 0) depth_ = 1, close();
  }

  uint64_t used(int device) { return used_[device]; }
  uint64_t peak(int device) { return peak_[device]; }

  void print_leaks() {
    size_t number = 0, bytes = 0;
    for (const auto& [begin, record] : live_) {
      if (record->device == kAnyDevice) continue;
      ++number, bytes += record->size;
      std::fprintf(stderr, "== vgpu: leak: device %d, buffer #%u of %zu bytes at %#lx\n",
                   record->device, record->id, record->size, record->begin);
    }
    std::fprintf(stderr, "== vgpu: %zu live allocations at exit, %zu bytes\n", number, bytes);
  }

 private:
  static std::pair<uintptr_t, size_t> pages_of(const Allocation& record) {
    const uintptr_t low = record.begin / kPage * kPage;
    return {low, round_up(record.begin + std::max<size_t>(record.size, 1), kPage) - low};
  }
  static void set_protection(uintptr_t low, size_t bytes, int protection) {
    if (mprotect(reinterpret_cast<void*>(low), bytes, protection) != 0) {
      fault(
          "mprotect: %s (each live allocation needs two of the kernel's memory maps: see "
          "vm.max_map_count)",
          std::strerror(errno));
    }
  }
  static void protect(const Allocation& record, bool open) {
    const auto [low, bytes] = pages_of(record);
    set_protection(low, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
    if (!open) watch_closed_memory();
  }
  void protect_all(bool open) {
    if (!options().guard) return;
    for (const auto& [begin, record] : live_) protect(*record, open);
  }
  void count(int device, int64_t bytes) {
    used_[device] += static_cast<uint64_t>(bytes);
    peak_[device] = std::max(peak_[device], used_[device]);
  }

  uintptr_t begin_, next_;
  std::deque<Allocation> records_;  // a deque: records stay where they are
  std::map<uintptr_t, Allocation*> live_;
  std::map<int, uint64_t> used_, peak_;
  int depth_ = 0;
};

// Never destroyed: objects of other files may free device memory in their destructors.
Arena& arena() {
  static Arena* instance = [] {
    auto* made = new Arena;
    if (options().leaks) std::atexit([] { arena().print_leaks(); });
    return made;
  }();
  return *instance;
}

// The first byte of [p, p + bytes) that nothing has written, or `bytes`.
size_t first_uninitialised(const Allocation& record, const char* p, size_t bytes) {
  const uint8_t* valid = record.valid + (reinterpret_cast<uintptr_t>(p) - record.begin);
  const void* zero = std::memchr(valid, 0, bytes);
  return zero ? static_cast<size_t>(static_cast<const uint8_t*>(zero) - valid) : bytes;
}

}  // namespace

bool in_device_arena(const void* p) { return arena().contains(p); }

Allocation* lookup(const void* p) { return arena().lookup(p); }

Allocation* find_allocation(const void* p) {
  Allocation* record = lookup(p);
  const int device = running_kernel_device();
  if (record && record->device != device && record->device != kAnyDevice && device != kAnyDevice &&
      reinterpret_cast<uintptr_t>(p) < record->begin + record->size) {
    fault("%p is memory of device %d (buffer #%u), accessed by a kernel of device %d", p,
          record->device, record->id, device);
  }
  return record;
}

Allocation* allocate(size_t bytes, int device) {
  const uint64_t used = used_memory(device);
  if (bytes > options().memory || used > options().memory - bytes) return nullptr;
  return arena().allocate(bytes, device);
}

void* allocate_symbol(size_t bytes) {
  device_access_begin();
  Allocation* record = arena().allocate(bytes, kAnyDevice);
  auto* p = reinterpret_cast<void*>(record->begin);
  std::memset(p, 0, bytes);
  if (record->valid) std::memset(record->valid, 1, bytes);
  device_access_end();
  return p;
}

void release(Allocation& allocation) { arena().release(allocation); }
uint64_t used_memory(int device) { return arena().used(device); }
uint64_t peak_memory(int device) { return arena().peak(device); }
void device_access_begin() { arena().open(); }
void device_access_end() { arena().close(); }
void close_device_access() { arena().close_entirely(); }

std::string range_problem(const void* p, size_t bytes) {
  char text[256];
  const Allocation* record = lookup(p);
  if (!record) {
    std::snprintf(text, sizeof text, "%p is no device memory", p);
    return text;
  }
  const size_t offset = reinterpret_cast<uintptr_t>(p) - record->begin;
  if (record->live && offset <= record->size && bytes <= record->size - offset) return "";
  std::snprintf(text, sizeof text,
                "[%p, +%zu) is outside of %sdevice buffer #%u (offset %zu of %zu bytes)", p, bytes,
                record->live ? "" : "freed ", record->id, offset, record->size);
  return text;
}

void use_device_memory(const char* what, const Region& region, bool write) {
  for (size_t row = 0; row < region.height && region.width; ++row) {
    char* p = region.data + row * region.pitch;
    const std::string problem = range_problem(p, region.width);
    if (!problem.empty()) fault("%s: %s", what, problem.c_str());
    const Allocation& record = *lookup(p);
    if (options().race) race_check_range(p, region.width, write);
    if (!record.valid) continue;
    if (write) {
      std::memset(record.valid + (reinterpret_cast<uintptr_t>(p) - record.begin), 1, region.width);
      continue;
    }
    const size_t first = first_uninitialised(record, p, region.width);
    if (first < region.width) {
      fault(
          "%s: reads uninitialised device memory: byte %zu of %zu at %p, offset %zu of buffer #%u",
          what, first, region.width, static_cast<void*>(p),
          reinterpret_cast<uintptr_t>(p) + first - record.begin, record.id);
    }
  }
}

}  // namespace vgpu
