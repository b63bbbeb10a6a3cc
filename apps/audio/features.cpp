#include "apps/audio/features.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <memory>
#include <numbers>
#ifdef CENTROID_HAVE_KISSFFT
#include <kissfft/kiss_fftr.h>
#endif

#include "apps/audio/fields.h"
#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace {

constexpr std::pair<Window, const char*> kWindows[] = {{Window::povey, "povey"},
                                                       {Window::hamming, "hamming"},
                                                       {Window::hanning, "hanning"},
                                                       {Window::rectangular, "rectangular"}};

/// Features that are constant over time have no scale; dividing by less would only blow up
/// rounding.
constexpr double kMinStddev = 1e-5;

double mel(double hertz) { return 1127.0 * std::log1p(hertz / 700.0); }

double window_value(Window window, int64_t n, int64_t length) {
  const double c =
      std::cos(2 * std::numbers::pi * static_cast<double>(n) / static_cast<double>(length - 1));
  switch (window) {
    case Window::povey: return std::pow(0.5 - 0.5 * c, 0.85);
    case Window::hamming: return 0.54 - 0.46 * c;
    case Window::hanning: return 0.5 - 0.5 * c;
    case Window::rectangular: break;
  }
  return 1.0;
}

double upper_edge(const FbankOptions& o) {
  return o.high_freq > 0 ? o.high_freq : 0.5 * o.rate + o.high_freq;
}

/// Mels between the centres of neighbouring triangles.
double mel_step(const FbankOptions& o) {
  return (mel(upper_edge(o)) - mel(o.low_freq)) / (o.bins + 1);
}

int64_t samples_of(const FbankOptions& o, double ms) {
  return static_cast<int64_t>(o.rate * 0.001 * ms);
}

/// Mirrors an index into 0..n-1: -1 -> 0, -2 -> 1, n -> n-1.
int64_t reflect(int64_t i, int64_t n) {
  while (i < 0 || i >= n) i = i < 0 ? -i - 1 : 2 * n - 1 - i;
  return i;
}

}  // namespace

std::string name_of(Window window) { return find_name(kWindows, window, "window"); }

Window window_from(const std::string& name) { return find_value(kWindows, name, "window"); }

void validate(const FbankOptions& o) {
  const double nyquist = 0.5 * o.rate;
  CENTROID_CHECK(o.rate > 0, "fbank: rate: expected Hz above 0, got ", o.rate);
  // The upper bounds keep sizes within memory; no speech front end comes near them.
  const auto spans = [&](double ms, int samples) {
    return ms > 0 && ms <= 10000 && samples_of(o, ms) >= samples;
  };
  CENTROID_CHECK(spans(o.frame_length_ms, 2),
                 "fbank: frame_length_ms: expected 2 samples .. 10 s, got ", o.frame_length_ms,
                 " ms");
  CENTROID_CHECK(spans(o.frame_shift_ms, 1),
                 "fbank: frame_shift_ms: expected 1 sample .. 10 s, got ", o.frame_shift_ms, " ms");
  CENTROID_CHECK(o.bins >= 1 && o.bins <= 100000, "fbank: bins: expected 1 or more, got ", o.bins);
  CENTROID_CHECK(o.low_freq >= 0 && o.low_freq < nyquist, "fbank: low_freq: expected 0 <= f < ",
                 nyquist, " Hz (Nyquist), got ", o.low_freq);
  CENTROID_CHECK(upper_edge(o) > o.low_freq && upper_edge(o) <= nyquist,
                 "fbank: high_freq: expected above low_freq (", o.low_freq, " Hz) and at most ",
                 nyquist, " Hz (Nyquist), got ", o.high_freq,
                 o.high_freq > 0 ? "" : " from Nyquist");
  CENTROID_CHECK(o.preemphasis >= 0 && o.preemphasis <= 1,
                 "fbank: preemphasis: expected 0..1, got ", o.preemphasis);
  CENTROID_CHECK(o.dither >= 0 && std::isfinite(o.dither),
                 "fbank: dither: expected 0 or more, got ", o.dither);
  CENTROID_CHECK(o.energy_floor >= 0 && std::isfinite(o.energy_floor),
                 "fbank: energy_floor: expected 0 or more, got ", o.energy_floor);
  CENTROID_CHECK(o.floor > 0 && std::isfinite(o.floor), "fbank: floor: expected above 0, got ",
                 o.floor);
}

Fbank::Fbank(FbankOptions options) : options_(std::move(options)) {
  validate(options_);
#ifndef CENTROID_HAVE_KISSFFT
  throw Error("fbank: this build cannot compute features (install libkissfft-dev and rebuild)");
#endif
  length_ = samples_of(options_, options_.frame_length_ms);
  shift_ = samples_of(options_, options_.frame_shift_ms);
  padded_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(length_)));
  for (int64_t n = 0; n < length_; ++n)
    window_.push_back(window_value(options_.window, n, length_));
  build_triangles();
}

void Fbank::build_triangles() {
  const double low = mel(options_.low_freq), step = mel_step(options_);
  for (int b = 0; b < options_.bins; ++b) {
    const double left = low + b * step, centre = left + step, right = centre + step;
    Triangle triangle;
    for (int k = 0; k < padded_ / 2; ++k) {
      const double m = mel(static_cast<double>(options_.rate) * k / static_cast<double>(padded_));
      if (m <= left || m >= right) continue;
      if (triangle.weights.empty()) triangle.first = k;
      triangle.weights.push_back(
          static_cast<float>(m <= centre ? (m - left) / step : (right - m) / step));
    }
    CENTROID_CHECK(!triangle.weights.empty(), "fbank: bins: triangle ", b, " of ", options_.bins,
                   " lies between two FFT bins of ", padded_, " samples at ", options_.rate,
                   " Hz (use fewer bins or longer frames)");
    triangles_.push_back(std::move(triangle));
  }
}

int64_t Fbank::frames(int64_t samples) const {
  if (samples < length_) return 0;
  return options_.snip_edges ? 1 + (samples - length_) / shift_ : (samples + shift_ / 2) / shift_;
}

void Fbank::fill_frame(const Sound& sound, int64_t t, std::vector<double>& frame) const {
  const auto n = static_cast<int64_t>(sound.samples.size());
  const int64_t begin = options_.snip_edges ? t * shift_ : t * shift_ + shift_ / 2 - length_ / 2;
  for (int64_t i = 0; i < length_; ++i) frame[i] = 32768.0 * sound.samples[reflect(begin + i, n)];
}

/// Dither, mean, energy, pre-emphasis and window, in Kaldi's order; returns the raw frame's energy.
double Fbank::process_frame(std::vector<double>& frame, Rng* rng) const {
  if (options_.dither > 0) {
    for (double& x : frame) x += options_.dither * rng->normal();
  }
  if (options_.remove_dc) {
    double sum = 0;
    for (const double x : frame) sum += x;
    const double mean = sum / static_cast<double>(length_);
    for (double& x : frame) x -= mean;
  }
  double energy = 0;
  for (const double x : frame) energy += x * x;
  for (int64_t i = length_ - 1; i > 0; --i) frame[i] -= options_.preemphasis * frame[i - 1];
  frame[0] -= options_.preemphasis * frame[0];
  for (int64_t i = 0; i < length_; ++i) frame[i] *= window_[i];
  return energy;
}

Features Fbank::operator()(const Sound& sound, Rng* rng) const {
  CENTROID_CHECK(sound.rate == options_.rate, "fbank: expected a sound at ", options_.rate,
                 " Hz, got ", sound.rate, " Hz (load_sound resamples)");
  const auto samples = static_cast<int64_t>(sound.samples.size());
  CENTROID_CHECK(samples >= length_, "fbank: the sound is shorter than one frame: ", samples,
                 " samples, a frame is ", length_);
  CENTROID_CHECK(options_.dither == 0 || rng, "fbank: dither ", options_.dither,
                 " needs a random number generator");
  Features out{frames(samples), columns(), {}};
  out.data.resize(static_cast<size_t>(out.frames * out.bins));
#ifdef CENTROID_HAVE_KISSFFT
  const std::unique_ptr<kiss_fftr_state, void (*)(void*)> plan(
      kiss_fftr_alloc(static_cast<int>(padded_), 0, nullptr, nullptr),
      [](void* p) { kiss_fftr_free(p); });
  CENTROID_CHECK(plan, "fbank: no memory for an FFT of ", padded_, " samples");
  std::vector<double> frame(length_);
  std::vector<float> padded(padded_, 0.0f), spectrum(padded_ / 2);
  std::vector<kiss_fft_cpx> bins(padded_ / 2 + 1);
  for (int64_t t = 0; t < out.frames; ++t) {
    fill_frame(sound, t, frame);
    const double energy = process_frame(frame, rng);
    std::copy(frame.begin(), frame.end(), padded.begin());
    kiss_fftr(plan.get(), padded.data(), bins.data());
    for (size_t k = 0; k < spectrum.size(); ++k) {
      const float power = bins[k].r * bins[k].r + bins[k].i * bins[k].i;
      spectrum[k] = options_.use_power ? power : std::sqrt(power);
    }
    float* row = out.row(t);
    if (options_.use_energy) {
      *row++ = static_cast<float>(
          std::log(std::max({energy, options_.energy_floor, double{FLT_EPSILON}})));
    }
    for (const Triangle& triangle : triangles_) {
      double sum = 0;
      for (size_t i = 0; i < triangle.weights.size(); ++i)
        sum += triangle.weights[i] * spectrum[triangle.first + i];
      *row++ = static_cast<float>(std::log(std::max(sum, options_.floor)));
    }
  }
#endif
  return out;
}

double centre_hertz(const FbankOptions& options, int64_t bin) {
  const double centre = mel(options.low_freq) + static_cast<double>(bin + 1) * mel_step(options);
  return 700.0 * std::expm1(centre / 1127.0);
}

double frame_seconds(const FbankOptions& options, int64_t subsampling) {
  return static_cast<double>(samples_of(options, options.frame_shift_ms) * subsampling) /
         options.rate;
}

Features stack_frames(const Features& f, int64_t stack, int64_t stride) {
  CENTROID_CHECK(stack >= 1 && stride >= 1,
                 "stack_frames: expected stack and stride of 1 or more, got ", stack, " and ",
                 stride);
  Features out{(f.frames + stride - 1) / stride, f.bins * stack, {}};
  out.data.reserve(static_cast<size_t>(out.frames * out.bins));
  for (int64_t t = 0; t < out.frames; ++t) {
    for (int64_t s = 0; s < stack; ++s) {
      const float* from = f.row(std::min(t * stride + s, f.frames - 1));
      out.data.insert(out.data.end(), from, from + f.bins);
    }
  }
  return out;
}

void StatsAccumulator::add(const Features& f) {
  if (mean_.empty()) {
    mean_.assign(f.bins, 0.0);
    squares_.assign(f.bins, 0.0);
  }
  CENTROID_CHECK(static_cast<int64_t>(mean_.size()) == f.bins,
                 "statistics: number of bins changed: ", mean_.size(), ", now ", f.bins);
  for (int64_t t = 0; t < f.frames; ++t) {  // Welford's update
    ++count_;
    for (int64_t b = 0; b < f.bins; ++b) {
      const double delta = f.row(t)[b] - mean_[b];
      mean_[b] += delta / static_cast<double>(count_);
      squares_[b] += delta * (f.row(t)[b] - mean_[b]);
    }
  }
}

GlobalStats StatsAccumulator::finish() const {
  CENTROID_CHECK(count_ > 0, "statistics: no frames were added");
  GlobalStats stats;
  for (size_t b = 0; b < mean_.size(); ++b) {
    stats.mean.push_back(static_cast<float>(mean_[b]));
    const double variance = squares_[b] / static_cast<double>(count_);
    stats.stddev.push_back(static_cast<float>(std::max(std::sqrt(variance), kMinStddev)));
  }
  return stats;
}

void apply(const GlobalStats& stats, Features& f) {
  CENTROID_CHECK(
      static_cast<int64_t>(stats.mean.size()) == f.bins && stats.stddev.size() == stats.mean.size(),
      "statistics: expected ", f.bins, " bins, got ", stats.mean.size(), " means and ",
      stats.stddev.size(), " standard deviations");
  for (int64_t t = 0; t < f.frames; ++t) {
    for (int64_t b = 0; b < f.bins; ++b)
      f.row(t)[b] = (f.row(t)[b] - stats.mean[b]) / stats.stddev[b];
  }
}

void normalize_utterance(Features& features, bool variance) {
  if (features.frames == 0) return;
  StatsAccumulator accumulator;
  accumulator.add(features);
  GlobalStats stats = accumulator.finish();
  if (!variance) std::fill(stats.stddev.begin(), stats.stddev.end(), 1.0f);
  apply(stats, features);
}

// ---- JSON ---------------------------------------------------------------------------------------

namespace {

constexpr auto kFields = [](auto& o, const auto& field) {
  field("rate", o.rate);
  field("frame_length_ms", o.frame_length_ms);
  field("frame_shift_ms", o.frame_shift_ms);
  field("bins", o.bins);
  field("low_freq", o.low_freq);
  field("high_freq", o.high_freq);
  field("preemphasis", o.preemphasis);
  field("dither", o.dither);
  field("snip_edges", o.snip_edges);
  field("window", o.window);
  field("remove_dc", o.remove_dc);
  field("use_power", o.use_power);
  field("use_energy", o.use_energy);
  field("energy_floor", o.energy_floor);
  field("floor", o.floor);
};

}  // namespace

void to_json(nlohmann::json& json, Window window) { json = name_of(window); }
void from_json(const nlohmann::json& json, Window& window) {
  window = window_from(json.get<std::string>());
}

void to_json(nlohmann::json& json, const FbankOptions& options) {
  json = write_fields(options, kFields);
}

void from_json(const nlohmann::json& json, FbankOptions& options) {
  read_fields(json, options, kFields, "fbank options");
  validate(options);
}

void to_json(nlohmann::json& json, const GlobalStats& stats) {
  json = {{"mean", stats.mean}, {"stddev", stats.stddev}};
}

void from_json(const nlohmann::json& json, GlobalStats& stats) {
  try {
    json.at("mean").get_to(stats.mean);
    json.at("stddev").get_to(stats.stddev);
  } catch (const nlohmann::json::exception& error) {
    throw Error(concat("feature statistics: expected mean and stddev lists: ", error.what()));
  }
  CENTROID_CHECK(stats.mean.size() == stats.stddev.size(),
                 "feature statistics: ", stats.mean.size(), " means but ", stats.stddev.size(),
                 " standard deviations");
  for (size_t b = 0; b < stats.mean.size(); ++b) {
    CENTROID_CHECK(
        std::isfinite(stats.mean[b]) && stats.stddev[b] > 0 && std::isfinite(stats.stddev[b]),
        "feature statistics: bin ", b, ": expected a finite mean and a stddev above 0, got ",
        stats.mean[b], " and ", stats.stddev[b]);
  }
}

}  // namespace centroid::audio
