#pragma once
// Options as JSON: `--config`, `--dump-config`, `--preset` and the config.json of a run folder all
// use the same keys, which are the long option names without dashes.
#include <CLI/CLI.hpp>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace centroid::apps {

/// Named sets of option values for `--preset`: name -> {"option": value, ...}.
using Presets = std::map<std::string, nlohmann::ordered_json>;

/// All options of `command` with their effective values, in the order they were added: flags as
/// booleans, numbers as numbers, options that take several values as arrays, the rest as strings,
/// null where nothing is set. Positional arguments and options that select the mode of a run
/// (`--config`, `--resume`, ...; in CLI11: `configurable(false)`) are left out. Call it after
/// parsing.
nlohmann::ordered_json options_json(const CLI::App& command);

/// Throws unless the options `names` (without dashes) of `command` have their defaults: what
/// another option makes of no use must not be given, lest the run is taken for another one.
/// `expected` says what they need. Call it after parsing.
void refuse_unused(const CLI::App& command, const std::vector<std::string>& names,
                   const std::string& expected);

/// Reads a JSON object of options. Throws if the file is missing, is not one JSON object or has a
/// key twice.
nlohmann::ordered_json read_config(const std::string& path);

/// The command-line arguments that `config` stands for, without the options that `given` (the
/// arguments the user typed) sets already. `source` names where `config` comes from. Throws on
/// unknown keys, naming the nearest valid one, and on values that no option can have.
std::vector<std::string> config_arguments(const CLI::App& command,
                                          const nlohmann::ordered_json& config,
                                          const std::string& source,
                                          const std::vector<std::string>& given);

/// The option of `command` that `argument` (`--name`, `--name=value`) sets, or null.
const CLI::Option* find_option(const CLI::App& command, const std::string& argument);

/// The value that `arguments` give to the long option `name` (without dashes), or an empty string.
std::string argument_value(const std::vector<std::string>& arguments, const std::string& name);

/// The long names, without dashes, of the options of `command` that a configuration may set.
std::vector<std::string> config_keys(const CLI::App& command);

}  // namespace centroid::apps
