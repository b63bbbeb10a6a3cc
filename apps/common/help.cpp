#include "apps/common/help.h"

#include <algorithm>
#include <sstream>
#include <vector>

namespace centroid::apps {
namespace {

constexpr size_t kWidth = 100;
constexpr size_t kColumn = 32;  // where descriptions begin

// Wraps `text` at word boundaries into the columns [kColumn, kWidth).
void describe(std::ostream& out, const std::string& left, const std::string& text) {
  std::string line = "  " + left;
  if (line.size() + 2 > kColumn && !text.empty()) {
    out << line << '\n';
    line.clear();
  }
  line.resize(std::max(line.size(), kColumn), ' ');
  std::istringstream words(text);
  bool first = true;
  for (std::string word; words >> word; first = false) {
    if (!first && line.size() + 1 + word.size() > kWidth) {
      out << line << '\n';
      line.assign(kColumn, ' ');
    } else if (!first) {
      line += ' ';
    }
    line += word;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  out << line << '\n';
}

std::string value_name(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0) return "";
  std::string type = option.get_type_name();
  const size_t choices = type.find('{');  // "TEXT:{adam,sgd}": the choices say it all
  if (choices != type.npos) type.erase(0, choices);
  if (type == "INT" || type == "UINT") type = "N";
  if (type == "FLOAT") type = "X";
  if (type == "BOOLEAN") type = "true|false";
  if (option.get_items_expected_max() > 1) type += " ...";
  return type.empty() ? "" : " " + type;
}

std::string names(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(true, false);
  std::string text;
  for (const std::string& name : option.get_snames()) text += (text.empty() ? "-" : ", -") + name;
  for (const std::string& name : option.get_lnames()) text += (text.empty() ? "--" : ", --") + name;
  return text;
}

void print_option(std::ostream& out, const CLI::Option& option) {
  std::string text = option.get_description();
  const std::string& value = option.get_default_str();
  const bool flag = option.get_items_expected_max() == 0;
  if (option.get_required()) {
    text += " (required)";
  } else if (!value.empty() && value != "[]" && !(flag && value == "false")) {
    text += " (default " + (flag ? std::string("on") : value) + ")";
  }
  describe(out, names(option) + (option.get_positional() ? "" : value_name(option)), text);
}

std::string usage(const CLI::App& command, const std::string& name) {
  std::string text = "usage: " + name;
  if (!command.get_subcommands(nullptr).empty()) return text + " COMMAND [options]";
  text += " [options]";
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_positional()) continue;
    std::string word = option->get_name(true, false);
    if (option->get_items_expected_max() > 1) word += "...";
    text += " " + (option->get_required() ? word : "[" + word + "]");
  }
  return text;
}

}  // namespace

std::string help_text(const CLI::App& command, const std::string& name) {
  std::ostringstream out;
  if (!command.get_description().empty()) out << command.get_description() << "\n\n";
  out << usage(command, name) << '\n';

  const auto commands = command.get_subcommands(
      [](const CLI::App* sub) { return !sub->get_name().empty() && !sub->get_group().empty(); });
  if (!commands.empty()) out << "\nCommands:\n";
  for (const CLI::App* sub : commands) describe(out, sub->get_name(), sub->get_description());

  bool heading = false;
  for (const CLI::Option* option : command.get_options()) {
    if (!option->get_positional() || option->get_group().empty()) continue;
    if (!heading) out << "\nArguments:\n";
    heading = true;
    print_option(out, *option);
  }
  std::vector<std::string> groups = command.get_groups();
  std::stable_partition(groups.begin(), groups.end(),
                        [](const std::string& group) { return group != "General"; });
  for (const std::string& group : groups) {
    heading = false;
    for (const CLI::Option* option : command.get_options()) {
      if (group.empty() || option->get_group() != group || option->get_positional()) continue;
      if (!heading) out << '\n' << group << ":\n";
      heading = true;
      print_option(out, *option);
    }
  }
  if (!commands.empty()) out << "\n'" << name << " COMMAND --help' lists a command's options.\n";
  if (!command.get_footer().empty()) out << '\n' << command.get_footer() << '\n';
  return out.str();
}

}  // namespace centroid::apps
