#pragma once
// Random access to the utterances of a manifest that is too long for memory.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "apps/audio/manifest.h"
#include "tensor/file.h"

namespace centroid::audio {

/// Where each utterance of a manifest stands in its file: 12 bytes an utterance, whatever its
/// transcript. The file stays open and must not be changed. Const functions are thread-safe.
class ManifestIndex {
 public:
  /// Reads the manifest once, from its begin to its end, and calls `visit` for each utterance. A
  /// name ending in `.gz` is inflated into a file in $TMPDIR that has no name and ends with this
  /// object. Throws as ManifestReader does, and what `visit` throws.
  explicit ManifestIndex(const std::string& path,
                         const std::function<void(const Utterance&)>& visit = {});

  int64_t size() const { return static_cast<int64_t>(hashes_.size()); }

  /// Reads utterance `i` again. Throws when its line is not the one that was read before.
  Utterance read(int64_t i) const;

 private:
  std::string path_, folder_;
  std::unique_ptr<InputFile> file_;
  std::vector<uint64_t> offsets_;  // of the lines' first bytes; the end of the file is the last one
  std::vector<uint32_t> hashes_;   // of the lines
};

}  // namespace centroid::audio
