#pragma once
// What a program says while it works: progress on stderr, one JSON object per line in log.jsonl.
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace centroid::apps {

/// How a `Progress` looks and where it goes. The defaults suit stderr.
struct ProgressOptions {
  std::string label;              ///< first word of the line, such as "train"
  int64_t total = 0;              ///< steps in all; 0 if unknown
  int64_t start = 0;              ///< steps done before this run began (resumed runs)
  std::string unit = "steps";     ///< what `units` of `update` counts, such as "utt"
  double every_seconds = 20;      ///< without a terminal: a line at least this often ...
  double every_percent = 5;       ///< ... and whenever this share of the steps has passed
  std::ostream* out = nullptr;    ///< null means stderr
  int terminal = -1;              ///< 1: redraw one line, 0: plain lines, -1: ask the system
  int width = 0;                  ///< columns of the terminal; 0 means ask the system
  std::function<double()> clock;  ///< seconds; empty means a monotonic clock (tests set it)
};

/// Named values at the end of a progress line, such as {"loss", "1.23"}.
using Fields = std::vector<std::pair<std::string, std::string>>;

/// Shows how far a loop has come: a bar that redraws itself on a terminal, else plain lines now and
/// then. Rates are averaged over the last seconds, the time left over the whole run.
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of the total steps have ended; `units` (utterances, say) have been processed since this
  /// object was made. Cheap enough to be called every step.
  void update(int64_t done, double units, const Fields& fields);

  /// The last `seconds` went into something else, such as an evaluation: the rate leaves them out.
  void exclude(double seconds) { rate_at_ += seconds; }

  /// Prints a whole line, above the bar on a terminal.
  void message(const std::string& line);

  /// Shows the last state and ends the line. Also called by the destructor.
  void finish();

 private:
  std::string line(bool bar) const;
  void draw();

  ProgressOptions options_;
  bool terminal_;
  int width_;
  double begin_, drawn_at_, rate_at_;
  int64_t done_ = 0, drawn_done_ = 0;
  double units_ = 0, rate_units_ = 0, rate_ = 0, rate_seconds_ = 0;
  Fields fields_;
  bool drawn_ = false, open_ = false, finished_ = false;
};

/// `3:07` or `1:02:03`; `?` for negative or non-finite times.
std::string clock_text(double seconds);

/// `value` with `digits` significant digits, without an exponent where that stays short.
std::string short_number(double value, int digits = 4);

/// Appends one JSON object per line to a file; each line is in the file when `write` returns.
class JsonLog {
 public:
  /// Opens or creates `path` for appending; throws if that fails.
  explicit JsonLog(std::string path);
  ~JsonLog();
  JsonLog(const JsonLog&) = delete;
  JsonLog& operator=(const JsonLog&) = delete;

  /// Appends `object`. Non-finite numbers, which JSON cannot hold, become the strings "nan", "inf"
  /// and "-inf". A line that could not be written whole is taken back, and an Error is thrown.
  void write(const nlohmann::ordered_json& object);

  /// Keeps only the lines whose "step" is at most `step`, so that a run resumed from that step
  /// writes the rest again. A half-written last line is dropped.
  void cut_back(int64_t step);

  const std::string& path() const { return path_; }

 private:
  void open();

  std::string path_;
  int file_ = -1;
};

/// The objects of a JSON-lines file. A half-written last line (a run that was killed) is left out;
/// any other line that is not a JSON object throws, naming file and line.
std::vector<nlohmann::ordered_json> read_json_lines(const std::string& path);

/// The number under `key`, also where it was logged as "nan", "inf" or "-inf"; NaN if `object` has
/// no such number.
double logged_number(const nlohmann::ordered_json& object, const std::string& key);

}  // namespace centroid::apps
