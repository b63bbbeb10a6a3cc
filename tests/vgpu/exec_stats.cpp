#include "exec_stats.h"

#include <cstdio>

#include "engine.h"
#include "exec_access.h"
#include "vgpu.h"

namespace vgpu {
namespace {

Counters& counters_of(const Function& f, u32 pc) {
  if (f.counters.size() != f.code.size()) f.counters.resize(f.code.size());
  return f.counters[pc];
}

// How many different values the first n of `values` have; they are sorted.
u32 distinct(u64* values, u32 n) {
  std::sort(values, values + n);
  return static_cast<u32>(std::unique(values, values + n) - values);
}

void count_sectors(Counters& c, const u64* address, u32 mask, u32 bytes) {
  constexpr u32 kSector = 32;
  u64 sectors[2 * kLanes], addresses[kLanes];
  u32 n = 0, lanes = 0;
  for_lanes(mask, [&](u32 l) {
    addresses[lanes++] = address[l];
    sectors[n++] = address[l] / kSector;
    if ((address[l] + bytes - 1) / kSector != address[l] / kSector)
      sectors[n++] = address[l] / kSector + 1;
  });
  c.sectors += distinct(sectors, n);
  c.sectors_ideal += (distinct(addresses, lanes) * bytes + kSector - 1) / kSector;
}

void count_passes(Counters& c, const u64* address, u32 mask, u32 bytes) {
  constexpr u32 kBanks = 32;
  const u32 together = bytes > 4 ? kLanes * 4 / bytes : kLanes;
  for (u32 first = 0; first < kLanes; first += together) {
    const u32 part = mask & (together == kLanes ? kFullMask : ((1u << together) - 1) << first);
    if (!part) continue;
    u64 words[kLanes];
    u32 n = 0;
    for_lanes(part, [&](u32 l) {
      for (u32 k = 0; k < std::max(bytes, 4u); k += 4) words[n++] = (address[l] + k) / 4;
    });
    n = distinct(words, n);
    u32 in_bank[kBanks] = {};
    u32 most = 0;
    for (u32 k = 0; k < n; ++k) most = std::max(most, ++in_bank[words[k] % kBanks]);
    c.passes += most;
    ++c.passes_ideal;
  }
}

void add(Counters& sum, const Counters& c) {
  sum.issued += c.issued;
  sum.lanes += c.lanes;
  sum.sectors += c.sectors;
  sum.sectors_ideal += c.sectors_ideal;
  sum.passes += c.passes;
  sum.passes_ideal += c.passes_ideal;
}

std::string lanes_percent(const Counters& c) {
  char text[32];
  const u64 all = std::max<u64>(c.issued * kLanes, 1);
  std::snprintf(text, sizeof text, "%.1f%%",
                100.0 * static_cast<double>(c.lanes) / static_cast<double>(all));
  return text;
}

// The kernel's name without what depends on where it was compiled.
std::string stable_name(const Function& f) {
  std::string name = demangled(f.name);
  for (size_t at; (at = name.find("_INTERNAL_")) != name.npos;) {
    size_t end = at;
    while (end < name.size() &&
           (std::isalnum(static_cast<unsigned char>(name[end])) || name[end] == '_'))
      ++end;
    name.replace(at, end - at, "(file)");
  }
  return name;
}

std::string function_text(const Function& f, u64 launches) {
  std::map<std::pair<std::string, u32>, Counters> lines;
  Counters all;
  for (size_t k = 0; k < f.counters.size(); ++k) {
    const Instr& i = f.code[k];
    const Location own = own_location(f, i);
    add(lines[{file_name(f, own.file), own.line}], f.counters[k]);
    add(all, f.counters[k]);
  }
  std::string text = std::string(f.is_kernel ? "kernel " : "function ") + stable_name(f) + "\n  ";
  if (f.is_kernel) {
    text += "launches " + std::to_string(launches) + "  threads " + std::to_string(f.most_threads) +
            "  shared " + std::to_string(f.most_dynamic_shared) + "  ";
  }
  text += "warp instructions " + std::to_string(all.issued) + "  active lanes " +
          lanes_percent(all) + "\n";
  auto ratio = [](const char* name, u64 value, u64 ideal) {
    return ideal ? "  " + std::string(name) + " " + std::to_string(value) + "/" +
                       std::to_string(ideal)
                 : std::string();
  };
  for (const auto& [line, c] : lines) {
    if (!c.issued) continue;
    text += "  " + line.first + ":" + std::to_string(line.second) + "  issued " +
            std::to_string(c.issued) + "  lanes " + lanes_percent(c) +
            ratio("sectors", c.sectors, c.sectors_ideal) +
            ratio("bank passes", c.passes, c.passes_ideal) + "\n";
  }
  return text;
}

struct WriteAtExit {
  ~WriteAtExit() {
    std::FILE* file = std::fopen(options().stats.c_str(), "w");
    if (!file) return;
    const std::string text = stats_text();
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
};

}  // namespace

void start_counting() {
  if (options().stats.empty()) return;
  static const WriteAtExit writer;
  g_counting = true;
}

void count_issue(const Function& f, u32 pc, u32 active) {
  Counters& c = counters_of(f, pc);
  ++c.issued;
  c.lanes += static_cast<u64>(std::popcount(active));
}

void count_access(const Warp& w, const Instr& i, StateSpace space, const u64* address, u64 base,
                  u32 mask, u32 bytes) {
  const Function& f = *w.frame->function;
  Counters& c = counters_of(f, static_cast<u32>(&i - f.code.data()));
  std::array<u64, kLanes> relative{};
  for_lanes(mask, [&](u32 l) { relative[l] = address[l] - base; });
  if (space == StateSpace::kShared) {
    count_passes(c, relative.data(), mask, bytes);
  } else {
    count_sectors(c, relative.data(), mask, bytes);
  }
}

std::string stats_text() {
  std::vector<std::string> parts;
  for (const Module* m : loaded_modules()) {
    for (const auto& [name, f] : m->functions) {
      if (!f->counters.empty()) parts.push_back(function_text(*f, f->launches));
    }
  }
  std::sort(parts.begin(), parts.end());
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

}  // namespace vgpu
