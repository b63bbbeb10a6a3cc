// bench train: one training step of the speech model of the clustered-attention paper's WSJ
// experiment: 40 log-mels, no subsampling, 9 post-norm layers, 6 heads of 32, feed-forward 768,
// CTC, Adam.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/bench.h"
#include "apps/common/args.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "nn/transformer.h"
#include "tensor/parallel.h"
#include "tensor/trace.h"

namespace centroid::apps {

namespace {

using nlohmann::json;

struct TrainBench {
  CommonOptions common;
  int rounds = 5;
  int64_t batch = 4, time = 800, labels = 90, classes = 51;
  double dropout = 0;
  std::string attention = "full";
  bool recompute = false;

  void run();
};

// The model as the paper describes it.
class WsjModel : public nn::Module {
 public:
  WsjModel(const nn::TransformerOptions& options, int64_t bins, int64_t classes, Rng& rng)
      : input_(bins, options.width, rng),
        encoder_(options, rng),
        output_(options.width, classes, rng) {
    add_module("input", input_);
    add_module("encoder", encoder_);
    add_module("output", output_);
    assign_paths();
  }
  Tensor forward(const Tensor& x, const nn::Context& context) {
    return output_.forward(encoder_.forward(input_.forward(x), {}, context).first);
  }

 private:
  nn::Linear input_;
  nn::Encoder encoder_;
  nn::Linear output_;
};

struct StepTimes {
  std::vector<double> step, forward, backward, update;
};

void TrainBench::run() {
  apply(common);
  nn::TransformerOptions options;
  options.layers = 9;
  options.heads = 6;
  options.width = 192;
  options.hidden = 768;
  options.dropout = dropout;
  options.attention =
      dropout > 0 && attention == "full" ? concat("full:dropout=", dropout) : attention;
  options.pre_norm = false;
  options.activation = "relu";
  options.recompute = recompute;
  Rng init(common.seed, "init"), data(common.seed, "data"), noise(common.seed, "dropout");
  WsjModel model(options, 40, classes, init);
  nn::OptimizerOptions adam;
  adam.kind = "adam";
  adam.lr = 1e-4;
  nn::Optimizer optimizer(model.named_parameters(), adam);

  const Tensor x = raw::normal({batch, time, 40}, data);
  const Lengths lengths(std::vector<int64_t>(batch, time));
  std::vector<std::vector<int32_t>> targets(batch);
  for (auto& target : targets) {
    for (int64_t u = 0; u < labels; ++u) target.push_back(1 + data.below(classes - 1));
  }
  double first_loss = 0, loss_value = 0;
  const auto step = [&](StepTimes* times) {
    optimizer.zero_grad();
    Tensor loss;
    const double f = time_once([&] {
      loss = nn::ctc(model.forward(x, {true, &noise, {}}), lengths, targets);
    });
    const double b = time_once([&] { backward(loss); });
    const double u = time_once([&] { optimizer.step(adam.lr); });
    loss_value = loss.item();
    if (!times) return;
    times->forward.push_back(f);
    times->backward.push_back(b);
    times->update.push_back(u);
    times->step.push_back(f + b + u);
  };
  step(nullptr);
  first_loss = loss_value;
  allocator(default_device()).reset_peak();
  StepTimes times;
  for (int r = 0; r < rounds; ++r) step(&times);
  // The check: a step that computes something else than a gradient does not lower the loss.
  CENTROID_CHECK(std::isfinite(loss_value) && loss_value < first_loss,
                 "bench: the loss did not fall: ", first_loss, " -> ", loss_value);
  const double peak = allocator(default_device()).stats().peak / 1048576.0;
  start_kernel_times();
  step(nullptr);
  const std::vector<KernelTime> kernels = stop_kernel_times();

  std::FILE* text = common.json ? stderr : stdout;
  const double total = median(times.step);
  std::fprintf(text,
               "%d threads, OpenBLAS kernels %s: %lld utterances of %lld frames, %s, dropout %g%s\n"
               "step %.0f ms (forward %.0f, backward %.0f, Adam %.1f; median of %d), peak memory "
               "%.0f MiB\nwhat dominates:\n",
               num_threads(), blas_kernels().c_str(), static_cast<long long>(batch),
               static_cast<long long>(time), options.attention.c_str(), dropout,
               recompute ? ", recompute" : "", total * 1e3, median(times.forward) * 1e3,
               median(times.backward) * 1e3, median(times.update) * 1e3, rounds, peak);
  double sum = 0;
  for (const auto& k : kernels) sum += k.seconds;
  json shares = json::array();
  for (size_t i = 0; i < kernels.size() && i < 12; ++i) {
    const auto& k = kernels[i];
    std::fprintf(text, "  %5.1f %%  %-8s  %-22s %8.1f ms in %lld calls\n", 100 * k.seconds / sum,
                 k.phase.c_str(), k.name.c_str(), k.seconds * 1e3, static_cast<long long>(k.calls));
    shares.push_back({{"phase", k.phase}, {"kernel", k.name}, {"share", k.seconds / sum}});
  }
  if (!common.json) return;
  std::cout << json{{"step_ms", total * 1e3},
                    {"forward_ms", median(times.forward) * 1e3},
                    {"backward_ms", median(times.backward) * 1e3},
                    {"update_ms", median(times.update) * 1e3},
                    {"peak_mib", peak},
                    {"loss", loss_value},
                    {"threads", num_threads()},
                    {"blas_kernels", blas_kernels()},
                    {"kernels", shares}}
                   .dump()
            << "\n";
}

}  // namespace

void register_bench_train(CLI::App& app) {
  auto command = std::make_shared<TrainBench>();
  CLI::App* sub = app.add_subcommand("train", "One training step of a 9-layer speech model");
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->capture_default_str()->group("Benchmark");
  };
  add("--rounds", command->rounds, "Timed steps; medians are printed")->check(CLI::Range(1, 1000));
  add("--batch", command->batch, "Utterances")->check(CLI::Range(1, 1024));
  add("--time", command->time, "Frames of each")->check(CLI::Range(1, 100000));
  add("--labels", command->labels, "Labels of each")->check(CLI::Range(1, 10000));
  add("--dropout", command->dropout, "Dropout, also of the attention")->check(CLI::Range(0.0, 0.9));
  add("--attention", command->attention, "Attention variant");
  add_switch(*sub, "recompute", command->recompute, "Keep only each layer's input for backward")
      ->group("Benchmark");
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
