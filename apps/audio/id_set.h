#pragma once
// A set of strings that keeps their hashes only: what finding repeated ids takes in manifests of
// millions of lines.
#include <cstdint>
#include <string_view>
#include <vector>

namespace centroid::audio {

/// Knows which strings it has been given, in 128 bits each: two of n different strings are taken
/// for one with a probability below n^2 / 2^129, less than 1e-26 for a million.
class IdSet {
 public:
  /// Adds `id`; false when it was there already.
  bool insert(std::string_view id);
  bool contains(std::string_view id) const;

  size_t size() const { return size_; }
  /// Bytes of memory: 21 to 43 a string, and 64 for a moment while it grows.
  size_t bytes() const { return slots_.capacity() * sizeof(Hash); }

 private:
  struct Hash {
    uint64_t low = 0, high = 0;  // both 0: a free slot
    friend bool operator==(const Hash&, const Hash&) = default;
  };
  static Hash hash_of(std::string_view id);
  // Where `hash` is, or the free slot where it belongs.
  size_t slot_of(const Hash& hash) const;
  void grow();

  std::vector<Hash> slots_;  // open addressing with linear probing; a power of two
  size_t size_ = 0;
};

}  // namespace centroid::audio
