#include "apps/audio/mix.h"

#include <algorithm>
#include <cmath>
#include <memory>
#ifdef CENTROID_HAVE_KISSFFT
#include <kissfft/kiss_fftr.h>
#endif

#include "tensor/error.h"
#include "tensor/rng.h"

namespace centroid::audio {

double power_of(const std::vector<float>& samples) {
  double sum = 0;
  for (const float x : samples) sum += double{x} * x;
  return samples.empty() ? 0 : sum / static_cast<double>(samples.size());
}

#ifdef CENTROID_HAVE_KISSFFT

namespace {

using Plan = std::unique_ptr<kiss_fftr_state, void (*)(void*)>;

Plan make_plan(int size, bool inverse) {
  Plan plan(kiss_fftr_alloc(size, inverse, nullptr, nullptr), [](void* p) { kiss_fftr_free(p); });
  CENTROID_CHECK(plan, "convolve: no memory for an FFT of ", size, " samples");
  return plan;
}

}  // namespace

std::vector<float> convolve(const std::vector<float>& x, const std::vector<float>& h) {
  if (x.empty() || h.empty()) return {};
  const size_t count = x.size() + h.size() - 1;
  CENTROID_CHECK(count < (size_t{1} << 29), "convolve: too long: ", count, " samples");
  const int size = kiss_fftr_next_fast_size_real(static_cast<int>(count));
  const Plan forward = make_plan(size, false), backward = make_plan(size, true);
  std::vector<float> a = x, b = h;
  a.resize(size, 0.0f);
  b.resize(size, 0.0f);
  std::vector<kiss_fft_cpx> fa(size / 2 + 1), fb(size / 2 + 1);
  kiss_fftr(forward.get(), a.data(), fa.data());
  kiss_fftr(forward.get(), b.data(), fb.data());
  for (size_t k = 0; k < fa.size(); ++k) {
    const kiss_fft_cpx p = fa[k], q = fb[k];
    fa[k] = {(p.r * q.r - p.i * q.i) / static_cast<float>(size),
             (p.r * q.i + p.i * q.r) / static_cast<float>(size)};
  }
  kiss_fftri(backward.get(), fa.data(), a.data());
  a.resize(count);
  return a;
}

#else

std::vector<float> convolve(const std::vector<float>&, const std::vector<float>&) {
  throw Error("convolve: this build has no FFT (install libkissfft-dev and rebuild)");
}

#endif

void reverberate(Sound& sound, const Sound& response) {
  CENTROID_CHECK(sound.rate == response.rate, "reverberate: expected an impulse response at ",
                 sound.rate, " Hz, got ", response.rate, " Hz");
  if (sound.samples.empty() || response.samples.empty()) return;
  const auto louder = [](float a, float b) { return std::abs(a) < std::abs(b); };
  const auto& h = response.samples;
  const auto peak = std::max_element(h.begin(), h.end(), louder) - h.begin();
  const std::vector<float> wet = convolve(sound.samples, h);
  std::vector<float> out(wet.begin() + peak,
                         wet.begin() + peak + static_cast<int64_t>(sound.samples.size()));
  const double before = power_of(sound.samples), after = power_of(out);
  if (after <= 0) return;  // a silent response says nothing of a room
  const auto scale = static_cast<float>(std::sqrt(before / after));
  for (float& value : out) value *= scale;
  sound.samples = std::move(out);
}

void add_noise(Sound& sound, const std::vector<float>& noise, double snr) {
  if (noise.empty()) return;
  std::vector<float> part(sound.samples.size());
  for (size_t i = 0; i < part.size(); ++i) part[i] = noise[i % noise.size()];
  const double speech = power_of(sound.samples), loud = power_of(part);
  if (speech <= 0 || loud <= 0) return;
  const auto scale = static_cast<float>(std::sqrt(speech / loud * std::pow(10.0, -snr / 10)));
  for (size_t i = 0; i < part.size(); ++i) sound.samples[i] += scale * part[i];
}

std::vector<float> coloured_noise(size_t count, Rng& rng) {
  const double pole = -0.6 + 1.55 * rng.uniform(), zero = -0.8 + 1.6 * rng.uniform();
  std::vector<float> noise(count);
  double before = 0;  // the last sample behind the pole: y[n] = x[n] + pole y[n-1]
  for (float& sample : noise) {
    const double y = rng.normal() + pole * before;
    sample = static_cast<float>(y + zero * before);
    before = y;
  }
  return noise;
}

}  // namespace centroid::audio
