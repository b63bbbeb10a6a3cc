#include "apps/common/train_loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>
#include <optional>

#include "apps/common/args.h"
#include "apps/common/canvas.h"
#include "apps/common/kept_checkpoints.h"
#include "apps/common/log.h"
#include "autograd/ops.h"
#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/json.h"
#include "tensor/ops.h"

namespace centroid::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kDrawSeconds = 10;  // between two drawings of curves.png
constexpr double kMeanDecay = 0.95;  // of the loss that `explode` and the progress line go by

bool due(int64_t step, int64_t every, int64_t steps) {
  return step == steps || (every > 0 && step % every == 0);
}

std::string join(const std::vector<std::string>& items) {
  std::string text;
  for (size_t i = 0; i < items.size() && i < 20; ++i) text += (i ? ", " : "") + items[i];
  return items.size() > 20 ? text + ", ..." : text;
}

nn::ScheduleOptions schedule_options(const TrainOptions& options) {
  nn::ScheduleOptions schedule = options.schedule;
  schedule.lr = options.optimizer.lr;
  schedule.steps = options.steps;
  return schedule;
}

/// One run of `train`: what it knows, and a function for each part of a step.
class Loop {
 public:
  Loop(const TrainTask& task, const TrainOptions& options, const RunFolder& folder);
  TrainResult run();

 private:
  /// What one optimiser step did.
  struct Step {
    double loss = 0, grad_norm = 0, lr = 0;
    double units = 0, seconds = 0, waited = 0;
    std::vector<std::string> items;
    bool good = false;
  };

  void resume();
  Step step();
  double largest_loss() const;
  void log_step(const Step& step);
  void count_bad(const Step& step);
  void evaluate();
  void observe(double metric);
  bool ended() const;
  void save(const std::string& path, bool whole = true);
  void draw(bool always);
  void show(const Step& step);
  double elapsed() const;

  const TrainTask& task_;
  const TrainOptions& options_;
  const RunFolder& folder_;
  nn::NamedTensors parameters_;
  nn::Optimizer optimizer_;
  nn::Schedule schedule_;
  std::optional<nn::Ema> ema_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  int64_t step_ = 0;  // done
  int64_t bad_in_a_row_ = 0, saved_step_ = -1, best_step_ = 0;
  double mean_loss_ = kInfinity;  // recent; infinite before the first good step
  double best_ = kInfinity, last_loss_ = 0;
  double units_ = 0, audio_seconds_ = 0, training_seconds_ = 0, drawn_at_ = 0, waited_ = 0;
  int64_t stale_ = 0;                 // evaluations in a row without progress
  double progress_best_ = kInfinity;  // the metric that progress is measured from
  KeptCheckpoints kept_;
  Fields evaluation_fields_;
  std::unique_ptr<JsonLog> log_;
  std::unique_ptr<Progress> progress_;
};

Loop::Loop(const TrainTask& task, const TrainOptions& options, const RunFolder& folder)
    : task_(task),
      options_(options),
      folder_(folder),
      parameters_(task.model->named_parameters()),
      optimizer_(parameters_, options.optimizer),
      schedule_(schedule_options(options)),
      kept_(folder.path(), options.keep_last, options.keep_best) {
  if (options.ema > 0) ema_.emplace(parameters_, options.ema);
}

double Loop::elapsed() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

void Loop::resume() {
  const nn::Checkpoint checkpoint = nn::load_checkpoint(folder_.last());
  const std::string what = "--resume " + folder_.path();
  for (const auto& [name, text] : task_.texts) {
    const auto found = checkpoint.texts.find(name);
    CENTROID_CHECK(found != checkpoint.texts.end() && found->second == text, what, ": the ", name,
                   " is not that of the checkpoint (was the data or an option changed?)");
  }
  task_.model->load(checkpoint.model);
  optimizer_.load_state(checkpoint.optimizer);
  if (ema_) {
    std::map<std::string, Tensor> saved(checkpoint.ema.begin(), checkpoint.ema.end());
    for (auto& [name, average] : ema_->averages()) {
      CENTROID_CHECK(saved.count(name), what, ": the checkpoint has no averaged weights of ", name,
                     " (was it trained without --ema?)");
      raw::copy_(average, raw::to(saved.at(name), average.device()));
    }
  }
  for (const auto& [name, rng] : task_.rngs) {
    const auto found = checkpoint.rngs.find(name);
    CENTROID_CHECK(found != checkpoint.rngs.end(), what, ": the checkpoint has no random stream '",
                   name, "'");
    rng->set_state(found->second);
  }
  const auto text = checkpoint.texts.find("train");
  CENTROID_CHECK(text != checkpoint.texts.end(), what, ": ", folder_.last(),
                 " was not written by a training run");
  try {
    const Json state = parse_json<Json>(text->second, "train");
    if (task_.seek) task_.seek(state.at("position").get<int64_t>());
    mean_loss_ = logged_number(state, "mean_loss");
    last_loss_ = logged_number(state, "last_loss");
    best_ = logged_number(state, "best");
    best_step_ = state.at("best_step").get<int64_t>();
    bad_in_a_row_ = state.at("bad_in_a_row").get<int64_t>();
    const Json patience = state.value("early_stop", Json::object());  // not in older checkpoints
    stale_ = patience.value("stale", int64_t{0});
    progress_best_ = patience.contains("best") ? logged_number(patience, "best") : best_;
    const Json& plateau = state.at("plateau");
    schedule_.set_state({plateau.at("best").get<double>(), plateau.at("bad").get<int64_t>(),
                         plateau.at("factor").get<double>()});
  } catch (const nlohmann::json::exception& error) {
    throw Error(concat(what, ": the state of the training in ", folder_.last(),
                       " is damaged: ", error.what()));
  }
  step_ = saved_step_ = checkpoint.step;
  log_->cut_back(step_);
  kept_.resume(step_);
}

// Without what only a resumed run needs, unless `whole`.
void Loop::save(const std::string& path, bool whole) {
  const nn::PlateauState& plateau = schedule_.state();
  const auto number = [](double x) -> Json {  // JSON has no infinity
    return std::isfinite(x) ? Json(x) : Json(x > 0 ? "inf" : "nan");
  };
  const Json state = {
      {"position", task_.position ? task_.position() : 0},
      {"mean_loss", number(mean_loss_)},
      {"last_loss", number(last_loss_)},
      {"best", number(best_)},
      {"best_step", best_step_},
      {"bad_in_a_row", bad_in_a_row_},
      {"early_stop", {{"best", number(progress_best_)}, {"stale", stale_}}},
      {"plateau", {{"best", plateau.best}, {"bad", plateau.bad}, {"factor", plateau.factor}}}};
  nn::Checkpoint checkpoint;
  checkpoint.model = parameters_;
  if (ema_) checkpoint.ema = ema_->averages();
  checkpoint.step = step_;
  checkpoint.texts = task_.texts;
  checkpoint.texts["config"] = task_.config.dump();
  if (whole) {
    checkpoint.optimizer = optimizer_.state();
    for (const auto& [name, rng] : task_.rngs) checkpoint.rngs[name] = rng->state();
    checkpoint.texts["train"] = state.dump();
  }
  nn::save_checkpoint(path, checkpoint);
}

double Loop::largest_loss() const {
  return std::isfinite(mean_loss_) ? options_.explode * std::max(mean_loss_, 1.0)
                                   : std::numeric_limits<double>::max();
}

// Everything is handed to the device before the host reads a loss: whether the step counts is
// decided there, by a factor on the gradients that is not a number when it does not.
Loop::Step Loop::step() {
  Step step;
  step.lr = schedule_.lr(step_);
  optimizer_.zero_grad();
  std::vector<Tensor> numbers;  // the losses, then the norm
  std::vector<std::vector<std::string>> items;
  for (int64_t i = 0; i < options_.accumulate; ++i) {
    TrainBatch batch = task_.next_loss();
    step.units += batch.units;
    step.seconds += batch.seconds;
    step.waited += batch.waited;
    items.push_back(std::move(batch.items));
    numbers.push_back(raw::reshape(raw::cast(batch.loss.detach(), DType::f64), {1}));
    backward(options_.accumulate > 1 ? batch.loss * (1.0 / double(options_.accumulate))
                                     : batch.loss);
  }
  const nn::GradNorm norm = nn::grad_norm(parameters_, options_.clip_norm);
  const double limit = largest_loss();
  const Tensor skip = full({1}, std::nan(""), DType::f64, norm.scale.device());
  Tensor scale = norm.scale;
  for (const Tensor& loss : numbers) {
    scale = raw::where(raw::compare(Compare::le, loss, limit), scale, skip);
  }
  optimizer_.step(step.lr, scale);
  numbers.push_back(norm.norm);
  const std::vector<double> values = raw::cat(numbers, 0).to_vector<double>();

  step.good = std::isfinite(values.back());
  step.grad_norm = values.back();
  for (size_t i = 0; i < items.size(); ++i) {
    step.loss += values[i] / double(options_.accumulate);
    const bool bad = !(values[i] <= limit);
    step.good = step.good && !bad;
    if (bad || items.size() == 1)
      step.items.insert(step.items.end(), items[i].begin(), items[i].end());
  }
  if (!step.good && step.items.empty()) {  // the gradients of all together
    for (const auto& names : items) step.items.insert(step.items.end(), names.begin(), names.end());
  }
  if (!step.good) {
    optimizer_.retract();
  } else if (ema_) {
    ema_->update(parameters_);
  }
  return step;
}

void Loop::log_step(const Step& step) {
  if (step.good && !due(step_, options_.log_every, options_.steps)) return;
  Json line = {{"step", step_}};
  if (!step.good) line["event"] = "skip";
  line["loss"] = step.loss;
  line["lr"] = step.lr;
  line["grad_norm"] = step.grad_norm;
  if (!step.good) line["items"] = step.items;
  line["time"] = std::round(elapsed() * 1000) / 1000;
  log_->write(line);
}

void Loop::count_bad(const Step& step) {
  const bool finite = std::isfinite(step.loss);
  const std::string reason = finite && std::isfinite(step.grad_norm)
                                 ? "the loss exploded to " + short_number(step.loss)
                             : finite ? "the gradient is not finite"
                                      : "the loss is " + short_number(step.loss);
  progress_->message("step " + std::to_string(step_) + " skipped: " + reason +
                     (step.items.empty() ? "" : " (batch: " + join(step.items) + ")"));
  if (++bad_in_a_row_ < options_.max_bad_steps) return;
  throw Error(concat("training: ", reason, " at step ", step_, ", the last of ", bad_in_a_row_,
                     " bad steps in a row, with ",
                     step.items.empty() ? "" : "items " + join(step.items), "; ", folder_.last(),
                     " holds step ", saved_step_,
                     " (a smaller --lr, a longer --warmup or a look at these items may help)"));
}

void Loop::evaluate() {
  const double begin = elapsed();
  if (ema_) ema_->swap(parameters_);
  Evaluation result;
  try {
    NoGrad off;
    result = task_.evaluate();
  } catch (...) {
    if (ema_) ema_->swap(parameters_);
    throw;
  }
  if (ema_) ema_->swap(parameters_);
  Json line = {{"step", step_}, {"event", "eval"}};
  std::string text = "step " + std::to_string(step_) + ":";
  evaluation_fields_.clear();
  for (const auto& [name, value] : result.numbers) {
    line[name] = value;
    evaluation_fields_.push_back({name, short_number(value)});
    text += "  " + name + " " + short_number(value);
  }
  observe(result.metric);
  if (result.metric < best_) {
    best_ = result.metric;
    best_step_ = step_;
    line["best"] = true;
    text += "  (best)";
  }
  line["time"] = {{"at", std::round(elapsed() * 1000) / 1000},
                  {"seconds", std::round((elapsed() - begin) * 1000) / 1000},
                  {"waited_for_data", std::round(waited_ * 1000) / 1000}};
  log_->write(line);
  if (best_step_ == step_) save(folder_.best());
  kept_.add(step_, result.metric, [&](const std::string& path) { save(path, /*whole=*/false); });
  progress_->message(text);
  draw(/*always=*/false);
}

void Loop::observe(double metric) {
  schedule_.observe(metric);
  if (metric < progress_best_ - options_.min_delta) {
    progress_best_ = metric;
    stale_ = 0;
  } else {  // also for NaN
    ++stale_;
  }
}

bool Loop::ended() const {
  return best_ <= options_.stop_at || (options_.early_stop > 0 && stale_ >= options_.early_stop);
}

void Loop::draw(bool always) {
  if (!can_write_png() || (!always && elapsed() < drawn_at_ + kDrawSeconds)) return;
  draw_curves(folder_.log(), folder_.curves(), folder_.path());
  drawn_at_ = elapsed();
}

void Loop::show(const Step& step) {
  units_ += step.units;
  audio_seconds_ += step.seconds;
  Fields fields;
  if (std::isfinite(mean_loss_)) fields.push_back({"loss", short_number(mean_loss_)});
  if (audio_seconds_ > 0) {
    fields.push_back({"rtf", short_number(training_seconds_ / audio_seconds_, 2)});
  }
  fields.insert(fields.end(), evaluation_fields_.begin(), evaluation_fields_.end());
  progress_->update(step_, units_, fields);
}

TrainResult Loop::run() {
  StopSignal signal;
  log_ = std::make_unique<JsonLog>(folder_.log());
  if (folder_.resumed()) resume();
  const std::string config = task_.config.dump(2) + "\n";
  write_file_atomic(folder_.config(), config.data(), config.size());
  if (!folder_.resumed()) {
    save(folder_.last());  // so that a run can be resumed from its very beginning on
    saved_step_ = 0;
  }
  ProgressOptions look;
  look.label = task_.label;
  look.total = options_.steps;
  look.start = step_;
  look.unit = task_.unit;
  progress_ = std::make_unique<Progress>(look);

  while (step_ < options_.steps && !ended() && !StopSignal::stop_requested()) {
    const double begin = elapsed();
    const Step now = step();
    ++step_;
    training_seconds_ += elapsed() - begin;
    waited_ += now.waited;
    log_step(now);
    if (now.good) {
      bad_in_a_row_ = 0;
      last_loss_ = now.loss;
      mean_loss_ = std::isfinite(mean_loss_) ? kMeanDecay * mean_loss_ + (1 - kMeanDecay) * now.loss
                                             : now.loss;
    } else {
      count_bad(now);
    }
    show(now);
    const double shown = elapsed();
    if (task_.evaluate && due(step_, options_.eval_every, options_.steps)) evaluate();
    if (due(step_, options_.save_every, options_.steps) || ended() ||
        StopSignal::stop_requested()) {
      save(folder_.last());
      saved_step_ = step_;
    }
    progress_->exclude(elapsed() - shown);
  }
  progress_->finish();
  draw(/*always=*/true);
  const bool stopped = step_ < options_.steps && !ended();
  const bool early = step_ < options_.steps && !stopped && best_ > options_.stop_at;
  if (stopped) {
    std::cerr << "stopped by a signal after step " << step_ << "; " << folder_.last()
              << " is saved: --resume " << folder_.path() << " goes on\n";
  }
  if (early) {
    std::cerr << "ended after step " << step_ << ": no progress in " << stale_
              << " evaluations; the best was " << short_number(best_) << " at step " << best_step_
              << "\n";
  }
  return {step_,  stopped,    early,     last_loss_,
          best_,  best_step_, elapsed(), training_seconds_ > 0 ? units_ / training_seconds_ : 0,
          waited_};
}

}  // namespace

void add_train_options(CLI::App& command, TrainOptions& options) {
  const char* group = "Training";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group(group);
  };
  add("--steps", options.steps, "optimiser steps")->check(in_range(1, 1e12));
  add("--accumulate", options.accumulate, "batches per step")->check(in_range(1, 1e6));
  add("--clip-norm", options.clip_norm, "largest global norm of the gradient; 0: no limit")
      ->check(non_negative());
  add("--ema", options.ema, "decay of averaged weights, such as 0.999; 0: none")
      ->check(in_range(0, 0.9999999));
  add("--log-every", options.log_every, "steps per line of log.jsonl")->check(in_range(1, 1e12));
  add("--eval-every", options.eval_every, "steps between evaluations; 0: at the end only")
      ->check(in_range(0, 1e12));
  add("--stop-at", options.stop_at,
      "end once an evaluation's loss (asr: error rate) is at most this; below 0: never");
  add("--early-stop", options.early_stop,
      "end after so many evaluations in a row without progress; 0: never")
      ->check(in_range(0, 1e9));
  add("--min-delta", options.min_delta,
      "progress is an evaluation lower than the best by more than this (asr: of the error rate)")
      ->check(non_negative());
  add("--keep-last", options.keep_last,
      "also keep the weights of so many latest evaluations, to be averaged")
      ->check(in_range(0, 1e6));
  add("--keep-best", options.keep_best, "also keep the weights of so many best evaluations")
      ->check(in_range(0, 1e6));
  add("--save-every", options.save_every, "steps between checkpoints; 0: at the end only")
      ->check(in_range(0, 1e12));
  add("--max-bad-steps", options.max_bad_steps, "stop after so many bad steps in a row")
      ->check(in_range(1, 1e6));
  add("--explode", options.explode, "skip losses of so many times the recent mean")
      ->check(in_range(1, 1e12));

  group = "Optimiser";
  nn::OptimizerOptions& o = options.optimizer;
  add("--optimizer", o.kind, "how weights follow gradients")
      ->check(CLI::IsMember({"sgd", "adam", "adamw", "radam"}));
  add("--lr", o.lr, "peak learning rate")->check(non_negative());
  add("--weight-decay", o.weight_decay, "decoupled for adamw, else added to the gradient")
      ->check(non_negative());
  add("--momentum", o.momentum, "of sgd")->check(in_range(0, 0.9999999));
  add_switch(command, "nesterov", o.nesterov, "Nesterov's momentum for sgd")->group(group);
  add("--beta1", o.beta1, "decay of the mean gradient")->check(in_range(0, 0.9999999));
  add("--beta2", o.beta2, "decay of the mean squared gradient")->check(in_range(0, 0.9999999));
  add("--eps", o.eps, "added to the root of the mean squared gradient")->check(positive());
  add_switch(command, "decay-vectors", o.decay_vectors, "weight decay also for biases and gains")
      ->group(group);

  group = "Learning rate";
  nn::ScheduleOptions& s = options.schedule;
  add("--schedule", s.kind, "how the learning rate changes after the warm-up")
      ->check(CLI::IsMember({"constant", "cosine", "inv-sqrt", "step", "plateau"}));
  add("--warmup", s.warmup, "steps of linear rise")->check(in_range(0, 1e12));
  add("--final-ratio", s.final_ratio, "cosine: last rate / peak")->check(in_range(0, 1));
  add("--step-size", s.step_size, "step: steps between two cuts")->check(in_range(1, 1e12));
  add("--gamma", s.gamma, "step, plateau: factor of a cut")->check(in_range(1e-9, 1));
  add("--patience", s.patience, "plateau: evaluations without progress before a cut")
      ->check(in_range(1, 1e9));
  add("--min-lr", s.min_lr, "never go below")->check(non_negative());
}

TrainResult train(const TrainTask& task, const TrainOptions& options, const RunFolder& folder) {
  CENTROID_CHECK(task.model && task.next_loss,
                 "train: expected a model and a function for the loss");
  CENTROID_CHECK(!task.position == !task.seek,
                 "train: expected both `position` and `seek` or none");
  CENTROID_CHECK(options.early_stop == 0 || options.eval_every > 0,
                 "train: --early-stop: expected --eval-every above 0");
  CENTROID_CHECK(task.evaluate ||
                     (options.early_stop == 0 && options.keep_last == 0 && options.keep_best == 0),
                 "train: --early-stop, --keep-last and --keep-best: expected evaluations, got a "
                 "training without (asr: --dev)");
  return Loop(task, options, folder).run();
}

const nn::NamedTensors& inference_weights(const nn::Checkpoint& checkpoint) {
  return checkpoint.ema.empty() ? checkpoint.model : checkpoint.ema;
}

}  // namespace centroid::apps
