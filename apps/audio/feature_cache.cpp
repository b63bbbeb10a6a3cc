#include "apps/audio/feature_cache.h"

#include <cstring>
#include <limits>

#include "apps/audio/checksum.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr uint64_t kMagic = 0x31304165466e6543;  // "CenFeA01" on little-endian machines
constexpr uint64_t kWord = sizeof(uint64_t);
constexpr uint64_t kTrailer = 5 * kWord;

uint64_t checksum_of(const Features& f) {
  return checksum(f.data.data(), f.data.size() * sizeof(float));
}

}  // namespace

FeatureCacheWriter::FeatureCacheWriter(const std::string& path, int64_t columns, uint64_t key)
    : path_(path), file_(path), columns_(columns), key_(key) {
  CENTROID_CHECK(columns >= 1, path, ": expected 1 column or more, got ", columns);
  file_.write(&kMagic, kWord);
}

void FeatureCacheWriter::add(const Features& f) {
  CENTROID_CHECK(f.frames >= 1 && f.bins == columns_, path_, ": expected frames of ", columns_,
                 " columns, got ", f.frames, " of ", f.bins);
  file_.write(f.data.data(), f.data.size() * sizeof(float));
  index_.push_back(static_cast<uint64_t>(f.frames));
  index_.push_back(checksum_of(f));
}

void FeatureCacheWriter::commit() {
  const uint64_t count = index_.size() / 2;
  for (const uint64_t word : {count, static_cast<uint64_t>(columns_), key_}) index_.push_back(word);
  index_.push_back(checksum(index_.data(), index_.size() * kWord));
  index_.push_back(kMagic);
  file_.write(index_.data(), index_.size() * kWord);
  file_.commit();
}

FeatureCache::FeatureCache(const std::string& path) : file_(std::make_unique<InputFile>(path)) {
  read_index();
}

FeatureCache::FeatureCache(std::string_view bytes, const std::string& name)
    : file_(std::make_unique<InputFile>(bytes, name)) {
  read_index();
}

void FeatureCache::read_index() {
  const std::string& name = file_->name();
  const uint64_t size = file_->size();
  const auto word = [&](uint64_t offset) {
    uint64_t value;
    file_->read(offset, &value, kWord);
    return value;
  };
  CENTROID_CHECK(size >= kWord + kTrailer && word(0) == kMagic && word(size - kWord) == kMagic,
                 name, ": not a feature cache, or one that was cut off");
  const uint64_t count = word(size - kTrailer), columns = word(size - kTrailer + kWord);
  const uint64_t room = size - kWord - kTrailer;
  CENTROID_CHECK(
      count <= room / (2 * kWord) && columns >= 1 && columns <= std::numeric_limits<int32_t>::max(),
      name, ": damaged: ", count, " utterances of ", columns, " columns in ", size, " bytes");
  std::vector<uint64_t> index(2 * count + 3);
  file_->read(size - kTrailer - 2 * count * kWord, index.data(), index.size() * kWord);
  CENTROID_CHECK(checksum(index.data(), index.size() * kWord) == word(size - 2 * kWord), name,
                 ": damaged: the checksum of its index is wrong");
  columns_ = static_cast<int64_t>(columns);
  key_ = index.back();
  const uint64_t frame_bytes = columns * sizeof(float), data = room - 2 * count * kWord;
  begins_.push_back(0);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t frames = index[2 * i], left = data / frame_bytes - begins_.back();
    CENTROID_CHECK(frames >= 1 && frames <= left, name, ": damaged: utterance ", i, " has ", frames,
                   " frames, the file has room for ", left);
    begins_.push_back(begins_.back() + static_cast<int64_t>(frames));
    checksums_.push_back(index[2 * i + 1]);
  }
  CENTROID_CHECK(static_cast<uint64_t>(begins_.back()) * frame_bytes == data, name,
                 ": damaged: ", data, " bytes of features, the index tells of ", begins_.back(),
                 " frames of ", frame_bytes, " bytes");
}

Features FeatureCache::read(int64_t i) const {
  CENTROID_CHECK(i >= 0 && i < size(), file_->name(), ": expected utterance 0 to ", size() - 1,
                 ", got ", i);
  Features f{frames(i), columns_, {}};
  f.data.resize(static_cast<size_t>(f.frames * f.bins));
  file_->read(kWord + static_cast<uint64_t>(begins_[i] * columns_) * sizeof(float), f.data.data(),
              f.data.size() * sizeof(float));
  CENTROID_CHECK(checksum_of(f) == checksums_[i], file_->name(), ": damaged: the checksum of ",
                 "utterance ", i, " is wrong (delete the file: it is built anew)");
  return f;
}

}  // namespace centroid::audio
