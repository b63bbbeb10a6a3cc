#include "apps/asr_data.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "nn/loss.h"
#include "tensor/parallel.h"

namespace centroid::asr {

Dataset::Dataset(const std::string& manifest, const FrontEnd& front_end, const audio::Vocab& vocab,
                 double cache_mib, const std::string& cache_dir)
    : name_(manifest),
      front_end_(front_end),
      vocab_(vocab),
      cache_mib_(cache_mib),
      cache_dir_(cache_dir) {
  source_ = std::make_unique<FeatureSource>(manifest, front_end, [this](const auto& utterance) {
    needed_.push_back(static_cast<int32_t>(nn::ctc_min_frames(vocab_.encode(utterance))));
    seconds_.push_back(utterance.duration);
    rows_.push_back(size());
  });
  CENTROID_CHECK(size() > 0, manifest, ": expected at least one utterance, got none");
  // After the whole manifest: a broken line of it is worth knowing before a missing sound.
  for (int64_t i = 0; i < size(); ++i) take_length(i);
}

void Dataset::take_length(int64_t i) {
  if (seconds_[i] == 0) {
    const audio::Utterance u = source_->utterance(i);
    for_utterance(u.id, [&] { return seconds_[i] = audio::sound_duration(u.audio) - u.offset; });
  }
  frames_.push_back(front_end_.frames(seconds_[i]));
  if (frames_.back() > 0) return;
  throw Error(concat("utterance ", source_->utterance(i).id,
                     ": expected at least one frame of sound, got ", seconds_[i], " s"));
}

audio::Utterance Dataset::utterance(int64_t i) const {
  audio::Utterance u = source_->utterance(rows_[i]);
  if (u.duration == 0) u.duration = seconds_[i];
  return u;
}

std::vector<std::vector<int32_t>> Dataset::labels() const {
  std::vector<std::vector<int32_t>> all;
  for (int64_t i = 0; i < size(); ++i) all.push_back(labels(i));
  return all;
}

std::vector<int64_t> Dataset::frames(const Augmentation& augmentation) const {
  const double slowest = augmentation.sound ? augmentation.sound->slowest() : 1;
  if (slowest >= 1) return frames_;
  std::vector<int64_t> result;
  for (const double seconds : seconds_) {
    // A sample more than enough, for the rounding of durations and of changed lengths.
    const double samples = std::ceil(seconds * front_end_.fbank.rate) + 1;
    result.push_back(front_end_.frames_of(std::llround(std::ceil(samples / slowest)) + 1));
  }
  return result;
}

double Dataset::seconds() const { return std::accumulate(seconds_.begin(), seconds_.end(), 0.0); }

const audio::GlobalStats* Dataset::speaker(const audio::Utterance& u) const {
  CENTROID_CHECK(loaded_ || front_end_.normalize != "speaker", name_,
                 ": the statistics of its speakers were not taken");
  const auto found = speakers_.find(u.speaker);
  return found == speakers_.end() ? nullptr : &found->second;
}

void Dataset::take_speaker_stats() {
  std::map<std::string, audio::StatsAccumulator> sums;
  source_->for_each([&](int64_t row, audio::Features features) {
    const std::string name = source_->utterance(row).speaker;
    if (name.empty()) return;
    front_end_.limit(features);
    sums[name].add(features);
  });
  for (const auto& [name, sum] : sums) speakers_[name] = sum.finish();
}

void Dataset::load(bool keep) {
  if (!cache_dir_.empty()) source_->use_cache(cache_dir_);
  if (front_end_.normalize == "speaker") take_speaker_stats();
  loaded_ = true;
  if (!keep) return;
  int64_t count = 0;
  for (double bytes = 0; count < size(); ++count) {
    bytes += static_cast<double>(frames_[count]) * front_end_.columns() * sizeof(float);
    if (bytes > cache_mib_ * 1048576) break;
  }
  std::vector<audio::Features> memory(count);
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) memory[i] = compute(i);
  });
  memory_ = std::move(memory);
}

audio::Features Dataset::compute(int64_t i) const {
  if (front_end_.normalize != "speaker") return front_end_.finish(source_->features(rows_[i]));
  return front_end_.finish(source_->features(rows_[i]), speaker(utterance(i)));
}

audio::Features Dataset::features(int64_t i) const {
  return i < static_cast<int64_t>(memory_.size()) ? memory_[i] : compute(i);
}

audio::Sound Dataset::at_speed(int64_t i, const audio::Utterance& u,
                               const Augmentation& augmentation, uint64_t seed,
                               int64_t epoch) const {
  audio::Sound sound = source_->sound(u);
  if (!augmentation.sound) return sound;
  const double factor = augmentation.sound->speed(seed, epoch, u.id);
  if (factor == 1) return sound;
  audio::Sound changed = augmentation.sound->change_speed(sound, factor);
  const int64_t frames = front_end_.frames_of(static_cast<int64_t>(changed.samples.size()));
  const bool long_enough =
      frames > 0 && nn::ConvSubsampling::output_length(frames, subsampling_) >= needed_[i];
  return factor > 1 && !long_enough ? sound : changed;
}

audio::Features Dataset::features(int64_t i, const audio::Utterance& u,
                                  const Augmentation& augmentation, uint64_t seed,
                                  int64_t epoch) const {
  audio::Features result;
  if (augmentation.of_sound()) {
    for_utterance(u.id, [&] {
      audio::Sound sound = at_speed(i, u, augmentation, seed, epoch);
      if (augmentation.sound) (*augmentation.sound)(sound, seed, epoch, u.id);
      Rng dither = Rng(seed, "dither").fork(static_cast<uint64_t>(epoch)).fork(u.id);
      result = front_end_.finish(
          front_end_.filterbank(sound, augmentation.dither ? &dither : nullptr), speaker(u));
      return 0;
    });
  } else {
    result = features(i);
  }
  if (augmentation.spec) audio::spec_augment(result, *augmentation.spec, seed, epoch, u.id);
  return result;
}

std::vector<std::string> Dataset::check_feasible(int64_t subsampling, bool drop,
                                                 const MinFrames& min_frames) {
  subsampling_ = subsampling;
  std::vector<std::string> bad;
  std::string text;
  int64_t kept = 0;
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t have = nn::ConvSubsampling::output_length(frames_[i], subsampling);
    const int64_t needed = min_frames ? min_frames(labels(i)) : needed_[i];
    // -1: no number of frames is enough.
    needed_[i] = needed < 0 ? std::numeric_limits<int32_t>::max() : static_cast<int32_t>(needed);
    if (needed_[i] <= have) {
      rows_[kept] = rows_[i];
      frames_[kept] = frames_[i];
      needed_[kept] = needed_[i];
      seconds_[kept++] = seconds_[i];
      continue;
    }
    const audio::Utterance u = source_->utterance(rows_[i]);
    bad.push_back(u.id);
    if (bad.size() <= 10) {
      text += concat("\n  ", u.id, ": ", labels(u).size(), " labels need at least ", needed_[i],
                     " frames, the sound has ", have, " after subsampling by ", subsampling);
    }
  }
  CENTROID_CHECK(bad.empty() || drop, name_, ": ", bad.size(), " of ", size(),
                 " utterances are too short for their transcripts", text,
                 bad.size() > 10 ? "\n  ..." : "",
                 "\n(mend the transcripts, use less --subsampling, or --drop-infeasible)");
  CENTROID_CHECK(kept > 0, name_, ": every utterance is too short for its transcript", text);
  rows_.resize(kept);
  frames_.resize(kept);
  needed_.resize(kept);
  seconds_.resize(kept);
  memory_.clear();  // its places have moved
  return bad;
}

void Targets::add(const audio::Utterance& u, const Dataset& data) {
  labels.push_back(data.labels(u));
  texts.push_back(u.text);
}

std::pair<Tensor, Lengths> SpeechBatch::input() const {
  std::vector<const audio::Features*> items;
  for (const auto& f : features) items.push_back(&f);
  return pad_features(items);
}

SpeechBatch collect(const Dataset& data, const nn::Batch& batch) {
  SpeechBatch result;
  for (int64_t i : batch) {
    const audio::Utterance u = data.utterance(i);
    result.features.push_back(data.features(i));
    result.targets.add(u, data);
    result.ids.push_back(u.id);
    result.seconds += u.duration;
  }
  return result;
}

BatchStream::BatchStream(const Dataset& data, const nn::BatchOptions& options,
                         const Augmentation& augmentation, uint64_t seed, int64_t position,
                         int workers)
    : data_(data),
      augmentation_(augmentation),
      seed_(seed),
      sampler_(data.frames(augmentation), options, seed),
      prefetch_(
          [this, position, first = true]() mutable {
            if (first) sampler_.seek(position);
            first = false;
            return sampler_.next();
          },
          [this](const Item& item) { return make(item); }, workers, 2 + workers) {}

SpeechBatch BatchStream::make(const Item& item) const {
  SpeechBatch batch;
  batch.position = item.position;
  batch.epoch = item.epoch;
  for (int64_t i : item.batch) {
    const audio::Utterance u = data_.utterance(i);
    batch.features.push_back(data_.features(i, u, augmentation_, seed_, item.epoch));
    batch.targets.add(u, data_);
    batch.ids.push_back(u.id);
    batch.seconds += u.duration;
  }
  return batch;
}

std::vector<nn::Batch> evaluation_batches(const Dataset& data, int64_t max_items,
                                          int64_t max_frames) {
  std::vector<int64_t> order(data.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return data.frames()[a] > data.frames()[b]; });
  std::vector<nn::Batch> batches;
  int64_t longest = 0;
  for (int64_t i : order) {
    const bool full = batches.empty() || static_cast<int64_t>(batches.back().size()) >= max_items ||
                      longest * static_cast<int64_t>(batches.back().size() + 1) > max_frames;
    if (full) {
      batches.emplace_back();
      longest = data.frames()[i];
    }
    batches.back().push_back(i);
  }
  return batches;
}

}  // namespace centroid::asr
