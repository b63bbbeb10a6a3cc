#include "apps/audio/manifest_index.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "apps/audio/checksum.h"
#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

void inflate(const std::string& path, const std::string& to) {
  const auto in = open_text(path);
  std::ofstream out(to, std::ios::binary);
  std::vector<char> buffer(1 << 16);
  while (in->read(buffer.data(), std::ssize(buffer)) || in->gcount() > 0) {
    out.write(buffer.data(), in->gcount());
  }
  out.close();
  CENTROID_CHECK(out, path, ": cannot be inflated to ", to, ": ", std::strerror(errno),
                 " (is the disk full? TMPDIR names another folder)");
}

uint32_t hash_of(const std::string& line) {
  return static_cast<uint32_t>(checksum(line.data(), line.size()));
}

}  // namespace

ManifestIndex::ManifestIndex(const std::string& path,
                             const std::function<void(const Utterance&)>& visit)
    : path_(path), folder_(fs::path(path).parent_path().string()) {
  ManifestReader reader(path);  // first: its errors for files that cannot be opened are better
  std::optional<TemporaryFile> inflated;
  if (path.ends_with(".gz")) inflate(path, inflated.emplace("centroid-manifest").path());
  const std::string& lines = inflated ? inflated->path() : path;
  file_ = std::make_unique<InputFile>(lines);
  std::ifstream in(lines, std::ios::binary);
  // The reader tells the number of each utterance's line; a second walk finds where it begins.
  int64_t line = 0;
  uint64_t at = 0;
  std::string text;
  for (Utterance u; reader.next(u);) {
    uint64_t begin = at;
    while (line < reader.line()) {
      begin = at;
      CENTROID_CHECK(std::getline(in, text), path, ":", line + 1, ": changed while it was read");
      at += text.size() + 1;
      ++line;
    }
    offsets_.push_back(begin);
    hashes_.push_back(hash_of(text));
    if (visit) visit(u);
  }
  offsets_.push_back(file_->size());
}

Utterance ManifestIndex::read(int64_t i) const {
  CENTROID_CHECK(i >= 0 && i < size(), path_, ": expected utterance 0 to ", size() - 1, ", got ",
                 i);
  std::string text(offsets_[i + 1] - offsets_[i], '\0');
  file_->read(offsets_[i], text.data(), text.size());
  text.resize(std::min(text.size(), text.find('\n')));
  CENTROID_CHECK(hash_of(text) == hashes_[i], path_, ": utterance ", i + 1,
                 " is not what it was (was the manifest changed while in use?)");
  ManifestReader reader(std::make_unique<std::istringstream>(std::move(text)), path_, folder_);
  Utterance utterance;
  CENTROID_CHECK(reader.next(utterance), path_, ": utterance ", i + 1, " is gone");
  return utterance;
}

}  // namespace centroid::audio
