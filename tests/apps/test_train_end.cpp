// How a training ends: early, with kept checkpoints, on a full disk.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "apps/common/kept_checkpoints.h"
#include "tests/apps/toy_run.h"

using namespace centroid;
using namespace centroid::apps;
using namespace centroid::test;
using Catch::Matchers::Contains;

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

TEST_CASE("stopping early needs evaluations", "[train]") {
  TempDir temp;
  Scripted run({1});
  run.options.early_stop = 1;
  run.options.eval_every = 0;
  CHECK_THROWS_WITH(run.go({temp / "run", "", false}), Contains("expected --eval-every above 0"));
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
