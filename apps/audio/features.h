#pragma once
// Log-mel filterbank features, frame for frame those of Kaldi's `compute-fbank-feats`
// (Povey et al., "The Kaldi speech recognition toolkit", ASRU 2011).
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

/// What a frame is multiplied with before the Fourier transform, n = 0..N-1.
enum class Window {
  povey,        ///< hanning^0.85: like Hamming, but 0 at the edges
  hamming,      ///< 0.54 - 0.46 cos(2 pi n / (N-1))
  hanning,      ///< 0.5 - 0.5 cos(2 pi n / (N-1))
  rectangular,  ///< 1
};

/// Names as on the command line and in JSON. `window_from` throws listing the valid names.
std::string name_of(Window window);
Window window_from(const std::string& name);
void to_json(nlohmann::json& json, Window window);
void from_json(const nlohmann::json& json, Window& window);

/// Options of the filterbank; the defaults are Kaldi's, except for 40 bins and no dither.
struct FbankOptions {
  int rate = 16000;             ///< sample rate in Hz that the sounds must have
  double frame_length_ms = 25;  ///< rounded down to samples, zero-padded to a power of two
  double frame_shift_ms = 10;   ///< rounded down to samples
  int bins = 40;                ///< mel triangles
  double low_freq = 20;         ///< Hz, lower edge of the first triangle
  double high_freq = 0;         ///< Hz, upper edge of the last; <= 0: offset from Nyquist
  double preemphasis = 0.97;    ///< x[n] -= a x[n-1]; 0..1
  double dither = 0;            ///< standard deviation of added noise, in 16-bit steps
  bool snip_edges = true;       ///< only whole frames; false: frames centred on every shift
  Window window = Window::povey;
  bool remove_dc = true;    ///< subtract each frame's mean
  bool use_power = true;    ///< |X|^2; false: |X|
  bool use_energy = false;  ///< log energy of the raw frame as an additional first column
  double energy_floor = 0;  ///< smallest energy of that column; 0: none
  double floor = 1.1920928955078125e-7;  ///< smallest mel energy (FLT_EPSILON)

  friend bool operator==(const FbankOptions&, const FbankOptions&) = default;
};

/// Throws naming the option unless every option is usable.
void validate(const FbankOptions& options);

/// JSON with the member names as keys. Reading starts from the defaults and throws on unknown keys
/// and wrong types.
void to_json(nlohmann::json& json, const FbankOptions& options);
void from_json(const nlohmann::json& json, FbankOptions& options);

/// Computes filterbanks. Const and thread-safe: one object serves all threads.
class Fbank {
 public:
  /// Throws for unusable options, for a triangle that holds no FFT bin (too many bins for the
  /// frame length) and in builds without kissfft.
  explicit Fbank(FbankOptions options);

  /// Sound -> (T, bins), or (T, 1 + bins) with use_energy. `rng` is needed (and advanced) when
  /// dither is not 0. Throws when the sound's rate differs or it is shorter than one frame.
  Features operator()(const Sound& sound, Rng* rng = nullptr) const;

  /// Number of frames of a sound of `samples` samples: 1 + (n - length) / shift with snip_edges,
  /// (n + shift / 2) / shift without, 0 if n < length.
  int64_t frames(int64_t samples) const;

  const FbankOptions& options() const { return options_; }

  /// Samples of a frame, and from one frame to the next.
  int64_t frame_length() const { return length_; }
  int64_t frame_shift() const { return shift_; }

  /// Columns of the result.
  int64_t columns() const { return options_.bins + (options_.use_energy ? 1 : 0); }

 private:
  struct Triangle {
    int first = 0;  // FFT bin of weights[0]
    std::vector<float> weights;
  };

  void build_triangles();
  void fill_frame(const Sound& sound, int64_t t, std::vector<double>& frame) const;
  double process_frame(std::vector<double>& frame, Rng* rng) const;

  FbankOptions options_;
  int64_t length_ = 0, shift_ = 0, padded_ = 0;  // samples
  std::vector<double> window_;
  std::vector<Triangle> triangles_;
};

/// Hz at the top of the mel triangle number `bin`.
double centre_hertz(const FbankOptions& options, int64_t bin);

/// Seconds between frames, after `subsampling` frames became one.
double frame_seconds(const FbankOptions& options, int64_t subsampling = 1);

/// Joins `stack` consecutive frames and moves on by `stride`: (T, bins) -> (ceil(T / stride), stack
/// * bins); beyond the end the last frame is repeated, so that no frame is lost.
Features stack_frames(const Features& features, int64_t stack, int64_t stride);

/// Makes each bin's mean over time 0 and, if `variance`, its standard deviation 1.
void normalize_utterance(Features& features, bool variance = true);

/// Mean and standard deviation per bin over a corpus.
struct GlobalStats {
  std::vector<float> mean, stddev;
};
void to_json(nlohmann::json& json, const GlobalStats& stats);
void from_json(const nlohmann::json& json, GlobalStats& stats);

/// Accumulates GlobalStats in double; the result depends on the order of the utterances only
/// through rounding.
class StatsAccumulator {
 public:
  /// Throws when the number of bins changes.
  void add(const Features& features);
  /// Throws when no frame was added.
  GlobalStats finish() const;

 private:
  int64_t count_ = 0;
  std::vector<double> mean_, squares_;  // running mean, sum of squared deviations
};

/// (x - mean) / stddev per bin. Throws when the number of bins differs.
void apply(const GlobalStats& stats, Features& features);

}  // namespace centroid::audio
