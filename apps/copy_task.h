#pragma once
// The copy tasks and the model that learns them. A word w of random symbols is written twice, each
// time behind a 0: `0 w 0 w`.
//
//   causal   read from the left and predict the next symbol; what counts is the second w
//   masked   some symbols of either copy are replaced by a mask, never the same in both, and must
//   be
//            restored from their twin in the other copy
//
// Both ask for exact look-up over long distances, which is what attention must not lose when it is
// made cheaper.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "nn/checkpoint.h"
#include "nn/transformer.h"

namespace centroid::copy {

/// Which sequences are drawn.
struct TaskOptions {
  std::string task = "masked";  ///< causal or masked
  int64_t length = 128;         ///< symbols of the longest sequence, both zeros included
  int64_t alphabet = 10;        ///< w consists of the symbols 1..alphabet
  double masked = 0.2;          ///< masked: share of w that is masked in each copy, at most 1/2
  bool fixed = false;           ///< causal: |w| is always the longest, (length - 2) / 2; else it is
                                ///< uniform in [length / 4, (length - 1) / 2). masked: always fixed

  bool causal() const { return task == "causal"; }
  /// Different symbols of the input: 0..alphabet and, for masked, the mask.
  int64_t symbols() const { return alphabet + (causal() ? 1 : 2); }
  /// The symbol that stands for a hidden one; the last of the alphabet of masked.
  int64_t mask_symbol() const { return alphabet + 1; }
};

/// Throws, naming the option, unless sequences can be drawn.
void check(const TaskOptions& options);
/// As JSON for checkpoints; reading throws what nlohmann::json throws, and as `check`.
void to_json(nlohmann::json& json, const TaskOptions& options);
void from_json(const nlohmann::json& json, TaskOptions& options);

/// A target that is not asked for.
inline constexpr int64_t kIgnore = -100;

/// A padded batch.
struct Batch {
  Tensor inputs;      ///< (B, T) i64; for causal without the last symbol, which nothing follows
  Tensor targets;     ///< (B, T) i64: the symbol the output should be, or kIgnore
  Lengths lengths;    ///< (B)
  int64_t asked = 0;  ///< targets that are not kIgnore
};

/// Draws `items` >= 1 sequences; a function of its arguments alone.
Batch make_batch(const TaskOptions& options, int64_t items, const Rng& rng);

/// Embedding, transformer encoder (causal for the causal task) and a projection to symbols.
class Model : public nn::Module {
 public:
  /// `encoder.causal` is set from the task; throws for options that do not fit together.
  Model(const TaskOptions& task, nn::TransformerOptions encoder, Rng& rng);
  /// inputs (B, T) i64 -> logits (B, T, V), V = task().symbols()
  Tensor forward(const Tensor& inputs, const Lengths& lengths, const nn::Context& context);
  /// Generation with a causal model, one symbol of every sequence at a time; throws for others.
  nn::EncoderState start_decoding() const { return encoder_.start_decoding(); }
  /// symbols (B) i64 -> logits (B, V): the row that `forward` over all symbols so far gives.
  Tensor step(nn::EncoderState& state, const Tensor& symbols);
  const TaskOptions& task() const { return task_; }
  const nn::TransformerOptions& encoder_options() const { return options_; }

 private:
  TaskOptions task_;
  nn::TransformerOptions options_;
  nn::Embedding embedding_;
  nn::Encoder encoder_;
  nn::Linear output_;
};

/// How well a model does.
struct Score {
  int64_t right = 0, asked = 0;  ///< symbols
  double loss = 0;               ///< mean cross entropy of the asked symbols, in nats
  double accuracy() const { return static_cast<double>(right) / static_cast<double>(asked); }
};

/// Scores `batches` batches of `items` sequences of `task`, which may be longer than those the
/// model was trained on; a function of its arguments alone.
Score evaluate(Model& model, const TaskOptions& task, int64_t items, int64_t batches,
               const Rng& rng, Device device = {});

/// What writing the second w symbol by symbol gave.
struct Generation {
  int64_t right = 0, asked = 0;  ///< symbols of the second w
  int64_t tokens = 0;            ///< symbols that went through the model, those of `0 w 0` included
  double seconds = 0;            ///< of all steps
  /// Largest difference between a logit of a step and the same one of `Model::forward` over the
  /// whole sequence, both in f64, relative to the largest logit; 0 if not compared.
  double difference = 0;
  /// The same in f32, in which the numbers above were made; and how many symbols are more than
  /// `kAgreement` apart in it. They may be where attention makes choices (`chooses`): rounding can
  /// decide a top key or a bit of a hash otherwise in the one than in the other.
  double difference_f32 = 0;
  int64_t apart = 0;
  bool chooses = false;
  double accuracy() const { return static_cast<double>(right) / static_cast<double>(asked); }
  double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
};

/// Logits of f32 that are sums in different orders agree within this share of the largest.
constexpr double kAgreement = 1e-4;

/// Lets a causal model write: it reads `0 w 0` and then, as each next symbol, the one it found most
/// likely. The sequences are those of `evaluate` with the same arguments. With `compare`, the
/// logits of all steps are compared with those of one forward pass, outside of the time that is
/// measured, also with the model in f64: there rounding is too small to meet a choice. Throws for
/// models of the masked task.
Generation generate(Model& model, const TaskOptions& task, int64_t items, int64_t batches,
                    const Rng& rng, bool compare, Device device = {});

/// `masked accuracy 99.87 %` or `copied symbols 99.95 %` with the counts and the loss.
std::string describe(const TaskOptions& task, const Score& score);

/// The texts that make a checkpoint one of a copy model: "kind", "task" and "model".
std::map<std::string, std::string> checkpoint_texts(const Model& model);

/// A model from a file.
struct TrainedModel {
  std::unique_ptr<Model> model;
  std::string file;  ///< where it was
  int64_t step = 0;  ///< of its training
};

/// Reads `path`, a checkpoint or a run folder (its best.safetensors, else last.safetensors), with
/// averaged weights where it has them. `attention`, when not empty, replaces the variant the model
/// was trained with. Throws for checkpoints of other programs.
TrainedModel load_model(const std::string& path, const std::string& attention = "");

}  // namespace centroid::copy
