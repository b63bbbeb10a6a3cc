#pragma once
// Utterances as batches: features computed once (or again and again where memory is short or the
// sound itself is changed), labels, augmentation, and batches made ahead of time.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/asr_model.h"
#include "apps/asr_source.h"
#include "apps/audio/augment.h"
#include "apps/audio/sound_augment.h"
#include "apps/common/prefetch.h"
#include "nn/data.h"

namespace centroid::asr {

/// What is changed of training data, in every epoch anew. All of it depends on (seed, epoch,
/// utterance id) alone.
struct Augmentation {
  std::optional<audio::SpecAugmentOptions> spec;
  std::shared_ptr<const audio::SoundAugment> sound;  ///< or none
  bool dither = false;                               ///< that of the front end

  /// Whether features have to be computed of the changed sound.
  bool of_sound() const { return dither || (sound && sound->active()); }
};

/// A manifest with its features. In memory are 40 bytes an utterance (its text is read again when
/// it is needed) and, up to `cache_mib`, features, in the order of the manifest; the others come
/// from the cache in `cache_dir` or are computed whenever they are needed.
class Dataset {
 public:
  /// `front_end` must outlive the dataset. Throws, naming the manifest, when it has no utterance.
  Dataset(const std::string& manifest, const FrontEnd& front_end, const audio::Vocab& vocab,
          double cache_mib, const std::string& cache_dir = "");

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  /// Its duration is that of the sound where the manifest does not tell.
  audio::Utterance utterance(int64_t i) const;
  std::vector<int32_t> labels(int64_t i) const { return vocab_.encode(utterance(i)); }
  std::vector<int32_t> labels(const audio::Utterance& u) const { return vocab_.encode(u); }
  /// Of all utterances, in order.
  std::vector<std::vector<int32_t>> labels() const;
  /// Input frames of each utterance by its duration: for batching.
  const std::vector<int64_t>& frames() const { return frames_; }
  /// The same for `augmentation`: at the slowest speed that can be drawn, so that a batch never has
  /// more frames than it may.
  std::vector<int64_t> frames(const Augmentation& augmentation) const;
  double seconds() const;

  /// Opens or makes the cache on disk, takes the statistics of speakers, and computes what fits
  /// into memory (nothing unless `keep`), in parallel. Errors name the utterance.
  void load(bool keep = true);
  /// Whether features are in memory, all of them.
  bool in_memory() const { return static_cast<int64_t>(memory_.size()) == size(); }
  /// (T, columns), ready for the model.
  audio::Features features(int64_t i) const;
  /// The same for training: `u` is utterance `i`. An utterance that a higher speed would make too
  /// short for its labels keeps its speed.
  audio::Features features(int64_t i, const audio::Utterance& u, const Augmentation& augmentation,
                           uint64_t seed, int64_t epoch) const;

  /// Throws, naming up to ten of them, if there are utterances whose labels need more output frames
  /// (`min_frames`, of the loss; CTC's without it) than they have after `subsampling`. With `drop`,
  /// removes them instead and returns their ids.
  using MinFrames = std::function<int64_t(const std::vector<int32_t>&)>;
  std::vector<std::string> check_feasible(int64_t subsampling, bool drop,
                                          const MinFrames& min_frames = {});

 private:
  audio::Features compute(int64_t i) const;
  audio::Sound at_speed(int64_t i, const audio::Utterance& u, const Augmentation& augmentation,
                        uint64_t seed, int64_t epoch) const;
  const audio::GlobalStats* speaker(const audio::Utterance& u) const;
  void take_speaker_stats();
  void take_length(int64_t i);

  std::string name_;
  const FrontEnd& front_end_;
  audio::Vocab vocab_;
  double cache_mib_;
  std::string cache_dir_;
  int64_t subsampling_ = 1;
  // One entry an utterance that is used.
  std::vector<int64_t> rows_;    // of the manifest
  std::vector<int64_t> frames_;  // by duration
  std::vector<int32_t> needed_;  // output frames that the labels need
  std::vector<double> seconds_;
  std::unique_ptr<FeatureSource> source_;
  std::map<std::string, audio::GlobalStats> speakers_;  // with "speaker" normalisation
  bool loaded_ = false;
  std::vector<audio::Features> memory_;  // of the first utterances
};

/// What the utterances of a batch say: their symbols, and their words as the manifest has them.
struct Targets {
  std::vector<std::vector<int32_t>> labels;
  std::vector<std::string> texts;

  void add(const audio::Utterance& u, const Dataset& data);
};

/// One padded batch. Tensors are made by the thread that trains.
struct SpeechBatch {
  std::vector<audio::Features> features;
  Targets targets;
  std::vector<std::string> ids;
  double seconds = 0;    ///< of sound, before any change of speed
  int64_t position = 0;  ///< of the sampler, of this batch
  int64_t epoch = 0;
  std::pair<Tensor, Lengths> input() const;
};

/// An endless stream of training batches from a given position, made on `workers` threads.
/// Deterministic: a batch is a function of (data, options, seed, position).
class BatchStream {
 public:
  BatchStream(const Dataset& data, const nn::BatchOptions& options,
              const Augmentation& augmentation, uint64_t seed, int64_t position, int workers = 1);
  SpeechBatch next() { return prefetch_.next(); }
  /// Seconds that `next` has waited for batches.
  double waited() const { return prefetch_.waited(); }

 private:
  using Item = nn::BatchSampler::Item;
  SpeechBatch make(const Item& item) const;

  const Dataset& data_;
  Augmentation augmentation_;
  uint64_t seed_;
  nn::BatchSampler sampler_;
  apps::OrderedPrefetch<Item, SpeechBatch> prefetch_;  // last: its threads use what is above
};

/// The utterances in batches of similar length without padding waste, each once, for evaluation.
std::vector<nn::Batch> evaluation_batches(const Dataset& data, int64_t max_items,
                                          int64_t max_frames);
SpeechBatch collect(const Dataset& data, const nn::Batch& batch);

}  // namespace centroid::asr
