// The training loop on a toy model: what it writes, and that a resumed run is the same run.
#include <catch2/catch.hpp>
#include <csignal>
#include <fstream>
#include <limits>

#include "tests/apps/toy_run.h"

using namespace centroid;
using namespace centroid::apps;
using Catch::Matchers::Contains;
using namespace centroid::test;

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
