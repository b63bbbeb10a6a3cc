// The flags of the front end, shared by the commands of `asr`.
#include <cstdio>

#include "apps/asr.h"
#include "apps/asr_model.h"
#include "apps/common/args.h"

namespace centroid::apps {

using namespace audio;

namespace {

const char* const kGroup = "Features";

}  // namespace

void add_fbank_options(CLI::App& command, FbankOptions& o) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group(kGroup);
  };
  const auto flag = [&](const char* name, bool& value, const char* help) {
    add_switch(command, name, value, help)->group(kGroup);
  };
  const auto choice = [&](const char* name, const std::vector<std::string>& names,
                          const std::string& now, const std::function<void(std::string)>& set,
                          const char* help) {
    command.add_option_function<std::string>(name, set, help)
        ->check(CLI::IsMember(names))
        ->default_str(now)
        ->group(kGroup);
  };
  choice(
      "--feature-type", {"fbank", "mfcc"}, name_of(o.type),
      [&o](const std::string& name) { o.type = feature_type_from(name); },
      "fbank: log-mel energies; mfcc: cepstra of them");
  add("--rate", o.rate, "sample rate in Hz; sounds are resampled to it")->check(positive());
  add("--bins", o.bins, "mel bands")->check(positive());
  add("--frame-length", o.frame_length_ms, "ms")->check(positive());
  add("--frame-shift", o.frame_shift_ms, "ms")->check(positive());
  add("--low-freq", o.low_freq, "lower end of the lowest band, Hz")->check(non_negative());
  add("--high-freq", o.high_freq,
      "upper end of the highest band, Hz; 0 or less: offset from half the rate");
  choice(
      "--window", window_names(), name_of(o.window),
      [&o](const std::string& name) { o.window = window_from(name); },
      "povey, hamming, hanning, rectangular, blackman or sine");
  add("--blackman-coeff", o.blackman_coeff, "first coefficient of the Blackman window");
  add("--preemphasis", o.preemphasis, "x[n] -= a x[n-1]")->check(in_range(0, 1));
  add("--dither", o.dither,
      "noise added to the samples, in 16-bit steps; a recogniser gets it in training only")
      ->check(in_range(0, 32768));
  flag("snip-edges", o.snip_edges,
       "only whole frames; otherwise frames are centred and the ends reflected");
  flag("remove-dc", o.remove_dc, "subtract each frame's mean");
  flag("round-to-power-of-two", o.round_to_power_of_two,
       "pad frames with zeros for the Fourier transform");
  flag("use-power", o.use_power, "square the spectrum");
  flag("use-log-fbank", o.use_log_fbank, "logarithms of the bands' energies");
  char floor[32];  // in full: a run's config.json must give the same number again
  std::snprintf(floor, sizeof floor, "%.17g", o.floor);
  add("--mel-floor", o.floor, "smallest energy of a band before the logarithm")
      ->check(positive())
      ->default_str(floor);
  flag("use-energy", o.use_energy,
       "log energy as an additional first column; of cepstra: instead of C0");
  flag("raw-energy", o.raw_energy, "energy before pre-emphasis and window, not after them");
  add("--energy-floor", o.energy_floor, "smallest energy of that column")->check(non_negative());
  flag("htk-compat", o.htk_compat, "energy or C0 as the last column, C0 times the root of 2");
  add("--num-ceps", o.num_ceps, "cepstra, with C0; at most --bins")->check(positive());
  add("--cepstral-lifter", o.cepstral_lifter, "scales high cepstra up; 0: not at all")
      ->check(non_negative());
}

void add_front_end_options(CLI::App& command, asr::FrontEnd& f,
                           const std::vector<std::string>& normalizations) {
  add_fbank_options(command, f.fbank);
  const auto add = [&](const char* name, auto& value, const std::string& help) {
    return command.add_option(name, value, help)->capture_default_str()->group(kGroup);
  };
  std::string names;
  for (size_t i = 0; i < normalizations.size(); ++i) {
    names += (i == 0 ? "" : i + 1 < normalizations.size() ? ", " : " or ") + normalizations[i];
  }
  add("--dynamic-range", f.dynamic_range,
      "dB below the loudest frame of a band to which everything softer is raised; 0: no limit")
      ->check(non_negative());
  add("--normalize", f.normalize, "statistics that make means 0 and deviations 1: " + names)
      ->check(CLI::IsMember(normalizations));
  add_switch(command, "normalize-variance", f.normalize_variance,
             "normalise deviations too, not only means")
      ->group(kGroup);
  add("--deltas", f.deltas.order, "derivatives appended to the features: 0 none, 1 slopes, 2 both")
      ->check(in_range(0, 9));
  add("--delta-window", f.deltas.window, "frames on each side that a slope is fitted to")
      ->check(in_range(1, 1000));
  add("--stack", f.stack, "frames joined into one input")->check(in_range(1, 100));
  add("--stride", f.stride, "frames from one input to the next")->check(in_range(1, 100));
}

}  // namespace centroid::apps
