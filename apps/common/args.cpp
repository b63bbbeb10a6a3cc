#include "apps/common/args.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>

#include "apps/common/help.h"
#include "nn/names.h"
#include "tensor/backend.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace centroid::apps {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;

using Words = std::vector<std::string>;

/// A mistake in how the program was called.
struct UsageError {
  std::string message;
};

Words command_names(const CLI::App& app) {
  Words names;
  for (const CLI::App* sub : app.get_subcommands(nullptr)) names.push_back(sub->get_name());
  return names;
}

Words option_names(const CLI::App& command) {
  Words names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string join(const Words& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return (parent ? full_name(*parent) + " " : "") + command.get_name();
}

// Options are created with CLI11's defaults by whoever writes a program; what all of them share is
// set here, once.
void prepare(CLI::App& app) {
  app.formatter_fn([](const CLI::App* command, std::string, CLI::AppFormatMode) {
    return help_text(*command, full_name(*command));
  });
  if (CLI::Option* help = app.get_help_ptr()) {
    help->group("General")->description("this text");
  }
  for (CLI::Option* option : app.get_options()) {
    if (option->get_default_str().empty()) option->capture_default_str();
  }
  for (CLI::App* sub : app.get_subcommands(nullptr)) prepare(*sub);
  if (!app.get_subcommands(nullptr).empty()) app.require_subcommand(1);
}

// The command that `arguments` choose and the place of the word that chooses it (0: none does).
CLI::App* chosen_command(CLI::App& app, const Words& arguments, size_t& after) {
  CLI::App* command = &app;
  after = 0;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--") break;
    if (word.starts_with("-")) {
      const CLI::Option* option = find_option(*command, word);
      if (option && option->get_items_expected_min() > 0 && word.find('=') == word.npos) ++i;
      continue;
    }
    CLI::App* sub = nullptr;
    for (CLI::App* candidate : command->get_subcommands(nullptr)) {
      if (candidate->check_name(word)) sub = candidate;
    }
    if (!sub) break;
    command = sub;
    after = i + 1;
  }
  return command;
}

/// Arguments that come from a file or a preset instead of the command line.
struct Inserted {
  std::string source;
  Words arguments;
};

void insert(Words& arguments, size_t after, std::vector<Inserted>& inserted, CLI::App& command,
            const nlohmann::ordered_json& config, const std::string& source) {
  Inserted next{source, config_arguments(command, config, source, arguments)};
  arguments.insert(arguments.begin() + static_cast<std::ptrdiff_t>(after), next.arguments.begin(),
                   next.arguments.end());
  inserted.push_back(std::move(next));
}

// Each source is inserted only where the earlier ones, which win, say nothing.
std::vector<Inserted> insert_configs(Words& arguments, size_t after, CLI::App& command,
                                     const Presets& presets, const PresetChooser& choose) {
  std::vector<Inserted> inserted;
  const auto takes = [&](const char* flag) { return command.get_option_no_throw(flag) != nullptr; };
  const std::string config = takes("--config") ? argument_value(arguments, "config") : "";
  const std::string resume = takes("--resume") ? argument_value(arguments, "resume") : "";
  std::string preset = takes("--preset") ? argument_value(arguments, "preset") : "";
  if (!resume.empty()) {
    if (!config.empty() || !preset.empty()) {
      throw UsageError{
          "--resume takes the options of the run it continues: expected no --config "
          "and no --preset"};
    }
    const std::string path = (std::filesystem::path(resume) / "config.json").string();
    CENTROID_CHECK(std::filesystem::exists(path), "--resume ", resume,
                   ": expected the folder of an earlier run, but there is no ", path);
    nlohmann::ordered_json options = read_config(path);
    if (takes("--out")) options["out"] = resume;  // the folder may have been moved
    insert(arguments, after, inserted, command, options, "config " + path);
  }
  if (!config.empty()) {
    insert(arguments, after, inserted, command, read_config(config), "config " + config);
  }
  if (preset == "auto" && choose) preset = choose(arguments);
  if (!preset.empty()) {
    Words names;
    for (const auto& [name, values] : presets) names.push_back(name);
    const auto found = presets.find(preset);
    if (found == presets.end()) {
      throw UsageError{"--preset: no preset '" + preset + "' (nearest: " + nearest(preset, names) +
                       "; all: " + join(names) + ")"};
    }
    insert(arguments, after, inserted, command, found->second, "preset " + preset);
  }
  return inserted;
}

std::string explain_unexpected(const CLI::App& app, const CLI::App& command, const Words& extras) {
  const std::string& word = extras.front();
  if (!word.starts_with("-")) {
    const Words names = command_names(command);
    if (names.empty()) return full_name(command) + ": unexpected argument '" + word + "'";
    return full_name(command) + ": no command '" + word + "' (nearest: " + nearest(word, names) +
           "; all: " + join(names) + ")";
  }
  const std::string name = word.substr(0, word.find('='));
  for (const CLI::App* sub : app.get_subcommands(nullptr)) {
    if ((sub == &command || &app == &command) && sub->get_option_no_throw(name)) {
      return name + ": expected after the command: " + full_name(*sub) + " " + name;
    }
  }
  const std::string close = nearest(name, option_names(command));
  return full_name(command) + ": no option " + name + " (nearest: " + close + ")";
}

// CLI11's sentences in the form `what: expected, got`.
std::string explain(const CLI::App& app, const CLI::App& command, const CLI::ParseError& error) {
  const std::string text = error.what();
  if (error.get_name() == "RequiredError") {
    if (text == "A subcommand is required" || text == "A subcommand") {
      return full_name(app) + ": expected a command: " + join(command_names(app));
    }
    return full_name(command) + ": " + text;
  }
  const std::string prefix = "Could not convert: ";
  if (text.starts_with(prefix)) {
    const size_t equals = text.find(" = ");
    const std::string name = text.substr(prefix.size(), equals - prefix.size());
    const CLI::Option* option = command.get_option_no_throw(name);
    const std::string type = option ? option->get_type_name() : "";
    const std::string expected = type.starts_with("INT") || type.starts_with("UINT")
                                     ? "a whole number in range"
                                 : type.starts_with("FLOAT")   ? "a number"
                                 : type.starts_with("BOOLEAN") ? "true or false"
                                                               : "another value";
    if (equals != text.npos) {
      return name + ": expected " + expected + ", got '" + text.substr(equals + 3) + "'";
    }
  }
  return text;
}

bool mentions(const std::string& text, const std::string& flag) {
  const size_t at = text.find(flag);
  if (at == text.npos) return false;
  const size_t end = at + flag.size();
  return end == text.size() || (!std::isalnum(static_cast<unsigned char>(text[end])) &&
                                text[end] != '-' && text[end] != '_');
}

[[noreturn]] void raise(const CLI::App& app, const CLI::App& command, const CLI::ParseError& error,
                        const std::vector<Inserted>& inserted) {
  Words extras = app.remaining();
  if (&command != &app) {
    for (const std::string& word : command.remaining()) extras.push_back(word);
  }
  if (!extras.empty()) throw UsageError{explain_unexpected(app, command, extras)};
  const std::string message = explain(app, command, error);
  for (const Inserted& from : inserted) {
    for (const std::string& argument : from.arguments) {
      if (mentions(message, argument.substr(0, argument.find('=')))) {
        throw Error(from.source + ": " + message);
      }
    }
  }
  throw UsageError{message};
}

void parse_and_run(Words arguments, CLI::App& app, const Presets& presets,
                   const PresetChooser& choose) {
  size_t after = 0;
  CLI::App& command = *chosen_command(app, arguments, after);
  const bool wants_help = std::any_of(arguments.begin(), arguments.end(), [](const auto& word) {
    return word == "--help" || word == "-h";
  });
  std::vector<Inserted> inserted;
  if (!wants_help) inserted = insert_configs(arguments, after, command, presets, choose);

  const CLI::Option* dump = command.get_option_no_throw("--dump-config");
  if (dump && std::find(arguments.begin(), arguments.end(), "--dump-config") != arguments.end()) {
    for (CLI::Option* option : command.get_options()) option->required(false);
  }
  // This runs when all values are known and before the command's own callback.
  app.parse_complete_callback([&] {
    if (!dump || dump->count() == 0) return;
    std::cout << options_json(command).dump(2) << '\n';
    throw CLI::Success();
  });
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(std::move(arguments));
  } catch (const CLI::CallForHelp&) {
    std::cout << help_text(command, full_name(command));
  } catch (const CLI::CallForVersion& version) {
    std::cout << version.what() << '\n';
  } catch (const CLI::Success&) {
  } catch (const CLI::ParseError& error) {
    raise(app, command, error, inserted);
  }
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  const std::string names = nn::nearest_first(candidates, word);
  return names.substr(0, names.find(", "));
}

void add_common_options(CLI::App& command, CommonOptions& options) {
  const char* group = "General";
  command.add_option("--device", options.device, "where to compute: cpu, cuda or cuda:N")
      ->type_name("DEVICE")
      ->group(group);
  command
      .add_option("--math", options.math,
                  "products on CUDA devices: f32, or tf32 or bf16 on tensor cores")
      ->check(CLI::IsMember({"f32", "tf32", "bf16"}))
      ->group(group);
  command.add_option("--threads", options.threads, "CPU threads; 0 means all cores")
      ->check(in_range(0, 4096))
      ->group(group);
  command.add_option("--seed", options.seed, "seed of every random choice")->group(group);
  command.add_flag("--json", options.json, "print results as JSON")->group(group);
  command.add_option("--config", CLI::callback_t(), "read options from a JSON file; flags win")
      ->type_name("FILE")
      ->configurable(false)
      ->group(group);
  command.add_flag("--dump-config")
      ->description("print all options with their values as JSON and exit")
      ->configurable(false)
      ->group(group);
}

void add_preset_option(CLI::App& command, const Presets& presets, const std::string& help) {
  Words names;
  for (const auto& [name, values] : presets) names.push_back(name);
  command.add_option("--preset", CLI::callback_t(), help)
      ->type_name("{" + join(names) + "}")
      ->configurable(false);
}

CLI::Option* add_switch(CLI::App& command, const std::string& name, bool& value,
                        const std::string& help) {
  return command.add_flag("--" + name + ",!--no-" + name, value, help)
      ->default_str(value ? "true" : "false");
}

namespace {

CLI::Validator number_check(std::function<bool(double)> accepts, const std::string& expected) {
  return CLI::Validator(
      [accepts, expected](std::string& text) -> std::string {
        char* end = nullptr;
        const double value = std::strtod(text.c_str(), &end);
        if (!text.empty() && *end == '\0' && std::isfinite(value) && accepts(value)) return "";
        return "expected " + expected + ", got '" + text + "'";
      },
      "");
}

}  // namespace

CLI::Validator in_range(double low, double high) {
  return number_check([=](double x) { return x >= low && x <= high; },
                      concat("a number from ", low, " to ", high));
}

CLI::Validator positive() {
  return number_check([](double x) { return x > 0; }, "a number above 0");
}

CLI::Validator non_negative() {
  return number_check([](double x) { return x >= 0; }, "a number from 0 up");
}

Device apply(const CommonOptions& options) {
  const Device device = parse_device(options.device);
  set_default_device(device);
  CENTROID_CHECK(device.kind == DeviceKind::cuda || options.math == "f32", "--math ", options.math,
                 ": expected f32 on the cpu, which computes in nothing else (--device cuda)");
  set_math_mode(options.math == "tf32"   ? MathMode::tf32
                : options.math == "bf16" ? MathMode::bf16
                                         : MathMode::f32);
  set_num_threads(options.threads);
  return device;
}

int run_app(int argc, const char* const* argv, CLI::App& app, const Presets& presets,
            const PresetChooser& choose) {
  const std::string program = argc > 0 ? std::filesystem::path(argv[0]).filename().string() : "";
  if (app.get_name().empty()) app.name(program.empty() ? "program" : program);
  try {
    prepare(app);
    parse_and_run(Words(argv + std::min(argc, 1), argv + argc), app, presets, choose);
    std::cout.flush();
    CENTROID_CHECK(std::cout.good(), "standard output: cannot write the results (disk full?)");
    return 0;
  } catch (const UsageError& error) {
    std::cerr << "error: " << error.message << "\n('" << app.get_name() << " --help' lists "
              << "commands and options)\n";
    return kExitUsage;
  } catch (const std::bad_alloc&) {
    std::cerr << "error: out of memory: the system refused an allocation (a smaller batch or "
                 "model needs less)\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
  }
  return kExitError;
}

}  // namespace centroid::apps
