#include "apps/common/log.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <limits>

#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/json.h"

namespace centroid::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kRedraw = 0.1;     // seconds between two drawings of the bar
constexpr double kRateWindow = 10;  // seconds over which rates are averaged
constexpr int kBarWidth = 24;

double monotonic_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

Json finite(const Json& value) {
  if (value.is_number_float()) {
    const double x = value.get<double>();
    if (std::isnan(x)) return "nan";
    if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  }
  if (!value.is_structured()) return value;
  Json copy = value;
  for (Json& item : copy) item = finite(item);
  return copy;
}

// Calls `f(line, object)` for every complete line of a JSON-lines file.
template <typename F>
void for_each_line(const std::string& path, const F& f) {
  std::ifstream in(path, std::ios::binary);
  CENTROID_CHECK(in.is_open(), path, ": cannot open the file");
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (in.eof()) break;  // no newline at the end: the writer was killed
    Json object = try_parse_json<Json>(line);
    CENTROID_CHECK(object.is_object(), path, ":", number, ": expected a JSON object, got '",
                   line.substr(0, 60), "'");
    f(line, object);
  }
  CENTROID_CHECK(!in.bad(), path, ": cannot read the file");
}

}  // namespace

std::string clock_text(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const auto whole = static_cast<int64_t>(seconds + 0.5);
  char text[32];
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%d:%02d:%02d", static_cast<int>(whole / 3600),
                  static_cast<int>(whole / 60 % 60), static_cast<int>(whole % 60));
  } else {
    std::snprintf(text, sizeof text, "%d:%02d", static_cast<int>(whole / 60),
                  static_cast<int>(whole % 60));
  }
  return text;
}

std::string short_number(double value, int digits) {
  char text[64];
  const double size = std::fabs(value);
  if (size != 0 && size >= 1e-3 && size < 1e6) {
    const int whole = static_cast<int>(std::floor(std::log10(size))) + 1;
    std::snprintf(text, sizeof text, "%.*f", std::clamp(digits - whole, 0, digits + 2), value);
  } else {
    std::snprintf(text, sizeof text, "%.*g", digits, value);
  }
  return text;
}

Progress::Progress(ProgressOptions options) : options_(std::move(options)) {
  if (!options_.clock) options_.clock = monotonic_seconds;
  terminal_ = options_.terminal >= 0 ? options_.terminal != 0
                                     : options_.out == nullptr && isatty(STDERR_FILENO);
  if (!options_.out) options_.out = &std::cerr;
  width_ = options_.width > 0 ? options_.width : terminal_width();
  begin_ = drawn_at_ = rate_at_ = options_.clock();
  done_ = drawn_done_ = options_.start;
}

Progress::~Progress() { finish(); }

void Progress::update(int64_t done, double units, const Fields& fields) {
  const double now = options_.clock();
  done_ = done;
  units_ = units;
  fields_ = fields;
  finished_ = false;
  if (const double dt = now - rate_at_; dt > 0) {
    const double current = (units - rate_units_) / dt;
    // The mean of all so far, until the window is full.
    const double weight = dt / (dt + std::min(rate_seconds_, kRateWindow));
    rate_seconds_ += dt;
    rate_ += weight * (current - rate_);
    rate_at_ = now;
    rate_units_ = units;
  }
  const double since = now - drawn_at_;
  bool due = terminal_ ? since >= kRedraw : since >= options_.every_seconds;
  if (!terminal_ && options_.total > 0) {
    due |= 100.0 * (done - drawn_done_) >= options_.every_percent * options_.total;
  }
  if (due || !drawn_) draw();
}

std::string Progress::line(bool bar) const {
  const double elapsed = options_.clock() - begin_;
  std::string text = options_.label;
  if (!text.empty()) text += "  ";
  text += std::to_string(done_);
  if (options_.total > 0) {
    const double share = std::clamp(double(done_) / double(options_.total), 0.0, 1.0);
    text.append("/").append(std::to_string(options_.total));
    if (bar) {
      const int full = static_cast<int>(share * kBarWidth);
      text.append(" [").append(full, '#').append(kBarWidth - full, '.').append("]");
    }
    char percent[16];
    std::snprintf(percent, sizeof percent, "  %3d %%", static_cast<int>(share * 100));
    text += percent;
  }
  text += "  " + short_number(rate_, 3) + " " + options_.unit + "/s";
  for (const auto& [name, value] : fields_) text += "  " + name + " " + value;
  if (options_.total > 0) {
    const double steps = double(done_ - options_.start);
    text +=
        "  ETA " + clock_text(steps > 0 ? elapsed / steps * double(options_.total - done_) : -1);
  }
  return text + "  elapsed " + clock_text(elapsed);
}

void Progress::draw() {
  std::ostream& out = *options_.out;
  if (terminal_) {
    std::string text = line(true);
    if (static_cast<int>(text.size()) >= width_) text = line(false);
    if (static_cast<int>(text.size()) >= width_) text.resize(static_cast<size_t>(width_ - 1));
    out << '\r' << text << "\033[K" << std::flush;
    open_ = true;
  } else {
    out << line(false) << '\n' << std::flush;
  }
  drawn_ = true;
  drawn_at_ = options_.clock();
  drawn_done_ = done_;
}

void Progress::message(const std::string& text) {
  std::ostream& out = *options_.out;
  if (open_) out << "\r\033[K";
  out << text << '\n' << std::flush;
  open_ = false;
  if (terminal_ && drawn_ && !finished_) draw();
}

void Progress::finish() {
  if (finished_ || !drawn_) return;
  finished_ = true;
  if (terminal_ || drawn_done_ != done_) draw();
  if (open_) *options_.out << '\n' << std::flush;
  open_ = false;
}

JsonLog::JsonLog(std::string path) : path_(std::move(path)) { open(); }

JsonLog::~JsonLog() {
  if (file_ >= 0) ::close(file_);
}

void JsonLog::open() {
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  CENTROID_CHECK(file_ >= 0, path_, ": cannot write: ", std::strerror(errno));
}

void JsonLog::write(const Json& object) {
  const std::string text =
      finite(object).dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
  struct stat before {};
  const bool regular = fstat(file_, &before) == 0 && S_ISREG(before.st_mode);
  for (size_t written = 0; written < text.size();) {
    const ssize_t n = ::write(file_, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const std::string reason = n < 0 ? std::strerror(errno) : "nothing was written";
      const bool undone = !regular || ftruncate(file_, before.st_size) == 0;
      throw Error(concat(path_, ": cannot write: ", reason,
                         undone ? "" : " (the last line of the file is incomplete)"));
    }
    written += static_cast<size_t>(n);
  }
}

void JsonLog::cut_back(int64_t step) {
  std::string kept;
  for_each_line(path_, [&](const std::string& line, const Json& object) {
    const auto at = object.find("step");
    if (at != object.end() && at->is_number() && at->get<double>() <= double(step)) {
      kept += line + '\n';
    }
  });
  write_file_atomic(path_, kept.data(), kept.size());
  ::close(file_);  // the old file has no name any more
  file_ = -1;
  open();
}

std::vector<Json> read_json_lines(const std::string& path) {
  std::vector<Json> objects;
  for_each_line(path,
                [&](const std::string&, Json& object) { objects.push_back(std::move(object)); });
  return objects;
}

double logged_number(const Json& object, const std::string& key) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto value = object.find(key);
  if (value != object.end() && value->is_number()) return value->get<double>();
  if (value != object.end() && *value == "inf") return kInfinity;
  if (value != object.end() && *value == "-inf") return -kInfinity;
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace centroid::apps
