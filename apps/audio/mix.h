#pragma once
// Rooms and noise added to a sound.
#include <vector>

#include "apps/audio/sound.h"

namespace centroid {
class Rng;
}

namespace centroid::audio {

/// Mean of the squared samples; 0 for no samples.
double power_of(const std::vector<float>& samples);

/// x * h, all n + m - 1 samples of it, through one Fourier transform. Empty if one of them is.
/// Throws in builds without kissfft.
std::vector<float> convolve(const std::vector<float>& x, const std::vector<float>& h);

/// The sound as heard in the room with this impulse response: convolved, begun at the response's
/// peak so that nothing moves in time, of the same length and the same power as before (Kaldi's
/// `wav-reverberate` with --shift-output and --normalize-output). Throws when the rates differ.
void reverberate(Sound& sound, const Sound& response);

/// Adds `noise`, repeated where it is shorter, scaled to a signal-to-noise ratio of `snr` dB over
/// the whole sound. Nothing is added to silence, nor silence to anything.
void add_noise(Sound& sound, const std::vector<float>& noise, double snr);

/// `count` samples of Gaussian noise of a colour that is drawn too: through one pole in -0.6..0.95
/// and one zero in -0.8..0.8, from a rumble that falls by 51 dB up to half the rate to a hiss that
/// rises by 31 dB.
std::vector<float> coloured_noise(size_t count, Rng& rng);

}  // namespace centroid::audio
