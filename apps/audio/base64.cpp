#include "apps/audio/base64.h"

#include <cstdint>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string to_base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t n = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < n ? static_cast<unsigned char>(bytes[i + k]) : 0);
    }
    for (size_t k = 0; k < 4; ++k) out += k <= n ? kDigits[group >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string from_base64(std::string_view text) {
  CENTROID_CHECK(text.size() % 4 == 0, "base64: expected a multiple of 4 characters, got ",
                 text.size());
  const size_t fill = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  for (size_t i = 0; i < text.size(); i += 4) {
    const size_t n = i + 4 == text.size() ? 4 - fill : 4;  // characters that count
    uint32_t group = 0;
    for (size_t k = 0; k < 4; ++k) {
      const size_t digit = k < n ? kDigits.find(text[i + k]) : 0;
      CENTROID_CHECK(digit != kDigits.npos, "base64: expected A-Z, a-z, 0-9, + or /, got byte ",
                     static_cast<int>(static_cast<unsigned char>(text[i + k])), " at ", i + k);
      group = group << 6 | static_cast<uint32_t>(digit);
    }
    for (size_t k = 0; k + 1 < n; ++k) out += static_cast<char>(group >> (16 - 8 * k) & 255);
    CENTROID_CHECK(n == 4 || (group & ((1u << (8 * (4 - n))) - 1)) == 0,
                   "base64: bits beyond the end of the bytes");
  }
  return out;
}

}  // namespace centroid::audio
