#include "apps/audio/string_table.h"

#include <algorithm>
#include <limits>

#include "tensor/error.h"

namespace centroid::audio {

void StringTable::add(std::string_view key, std::string_view rest) {
  constexpr size_t kLongest = std::numeric_limits<uint32_t>::max();
  CENTROID_CHECK(key.size() <= kLongest && rest.size() <= kLongest,
                 "expected lines below 4 GiB, got one of ", key.size() + rest.size(), " bytes");
  entries_.push_back(
      {bytes_.size(), static_cast<uint32_t>(key.size()), static_cast<uint32_t>(rest.size())});
  bytes_.append(key).append(rest);
}

std::string_view StringTable::key(size_t i) const {
  return std::string_view(bytes_).substr(entries_[i].at, entries_[i].key_bytes);
}

std::string_view StringTable::rest(size_t i) const {
  const Entry& e = entries_[i];
  return std::string_view(bytes_).substr(e.at + e.key_bytes, e.rest_bytes);
}

std::vector<std::string> StringTable::sort() {
  const auto key_of = [&](const Entry& e) {
    return std::string_view(bytes_).substr(e.at, e.key_bytes);
  };
  // Among equal keys the first line of the file comes first.
  std::sort(entries_.begin(), entries_.end(), [&](const Entry& a, const Entry& b) {
    const int order = key_of(a).compare(key_of(b));
    return order != 0 ? order < 0 : a.at < b.at;
  });
  std::vector<Entry> again;
  size_t kept = 0;
  for (const Entry& e : entries_) {
    if (kept > 0 && key_of(entries_[kept - 1]) == key_of(e)) {
      again.push_back(e);
    } else {
      entries_[kept++] = e;
    }
  }
  entries_.resize(kept);
  std::sort(again.begin(), again.end(), [](const Entry& a, const Entry& b) { return a.at < b.at; });
  std::vector<std::string> repeated;
  for (const Entry& e : again) repeated.emplace_back(key_of(e));
  return repeated;
}

size_t StringTable::find(std::string_view wanted) const {
  size_t low = 0, high = entries_.size();
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    (key(middle) < wanted ? low : high) = key(middle) < wanted ? middle + 1 : middle;
  }
  return low < entries_.size() && key(low) == wanted ? low : kNone;
}

}  // namespace centroid::audio
