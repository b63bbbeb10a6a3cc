// copy eval: accuracy of a trained model on fresh sequences.
#include <iostream>
#include <memory>

#include "apps/common/args.h"
#include "apps/copy.h"

namespace centroid::apps {
namespace {

struct EvalCommand {
  CommonOptions common;
  std::string model, attention;
  int64_t length = 0, batches = 20, items = 32;

  void run() const;
};

void EvalCommand::run() const {
  const Device device = apply(common);
  const copy::TrainedModel trained = copy::load_model(model, attention);
  trained.model->to(device);
  copy::TaskOptions task = trained.model->task();
  if (length > 0) task.length = length;
  const copy::Score score =
      copy::evaluate(*trained.model, task, items, batches, Rng(common.seed, "test"), device);
  if (!common.json) {
    std::cout << copy::describe(task, score) << '\n';
    return;
  }
  nlohmann::ordered_json result = score_json(task, score);
  result["attention"] = trained.model->encoder_options().attention;
  result["step"] = trained.step;
  std::cout << result.dump(2) << '\n';
}

}  // namespace

nlohmann::ordered_json score_json(const copy::TaskOptions& task, const copy::Score& score) {
  return {{"task", task.task},    {"length", task.length}, {"alphabet", task.alphabet},
          {"right", score.right}, {"asked", score.asked},  {"accuracy", score.accuracy()},
          {"loss", score.loss}};
}

void register_copy_eval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App& sub = *app.add_subcommand("eval", "Score a trained model on fresh sequences");
  sub.add_option("--model", command->model, "run folder (its best model) or checkpoint file")
      ->required()
      ->type_name("PATH");
  sub.add_option("--length", command->length, "length of the sequences; 0: that of the training")
      ->check(in_range(0, 1e9));
  sub.add_option("--batches", command->batches, "how many batches")->check(in_range(1, 1e9));
  sub.add_option("--batch", command->items, "sequences per batch")->check(in_range(1, 1e6));
  sub.add_option("--attention", command->attention,
                 "attention variant to use instead of the trained one");
  add_common_options(sub, command->common);
  sub.callback([command] { command->run(); });
}

}  // namespace centroid::apps
