#pragma once
// The recogniser: subsampling, transformer encoder, CTC output; and the front end that feeds it.
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "apps/audio/context.h"
#include "apps/audio/features.h"
#include "apps/audio/normalize.h"
#include "apps/audio/vocab.h"
#include "nn/checkpoint.h"
#include "nn/transformer.h"

namespace centroid::asr {

/// From sound to the model's input: filterbank or cepstra, normalisation, deltas, stacking.
struct FrontEnd {
  audio::FbankOptions fbank;
  double dynamic_range = 0;             ///< dB below a band's loudest frame that are kept; 0: all
  std::string normalize = "utterance";  ///< utterance, speaker, global or none
  bool normalize_variance = true;       ///< false: only the mean
  audio::GlobalStats stats;             ///< used by "global"
  audio::DeltaOptions deltas;
  int64_t stack = 1, stride = 1;  ///< frames joined, and frames moved on

  /// Sound at the front end's rate -> (T, columns). Throws as Fbank does.
  audio::Features operator()(const audio::Sound& sound) const;
  /// The filterbank or cepstra, before normalisation: what statistics are taken of and what a cache
  /// holds. Dither is added with a generator only: recognition is a function of the sound alone.
  audio::Features filterbank(const audio::Sound& sound, Rng* dither = nullptr) const;
  /// Raises what lies more than the dynamic range below the maximum of its band, by default over
  /// these features, to that limit: digital silence between words, or noise that is under speech
  /// in one voice's recordings and not in another's, weighs no more in the statistics then.
  void limit(audio::Features& features, const std::vector<float>& maxima = {}) const;
  /// All that follows, `limit` first. `speaker` is used by "speaker"; without it (a sound by
  /// itself, an utterance of an unknown speaker) the utterance's own statistics are.
  audio::Features finish(audio::Features features,
                         const audio::GlobalStats* speaker = nullptr) const;
  /// Columns of the model's input.
  int64_t columns() const;
  /// Input frames of `seconds` of sound, and of so many samples.
  int64_t frames(double seconds) const;
  int64_t frames_of(int64_t samples) const;
  /// Throws, naming the option, unless all are usable.
  void validate() const;
};
void to_json(nlohmann::json& json, const FrontEnd& front_end);
void from_json(const nlohmann::json& json, FrontEnd& front_end);

/// The shape of a recogniser; stored in its checkpoint.
struct RecognizerOptions {
  int64_t columns = 40;     ///< of the input
  int64_t classes = 0;      ///< of the output: Criterion::outputs
  int64_t subsampling = 4;  ///< input frames per output frame: 1, 2, 4 or 8
  int64_t channels = 16;    ///< of the subsampling convolutions
  nn::TransformerOptions encoder;
};
void to_json(nlohmann::json& json, const RecognizerOptions& options);
void from_json(const nlohmann::json& json, RecognizerOptions& options);

/// x (B, T, columns) -> logits (B, T', V), T' = ceil(T / subsampling).
class Recognizer : public nn::Module {
 public:
  Recognizer(const RecognizerOptions& options, Rng& rng);
  std::pair<Tensor, Lengths> forward(const Tensor& x, const Lengths& lengths,
                                     const nn::Context& context);
  /// The logits that the encoder's output after each of these layers gives (ascending, from 1),
  /// through one projection: for intermediate CTC.
  std::pair<std::vector<Tensor>, Lengths> forward_at(const std::vector<int64_t>& layers,
                                                     const Tensor& x, const Lengths& lengths,
                                                     const nn::Context& context);
  const RecognizerOptions& options() const { return options_; }
  /// Sets the output's bias of class 0, blank or silence, so that among equal classes it has this
  /// probability.
  void expect_blank(double probability);

 private:
  RecognizerOptions options_;
  nn::ConvSubsampling subsampling_;
  nn::Encoder encoder_;
  nn::Linear output_;
};

/// A trained recogniser with all that its use needs.
struct TrainedRecognizer {
  FrontEnd front_end;
  audio::Vocab vocab;
  std::unique_ptr<Recognizer> model;
  std::string loss;  ///< what `read_criterion` (apps/asr_loss.h) reads; empty: CTC
  int64_t step = 0;

  /// Seconds from one output frame to the next.
  double frame_seconds() const;
};

/// The texts that make a checkpoint a recogniser's: "kind", "front_end", "model", "vocab".
std::map<std::string, std::string> checkpoint_texts(const Recognizer& model,
                                                    const FrontEnd& front_end,
                                                    const audio::Vocab& vocab);

/// Reads `path`, a checkpoint file or a run folder (its best.safetensors, or else
/// last.safetensors). Uses averaged (EMA) weights where the checkpoint has them. `attention`, when
/// not empty, replaces the attention the model was trained with. Throws for checkpoints of other
/// programs.
TrainedRecognizer load_recognizer(const std::string& path, const std::string& attention = "");

/// Gives `model` the weights of the recogniser `path` (as load_recognizer reads it), to train on
/// from there. The output layer keeps its own where the vocabulary or the classes are others.
/// Returns the names of what kept its own. Throws, naming them, when other weights do not fit.
std::vector<std::string> start_from(Recognizer& model, const audio::Vocab& vocab,
                                    const std::string& path);

/// The checkpoint file that `path` means; throws when there is none.
std::string checkpoint_file(const std::string& path);

/// A batch of features, padded with zeros: (B, T, columns) and lengths.
std::pair<Tensor, Lengths> pad_features(const std::vector<const audio::Features*>& items);

}  // namespace centroid::asr
