// copy train: a small transformer on a copy task.
#include <cstdio>
#include <iostream>
#include <memory>

#include "apps/common/args.h"
#include "apps/common/run_folder.h"
#include "apps/common/train_loop.h"
#include "apps/copy.h"
#include "nn/attention.h"
#include "nn/loss.h"

namespace centroid::apps {
namespace {

struct TrainCommand {
  CLI::App* sub = nullptr;
  CommonOptions common;
  RunOptions run_options;
  TrainOptions train;
  copy::TaskOptions task;
  nn::TransformerOptions model;
  std::string positions = "rotary";
  int64_t items = 32, eval_batches = 10;

  void set_defaults();
  void add_options();
  void add_model_options();
  void run();

 private:
  TrainTask train_task(copy::Model& net, Rng& dropout, int64_t& position, Device device) const;
  void report(const TrainResult& result, const RunFolder& folder, Device device) const;
};

void TrainCommand::set_defaults() {
  model.layers = 2;
  model.heads = 4;
  model.width = 64;
  model.hidden = 256;
  model.dropout = 0;
  model.max_length = 0;
  train.steps = 1000;
  train.eval_every = 200;
  train.save_every = 200;
  train.clip_norm = 1;
  train.optimizer.lr = 4e-3;
  train.optimizer.weight_decay = 0.01;
  train.optimizer.beta2 = 0.98;
  train.schedule.warmup = 100;
}

void TrainCommand::add_model_options() {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return sub->add_option(name, value, help)->group("Model");
  };
  add("--layers", model.layers, "encoder layers")->check(in_range(1, 1000));
  add("--heads", model.heads, "attention heads")->check(in_range(1, 1000));
  add("--width", model.width, "model width")->check(in_range(1, 1e5));
  add("--hidden", model.hidden, "width of the feed-forward parts")->check(in_range(1, 1e6));
  add("--dropout", model.dropout, "share of values dropped in training")->check(in_range(0, 0.99));
  add("--positions", positions, "how the order is told")
      ->check(CLI::IsMember({"rotary", "sinusoidal", "learned", "none"}));
  add("--max-length", model.max_length, "longest sequence of learned positions; 0: --length")
      ->check(in_range(0, 1e9));
  add("--attention", model.attention, "attention variant; --help-attention lists them");
  add_switch(*sub, "pre-norm", model.pre_norm, "layer norm before each part instead of after it")
      ->group("Model");
  add_switch(*sub, "recompute", model.recompute, "keep only each layer's input for backward")
      ->group("Model");
  sub->add_flag_callback(
         "--help-attention",
         [] {
           std::cout << nn::attention_help();
           throw CLI::Success();
         },
         "list the attention variants and their options")
      ->configurable(false)
      ->group("Model");
}

void TrainCommand::add_options() {
  add_run_options(*sub, run_options);
  sub->get_option("--out")->required(false)->description(
      "folder of this run; if not given, runs/copy-TASK-LENGTH");
  const auto add = [&](const char* name, auto& value, const char* help) {
    return sub->add_option(name, value, help)->group("Task");
  };
  add("--task", task.task, "causal: continue 0 w 0 with w; masked: restore symbols of 0 w 0 w")
      ->check(CLI::IsMember({"causal", "masked"}));
  add("--length", task.length, "symbols of the longest sequence")->check(in_range(4, 1e9));
  add("--alphabet", task.alphabet, "different symbols")->check(in_range(1, 1e6));
  add("--masked", task.masked, "masked: share masked in each copy")->check(in_range(0, 0.5));
  add_switch(*sub, "fixed", task.fixed, "causal: all words have the longest length")->group("Task");
  add("--batch", items, "sequences per batch")->check(in_range(1, 1e6));
  add("--eval-batches", eval_batches, "batches per evaluation")->check(in_range(1, 1e9));
  add_model_options();
  add_train_options(*sub, train);
  add_common_options(*sub, common);
}

TrainTask TrainCommand::train_task(copy::Model& net, Rng& dropout, int64_t& position,
                                   Device device) const {
  TrainTask t;
  t.model = &net;
  t.rngs = {{"dropout", &dropout}};
  // A batch is a function of the seed and its number: there is no other state of the data.
  t.position = [&position] { return position; };
  t.seek = [&position](int64_t to) { position = to; };
  t.unit = "seq";
  t.config = options_json(*sub);
  t.texts = copy::checkpoint_texts(net);
  t.next_loss = [this, &net, &dropout, &position, device] {
    const Rng data = Rng(common.seed, "train").fork(static_cast<uint64_t>(position++));
    const copy::Batch batch = copy::make_batch(task, items, data);
    const Tensor logits =
        net.forward(raw::to(batch.inputs, device), batch.lengths, {true, &dropout, {}});
    TrainBatch result;
    result.loss = nn::cross_entropy(logits, raw::to(batch.targets, device), copy::kIgnore);
    result.units = static_cast<double>(items);
    return result;
  };
  t.evaluate = [this, &net, device] {
    const copy::Score score =
        copy::evaluate(net, task, items, eval_batches, Rng(common.seed, "eval"), device);
    return Evaluation{{{"eval_loss", score.loss}, {"accuracy", score.accuracy()}}, score.loss};
  };
  return t;
}

// The best model on sequences that neither the training nor its evaluations have seen.
void TrainCommand::report(const TrainResult& result, const RunFolder& folder, Device device) const {
  const copy::TrainedModel best = copy::load_model(folder.path());
  best.model->to(device);
  const copy::Score score =
      copy::evaluate(*best.model, task, items, 20, Rng(common.seed, "test"), device);
  if (!common.json) {
    std::cout << copy::describe(task, score) << "\nmodel " << best.file << ", step " << best.step
              << '\n';
    return;
  }
  nlohmann::ordered_json json = score_json(task, score);
  json["out"] = folder.path();
  json["steps"] = result.step;
  json["best_step"] = best.step;
  json["last_loss"] = result.last_loss;
  json["seconds"] = result.seconds;
  json["sequences_per_second"] = result.units_per_second;
  std::cout << json.dump(2) << '\n';
}

void TrainCommand::run() {
  const Device device = apply(common);
  copy::check(task);
  model.positions = nn::parse_positions(positions);
  if (model.max_length == 0) model.max_length = task.length;
  Rng init(common.seed, "init"), dropout(common.seed, "dropout");
  copy::Model net(task, model, init);
  net.to(device);

  if (run_options.out.empty()) {
    run_options.out = run_options.resume.empty() ? concat("runs/copy-", task.task, "-", task.length)
                                                 : run_options.resume;
  }
  const RunFolder folder(run_options);
  std::fprintf(stderr,
               "copy %s, length %lld, %lld symbols; %lld layers, width %lld, %lld "
               "parameters, attention %s; %s\n",
               task.task.c_str(), static_cast<long long>(task.length),
               static_cast<long long>(task.alphabet), static_cast<long long>(model.layers),
               static_cast<long long>(model.width), static_cast<long long>(net.parameter_count()),
               model.attention.c_str(), folder.path().c_str());
  int64_t position = 0;
  TrainTask work = train_task(net, dropout, position, device);
  work.config["out"] = folder.path();
  const TrainResult result = apps::train(work, train, folder);
  if (!result.stopped) report(result, folder, device);
}

}  // namespace

void register_copy_train(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  command->sub = app.add_subcommand("train", "Train a small transformer on a copy task");
  command->set_defaults();
  command->add_options();
  command->sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
