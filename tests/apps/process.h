#pragma once
// Running the programs as a user does.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/common/log.h"
#include "tests/support.h"

namespace centroid::test {

using Words = std::vector<std::string>;

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// The path of one of the programs: in $CENTROID_BIN, or build/bin.
inline std::string program_path(const std::string& name) {
  const char* folder = std::getenv("CENTROID_BIN");
  const std::filesystem::path bin = folder ? folder : "build/bin";
  return ((bin.is_absolute() ? bin : repository_root() / bin) / name).string();
}

/// A process whose output goes to two files in `dir`. With `file_limit`, no file grows beyond so
/// many bytes.
class Process {
 public:
  Process(const TempDir& dir, const std::string& program, const Words& arguments,
          rlim_t file_limit = RLIM_INFINITY)
      : out_(dir / "stdout"), err_(dir / "stderr") {
    Words words = Words{program_path(program)} + arguments;
    CENTROID_CHECK(std::filesystem::exists(words[0]), "test: expected a program at ", words[0],
                   " (make)");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
    ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
    if (file_limit != RLIM_INFINITY) {
      ::signal(SIGXFSZ, SIG_IGN);  // writing fails instead
      const rlimit limit{file_limit, file_limit};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Process(const Process&) = delete;

  void signal(int number) const { ::kill(pid_, number); }
  bool running() {
    if (pid_ <= 0) return false;
    if (::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ > 0;
  }
  /// The exit code, or minus the signal that ended it.
  int wait() {
    if (pid_ > 0) ::waitpid(pid_, &status_, 0);
    pid_ = 0;
    return WIFSIGNALED(status_) ? -WTERMSIG(status_) : WEXITSTATUS(status_);
  }
  std::string out() const { return read_text(out_); }
  std::string err() const { return read_text(err_); }

 private:
  std::string out_, err_;
  pid_t pid_ = 0;
  int status_ = 0;
};

struct Outcome {
  int code;
  std::string out, err;
};

/// Runs a program to its end.
inline Outcome run(const TempDir& dir, const std::string& program, const Words& arguments) {
  Process process(dir, program, arguments);
  const int code = process.wait();
  return {code, process.out(), process.err()};
}

/// The lines of a run's log.jsonl without what depends on the clock.
inline std::vector<std::string> log_lines(const std::string& out) {
  std::vector<std::string> lines;
  for (nlohmann::ordered_json line : apps::read_json_lines(out + "/log.jsonl")) {
    line.erase("time");
    lines.push_back(line.dump());
  }
  return lines;
}

}  // namespace centroid::test
