#pragma once
// The command-line contract that every program keeps: options, errors and exit codes.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/common/config.h"
#include "tensor/device.h"

namespace centroid::apps {

/// The options that every command of every program takes.
struct CommonOptions {
  std::string device = "cpu";  ///< cpu, cuda or cuda:N
  std::string math = "f32";    ///< products on CUDA devices: f32, tf32 or bf16
  int threads = 0;             ///< CPU threads; 0 means all cores
  uint64_t seed = 1;           ///< of every random choice
  bool json = false;           ///< results on stdout as JSON
};

/// Adds `--device --math --threads --seed --json --config --dump-config` to `command`, in the help
/// group "General". `options` must outlive `command` and holds the defaults when this is called.
void add_common_options(CLI::App& command, CommonOptions& options);

/// Adds `--preset NAME`, which sets the options listed under that name; what the command line or
/// a `--config` file gives wins. The same `presets` go to `run_app`.
void add_preset_option(CLI::App& command, const Presets& presets,
                       const std::string& help = "a named set of options; flags win");

/// Chooses what `--preset auto` stands for: from the arguments of the command (with those of
/// `--config`) the name of a preset.
using PresetChooser = std::function<std::string(const std::vector<std::string>& arguments)>;

/// Adds a switch `--name` / `--no-name` with the default that `value` holds now (`name` is given
/// without dashes). CLI11's own flags lose a default of true.
CLI::Option* add_switch(CLI::App& command, const std::string& name, bool& value,
                        const std::string& help);

/// A validator for numbers: accepts finite values in [low, high] and rejects NaN and infinities.
CLI::Validator in_range(double low, double high);
/// A validator for numbers: accepts finite values > 0.
CLI::Validator positive();
/// A validator for numbers: accepts finite values >= 0.
CLI::Validator non_negative();

/// Sets the number of threads, how products are computed and the default device, which it returns:
/// tensors made without naming one lie there. Throws if the device cannot be used.
Device apply(const CommonOptions& options);

/// The candidate with the smallest edit distance to `word`; "none" if there are no candidates.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// The body of every `main`: parses the arguments, runs the callback of the chosen command and
/// returns the exit code. 0: done, also after `--help` and `--dump-config`; 1: `error: what:
/// expected, got (hint)` on stderr, for every exception; 2: wrong usage. Values come, in this
/// order, from the command line, `--config FILE.json` (or the config.json of `--resume DIR`),
/// `--preset`, the defaults. Callbacks are set with `command->callback(...)`.
/// With `choose`, `--preset auto` is a preset, too.
int run_app(int argc, const char* const* argv, CLI::App& app, const Presets& presets = {},
            const PresetChooser& choose = {});

}  // namespace centroid::apps
