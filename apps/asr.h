#pragma once
// The commands of the program `asr`. Each `register_*` adds one sub-command with its options and
// the callback that runs it; errors leave a callback as centroid::Error.
#include <CLI/CLI.hpp>

#include "apps/audio/features.h"
#include "apps/common/config.h"

namespace centroid::apps {

void register_prepare(CLI::App& app);     ///< corpora -> checked manifests and a vocabulary
void register_features(CLI::App& app);    ///< sound files -> log-mel features and spectrograms
void register_train(CLI::App& app);       ///< manifests -> a trained recogniser
void register_eval(CLI::App& app);        ///< error rates of a recogniser on a manifest
void register_transcribe(CLI::App& app);  ///< sound files -> text
void register_align(CLI::App& app);       ///< transcripts -> their symbols and words in time

/// The named settings of `asr train --preset`.
const Presets& asr_presets();

/// Adds the options of the filterbank (`--rate`, `--bins`, ...) in the help group "Features".
/// `options` must outlive `command` and holds the defaults when this is called.
void add_fbank_options(CLI::App& command, audio::FbankOptions& options);

}  // namespace centroid::apps
