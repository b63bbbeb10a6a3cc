// asr average, early stopping and presets by the size of the corpus, as a user runs them.
#include <catch2/catch.hpp>
#include <fstream>

#include "apps/audio/files.h"
#include "apps/common/kept_checkpoints.h"
#include "nn/checkpoint.h"
#include "tests/apps/process.h"
#include "tests/tones.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// A run that keeps checkpoints, once for all tests.
struct Runs {
  Runs() {
    make_tones(dir / "tones", 20);
    check({"prepare", "--format", "table", "--source", dir / "tones", "--transcripts",
           dir / "tones/transcripts.tsv", "--unit", "characters", "--out", dir / "data"});
    check(train(dir / "run", {"--keep-best", "2", "--keep-last", "3"}));
  }
  Words train(const std::string& out, const Words& more) const {
    return Words{"train", "--train", dir / "data/train.jsonl", "--dev", dir / "data/dev.jsonl"} +
           Words{"--vocab", dir / "data/vocab.json", "--out", out, "--steps", "12"} +
           audio::split_words(
               "--rate 8000 --bins 24 --width 16 --hidden 32 --layers 1 --heads 2 --channels 4 "
               "--subsampling 2 --warmup 2 --eval-every 2 --lr 5e-3") +
           more;
  }
  void check(const Words& words) const {
    const Outcome o = run(dir, "asr", words);
    if (o.code != 0) throw Error(o.err);
  }
  TempDir dir;
};

const Runs& runs() {
  static const Runs instance;
  return instance;
}

}  // namespace

TEST_CASE("asr average makes a checkpoint that asr eval accepts", "[average][cli]") {
  const TempDir dir;
  const std::string folder = runs().dir / "run", out = dir / "mean.safetensors";
  const auto kept = apps::read_kept_checkpoints(folder);
  REQUIRE(kept.size() >= 3);
  const Outcome o = run(dir, "asr", {"average", "--run", folder, "--last", "3", "--out", out});
  REQUIRE(o.code == 0);
  CHECK_THAT(o.out, Contains("step-0000012.safetensors") && Contains("mean of 3"));
  const nn::Checkpoint mean = nn::load_checkpoint(out);
  CHECK(mean.step == 12);
  CHECK(json::parse(mean.texts.at("averaged")).size() == 3);
  // The mean of the three files.
  std::vector<double> sum(mean.model[0].second.to_vector<float>().size());
  for (size_t i = kept.size() - 3; i < kept.size(); ++i) {
    const auto part = nn::load_checkpoint(folder + "/" + kept[i].file).model[0].second;
    for (size_t k = 0; k < sum.size(); ++k) sum[k] += part.to_vector<float>()[k];
  }
  for (size_t k = 0; k < sum.size(); ++k) {
    CHECK(mean.model[0].second.to_vector<float>()[k] == Approx(sum[k] / 3));
  }
  const Outcome eval =
      run(dir, "asr", {"eval", "--model", out, "--data", runs().dir / "data/test.jsonl"});
  CHECK(eval.code == 0);
  CHECK_THAT(eval.out, Contains("test CER "));
  // A file alone is its own mean: the same result.
  const std::string best = folder + "/" + apps::best_of(kept, 1)[0].file;
  REQUIRE(run(dir, "asr", {"average", best, "--out", out}).code == 0);
  const auto evaluated = [&](const std::string& model) {
    return run(dir, "asr", {"eval", "--model", model, "--data", runs().dir / "data/test.jsonl"})
        .out;
  };
  CHECK(evaluated(out) == evaluated(folder));
}

TEST_CASE("asr average refuses what cannot be averaged", "[average][cli]") {
  const TempDir dir;
  const std::string folder = runs().dir / "run", out = dir / "mean.safetensors";
  const auto refused = [&](const Words& words) {
    const Outcome o = run(dir, "asr", Words{"average", "--out", out} + words);
    CHECK(o.code == 1);
    CHECK_FALSE(std::filesystem::exists(out));
    return o.err;
  };
  CHECK_THAT(refused({}), Contains("expected checkpoint files or --run, got neither"));
  CHECK_THAT(refused({"--run", folder}), Contains("expected --best N or --last N, got neither"));
  CHECK_THAT(refused({"--run", folder, "--best", "9"}), Contains("expected at least 9 kept"));
  CHECK_THAT(refused({"--run", dir.path().string(), "--best", "1"}), Contains("found 0"));
  CHECK_THAT(refused({folder + "/best.safetensors", "--best", "1"}), Contains("--run"));
  CHECK_THAT(refused({folder + "/best.safetensors", folder + "/best.safetensors"}),
             Contains("expected each checkpoint once"));
  nn::Checkpoint other = nn::load_checkpoint(folder + "/best.safetensors");
  other.texts["vocab"] = "{}";
  nn::save_checkpoint(dir / "other", other);
  CHECK_THAT(refused({folder + "/best.safetensors", dir / "other"}),
             Contains("the vocab is not that of the first checkpoint"));
  other.texts["kind"] = "copy";
  nn::save_checkpoint(dir / "other", other);
  CHECK_THAT(refused({dir / "other"}), Contains("expected a checkpoint of asr, got one of copy"));
}

TEST_CASE("asr train ends early and says so", "[average][cli]") {
  const TempDir dir;
  const Outcome o =
      run(dir, "asr", runs().train(dir / "run", {"--early-stop", "2", "--min-delta", "9"}));
  REQUIRE(o.code == 0);
  // The first evaluation is progress from nothing; two without follow.
  CHECK_THAT(o.err, Contains("ended after step 6: no progress in 2 evaluations"));
  CHECK(nn::load_checkpoint(dir / "run/last.safetensors").step == 6);
}

TEST_CASE("a preset is chosen by the hours of the manifest", "[average][cli]") {
  const TempDir dir;
  const auto dumped = [&](double hours) {
    std::ofstream out(dir / "m.jsonl");
    for (int i = 0; i < 10; ++i) {
      out << json{{"id", std::to_string(i)},
                  {"audio", "x.wav"},
                  {"duration", hours * 360},
                  {"text", "a"}}
          << "\n";
    }
    out.close();
    return run(
        dir, "asr",
        {"train", "--train", dir / "m.jsonl", "--preset", "auto", "--lr", "0.5", "--dump-config"});
  };
  const std::tuple<double, const char*, int> cases[] = {
      {0.4, "minutes", 2}, {1.3, "one-hour", 4}, {10, "ten-hours", 6}, {300, "hundred-hours", 12}};
  for (const auto& [hours, name, layers] : cases) {
    const Outcome o = dumped(hours);
    REQUIRE(o.code == 0);
    CHECK_THAT(o.err, Contains(std::string("preset auto: ") + name));
    CHECK(json::parse(o.out)["layers"] == layers);
    CHECK(json::parse(o.out)["lr"] == 0.5);  // flags win
  }
  const Outcome without = run(dir, "asr", {"train", "--preset", "auto", "--dump-config"});
  CHECK(without.code == 1);
  CHECK_THAT(without.err, Contains("--preset auto: expected a manifest"));
  CHECK_THAT(dumped(0).err, Contains("m.jsonl:1: --preset auto: expected a duration of 0"));
  // What was trained under one name is what the other one sets.
  json a = json::parse(run(dir, "asr", {"train", "--preset", "festvox-ru", "--dump-config"}).out);
  json b = json::parse(run(dir, "asr", {"train", "--preset", "one-hour", "--dump-config"}).out);
  CHECK(a == b);
}
