// copy eval: accuracy of a trained model on fresh sequences.
#include <cmath>
#include <cstdio>
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
  bool generate = false, check = false;

  void run() const;

 private:
  void run_generation(const copy::TrainedModel& trained, const copy::TaskOptions& task,
                      Device device) const;
};

// The largest difference between logits of steps and of a forward pass that `--check` accepts in
// f64: the two add up numbers in different orders.
constexpr double kAgreement = 1e-9;

void EvalCommand::run_generation(const copy::TrainedModel& trained, const copy::TaskOptions& task,
                                 Device device) const {
  const copy::Generation result =
      copy::generate(*trained.model, task, items, batches, Rng(common.seed, "test"), check, device);
  CENTROID_CHECK(!check || result.difference <= kAgreement,
                 "copy eval --check: expected steps to give the logits of a forward pass, at most ",
                 kAgreement, " of the largest apart in f64, got ", result.difference);
  CENTROID_CHECK(std::isfinite(result.difference_f32) && (result.chooses || result.apart == 0),
                 "copy eval --check: expected steps to give the logits of a forward pass, at most ",
                 copy::kAgreement, " of the largest apart in f32, got ", result.difference_f32);
  if (common.json) {
    nlohmann::ordered_json json = {{"task", task.task},
                                   {"length", task.length},
                                   {"alphabet", task.alphabet},
                                   {"attention", trained.model->encoder_options().attention},
                                   {"step", trained.step},
                                   {"right", result.right},
                                   {"asked", result.asked},
                                   {"accuracy", result.accuracy()},
                                   {"tokens", result.tokens},
                                   {"seconds", result.seconds},
                                   {"tokens_per_second", result.tokens_per_second()}};
    if (check) {
      json["difference"] = result.difference;
      json["difference_f32"] = result.difference_f32;
      json["apart"] = result.apart;
    }
    std::cout << json.dump(2) << '\n';
    return;
  }
  std::printf("written symbols %.2f %% (%lld of %lld right, length %lld)\n",
              100 * result.accuracy(), static_cast<long long>(result.right),
              static_cast<long long>(result.asked), static_cast<long long>(task.length));
  std::fprintf(stderr, "%lld tokens in %.2f s, %.0f tokens/s\n",
               static_cast<long long>(result.tokens), result.seconds, result.tokens_per_second());
  if (!check) return;
  std::fprintf(stderr, "steps agree with the forward pass within %.1e in f64, %.1e in f32\n",
               result.difference, result.difference_f32);
  if (result.apart > 0) {
    std::fprintf(stderr,
                 "%lld of %lld steps are more than %.0e apart in f32, where rounding can "
                 "decide a choice of clusters or keys otherwise\n",
                 static_cast<long long>(result.apart), static_cast<long long>(result.tokens),
                 copy::kAgreement);
  }
}

void EvalCommand::run() const {
  const Device device = apply(common);
  const copy::TrainedModel trained = copy::load_model(model, attention);
  trained.model->to(device);
  copy::TaskOptions task = trained.model->task();
  if (length > 0) task.length = length;
  CENTROID_CHECK(generate || !check, "copy eval: --check needs --generate");
  if (generate) return run_generation(trained, task, device);
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
  CLI::Option* generate =
      sub.add_flag("--generate", command->generate,
                   "causal task: write the second w symbol by symbol, and say how fast that is");
  sub.add_flag("--check", command->check,
               "with --generate: compare the logits of every step with those of a forward pass")
      ->needs(generate);
  add_common_options(sub, command->common);
  sub.callback([command] { command->run(); });
}

}  // namespace centroid::apps
