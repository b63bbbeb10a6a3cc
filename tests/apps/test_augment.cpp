// SpecAugment: what is masked, how much, and on what it depends.
#include "apps/audio/augment.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

namespace {

Features ones(int64_t frames, int64_t bins) {
  return {frames, bins, std::vector<float>(static_cast<size_t>(frames * bins), 1.0f)};
}

int64_t masked_frames(const Features& f) {
  int64_t count = 0;
  for (int64_t t = 0; t < f.frames; ++t) {
    count += std::all_of(f.row(t), f.row(t) + f.bins, [](float x) { return x == 0.0f; });
  }
  return count;
}

int64_t masked_bins(const Features& f) {
  int64_t count = 0;
  for (int64_t b = 0; b < f.bins; ++b) {
    bool all = true;
    for (int64_t t = 0; t < f.frames; ++t) all = all && f.row(t)[b] == 0.0f;
    count += all;
  }
  return count;
}

}  // namespace

TEST_CASE("Masks stay within their widths and the time budget, and are drawn in all sizes") {
  SpecAugmentOptions time;
  time.freq_masks = 0;
  time.time_masks = 3;
  time.time_width = 20;
  time.time_fraction = 0.3;
  SpecAugmentOptions frequency;
  frequency.time_masks = 0;
  frequency.freq_masks = 1;
  frequency.freq_width = 5;
  std::set<int64_t> times, widths;
  for (int epoch = 0; epoch < 300; ++epoch) {
    Features f = ones(100, 7);
    spec_augment(f, time, 1, epoch, "u");
    times.insert(masked_frames(f));
    Features g = ones(10, 12);
    spec_augment(g, frequency, 1, epoch, "u");
    widths.insert(masked_bins(g));
  }
  CHECK(*times.rbegin() <= 30);
  CHECK(*times.rbegin() >= 25);
  CHECK(*times.begin() <= 5);
  CHECK(widths == std::set<int64_t>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("Masks depend on seed, epoch and utterance, and on nothing else") {
  const SpecAugmentOptions o;
  const auto run = [&](uint64_t seed, int64_t epoch, const char* id) {
    Features f = ones(200, 40);
    spec_augment(f, o, seed, epoch, id);
    return f.data;
  };
  CHECK(run(1, 2, "a") == run(1, 2, "a"));
  CHECK(run(1, 2, "a") != run(2, 2, "a"));
  CHECK(run(1, 2, "a") != run(1, 3, "a"));
  CHECK(run(1, 2, "a") != run(1, 2, "b"));
}

TEST_CASE("Masked values are 0 or the utterance's mean") {
  SpecAugmentOptions o;
  o.freq_masks = 0;
  o.time_masks = 1;
  o.time_fraction = 1;
  o.fill_mean = true;
  Features f{4, 1, {1, 2, 3, 6}};
  bool seen = false;
  for (int epoch = 0; epoch < 20; ++epoch) {
    Features g = f;
    spec_augment(g, o, 1, epoch, "u");
    for (int t = 0; t < 4; ++t) {
      CHECK((g.data[t] == f.data[t] || g.data[t] == 3.0f));
      seen = seen || g.data[t] != f.data[t];
    }
  }
  CHECK(seen);
}

TEST_CASE("Small inputs and zero masks are fine, bad options are named") {
  Features empty{0, 40, {}};
  spec_augment(empty, {}, 1, 0, "u");
  Features one = ones(1, 1);
  for (int epoch = 0; epoch < 50; ++epoch) spec_augment(one, {}, 1, epoch, "u");
  SpecAugmentOptions none;
  none.freq_masks = none.time_masks = 0;
  Features f = ones(9, 9);
  spec_augment(f, none, 1, 0, "u");
  CHECK(f.data == ones(9, 9).data);

  SpecAugmentOptions o;
  o.time_width = 33;
  o.fill_mean = true;
  CHECK(nlohmann::json(o).get<SpecAugmentOptions>() == o);
  o.time_fraction = 1.5;
  CHECK_THAT(message_of([&] { spec_augment(f, o, 1, 0, "u"); }),
             Contains("time_fraction: expected 0..1, got 1.5"));
  CHECK_THAT(message_of([] { nlohmann::json::parse(R"({"masks": 3})").get<SpecAugmentOptions>(); }),
             Contains("unknown key masks"));
  CHECK_THAT(
      message_of([] { nlohmann::json::parse(R"({"freq_masks": -3})").get<SpecAugmentOptions>(); }),
      Contains("freq_masks"));
}

TEST_CASE("More masks than anybody needs are refused", "[augment]") {
  SpecAugmentOptions o;
  o.freq_masks = 100000000;
  CHECK_THAT(message_of([&] { validate(o); }), Contains("at most 1000 masks, got 100000000"));
  o.freq_masks = 2, o.time_masks = 1001;
  CHECK_THAT(message_of([&] { validate(o); }), Contains("masks, got 1001"));
}

TEST_CASE("A warp moves one frame, keeps the ends and is linear between", "[augment]") {
  Features ramp{11, 2, {}};
  for (int t = 0; t < 11; ++t) {
    ramp.data.push_back(static_cast<float>(t));
    ramp.data.push_back(static_cast<float>(100 - t));
  }
  Features f = ramp;
  time_warp(f, 4, 4);
  CHECK(f.data == ramp.data);
  time_warp(f, 4, 6);
  CHECK(f.frames == 11);
  for (int t = 0; t < 11; ++t) {
    const double expected = t <= 6 ? t * 4.0 / 6 : 4 + (t - 6) * 6.0 / 4;
    CHECK(f.row(t)[0] == Approx(expected));
    CHECK(f.row(t)[1] == Approx(100 - expected));
  }
  for (const auto& [from, to] :
       {std::pair{0, 3}, std::pair{3, 0}, std::pair{10, 3}, std::pair{3, 10}, std::pair{-1, 3}}) {
    CHECK_THROWS_AS(time_warp(f, from, to), centroid::Error);
  }
}

TEST_CASE("Warps stay within their limit and come in all sizes, short inputs stay", "[augment]") {
  SpecAugmentOptions o;
  o.freq_masks = o.time_masks = 0;
  o.time_warp = 3;
  std::set<int> shifts;
  for (int epoch = 0; epoch < 400; ++epoch) {
    Features f{40, 1, {}};
    for (int t = 0; t < 40; ++t) f.data.push_back(static_cast<float>(t));
    spec_augment(f, o, 1, epoch, "u");
    CHECK(f.data.front() == 0);
    CHECK(f.data.back() == 39);
    double furthest = 0;
    for (int t = 0; t < 40; ++t) {
      CHECK((t == 0 || f.data[t] >= f.data[t - 1]));
      if (std::abs(t - f.data[t]) > std::abs(furthest)) furthest = t - f.data[t];
    }
    CHECK(std::abs(furthest) <= 3.0001);
    shifts.insert(static_cast<int>(std::lround(furthest)));
  }
  CHECK(shifts == std::set<int>{-3, -2, -1, 0, 1, 2, 3});
  Features brief{8, 1, {0, 1, 2, 3, 4, 5, 6, 7}};
  for (int epoch = 0; epoch < 20; ++epoch) {
    Features f = brief;
    spec_augment(f, o, 1, epoch, "u");
    CHECK(f.data == brief.data);
  }
}

TEST_CASE("SpecAugment leaves the other utterances alone", "[augment]") {
  SpecAugmentOptions o;
  o.time_masks = 0;
  o.freq_masks = 4;
  o.freq_width = 10;
  o.probability = 0.25;
  int changed = 0;
  for (int epoch = 0; epoch < 400; ++epoch) {
    Features f = ones(4, 40);
    spec_augment(f, o, 1, epoch, "u");
    changed += f.data != ones(4, 40).data;
  }
  CHECK(changed > 60);
  CHECK(changed < 140);
  o.probability = 2;
  Features f = ones(4, 40);
  CHECK_THAT(message_of([&] { spec_augment(f, o, 1, 0, "u"); }), Contains("probability"));
  o.probability = 1;
  o.time_warp = -1;
  CHECK_THAT(message_of([&] { spec_augment(f, o, 1, 0, "u"); }), Contains("time_warp"));
}
