#include "apps/common/config.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

#include "apps/common/args.h"
#include "tensor/error.h"
#include "tensor/json.h"

namespace centroid::apps {
namespace {

using Json = nlohmann::ordered_json;

bool is_flag(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

bool in_config(const CLI::Option& option) {
  return option.get_configurable() && !option.get_positional() && !option.get_lnames().empty();
}

// Text becomes a number only where writing that number gives an equal value again: text options
// such as names of files keep what the user typed ("007", "1e3").
Json value_of(const std::string& text, const std::string& type) {
  const bool number = type.starts_with("INT") || type.starts_with("UINT") ||
                      type.starts_with("FLOAT") || type.starts_with("BOOL");
  if (type.starts_with("TEXT")) return text;
  const Json parsed = try_parse_json<Json>(text);
  if (parsed.is_boolean() || (parsed.is_number() && (number || parsed.dump() == text))) {
    return parsed;
  }
  if (type.starts_with("FLOAT")) {  // forms that JSON does not know, such as ".5" or "1."
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (!text.empty() && *end == '\0' && std::isfinite(value)) return value;
  }
  return text;
}

// CLI11 prints the default of a list as "[a,b]" and keeps the values of a given one apart.
std::vector<std::string> default_values(const CLI::Option& option) {
  std::string text = option.get_default_str();
  if (option.get_items_expected_max() <= 1) return {text};
  if (text.size() >= 2 && text.front() == '[' && text.back() == ']') {
    text = text.substr(1, text.size() - 2);
  }
  std::vector<std::string> values;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) values.push_back(item);
  return values;
}

Json value_of(const CLI::Option& option, bool given) {
  const std::string type = option.get_type_name();
  if (is_flag(option)) {
    const std::string text = given ? option.results().back() : option.get_default_str();
    return !text.empty() && CLI::detail::to_flag_value(text) > 0;
  }
  if (option.get_items_expected_max() > 1) {
    Json list = Json::array();
    for (const std::string& text : given ? option.results() : default_values(option)) {
      list.push_back(value_of(text, type));
    }
    return list;
  }
  if (given) return value_of(option.results().back(), type);
  if (option.get_default_str().empty()) return nullptr;
  return value_of(option.get_default_str(), type);
}

Json effective_value(const CLI::Option& option) { return value_of(option, option.count() > 0); }

std::string text_of(const Json& value, const std::string& what) {
  if (value.is_string()) return value.get<std::string>();
  CENTROID_CHECK(value.is_number() || value.is_boolean(), what,
                 ": expected a string, a number, true or false, got ", value.dump());
  return value.dump();
}

void append(std::vector<std::string>& arguments, const std::string& flag,
            const std::string& value) {
  if (value.empty()) {  // "--flag=" would take the next argument as its value
    arguments.push_back(flag);
    arguments.push_back("");
  } else {
    arguments.push_back(flag + "=" + value);
  }
}

}  // namespace

Json options_json(const CLI::App& command) {
  Json config = Json::object();
  for (const CLI::Option* option : command.get_options()) {
    if (in_config(*option)) config[option->get_lnames().front()] = effective_value(*option);
  }
  return config;
}

std::vector<std::string> config_keys(const CLI::App& command) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : command.get_options()) {
    if (in_config(*option)) keys.push_back(option->get_lnames().front());
  }
  return keys;
}

// Values and not only their presence: a config file that --dump-config wrote holds all options.
void refuse_unused(const CLI::App& command, const std::vector<std::string>& names,
                   const std::string& expected) {
  for (const std::string& name : names) {
    const CLI::Option* option = command.get_option("--" + name);
    const Json value = effective_value(*option);
    CENTROID_CHECK(option->count() == 0 || value == value_of(*option, false), "--", name,
                   ": of no use here: expected ", expected, " with it, got ", value.dump());
  }
}

Json read_config(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CENTROID_CHECK(in.is_open(), "config ", path, ": cannot open the file");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::set<std::string> keys;
  std::string repeated;
  const auto watch = [&](int depth, nlohmann::json::parse_event_t event, Json& parsed) {
    if (depth == 1 && event == nlohmann::json::parse_event_t::key) {
      if (!keys.insert(parsed.get<std::string>()).second) repeated = parsed.get<std::string>();
    }
    return true;
  };
  const Json config = parse_json<Json>(
      text, concat("config ", path, ": expected a JSON object of options, got"), watch);
  CENTROID_CHECK(config.is_object(), "config ", path, ": expected a JSON object of options, got ",
                 config.type_name());
  CENTROID_CHECK(repeated.empty(), "config ", path, ": the key \"", repeated, "\" appears twice");
  return config;
}

const CLI::Option* find_option(const CLI::App& command, const std::string& argument) {
  std::string name, value;
  if (!CLI::detail::split_long(argument, name, value)) return nullptr;
  return command.get_option_no_throw("--" + name);
}

std::string argument_value(const std::vector<std::string>& arguments, const std::string& name) {
  const std::string flag = "--" + name;
  for (size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
    if (arguments[i] == flag && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with(flag + "=")) return arguments[i].substr(flag.size() + 1);
  }
  return "";
}

std::vector<std::string> config_arguments(const CLI::App& command, const Json& config,
                                          const std::string& source,
                                          const std::vector<std::string>& given) {
  std::set<const CLI::Option*> set_already;
  for (const std::string& argument : given) {
    if (argument == "--") break;
    set_already.insert(find_option(command, argument));
  }
  std::vector<std::string> arguments;
  for (const auto& [key, value] : config.items()) {
    const std::string what = source + ": " + key;
    const std::string flag = "--" + key;
    const CLI::Option* option = command.get_option_no_throw(flag);
    CENTROID_CHECK(option, source, ": unknown option \"", key, "\" (nearest: \"",
                   nearest(key, config_keys(command)), "\")");
    CENTROID_CHECK(in_config(*option), what, ": can only be given on the command line");
    if (value.is_null() || set_already.count(option)) continue;
    if (is_flag(*option)) {
      CENTROID_CHECK(value.is_boolean(), what, ": expected true or false, got ", value.dump());
      arguments.push_back(flag + (value.get<bool>() ? "=true" : "=false"));
    } else if (option->get_items_expected_max() > 1) {
      CENTROID_CHECK(value.is_array(), what, ": expected a list, got ", value.dump());
      for (const Json& item : value) append(arguments, flag, text_of(item, what));
    } else {
      append(arguments, flag, text_of(value, what));
    }
  }
  return arguments;
}

}  // namespace centroid::apps
