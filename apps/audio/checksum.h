#pragma once
// A checksum against damage and mix-ups, not against malice.
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace centroid::audio {

/// 64 bits of `bytes` bytes, going on from `state`. Each word of 8 bytes enters by a map that is
/// one-to-one in the word and in the state, so a change of one word is always noticed; other
/// changes pass with probability 2^-64.
inline uint64_t checksum(const void* data, size_t bytes, uint64_t state = 0) {
  const auto step = [](uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15ull;
    return h ^ (h >> 29);
  };
  uint64_t h = step(state, bytes);
  const auto* at = static_cast<const unsigned char*>(data);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    h = step(h, word);
  }
  uint64_t rest = 0;
  if (bytes > 0) std::memcpy(&rest, at, bytes);
  return step(h, rest);
}

}  // namespace centroid::audio
