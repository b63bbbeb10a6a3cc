// Filterbanks against a slow reference written from the definition, and their bookkeeping.
#include "apps/audio/features.h"

#include <cfloat>
#include <complex>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numbers>
#include <thread>

#include "apps/audio/context.h"
#include "apps/audio/normalize.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using centroid::Rng;

namespace {

double mel_of(double f) { return 1127 * std::log(1 + f / 700); }

/// Sample i of the sound continued by reflection at its ends.
double reflected(const Sound& s, long i) {
  const long n = static_cast<long>(s.samples.size());
  i = ((i % (2 * n)) + 2 * n) % (2 * n);
  return 32768.0 * s.samples[i < n ? i : 2 * n - 1 - i];
}

std::vector<double> reference_frame(const Sound& s, const FbankOptions& o, long start,
                                    long length) {
  std::vector<double> x(length), y(length);
  double mean = 0;
  for (long i = 0; i < length; ++i)
    mean += (x[i] = reflected(s, start + i)) / static_cast<double>(length);
  if (o.remove_dc) {
    for (double& v : x) v -= mean;
  }
  for (long i = 0; i < length; ++i) {
    y[i] = x[i] - o.preemphasis * x[std::max(i - 1, 0L)];
    const double hann = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * i / (length - 1));
    if (o.window == Window::povey) y[i] *= std::pow(hann, 0.85);
    if (o.window == Window::hanning) y[i] *= hann;
    if (o.window == Window::hamming) y[i] *= 0.08 + 0.92 * hann;
  }
  return y;
}

/// Direct Fourier transform in double, triangles evaluated on the fly.
std::vector<std::vector<double>> reference(const Sound& s, const FbankOptions& o) {
  const long length = static_cast<long>(o.rate * o.frame_length_ms / 1000);
  const long shift = static_cast<long>(o.rate * o.frame_shift_ms / 1000);
  const long n = static_cast<long>(s.samples.size());
  long padded = 1;
  while (padded < length) padded *= 2;
  const long frames = o.snip_edges ? 1 + (n - length) / shift : (n + shift / 2) / shift;
  const double top = o.high_freq > 0 ? o.high_freq : o.rate / 2.0 + o.high_freq;
  const auto edge = [&](int i) {
    return mel_of(o.low_freq) + i * (mel_of(top) - mel_of(o.low_freq)) / (o.bins + 1);
  };
  std::vector<std::vector<double>> out;
  for (long t = 0; t < frames; ++t) {
    const long start = o.snip_edges ? t * shift : t * shift + shift / 2 - length / 2;
    const std::vector<double> y = reference_frame(s, o, start, length);
    std::vector<double> row(o.bins, 0.0);
    for (long k = 0; k < padded / 2; ++k) {
      std::complex<double> sum = 0;
      for (long i = 0; i < length; ++i)
        sum += std::polar(y[i], -2 * std::numbers::pi * static_cast<double>(k * i % padded) /
                                    static_cast<double>(padded));
      const double value = o.use_power ? std::norm(sum) : std::abs(sum);
      const double m = mel_of(static_cast<double>(k) * o.rate / static_cast<double>(padded));
      for (int b = 0; b < o.bins; ++b) {
        const double up = (m - edge(b)) / (edge(b + 1) - edge(b)),
                     down = (edge(b + 2) - m) / (edge(b + 2) - edge(b + 1));
        row[b] += std::max(0.0, std::min(up, down)) * value;
      }
    }
    for (double& v : row) v = std::log(std::max(v, o.floor));
    out.push_back(row);
  }
  return out;
}

void check_against_reference(const Sound& sound, const FbankOptions& options) {
  const Features got = Fbank(options)(sound);
  const auto want = reference(sound, options);
  REQUIRE(got.frames == static_cast<int64_t>(want.size()));
  REQUIRE(got.bins == options.bins);
  double worst = 0;
  for (int64_t t = 0; t < got.frames; ++t) {
    for (int64_t b = 0; b < got.bins; ++b)
      worst = std::max(worst, std::abs(got.row(t)[b] - want[t][b]));
  }
  CHECK(worst < 2e-4);
}

Sound noise(size_t n, int rate, uint64_t seed = 1) {
  Rng rng(seed, "test");
  Sound sound{{}, rate};
  for (size_t i = 0; i < n; ++i) sound.samples.push_back(static_cast<float>(0.1 * rng.normal()));
  return sound;
}

}  // namespace

TEST_CASE("Filterbanks equal the direct computation for all options and odd lengths") {
  FbankOptions o;
  check_against_reference(noise(2000, 16000), o);
  check_against_reference(noise(401, 16000), o);
  check_against_reference(noise(400, 16000), o);
  o.snip_edges = false;
  check_against_reference(noise(400, 16000), o);
  check_against_reference(noise(1237, 16000), o);
  o.window = Window::hamming;
  o.remove_dc = false;
  o.bins = 80;
  o.high_freq = -400;
  check_against_reference(noise(1237, 16000), o);
  o.window = Window::hanning;
  o.preemphasis = 0;
  o.low_freq = 100;
  o.high_freq = 7000;
  check_against_reference(noise(900, 16000), o);
  o = {};
  o.rate = 8000;
  o.bins = 23;
  o.window = Window::rectangular;
  o.use_power = false;
  check_against_reference(noise(601, 8000), o);
  o = {};
  o.rate = 11025;  // 275.625 and 110.25 samples, rounded down
  check_against_reference(noise(1000, 11025), o);
}

TEST_CASE("Filterbanks of a fixed sound keep their values") {
  // An integer recurrence in place of a file: the same samples everywhere.
  Sound sound{{}, 16000};
  uint32_t state = 12345;
  for (int i = 0; i < 720; ++i) {
    state = state * 1664525 + 1013904223;
    sound.samples.push_back(static_cast<float>(static_cast<int>(state >> 20) - 2048) / 32768);
  }
  FbankOptions o;
  o.bins = 5;
  const Features f = Fbank(o)(sound);
  REQUIRE(f.frames == 3);
  const std::vector<float> golden = {17.771926f, 20.193824f, 21.816651f, 23.558683f, 24.534603f,
                                     17.896000f, 20.450408f, 21.745842f, 23.194224f, 24.717609f,
                                     17.849447f, 20.658441f, 22.337778f, 23.424598f, 24.604438f};
  REQUIRE(f.data.size() == golden.size());
  for (size_t i = 0; i < golden.size(); ++i) CHECK(f.data[i] == Approx(golden[i]).epsilon(1e-5));
}

TEST_CASE("A pure tone peaks in the triangle around it") {
  FbankOptions o;
  const Fbank fbank(o);
  for (const double hertz : {300.0, 1000.0, 3000.0, 6000.0}) {
    const Features f = fbank(tone(hertz, 0.2, 16000));
    const double step = (mel_of(8000) - mel_of(20)) / (o.bins + 1);
    const double centre =
        (mel_of(hertz) - mel_of(20)) / step - 1;  // triangle b is centred on edge b + 1
    for (int64_t t = 0; t < f.frames; ++t) {
      const auto peak = std::max_element(f.row(t), f.row(t) + f.bins) - f.row(t);
      CHECK(std::abs(static_cast<double>(peak) - centre) <= 0.75);
    }
  }
}

TEST_CASE("Frame counts follow Kaldi's formulas with and without snipped edges") {
  FbankOptions o;
  FbankOptions centred;
  centred.snip_edges = false;
  const Fbank snip(o), centre(centred);
  for (const int64_t n : {400, 401, 559, 560, 561, 16000, 16079, 16080}) {
    CHECK(snip.frames(n) == 1 + (n - 400) / 160);
    CHECK(centre.frames(n) == (n + 80) / 160);
    CHECK(snip(noise(n, 16000)).frames == snip.frames(n));
    CHECK(centre(noise(n, 16000)).frames == centre.frames(n));
  }
  CHECK(snip.frames(399) == 0);
  CHECK(frame_seconds(o) == 0.01);
  CHECK(frame_seconds(o, 4) == 0.04);
}

TEST_CASE("Samples count as 16-bit values: scaling by 2 shifts every log-mel by 2 ln 2") {
  FbankOptions o;
  Sound quiet = noise(800, 16000), loud = quiet;
  for (float& x : loud.samples) x *= 2;
  const Features a = Fbank(o)(quiet), b = Fbank(o)(loud);
  for (size_t i = 0; i < a.data.size(); ++i)
    CHECK(b.data[i] - a.data[i] == Approx(2 * std::log(2.0)).epsilon(1e-4));
  // The same computation on samples in -1..1 lies 2 ln 32768 = 20.79 lower.
  Sound tiny = quiet;
  for (float& x : tiny.samples) x /= 32768;
  o.floor = 1e-30;
  const Features c = Fbank(o)(tiny), d = Fbank(o)(quiet);
  for (size_t i = 0; i < c.data.size(); ++i)
    CHECK(d.data[i] - c.data[i] == Approx(20.794415).epsilon(1e-4));
}

TEST_CASE("Digital silence gives the floor, and the energy column its own") {
  FbankOptions o;
  const Sound silence{std::vector<float>(800, 0.0f), 16000};
  for (const float x : Fbank(o)(silence).data) CHECK(x == std::log(FLT_EPSILON));
  o.use_energy = true;
  Features f = Fbank(o)(silence);
  CHECK(f.bins == 41);
  CHECK(f.row(0)[0] == std::log(FLT_EPSILON));
  o.energy_floor = 1.0;
  CHECK(Fbank(o)(silence).row(0)[0] == 0.0f);
  // The raw energy is that of the frame without its mean, before pre-emphasis and window.
  Sound square{{}, 16000};
  for (int i = 0; i < 400; ++i) square.samples.push_back(i % 2 ? 0.25f : 0.75f);
  f = Fbank(o)(square);
  CHECK(f.row(0)[0] == Approx(std::log(400.0 * 8192 * 8192)));
  FbankOptions plain = o;
  plain.use_energy = false;
  const Features without = Fbank(plain)(square);
  CHECK(std::vector<float>(f.row(0) + 1, f.row(0) + 41) == without.data);
}

TEST_CASE("Dither needs a generator, depends on it only, and is reproducible") {
  FbankOptions o;
  o.dither = 1.0;
  const Fbank fbank(o);
  const Sound silence{std::vector<float>(800, 0.0f), 16000};
  CHECK_THAT(message_of([&] { fbank(silence); }), Contains("dither"));
  Rng a(1), b(1), c(2);
  const Features fa = fbank(silence, &a), fb = fbank(silence, &b), fc = fbank(silence, &c);
  CHECK(fa.data == fb.data);
  CHECK(fa.data != fc.data);
  CHECK(fa.row(0)[10] > 0);  // noise of one 16-bit step is far above the floor
  CHECK(fbank(silence, &a).data != fa.data);
}

TEST_CASE("Unusable sounds and options are refused by name") {
  const Fbank fbank{FbankOptions{}};
  CHECK_THAT(message_of([&] { fbank(noise(800, 8000)); }), Contains("16000 Hz, got 8000 Hz"));
  CHECK_THAT(message_of([&] { fbank(noise(399, 16000)); }),
             Contains("399 samples, a frame is 400"));
  CHECK_THROWS_AS(fbank(Sound{{}, 16000}), centroid::Error);
  const auto says = [](auto change, const char* what) {
    FbankOptions o;
    change(o);
    CHECK_THAT(message_of([&] { Fbank{o}; }), Contains(what));
  };
  says([](auto& o) { o.rate = 0; }, "rate");
  says([](auto& o) { o.bins = 0; }, "bins");
  says([](auto& o) { o.bins = 300; }, "between two FFT bins");
  says([](auto& o) { o.low_freq = 9000; }, "low_freq");
  says([](auto& o) { o.high_freq = 9000; }, "high_freq");
  says([](auto& o) { o.high_freq = -8000; }, "high_freq");
  says([](auto& o) { o.frame_shift_ms = 0; }, "frame_shift_ms");
  says([](auto& o) { o.frame_length_ms = NAN; }, "frame_length_ms");
  says([](auto& o) { o.preemphasis = 2; }, "preemphasis");
  says([](auto& o) { o.dither = -1; }, "dither");
  says([](auto& o) { o.dither = 1e300; }, "dither: expected 0 to 32768");
  says([](auto& o) { o.floor = 0; }, "floor");
}

TEST_CASE("Features that would be infinite are an error") {
  Sound sound = tone(440, 0.5, 16000);
  sound.samples[4000] = 1e30f;
  CHECK_THAT(message_of([&] { Fbank(FbankOptions{})(sound); }),
             Contains("expected finite features, got") && Contains("in frame 23"));
}

TEST_CASE("Filterbank options survive JSON, and wrong JSON is named") {
  FbankOptions o;
  o.rate = 8000;
  o.bins = 23;
  o.window = Window::hamming;
  o.snip_edges = false;
  o.high_freq = -100;
  o.floor = 1e-10;
  CHECK(nlohmann::json(o).get<FbankOptions>() == o);
  CHECK(nlohmann::json::object().get<FbankOptions>() == FbankOptions{});
  const auto says = [](const char* text, const char* what) {
    CHECK_THAT(message_of([&] { nlohmann::json::parse(text).get<FbankOptions>(); }),
               Contains(what));
  };
  says(R"({"binz": 40})", "unknown key binz");
  says(R"({"bins": "x"})", "bins");
  says(R"({"bins": 1.5})", "integer");
  says(R"({"window": "round"})", "povey, hamming");
  says(R"({"rate": -1})", "rate");
  says("[1]", "object");
}

TEST_CASE("Options of cepstra are checked, and stored only where they are not the defaults",
          "[features]") {
  const auto says = [](auto change, const char* what) {
    FbankOptions o;
    o.type = FeatureType::mfcc;
    change(o);
    CHECK_THAT(message_of([&] { Fbank{o}; }), Contains(what));
  };
  says([](auto& o) { o.num_ceps = 0; }, "num_ceps: expected 1 to 40 (bins), got 0");
  says([](auto& o) { o.num_ceps = 41; }, "num_ceps");
  says([](auto& o) { o.use_log_fbank = false; }, "use_log_fbank");
  says([](auto& o) { o.cepstral_lifter = -1; }, "cepstral_lifter");
  says([](auto& o) { o.blackman_coeff = NAN; }, "blackman_coeff");
  says([](auto& o) { o.round_to_power_of_two = false, o.frame_length_ms = 25.0625; },
       "even number of samples, got 401");
  FbankOptions o;
  CHECK_FALSE(nlohmann::json(o).contains("type"));
  CHECK_FALSE(nlohmann::json(o).contains("num_ceps"));
  o.type = FeatureType::mfcc;
  o.window = Window::sine;
  o.blackman_coeff = 0.5;
  o.round_to_power_of_two = o.raw_energy = false;
  o.htk_compat = true;
  o.num_ceps = 20;
  o.cepstral_lifter = 0;
  CHECK(nlohmann::json(o).get<FbankOptions>() == o);
  CHECK(feature_columns(o) == 20);
  CHECK_THAT(message_of([] { feature_type_from("plp"); }), Contains("fbank or mfcc"));
}

TEST_CASE("Centred frames exist for every sound of half a shift, whatever its length",
          "[features]") {
  FbankOptions o;
  o.snip_edges = false;
  const Fbank fbank(o);
  CHECK(fbank.frames(79) == 0);
  CHECK_THAT(message_of([&] { fbank(noise(79, 16000)); }), Contains("79 samples"));
  CHECK_THROWS_AS(fbank(Sound{{}, 16000}), centroid::Error);
  for (const size_t n : {80, 81, 200, 399}) check_against_reference(noise(n, 16000), o);
}

TEST_CASE("Deltas are slopes, and those of slopes; ends are repeated", "[features]") {
  Features line{9, 2, {}};
  for (int t = 0; t < 9; ++t) {
    line.data.push_back(static_cast<float>(3 * t));
    line.data.push_back(static_cast<float>(t * t));
  }
  const Features d = add_deltas(line, {2, 1});
  CHECK(d.bins == 6);
  CHECK(d.row(4)[0] == 12);
  CHECK(d.row(4)[2] == 3);  // the slope of 3 t
  CHECK(d.row(4)[3] == 8);  // of t^2 at 4
  CHECK(d.row(4)[4] == 0);
  CHECK(d.row(4)[5] == 2);     // its second derivative
  CHECK(d.row(0)[2] == 1.5f);  // half a step: the frame before the first equals it
  CHECK(add_deltas(line, {0, 2}).data == line.data);
  CHECK(add_deltas({0, 2, {}}, {2, 2}).bins == 6);
  const Features one = add_deltas({1, 1, {5}}, {2, 3});
  CHECK(one.data[0] == 5);
  CHECK(one.data[1] == Approx(0).margin(1e-6));
  CHECK_THROWS_AS(add_deltas(line, {-1, 2}), centroid::Error);
  CHECK_THROWS_AS(add_deltas(line, {1, 0}), centroid::Error);
  const DeltaOptions o{2, 5};
  CHECK(nlohmann::json(o).get<DeltaOptions>() == o);
  CHECK_THROWS_AS(nlohmann::json::parse(R"({"orders": 1})").get<DeltaOptions>(), centroid::Error);
}

TEST_CASE("Statistics of parts, merged, are those of the whole", "[features]") {
  Rng rng(3, "stats");
  StatsAccumulator whole, merged;
  for (const int64_t frames : {5, 1, 0, 40, 7}) {
    Features f{frames, 3, {}};
    for (int64_t i = 0; i < 3 * frames; ++i) {
      f.data.push_back(static_cast<float>(100 + rng.normal()));
    }
    whole.add(f);
    StatsAccumulator part;
    part.add(f);
    merged.merge(part);
  }
  CHECK(merged.frames() == 53);
  merged.merge({});
  for (int b = 0; b < 3; ++b) {
    CHECK(merged.finish().mean[b] == Approx(whole.finish().mean[b]));
    CHECK(merged.finish().stddev[b] == Approx(whole.finish().stddev[b]));
  }
  StatsAccumulator other;
  other.add({1, 2, {1, 2}});
  CHECK_THROWS_AS(merged.merge(other), centroid::Error);
  Features f{2, 3, {1, 2, 3, 4, 5, 6}};
  apply(GlobalStats{{1, 1, 1}, {2, 2, 2}}, f, false);
  CHECK(f.data == std::vector<float>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("One Fbank serves several threads") {
  const Fbank fbank{FbankOptions{}};
  const Sound sound = noise(4000, 16000);
  const Features expected = fbank(sound);
  std::vector<Features> got(4);
  std::vector<std::thread> threads;
  for (Features& f : got) threads.emplace_back([&] { f = fbank(sound); });
  for (std::thread& t : threads) t.join();
  for (const Features& f : got) CHECK(f.data == expected.data);
}

TEST_CASE("Stacking joins frames and repeats the last one") {
  const Features f{5, 2, {0, 1, 10, 11, 20, 21, 30, 31, 40, 41}};
  CHECK(stack_frames(f, 1, 1).data == f.data);
  const Features s = stack_frames(f, 3, 2);
  CHECK(s.frames == 3);
  CHECK(s.bins == 6);
  CHECK(s.data ==
        std::vector<float>{0, 1, 10, 11, 20, 21, 20, 21, 30, 31, 40, 41, 40, 41, 40, 41, 40, 41});
  CHECK(stack_frames(f, 1, 3).data == std::vector<float>{0, 1, 30, 31});
  CHECK(stack_frames({0, 2, {}}, 3, 2).frames == 0);
  CHECK_THROWS_AS(stack_frames(f, 0, 1), centroid::Error);
}

TEST_CASE("The dynamic range is limited in each column by itself") {
  std::vector<float> maxima;
  raise_maxima(maxima, {0, 2, {}});
  CHECK(maxima.empty());
  raise_maxima(maxima, {2, 2, {-9, 1, 4, -20}});
  raise_maxima(maxima, {1, 2, {5, -3}});
  CHECK(maxima == std::vector<float>{5, 1});
  Features f{3, 2, {-9, 1, 4, -20, 1, -3}};
  limit_range(f, maxima, 4);
  CHECK(f.data == std::vector<float>{1, 1, 4, -3, 1, -3});
  CHECK_THAT(message_of([&] { limit_range(f, {1}, 4); }), Contains("2 maxima, got 1"));
  CHECK_THAT(message_of([&] { raise_maxima(maxima, {1, 3, {1, 2, 3}}); }), Contains("2, now 3"));
  Features none{0, 2, {}};
  limit_range(none, {}, 1);
  CHECK(none.data.empty());
}

TEST_CASE("Normalisation makes means 0 and deviations 1, per utterance and over a corpus") {
  Features f{4, 3, {1, 5, 2, 2, 5, 4, 3, 5, 6, 4, 5, 8}};
  Features n = f;
  normalize_utterance(n);
  for (int b = 0; b < 3; ++b) {
    double mean = 0, square = 0;
    for (int t = 0; t < 4; ++t) {
      mean += n.row(t)[b] / 4;
      square += n.row(t)[b] * n.row(t)[b] / 4;
    }
    CHECK(mean == Approx(0).margin(1e-6));
    CHECK(square == Approx(b == 1 ? 0 : 1).margin(1e-5));  // the constant bin becomes 0, not NaN
  }
  Features centred = f;
  normalize_utterance(centred, false);
  CHECK(centred.row(0)[0] == -1.5f);

  StatsAccumulator both;
  both.add({1, 2, {1, 10}});
  both.add({3, 2, {2, 20, 3, 30, 6, 60}});
  const GlobalStats stats = both.finish();
  CHECK(stats.mean == std::vector<float>{3, 30});
  CHECK(stats.stddev[0] == Approx(std::sqrt(3.5)));
  Features g{1, 2, {3, 30 + static_cast<float>(10 * std::sqrt(3.5))}};
  apply(stats, g);
  CHECK(g.data[0] == 0.0f);
  CHECK(g.data[1] == Approx(1));
  const auto back = nlohmann::json(stats).get<GlobalStats>();
  CHECK(back.mean == stats.mean);
  CHECK(back.stddev == stats.stddev);
  CHECK_THAT(message_of([&] { apply(stats, f); }), Contains("3 bins, got 2"));
  CHECK_THAT(message_of([&] { both.add(f); }), Contains("bins changed"));
  CHECK_THROWS_AS(StatsAccumulator().finish(), centroid::Error);
  CHECK_THROWS_AS(nlohmann::json::parse(R"({"mean": [1], "stddev": [0]})").get<GlobalStats>(),
                  centroid::Error);
}
