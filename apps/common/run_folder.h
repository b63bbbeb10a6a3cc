#pragma once
// The folder of a training run, and stopping on a signal.
#include <CLI/CLI.hpp>
#include <string>

namespace centroid::apps {

/// Where a run keeps its files, as given on the command line.
struct RunOptions {
  std::string out;         ///< the folder of a new run
  std::string resume;      ///< the folder of a run to go on with; empty for a new run
  bool overwrite = false;  ///< replace the run that `out` holds
};

/// Adds `--out`, `--resume` and `--overwrite`.
void add_run_options(CLI::App& command, RunOptions& options);

/// The folder of one training run.
class RunFolder {
 public:
  /// Creates the folder of a new run, or checks that there is a run to resume. Throws if a new run
  /// would meet files that are there already (with `overwrite`: the files of the earlier run are
  /// removed, anything else in the folder stays), or if the folder cannot be made or written.
  explicit RunFolder(const RunOptions& options);

  const std::string& path() const { return path_; }
  bool resumed() const { return resumed_; }

  std::string file(const std::string& name) const;
  std::string config() const { return file("config.json"); }
  std::string log() const { return file("log.jsonl"); }
  std::string last() const { return file("last.safetensors"); }
  std::string best() const { return file("best.safetensors"); }
  std::string curves() const { return file("curves.png"); }

 private:
  std::string path_;
  bool resumed_ = false;
};

/// While one exists, SIGINT and SIGTERM ask the program to stop instead of ending it; a second
/// signal ends it as usual. The destructor brings the earlier handlers back. At most one at a time.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  /// Whether a signal has come since the construction.
  static bool stop_requested();
};

/// Draws log.jsonl as curves.png: loss (training, smoothed, and evaluations), the other evaluation
/// metrics, the learning rate, and the norm of the gradient before clipping, over steps. A log
/// without steps gives no picture and returns false.
bool draw_curves(const std::string& log, const std::string& png, const std::string& title);

}  // namespace centroid::apps
