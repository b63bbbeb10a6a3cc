// Running cells: programs as child processes, trainings that go on where they were interrupted.
#include <cblas.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "apps/common/log.h"
#include "apps/common/run_folder.h"
#include "apps/report.h"
#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/json.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void write_json(const std::string& path, const Json& json) {
  fs::create_directories(fs::path(path).parent_path());
  const std::string text = json.dump(2) + "\n";
  write_file_atomic(path, text.data(), text.size());
}

Json read_json(const std::string& path) {
  const Json json = try_parse_json<Json>(read_file(path));
  CENTROID_CHECK(json.is_object(), path, ": expected a JSON object");
  return json;
}

// The processor, and the kernels the programs use on it: what rounds alike and takes alike long.
Json machine(int threads) {
  std::string cpu = "unknown";
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    cpu = line.substr(line.find(':') + 2);
    break;
  }
  const char* vectors =
#if defined(__AVX512F__)
      "AVX-512";
#elif defined(__AVX2__)
      "AVX2";
#else
      "baseline";
#endif
  return {{"cpu", cpu},
          {"threads", threads > 0 ? threads : num_threads()},
          {"kernels", concat(vectors, ", OpenBLAS ", openblas_get_corename())}};
}

/// A program that runs, with its output in two files. It has a process group of its own: a Ctrl-C
/// reaches it through us, once. When this process dies, it is asked to stop too.
class Child {
 public:
  Child(Words words, const std::string& out, const std::string& log) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    pid_ = ::fork();
    CENTROID_CHECK(pid_ >= 0, "report: cannot start a process");
    if (pid_ > 0) return;
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
    ::dup2(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, 0);
  }
  Child(const Child&) = delete;

  bool running() {
    if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ > 0;
  }
  void stop() {
    if (!std::exchange(asked_, true)) ::kill(pid_, SIGTERM);
  }
  bool succeeded() const { return WIFEXITED(status_) && WEXITSTATUS(status_) == 0; }

 private:
  pid_t pid_ = 0;
  int status_ = 0;
  bool asked_ = false;
};

/// The folder that an environment variable of a step stands for; empty if there is none.
std::string data_folder(const std::string& variable) {
  const auto env = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const std::string given = env(variable.c_str()); !given.empty()) return given;
  if (variable != "FESTVOX_RU") return "";
  const std::string home =
      env("XDG_CACHE_HOME").empty() ? env("HOME") + "/.cache" : env("XDG_CACHE_HOME");
  const std::string cache =
      env("CENTROID_CACHE").empty() ? home + "/centroid" : env("CENTROID_CACHE");
  return fs::is_directory(cache + "/festvox-ru") ? cache + "/festvox-ru" : "";
}

/// Not an error: a signal came or the time is over.
struct Interrupted {};

class Runner {
 public:
  Runner(const ReportPaths& paths, const RunLimits& limits) : paths_(paths), limits_(limits) {
    fs::create_directories(paths.work + "/logs");
  }
  ~Runner() { std::remove(out_.c_str()); }
  Runner(const Runner&) = delete;
  /// The content of the cell's file. Throws Interrupted, or an Error when a program fails.
  Json measure(const Cell& cell);
  double elapsed() const { return seconds_since(begin_); }
  bool time_over() const { return limits_.minutes > 0 && elapsed() > 60 * limits_.minutes; }

 private:
  Words resolve(const Words& words) const;
  double execute(const Words& words, const std::function<void()>& tick);
  Json train(const Step& step);
  std::string printed() const;

  const ReportPaths& paths_;
  const RunLimits& limits_;
  Clock::time_point begin_ = Clock::now();
  // Of this process alone: others may run other cells in the same folder.
  std::string log_, out_ = concat(paths_.work, "/stdout-", ::getpid());
};

Words Runner::resolve(const Words& words) const {
  Words result = words;
  result[0] = (words[0].ends_with(".py") ? paths_.scripts : paths_.programs) + "/" + words[0];
  for (std::string& word : result) {
    if (!word.starts_with('$')) continue;
    const size_t end = std::min(word.find('/'), word.size());
    const std::string name = word.substr(1, end - 1);
    const std::string folder = name == "WORK"      ? paths_.work
                               : name == "SCRIPTS" ? paths_.scripts
                                                   : data_folder(name);
    word = folder + word.substr(end);
  }
  if (limits_.threads > 0) {
    result.push_back("--threads");
    result.push_back(std::to_string(limits_.threads));
  }
  return result;
}

// What the last program printed, without the name of the scratch folder: results are published.
std::string Runner::printed() const {
  std::string text = read_file(out_);
  const std::string folder = paths_.work + "/", name = "$WORK/";
  for (size_t at = 0; (at = text.find(folder, at)) != text.npos; at += name.size()) {
    text.replace(at, folder.size(), name);
  }
  return text;
}

// Runs a program to its end, calling `tick` every now and then. Returns seconds.
double Runner::execute(const Words& words, const std::function<void()>& tick) {
  const auto begin = Clock::now();
  std::ofstream(log_, std::ios::app) << "\n$ " << shell_line(words) << "\n";
  Child child(words, out_, log_);
  bool interrupted = false;
  for (int poll = 0; child.running(); ++poll) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (tick && poll % 10 == 0) tick();
    interrupted = interrupted || StopSignal::stop_requested() || time_over();
    if (interrupted) child.stop();
  }
  if (interrupted) throw Interrupted();
  if (!child.succeeded()) {
    std::string reason;
    std::ifstream in(log_);
    for (std::string line; std::getline(in, line);) {
      if (line.starts_with("error:")) reason = ": " + line;
    }
    throw Error(concat(shell_line(words), " failed", reason, " (", log_, ")"));
  }
  return seconds_since(begin);
}

// Beside a run's folder stands a file with its command, the seconds it has taken so far, in all
// processes that worked on it, and on how many threads. Returns it when the run is finished.
Json Runner::train(const Step& step) {
  const std::string folder = paths_.work + "/runs/" + step.name, file = folder + ".json";
  const std::string command = shell_line(step.words);
  Json state{{"command", command}, {"seconds", 0.0}, {"finished", false}};
  if (fs::exists(file) && fs::exists(folder + "/last.safetensors")) {
    const Json before = read_json(file);
    if (before.value("command", "") == command) state = before;
  }
  if (state.at("finished").get<bool>()) return state;
  const double before = state.at("seconds").get<double>();
  state["threads"] = machine(limits_.threads).at("threads");
  const bool resume = before > 0;
  if (!resume) fs::remove_all(folder);
  const auto begin = Clock::now();
  const auto save = [&](bool finished) {
    state["seconds"] = before + seconds_since(begin);
    state["finished"] = finished;
    write_json(file, state);
  };
  Words words =
      resolve(resume ? Words{step.words[0], step.words[1], "--resume", "$WORK/runs/" + step.name}
                     : step.words);
  double saved = 0;
  try {
    execute(words, [&] {
      if (seconds_since(begin) > saved + 10) saved = seconds_since(begin), save(false);
    });
  } catch (...) {
    save(false);
    throw;
  }
  save(true);
  return state;
}

Json Runner::measure(const Cell& cell) {
  std::string name = cell.id;
  std::replace(name.begin(), name.end(), '/', '-');
  log_ = paths_.work + "/logs/" + name + ".log";
  double seconds = 0;
  Json results = Json::object(), here = machine(limits_.threads);
  for (const Step& step : cell.steps) {
    if (step.kind == Step::train) {
      const Json run = train(step);
      if (step.name.starts_with(cell.id)) {
        seconds += run.at("seconds").get<double>();
        here["training_threads"] = run.value("threads", here.at("threads"));
      }
      continue;
    }
    const Words words = resolve(step.words);
    if (step.kind == Step::prepare) {
      const std::string made = paths_.work + "/data/" + step.name + ".json";
      const Json command = {{"command", shell_line(step.words)}};
      if (fs::exists(made) && read_json(made) == command) continue;
      seconds += execute(words, {});
      write_json(made, command);
      continue;
    }
    for (int i = 0; i < step.repeat; ++i) {
      seconds += execute(words, {});
      const Json json = try_parse_json<Json>(printed());
      CENTROID_CHECK(json.is_structured(), shell_line(words), ": expected JSON on stdout");
      if (step.repeat == 1)
        results[step.name] = json;
      else
        results[step.name].push_back(json);
    }
  }
  return {{"cell", cell.id},
          {"commands", cell.commands()},
          {"seconds", std::round(seconds * 10) / 10},
          {"machine", here},
          {"results", results}};
}

bool installed(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

/// What has to be done before a cell can run; empty if nothing.
std::string obstacle(const Cell& cell) {
  const std::string data = cell.data();
  if (!data.empty() && data_folder(data).empty()) {
    if (data == "FSDD") return "set FSDD to a folder with the Free Spoken Digit Dataset";
    if (data == "ASTERISK") {
      return "set ASTERISK to where the Debian packages asterisk-core-sounds-en, -wav and -g722 "
             "are unpacked, or to / once they are installed";
    }
    return "run `make demo`, which downloads festvox-ru, or set FESTVOX_RU";
  }
  return cell.needs.empty() || installed(cell.needs) ? "" : "install " + cell.needs;
}

// Whole numbers are counts and must agree; seconds and the like are never whole.
void compare(const Json& filed, const Json& now, const std::string& where, bool exact,
             std::string& text, int& compared) {
  const auto differ = [&](const auto&... parts) { text += concat(where, ": ", parts..., "\n"); };
  if (filed.is_structured()) {
    if (filed.type() != now.type() || filed.size() != now.size()) return differ("other members");
    for (const auto& [key, value] : filed.items()) {
      const Json& other = filed.is_array() ? now.at(std::stoul(key)) : now.value(key, Json());
      compare(value, other, where + "." + key, exact, text, compared);
    }
    return;
  }
  const bool rate = where.ends_with(".accuracy") || where.ends_with(".rate");
  const bool timed = where.ends_with("_faster_from");  // a length, read off timings
  if (timed || !(exact ? filed.is_number_integer() : rate)) return;
  ++compared;
  const bool same =
      now.is_number() &&
      (exact ? filed == now : std::fabs(filed.get<double>() - now.get<double>()) <= 0.02);
  if (!same) differ("on file ", filed.dump(), ", now ", now.dump());
}

}  // namespace

CellState state_of(const Cell& cell, const ReportPaths& paths) {
  if (!fs::exists(paths.cell(cell.id))) return CellState::missing;
  const Json filed = read_json(paths.cell(cell.id));
  return filed.value("commands", Json()) == Json(cell.commands()) ? CellState::done
                                                                  : CellState::changed;
}

std::map<std::string, Json> read_cells(const std::vector<Cell>& cells, const ReportPaths& paths) {
  std::map<std::string, Json> found;
  for (const Cell& cell : cells) {
    if (state_of(cell, paths) == CellState::done) found[cell.id] = read_json(paths.cell(cell.id));
  }
  return found;
}

int run_cells(std::vector<Cell> cells, const ReportPaths& paths, const RunLimits& limits) {
  std::map<std::string, int> left_out;
  std::erase_if(cells, [&](const Cell& c) {
    if (state_of(c, paths) == CellState::done) return true;
    const std::string why = obstacle(c);
    if (!why.empty()) ++left_out[why];
    return !why.empty();
  });
  for (const auto& [why, count] : left_out) {
    std::fprintf(stderr, "left out: %d cells: %s\n", count, why.c_str());
  }
  std::stable_sort(cells.begin(), cells.end(),
                   [](const Cell& a, const Cell& b) { return a.rank < b.rank; });
  double left = 0;
  for (const Cell& c : cells) left += c.minutes;
  std::fprintf(stderr, "%zu cells to run, about %s\n", cells.size(), clock_text(60 * left).c_str());

  const StopSignal stop;
  Runner runner(paths, limits);
  int failed = 0, postponed = 0;
  for (size_t i = 0; i < cells.size(); ++i, left -= cells[i - 1].minutes) {
    const Cell& c = cells[i];
    if (limits.minutes > 0 && runner.elapsed() / 60 + c.minutes > limits.minutes) {
      ++postponed;
      continue;
    }
    try {
      const Json filed = runner.measure(c);
      write_json(paths.cell(c.id), filed);
      const std::string took = clock_text(filed.at("seconds").get<double>());
      std::fprintf(stderr, "[%zu/%zu] %s: %s (about %s left)\n", i + 1, cells.size(), c.id.c_str(),
                   took.c_str(), clock_text(std::max(0.0, 60 * (left - c.minutes))).c_str());
    } catch (const Interrupted&) {
      std::fprintf(stderr, "interrupted in %s; the next run goes on from here\n", c.id.c_str());
      return failed;
    } catch (const Error& error) {
      ++failed;
      std::fprintf(stderr, "failed: %s: %s\n", c.id.c_str(), error.what());
    }
  }
  if (postponed)
    std::fprintf(stderr, "left out: %d cells that take longer than is left\n", postponed);
  return failed;
}

std::string check_cell(const Cell& cell, const ReportPaths& paths, const RunLimits& limits) {
  CENTROID_CHECK(state_of(cell, paths) == CellState::done, paths.cell(cell.id),
                 ": expected the results of the commands of ", cell.id,
                 ", which have not been run (report run --cell ", cell.id, ")");
  CENTROID_CHECK(obstacle(cell).empty(), cell.id, ": cannot run here: ", obstacle(cell));
  ReportPaths scratch = paths;
  scratch.work = paths.work + "/check";
  fs::remove_all(scratch.work);
  const StopSignal stop;
  Json now;
  try {
    now = Runner(scratch, limits).measure(cell);
  } catch (const Interrupted&) {
    throw Error("report: the check was interrupted");
  }
  const Json filed = read_json(paths.cell(cell.id));
  std::string text;
  int compared = 0;
  const bool exact = filed.at("machine").at("kernels") == now.at("machine").at("kernels");
  compare(filed.at("results"), now.at("results"), cell.id, exact, text, compared);
  CENTROID_CHECK(compared > 0 || !text.empty(), cell.id, ": its results hold nothing to compare");
  return text;
}

}  // namespace centroid::apps
