#pragma once
// The text of `--help`.
#include <CLI/CLI.hpp>
#include <string>

namespace centroid::apps {

/// The help of `command` for a terminal: description, usage, commands, options by group (the group
/// "General" last), each with its default. `name` is what the user types, such as `copy train`.
std::string help_text(const CLI::App& command, const std::string& name);

}  // namespace centroid::apps
