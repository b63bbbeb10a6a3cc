#include "apps/audio/truncation.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

uint32_t little_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// Walks the chunks of a RIFF WAVE file up to `data`.
void check_wav(const std::string& path, std::ifstream& in, uint64_t file_bytes) {
  uint32_t block = 0, format = 0;
  for (uint64_t at = 12; at + 8 <= file_bytes;) {
    std::string chunk(24, '\0');
    in.clear();
    in.seekg(static_cast<std::streamoff>(at));
    in.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    const std::string_view view = chunk;
    const uint32_t size = little_endian(view.substr(4, 4));
    if (view.starts_with("fmt ")) {
      format = little_endian(view.substr(8, 2));
      block = little_endian(view.substr(20, 2));
    } else if (view.starts_with("data")) {
      const uint64_t present = file_bytes - at - 8;
      if (size == 0xFFFFFFFF || size <= present) return;
      const bool frames = block > 0 && (format == 1 || format == 3 || format == 0xFFFE);
      const uint64_t unit = frames ? block : 1;
      throw Error(concat(path, ": truncated: the header promises ", size / unit,
                         frames ? " frames" : " bytes", ", the file holds ", present / unit));
    }
    at += 8 + uint64_t{size} + size % 2;
  }
}

/// SPHERE: a text header with `sample_count -i N`.
void check_sphere(const std::string& path, const std::string& header, int64_t frames) {
  const size_t at = header.find("sample_count -i ");
  if (at == header.npos) return;
  const long long promised = std::strtoll(header.c_str() + at + 16, nullptr, 10);
  CENTROID_CHECK(promised <= frames, path, ": truncated: the header promises ", promised,
                 " frames, the file holds ", frames);
}

/// The other containers: libsndfile notes the mismatch and goes on.
void check_log(const std::string& path, const std::string& log) {
  for (const std::string_view field :
       {"SSND :", "Data Size   :", "Calculated frame count", "riff :"}) {
    const size_t at = log.find(field);
    if (at == log.npos) continue;
    const std::string line = log.substr(at, log.find('\n', at) - at);
    CENTROID_CHECK(line.find("should be") == line.npos && line.find("does not match") == line.npos,
                   path, ": truncated: the header's size and the file's disagree: ", line);
  }
}

}  // namespace

void check_not_truncated(const std::string& path, const std::string& log, int64_t frames) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  CENTROID_CHECK(!error, path, ": cannot be read: ", error.message());
  std::ifstream in(path, std::ios::binary);
  std::string head(1024, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  const std::string_view view = head;
  if (view.starts_with("RIFF") && view.substr(8, 4) == "WAVE") {
    check_wav(path, in, bytes);
  } else if (view.starts_with("NIST_1A")) {
    check_sphere(path, head, frames);
  } else {
    check_log(path, log);
  }
}

}  // namespace centroid::audio
