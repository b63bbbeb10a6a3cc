// Checkpoints: round trips, and files that must be refused.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "nn/checkpoint.h"
#include "nn/optim.h"
#include "tensor/ops.h"
#include "tensor/safetensors.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using Catch::Matchers::Contains;

namespace {

void write_bytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

Checkpoint example() {
  Rng rng(5);
  Checkpoint c;
  c.model = {{"layers.0.weight", raw::normal({3, 4}, rng)},
             {"bias", raw::normal({4}, rng, 0, 1, DType::f64)},
             {"empty", zeros({0, 2})}};
  c.optimizer = {{"step", from_vector<int64_t>({12}, {1})},
                 {"layers.0.weight.m", raw::normal({3, 4}, rng)}};
  c.ema = {{"bias", raw::normal({4}, rng)}};
  c.rngs = {{"dropout", {0xffffffffffffffffull, 1}}, {"", {7, 0x8000000000000000ull}}};
  c.step = 1234567890123;
  c.texts = {{"config", R"({"lr": 0.001, "text": "\"ü\"\n"})"}, {"step", "not the step"}, {"", ""}};
  return c;
}

void check_same(NamedTensors a, NamedTensors b) {
  const auto by_name = [](const auto& x, const auto& y) { return x.first < y.first; };
  std::sort(a.begin(), a.end(), by_name);
  std::sort(b.begin(), b.end(), by_name);
  REQUIRE(a.size() == b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CHECK(a[i].first == b[i].first);
    CHECK(test::same_bits(a[i].second, b[i].second));
  }
}

}  // namespace

TEST_CASE("a checkpoint comes back as it was", "[checkpoint]") {
  const test::TempDir folder;
  const Checkpoint saved = example();
  save_checkpoint(folder / "a.safetensors", saved);
  const Checkpoint loaded = load_checkpoint(folder / "a.safetensors");
  check_same(loaded.model, saved.model);
  check_same(loaded.optimizer, saved.optimizer);
  check_same(loaded.ema, saved.ema);
  CHECK(loaded.rngs == saved.rngs);
  CHECK(loaded.step == saved.step);
  CHECK(loaded.texts == saved.texts);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path()))
    ++files;
  CHECK(files == 1);  // no temporary file stays
}

TEST_CASE("an empty checkpoint is one too, and saving again replaces it", "[checkpoint]") {
  const test::TempDir folder;
  save_checkpoint(folder / "a.safetensors", example());
  save_checkpoint(folder / "a.safetensors", {});
  const Checkpoint loaded = load_checkpoint(folder / "a.safetensors");
  CHECK(loaded.model.empty());
  CHECK(loaded.texts.empty());
  CHECK(loaded.step == 0);
}

TEST_CASE("views and tensors that require gradients are saved by value", "[checkpoint]") {
  const test::TempDir folder;
  Checkpoint c;
  Tensor w = from_vector<float>({1, 2, 3, 4, 5, 6}, {2, 3}).set_requires_grad();
  c.model = {{"w", w}, {"transposed", raw::transpose(w.detach(), 0, 1)}};
  save_checkpoint(folder / "a.safetensors", c);
  const Checkpoint loaded = load_checkpoint(folder / "a.safetensors");
  check_same(loaded.model, c.model);
  for (const auto& [name, tensor] : loaded.model) CHECK(!tensor.requires_grad());
}

TEST_CASE("an optimiser continues bit for bit from a file", "[checkpoint]") {
  const test::TempDir folder;
  Rng rng(9);
  Tensor w = raw::normal({4, 3}, rng).set_requires_grad();
  OptimizerOptions o;
  Optimizer optimizer({{"w", w}}, o);
  const Tensor grad = raw::normal({4, 3}, rng);
  const auto run = [&](const Tensor& x, Optimizer& with) {
    for (int i = 0; i < 3; ++i) {
      x.set_grad(grad);
      with.step(0.1);
    }
  };
  run(w, optimizer);
  Checkpoint c;
  c.model = {{"w", w}};
  c.optimizer = optimizer.state();
  save_checkpoint(folder / "a.safetensors", c);
  const Checkpoint loaded = load_checkpoint(folder / "a.safetensors");
  Tensor u = loaded.model[0].second;
  u.set_requires_grad();
  Optimizer resumed({{"w", u}}, o);
  resumed.load_state(loaded.optimizer);
  run(w, optimizer);
  run(u, resumed);
  CHECK(u.to_vector<float>() == w.to_vector<float>());
}

TEST_CASE("the file opens as safetensors, tensors under their groups", "[checkpoint]") {
  const test::TempDir folder;
  save_checkpoint(folder / "a.safetensors", example());
  const SafetensorsFile file = load_safetensors(folder / "a.safetensors");
  CHECK(file.tensors.count("model.layers.0.weight") == 1);
  CHECK(file.tensors.count("optimizer.step") == 1);
  CHECK(file.tensors.count("ema.bias") == 1);
  CHECK(file.metadata.at("version") == "1");
  CHECK(nlohmann::json::parse(file.metadata.at("text.config"))["lr"] == 0.001);
  CHECK(nlohmann::json::parse(file.metadata.at("rngs"))["dropout"]["key"] == 0xffffffffffffffffull);
}

TEST_CASE("other files, newer versions and damage are refused with the reason", "[checkpoint]") {
  const test::TempDir folder;
  const std::string path = folder / "a.safetensors";
  CHECK_THROWS_WITH(load_checkpoint(folder / "missing"), Contains("missing"));
  write_bytes(path, "hello, this is no checkpoint");
  CHECK_THROWS_AS(load_checkpoint(path), Error);
  save_safetensors(path, {{"model.w", zeros({2})}}, {});
  CHECK_THROWS_WITH(load_checkpoint(path), Contains("expected a checkpoint of Centroid") &&
                                               Contains("without a format") && Contains(path));
  save_safetensors(path, {{"w", zeros({2})}}, {{"format", "pt"}});
  CHECK_THROWS_WITH(load_checkpoint(path), Contains("'pt'"));

  save_checkpoint(path, example());
  const SafetensorsFile good = load_safetensors(path);
  const auto with = [&](const std::string& key, const std::string& value) {
    auto metadata = good.metadata;
    metadata[key] = value;
    save_safetensors(path, good.tensors, metadata);
    return [=] { load_checkpoint(path); };
  };
  CHECK_THROWS_WITH(with("version", "2")(), Contains("expected at most 1, got 2"));
  CHECK_THROWS_WITH(with("version", "one")(), Contains("version") && Contains("'one'"));
  CHECK_THROWS_WITH(with("step", "-3")(), Contains("step") && Contains("'-3'"));
  for (const char* rngs : {"", "[]", "{", R"({"a": 3})", R"({"a": {"key": -1, "counter": 2}})"}) {
    CHECK_THROWS_WITH(with("rngs", rngs)(), Contains("rngs"));
  }
  auto tensors = good.tensors;
  tensors["weights"] = zeros({1});
  save_safetensors(path, tensors, good.metadata);
  CHECK_THROWS_WITH(load_checkpoint(path), Contains("'weights'"));
  auto metadata = good.metadata;
  metadata.erase("step");
  save_safetensors(path, good.tensors, metadata);
  CHECK_THROWS_WITH(load_checkpoint(path), Contains("step") && Contains("missing"));
}

TEST_CASE("a checkpoint cut short anywhere is refused", "[checkpoint]") {
  const test::TempDir folder;
  const std::string path = folder / "a.safetensors";
  save_checkpoint(path, example());
  const std::string bytes = test::read_text(path);
  for (size_t size = 0; size < bytes.size(); size += 13) {
    write_bytes(path, bytes.substr(0, size));
    INFO(size << " of " << bytes.size() << " bytes");
    CHECK_THROWS_AS(load_checkpoint(path), Error);
  }
}

TEST_CASE("a failed save leaves the old checkpoint", "[checkpoint]") {
  const test::TempDir folder;
  const std::string path = folder / "a.safetensors";
  save_checkpoint(path, example());
  const std::string before = test::read_text(path);
  Checkpoint twice = example();
  twice.model.push_back(twice.model[0]);
  CHECK_THROWS_WITH(save_checkpoint(path, twice),
                    Contains("two tensors are named 'model.layers.0.weight'"));
  CHECK(test::read_text(path) == before);
  CHECK_THROWS_AS(save_checkpoint(folder / "no/such/folder/a.safetensors", example()), Error);
}

namespace {

/// Writes a checkpoint of one weight and returns its path.
std::string write_weight(const test::TempDir& folder, const std::string& name, const Tensor& w,
                         const std::string& vocab = "a", bool ema = false) {
  Checkpoint c;
  (ema ? c.ema : c.model) = {{"w", w}};
  if (ema) c.model = {{"w", raw::mul(w, 100.0)}};
  c.step = static_cast<int64_t>(name.size());
  c.texts = {{"vocab", vocab}, {"train", name}};
  save_checkpoint(folder / name, c);
  return folder / name;
}

}  // namespace

TEST_CASE("the average of checkpoints is the mean of their weights", "[checkpoint]") {
  const test::TempDir folder;
  Rng rng(3);
  std::vector<std::string> paths;
  std::vector<std::vector<float>> values;
  for (const char* name : {"a", "bb", "ccc"}) {
    const Tensor w = raw::normal({5, 3}, rng);
    values.push_back(w.to_vector<float>());
    paths.push_back(write_weight(folder, name, w, "v", /*ema=*/values.size() == 2));
  }
  const Checkpoint mean = average_checkpoints(paths, {"train"});
  REQUIRE(mean.model.size() == 1);
  const std::vector<float> got = mean.model[0].second.to_vector<float>();
  for (size_t i = 0; i < got.size(); ++i) {
    const double sum = double(values[0][i]) + values[1][i] + values[2][i];
    CHECK(got[i] == float(sum * (1.0 / 3)));
  }
  CHECK(mean.step == 3);
  CHECK(mean.texts == std::map<std::string, std::string>{{"vocab", "v"}});
  CHECK((mean.optimizer.empty() && mean.ema.empty() && mean.rngs.empty()));
  // One checkpoint is its own mean, with all its texts.
  const Checkpoint one = average_checkpoints({paths[0]});
  CHECK(one.model[0].second.to_vector<float>() == values[0]);
  CHECK(one.texts.size() == 2);
}

TEST_CASE("checkpoints of different models have no average", "[checkpoint]") {
  const test::TempDir folder;
  const std::string a = write_weight(folder, "a", zeros({2}));
  const auto refused = [&](const std::string& other) {
    return test::error_of([&] { average_checkpoints({a, other}, {"train"}); });
  };
  CHECK_THAT(refused(write_weight(folder, "b", zeros({3}))),
             Contains("w: expected (2,) f32, got (3,) f32"));
  CHECK_THAT(refused(write_weight(folder, "b", zeros({2}, DType::f64))), Contains("f64"));
  CHECK_THAT(refused(write_weight(folder, "b", zeros({2}), "other")),
             Contains("the vocab is not that of the first checkpoint"));
  CHECK_THAT(refused(write_weight(folder, "b", full({2}, std::nan("")))),
             Contains("w: holds a value that is not finite"));
  Checkpoint c;
  c.texts = {{"vocab", "a"}};
  c.model = {{"v", zeros({2})}};
  save_checkpoint(folder / "c", c);
  CHECK_THAT(refused(folder / "c"), Contains("v: not in the first checkpoint"));
  c.model.push_back({"w", zeros({2})});
  save_checkpoint(folder / "c", c);
  CHECK_THAT(refused(folder / "c"), Contains("expected 1 weights as in the first"));
  CHECK_THAT(refused(folder / "missing"), Contains("missing"));
  CHECK_THAT(test::error_of([] { average_checkpoints({}); }), Contains("at least one"));
}
