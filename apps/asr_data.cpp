#include "apps/asr_data.h"

#include <algorithm>
#include <numeric>

#include "tensor/parallel.h"

namespace centroid::asr {

namespace {

// Adds the utterance to an error that was raised while handling it.
template <typename F>
auto for_utterance(const audio::Utterance& u, const F& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(concat("utterance ", u.id, ": ", e.what()));
  }
}

audio::Sound load(const audio::Utterance& u, int rate) {
  return audio::load_sound(u.audio, rate, u.offset, u.duration);
}

}  // namespace

Dataset::Dataset(const std::string& manifest, const FrontEnd& front_end, const audio::Vocab& vocab,
                 double cache_mib)
    : name_(manifest), front_end_(front_end), cache_mib_(cache_mib) {
  audio::ManifestReader reader(manifest);
  for (audio::Utterance u; reader.next(u);) utterances_.push_back(std::move(u));
  CENTROID_CHECK(!utterances_.empty(), manifest, ": expected at least one utterance, got none");
  for (auto& u : utterances_) {
    labels_.push_back(vocab.encode(u));
    for_utterance(u, [&] {
      if (u.duration == 0) u.duration = audio::sound_duration(u.audio) - u.offset;
      frames_.push_back(frames_of(u));
      CENTROID_CHECK(frames_.back() > 0, "expected at least one frame of sound, got ", u.duration,
                     " s");
      return 0;
    });
  }
  cache_.resize(utterances_.size());
}

int64_t Dataset::frames_of(const audio::Utterance& u) const {
  return front_end_.frames(u.duration);
}

double Dataset::seconds() const {
  double total = 0;
  for (const auto& u : utterances_) total += u.duration;
  return total;
}

void Dataset::load() {
  int64_t count = 0;
  for (double bytes = 0; count < size(); ++count) {
    bytes += static_cast<double>(frames_[count]) * front_end_.columns() * sizeof(float);
    if (bytes > cache_mib_ * 1048576) break;
  }
  parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) cache_[i] = compute(i);
  });
}

audio::Features Dataset::compute(int64_t i) const {
  const audio::Utterance& u = utterances_[i];
  return for_utterance(u, [&] { return front_end_(asr::load(u, front_end_.fbank.rate)); });
}

audio::Features Dataset::features(int64_t i) const {
  return cache_[i].frames > 0 ? cache_[i] : compute(i);
}

std::vector<std::string> Dataset::check_feasible(
    int64_t subsampling, bool drop,
    const std::function<int64_t(const std::vector<int32_t>&)>& min_frames) {
  std::vector<int64_t> bad;
  std::string text;
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t have = nn::ConvSubsampling::output_length(frames_[i], subsampling);
    const int64_t need = min_frames(labels_[i]);
    if (need <= have) continue;
    bad.push_back(i);
    if (bad.size() <= 10) {
      text += concat("\n  ", utterances_[i].id, ": ", labels_[i].size(), " labels need at least ",
                     need, " frames, the sound has ", have, " after subsampling by ", subsampling);
    }
  }
  CENTROID_CHECK(bad.empty() || drop, name_, ": ", bad.size(), " of ", size(),
                 " utterances are too short for their transcripts", text,
                 bad.size() > 10 ? "\n  ..." : "",
                 "\n(mend the transcripts, use less --subsampling, or --drop-infeasible)");
  CENTROID_CHECK(static_cast<int64_t>(bad.size()) < size(), name_,
                 ": every utterance is too short for its transcript", text);
  std::vector<std::string> dropped;
  for (auto i = bad.rbegin(); i != bad.rend(); ++i) {
    dropped.push_back(utterances_[*i].id);
    utterances_.erase(utterances_.begin() + *i);
    labels_.erase(labels_.begin() + *i);
    frames_.erase(frames_.begin() + *i);
    cache_.erase(cache_.begin() + *i);
  }
  return dropped;
}

audio::GlobalStats corpus_stats(const std::string& manifest, const FrontEnd& front_end) {
  audio::StatsAccumulator stats;
  audio::ManifestReader reader(manifest);
  for (audio::Utterance u; reader.next(u);) {
    for_utterance(u, [&] {
      stats.add(front_end.filterbank(load(u, front_end.fbank.rate)));
      return 0;
    });
  }
  return stats.finish();
}

std::pair<Tensor, Lengths> SpeechBatch::input() const {
  std::vector<const audio::Features*> items;
  for (const auto& f : features) items.push_back(&f);
  return pad_features(items);
}

SpeechBatch collect(const Dataset& data, const nn::Batch& batch) {
  SpeechBatch result;
  for (int64_t i : batch) {
    result.features.push_back(data.features(i));
    result.labels.push_back(data.labels(i));
    result.ids.push_back(data.utterance(i).id);
    result.seconds += data.utterance(i).duration;
  }
  return result;
}

BatchStream::BatchStream(const Dataset& data, const nn::BatchOptions& options,
                         std::optional<audio::SpecAugmentOptions> augment, uint64_t seed,
                         int64_t position)
    : data_(data),
      augment_(augment),
      seed_(seed),
      sampler_(data.frames(), options, seed),
      prefetch_(
          [this, position, first = true]() mutable {
            if (first) sampler_.seek(position);
            first = false;
            return make();
          },
          3) {}

SpeechBatch BatchStream::make() {
  const nn::BatchSampler::Item item = sampler_.next();
  SpeechBatch batch = collect(data_, item.batch);
  batch.position = item.position;
  batch.epoch = item.epoch;
  if (augment_) {
    for (size_t b = 0; b < batch.features.size(); ++b) {
      audio::spec_augment(batch.features[b], *augment_, seed_, item.epoch, batch.ids[b]);
    }
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
