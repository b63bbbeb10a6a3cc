#pragma once
// Keys and values of a large text file in one piece of memory.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace centroid::audio {

/// Lines `KEY REST`, found by their key: their bytes, and 16 more a line.
class StringTable {
 public:
  void add(std::string_view key, std::string_view rest = {});

  /// Sorts by key (bytewise) and keeps the first line of each key; to be called after the last
  /// `add`. Returns the keys that were repeated, once a repetition, in their order in the file.
  std::vector<std::string> sort();

  size_t size() const { return entries_.size(); }
  std::string_view key(size_t i) const;
  std::string_view rest(size_t i) const;
  /// The position of a key; kNone when it is not there. Only after `sort`.
  size_t find(std::string_view key) const;
  static constexpr size_t kNone = static_cast<size_t>(-1);

 private:
  struct Entry {
    uint64_t at;
    uint32_t key_bytes, rest_bytes;
  };
  std::string bytes_;
  std::vector<Entry> entries_;
};

}  // namespace centroid::audio
