// tile_attention on a CUDA device against the CPU: f32 by fma, and f64.
#include <catch2/catch.hpp>

#include "tests/cuda/tile_problems.h"

using namespace centroid;
using namespace centroid::test;

TEST_CASE("cuda: tile_attention under every mask, and its gradients") {
  uint64_t seed = 0;
  for (const TileMaskCase& m : kTileMasks) {
    INFO(m.name);
    CHECK(disagreement(attention(m), tile_inputs({2, 1, 67, 43, 20, 13}, ++seed)) == "");
  }
}

TEST_CASE("cuda: tile_attention of every width of heads") {
  uint64_t seed = 10;
  // One of each kernel, with rows that are read 4 bytes or 16 bytes at a time.
  const std::pair<int64_t, int64_t> widths[] = {{32, 32},   {33, 9},  {64, 64},  {40, 63},
                                                {128, 128}, {65, 99}, {130, 12}, {6, 140}};
  for (const auto& [width, value_width] : widths) {
    INFO("E " << width << ", D " << value_width);
    const TileSizes sizes{1, 1, 35, 41, width, value_width};
    CHECK(disagreement(attention(kTileMasks[3]), tile_inputs(sizes, ++seed)) == "");
  }
}

TEST_CASE("cuda: tile_attention of every length") {
  uint64_t seed = 20;
  const std::pair<int64_t, int64_t> lengths[] = {{1, 40}, {63, 33}, {64, 32}, {65, 97}, {129, 31}};
  for (const auto& [queries, keys] : lengths) {
    INFO("L " << queries << ", S " << keys);
    CHECK(disagreement(attention({}), tile_inputs({1, 1, queries, keys, 16, 16}, ++seed)) == "");
  }
  // One key: its weight is 1 and scores have no gradient, but for rounding errors.
  const Tensors x = moved(with_floats(tile_inputs({1, 2, 3, 1, 16, 16}, 30), DType::f32), kCuda);
  const Tensors y = moved(attention({})(x), Device{});
  CHECK(mismatch(y[0], raw::expand(raw::to(x[2], Device{}), y[0].shape()), 1e-6, 1e-6) == "");
}

TEST_CASE("cuda: tile_attention reads and writes (B, L, H, E), and values that heads share") {
  // Inputs as projections leave them, q (B, L, H, E) and so on, seen as heads.
  const auto heads = [](const Tensor& x) { return raw::transpose(x, 1, 2); };
  const auto f = [&](const Tensors& x) {
    const Tensor v = raw::expand(raw::slice(heads(x[2]), 1, 0, 1), {2, 2, 35, 8});
    return attention(kTileMasks[2])({heads(x[0]), heads(x[1]), v, heads(x[3]), x[4]});
  };
  Rng rng(3);
  for (const int64_t width : {8, 7}) {
    CHECK(disagreement(f, {randn({2, 20, 2, width}, rng), randn({2, 35, 2, width}, rng),
                           randn({2, 35, 2, 8}, rng), randn({2, 20, 2, 8}, rng),
                           randn({2, 2, 20}, rng)}) == "");
  }
}

TEST_CASE("cuda: tile_attention without keys or without queries") {
  for (const int64_t width : {4, 130}) {
    CHECK(disagreement(attention({}), tile_inputs({2, 3, 5, 0, width, 3}, 1)) == "");
    CHECK(disagreement(attention({}), tile_inputs({2, 3, 0, 5, width, 3}, 1)) == "");
  }
}

TEST_CASE("cuda: tile_attention with huge scores and with NaN") {
  std::vector<float> keys(130, 1e4f);
  keys[77] += 1;
  Rng rng(1);
  const Tensor v = randn({1, 1, 130, 3}, rng, DType::f32);
  const Tensor q = ones({1, 1, 2, 1}), k = from_vector(keys, {1, 1, 130, 1});
  const auto f = [](const Tensors& x) -> Tensors {
    const Attended y = raw::tile_attention(x[0], x[1], x[2], {}, 100);
    return {y.out, y.lse};
  };
  const Tensors y = moved(f(moved({q, k, v}, kCuda)), Device{});
  CHECK(mismatch(raw::select(y[0], 2, 1), raw::select(v, 2, 77), 0, 0) == "");
  keys[5] = NAN;
  CHECK(disagreement(f, {q, from_vector(keys, {1, 1, 130, 1}), v}) == "");
}

TEST_CASE("cuda: tile_attention_backward computes what is asked for, the same each time") {
  for (const int64_t width : {12, 129}) {
    const Tensors x =
        moved(with_floats(tile_inputs({1, 1, 19, 34, width, 8}, 5), DType::f32), kCuda);
    const KeyMask mask = tile_mask_of(kTileMasks[2], x[0], x[1]);
    const Attended y = raw::tile_attention(x[0], x[1], x[2], mask, 0.3);
    const auto grads = [&](const Tensor& dlse, bool dq, bool dk, bool dv) -> Tensors {
      const auto g =
          raw::tile_attention_backward(x[0], x[1], x[2], mask, 0.3, {}, y, x[3], dlse, dq, dk, dv);
      return moved({g.dq, g.dk, g.dv}, Device{});
    };
    const Tensors all = grads(x[4], true, true, true);
    for (int i = 0; i < 3; ++i) {
      const Tensors one = grads(x[4], i == 0, i == 1, i == 2);
      for (int j = 0; j < 3; ++j) {
        CHECK(one[j].defined() == (i == j));
        if (i == j) CHECK(same_bits(one[j], all[j]));
      }
    }
    const Tensors none = grads({}, true, true, true);
    const Tensors zero = grads(raw::to(zeros(x[4].shape()), kCuda), true, true, true);
    for (int i = 0; i < 3; ++i) CHECK(same_bits(none[i], zero[i]));
  }
}

TEST_CASE("cuda: the best keys of tile_attention are the CPU's, with and without values") {
  Rng rng(4);
  const auto check = [&](const TileMaskCase& m, int64_t best, int64_t width) {
    INFO(m.name << ", best " << best << ", width " << width);
    const auto f = [&](const Tensors& x) -> Tensors {
      const KeyMask mask = tile_mask_of(m, x[0], x[1]);
      const Attended y = raw::tile_attention(x[0], x[1], x[2], mask, 0.4, {}, best);
      const Attended bare = raw::tile_attention(x[0], x[1], Tensor(), mask, 0.4, {}, best);
      return {raw::contiguous(y.out), y.lse,        y.top_scores, y.top_keys,
              bare.top_scores,        bare.top_keys};
    };
    CHECK(disagreement(f, {randn({2, 1, 7, width}, rng), randn({2, 1, 170, width}, rng),
                           randn({2, 1, 170, 5}, rng)}) == "");
  };
  for (const TileMaskCase& m : {kTileMasks[0], kTileMasks[1], kTileMasks[4]}) check(m, 3, 12);
  // The lengths of lists, and more than one.
  for (const int64_t best : {1, 32, 33, 128}) check({}, best, 3);
  check({}, 170, 37);
}

TEST_CASE("cuda: of equally good keys the lower ones are kept, also without values") {
  Rng rng(8);
  std::vector<double> queries(9), keys(300);
  for (auto& q : queries) q = static_cast<double>(rng.below(5)) - 2;
  for (auto& k : keys) k = static_cast<double>(rng.below(7)) - 3;
  for (const int64_t best : {2, 31, 128, 300}) {
    const auto f = [&](const Tensors& x) -> Tensors {
      const Attended y = raw::tile_attention(x[0], x[1], Tensor(), {}, 1, {}, best);
      return {y.lse, y.top_scores, y.top_keys};
    };
    INFO("best " << best);
    CHECK(disagreement(
              f, {from_vector(queries, {1, 1, 9, 1}), from_vector(keys, {1, 1, 300, 1})}) == "");
  }
}
