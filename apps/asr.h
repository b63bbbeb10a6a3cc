#pragma once
// The commands of the program `asr`. Each `register_*` adds one sub-command with its options and
// the callback that runs it; errors leave a callback as centroid::Error.
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "apps/audio/augment.h"
#include "apps/audio/features.h"
#include "apps/audio/sound_augment.h"
#include "apps/common/config.h"

namespace centroid::asr {
struct Augmentation;
struct FrontEnd;
}  // namespace centroid::asr

namespace centroid::apps {

void register_prepare(CLI::App& app);     ///< corpora -> checked manifests and a vocabulary
void register_features(CLI::App& app);    ///< sound files -> log-mel features and spectrograms
void register_train(CLI::App& app);       ///< manifests -> a trained recogniser
void register_eval(CLI::App& app);        ///< error rates of a recogniser on a manifest
void register_lm(CLI::App& app);          ///< text -> an n-gram language model
void register_tune(CLI::App& app);        ///< LM weight and word score for a recogniser
void register_transcribe(CLI::App& app);  ///< sound files -> text
void register_join(CLI::App& app);        ///< utterances -> one long recording
void register_align(CLI::App& app);       ///< transcripts -> their symbols and words in time
void register_score(CLI::App& app);       ///< transcripts -> error rates, intervals, tests
void register_average(CLI::App& app);     ///< checkpoints -> their mean

/// The named settings of `asr train --preset`.
const Presets& asr_presets();
/// What `--help` says of them, `auto` included.
std::string asr_preset_help();
/// The preset for the hours of sound in the manifest of `--train`; tells on stderr which. Throws
/// when there is no manifest, or one without durations.
std::string choose_asr_preset(const std::vector<std::string>& arguments);

/// Adds the options of the filterbank (`--rate`, `--bins`, ...) in the help group "Features".
/// `options` must outlive `command` and holds the defaults when this is called.
void add_fbank_options(CLI::App& command, audio::FbankOptions& options);

/// The same for a whole front end: also `--normalize` (one of `normalizations`), `--deltas`,
/// `--stack`, ...
void add_front_end_options(CLI::App& command, asr::FrontEnd& front_end,
                           const std::vector<std::string>& normalizations);

/// How training data are changed.
struct AugmentOptions {
  bool spec_augment = true;
  audio::SpecAugmentOptions spec;
  audio::SoundAugmentOptions sound;
};

/// Adds its flags in the help group "Augmentation". `options` must outlive `command`.
void add_augment_options(CLI::App& command, AugmentOptions& options);

/// What the options mean. Throws when noises or impulse responses cannot be read.
asr::Augmentation make_augmentation(const AugmentOptions& options, const asr::FrontEnd& front_end);

}  // namespace centroid::apps
