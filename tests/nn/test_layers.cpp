// The small building blocks against their definitions.
#include <catch2/catch.hpp>
#include <limits>

#include "autograd/gradcheck.h"
#include "nn/layers.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

TEST_CASE("Linear computes x W^T + b from a uniform start") {
  Rng rng(1);
  const Linear linear(100, 7, rng, true, 2);
  double largest = 0;
  for (double w : doubles(linear.weight)) largest = std::max(largest, std::fabs(w));
  CHECK(largest <= 0.2);
  CHECK(largest > 0.19);
  CHECK(mismatch(linear.bias, zeros({7})) == "");
  CHECK(linear.weight.shape() == Shape{7, 100});

  const Tensor x = randn({3, 2, 100}, rng, DType::f32);
  const Tensor y = linear.forward(x);
  CHECK(y.shape() == Shape{3, 2, 7});
  CHECK(mismatch(y, raw::matmul(x, raw::transpose(linear.weight, 0, 1)), 1e-5, 1e-5) == "");
  CHECK(mismatch(linear.forward(x, {true, Unary::relu}), raw::relu(y), 1e-5, 1e-5) == "");
}

TEST_CASE("Linear without bias has one parameter") {
  Rng rng(1);
  const Linear linear(3, 2, rng, false);
  CHECK(linear.parameters().size() == 1);
  CHECK_FALSE(linear.bias.defined());
  CHECK(linear.forward(ones({1, 3})).shape() == Shape{1, 2});
  CHECK_THAT(error_of([&] { Linear(0, 2, rng); }), Contains("Linear: sizes"));
  CHECK_THAT(error_of([&] { linear.forward(ones({1, 4})); }), Contains("linear"));
}

TEST_CASE("the same seed gives the same layer") {
  Rng a(5), b(5), c(6);
  const Linear first(4, 4, a), same(4, 4, b), other(4, 4, c);
  CHECK(same_bits(first.weight, same.weight));
  CHECK_FALSE(same_bits(first.weight, other.weight));
}

TEST_CASE("Embedding picks rows and spreads their gradient", "[host]") {
  Rng rng(1);
  const Embedding embedding(5, 3, rng);
  const Tensor index = from_vector(std::vector<int64_t>{4, 0, 4}, {3});
  const Tensor y = embedding.forward(index);
  CHECK(same_bits(raw::select(y, 0, 0), raw::select(embedding.weight, 0, 4)));
  backward(sum(y));
  CHECK(mismatch(raw::sum(embedding.weight.grad(), {1}), std::vector<double>{3, 0, 0, 0, 6}) == "");
  CHECK_THROWS_AS(embedding.forward(from_vector(std::vector<int64_t>{5}, {1})), Error);
}

TEST_CASE("LayerNorm starts as plain normalisation") {
  Rng rng(1);
  const LayerNorm norm(16);
  const Tensor y = norm.forward(randn({4, 16}, rng, DType::f32, 3));
  CHECK(mismatch(raw::mean(y, {1}), zeros({4}), 0, 1e-5) == "");
  CHECK(mismatch(raw::var(y, {1}, false, 0), ones({4}), 0, 1e-4) == "");
}

TEST_CASE("Dropout acts in training only and needs a stream there") {
  const Dropout dropout(0.5);
  const Tensor x = ones({64, 64});
  CHECK(same_bits(dropout.forward(x, {}), x));
  Rng rng(3);
  const Tensor y = dropout.forward(x, {.training = true, .rng = &rng});
  const double mean = raw::mean(y).item();
  CHECK(mean == Approx(1).margin(0.1));
  for (double v : doubles(y)) CHECK_FALSE((v != 0 && v != 2));
  CHECK_THAT(error_of([&] { dropout.forward(x, {.training = true}); }), Contains("Context::rng"));
  CHECK_THAT(error_of([] { Dropout(1.0); }), Contains("[0, 1)"));
  CHECK(same_bits(Dropout(0).forward(x, {.training = true}), x));
}

TEST_CASE("FeedForward is down(activation(up(x)))") {
  Rng rng(1);
  const FeedForward ff(4, 9, parse_activation("gelu"), 0.5, rng);
  const NamedTensors p = ff.named_parameters();
  CHECK(p[0].first == "up.weight");
  CHECK(p[2].first == "down.weight");
  const Tensor x = randn({2, 3, 4}, rng, DType::f32);
  const Tensor hidden = raw::gelu(raw::matmul(x, raw::transpose(p[0].second, 0, 1)));
  CHECK(mismatch(ff.forward(x, {}), raw::matmul(hidden, raw::transpose(p[2].second, 0, 1)), 1e-5,
                 1e-5) == "");
  CHECK_THAT(error_of([] { parse_activation("rely"); }),
             Contains("expected one of relu, gelu, silu, got 'rely'"));
}

TEST_CASE("mask_padding zeroes whatever lies beyond the lengths, NaN included") {
  Tensor x = raw::clone(ones({2, 3, 2}, DType::f64));
  raw::fill_(raw::slice(raw::select(x, 0, 1), 0, 1, 3), std::numeric_limits<double>::quiet_NaN());
  x.set_requires_grad();
  const Tensor y = mask_padding(x, Lengths({3, 1}));
  CHECK(mismatch(y, std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0}, 0, 0) == "");
  backward(y, full({2, 3, 2}, 5, DType::f64));
  CHECK(mismatch(x.grad(), std::vector<double>{5, 5, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0}, 0, 0) == "");

  const Tensor image = ones({1, 2, 3, 2});
  CHECK(raw::sum(mask_padding(image, Lengths({2}), 2)).item() == 8);
  CHECK(mask_padding(x, {}).shared_impl() == x.shared_impl());
  CHECK(raw::sum(mask_padding(strided(image), Lengths({0}), 2)).item() == 0);
  CHECK_THAT(error_of([&] {
               mask_padding(x, Lengths({3, 4}));
             }),
             Contains("length of item 1: expected 0 to 3, got 4"));
  CHECK_THAT(error_of([&] { mask_padding(x, Lengths({3})); }), Contains("expected one per item"));
}

TEST_CASE("ConvSubsampling: frames, lengths and sizes for every factor") {
  Rng rng(1);
  for (int64_t factor : {1, 2, 4, 8}) {
    const ConvSubsampling conv(40, 6, factor, 3, rng);
    for (int64_t time : {1, 2, 7, 16, 31}) {
      const auto [y, lengths] =
          conv.forward(randn({2, time, 40}, rng, DType::f32), Lengths({time, (time + 1) / 2}));
      const int64_t out = (time + factor - 1) / factor;
      CHECK(y.shape() == Shape{2, out, 6});
      CHECK(lengths == Lengths({out, ((time + 1) / 2 + factor - 1) / factor}));
      CHECK(ConvSubsampling::output_length(time, factor) == out);
    }
  }
  CHECK_THAT(error_of([&] { ConvSubsampling(40, 6, 3, 3, rng); }),
             Contains("factor: expected 1, 2, 4 or 8, got 3"));
  const ConvSubsampling conv(40, 6, 2, 3, rng);
  CHECK_THAT(error_of([&] {
               conv.forward(ones({1, 5, 39}), {});
             }),
             Contains("expected (B, T, 40)") && Contains("(1, 5, 39)"));
  CHECK_THAT(error_of([&] { conv.forward(ones({1, 0, 40}), {}); }), Contains("at least 1"));
}

TEST_CASE("ConvSubsampling is 2-D convolutions of stride 2 with relu, then a projection") {
  Rng rng(1);
  const ConvSubsampling conv(7, 5, 4, 3, rng);
  for (const auto& [name, tensor] : conv.named_parameters()) {
    if (name.ends_with("bias")) raw::copy_(tensor.detach(), randn(tensor.shape(), rng, DType::f32));
  }
  const NamedTensors p = conv.named_parameters();
  CHECK(p[0].first == "convs.0.weight");
  CHECK(p[4].first == "project.weight");
  const Tensor x = randn({2, 9, 7}, rng, DType::f32);
  Tensor h = raw::reshape(x, {2, 1, 9, 7});
  for (int i : {0, 2}) {
    const int64_t in = h.size(1);
    const Tensor w = raw::permute(raw::reshape(p[i].second, {3, 3, 3, in}), {0, 3, 1, 2});
    h = raw::relu(raw::conv2d(h, w, p[i + 1].second, {.stride = 2, .padding = 1}));
  }
  h = raw::reshape(raw::permute(h, {0, 2, 3, 1}), {2, 3, 6});
  CHECK(mismatch(conv.forward(x, {}).first, raw::linear(h, p[4].second, p[5].second), 1e-5, 1e-5) ==
        "");
}

TEST_CASE("ConvSubsampling: a padded batch equals its items run singly, whatever the padding") {
  Rng rng(1);
  for (int64_t factor : {1, 2, 4, 8}) {
    const ConvSubsampling conv(13, 5, factor, 4, rng);
    // Biases that would shine through a missing mask.
    for (const auto& [name, tensor] : conv.named_parameters()) {
      if (name.ends_with("bias")) raw::fill_(tensor.detach(), 0.3);
    }
    const std::vector<int64_t> lengths = {19, 12, 1, 0, 9};
    const Tensor x = randn({5, 19, 13}, rng, DType::f32);
    for (size_t b = 0; b < lengths.size(); ++b) {
      if (lengths[b] == 19) continue;
      raw::fill_(raw::slice(raw::select(x, 0, static_cast<int64_t>(b)), 0, lengths[b], 19),
                 std::numeric_limits<double>::quiet_NaN());
    }
    const auto [y, out] = conv.forward(x, Lengths(lengths));
    CHECK_FALSE(raw::has_nonfinite(y));
    for (int64_t b = 0; b < 5; ++b) {
      const Tensor got = raw::slice(y, 0, b, b + 1);
      const Tensor beyond = raw::slice(got, 1, out[b], got.size(1));
      CHECK(mismatch(beyond, zeros(beyond.shape()), 0, 0) == "");
      if (lengths[b] == 0) continue;
      const Tensor item = raw::slice(raw::slice(x, 0, b, b + 1), 1, 0, lengths[b]);
      CHECK(mismatch(raw::slice(got, 1, 0, out[b]), conv.forward(item, {}).first, 1e-5, 1e-6) ==
            "");
    }
  }
}

TEST_CASE("ConvSubsampling: gradients are those of the differences") {
  Rng rng(1);
  ConvSubsampling conv(5, 3, 4, 2, rng);
  conv.to(DType::f64);
  for (const auto& [name, tensor] : conv.named_parameters()) {
    if (name.ends_with("bias")) raw::fill_(tensor.detach(), 0.1);
  }
  // With this seed no value lies within a step of relu's corner.
  const GradcheckReport report = gradcheck(
      [&](const std::vector<Tensor>& in) {
        return std::vector<Tensor>{conv.forward(in[0], Lengths({7, 4})).first};
      },
      {randn({2, 7, 5}, rng).set_requires_grad()});
  INFO(report.message);
  CHECK(report.ok);
}
