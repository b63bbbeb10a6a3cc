// The program `report` as a user runs it, mostly with scripts in place of the programs it calls.
#include <catch2/catch.hpp>
#include <regex>
#include <set>

#include "apps/audio/files.h"
#include "nn/attention.h"
#include "tests/apps/process.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using Json = nlohmann::ordered_json;

namespace {

// Stands for every program. It writes what it was called with to `calls`; trainings leave what a
// run folder holds and, where a file `slow` exists, wait to be stopped as the real ones do.
constexpr const char* kScript = R"SH(#!/bin/sh
here=$(dirname "$0")
echo "$(basename "$0") $*" >> "$here/calls"
command=$1
while [ $# -gt 0 ]; do
  case $1 in
    --out|--resume) out=$2 ;;
    --lengths) length=$2 ;;
    --attention) attention=$2 ;;
    --lm) lm=$2 ;;
  esac
  shift
done
[ -e "$here/fail" ] && { echo "error: out of luck" >&2; exit 1; }
case $(basename "$0") in
  bench) cat "$here/bench-$length.json" ;;
  peer_pocketsphinx.py) echo '{"utterances": 2, "seconds_taken": 1.5}' ;;
  attention-map) echo '{"variants": [{"attention": "x", "row_error_mean": 0.5}]}' ;;
  *) case $command in
    prepare) mkdir -p "$out" ;;
    train)
      mkdir -p "$out"
      : > "$out/last.safetensors"
      cat "$here/log" > "$out/log.jsonl"
      if [ -e "$here/slow" ]; then
        trap 'exit 0' TERM
        for i in $(seq 200); do sleep 0.05; done
        exit 1
      fi ;;
    eval) cat "$here/eval.json" ;;
    score) cat "$here/score.json" ;;
    transcribe) echo '{"seconds": 3600, "seconds_taken": 9, "peak_mib": 77.25}' ;;
    tune) echo "{\"decoder\": {\"lm\": \"$lm\"}}" ;;
  esac ;;
esac
)SH";

constexpr const char* kDataVariables[] = {"FESTVOX_RU", "FSDD", "ASTERISK"};

class Stage {
 public:
  Stage() {
    for (const char* name :
         {"copy", "asr", "bench", "attention-map", "peer_pocketsphinx.py", "pocketsphinx_batch"}) {
      write(name, kScript);
      std::filesystem::permissions(dir / name, std::filesystem::perms::owner_all);
    }
    write("log", "{\"step\": 100, \"event\": \"eval\", \"accuracy\": 0.5}\n");
    write("eval.json",
          R"({"right": 3, "asked": 4, "accuracy": 0.75, "rate": 0.125, "seconds_taken": 2.5,
              "seconds_of_sound": 500.0})");
    write("score.json",
          R"({"rate": 0.25, "tokens": 200, "wrong_utterances": 7,
              "interval": {"low": 0.2, "high": 0.3},
              "comparison": {"difference": -0.05, "interval": {"low": -0.08, "high": -0.01},
                             "mapsswe": {"p": 0.012}}})");
    for (const char* data : kDataVariables) ::setenv(data, dir.path().c_str(), 1);
    ::setenv("PATH", (dir.path().string() + ":" + path).c_str(), 1);
  }
  ~Stage() {
    for (const char* data : kDataVariables) ::unsetenv(data);
    ::setenv("PATH", path.c_str(), 1);
  }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(dir / name, std::ios::binary) << text;
  }
  void remove(const std::string& name) const { std::filesystem::remove(dir / name); }
  std::string calls() const { return read_text(dir / "calls"); }
  std::string results() const { return dir / "results"; }

  Words words(const std::string& command, const Words& more) const {
    Words words = {command, "--results", results()};
    if (command != "render") {
      words = words + Words{"--work", dir / "work", "--programs", dir / "", "--scripts", dir / ""};
    }
    return words + more;
  }
  Outcome report(const std::string& command, const Words& more = {}) const {
    return run(output, "report", words(command, more));
  }
  Outcome run_cell(const std::string& pattern) const { return report("run", {"--cell", pattern}); }
  Json cell(const std::string& id) const {
    return Json::parse(read_text(results() + "/" + id + ".json"));
  }
  bool has(const std::string& id) const {
    return std::filesystem::exists(results() + "/" + id + ".json");
  }

  TempDir dir, output;
  const std::string path = std::getenv("PATH");
};

// What `bench attention` would say: full attention costs 1 us per token and 512 positions, the
// others 2 us.
void write_bench(const Stage& stage) {
  const Json cells =
      Json::parse(stage.report("run", {"--list", "--json", "--part", "scaling"}).out);
  for (const Json& cell : cells) {
    const auto words = audio::split_words(cell.at("commands")[0].get<std::string>());
    const double length = std::stod(words.at(3));
    Json rows = Json::array();
    for (const std::string variant :
         {"full", "clustered:clusters=100,bits=63,iterations=10",
          "improved-clustered:clusters=100,bits=63,iterations=10,topk=32", "reformer:rounds=1",
          "reformer:rounds=4"}) {
      const double us = variant == "full" ? length / 512 : 2;
      const bool alone = variant == "full" && cell.at("commands").size() == 2;
      if (!alone && words.at(5).find(variant) == std::string::npos) continue;
      rows.push_back({{"variant", variant},
                      {"forward_us_per_token", us},
                      {"forward_backward_us_per_token", 3 * us},
                      {"forward_backward_extra_memory", 0.25}});
    }
    stage.write("bench-" + words.at(3) + ".json", Json{{"results", rows}}.dump());
  }
}

bool wait_for(const std::string& path) {
  for (int i = 0; i < 1000 && !std::filesystem::exists(path); ++i) ::usleep(10000);
  return std::filesystem::exists(path);
}

}  // namespace

TEST_CASE("every command of the report is one that its program takes", "[report]") {
  TempDir dir;
  const Json cells = Json::parse(
      run(dir, "report", {"run", "--list", "--json", "--results", dir / "results"}).out);
  CHECK(cells.size() == 129);
  std::set<std::string> commands;
  double paper = 0, recognisers = 0;
  for (const Json& cell : cells) {
    const std::string id = cell.at("cell");
    const bool ours = id.starts_with("festvox") || id.starts_with("digits") ||
                      id.starts_with("ast") || id.starts_with("recordings");
    for (const Json& command : cell.at("commands")) commands.insert(command.get<std::string>());
    (ours ? recognisers : paper) += cell.at("minutes").get<double>();
  }
  CHECK(paper < 8 * 60);
  CHECK(recognisers < 8 * 60);
  for (const std::string& command : commands) {
    INFO(command);
    Words words = audio::split_words(command);
    const std::string program = words.front();
    if (program == "peer_pocketsphinx.py") continue;
    words.erase(words.begin());
    for (size_t i = 0; i + 1 < words.size(); ++i) {
      if (words[i] == "--attention") CHECK_NOTHROW(nn::make_attention(words[i + 1]));
    }
    const Outcome outcome = run(dir, program, words + Words{"--dump-config"});
    CHECK(outcome.err == "");
    CHECK(outcome.code == 0);
  }
}

TEST_CASE("the whole report: run, rendered, checked", "[report]") {
  const Stage stage;
  write_bench(stage);
  const Outcome empty = stage.report("render");
  REQUIRE(empty.code == 0);
  CHECK_THAT(read_text(stage.results() + ".md"), Contains("0 of 129 cells"));
  CHECK_THAT(read_text(stage.results() + ".md"), Contains("| 512 | not run | not run |"));

  const Outcome ran = stage.report("run", {"--threads", "2"});
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  CHECK_THAT(ran.err, Contains("129 cells to run"));
  CHECK_THAT(ran.err, Contains("[129/129]"));
  const Json cell = stage.cell("copy/clustered/len128/c30");
  CHECK(cell.at("cell") == "copy/clustered/len128/c30");
  CHECK_THAT(cell.at("commands").dump(),
             Contains("--attention clustered:clusters=30 ") && Contains("$WORK/runs/"));
  CHECK(cell.at("results").at("test").at("right") == 3);
  CHECK(cell.at("machine").at("threads") == 2);
  CHECK(stage.cell("speech/full-l4/seed1").at("results").at("test").size() == 3);
  CHECK_THAT(stage.calls(), Contains("--threads 2"));
  // One training for all that use it, one preparation of each set.
  const std::string calls = stage.calls();
  const auto count = [&](const std::string& text) {
    int found = 0;
    for (size_t at = calls.find(text); at != calls.npos; at = calls.find(text, at + 1)) ++found;
    return found;
  };
  CHECK(count("asr prepare --format festvox") == 2);
  CHECK(count("asr prepare --format digits") == 5 + 6 * 2);
  CHECK(count("asr join") == 2);
  CHECK(count("asr prepare --format asterisk") == 1);
  CHECK(count("asr train") == 21 + 16 + 6 + 2);
  CHECK(count("asr lm") == 2);
  CHECK(stage.cell("asterisk/seed1").at("results").at("tune").at("decoder").at("lm") ==
        "$WORK/data/asterisk.arpa");
  CHECK(count("copy train") == 30);

  CHECK_THAT(stage.report("run").err, Contains("0 cells to run"));
  REQUIRE(stage.report("render").code == 0);
  const std::string page = read_text(stage.results() + ".md");
  CHECK_THAT(page, Contains("129 of 129 cells") && !Contains("not run"));
  CHECK_THAT(page, Contains("| clustered-100 | 1024 | 8.00 | 1024 | 8.00 | 1.00 |"));
  CHECK_THAT(page, Contains("Settings with at least 99 %: clustered 0 of 9"));
  CHECK_THAT(page, Contains("| full-l4 | 12.5 | 12.5 | 12.5 | 2.50 |"));
  CHECK_THAT(page, Contains("PER with full attention: 12.5 %"));
  CHECK_THAT(page, Contains("| characters, lfmmi, full | 25.0 (20.0 to 30.0) | 25.0 (20.0 to"));
  CHECK_THAT(page, Contains("| phones, full | -5.00 (-8.00 to -1.00), p 0.012 |"));
  CHECK_THAT(page, Contains("| mean of the speakers | 25.0 |  |  | 25.0 |"));
  CHECK_THAT(page, Contains("| one pass, as trained | 25.0 | 25.0 |"));
  CHECK_THAT(page, Contains("| full, one pass, as trained | 25.0 | 9.00 | 0.0025 | 77.25 |"));
  CHECK_THAT(page, Contains("| PocketSphinx, 8 kHz | 25.0 (20.0 to 30.0) |"));
  for (const char* figure : {"scaling-time", "scaling-memory", "copy", "speech", "swap"}) {
    CHECK(read_text(stage.results() + "/" + figure + ".png").substr(1, 3) == "PNG");
  }
  const Outcome checked = stage.report("check", {"--cell", "copy/full/len64"});
  INFO(checked.err);
  CHECK(checked.code == 0);
  CHECK_THAT(checked.out, Contains("copy/full/len64 gives the results on file"));

  // A finished training is only tested anew; the page tells on how many threads both were.
  std::filesystem::remove(stage.results() + "/copy/full/len64.json");
  REQUIRE(stage.report("run", {"--cell", "copy/full/len64", "--threads", "1"}).code == 0);
  CHECK(stage.cell("copy/full/len64").at("machine").at("threads") == 1);
  CHECK(stage.cell("copy/full/len64").at("machine").at("training_threads") == 2);
  REQUIRE(stage.report("render").code == 0);
  CHECK_THAT(read_text(stage.results() + ".md"), Contains("threads: 1, trainings on 2, "));
  CHECK_THAT(read_text(stage.results() + ".md"), Contains(", threads: 2, "));

  stage.write("eval.json", std::regex_replace(read_text(stage.dir / "eval.json"),
                                              std::regex("\"right\": 3"), "\"right\": 2"));
  const Outcome other = stage.report("check", {"--cell", "copy/full/len64"});
  CHECK(other.code == 1);
  CHECK_THAT(other.err, Contains("copy/full/len64.test.right: on file 3, now 2"));
  std::ofstream(stage.results() + ".md", std::ios::app) << "typed by hand\n";
  CHECK_THAT(stage.report("check").err, Contains("not what the cells on file give"));
}

TEST_CASE("a report that is stopped goes on with the training it was in", "[report]") {
  const Stage stage;
  stage.write("slow", "");
  const std::string id = "copy/full/len64";
  {
    Process process(stage.output, "report", stage.words("run", {"--cell", id}));
    REQUIRE(wait_for(stage.dir / ("work/runs/" + id + "/log.jsonl")));
    process.signal(SIGTERM);
    CHECK(process.wait() == 0);
    CHECK_THAT(process.err(), Contains("interrupted in " + id));
  }
  CHECK_FALSE(stage.has(id));
  stage.remove("slow");
  REQUIRE(stage.run_cell(id).code == 0);
  CHECK_THAT(stage.calls(), Contains("copy train --resume " + (stage.dir / ("work/runs/" + id))));
  CHECK(stage.has(id));
}

TEST_CASE("no cell is begun that would not end within the time limit", "[report]") {
  const Stage stage;
  const Outcome over = stage.report("run", {"--cell", "copy/full/*", "--budget", "0.01"});
  CHECK(over.code == 0);
  CHECK_THAT(over.err, Contains("left out: 3 cells that take longer than is left"));
}

TEST_CASE("failures and missing data are said aloud and stop nothing else", "[report]") {
  const Stage stage;
  stage.write("fail", "");
  const Outcome failed = stage.run_cell("copy/full/*");
  CHECK(failed.code == 1);
  CHECK_THAT(failed.err, Contains("failed: copy/full/len64: ") && Contains("error: out of luck") &&
                             Contains("failed: copy/full/len256") && Contains("3 cells failed"));
  CHECK_FALSE(stage.has("copy/full/len64"));
  stage.remove("fail");

  ::unsetenv("FSDD");
  const Outcome without = stage.report("run", {"--part", "long"});
  CHECK(without.code == 0);
  CHECK_THAT(without.err, Contains("left out: 2 cells: set FSDD to a folder"));
  stage.remove("pocketsphinx_batch");
  ::setenv("PATH", stage.dir.path().c_str(), 1);
  const Outcome without_peer = stage.run_cell("asterisk/pocketsphinx");
  ::setenv("PATH", stage.path.c_str(), 1);
  CHECK_THAT(without_peer.err, Contains("left out: 1 cells: install pocketsphinx_batch"));
  CHECK_THAT(stage.run_cell("nothing/*").err, Contains("--cell nothing/*: expected cells"));
  CHECK_THAT(stage.report("check", {"--cell", "swap/full"}).err, Contains("not what the cells"));

  // Results of other commands than today's count as not run.
  REQUIRE(stage.run_cell("copy/full/len64").code == 0);
  Json cell = stage.cell("copy/full/len64");
  cell["commands"][0] = "copy train --steps 1";
  std::ofstream(stage.results() + "/copy/full/len64.json") << cell.dump();
  CHECK_THAT(stage.report("run", {"--list", "--cell", "copy/full/len64"}).out, Contains("changed"));
  CHECK_THAT(stage.run_cell("copy/full/len64").err, Contains("1 cells to run"));
}

TEST_CASE("one small cell runs for real and gives the same again", "[report]") {
  TempDir dir;
  const auto report = [&](const std::string& command) {
    return run(dir, "report",
               {command, "--cell", "smoke/copy", "--results", dir / "results", "--work",
                dir / "work", "--threads", "1"});
  };
  const Outcome ran = report("run");
  INFO(ran.err);
  REQUIRE(ran.code == 0);
  const Json cell = Json::parse(read_text(dir / "results/smoke/copy.json"));
  CHECK(cell.at("results").at("test").at("accuracy").get<double>() > 0.45);
  CHECK(cell.at("results").at("test").at("step").get<int>() < 400);  // it stopped early
  REQUIRE(run(dir, "report", {"render", "--results", dir / "results"}).code == 0);
  const Outcome checked = report("check");
  INFO(checked.err);
  CHECK(checked.code == 0);
  CHECK_THAT(checked.out, Contains("smoke/copy gives the results on file"));
}
