// The training loop on a toy model: what it writes, and that a resumed run is the same run.
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>

#include "apps/common/kept_checkpoints.h"
#include "apps/common/log.h"
#include "apps/common/train_loop.h"
#include "autograd/ops.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::apps;
using Catch::Matchers::Contains;
using centroid::test::error_of;
using centroid::test::read_text;
using centroid::test::same_bits;
using centroid::test::TempDir;
using Json = nlohmann::ordered_json;

namespace {

struct Toy : nn::Module {
  Tensor w = full({4}, 0.5), b = full({1}, 0.0);
  Toy() {
    w.set_requires_grad();
    b.set_requires_grad();
    add_parameter("w", w);
    add_parameter("b", b);
  }
};

/// A run of the toy: regression on random points, with a noise stream as dropout would have one.
struct Run {
  Toy model;
  Rng noise{7, "noise"};
  int64_t position = 0;
  TrainOptions options;
  TrainTask task;
  std::function<void(int64_t batch, Tensor& loss)> meddle = [](int64_t, Tensor&) {};
  std::vector<double> seen_in_evaluation;

  Run() {
    options.steps = 20;
    options.eval_every = 5;
    options.save_every = 4;
    options.optimizer.lr = 0.05;
    options.schedule.warmup = 3;
    task.model = &model;
    task.rngs = {{"noise", &noise}};
    task.position = [this] { return position; };
    task.seek = [this](int64_t to) { position = to; };
    task.config = {{"steps", 20}};
    task.texts = {{"vocabulary", "a b c"}};
    task.next_loss = [this] { return next(); };
    task.evaluate = [this] { return evaluate(); };
  }

  TrainBatch next() {
    const int64_t batch = position++;
    Rng data(uint64_t(batch), "data");
    std::vector<float> x(4), y(4);
    for (int i = 0; i < 4; ++i) {
      x[i] = float(data.normal());
      y[i] = 2 * x[i] + 1 + 0.1f * float(noise.normal());
    }
    Tensor loss = mean(square(model.w * from_vector(x, {4}) + model.b - from_vector(y, {4})));
    meddle(batch, loss);
    return {loss, {"item" + std::to_string(batch)}, 1, 0.5};
  }

  Evaluation evaluate() {
    double error = 0;
    for (const float w : model.w.to_vector<float>()) error += std::fabs(w - 2);
    seen_in_evaluation.push_back(error);
    return {{{"dev_loss", error / 4}, {"dev_error", error}}, error};
  }

  /// Trains, without progress on the test's stderr.
  TrainResult go(const RunOptions& where) {
    std::ostringstream quiet;
    struct Restore {
      std::streambuf* old;
      ~Restore() { std::cerr.rdbuf(old); }
    } restore{std::cerr.rdbuf(quiet.rdbuf())};
    return train(task, options, RunFolder(where));
  }
};

/// A log without what depends on the clock.
std::vector<Json> timeless(const std::string& path) {
  std::vector<Json> lines = read_json_lines(path);
  for (Json& line : lines) line.erase("time");
  return lines;
}

void check_same_checkpoint(const std::string& a, const std::string& b) {
  const nn::Checkpoint x = nn::load_checkpoint(a), y = nn::load_checkpoint(b);
  CHECK(x.step == y.step);
  CHECK(x.rngs == y.rngs);
  CHECK(x.texts == y.texts);
  for (const auto& group :
       {&nn::Checkpoint::model, &nn::Checkpoint::optimizer, &nn::Checkpoint::ema}) {
    REQUIRE((x.*group).size() == (y.*group).size());
    for (size_t i = 0; i < (x.*group).size(); ++i) {
      CHECK((x.*group)[i].first == (y.*group)[i].first);
      CHECK(same_bits((x.*group)[i].second, (y.*group)[i].second));
    }
  }
}

}  // namespace

TEST_CASE("a training ends with the first evaluation that is good enough, and stays ended") {
  TempDir temp;
  Run whole;
  whole.options.steps = 200;
  whole.options.eval_every = 10;
  whole.go({temp / "whole", "", false});
  REQUIRE(whole.seen_in_evaluation.size() == 20);
  const double bound = whole.seen_in_evaluation[6];  // errors fall
  REQUIRE(whole.seen_in_evaluation[5] > bound);

  Run early;
  early.options = whole.options;
  early.options.stop_at = bound;
  const TrainResult result = early.go({temp / "run", "", false});
  CHECK(result.step == 70);
  CHECK_FALSE(result.stopped);
  CHECK(nn::load_checkpoint(temp / "run/last.safetensors").step == 70);
  CHECK(nn::load_checkpoint(temp / "run/best.safetensors").step == 70);
  Run again;
  again.options = early.options;
  CHECK(again.go({"", temp / "run", false}).step == 70);
}

TEST_CASE("a training run learns and leaves config, log and checkpoints") {
  TempDir temp;
  Run run;
  run.options.steps = 200;
  run.options.eval_every = 50;
  const TrainResult result = run.go({temp / "run", "", false});
  CHECK(result.step == 200);
  CHECK_FALSE(result.stopped);
  CHECK(run.seen_in_evaluation.size() == 4);
  CHECK(result.best_metric < 1);
  CHECK(Json::parse(read_text(temp / "run/config.json")) == run.task.config);

  const auto log = read_json_lines(temp / "run/log.jsonl");
  CHECK(log.size() == 204);
  CHECK(log.front()["step"] == 1);
  CHECK(log.front()["lr"].get<double>() == Approx(0.05 / 3));
  CHECK(log.front().contains("grad_norm"));
  CHECK(log.front().contains("time"));
  CHECK(logged_number(log.front(), "loss") > 5 * logged_number(log[200], "loss"));
  CHECK(log[50]["event"] == "eval");
  CHECK(log[50]["step"] == 50);
  CHECK(log[50].contains("dev_error"));

  const nn::Checkpoint last = nn::load_checkpoint(temp / "run/last.safetensors");
  CHECK(last.step == 200);
  CHECK(last.texts.at("vocabulary") == "a b c");
  CHECK(Json::parse(last.texts.at("config")) == run.task.config);
  CHECK(nn::load_checkpoint(temp / "run/best.safetensors").step == result.best_step);
}

TEST_CASE("a run that was stopped or killed goes on bit for bit") {
  const auto [kind, schedule] = GENERATE(table<std::string, std::string>(
      {{"sgd", "plateau"}, {"adamw", "cosine"}, {"radam", "plateau"}}));
  CAPTURE(kind, schedule);
  TempDir temp;
  const auto make = [&](Run& run) {
    run.options.optimizer.kind = kind;
    run.options.optimizer.momentum = kind == "sgd" ? 0.9 : 0;
    run.options.optimizer.lr = kind == "sgd" ? 0.01 : 0.05;
    run.options.schedule.kind = schedule;
    run.options.schedule.patience = 1;
    run.options.schedule.warmup = 0;
    run.options.ema = 0.9;
    run.options.accumulate = 2;
    // After the first evaluation nothing gets better: `plateau` cuts the rate at each one.
    run.task.evaluate = [&run] {
      Evaluation result = run.evaluate();
      result.metric = run.position > 10 ? 2 : 1;
      return result;
    };
  };
  Run whole;
  make(whole);
  CHECK_FALSE(whole.go({temp / "whole", "", false}).stopped);

  Run first;
  make(first);
  SECTION("SIGTERM in step 11, between two checkpoints") {
    first.meddle = [](int64_t batch, Tensor&) {
      if (batch == 21) std::raise(SIGTERM);
    };
    const TrainResult result = first.go({temp / "parts", "", false});
    CHECK(result.stopped);
    CHECK(result.step == 11);
    CHECK(nn::load_checkpoint(temp / "parts/last.safetensors").step == 11);
  }
  SECTION("killed in step 12, after an evaluation and in the middle of a log line") {
    first.meddle = [](int64_t batch, Tensor&) {
      if (batch == 22) throw std::runtime_error("killed");
    };
    CHECK_THROWS_WITH(first.go({temp / "parts", "", false}), "killed");
    std::ofstream(temp / "parts/log.jsonl", std::ios::app) << "{\"step\":12,\"los";
    CHECK(nn::load_checkpoint(temp / "parts/last.safetensors").step == 8);
  }
  SECTION("killed before the first checkpoint") {
    first.meddle = [](int64_t batch, Tensor&) {
      if (batch == 3) throw std::runtime_error("killed");
    };
    CHECK_THROWS_WITH(first.go({temp / "parts", "", false}), "killed");
  }
  Run second;
  make(second);
  second.noise = Rng(99, "something else");  // the state comes from the checkpoint
  CHECK(second.go({"", temp / "parts", false}).step == 20);
  CHECK(timeless(temp / "parts/log.jsonl") == timeless(temp / "whole/log.jsonl"));
  check_same_checkpoint(temp / "parts/last.safetensors", temp / "whole/last.safetensors");
  check_same_checkpoint(temp / "parts/best.safetensors", temp / "whole/best.safetensors");
  CHECK(same_bits(second.model.w, whole.model.w));
}

namespace {

/// A run whose n-th evaluation, from 1, has the n-th of these metrics.
struct Scripted : Run {
  std::vector<double> metrics;
  explicit Scripted(std::vector<double> m) : metrics(std::move(m)) {
    options.eval_every = 1;
    options.steps = static_cast<int64_t>(metrics.size());
    // One batch a step: the position tells which evaluation this is, also after a resume.
    task.evaluate = [this] {
      const double metric = metrics.at(size_t(position - 1));
      return Evaluation{{{"dev_error", metric}}, metric};
    };
  }
};

std::vector<std::string> kept_files(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with("step-")) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<int64_t> steps_of(const std::vector<KeptCheckpoint>& entries) {
  std::vector<int64_t> steps;
  for (const KeptCheckpoint& e : entries) steps.push_back(e.step);
  return steps;
}

}  // namespace

TEST_CASE("a training ends early when evaluations show no progress", "[train]") {
  TempDir temp;
  const std::vector<double> metrics = {5, 4, 4.5, 4, 3, 3.5, 2.95, 2.9, 2.85, 1, 1};
  Scripted run(metrics);
  run.options.early_stop = 3;
  SECTION("any improvement is progress") {
    const TrainResult result = run.go({temp / "run", "", false});
    CHECK(result.step == 11);
    CHECK_FALSE(result.early);
  }
  SECTION("an improvement up to min-delta is none, and does not move the goal") {
    // 3 at step 5; 2.95 and 2.9 are within 0.1 of it, 2.85 is beyond.
    run.options.min_delta = 0.1;
    CHECK(run.go({temp / "run", "", false}).early);
    const nn::Checkpoint last = nn::load_checkpoint(temp / "run/last.safetensors");
    CHECK(last.step == 8);
    // The best checkpoint is the best one all the same.
    CHECK(nn::load_checkpoint(temp / "run/best.safetensors").step == 8);
    Scripted same(metrics);
    same.options = run.options;
    CHECK(same.go({"", temp / "run", false}).step == 8);  // it stays ended
    Scripted more(metrics);
    more.options = run.options;
    more.options.early_stop = 4;
    CHECK(more.go({"", temp / "run", false}).step == 11);  // more patience: it goes on
  }
  SECTION("NaN is no progress") {
    run.metrics = std::vector<double>(11, std::nan(""));
    run.metrics[0] = 1;
    const TrainResult result = run.go({temp / "run", "", false});
    CHECK(result.step == 4);
    CHECK(result.best_step == 1);
  }
  SECTION("a run killed on the way ends at the same step") {
    run.metrics = {5, 4, 4.5, 4.2, 4.1, 1};
    run.options.steps = 6;
    run.options.save_every = 3;
    run.meddle = [](int64_t batch, Tensor&) {
      if (batch == 4) throw std::runtime_error("killed");
    };
    CHECK_THROWS(run.go({temp / "run", "", false}));
    Scripted second(run.metrics);
    second.options = run.options;
    const TrainResult result = second.go({"", temp / "run", false});
    CHECK(result.step == 5);
    CHECK(result.early);
  }
}

TEST_CASE("checkpoints of the best and the latest evaluations are kept, and no more", "[train]") {
  TempDir temp;
  Scripted run({5, 1, 4, 2, 3, 2, std::nan(""), 6, 7});
  run.options.keep_best = 3;
  run.options.keep_last = 2;
  run.options.ema = 0.9;
  run.go({temp / "run", "", false});
  const auto entries = read_kept_checkpoints(temp / "run");
  CHECK(steps_of(entries) == std::vector<int64_t>{2, 4, 6, 8, 9});
  CHECK(steps_of(best_of(entries, 2)) == std::vector<int64_t>{2, 4});
  CHECK(kept_files(temp / "run").size() == 5);
  CHECK(entries[1].metric == 2);
  const nn::Checkpoint kept = nn::load_checkpoint(temp / ("run/" + entries[0].file));
  CHECK(kept.step == 2);
  CHECK(kept.model.size() == 2);
  CHECK(kept.ema.size() == 2);
  CHECK(kept.optimizer.empty());
  CHECK(kept.texts.at("vocabulary") == "a b c");
  CHECK(same_bits(kept.ema[1].second,
                  nn::load_checkpoint(temp / "run/best.safetensors").ema[1].second));
  // A new run in the folder begins without them.
  std::ofstream(temp / "run/step-notes.safetensors") << "mine";
  RunFolder({temp / "run", "", true});
  CHECK(kept_files(temp / "run") == std::vector<std::string>{"step-notes.safetensors"});
  CHECK(read_kept_checkpoints(temp / "run").empty());
}

TEST_CASE("a killed run keeps what an uninterrupted one keeps", "[train]") {
  TempDir temp;
  const int64_t killed_at = GENERATE(3, 5, 6, 7);
  const std::vector<double> metrics = {5, 4, 6, 3, 7, 2, 8, 1};
  const auto set = [](Scripted& run) {
    run.options.keep_best = 2;
    run.options.keep_last = 1;
    run.options.save_every = 3;
  };
  Scripted whole(metrics);
  set(whole);
  whole.go({temp / "whole", "", false});
  Scripted first(metrics);
  set(first);
  first.meddle = [&](int64_t batch, Tensor&) {
    if (batch == killed_at) throw std::runtime_error("killed");
  };
  CHECK_THROWS(first.go({temp / "parts", "", false}));
  // As if it had been killed between writing a checkpoint and listing it.
  std::ofstream(temp / "parts/step-0000099.safetensors") << "not listed";
  Scripted second(metrics);
  set(second);
  second.go({"", temp / "parts", false});
  CHECK(kept_files(temp / "parts") == kept_files(temp / "whole"));
  CHECK(read_text(temp / "parts/checkpoints.json") == read_text(temp / "whole/checkpoints.json"));
  for (const std::string& name : kept_files(temp / "whole")) {
    CHECK(read_text(temp / ("parts/" + name)) == read_text(temp / ("whole/" + name)));
  }
}

TEST_CASE("a damaged list of checkpoints is refused", "[train]") {
  for (const char* text :
       {"", "{}", "[1]", "[{\"step\":1,\"metric\":2,\"file\":\"x\"}]",
        "[{\"step\":\"1\",\"metric\":2,\"file\":\"step-0000001.safetensors\"}]",
        "[{\"step\":1,\"metric\":2,\"file\":\"../step-0000001.safetensors\"}]"}) {
    CAPTURE(text);
    CHECK_THAT(error_of([&] { parse_kept_checkpoints(text, "list"); }), Contains("list: "));
  }
}

TEST_CASE("keeping checkpoints needs evaluations", "[train]") {
  TempDir temp;
  Run run;
  run.task.evaluate = nullptr;
  run.options.keep_best = 1;
  CHECK_THAT(error_of([&] {
               run.go({temp / "run", "", false});
             }),
             Contains("expected evaluations"));
}

TEST_CASE("a full disk ends the training with an error and leaves the checkpoint whole",
          "[train]") {
  TempDir temp;
  Run first;
  first.options.steps = 4;
  first.go({temp / "run", "", false});
  const std::string before = read_text(temp / "run/last.safetensors");
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = before.size() / 2;
  Run second;
  // The limit comes into force in the second half of the run: the log is short enough for it.
  second.meddle = [&](int64_t batch, Tensor&) {
    if (batch == 5) setrlimit(RLIMIT_FSIZE, &small);
  };
  const std::string error = error_of([&] { second.go({"", temp / "run", false}); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(error, Contains("cannot write") || Contains("write: cannot"));
  CHECK(read_text(temp / "run/last.safetensors") == before);
  for (const auto& file : std::filesystem::directory_iterator(temp / "run")) {
    CHECK_FALSE(file.path().filename().string().starts_with(".centroid-"));
  }
  Run third;
  CHECK(third.go({"", temp / "run", false}).step == 20);  // and it can be resumed
}

TEST_CASE("a finished run can be given more steps") {
  TempDir temp;
  Run first, second;
  first.go({temp / "run", "", false});
  second.options.steps = 24;
  const TrainResult result = second.go({"", temp / "run", false});
  CHECK(result.step == 24);
  CHECK(second.position == 24);
}

TEST_CASE("accumulated batches are averaged") {
  TempDir temp;
  Run one, two;
  one.options.optimizer.kind = two.options.optimizer.kind = "sgd";
  one.options.steps = two.options.steps = 1;
  two.options.accumulate = 3;
  two.task.next_loss = [&] {
    two.position = 0;
    two.noise = Rng(7, "noise");
    return two.next();
  };
  one.go({temp / "one", "", false});
  two.go({temp / "two", "", false});
  CHECK(test::mismatch(one.model.w, two.model.w, 1e-5, 1e-6) == "");
  CHECK(test::mismatch(one.model.w, full({4}, 0.5)) != "");
}

TEST_CASE("a step with a bad loss changes nothing and is logged with its items") {
  const bool exploding = GENERATE(false, true);
  TempDir temp;
  Run run;
  run.options.schedule.warmup = 0;
  Tensor before;
  run.meddle = [&](int64_t batch, Tensor& loss) {
    if (batch == 9) {
      before = raw::clone(run.model.w.detach());
      loss = loss * (exploding ? 1e9 : std::numeric_limits<double>::quiet_NaN());
    }
    if (batch == 10) CHECK(same_bits(before, run.model.w.detach()));
  };
  CHECK(run.go({temp / "run", "", false}).step == 20);
  REQUIRE(before.defined());
  const auto log = read_json_lines(temp / "run/log.jsonl");
  size_t skipped = 0;
  for (const Json& line : log) {
    if (line.value("event", "") != "skip") continue;
    ++skipped;
    CHECK(line["step"] == 10);
    CHECK(line["items"] == Json({"item9"}));
    CHECK((exploding ? logged_number(line, "loss") > 1e6 : line["loss"] == "nan"));
  }
  CHECK(skipped == 1);
}

TEST_CASE("a finite loss with a gradient that is not finite is a bad step, too") {
  TempDir temp;
  Run run;
  run.options.max_bad_steps = 1;
  run.meddle = [](int64_t batch, Tensor& loss) {
    // sqrt'(0) is infinite and sqrt(0) is 0.
    if (batch == 2) loss = loss + sqrt(loss - loss);
  };
  CHECK_THAT(error_of([&] {
               run.go({temp / "run", "", false});
             }),
             Contains("training: the gradient is not finite at step 3"));
}

TEST_CASE("training stops with an error after several bad steps in a row") {
  TempDir temp;
  Run run;
  run.options.max_bad_steps = 3;
  run.meddle = [](int64_t batch, Tensor& loss) {
    if (batch == 2 || batch >= 6) loss = loss * std::numeric_limits<double>::infinity();
  };
  CHECK_THAT(
      error_of([&] {
        run.go({temp / "run", "", false});
      }),
      Contains("the loss is inf at step 9, the last of 3 bad steps in a row, with items item8") &&
          Contains("last.safetensors holds step 8"));
}

TEST_CASE("evaluations see the averaged weights, training does not") {
  TempDir temp;
  Run run;
  run.options.ema = 0.99;
  Tensor averaged;
  run.task.evaluate = [&] {
    averaged = raw::clone(run.model.w.detach());
    return run.evaluate();
  };
  run.go({temp / "run", "", false});
  CHECK(test::mismatch(averaged, run.model.w) != "");
  CHECK(test::mismatch(averaged, full({4}, 0.5)) != "");
  const nn::Checkpoint last = nn::load_checkpoint(temp / "run/last.safetensors");
  for (const auto& [name, tensor] : inference_weights(last)) {
    if (name == "w") CHECK(same_bits(tensor, averaged));
  }
  for (const auto& [name, tensor] : last.model) {
    if (name == "w") CHECK(same_bits(tensor, run.model.w.detach()));
  }
}

TEST_CASE("a checkpoint that does not fit is refused") {
  TempDir temp;
  Run first;
  first.go({temp / "run", "", false});
  SECTION("another vocabulary") {
    Run second;
    second.task.texts["vocabulary"] = "a b";
    CHECK_THAT(error_of([&] {
                 second.go({"", temp / "run", false});
               }),
               Contains("the vocabulary is not that of the checkpoint"));
  }
  SECTION("another model") {
    Run second;
    second.model.w = full({5}, 0.5);
    second.model.w.set_requires_grad();
    CHECK_THAT(error_of([&] { second.go({"", temp / "run", false}); }), Contains("w"));
  }
  SECTION("no averaged weights") {
    Run second;
    second.options.ema = 0.9;
    CHECK_THAT(error_of([&] {
                 second.go({"", temp / "run", false});
               }),
               Contains("no averaged weights of w"));
  }
  SECTION("not a checkpoint") {
    std::ofstream(temp / "run/last.safetensors") << "garbage";
    Run second;
    CHECK_THAT(error_of([&] {
                 second.go({"", temp / "run", false});
               }),
               Contains("last.safetensors"));
  }
}

TEST_CASE("the training flags keep their values and reject impossible ones") {
  TrainOptions options;
  CLI::App app;
  add_train_options(app, options);
  app.parse("--steps 5 --optimizer radam --schedule plateau --lr 0.5 --ema 0.99 --nesterov");
  CHECK(options.steps == 5);
  CHECK(options.optimizer.kind == "radam");
  CHECK(options.schedule.kind == "plateau");
  CHECK(options.optimizer.lr == 0.5);
  CHECK(options.ema == 0.99);
  CHECK(options.optimizer.nesterov);
  for (const char* line : {"--steps 0", "--optimizer adamm", "--lr nan", "--ema 1", "--gamma 0"}) {
    CHECK_THROWS_AS(app.parse(line), CLI::ParseError);
  }
}
