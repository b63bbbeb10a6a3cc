// Generation step by step equals the whole sequence at once.
#include "nn/decode.h"

#include <catch2/catch.hpp>

#include "autograd/ops.h"
#include "nn/transformer.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

Tensor position(const Tensor& x, int dim, int64_t t) { return raw::slice(x, dim, t, t + 1); }

// Calls step(input of one position) for each position of q, k, v and joins the rows.
template <typename Step>
Tensor rows_of_steps(const Tensor& q, const Tensor& k, const Tensor& v, Step&& step) {
  std::vector<Tensor> rows;
  for (int64_t t = 0; t < q.size(2); ++t) {
    Rng rng(7, "decode");
    rows.push_back(step({.q = position(q, 2, t),
                         .k = position(k, 2, t),
                         .v = position(v, 2, t),
                         .causal = true,
                         .rng = &rng}));
  }
  return raw::cat(rows, 2);
}

std::vector<std::string> causal_specs() {
  std::vector<std::string> specs;
  for (const std::string& name : attention_names()) {
    const auto options = make_attention(name)->capabilities().test_options;
    std::vector<std::string> all = {name};
    for (const std::string& more : options) all.push_back(name + ":" + more);
    for (const std::string& spec : all) {
      if (make_attention(spec)->capabilities().causal) specs.push_back(spec);
    }
  }
  return specs;
}

struct Heads {
  Tensor q, k, v;
};

Heads make_heads(int64_t time) {
  Rng rng(1);
  return {.q = randn({2, 3, time, 4}, rng),
          .k = randn({2, 3, time, 4}, rng),
          .v = randn({2, 3, time, 5}, rng)};
}

Tensor at_once(Attention& attention, const Heads& x) {
  Rng rng(7, "decode");
  return attention.attend({.q = x.q, .k = x.k, .v = x.v, .causal = true, .rng = &rng});
}

}  // namespace

// ---- attention ----------------------------------------------------------------------------------

TEST_CASE("every causal variant: steps give the rows of the whole", "[slow]") {
  for (const std::string& spec : causal_specs()) {
    DYNAMIC_SECTION(spec) {
      const auto attention = make_attention(spec);
      const Heads x = make_heads(70);
      const auto state = attention->start_decoding();
      const Tensor rows = rows_of_steps(x.q, x.k, x.v, [&](const AttentionInput& input) {
        return attention->step(*state, input);
      });
      CHECK(mismatch(rows, at_once(*attention, x), 1e-10, 1e-10) == "");
    }
  }
}

TEST_CASE("the default step and the one with a cache equal full attention") {
  const auto attention = make_attention("full");
  const Heads x = make_heads(37);
  const Tensor whole = at_once(*attention, x);
  KeyValueCache cache;
  CHECK(mismatch(rows_of_steps(x.q, x.k, x.v,
                               [&](const AttentionInput& input) {
                                 return step_with_cache(*attention, cache, input, "full");
                               }),
                 whole, 1e-10, 1e-10) == "");
  CHECK(cache.k.length() == 37);
  const auto state = attention->Attention::start_decoding();
  CHECK(mismatch(rows_of_steps(x.q, x.k, x.v,
                               [&](const AttentionInput& input) {
                                 return attention->Attention::step(*state, input);
                               }),
                 whole, 1e-10, 1e-10) == "");
}

TEST_CASE("attention steps refuse what is not one position in evaluation") {
  for (const std::string& spec : causal_specs()) {
    DYNAMIC_SECTION(spec) {
      const auto attention = make_attention(spec);
      const Heads x = make_heads(2);
      const auto error_with = [&](const std::function<void(AttentionInput&)>& spoil) {
        Rng rng(1);
        const auto state = attention->start_decoding();
        AttentionInput input{.q = position(x.q, 2, 0),
                             .k = position(x.k, 2, 0),
                             .v = position(x.v, 2, 0),
                             .rng = &rng};
        attention->step(*state, input);
        spoil(input);
        return error_of([&] { attention->step(*state, input); });
      };
      CHECK(error_with([](AttentionInput&) {}) == "<no error>");
      CHECK_THAT(error_with([&](AttentionInput& in) { in.q = x.q, in.k = x.k, in.v = x.v; }),
                 Contains("expected one position"));
      CHECK_THAT(error_with([](AttentionInput& in) {
                   in.k_lengths = Lengths({1, 1});
                 }),
                 Contains("expected no lengths"));
      CHECK_THAT(error_with([](AttentionInput& in) { in.training = true; }),
                 Contains("expected evaluation"));
      CHECK_THAT(error_with([](AttentionInput& in) {
                   for (Tensor* t : {&in.q, &in.k, &in.v}) *t = raw::slice(*t, 0, 0, 1);
                 }),
                 Contains("before") && Contains("(1, 3, 1, "));
      struct Foreign : DecodeState {
      } foreign;
      Rng rng(1);
      CHECK_THAT(error_of([&] {
                   attention->step(foreign, {.q = position(x.q, 2, 0),
                                             .k = position(x.k, 2, 0),
                                             .v = position(x.v, 2, 0),
                                             .rng = &rng});
                 }),
                 Contains("another attention variant"));
    }
  }
  CHECK_THAT(error_of([] { make_attention("linear")->start_decoding(); }),
             Contains("a variant that can be causal"));
}

TEST_CASE("History grows by doubling and keeps every row") {
  History history;
  CHECK_THAT(error_of([&] { history.rows(); }), Contains("at least one row"));
  Rng rng(1);
  const Tensor rows = randn({2, 3, 100, 4}, rng);
  int moves = 0;
  const void* at = nullptr;
  for (int64_t t = 0; t < 100; ++t) {
    history.append(position(rows, 2, t));
    CHECK(history.length() == t + 1);
    moves += history.rows().bytes() != at;
    at = history.rows().bytes();
  }
  CHECK(same_bits(history.rows(), rows));
  CHECK(moves == 4);  // 16, 32, 64, 128
  CHECK_THAT(error_of([&] { history.append(rows); }), Contains("expected a row"));
  CHECK_THAT(error_of([&] {
               history.append(zeros({2, 3, 1, 5}, DType::f64));
             }),
             Contains("like those before it, (2, 3, 1, 4) f64, got (2, 3, 1, 5)"));
  CHECK_THAT(error_of([&] { history.append(zeros({2, 3, 1, 4})); }), Contains("f32"));
}

// ---- positions ----------------------------------------------------------------------------------

TEST_CASE("positions that begin later are the later rows of the table") {
  const auto tail = [](const Tensor& x) { return raw::slice(x, 0, 13, 20); };
  CHECK(same_bits(sinusoidal_positions(7, 6, 13), tail(sinusoidal_positions(20, 6))));
  CHECK(same_bits(rotary_angles(7, 6, 100, 13), tail(rotary_angles(20, 6, 100))));
  Rng rng(1);
  for (Positions kind : {Positions::none, Positions::sinusoidal, Positions::learned}) {
    const PositionalEncoding positions(kind, 6, 20, rng);
    const Tensor x = randn({2, 20, 6}, rng, DType::f32);
    CHECK(same_bits(positions.forward(raw::slice(x, 1, 13, 20), 13),
                    raw::slice(positions.forward(x), 1, 13, 20)));
  }
  const PositionalEncoding learned(Positions::learned, 6, 20, rng);
  CHECK_THAT(error_of([&] {
               learned.forward(zeros({1, 1, 6}), 20);
             }),
             Contains("at most 20 positions, got 21"));
}

// ---- encoder ------------------------------------------------------------------------------------

namespace {

TransformerOptions small(const std::string& attention) {
  return {.layers = 2,
          .heads = 2,
          .head_size = 6,
          .width = 8,
          .hidden = 12,
          .dropout = 0.2,
          .attention = attention,
          .max_length = 40,
          .causal = true};
}

// In f64, with biases and gains that are not those of the start.
std::unique_ptr<Encoder> make_encoder(const TransformerOptions& options) {
  Rng rng(11);
  auto encoder = std::make_unique<Encoder>(options, rng);
  encoder->to(DType::f64);
  for (const Tensor& x : encoder->parameters()) {
    raw::add_(x.detach(), randn(x.shape(), rng, DType::f64, 0.1));
  }
  encoder->assign_paths();
  return encoder;
}

}  // namespace

TEST_CASE("Encoder: steps give the rows of the whole, for all kinds of positions and norms") {
  for (const char* attention : {"full", "causal-linear", "causal-linear:map=favor,features=12",
                                "conditional-full:limit=10(causal-linear)"}) {
    for (Positions positions :
         {Positions::none, Positions::sinusoidal, Positions::learned, Positions::rotary}) {
      for (bool pre_norm : {true, false}) {
        INFO(attention << ", " << to_string(positions) << ", pre-norm " << pre_norm);
        TransformerOptions options = small(attention);
        options.positions = positions;
        options.pre_norm = pre_norm;
        const auto encoder = make_encoder(options);
        Rng rng(1);
        const Tensor x = randn({3, 40, 8}, rng);
        EncoderState state = encoder->start_decoding();
        std::vector<Tensor> rows;
        for (int64_t t = 0; t < 40; ++t) {
          rows.push_back(encoder->step(state, position(x, 1, t)));
          REQUIRE_FALSE(rows.back().grad_fn());
        }
        CHECK(state.position == 40);
        CHECK(mismatch(raw::cat(rows, 1), encoder->forward(x, {}, {}).first, 1e-10, 1e-10) == "");
      }
    }
  }
}

TEST_CASE("Encoder: two generations side by side do not disturb each other") {
  const auto encoder = make_encoder(small("causal-linear"));
  Rng rng(1);
  const Tensor a = randn({1, 5, 8}, rng), b = randn({2, 5, 8}, rng);
  EncoderState of_a = encoder->start_decoding(), of_b = encoder->start_decoding();
  Tensor last_a, last_b;
  for (int64_t t = 0; t < 5; ++t) {
    last_a = encoder->step(of_a, position(a, 1, t));
    last_b = encoder->step(of_b, position(b, 1, t));
  }
  const auto last_of = [&](const Tensor& x) {
    return position(encoder->forward(x, {}, {}).first, 1, 4);
  };
  CHECK(mismatch(last_a, last_of(a), 1e-10, 1e-10) == "");
  CHECK(mismatch(last_b, last_of(b), 1e-10, 1e-10) == "");
}

TEST_CASE("Encoder: steps that cannot be made are refused") {
  TransformerOptions options = small("full");
  options.causal = false;
  CHECK_THAT(error_of([&] { make_encoder(options)->start_decoding(); }),
             Contains("only a causal encoder"));
  options.causal = true;
  options.attention = "linear";
  CHECK_THAT(error_of([&] { make_encoder(options)->start_decoding(); }),
             Contains("a variant that can be causal"));

  const auto encoder = make_encoder(small("full"));
  EncoderState none;
  CHECK_THAT(error_of([&] {
               encoder->step(none, zeros({1, 1, 8}, DType::f64));
             }),
             Contains("has 2 layers, the state 0"));
  EncoderState state = encoder->start_decoding();
  CHECK_THAT(error_of([&] {
               encoder->step(state, zeros({1, 2, 8}, DType::f64));
             }),
             Contains("expected one position, got (1, 2, 8)"));
  CHECK(state.position == 0);

  Rng rng(1);
  MultiHead seeing(small("full"), "full", false, rng);
  CHECK_THAT(error_of([&] { seeing.start_decoding(); }), Contains("only causal attention"));

  options = small("full");
  options.positions = Positions::learned;
  options.max_length = 2;
  const auto learned = make_encoder(options);
  EncoderState ending = learned->start_decoding();
  const Tensor x = zeros({1, 1, 8}, DType::f64);
  learned->step(ending, x);
  learned->step(ending, x);
  CHECK_THAT(error_of([&] { learned->step(ending, x); }), Contains("at most 2 positions, got 3"));
}
