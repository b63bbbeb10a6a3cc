#pragma once
// Utterances as batches: features computed once (or again and again where memory is short), labels,
// augmentation, and batches made ahead of time.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/asr_model.h"
#include "apps/audio/augment.h"
#include "apps/audio/manifest.h"
#include "nn/data.h"

namespace centroid::asr {

/// A manifest with its features. Features are kept in memory, in the order of the manifest, up to
/// `cache_mib`; the others are computed whenever they are needed.
class Dataset {
 public:
  /// `front_end` must outlive the dataset. Throws, naming the manifest, when it has no utterance.
  Dataset(const std::string& manifest, const FrontEnd& front_end, const audio::Vocab& vocab,
          double cache_mib);

  int64_t size() const { return static_cast<int64_t>(utterances_.size()); }
  const audio::Utterance& utterance(int64_t i) const { return utterances_[i]; }
  const std::vector<int32_t>& labels(int64_t i) const { return labels_[i]; }
  const std::vector<std::vector<int32_t>>& labels() const { return labels_; }
  /// Input frames of each utterance by its duration: for batching.
  const std::vector<int64_t>& frames() const { return frames_; }
  double seconds() const;

  /// Computes what fits into memory, in parallel. Errors name the utterance.
  void load();
  /// (T, columns), ready for the model.
  audio::Features features(int64_t i) const;

  /// Throws, naming up to ten of them, if there are utterances whose labels need more output frames
  /// (`min_frames`, of the loss) than they have after `subsampling`. With `drop`, removes them
  /// instead and returns their ids.
  std::vector<std::string> check_feasible(
      int64_t subsampling, bool drop,
      const std::function<int64_t(const std::vector<int32_t>&)>& min_frames);

 private:
  audio::Features compute(int64_t i) const;
  int64_t frames_of(const audio::Utterance& utterance) const;

  std::string name_;
  const FrontEnd& front_end_;
  double cache_mib_;
  std::vector<audio::Utterance> utterances_;
  std::vector<std::vector<int32_t>> labels_;
  std::vector<int64_t> frames_;
  std::vector<audio::Features> cache_;  // an empty one: not cached
};

/// Mean and deviation of the filterbank over all utterances of a manifest.
audio::GlobalStats corpus_stats(const std::string& manifest, const FrontEnd& front_end);

/// One padded batch. Tensors are made by the thread that trains.
struct SpeechBatch {
  std::vector<audio::Features> features;
  std::vector<std::vector<int32_t>> labels;
  std::vector<std::string> ids;
  double seconds = 0;    ///< of sound
  int64_t position = 0;  ///< of the sampler, of this batch
  int64_t epoch = 0;
  std::pair<Tensor, Lengths> input() const;
};

/// An endless stream of training batches from a given position, made on a background thread.
/// Deterministic: a batch is a function of (data, options, seed, position).
class BatchStream {
 public:
  BatchStream(const Dataset& data, const nn::BatchOptions& options,
              std::optional<audio::SpecAugmentOptions> augment, uint64_t seed, int64_t position);
  SpeechBatch next() { return prefetch_.next(); }

 private:
  SpeechBatch make();

  const Dataset& data_;
  std::optional<audio::SpecAugmentOptions> augment_;
  uint64_t seed_;
  nn::BatchSampler sampler_;
  nn::Prefetch<SpeechBatch> prefetch_;  // last: its thread uses what is above
};

/// The utterances in batches of similar length without padding waste, each once, for evaluation.
std::vector<nn::Batch> evaluation_batches(const Dataset& data, int64_t max_items,
                                          int64_t max_frames);
SpeechBatch collect(const Dataset& data, const nn::Batch& batch);

}  // namespace centroid::asr
