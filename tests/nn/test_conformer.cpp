// Conformer layers: the convolution module beside its definition, padding, gradients; losses in the
// middle of an encoder.
#include "nn/conformer.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/nn/model_checks.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

namespace {

TransformerOptions small() {
  return {.layers = 3,
          .block = "conformer",
          .heads = 2,
          .width = 8,
          .hidden = 12,
          .dropout = 0.2,
          .activation = "silu",
          .kernel = 5,
          .positions = Positions::rotary};
}

template <typename Model>
void stir(Model& model, Rng& rng) {
  model.to(DType::f64);
  for (const Tensor& x : model.parameters()) {
    raw::add_(x.detach(), randn(x.shape(), rng, DType::f64, 0.1));
  }
  model.assign_paths();
}

const Tensor& parameter(const NamedTensors& all, const std::string& name) {
  for (const auto& [n, tensor] : all) {
    if (n == name) return tensor;
  }
  throw Error("no parameter " + name);
}

}  // namespace

TEST_CASE("ConvModule: what its definition gives, frame by frame", "[conformer]") {
  for (const int64_t kernel : {1, 3, 7}) {
    Rng rng(kernel);
    ConvModule module(6, kernel, 0, rng);
    stir(module, rng);
    const NamedTensors p = module.named_parameters();
    const Tensor x = randn({1, 5, 6}, rng);
    const Tensor n =
        layer_norm(x, parameter(p, "norm_in.gain"), parameter(p, "norm_in.bias"), 1e-5);
    const Tensor both = linear(n, parameter(p, "gated.weight"), parameter(p, "gated.bias"));
    const Tensor w = parameter(p, "depthwise");
    const Tensor near = zeros({1, 5, 6}, DType::f64);
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t c = 0; c < 6; ++c) {
        double total = 0;
        for (int64_t i = 0; i < kernel; ++i) {
          const int64_t from = t + i - kernel / 2;
          if (from < 0 || from >= 5) continue;
          const double gate = both.to_vector<double>()[from * 12 + 6 + c];
          total += w.to_vector<double>()[c * kernel + i] * both.to_vector<double>()[from * 12 + c] /
                   (1 + std::exp(-gate));
        }
        raw::fill_(raw::select(raw::select(raw::select(near, 0, 0), 0, t), 0, c), total);
      }
    }
    const Tensor h =
        silu(layer_norm(near, parameter(p, "norm_mid.gain"), parameter(p, "norm_mid.bias"), 1e-5));
    const Tensor y = linear(h, parameter(p, "out.weight"), parameter(p, "out.bias"));
    CHECK(mismatch(module.forward(x, {}, {}), y, 1e-12, 1e-12) == "");
  }
}

TEST_CASE("Conformer: padding is 0 and ignored, items are independent", "[conformer]") {
  Rng rng(1);
  Encoder encoder(small(), rng);
  stir(encoder, rng);
  const Tensor x = randn({3, 9, 8}, rng);
  const Lengths lengths({9, 5, 1});
  const Tensor y = encoder.forward(x, lengths, {}).first;
  const Tensor dirty = raw::clone(x);
  for (int64_t b = 0; b < 3; ++b) {
    const Tensor alone = raw::slice(raw::slice(x, 0, b, b + 1), 1, 0, lengths[b]);
    const Tensor item = raw::slice(y, 0, b, b + 1);
    CHECK(mismatch(raw::slice(item, 1, 0, lengths[b]), encoder.forward(alone, {}, {}).first, 1e-11,
                   1e-11) == "");
    if (lengths[b] == 9) continue;
    CHECK(not_zero(raw::slice(item, 1, lengths[b], 9)) == "");
    raw::fill_(raw::slice(raw::select(dirty, 0, b), 0, lengths[b], 9),
               std::numeric_limits<double>::quiet_NaN());
  }
  CHECK(same_bits(encoder.forward(dirty, lengths, {}).first, y));
}

TEST_CASE("Conformer: gradients of all parameters are those of the differences",
          "[conformer][host]") {
  Rng rng(2);
  TransformerOptions options = small();
  options.layers = 1;
  Encoder encoder(options, rng);
  stir(encoder, rng);
  const Tensor x = randn({2, 5, 8}, rng), w = randn({2, 5, 8}, rng);
  check_parameter_gradients(encoder, [&] {
    Rng dropout(3);
    return sum(w * encoder.forward(x, Lengths({5, 3}), {.training = true, .rng = &dropout}).first);
  });
}

TEST_CASE("Encoder: what it gives after a layer is what an encoder that ends there gives",
          "[conformer]") {
  for (const char* block : {"transformer", "conformer"}) {
    TransformerOptions options = small();
    options.block = block;
    Rng rng(4);
    Encoder encoder(options, rng);
    stir(encoder, rng);
    const Tensor x = randn({2, 6, 8}, rng);
    const Lengths lengths({6, 4});
    const std::vector<Tensor> at = encoder.forward_at({1, 3}, x, lengths, {});
    REQUIRE(at.size() == 2);
    CHECK(same_bits(at[1], encoder.forward(x, lengths, {}).first));
    CHECK(mismatch(at[0], at[1]) != "");

    options.layers = 1;
    Encoder first(options, rng);
    first.to(DType::f64);
    first.load(encoder.named_parameters(), /*strict=*/false);
    first.assign_paths();
    CHECK(same_bits(at[0], first.forward(x, lengths, {}).first));

    CHECK_THROWS_WITH(encoder.forward_at({2, 1}, x, lengths, {}), Contains("ascending"));
    CHECK_THROWS_WITH(encoder.forward_at({4}, x, lengths, {}), Contains("1 to 3"));
    CHECK(encoder.forward_at({}, x, lengths, {}).empty());
  }
}

TEST_CASE("Conformer: recomputed layers have the same gradients", "[conformer]") {
  TransformerOptions options = small();
  Rng a(5), b(5), data(6);
  Encoder kept(options, a);
  options.recompute = true;
  Encoder again(options, b);
  const Tensor x = randn({2, 6, 8}, data, DType::f32), w = randn({2, 6, 8}, data, DType::f32);
  for (Encoder* encoder : {&kept, &again}) {
    Rng dropout(7);
    backward(sum(w * encoder->forward(x, {}, {.training = true, .rng = &dropout}).first));
  }
  for (size_t i = 0; i < kept.parameters().size(); ++i) {
    CHECK(same_bits(kept.parameters()[i].grad(), again.parameters()[i].grad()));
  }
}

TEST_CASE("Conformer: options that do not fit are named", "[conformer]") {
  const auto with = [](auto change) {
    TransformerOptions options = small();
    change(options);
    Rng rng(1);
    Encoder encoder(options, rng);
  };
  CHECK_THROWS_WITH(with([](auto& o) { o.kernel = 4; }), Contains("odd number of frames, got 4"));
  CHECK_THROWS_WITH(with([](auto& o) { o.causal = true; }), Contains("looks ahead"));
  CHECK_THROWS_WITH(with([](auto& o) { o.pre_norm = false; }), Contains("pre_norm"));
  CHECK_THROWS_WITH(with([](auto& o) { o.block = "conv"; }), Contains("got 'conv'"));
  TransformerOptions read;
  nlohmann::json json = small();
  json.get_to(read);
  CHECK(read.block == "conformer");
  CHECK(read.kernel == 5);
}
