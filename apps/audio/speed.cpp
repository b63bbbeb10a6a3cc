#include "apps/audio/speed.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

using std::numbers::pi;

constexpr double kZeros = 20;       // zero crossings of the sinc on each side
constexpr double kPassBand = 0.95;  // of the lower one of the two Nyquist frequencies

/// The Blackman-windowed sinc with cutoff `c` cycles per sample at distance `t` samples.
double low_pass(double t, double c) {
  const double x = 2 * c * t / kZeros;
  if (std::abs(x) >= 1) return 0;
  const double window = 0.42 + 0.5 * std::cos(pi * x) + 0.08 * std::cos(2 * pi * x);
  const double angle = 2 * pi * c * t;
  return 2 * c * window * (std::abs(angle) < 1e-9 ? 1.0 : std::sin(angle) / angle);
}

}  // namespace

SpeedChange::SpeedChange(int rate, double factor) : rate_(rate), factor_(factor) {
  CENTROID_CHECK(rate > 0, "speed: expected a sample rate above 0, got ", rate);
  CENTROID_CHECK(factor >= 0.25 && factor <= 4, "speed: expected a factor of 0.25..4, got ",
                 factor);
  const int64_t fast = std::llround(rate * factor);
  CENTROID_CHECK(fast > 0, "speed: the rate ", rate, " Hz is too low for a factor of ", factor);
  const int64_t common = std::gcd<int64_t, int64_t>(rate, fast);
  up_ = rate / common;
  down_ = fast / common;
  const double cutoff =
      0.5 * kPassBand * std::min(1.0, static_cast<double>(up_) / static_cast<double>(down_));
  reach_ = static_cast<int64_t>(std::ceil(kZeros / (2 * cutoff)));
  filters_.reserve(static_cast<size_t>(up_ * 2 * reach_));
  for (int64_t phase = 0; phase < up_; ++phase) {
    const double fraction = static_cast<double>(phase) / static_cast<double>(up_);
    for (int64_t j = 1 - reach_; j <= reach_; ++j) {
      filters_.push_back(static_cast<float>(low_pass(static_cast<double>(j) - fraction, cutoff)));
    }
  }
}

Sound SpeedChange::operator()(const Sound& sound) const {
  CENTROID_CHECK(sound.rate == rate_, "speed: expected a sound at ", rate_, " Hz, got ", sound.rate,
                 " Hz");
  if (up_ == down_) return sound;
  const auto n = static_cast<int64_t>(sound.samples.size());
  const int64_t count = (n * up_ + down_ - 1) / down_;
  // Zeros on both sides, so that no filter leaves the sound.
  std::vector<float> padded(n + 2 * reach_, 0.0f);
  std::copy(sound.samples.begin(), sound.samples.end(), padded.begin() + reach_);
  Sound out{std::vector<float>(count), rate_};
  for (int64_t k = 0; k < count; ++k) {
    const int64_t at = k * down_ / up_, phase = k * down_ % up_;
    const float* x = padded.data() + at + 1;  // sample at + 1 - reach of the sound
    const float* h = filters_.data() + phase * 2 * reach_;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < 2 * reach_; ++j) sum += h[j] * x[j];
    out.samples[k] = sum;
  }
  return out;
}

}  // namespace centroid::audio
