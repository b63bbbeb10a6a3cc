// The flags of `asr train` about changed training data.
#include "apps/asr.h"
#include "apps/asr_data.h"
#include "apps/common/args.h"

namespace centroid::apps {

void add_augment_options(CLI::App& command, AugmentOptions& o) {
  const char* group = "Augmentation";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return command.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add_switch(command, "spec-augment", o.spec_augment,
             "Warp the input in time, mask random bands and stretches of it")
      ->group(group);
  audio::SpecAugmentOptions& spec = o.spec;
  add("--spec-augment-probability", spec.probability, "Part of the utterances that is changed")
      ->check(in_range(0, 1));
  add("--time-warp", spec.time_warp, "Frames that a random frame moves by at most; 0: none")
      ->check(non_negative());
  add("--freq-masks", spec.freq_masks, "Masked bands per utterance");
  add("--freq-width", spec.freq_width, "Widest band, in bins");
  add("--time-masks", spec.time_masks, "Masked stretches per utterance");
  add("--time-width", spec.time_width, "Longest stretch, in input frames");
  add("--time-fraction", spec.time_fraction, "Most that all stretches cover of an utterance");
  add_switch(command, "mask-mean", spec.fill_mean, "Mask with the utterance's mean instead of 0")
      ->group(group);

  audio::SoundAugmentOptions& sound = o.sound;
  add("--speed-perturb", sound.speeds, "Factors of speed, one drawn per utterance: 0.9,1.0,1.1")
      ->delimiter(',')
      ->check(in_range(0.25, 4));
  add("--gain-min", sound.gain_min, "Least change of volume, dB")->check(in_range(-120, 120));
  add("--gain-max", sound.gain_max, "Greatest change of volume, dB")->check(in_range(-120, 120));
  add("--noise", sound.noise, "Noises to add: a sound file, a folder of them or a manifest");
  add("--noise-probability", sound.noise_probability, "Part of the utterances that gets noise")
      ->check(in_range(0, 1));
  add("--coloured-noise", sound.coloured_noise,
      "Part of the utterances that gets Gaussian noise of a random colour, from rumble to hiss")
      ->check(in_range(0, 1));
  add("--noise-snr-min", sound.noise_snr_min, "Loudest noise: signal-to-noise ratio, dB")
      ->check(in_range(-120, 120));
  add("--noise-snr-max", sound.noise_snr_max, "Softest noise: signal-to-noise ratio, dB")
      ->check(in_range(-120, 120));
  add("--reverb", sound.reverb, "Impulse responses of rooms: a sound file, a folder or a manifest");
  add("--reverb-probability", sound.reverb_probability, "Part of the utterances put into a room")
      ->check(in_range(0, 1));
}

asr::Augmentation make_augmentation(const AugmentOptions& o, const asr::FrontEnd& front_end) {
  asr::Augmentation result;
  if (o.spec_augment) {
    audio::validate(o.spec);
    result.spec = o.spec;
  }
  audio::validate(o.sound);
  if (o.sound.active()) {
    result.sound = std::make_shared<audio::SoundAugment>(o.sound, front_end.fbank.rate);
  }
  result.dither = front_end.fbank.dither > 0;
  return result;
}

}  // namespace centroid::apps
