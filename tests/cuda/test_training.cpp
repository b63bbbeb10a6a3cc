// Whole models across devices: the same training, checkpoints that move, errors.
#include <catch2/catch.hpp>
#include <optional>

#include "nn/checkpoint.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "nn/transformer.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;
using namespace centroid::nn;

namespace {

TransformerOptions small(const std::string& attention, double dropout) {
  TransformerOptions options;
  options.layers = 2;
  options.heads = 2;
  options.width = 16;
  options.hidden = 24;
  options.dropout = dropout;
  options.attention = attention;
  options.causal = attention == "causal-linear";
  return options;
}

// Frames to classes: what a speech recogniser is made of.
struct Net : Module {
  Net(const TransformerOptions& options, Rng& rng)
      : in(5, options.width, rng), encoder(options, rng), out(options.width, 7, rng) {
    add_module("in", in);
    add_module("encoder", encoder);
    add_module("out", out);
  }
  Tensor loss(const Context& context) {
    Rng data(5, "data");
    const Tensor x = raw::to(randn({3, 12, 5}, data, DType::f32), in.weight.device());
    const Lengths lengths({12, 7, 9});
    const auto [h, lengths_out] = encoder.forward(in.forward(x), lengths, context);
    return nn::ctc(out.forward(h), lengths_out, {{1, 2, 3}, {4, 4}, {5}});
  }
  Linear in;
  Encoder encoder;
  Linear out;
};

// Losses of some steps of Adam, starting from the same weights on any device.
std::vector<double> train(Net& net, Optimizer& optimizer, Rng& noise, int steps) {
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) {
    optimizer.zero_grad();
    const Tensor loss = net.loss({true, &noise, {}});
    backward(loss);
    clip_grad_norm(net.named_parameters(), 1.0);
    optimizer.step(1e-2);
    losses.push_back(loss.item());
  }
  return losses;
}

struct Run {
  Run(const std::string& attention, Device device)
      : init(1, "init"), noise(1, "noise"), net(small(attention, 0.1), init) {
    net.to(device);
    optimizer.emplace(net.named_parameters(), OptimizerOptions{.kind = "adamw"});
  }
  std::vector<double> train(int steps) { return ::train(net, *optimizer, noise, steps); }

  Rng init, noise;
  Net net;
  std::optional<Optimizer> optimizer;
};

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]) / b[i]);
  return largest;
}

}  // namespace

TEST_CASE("cuda: training goes as on the CPU, dropout included") {
  for (const char* attention : {"full:dropout=0.1", "causal-linear", "local:window=2"}) {
    INFO(attention);
    Run host(attention, Device{}), device(attention, kCuda);
    const auto wanted = host.train(4), losses = device.train(4);
    CHECK(largest_difference(losses, wanted) < 1e-4);
    CHECK(losses[3] < losses[0]);
  }
}

TEST_CASE("cuda: training with clustered attention learns") {
  Run device("improved-clustered:clusters=3,bits=16,topk=4", kCuda);
  const auto losses = device.train(6);
  CHECK(losses[5] < losses[0]);
}

TEST_CASE("cuda: the same seed gives the same bits") {
  Run a("full:dropout=0.1", kCuda), b("full:dropout=0.1", kCuda);
  CHECK(a.train(3) == b.train(3));
}

TEST_CASE("cuda: a checkpoint of one device goes on on the other") {
  TempDir folder;
  const auto saved = [&](Run& run) {
    Checkpoint checkpoint;
    checkpoint.model = run.net.named_parameters();
    checkpoint.optimizer = run.optimizer->state();
    checkpoint.rngs["noise"] = run.noise.state();
    save_checkpoint(folder / "c.safetensors", checkpoint);
  };
  const auto loaded = [&](Run& run) {
    const Checkpoint checkpoint = load_checkpoint(folder / "c.safetensors");
    run.net.load(checkpoint.model);
    run.optimizer->load_state(checkpoint.optimizer);
    run.noise.set_state(checkpoint.rngs.at("noise"));
  };
  for (const auto& [from, to] : {std::pair{Device{}, kCuda}, std::pair{kCuda, Device{}}}) {
    Run first("full:dropout=0.1", from), second("full:dropout=0.1", to);
    first.train(2);
    saved(first);
    loaded(second);
    CHECK(largest_difference(second.train(2), first.train(2)) < 1e-4);
  }
}
