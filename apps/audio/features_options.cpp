// The options of features: their names, limits and JSON.
#include <cmath>

#include "apps/audio/features.h"
#include "apps/audio/fields.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr std::pair<Window, const char*> kWindows[] = {
    {Window::povey, "povey"},       {Window::hamming, "hamming"},
    {Window::hanning, "hanning"},   {Window::rectangular, "rectangular"},
    {Window::blackman, "blackman"}, {Window::sine, "sine"}};

constexpr std::pair<FeatureType, const char*> kTypes[] = {{FeatureType::fbank, "fbank"},
                                                          {FeatureType::mfcc, "mfcc"}};

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

/// Written only where they are not the defaults.
constexpr auto kLaterFields = [](auto& o, const auto& field) {
  field("type", o.type);
  field("blackman_coeff", o.blackman_coeff);
  field("round_to_power_of_two", o.round_to_power_of_two);
  field("use_log_fbank", o.use_log_fbank);
  field("raw_energy", o.raw_energy);
  field("htk_compat", o.htk_compat);
  field("num_ceps", o.num_ceps);
  field("cepstral_lifter", o.cepstral_lifter);
};

constexpr auto kAllFields = [](auto& o, const auto& field) {
  kFields(o, field);
  kLaterFields(o, field);
};

}  // namespace

std::string name_of(Window window) { return find_name(kWindows, window, "window"); }
Window window_from(const std::string& name) { return find_value(kWindows, name, "window"); }
std::vector<std::string> window_names() {
  std::vector<std::string> names;
  for (const auto& [window, name] : kWindows) names.push_back(name);
  return names;
}
std::string name_of(FeatureType type) { return find_name(kTypes, type, "feature type"); }
FeatureType feature_type_from(const std::string& name) {
  return find_value(kTypes, name, "feature type");
}

void validate(const FbankOptions& o) {
  const double nyquist = 0.5 * o.rate;
  const double upper = o.high_freq > 0 ? o.high_freq : nyquist + o.high_freq;
  CENTROID_CHECK(o.rate > 0, "fbank: rate: expected Hz above 0, got ", o.rate);
  // The upper bounds keep sizes within memory; no speech front end comes near them.
  const auto spans = [&](double ms, int samples) {
    return ms > 0 && ms <= 10000 && static_cast<int64_t>(o.rate * 0.001 * ms) >= samples;
  };
  CENTROID_CHECK(spans(o.frame_length_ms, 2),
                 "fbank: frame_length_ms: expected 2 samples .. 10 s, got ", o.frame_length_ms,
                 " ms");
  CENTROID_CHECK(spans(o.frame_shift_ms, 1),
                 "fbank: frame_shift_ms: expected 1 sample .. 10 s, got ", o.frame_shift_ms, " ms");
  CENTROID_CHECK(o.bins >= 1 && o.bins <= 100000, "fbank: bins: expected 1 or more, got ", o.bins);
  CENTROID_CHECK(o.low_freq >= 0 && o.low_freq < nyquist, "fbank: low_freq: expected 0 <= f < ",
                 nyquist, " Hz (Nyquist), got ", o.low_freq);
  CENTROID_CHECK(upper > o.low_freq && upper <= nyquist,
                 "fbank: high_freq: expected above low_freq (", o.low_freq, " Hz) and at most ",
                 nyquist, " Hz (Nyquist), got ", o.high_freq,
                 o.high_freq > 0 ? "" : " from Nyquist");
  CENTROID_CHECK(o.preemphasis >= 0 && o.preemphasis <= 1,
                 "fbank: preemphasis: expected 0..1, got ", o.preemphasis);
  CENTROID_CHECK(o.dither >= 0 && o.dither <= 32768, "fbank: dither: expected 0 to 32768, got ",
                 o.dither);
  CENTROID_CHECK(o.energy_floor >= 0 && std::isfinite(o.energy_floor),
                 "fbank: energy_floor: expected 0 or more, got ", o.energy_floor);
  CENTROID_CHECK(o.floor > 0 && std::isfinite(o.floor), "fbank: floor: expected above 0, got ",
                 o.floor);
  CENTROID_CHECK(std::isfinite(o.blackman_coeff), "fbank: blackman_coeff: expected a number, got ",
                 o.blackman_coeff);
  CENTROID_CHECK(o.cepstral_lifter >= 0 && std::isfinite(o.cepstral_lifter),
                 "mfcc: cepstral_lifter: expected 0 or more, got ", o.cepstral_lifter);
  if (o.type != FeatureType::mfcc) return;
  CENTROID_CHECK(o.num_ceps >= 1 && o.num_ceps <= o.bins, "mfcc: num_ceps: expected 1 to ", o.bins,
                 " (bins), got ", o.num_ceps);
  CENTROID_CHECK(o.use_log_fbank,
                 "mfcc: use_log_fbank: expected true, got false (cepstra are made ",
                 "of logarithms)");
}

void to_json(nlohmann::json& json, Window window) { json = name_of(window); }
void from_json(const nlohmann::json& json, Window& window) {
  window = window_from(json.get<std::string>());
}

void to_json(nlohmann::json& json, FeatureType type) { json = name_of(type); }
void from_json(const nlohmann::json& json, FeatureType& type) {
  type = feature_type_from(json.get<std::string>());
}

void to_json(nlohmann::json& json, const FbankOptions& options) {
  json = write_fields(options, kFields);
  const nlohmann::json defaults = write_fields(FbankOptions{}, kLaterFields);
  const nlohmann::json later = write_fields(options, kLaterFields);
  for (const auto& [key, value] : later.items()) {
    if (value != defaults.at(key)) json[key] = value;
  }
}

void from_json(const nlohmann::json& json, FbankOptions& options) {
  read_fields(json, options, kAllFields, "fbank options");
  validate(options);
}

}  // namespace centroid::audio
