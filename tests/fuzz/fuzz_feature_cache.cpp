// A feature cache gives features that fill its bytes, or an Error.
#include <cstdint>
#include <cstring>
#include <string>

#include "apps/audio/checksum.h"
#include "apps/audio/feature_cache.h"
#include "tensor/error.h"

namespace {

using namespace centroid::audio;

void read(const std::string& bytes) {
  const FeatureCache cache(bytes, "input");
  int64_t frames = 0;
  for (int64_t i = 0; i < cache.size(); ++i) {
    if (cache.frames(i) < 1) __builtin_trap();
    frames += cache.frames(i);
  }
  // Every byte is accounted for: magic number, features, index, trailer.
  const int64_t expected = 8 + frames * cache.columns() * 4 + cache.size() * 16 + 40;
  if (expected != static_cast<int64_t>(bytes.size())) __builtin_trap();
  for (int64_t i = 0; i < cache.size(); ++i) {
    try {
      const Features f = cache.read(i);
      if (f.data.size() != static_cast<size_t>(f.frames * f.bins)) __builtin_trap();
    } catch (const centroid::Error&) {
    }
  }
}

/// The same bytes with the right checksum of the index, so that what lies behind it is reached.
std::string with_checksum(std::string bytes) {
  if (bytes.size() < 48) return bytes;
  uint64_t count;
  std::memcpy(&count, bytes.data() + bytes.size() - 40, 8);
  if (count > (bytes.size() - 48) / 16) return bytes;
  const size_t begin = bytes.size() - 40 - 16 * count, size = 16 * count + 24;
  const uint64_t sum = checksum(bytes.data() + begin, size);
  std::memcpy(bytes.data() + bytes.size() - 16, &sum, 8);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (const std::string& input : {bytes, with_checksum(bytes)}) {
    try {
      read(input);
    } catch (const centroid::Error&) {
    }
  }
  return 0;
}
