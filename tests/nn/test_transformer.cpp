// Multi-head attention, encoder and decoder: padding, causality, gradients, recomputation.
#include "nn/transformer.h"

#include <catch2/catch.hpp>
#include <functional>
#include <limits>

#include "autograd/recompute.h"
#include "nn/loss.h"
#include "nn/optim.h"
#include "tests/nn/model_checks.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

TransformerOptions small() {
  return {.layers = 2, .heads = 2, .width = 8, .hidden = 12, .dropout = 0.2, .max_length = 16};
}

std::vector<TransformerOptions> kinds() {
  std::vector<TransformerOptions> all;
  for (bool pre_norm : {true, false}) {
    for (Positions positions :
         {Positions::none, Positions::sinusoidal, Positions::learned, Positions::rotary}) {
      TransformerOptions o = small();
      o.pre_norm = pre_norm;
      o.positions = positions;
      o.activation = pre_norm ? "gelu" : "relu";
      if (positions == Positions::rotary) o.head_size = 6;
      all.push_back(o);
    }
  }
  return all;
}

// A model in f64 whose biases and gains are not those of the start.
template <typename Model>
std::unique_ptr<Model> make(const TransformerOptions& options) {
  Rng rng(11);
  auto model = std::make_unique<Model>(options, rng);
  model->to(DType::f64);
  for (const Tensor& x : model->parameters()) {
    raw::add_(x.detach(), randn(x.shape(), rng, DType::f64, 0.1));
  }
  model->assign_paths();
  return model;
}

Tensor item(const Tensor& x, int64_t b) { return raw::slice(x, 0, b, b + 1); }
Tensor prefix(const Tensor& x, int64_t length) { return raw::slice(x, 1, 0, length); }
Tensor beyond(const Tensor& x, int64_t length) { return raw::slice(x, 1, length, x.size(1)); }

// x with another future after `now` positions.
Tensor with_future(const Tensor& x, int64_t now, Rng& rng) {
  const Tensor y = raw::clone(x);
  raw::copy_(beyond(y, now), randn(beyond(y, now).shape(), rng));
  return y;
}

}  // namespace

// ---- encoder ------------------------------------------------------------------------------------

TEST_CASE("Encoder: padded outputs are 0, padding content is ignored, items are independent") {
  for (const TransformerOptions& options : kinds()) {
    const auto encoder = make<Encoder>(options);
    Rng rng(1);
    const Tensor x = randn({3, 9, 8}, rng);
    const Lengths lengths({9, 5, 1});
    const auto [y, out] = encoder->forward(x, lengths, {});
    CHECK(y.shape() == x.shape());
    CHECK(out == lengths);
    const Tensor dirty = raw::clone(x);
    for (int64_t b = 0; b < 3; ++b) {
      CHECK(not_zero(beyond(item(y, b), lengths[b])) == "");
      const Tensor single = prefix(item(x, b), lengths[b]);
      CHECK(mismatch(prefix(item(y, b), lengths[b]), encoder->forward(single, {}, {}).first, 1e-11,
                     1e-11) == "");
      if (lengths[b] < 9) {
        raw::fill_(beyond(item(dirty, b), lengths[b]), std::numeric_limits<double>::quiet_NaN());
      }
    }
    CHECK(same_bits(encoder->forward(dirty, lengths, {}).first, y));
  }
}

TEST_CASE("Encoder: the padding receives no gradient and changes none") {
  const auto encoder = make<Encoder>(small());
  Rng rng(1);
  Tensor x = randn({2, 6, 8}, rng);
  x.set_requires_grad();
  backward(sum(square(encoder->forward(x, Lengths({6, 2}), {}).first)));
  CHECK(not_zero(beyond(item(x.grad(), 1), 2)) == "");
  CHECK(not_zero(prefix(item(x.grad(), 1), 2)) != "");
  std::vector<Tensor> padded;
  for (const Tensor& p : encoder->parameters()) padded.push_back(p.grad());
  encoder->zero_grad();
  backward(sum(square(encoder->forward(item(x, 0).detach(), {}, {}).first)));
  backward(sum(square(encoder->forward(prefix(item(x, 1), 2).detach(), {}, {}).first)));
  for (size_t i = 0; i < padded.size(); ++i) {
    CHECK(mismatch(padded[i], encoder->parameters()[i].grad(), 1e-9, 1e-9) == "");
  }
}

TEST_CASE("Encoder: a causal one is a language model's body: no output sees the future") {
  for (TransformerOptions options : kinds()) {
    options.causal = true;
    const auto encoder = make<Encoder>(options);
    Rng rng(1);
    const Tensor x = randn({2, 7, 8}, rng);
    const Tensor y = encoder->forward(x, {}, {}).first;
    for (int64_t now = 1; now < 7; ++now) {
      const Tensor other = encoder->forward(with_future(x, now, rng), {}, {}).first;
      CHECK(mismatch(prefix(other, now), prefix(y, now), 1e-12, 1e-12) == "");
      CHECK(mismatch(beyond(other, now), beyond(y, now)) != "");
    }
  }
  const auto seeing = make<Encoder>(small());
  Rng rng(1);
  const Tensor x = randn({1, 7, 8}, rng);
  CHECK(mismatch(prefix(seeing->forward(with_future(x, 3, rng), {}, {}).first, 3),
                 prefix(seeing->forward(x, {}, {}).first, 3)) != "");
}

TEST_CASE("Encoder: gradients of all parameters are those of the differences", "[host]") {
  for (const TransformerOptions& options : kinds()) {
    const auto encoder = make<Encoder>(options);
    Rng rng(2);
    const Tensor x = randn({2, 5, 8}, rng), w = randn({2, 5, 8}, rng);
    check_parameter_gradients(*encoder, [&] {
      Rng dropout(3);
      return sum(w *
                 encoder->forward(x, Lengths({5, 3}), {.training = true, .rng = &dropout}).first);
    });
  }
}

TEST_CASE("rotary positions: a weight depends on the distance of query and key alone") {
  TransformerOptions options = small();
  options.positions = Positions::rotary;
  Rng rng(1);
  MultiHead attention(options, "full", false, rng);
  attention.to(DType::f64);
  // Equal tokens: all that can make weights differ is where they stand.
  const Tensor x = raw::expand(randn({1, 1, 8}, rng), {1, 6, 8});
  std::vector<double> weights;
  const Context context{.tap = [&](const std::string&, Attention& inner, const AttentionInput& in) {
    weights = doubles(raw::select(raw::select(attention_weights(inner, in), 0, 0), 0, 0));
  }};
  attention.forward(x, x, {}, {}, context);
  const auto score = [&](int64_t l, int64_t s) { return std::log(weights[l * 6 + s]); };
  for (int64_t l = 1; l < 6; ++l) {
    for (int64_t s = 1; s < 6; ++s) {
      CHECK(score(l, s) - score(l, l) ==
            Approx(score(l - 1, s - 1) - score(l - 1, l - 1)).margin(1e-6));
    }
  }
  CHECK(std::fabs(score(0, 0) - score(0, 1)) > 1e-4);
}

// ---- decoder ------------------------------------------------------------------------------------

TEST_CASE("Decoder: causal in its input, sees all of the memory that is valid, ignores padding") {
  for (const TransformerOptions& options : kinds()) {
    const auto decoder = make<Decoder>(options);
    Rng rng(1);
    const Tensor x = randn({2, 6, 8}, rng), memory = randn({2, 9, 8}, rng);
    const Lengths lengths({6, 4}), memory_lengths({9, 5});
    const auto [y, out] = decoder->forward(x, lengths, memory, memory_lengths, {});
    CHECK(y.shape() == x.shape());
    CHECK(out == lengths);
    CHECK(not_zero(beyond(item(y, 1), 4)) == "");

    const Tensor other =
        decoder->forward(with_future(x, 3, rng), lengths, memory, memory_lengths, {}).first;
    CHECK(mismatch(prefix(other, 3), prefix(y, 3), 1e-12, 1e-12) == "");

    const Tensor dirty = raw::clone(memory);
    raw::fill_(beyond(item(dirty, 1), 5), std::numeric_limits<double>::quiet_NaN());
    CHECK(same_bits(decoder->forward(x, lengths, dirty, memory_lengths, {}).first, y));
    const Tensor changed = with_future(memory, 4, rng);
    const Tensor seen = decoder->forward(x, lengths, changed, memory_lengths, {}).first;
    for (int64_t b : {0, 1}) CHECK(mismatch(prefix(item(seen, b), 1), prefix(item(y, b), 1)) != "");

    const Tensor single =
        decoder->forward(prefix(item(x, 1), 4), {}, prefix(item(memory, 1), 5), {}, {}).first;
    CHECK(mismatch(prefix(item(y, 1), 4), single, 1e-11, 1e-11) == "");
  }
}

TEST_CASE("Decoder: gradients of all parameters and of the memory") {
  const auto decoder = make<Decoder>(small());
  Rng rng(2);
  const Tensor x = randn({2, 4, 8}, rng), w = randn({2, 4, 8}, rng);
  Tensor memory = randn({2, 5, 8}, rng);
  memory.set_requires_grad();
  check_parameter_gradients(*decoder, [&] {
    Rng dropout(3);
    const Context context{.training = true, .rng = &dropout};
    return sum(w * decoder->forward(x, Lengths({4, 2}), memory, Lengths({5, 3}), context).first);
  });
  CHECK(not_zero(beyond(item(memory.grad(), 1), 3)) == "");
  CHECK(not_zero(prefix(item(memory.grad(), 1), 3)) != "");
}

TEST_CASE("a decoder over an encoder learns one batch by heart", "[slow]") {
  TransformerOptions options = small();
  options.layers = 1;
  options.width = 16;
  options.dropout = 0;
  struct Model : Module {
    Model(const TransformerOptions& o, Rng& rng)
        : embed(12, 16, rng, 1), encoder(o, rng), decoder(o, rng), out(16, 12, rng) {
      add_module("embed", embed);
      add_module("encoder", encoder);
      add_module("decoder", decoder);
      add_module("out", out);
    }
    Embedding embed;
    Encoder encoder;
    Decoder decoder;
    Linear out;
  };
  Rng rng(4);
  Model model(options, rng);
  const Tensor source = randint({4, 6}, 10, rng);
  const Tensor start = full({4, 1}, 11, DType::i64);
  const Tensor input = raw::cat({start, raw::slice(source, 1, 0, 5)}, 1);
  Optimizer optimizer(model.named_parameters(), {.kind = "adam"});
  double loss_value = 0;
  for (int step = 0; step < 150; ++step) {
    const Context context{.training = true, .rng = &rng};
    const Tensor memory = model.encoder.forward(model.embed.forward(source), {}, context).first;
    const Tensor y =
        model.decoder.forward(model.embed.forward(input), {}, memory, {}, context).first;
    const Tensor loss = nn::cross_entropy(model.out.forward(y), source);
    loss_value = loss.item();
    backward(loss);
    optimizer.step(3e-3);
    optimizer.zero_grad();
  }
  CHECK(loss_value < 0.05);
}

// ---- recomputation ------------------------------------------------------------------------------

namespace {

struct Step {
  Tensor y;
  std::vector<Tensor> grads;
  uint64_t memory = 0;  // peak above what was there before, in bytes
};

Step train_step(TransformerOptions options, bool again) {
  options.recompute = again;
  Rng init(1), data(2), dropout(3);
  Encoder encoder(options, init);
  Tensor x = randn({2, 64, options.width}, data, DType::f32);
  const Tensor dy = randn(x.shape(), data, DType::f32);
  x.set_requires_grad();
  CachingAllocator& memory = allocator({});
  memory.reset_peak();
  const uint64_t before = memory.stats().active;
  Step step;
  {
    const Tensor y =
        encoder.forward(x, Lengths({64, 41}), {.training = true, .rng = &dropout}).first;
    step.y = y.detach();
    backward(y, dy);
  }
  uint64_t gradients = 0;  // stay after the step; not activations
  for (const Tensor& p : encoder.parameters()) gradients += 4 * p.numel();
  step.memory = memory.stats().peak - before - gradients;
  for (const Tensor& p : encoder.parameters()) step.grads.push_back(p.grad());
  step.grads.push_back(x.grad());
  return step;
}

}  // namespace

TEST_CASE("recompute: the same bits, with at most a third of the activation memory") {
  TransformerOptions options{.layers = 9, .heads = 4, .width = 32, .hidden = 128, .dropout = 0.1};
  options.attention = "full:dropout=0.1";
  const Step plain = train_step(options, false), again = train_step(options, true);
  CHECK(same_bits(again.y, plain.y));
  REQUIRE(again.grads.size() == plain.grads.size());
  for (size_t i = 0; i < plain.grads.size(); ++i) CHECK(same_bits(again.grads[i], plain.grads[i]));
  INFO(plain.memory << " bytes without, " << again.memory << " with recomputation");
  CHECK(3 * again.memory <= plain.memory);
}

TEST_CASE("recompute: a decoder's gradients and the random stream afterwards are the same") {
  std::vector<std::vector<Tensor>> grads;
  std::vector<RngState> states;
  for (bool again : {false, true}) {
    TransformerOptions options = small();
    options.recompute = again;
    const auto decoder = make<Decoder>(options);
    Rng rng(1), dropout(2);
    const Tensor x = randn({2, 4, 8}, rng);
    Tensor memory = randn({2, 5, 8}, rng);
    memory.set_requires_grad();
    const Context context{.training = true, .rng = &dropout};
    backward(sum(square(decoder->forward(x, {}, memory, Lengths({5, 2}), context).first)));
    grads.push_back({memory.grad()});
    for (const Tensor& p : decoder->parameters()) grads.back().push_back(p.grad());
    states.push_back(dropout.state());
  }
  CHECK(states[0] == states[1]);
  for (size_t i = 0; i < grads[0].size(); ++i) CHECK(same_bits(grads[0][i], grads[1][i]));
}

// ---- the tap ------------------------------------------------------------------------------------

TEST_CASE("the tap sees every attention once, with its path, and changes nothing") {
  for (bool again : {false, true}) {
    TransformerOptions options = small();
    options.recompute = again;
    options.attention = "full:dropout=0.3";
    const auto decoder = make<Decoder>(options);
    Rng data(1);
    const Tensor x = randn({1, 4, 8}, data), memory = randn({1, 5, 8}, data);
    std::vector<std::string> seen;
    const auto step = [&](bool tapped) {
      Rng rng(2);
      Context context{.training = true, .rng = &rng};
      if (tapped) {
        context.tap = [&](const std::string& path, Attention& attention, const AttentionInput& in) {
          seen.push_back(path);
          const Tensor weights = attention_weights(attention, in);
          CHECK(weights.size(3) == in.k.size(2));
        };
      }
      const Tensor y = decoder->forward(x, {}, memory, {}, context).first;
      backward(sum(y));
      return y.detach();
    };
    const Tensor plain = step(false);
    CHECK(same_bits(step(true), plain));
    CHECK(seen == std::vector<std::string>{"layers.0.self", "layers.0.cross", "layers.1.self",
                                           "layers.1.cross"});
  }
}

// ---- randomness ---------------------------------------------------------------------------------

namespace {

// Softmax attention whose temperature is drawn at random in each call.
class Moody : public Attention {
 public:
  Tensor attend(const AttentionInput& input) override {
    check_attention_input(input, capabilities(), "test-moody");
    const auto draw = [&] {
      return std::vector<Tensor>{raw::uniform({1}, *input.rng, 0.1, 3, DType::f64)};
    };
    const Tensor mood = input.replay ? input.replay->at("mood") : replayable(draw)[0];
    if (input.record) (*input.record)["mood"] = mood;
    const Tensor weights = masked_softmax(matmul(input.q, transpose(input.k, 2, 3)), mood.item(),
                                          input.q_lengths, input.k_lengths, input.causal);
    return heads_last(matmul(weights, input.v));
  }
  Capabilities capabilities() const override {
    return {.causal = true, .cross = true, .key_order_invariant = true, .exact_options = "-"};
  }
};

const RegisterAttention kMoody{
    "test-moody", "full attention of random temperature", {}, [](const AttentionOptions&) {
      return std::make_unique<Moody>();
    }};

}  // namespace

TEST_CASE("random attention: a stream by path in evaluation, the caller's stream in training") {
  TransformerOptions options = small();
  options.attention = "test-moody";
  options.dropout = 0;
  const auto encoder = make<Encoder>(options);
  Rng rng(1);
  const Tensor x = randn({1, 5, 8}, rng);
  const Tensor y = encoder->forward(x, {}, {}).first;
  CHECK(same_bits(encoder->forward(x, {}, {}).first, y));
  CHECK(same_bits(encoder->forward(x, {}, {.rng = &rng}).first, y));
  encoder->assign_paths("elsewhere");
  CHECK(mismatch(encoder->forward(x, {}, {}).first, y) != "");

  const auto train = [&] {
    return encoder->forward(x, {}, {.training = true, .rng = &rng}).first.detach();
  };
  const RngState before = rng.state();
  const Tensor first = train(), second = train();
  CHECK(mismatch(first, second) != "");
  rng.set_state(before);
  CHECK(same_bits(train(), first));
}

// ---- bad input ----------------------------------------------------------------------------------

TEST_CASE("Encoder and Decoder: bad input is named") {
  const auto encoder = make<Encoder>(small());
  const auto decoder = make<Decoder>(small());
  const Tensor x = zeros({2, 4, 8}, DType::f64);
  CHECK_THAT(error_of([&] {
               encoder->forward(zeros({2, 4, 7}, DType::f64), {}, {});
             }),
             Contains("Encoder: expected (B, T, 8)") && Contains("(2, 4, 7)"));
  CHECK_THAT(error_of([&] {
               encoder->forward(zeros({0, 4, 8}, DType::f64), {}, {});
             }),
             Contains("at least 1"));
  CHECK_THAT(error_of([&] {
               encoder->forward(x, Lengths({5, 1}), {});
             }),
             Contains("item 0") && Contains("got 5"));
  CHECK_THAT(error_of([&] { encoder->forward(x, {}, {.training = true}); }), Contains("rng"));
  CHECK_THAT(error_of([&] {
               decoder->forward(x, {}, zeros({1, 4, 8}, DType::f64), {}, {});
             }),
             Contains("batches differ"));
  CHECK_THAT(error_of([&] { decoder->forward(x, {}, x, Lengths({1}), {}); }),
             Contains("Decoder: memory"));
}
