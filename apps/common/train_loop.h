#pragma once
// The training loop that all programs share: steps, log, evaluations, checkpoints, resuming. A
// program brings a model, a function that gives the loss of the next batch, and one that evaluates.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "apps/common/run_folder.h"
#include "nn/checkpoint.h"
#include "nn/module.h"
#include "nn/optim.h"
#include "nn/schedule.h"
#include "tensor/rng.h"

namespace centroid::apps {

/// How to train. `add_train_options` makes each of them a flag.
struct TrainOptions {
  int64_t steps = 10000;      ///< optimiser steps in all
  int64_t accumulate = 1;     ///< batches per step; their gradients are averaged
  double clip_norm = 5;       ///< gradients are scaled to this global norm at most; 0: never
  double ema = 0;             ///< decay of the moving average of the weights; 0: none
  int64_t log_every = 1;      ///< steps per line of log.jsonl
  int64_t eval_every = 500;   ///< steps between evaluations; 0: only after the last step
  int64_t save_every = 500;   ///< steps between checkpoints; 0: only after the last step
  int64_t max_bad_steps = 5;  ///< so many bad steps in a row end the training
  double stop_at = -1;        ///< ends once an evaluation's metric is at most this
  int64_t early_stop = 0;  ///< ends after so many evaluations in a row without progress; 0: never
  double min_delta = 0;    ///< a metric lower by no more than this is no progress
  int64_t keep_last = 0;   ///< checkpoints of so many latest evaluations are kept ...
  int64_t keep_best = 0;   ///< ... and of so many best ones (see kept_checkpoints.h)
  double explode = 50;     ///< a loss of so many times the recent mean (at least 1) is bad
  nn::OptimizerOptions optimizer;
  nn::ScheduleOptions schedule;  ///< `lr` and `steps` are set from the optimiser and from above
};

/// Adds the flags for `options` (`--steps`, `--lr`, `--optimizer`, `--schedule`, ...), with the
/// values it holds now as defaults.
void add_train_options(CLI::App& command, TrainOptions& options);

/// The loss of one batch.
struct TrainBatch {
  Tensor loss;                     ///< one element, with history
  std::vector<std::string> items;  ///< names of the batch's items, reported when the step is bad
  double units = 1;                ///< how many items there are, for the rate
  double seconds = 0;              ///< their duration, for the real-time factor; 0: no such thing
  double waited = 0;               ///< seconds that the training stood still for it
};

/// What an evaluation found.
struct Evaluation {
  std::vector<std::pair<std::string, double>> numbers;  ///< for the log, such as {"dev_loss", 0.4}
  double metric = 0;  ///< the smallest one makes best.safetensors; also steers `plateau`
};

/// What is trained. Everything behind the pointers must outlive `train`.
struct TrainTask {
  nn::Module* model = nullptr;
  /// Takes the next batch and computes its loss in training mode.
  std::function<TrainBatch()> next_loss;
  /// Evaluates the model as it is (the averaged weights, with `ema`). May be empty: then there is
  /// no best.safetensors.
  std::function<Evaluation()> evaluate;
  /// All random streams whose state the run depends on, by name.
  std::map<std::string, Rng*> rngs;
  /// Where the data stand: the number of batches that `next_loss` has used (not merely prefetched),
  /// and how to go there.
  std::function<int64_t()> position;
  std::function<void(int64_t)> seek;
  nlohmann::ordered_json config;  ///< the options, for config.json and the checkpoints
  std::map<std::string, std::string>
      texts;                    ///< stored in every checkpoint: vocabulary, front end ...
  std::string unit = "items";   ///< what `TrainBatch::units` counts
  std::string label = "train";  ///< first word of the progress line
};

/// How a training ended.
struct TrainResult {
  int64_t step = 0;        ///< steps done, with those before a resume
  bool stopped = false;    ///< by a signal
  bool early = false;      ///< ended by `early_stop`
  double last_loss = 0;    ///< of the last good step
  double best_metric = 0;  ///< +inf if there was no evaluation
  int64_t best_step = 0;
  double seconds = 0;  ///< of this process
  double units_per_second = 0;
  double seconds_waited = 0;  ///< for batches
};

/// Trains until `options.steps`, `options.stop_at` or `options.early_stop`, or until SIGINT or
/// SIGTERM: then last.safetensors is saved and the result says `stopped`. A resumed run goes on
/// exactly where its last.safetensors was written: with the same seed, build and data it gives the
/// bits of an uninterrupted one. Every step is a line in log.jsonl; all that depends on the clock
/// stands under its key "time". A step whose loss or gradient is not finite, or whose loss
/// explodes, changes no weight and is logged with the batch's items; throws after `max_bad_steps`
/// of them in a row, and if a checkpoint does not fit the model.
TrainResult train(const TrainTask& task, const TrainOptions& options, const RunFolder& folder);

/// The weights of a checkpoint to be used for anything but further training: the averaged ones
/// where there are such, else the trained ones.
const nn::NamedTensors& inference_weights(const nn::Checkpoint& checkpoint);

}  // namespace centroid::apps
