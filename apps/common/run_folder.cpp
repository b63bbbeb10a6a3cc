#include "apps/common/run_folder.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>

#include "apps/common/kept_checkpoints.h"
#include "tensor/error.h"

namespace centroid::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 5> kRunFiles = {"config.json", "log.jsonl", "last.safetensors",
                                                  "best.safetensors", "curves.png"};

volatile std::sig_atomic_t stop_flag = 0;
struct sigaction earlier_int, earlier_term;

void on_signal(int) {
  stop_flag = 1;
  // From here on the next signal ends the program. sigaction is safe inside a handler.
  sigaction(SIGINT, &earlier_int, nullptr);
  sigaction(SIGTERM, &earlier_term, nullptr);
}

}  // namespace

void add_run_options(CLI::App& command, RunOptions& options) {
  command.add_option("--out", options.out, "folder of this run; it must not hold another one")
      ->type_name("DIR")
      ->required()
      ->group("Run");
  command
      .add_option("--resume", options.resume,
                  "go on with the run in this folder, with its options; flags win")
      ->type_name("DIR")
      ->configurable(false)
      ->group("Run");
  command.add_flag("--overwrite", options.overwrite, "replace the run that --out holds")
      ->configurable(false)
      ->group("Run");
}

RunFolder::RunFolder(const RunOptions& options)
    : path_(options.resume.empty() ? options.out : options.resume),
      resumed_(!options.resume.empty()) {
  CENTROID_CHECK(!path_.empty(), "--out: expected a folder, got an empty name");
  if (resumed_) {
    CENTROID_CHECK(!options.overwrite, "--resume: expected without --overwrite, got both");
    CENTROID_CHECK(options.out.empty() || options.out == options.resume,
                   "--resume: expected the folder of --out, got ", options.resume, " and ",
                   options.out);
    CENTROID_CHECK(fs::is_regular_file(last()), "--resume ", path_,
                   ": expected the folder of an earlier run, but there is no ", last());
    return;
  }
  std::error_code error;
  fs::create_directories(path_, error);
  CENTROID_CHECK(!error && fs::is_directory(path_), "--out ", path_,
                 ": cannot create the folder: ", error ? error.message() : "a file is in the way");
  const bool used = !fs::is_empty(path_, error);
  CENTROID_CHECK(!error, "--out ", path_, ": cannot read the folder: ", error.message());
  CENTROID_CHECK(!used || options.overwrite, "--out ", path_,
                 ": expected a new or empty folder, got one with files (--resume ", path_,
                 " goes on with its run, --overwrite replaces it)");
  CENTROID_CHECK(::access(path_.c_str(), W_OK | X_OK) == 0, "--out ", path_,
                 ": cannot write to the folder: ", std::strerror(errno));
  for (const char* name : kRunFiles) {
    fs::remove(file(name), error);
    CENTROID_CHECK(!error, file(name), ": cannot remove: ", error.message());
  }
  remove_kept_checkpoints(path_);
}

std::string RunFolder::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

StopSignal::StopSignal() {
  stop_flag = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &earlier_int);
  sigaction(SIGTERM, &action, &earlier_term);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &earlier_int, nullptr);
  sigaction(SIGTERM, &earlier_term, nullptr);
}

bool StopSignal::stop_requested() { return stop_flag != 0; }

}  // namespace centroid::apps
