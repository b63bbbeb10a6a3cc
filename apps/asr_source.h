#pragma once
// The utterances of a manifest and their features before normalisation, computed or read from disk.
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "apps/asr_model.h"
#include "apps/audio/feature_cache.h"
#include "apps/audio/manifest_index.h"

namespace centroid::asr {

/// Calls `f`; adds the utterance to an error that it throws.
template <typename F>
auto for_utterance(const std::string& id, const F& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(concat("utterance ", id, ": ", e.what()));
  }
}

/// Rows are utterances in the order of the manifest. Const functions are thread-safe.
class FeatureSource {
 public:
  /// Reads the manifest once and calls `visit` for each utterance. `front_end` must outlive the
  /// source.
  FeatureSource(const std::string& manifest, const FrontEnd& front_end,
                const std::function<void(const audio::Utterance&)>& visit = {});

  int64_t size() const { return index_.size(); }
  audio::Utterance utterance(int64_t row) const { return index_.read(row); }

  /// Lets features be read from a file in `folder`, which is made now if it is not there or
  /// damaged (which is said on stderr). Its name holds a checksum over the utterances (id, file,
  /// segment), the files' sizes and times of change, and the options of the filterbank: when one
  /// of them changes another file is made. Errors name the utterance.
  void use_cache(const std::string& folder);
  bool cached() const { return cache_ != nullptr; }

  audio::Sound sound(const audio::Utterance& utterance) const;
  /// (T, bins): of the cache, or computed.
  audio::Features features(int64_t row) const;

  /// Calls `use(row, features)` for all rows in order; the features are computed in parallel.
  void for_each(const std::function<void(int64_t, const audio::Features&)>& use) const;

 private:
  uint64_t cache_key() const;
  bool open_cache(const std::string& path, uint64_t key);

  std::string manifest_;
  const FrontEnd& front_end_;
  audio::ManifestIndex index_;
  std::unique_ptr<audio::FeatureCache> cache_;
};

/// Mean and deviation of the filterbank over all utterances of a manifest. With `cache_dir`,
/// features are kept there.
audio::GlobalStats corpus_stats(const std::string& manifest, const FrontEnd& front_end,
                                const std::string& cache_dir = "");

}  // namespace centroid::asr
