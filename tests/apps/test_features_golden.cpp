// Features beside those of an independent implementation: tests/data/features.json, made by
// tests/data/make_features.py.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "apps/audio/context.h"
#include "apps/audio/features.h"
#include "apps/audio/normalize.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;

namespace {

const nlohmann::json& golden() {
  static const auto json = nlohmann::json::parse(slurp("tests/data/features.json"));
  return json;
}

/// The sound of make_features.py.
Sound golden_sound(int rate) {
  Sound sound{{}, rate};
  uint32_t state = 12345;
  int low = 0;
  for (int i = 0; i < golden().at("samples").get<int>(); ++i) {
    state = state * 1664525 + 1013904223;
    low = low - (low >> 2) + ((static_cast<int>(state >> 16) - 32768) >> 3);
    sound.samples.push_back(static_cast<float>((low * (64 + i % 512)) >> 9) / 32768);
  }
  return sound;
}

/// The largest |a - b| / max(1, |b|).
double distance(const std::vector<float>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(a[i] - b[i]) / std::max(1.0, std::abs(b[i])));
  }
  return worst;
}

Features small() {
  const auto& json = golden().at("small");
  Features f{0, json.at("columns").get<int64_t>(), json.at("values").get<std::vector<float>>()};
  f.frames = static_cast<int64_t>(f.data.size()) / f.bins;
  return f;
}

}  // namespace

TEST_CASE("Filterbanks and cepstra are those of another implementation", "[features]") {
  REQUIRE(golden().at("features").size() >= 16);
  for (const auto& expected : golden().at("features")) {
    INFO(expected.at("name") << " of " << golden().at("made_with"));
    const auto options = expected.at("options").get<FbankOptions>();
    const Features got = Fbank(options)(golden_sound(options.rate));
    CHECK(got.frames == expected.at("frames").get<int64_t>());
    CHECK(got.bins == feature_columns(options));
    // The other implementation computes in float; the lifter makes its rounding up to 12 times
    // larger.
    const double tolerance = options.type == FeatureType::mfcc ? 1e-4 : 1e-5;
    CHECK(distance(got.data, expected.at("values").get<std::vector<double>>()) < tolerance);
  }
}

TEST_CASE("Deltas are those of another implementation", "[features]") {
  const Features f = small();
  for (const auto& expected : golden().at("small").at("deltas")) {
    const DeltaOptions o{expected.at("order").get<int>(), expected.at("window").get<int>()};
    INFO("order " << o.order << ", window " << o.window);
    const Features got = add_deltas(f, o);
    CHECK(got.bins == 4 * (1 + o.order));
    CHECK(distance(got.data, expected.at("values").get<std::vector<double>>()) < 1e-5);
  }
}

TEST_CASE("Normalised features are those of another implementation", "[features]") {
  for (const auto& expected : golden().at("small").at("cmvn")) {
    Features f = small();
    normalize_utterance(f, expected.at("variance").get<bool>());
    CHECK(distance(f.data, expected.at("values").get<std::vector<double>>()) < 1e-4);
  }
}
