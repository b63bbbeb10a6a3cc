// Settings from the environment, and reports of what went wrong.
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "streams.h"

namespace vgpu {
namespace {

[[noreturn]] void bad_setting(std::string_view entry, const char* expected) {
  std::fprintf(stderr, "== vgpu: %.*s: expected %s\n", static_cast<int>(entry.size()), entry.data(),
               expected);
  std::_Exit(kFaultExit);  // not exit: its handlers would ask for the settings
}

uint64_t parse_number(std::string_view entry, const std::string& value, uint64_t most) {
  size_t end = 0;
  uint64_t number = 0;
  if (!value.empty() && std::isdigit(static_cast<unsigned char>(value[0]))) {
    number = std::strtoull(value.c_str(), nullptr, 10);
    end = value.find_first_not_of("0123456789");
  }
  const std::string_view suffix =
      end == std::string::npos ? std::string_view() : std::string_view(value).substr(end);
  const std::string_view units = "KMG";
  if (suffix.size() == 1 && end > 0 && units.find(suffix[0]) != std::string_view::npos) {
    number <<= 10 * (units.find(suffix[0]) + 1);
  } else if (value.empty() || !suffix.empty()) {
    bad_setting(entry, "a number");
  }
  if (number > most) bad_setting(entry, "a smaller number");
  return number;
}

void apply(Options& o, std::string_view entry) {
  const size_t equals = entry.find('=');
  const std::string_view name = entry.substr(0, equals);
  const std::string value(entry.substr(equals + 1));
  const std::pair<std::string_view, bool*> flags[] = {
      {"VGPU_POISON", &o.poison}, {"VGPU_INIT", &o.init},   {"VGPU_RACE", &o.race},
      {"VGPU_GUARD", &o.guard},   {"VGPU_DEFER", &o.defer}, {"VGPU_LEAKS", &o.leaks}};
  for (const auto& [flag, target] : flags) {
    if (name != flag) continue;
    if (value != "0" && value != "1") bad_setting(entry, "0 or 1");
    *target = value == "1";
    return;
  }
  const auto number = [&](uint64_t most) { return parse_number(entry, value, most); };
  if (name == "VGPU_STATS") {
    o.stats = value;
  } else if (name == "VGPU_SEED") {
    o.seed = number(UINT64_MAX);
  } else if (name == "VGPU_MEMORY") {
    o.memory = number(UINT64_MAX);
  } else if (name == "VGPU_DEVICES") {
    o.devices = static_cast<int>(number(64));
  } else if (name == "VGPU_ARCH") {
    o.arch = static_cast<int>(number(999));
  } else if (name == "VGPU_PROCESSORS") {
    o.processors = std::max(1, static_cast<int>(number(1024)));
  } else if (name == "VGPU_FAULT") {
    if (value != "error" && value != "abort") bad_setting(entry, "error or abort");
    o.fault_error = value == "error";
  } else {
    bad_setting(entry, "another name: there is no such setting");
  }
}

Options read_environment() {
  Options o;
  for (char** entry = environ; *entry; ++entry) {
    if (std::string_view(*entry).starts_with("VGPU_")) apply(o, *entry);
  }
  return o;
}

std::function<std::string()>& fault_context() {
  static std::function<std::string()> where;
  return where;
}

std::string formatted(const char* format, va_list arguments) {
  char text[2048];
  std::vsnprintf(text, sizeof text, format, arguments);
  return text;
}

void print_report(const std::string& text) {
  std::fflush(stdout);
  std::fprintf(stderr, "\n== vgpu: %s\n", text.c_str());
  const std::string kernel = fault_context() ? fault_context()() : "";
  if (!kernel.empty()) std::fprintf(stderr, "==   %s\n", kernel.c_str());
  const std::string work = running_work();
  if (!work.empty()) std::fprintf(stderr, "==   in %s\n", work.c_str());
}

// Neither destructors nor exit handlers run: they could wait for a device that has stopped.
[[noreturn]] void stop() {
  std::fflush(nullptr);
  std::_Exit(kFaultExit);
}

}  // namespace

const Options& options() {
  static const Options settings = read_environment();
  return settings;
}

Rng& rng() {
  static Rng source(0x9e3779b97f4a7c15ull ^ (options().seed * 0x2545f4914f6cdd1dull));
  return source;
}

void set_fault_context(std::function<std::string()> where) { fault_context() = std::move(where); }

void fault(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  print_report(text);
  if (options().fault_error && running_task() != 0) throw DeviceFault();
  stop();
}

void note(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  print_report(text);
}

cudaError_t misuse(cudaError_t code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const std::string text = formatted(format, arguments);
  va_end(arguments);
  print_report(text);
  if (!options().fault_error) stop();
  return code;
}

}  // namespace vgpu
