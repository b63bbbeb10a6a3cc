#pragma once
// Features of many utterances in one file.
//
// The file: the magic number, the features of all utterances one after the other (f32, row-major),
// an index of (frames, checksum) per utterance, and a trailer: number of utterances, columns, key,
// checksum of all other numbers of index and trailer, magic number. All numbers are 64 bits wide,
// in the byte order of the machine: a file of another byte order has another magic number.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/features.h"
#include "tensor/file.h"

namespace centroid::audio {

/// Writes a cache; the file appears, whole, at `commit`.
class FeatureCacheWriter {
 public:
  /// Features of `columns` columns. `key` tells one cache from another. Throws when the file cannot
  /// be made.
  FeatureCacheWriter(const std::string& path, int64_t columns, uint64_t key);
  /// Throws when there is no frame, the columns differ or the disk is full.
  void add(const Features& features);
  void commit();

 private:
  std::string path_;
  AtomicFile file_;
  int64_t columns_;
  uint64_t key_;
  std::vector<uint64_t> index_;
};

/// Reads a cache; 16 bytes of memory an utterance. Const functions are thread-safe.
class FeatureCache {
 public:
  /// Throws, saying what is wrong, unless sizes and checksum of the index are right.
  explicit FeatureCache(const std::string& path);
  /// The same of bytes that the caller keeps; `name` stands for the file in messages.
  FeatureCache(std::string_view bytes, const std::string& name);

  int64_t size() const { return static_cast<int64_t>(checksums_.size()); }
  int64_t columns() const { return columns_; }
  uint64_t key() const { return key_; }
  int64_t frames(int64_t i) const { return begins_[i + 1] - begins_[i]; }

  /// The features of utterance `i`. Throws when their checksum is wrong.
  Features read(int64_t i) const;

 private:
  void read_index();

  std::unique_ptr<InputFile> file_;
  int64_t columns_ = 0;
  uint64_t key_ = 0;
  std::vector<int64_t> begins_;  // first frame of each utterance, and the number of all frames
  std::vector<uint64_t> checksums_;
};

}  // namespace centroid::audio
