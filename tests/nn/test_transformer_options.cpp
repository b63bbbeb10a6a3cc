// Transformer options: as JSON, and those that cannot be built.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "nn/transformer.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

TransformerOptions small() {
  return {.layers = 2, .heads = 2, .width = 8, .hidden = 12, .dropout = 0.2, .max_length = 16};
}

}  // namespace

TEST_CASE("transformer options survive JSON") {
  TransformerOptions options = small();
  options.attention = "full:dropout=0.1";
  options.positions = Positions::rotary;
  options.recompute = true;
  const nlohmann::json json = options;
  CHECK(json.at("positions") == "rotary");
  CHECK(json.size() == 16);
  const auto back = json.get<TransformerOptions>();
  CHECK(nlohmann::json(back) == json);
  CHECK(back.dropout == 0.2);
  TransformerOptions partial = options;
  nn::from_json({{"layers", 7}, {"dropout", 0}}, partial);
  CHECK(partial.layers == 7);
  CHECK(partial.dropout == 0);
  CHECK(partial.width == 8);
}

TEST_CASE("transformer options: what JSON cannot be is named") {
  const auto problem = [](const nlohmann::json& json) {
    return error_of([&] { json.get<TransformerOptions>(); });
  };
  CHECK_THAT(problem({{"layer", 3}}), Contains("unknown 'layer': expected one of layers, "));
  CHECK_THAT(problem({{"layers", 1.5}}), Contains("layers: expected a whole number, got 1.5"));
  CHECK_THAT(problem({{"dropout", "x"}}), Contains("dropout: expected a number, got \"x\""));
  CHECK_THAT(problem({{"pre_norm", 1}}), Contains("pre_norm: expected true or false"));
  CHECK_THAT(problem({{"attention", 1}}), Contains("attention: expected a text"));
  CHECK_THAT(problem({{"positions", "rota"}}), Contains("expected one of rotary"));
  CHECK_THAT(problem(3), Contains("expected an object"));
}

TEST_CASE("transformer options: impossible stacks are refused") {
  const auto problem = [](const std::function<void(TransformerOptions&)>& spoil) {
    TransformerOptions options = small();
    spoil(options);
    return error_of([&] {
      Rng rng(1);
      Encoder encoder(options, rng);
    });
  };
  CHECK_THAT(problem([](auto& o) { o.heads = 3; }), Contains("width 8") && Contains("3 heads"));
  CHECK_THAT(problem([](auto& o) { o.heads = 0; }), Contains("heads: expected at least 1, got 0"));
  CHECK_THAT(problem([](auto& o) { o.layers = 0; }), Contains("layers"));
  CHECK_THAT(problem([](auto& o) { o.dropout = 1; }), Contains("dropout"));
  CHECK_THAT(problem([](auto& o) { o.activation = "tanh"; }), Contains("expected one of"));
  CHECK_THAT(problem([](auto& o) { o.attention = "fuller"; }),
             Contains("unknown variant 'fuller'"));
  CHECK_THAT(problem([](auto& o) {
               o.positions = Positions::rotary;
               o.head_size = 3;
             }),
             Contains("even head size, got 3"));
}
