#include "apps/asr_source.h"

#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/audio/checksum.h"
#include "apps/audio/files.h"
#include "tensor/parallel.h"

namespace centroid::asr {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kTogether = 64;  // utterances whose features are in memory at once

template <typename Number>
uint64_t add(uint64_t state, Number number) {
  return audio::checksum(&number, sizeof number, state);
}

uint64_t add(uint64_t state, const std::string& text) {
  return audio::checksum(text.data(), text.size(), state);
}

}  // namespace

FeatureSource::FeatureSource(const std::string& manifest, const FrontEnd& front_end,
                             const std::function<void(const audio::Utterance&)>& visit)
    : manifest_(manifest), front_end_(front_end), index_(manifest, visit) {}

audio::Sound FeatureSource::sound(const audio::Utterance& u) const {
  return audio::load_sound(u.audio, front_end_.fbank.rate, u.offset, u.duration);
}

audio::Features FeatureSource::features(int64_t row) const {
  if (cache_) return cache_->read(row);
  const audio::Utterance u = utterance(row);
  return for_utterance(u.id, [&] { return front_end_.filterbank(sound(u)); });
}

void FeatureSource::for_each(
    const std::function<void(int64_t, const audio::Features&)>& use) const {
  std::vector<audio::Features> some;
  for (int64_t first = 0; first < size(); first += kTogether) {
    some.assign(std::min(kTogether, size() - first), {});
    parallel_for(0, static_cast<int64_t>(some.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) some[i] = features(first + i);
    });
    for (size_t i = 0; i < some.size(); ++i) use(first + static_cast<int64_t>(i), some[i]);
  }
}

uint64_t FeatureSource::cache_key() const {
  audio::FbankOptions options = front_end_.fbank;
  options.dither = 0;
  uint64_t key = add(0, nlohmann::json(options).dump());
  for (int64_t row = 0; row < size(); ++row) {
    const audio::Utterance u = utterance(row);
    key = add(add(add(add(key, u.id), u.audio), u.offset), u.duration);
    std::error_code error;
    key = add(key, static_cast<uint64_t>(fs::file_size(u.audio, error)));
    CENTROID_CHECK(!error, "utterance ", u.id, ": ", u.audio, ": ", error.message());
    const auto changed = fs::last_write_time(u.audio, error).time_since_epoch();
    CENTROID_CHECK(!error, "utterance ", u.id, ": ", u.audio, ": ", error.message());
    key = add(key, static_cast<int64_t>(changed.count()));
  }
  return key;
}

bool FeatureSource::open_cache(const std::string& path, uint64_t key) {
  if (!fs::exists(path)) return false;
  try {
    auto cache = std::make_unique<audio::FeatureCache>(path);
    CENTROID_CHECK(cache->key() == key && cache->size() == size() &&
                       cache->columns() == audio::feature_columns(front_end_.fbank),
                   path, ": damaged: it is the cache of other features");
    cache_ = std::move(cache);
    return true;
  } catch (const Error& error) {
    std::fprintf(stderr, "feature cache: %s: making it anew\n", error.what());
    return false;
  }
}

void FeatureSource::use_cache(const std::string& folder) {
  audio::make_folder(folder);
  const uint64_t key = cache_key();
  char name[32];
  std::snprintf(name, sizeof name, "-%016llx.features", static_cast<unsigned long long>(key));
  const std::string path =
      (fs::path(folder) / (fs::path(manifest_).stem().string() + name)).string();
  if (open_cache(path, key)) return;
  std::fprintf(stderr, "feature cache: computing the features of %lld utterances into %s\n",
               static_cast<long long>(size()), path.c_str());
  audio::FeatureCacheWriter writer(path, audio::feature_columns(front_end_.fbank), key);
  for_each([&](int64_t, const audio::Features& features) { writer.add(features); });
  writer.commit();
  cache_ = std::make_unique<audio::FeatureCache>(path);
}

audio::GlobalStats corpus_stats(const std::string& manifest, const FrontEnd& front_end,
                                const std::string& cache_dir) {
  FeatureSource source(manifest, front_end);
  if (!cache_dir.empty()) source.use_cache(cache_dir);
  audio::StatsAccumulator stats;
  source.for_each([&](int64_t, audio::Features features) {
    front_end.limit(features);
    stats.add(features);
  });
  return stats.finish();
}

}  // namespace centroid::asr
