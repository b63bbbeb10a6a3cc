#pragma once
// Log-mel filterbanks and mel-frequency cepstral coefficients, frame for frame those of Kaldi's
// `compute-fbank-feats` and `compute-mfcc-feats` (Povey et al., "The Kaldi speech recognition
// toolkit", ASRU 2011).
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "apps/audio/sound.h"

namespace centroid {
class Rng;
}

namespace centroid::audio {

/// One utterance's features, row-major (T, bins).
struct Features {
  int64_t frames = 0;
  int64_t bins = 0;
  std::vector<float> data;

  float* row(int64_t t) { return data.data() + t * bins; }
  const float* row(int64_t t) const { return data.data() + t * bins; }
};

/// What is computed of each frame.
enum class FeatureType {
  fbank,  ///< energies of mel bands
  mfcc,   ///< the cosine transform of their logarithms (Davis and Mermelstein, 1980)
};

/// What a frame is multiplied with before the Fourier transform, n = 0..N-1.
enum class Window {
  povey,        ///< hanning^0.85: like Hamming, but 0 at the edges
  hamming,      ///< 0.54 - 0.46 cos(2 pi n / (N-1))
  hanning,      ///< 0.5 - 0.5 cos(2 pi n / (N-1))
  rectangular,  ///< 1
  blackman,     ///< a - 0.5 cos(2 pi n / (N-1)) + (0.5 - a) cos(4 pi n / (N-1))
  sine,         ///< sin(pi n / (N-1))
};

/// Names as on the command line and in JSON. `*_from` throw listing the valid names.
std::string name_of(Window window);
Window window_from(const std::string& name);
std::vector<std::string> window_names();
std::string name_of(FeatureType type);
FeatureType feature_type_from(const std::string& name);
void to_json(nlohmann::json& json, FeatureType type);
void from_json(const nlohmann::json& json, FeatureType& type);
void to_json(nlohmann::json& json, Window window);
void from_json(const nlohmann::json& json, Window& window);

/// Options of filterbanks and cepstra; the defaults are Kaldi's, except for 40 bins, no dither, and
/// no energy in place of the first cepstral coefficient.
struct FbankOptions {
  FeatureType type = FeatureType::fbank;
  int rate = 16000;             ///< sample rate in Hz that the sounds must have
  double frame_length_ms = 25;  ///< rounded down to samples
  double frame_shift_ms = 10;   ///< rounded down to samples
  int bins = 40;                ///< mel triangles
  double low_freq = 20;         ///< Hz, lower edge of the first triangle
  double high_freq = 0;         ///< Hz, upper edge of the last; <= 0: offset from Nyquist
  double preemphasis = 0.97;    ///< x[n] -= a x[n-1]; 0..1
  double dither = 0;            ///< standard deviation of added noise, in 16-bit steps
  bool snip_edges = true;       ///< only whole frames; false: frames centred on every shift
  Window window = Window::povey;
  bool remove_dc = true;              ///< subtract each frame's mean
  double blackman_coeff = 0.42;       ///< a of the Blackman window
  bool round_to_power_of_two = true;  ///< zero-pads frames to a power of two; false: not at all
  bool use_power = true;              ///< |X|^2; false: |X|
  bool use_log_fbank = true;          ///< logarithms of the mel energies; cepstra need them
  bool use_energy = false;  ///< log energy as an additional first column; of cepstra: instead of C0
  bool raw_energy = true;   ///< that of the frame before pre-emphasis and window; false: after them
  double energy_floor = 0;  ///< smallest energy of that column; 0: none
  bool htk_compat = false;  ///< energy or C0 is the last column; C0 is scaled by sqrt 2
  double floor = 1.1920928955078125e-7;  ///< smallest mel energy (FLT_EPSILON)
  int num_ceps = 13;                     ///< cepstral coefficients, with C0; at most `bins`
  double cepstral_lifter = 22;  ///< Q: coefficient i times 1 + Q/2 sin(pi i / Q); 0: not at all

  friend bool operator==(const FbankOptions&, const FbankOptions&) = default;
};

/// Throws naming the option unless every option is usable.
void validate(const FbankOptions& options);

/// JSON with the member names as keys. Reading starts from the defaults and throws on unknown keys
/// and wrong types. Keys that came after the first release are written only where they differ from
/// their defaults: older checkpoints keep their text.
void to_json(nlohmann::json& json, const FbankOptions& options);
void from_json(const nlohmann::json& json, FbankOptions& options);

/// Columns of the features.
int64_t feature_columns(const FbankOptions& options);

/// Number of frames of a sound of `samples` samples: 1 + (n - length) / shift with snip_edges, (n +
/// shift / 2) / shift without; 0 if there is no frame.
int64_t frame_count(const FbankOptions& options, int64_t samples);

/// Computes filterbanks or cepstra. Const and thread-safe: one object serves all threads.
class Fbank {
 public:
  /// Throws for unusable options, for a triangle that holds no FFT bin (too many bins for the
  /// frame length), for frames of an odd number of samples that are not to be padded, and in builds
  /// without kissfft.
  explicit Fbank(FbankOptions options);

  /// Sound -> (T, columns). `rng` is needed (and advanced) when dither is not 0. Throws when the
  /// sound's rate differs or it has not one frame.
  Features operator()(const Sound& sound, Rng* rng = nullptr) const;

  /// `frame_count` and `feature_columns` of its options.
  int64_t frames(int64_t samples) const { return frame_count(options_, samples); }
  int64_t columns() const { return feature_columns(options_); }
  const FbankOptions& options() const { return options_; }

  /// Samples of a frame, and from one frame to the next.
  int64_t frame_length() const { return length_; }
  int64_t frame_shift() const { return shift_; }

 private:
  struct Triangle {
    int first = 0;  // FFT bin of weights[0]
    std::vector<float> weights;
  };
  struct Work;

  void build_triangles();
  void build_cosines();
  void fill_frame(const Sound& sound, int64_t t, std::vector<double>& frame) const;
  double process_frame(std::vector<double>& frame, Rng* rng) const;
  void mel_energies(Work& work) const;
  void write_row(const std::vector<float>& mels, double energy, float* row) const;

  FbankOptions options_;
  int64_t length_ = 0, shift_ = 0, padded_ = 0;  // samples
  std::vector<double> window_;
  std::vector<Triangle> triangles_;
  std::vector<float> cosines_;  // (num_ceps, bins), liftered; empty for filterbanks
};

/// Hz at the top of the mel triangle number `bin`.
double centre_hertz(const FbankOptions& options, int64_t bin);

/// Seconds between frames, after `subsampling` frames became one.
double frame_seconds(const FbankOptions& options, int64_t subsampling = 1);

}  // namespace centroid::audio
