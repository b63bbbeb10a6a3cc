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

#include "tensor/error.h"
#include "tensor/ops.h"

namespace centroid::audio {

namespace {

using std::numbers::pi;

double mel(double hertz) { return 1127.0 * std::log1p(hertz / 700.0); }

double window_value(const FbankOptions& o, int64_t n, int64_t length) {
  const double angle = 2 * pi * static_cast<double>(n) / static_cast<double>(length - 1);
  const double c = std::cos(angle), a = o.blackman_coeff;
  switch (o.window) {
    case Window::povey: return std::pow(0.5 - 0.5 * c, 0.85);
    case Window::hamming: return 0.54 - 0.46 * c;
    case Window::hanning: return 0.5 - 0.5 * c;
    case Window::blackman: return a - 0.5 * c + (0.5 - a) * std::cos(2 * angle);
    case Window::sine: return std::sin(0.5 * angle);
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

double energy_of(const std::vector<double>& frame) {
  double energy = 0;
#pragma omp simd reduction(+ : energy)
  for (size_t i = 0; i < frame.size(); ++i) energy += frame[i] * frame[i];
  return energy;
}

}  // namespace

int64_t feature_columns(const FbankOptions& o) {
  return o.type == FeatureType::mfcc ? o.num_ceps : o.bins + (o.use_energy ? 1 : 0);
}

int64_t frame_count(const FbankOptions& o, int64_t samples) {
  const int64_t length = samples_of(o, o.frame_length_ms), shift = samples_of(o, o.frame_shift_ms);
  if (!o.snip_edges) return (samples + shift / 2) / shift;
  return samples < length ? 0 : 1 + (samples - length) / shift;
}

/// What one call needs beside its result, made once for all frames.
struct Fbank::Work {
#ifdef CENTROID_HAVE_KISSFFT
  explicit Work(const Fbank& fbank)
      : plan(kiss_fftr_alloc(static_cast<int>(fbank.padded_), 0, nullptr, nullptr),
             [](void* p) { kiss_fftr_free(p); }),
        frame(fbank.length_),
        padded(fbank.padded_, 0.0f),
        spectrum(fbank.padded_ / 2),
        mels(fbank.options_.bins),
        bins(fbank.padded_ / 2 + 1) {
    CENTROID_CHECK(plan, "fbank: no memory for an FFT of ", fbank.padded_, " samples");
  }
  std::unique_ptr<kiss_fftr_state, void (*)(void*)> plan;
#endif
  std::vector<double> frame;
  std::vector<float> padded, spectrum, mels;
#ifdef CENTROID_HAVE_KISSFFT
  std::vector<kiss_fft_cpx> bins;
#endif
};

Fbank::Fbank(FbankOptions options) : options_(std::move(options)) {
  validate(options_);
#ifndef CENTROID_HAVE_KISSFFT
  throw Error("fbank: this build cannot compute features (install libkissfft-dev and rebuild)");
#endif
  length_ = samples_of(options_, options_.frame_length_ms);
  shift_ = samples_of(options_, options_.frame_shift_ms);
  padded_ = options_.round_to_power_of_two
                ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(length_)))
                : length_;
  CENTROID_CHECK(padded_ % 2 == 0, "fbank: frame_length_ms: expected an even number of samples, ",
                 "got ", padded_, " (or round_to_power_of_two)");
  for (int64_t n = 0; n < length_; ++n) window_.push_back(window_value(options_, n, length_));
  build_triangles();
  if (options_.type == FeatureType::mfcc) build_cosines();
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

/// The orthonormal cosine transform (DCT-II), its row i times the lifter 1 + Q/2 sin(pi i / Q).
void Fbank::build_cosines() {
  const double n = options_.bins, q = options_.cepstral_lifter;
  for (int i = 0; i < options_.num_ceps; ++i) {
    const double lifter = q > 0 ? 1 + 0.5 * q * std::sin(pi * i / q) : 1.0;
    const double norm = std::sqrt((i == 0 ? 1.0 : 2.0) / n) * lifter;
    for (int b = 0; b < options_.bins; ++b) {
      cosines_.push_back(static_cast<float>(norm * std::cos(pi / n * (b + 0.5) * i)));
    }
  }
}

void Fbank::fill_frame(const Sound& sound, int64_t t, std::vector<double>& frame) const {
  const auto n = static_cast<int64_t>(sound.samples.size());
  const int64_t begin = options_.snip_edges ? t * shift_ : t * shift_ + shift_ / 2 - length_ / 2;
  const float* samples = sound.samples.data();
  if (begin >= 0 && begin + length_ <= n) {
    for (int64_t i = 0; i < length_; ++i) frame[i] = 32768.0 * samples[begin + i];
  } else {
    for (int64_t i = 0; i < length_; ++i) frame[i] = 32768.0 * samples[reflect(begin + i, n)];
  }
}

/// Dither, mean, energy, pre-emphasis and window, in Kaldi's order; returns the frame's energy.
double Fbank::process_frame(std::vector<double>& frame, Rng* rng) const {
  if (options_.dither > 0) {
    const Tensor noise = raw::normal({length_}, *rng, 0, options_.dither, DType::f32, Device());
    for (int64_t i = 0; i < length_; ++i) frame[i] += double{noise.data<float>()[i]};
  }
  if (options_.remove_dc) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < length_; ++i) sum += frame[i];
    const double mean = sum / static_cast<double>(length_);
    for (double& x : frame) x -= mean;
  }
  const double raw = options_.use_energy && options_.raw_energy ? energy_of(frame) : 0;
  for (int64_t i = length_ - 1; i > 0; --i) frame[i] -= options_.preemphasis * frame[i - 1];
  frame[0] -= options_.preemphasis * frame[0];
  for (int64_t i = 0; i < length_; ++i) frame[i] *= window_[i];
  return options_.use_energy && !options_.raw_energy ? energy_of(frame) : raw;
}

/// The windowed frame -> floored mel energies, or their logarithms.
void Fbank::mel_energies(Work& work) const {
#ifdef CENTROID_HAVE_KISSFFT
  std::copy(work.frame.begin(), work.frame.end(), work.padded.begin());
  kiss_fftr(work.plan.get(), work.padded.data(), work.bins.data());
  for (size_t k = 0; k < work.spectrum.size(); ++k) {
    const kiss_fft_cpx bin = work.bins[k];
    const float power = bin.r * bin.r + bin.i * bin.i;
    work.spectrum[k] = options_.use_power ? power : std::sqrt(power);
  }
#endif
  for (size_t b = 0; b < triangles_.size(); ++b) {
    const std::vector<float>& weights = triangles_[b].weights;
    const float* spectrum = work.spectrum.data() + triangles_[b].first;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < weights.size(); ++i) sum += double{weights[i]} * spectrum[i];
    if (options_.use_log_fbank) sum = std::log(std::max(sum, options_.floor));
    work.mels[b] = static_cast<float>(sum);
  }
}

void Fbank::write_row(const std::vector<float>& mels, double energy, float* row) const {
  const double floored = std::max({energy, options_.energy_floor, double{FLT_EPSILON}});
  const auto log_energy = static_cast<float>(std::log(floored));
  const bool last = options_.htk_compat;
  if (options_.type == FeatureType::fbank) {
    float* first = row + (options_.use_energy && !last ? 1 : 0);
    std::copy(mels.begin(), mels.end(), first);
    if (options_.use_energy) row[last ? options_.bins : 0] = log_energy;
    return;
  }
  const auto ceps = static_cast<int64_t>(options_.num_ceps);
  for (int64_t i = 0; i < ceps; ++i) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t b = 0; b < mels.size(); ++b) sum += double{cosines_[i * mels.size() + b]} * mels[b];
    row[i] = static_cast<float>(sum);
  }
  if (options_.use_energy) row[0] = log_energy;
  if (!last) return;
  const float c0 = options_.use_energy ? row[0] : static_cast<float>(row[0] * std::numbers::sqrt2);
  std::copy(row + 1, row + ceps, row);
  row[ceps - 1] = c0;
}

Features Fbank::operator()(const Sound& sound, Rng* rng) const {
  CENTROID_CHECK(sound.rate == options_.rate, "fbank: expected a sound at ", options_.rate,
                 " Hz, got ", sound.rate, " Hz (load_sound resamples)");
  const auto samples = static_cast<int64_t>(sound.samples.size());
  Features out{frames(samples), columns(), {}};
  CENTROID_CHECK(out.frames > 0, "fbank: the sound is shorter than one frame: ", samples,
                 " samples, a frame is ", length_,
                 options_.snip_edges ? "" : ", of which half a shift is needed");
  CENTROID_CHECK(options_.dither == 0 || rng, "fbank: dither ", options_.dither,
                 " needs a random number generator");
  out.data.resize(static_cast<size_t>(out.frames * out.bins));
#ifdef CENTROID_HAVE_KISSFFT
  Work work(*this);
  for (int64_t t = 0; t < out.frames; ++t) {
    fill_frame(sound, t, work.frame);
    const double energy = process_frame(work.frame, rng);
    mel_energies(work);
    write_row(work.mels, energy, out.row(t));
  }
#endif
  for (size_t i = 0; i < out.data.size(); ++i) {
    CENTROID_CHECK(std::isfinite(out.data[i]), "fbank: expected finite features, got ", out.data[i],
                   " in frame ", i / out.bins, " (samples, gain or dither too large?)");
  }
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

}  // namespace centroid::audio
