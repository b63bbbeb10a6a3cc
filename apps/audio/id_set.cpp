#include "apps/audio/id_set.h"

#include <utility>

namespace centroid::audio {

namespace {

// The finaliser of SplitMix64: every bit of the result depends on every bit of `x`.
uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

}  // namespace

// Two FNV-1a walks with different multipliers, each finished by mix().
IdSet::Hash IdSet::hash_of(std::string_view id) {
  uint64_t low = 14695981039346656037u, high = 0x9E3779B97F4A7C15u;
  for (const char c : id) {
    low = (low ^ static_cast<unsigned char>(c)) * 1099511628211u;
    high = (high ^ static_cast<unsigned char>(c)) * 0xD6E8FEB86659FD93u;
    high ^= high >> 32;
  }
  const Hash hash{mix(low), mix(high ^ id.size())};
  return hash == Hash{} ? Hash{1, 0} : hash;
}

size_t IdSet::slot_of(const Hash& hash) const {
  const size_t mask = slots_.size() - 1;
  size_t at = hash.low & mask;
  while (slots_[at] != Hash{} && slots_[at] != hash) at = (at + 1) & mask;
  return at;
}

bool IdSet::contains(std::string_view id) const {
  return !slots_.empty() && slots_[slot_of(hash_of(id))] != Hash{};
}

bool IdSet::insert(std::string_view id) {
  if (4 * (size_ + 1) > 3 * slots_.size()) grow();
  const Hash hash = hash_of(id);
  Hash& slot = slots_[slot_of(hash)];
  if (slot != Hash{}) return false;
  slot = hash;
  ++size_;
  return true;
}

void IdSet::grow() {
  std::vector<Hash> old(slots_.empty() ? 16 : 2 * slots_.size());
  std::swap(old, slots_);
  for (const Hash& hash : old) {
    if (hash != Hash{}) slots_[slot_of(hash)] = hash;
  }
}

}  // namespace centroid::audio
