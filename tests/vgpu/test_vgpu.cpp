// The virtual device as a whole: planted bugs are reported and their correct twins are not,
// workloads give known results under several schedules, and the runtime answers as CUDA's does.
//
// Every case runs in a process of its own: this program, started again as `test_vgpu --case NAME`.
#define CATCH_CONFIG_RUNNER
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>

#include "cases.h"

using namespace vgpu::test;

namespace {

constexpr int kFaultExit = 86;
const char* const kReport = "== vgpu: ";

struct Outcome {
  int exit_code;  // -1: ended by a signal
  std::string output;
};

// Everything a case can be called by.
std::map<std::string, std::function<void()>> all_cases() {
  std::map<std::string, std::function<void()>> cases;
  for (const auto& list : {kernel_bugs(), host_bugs()}) {
    for (const Bug& bug : list) {
      cases[std::string("bug: ") + bug.name] = [bug] { bug.run(true); };
      cases[std::string("twin: ") + bug.name] = [bug] { bug.run(false); };
    }
  }
  for (const auto& list : {workloads(), ordered_workloads()}) {
    for (const Workload& workload : list) cases[workload.name] = workload.run;
  }
  for (const auto& list : {device_scenarios(), stream_scenarios(), cublas_scenarios()}) {
    for (const Scenario& scenario : list) cases[scenario.name] = scenario.run;
  }
  return cases;
}

Outcome run_case(const std::string& name, const std::vector<const char*>& settings) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    for (const char* setting : settings) putenv(const_cast<char*>(setting));
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]), close(ends[1]);
    execl("/proc/self/exe", "test_vgpu", "--case", name.c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  Outcome outcome{-1, ""};
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) outcome.output.append(part, n);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  return outcome;
}

// The lines of bugs.cu that carry the comment "bug: NAME", or several names in one.
std::set<int> marked_lines(const std::string& name) {
  std::ifstream file(VGPU_SOURCES "/bugs.cu");
  REQUIRE(file);
  std::set<int> lines;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const size_t mark = line.find("// bug: ");
    if (mark == std::string::npos) continue;
    const std::string names = line.substr(mark + std::strlen("// bug: ")) + ", ";
    if (names.starts_with(name + ", ") || names.find(", " + name + ", ") != std::string::npos) {
      lines.insert(number);
    }
  }
  return lines;
}

// The numbers after "bugs.cu:" in a report.
std::set<int> reported_lines(const std::string& report) {
  static const std::regex pattern(R"(bugs\.cu:(\d+))");
  std::set<int> lines;
  for (std::sregex_iterator it(report.begin(), report.end(), pattern), end; it != end; ++it) {
    lines.insert(std::stoi((*it)[1]));
  }
  return lines;
}

bool intersect(const std::set<int>& a, const std::set<int>& b) {
  return std::any_of(a.begin(), a.end(), [&](int x) { return b.count(x) == 1; });
}

const char* const kArchitectures[] = {"VGPU_ARCH=75", "VGPU_ARCH=80"};
const char* const kSeeds[] = {"VGPU_SEED=0", "VGPU_SEED=1", "VGPU_SEED=2"};

bool runs_on(const char* architecture, int needed) {
  return std::atoi(architecture + std::strlen("VGPU_ARCH=")) >= needed;
}

void check_twin(const std::string& name, const std::vector<const char*>& settings) {
  const Outcome twin = run_case("twin: " + name, settings);
  INFO(twin.output);
  CHECK(twin.exit_code == 0);
  CHECK(twin.output.find(kReport) == std::string::npos);
}

void check_workloads(const std::vector<Workload>& list) {
  for (const Workload& workload : list) {
    for (const char* architecture : kArchitectures) {
      if (!runs_on(architecture, workload.arch)) continue;
      for (const char* seed : kSeeds) {
        INFO(workload.name << ", " << architecture << ", " << seed);
        const Outcome outcome = run_case(workload.name, {architecture, seed});
        INFO(outcome.output);
        CHECK(outcome.exit_code == 0);
        CHECK(outcome.output == "");
      }
    }
  }
}

}  // namespace

TEST_CASE("planted kernel bugs are reported by kernel and line", "[vgpu][bugs]") {
  for (const Bug& bug : kernel_bugs()) {
    for (const char* architecture : kArchitectures) {
      if (!runs_on(architecture, bug.arch)) continue;
      for (const char* seed : kSeeds) {
        INFO(bug.name << ", " << architecture << ", " << seed);
        const Outcome outcome = run_case(std::string("bug: ") + bug.name, {architecture, seed});
        INFO(outcome.output);
        CHECK(outcome.exit_code == kFaultExit);
        CHECK_THAT(outcome.output, Catch::Contains(bug.report));
        CHECK_THAT(outcome.output, Catch::Contains(bug.kernel));
        CHECK(intersect(reported_lines(outcome.output), marked_lines(bug.name)));
        check_twin(bug.name, {architecture, seed});
      }
    }
  }
}

TEST_CASE("planted host bugs are reported", "[vgpu][bugs]") {
  for (const Bug& bug : host_bugs()) {
    for (const char* seed : kSeeds) {
      INFO(bug.name << ", " << seed);
      std::vector<const char*> settings{seed};
      if (bug.setting) settings.push_back(bug.setting);
      const Outcome outcome = run_case(std::string("bug: ") + bug.name, settings);
      INFO(outcome.output);
      CHECK(outcome.exit_code > 0);
      CHECK_THAT(outcome.output, Catch::Contains(kReport) && Catch::Contains(bug.report));
      check_twin(bug.name, settings);
    }
  }
}

TEST_CASE("twins of planted bugs run guarded", "[vgpu][bugs]") {
  for (const auto& list : {kernel_bugs(), host_bugs()}) {
    for (const Bug& bug : list) {
      INFO(bug.name);
      check_twin(bug.name, {"VGPU_GUARD=1", "VGPU_SEED=3"});
    }
  }
}

TEST_CASE("workloads give known results under several schedules", "[vgpu][workloads]") {
  check_workloads(workloads());
}

TEST_CASE("ordered accesses are not reported as races", "[vgpu][orders]") {
  check_workloads(ordered_workloads());
}

TEST_CASE("the runtime answers as CUDA's", "[vgpu][runtime]") {
  for (const auto& list : {device_scenarios(), stream_scenarios(), cublas_scenarios()}) {
    for (const Scenario& scenario : list) {
      INFO(scenario.name);
      const Outcome outcome = run_case(scenario.name, scenario.settings);
      INFO(outcome.output);
      CHECK(outcome.exit_code == scenario.exit_code);
      if (scenario.output) CHECK_THAT(outcome.output, Catch::Contains(scenario.output));
    }
  }
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--case") {
    const auto cases = all_cases();
    const auto it = cases.find(argv[2]);
    require(it != cases.end(), std::string("no such case: ") + argv[2]);
    it->second();
    return 0;
  }
  return Catch::Session().run(argc, argv);
}
