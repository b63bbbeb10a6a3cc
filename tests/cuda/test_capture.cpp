// A training step neither waits for the device nor allocates: it can be captured into a CUDA graph,
// and the graph does what the step does.
#include <catch2/catch.hpp>
#include <optional>

#include "autograd/ops.h"
#include "cuda/runtime.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "nn/transformer.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;
using namespace centroid::nn;

namespace {

// Symbols to symbols, all on the device.
struct Model : Module {
  Model(const TransformerOptions& options, Rng& rng)
      : in(11, options.width, rng), encoder(options, rng), out(options.width, 11, rng) {
    add_module("in", in);
    add_module("encoder", encoder);
    add_module("out", out);
    to(kCuda);
  }
  Embedding in;
  Encoder encoder;
  Linear out;
};

struct Training {
  explicit Training(const std::string& attention)
      : init(1, "init"), noise(1, "noise"), model(options(attention), init) {
    Rng data(3, "data");
    inputs = raw::to(randint({2, 9}, 11, data), kCuda);
    targets = raw::to(randint({2, 9}, 11, data), kCuda);
    optimizer.emplace(model.named_parameters(), OptimizerOptions{.kind = "adam"});
  }

  static TransformerOptions options(const std::string& attention) {
    TransformerOptions o;
    o.layers = 1;
    o.heads = 2;
    o.width = 8;
    o.hidden = 16;
    o.dropout = 0.1;
    o.attention = attention;
    return o;
  }

  void step() {
    optimizer->zero_grad();
    const auto [h, lengths] =
        model.encoder.forward(model.in.forward(inputs), {}, {true, &noise, {}});
    backward(nn::cross_entropy(model.out.forward(h), targets));
    optimizer->step(1e-2);
  }

  Rng init, noise;
  Model model;
  Tensor inputs, targets;
  std::optional<Optimizer> optimizer;
};

void capture_and_launch(Training& training) {
  cudaStream_t stream = cuda::stream();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t program = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
  training.step();
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  REQUIRE(cudaGraphInstantiate(&program, graph, 0) == cudaSuccess);
  REQUIRE(cudaGraphLaunch(program, stream) == cudaSuccess);
  cuda::synchronize(0);
  cudaGraphExecDestroy(program);
  cudaGraphDestroy(graph);
}

}  // namespace

TEST_CASE("cuda: a training step can be captured into a graph") {
  if (std::getenv("CENTROID_ALLOC")) return;  // allocates for each tensor: nothing to capture
  for (const char* attention : {"full:dropout=0.1", "improved-clustered:clusters=2,topk=3"}) {
    INFO(attention);
    Training eager(attention), captured(attention);
    for (int i = 0; i < 3; ++i) eager.step(), captured.step();  // the allocator learns the sizes
    cuda::synchronize(0);
    eager.step();
    capture_and_launch(captured);
    const NamedTensors wanted = eager.model.named_parameters();
    const NamedTensors got = captured.model.named_parameters();
    for (size_t i = 0; i < wanted.size(); ++i) {
      INFO(wanted[i].first);
      CHECK(same_bits(wanted[i].second, got[i].second));
    }
  }
}
