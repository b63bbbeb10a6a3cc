// The parsers of time marks: what they read is written and read back as it was.
#include <cmath>
#include <cstdint>
#include <string>

#include "apps/audio/ctm.h"
#include "apps/audio/textgrid.h"
#include "tensor/error.h"

namespace {

using namespace centroid;
using namespace centroid::audio;

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void require(bool condition) {
  if (!condition) __builtin_trap();
}

void ctm(const std::string& bytes) {
  const auto entries = parse_ctm(bytes, "input");
  const auto back = parse_ctm(format_ctm(entries), "output");
  require(back.size() == entries.size());
  for (size_t i = 0; i < back.size(); ++i) {
    const CtmEntry &a = entries[i], &b = back[i];
    require(a.recording == b.recording && a.channel == b.channel && a.word == b.word);
    require(same(a.begin, b.begin) && same(a.duration, b.duration));
    require(same(a.confidence, b.confidence));
  }
}

void require_same(const std::vector<TimedWord>& a, const std::vector<TimedWord>& b) {
  require(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    require(a[i].text == b[i].text && same(a[i].begin, b[i].begin) && same(a[i].end, b[i].end));
  }
}

void lab(const std::string& bytes) {
  const auto segments = parse_lab(bytes, "input");
  require_same(segments, parse_lab(format_lab(segments), "output"));
}

void textgrid(const std::string& bytes) {
  const TextGrid grid = parse_textgrid(bytes, "input");
  for (const bool short_format : {false, true}) {
    const TextGrid back = parse_textgrid(format_textgrid(grid, short_format), "output");
    require(same(grid.begin, back.begin) && same(grid.end, back.end));
    require(grid.tiers.size() == back.tiers.size());
    for (size_t i = 0; i < back.tiers.size(); ++i) {
      const Tier &a = grid.tiers[i], &b = back.tiers[i];
      require(a.name == b.name && a.points == b.points && same(a.begin, b.begin));
      require(same(a.end, b.end));
      require_same(a.marks, b.marks);
    }
  }
}

/// What was read must be writable: only the reading may throw.
template <typename Read, typename Check>
void accept(const std::string& bytes, const Read& read, const Check& check) {
  try {
    read(bytes, "input");
  } catch (const Error&) {
    return;
  }
  try {
    check(bytes);
  } catch (const Error&) {
    __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  accept(bytes, parse_ctm, ctm);
  accept(bytes, parse_lab, lab);
  accept(bytes, parse_textgrid, textgrid);
  return 0;
}
