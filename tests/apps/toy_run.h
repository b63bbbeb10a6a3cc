#pragma once
// A training in miniature, for the tests of the training loop.
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "apps/common/log.h"
#include "apps/common/train_loop.h"
#include "autograd/ops.h"
#include "tests/support.h"

namespace centroid::test {

using namespace centroid::apps;
using Json = nlohmann::ordered_json;

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
inline std::vector<Json> timeless(const std::string& path) {
  std::vector<Json> lines = read_json_lines(path);
  for (Json& line : lines) line.erase("time");
  return lines;
}

inline void check_same_checkpoint(const std::string& a, const std::string& b) {
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

}  // namespace centroid::test
