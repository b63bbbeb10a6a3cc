// The command-line contract: values and where they come from, errors, exit codes.
#include <catch2/catch.hpp>
#include <fstream>
#include <iostream>
#include <new>
#include <sstream>

#include "apps/common/args.h"
#include "apps/common/run_folder.h"
#include "tensor/error.h"
#include "tests/support.h"

using namespace centroid::apps;
using Catch::Matchers::Contains;
using centroid::test::TempDir;

namespace {

/// A program with two commands, as the real ones are made.
struct Program {
  CommonOptions common;
  RunOptions run;
  int64_t steps = 100;
  double lr = 1e-3;
  std::string attention = "full";
  std::vector<int64_t> layers = {1, 2};
  bool shuffle = true, verbose = false;
  std::function<void()> body = [] {};
  bool ran = false;
  Presets presets = {{"small", {{"steps", 10}, {"lr", 0.5}}}, {"large", {{"steps", 1000}}}};
  std::string out, err;

  /// Runs `program ARGS...` and returns the exit code; `out` and `err` receive what it printed.
  int operator()(std::vector<std::string> args) {
    CLI::App app("A program for tests.");
    CLI::App* train = app.add_subcommand("train", "trains");
    CLI::App* eval = app.add_subcommand("eval", "evaluates");
    add_common_options(*train, common);
    add_run_options(*train, run);
    add_preset_option(*train, presets);
    train->add_option("--steps", steps, "how long")->check(in_range(1, 1e9))->group("Training");
    train->add_option("--lr", lr, "how fast")->check(positive())->group("Training");
    train->add_option("--attention", attention, "which kind");
    train->add_option("--layers", layers, "which ones");
    add_switch(*train, "shuffle", shuffle, "another order in each epoch");
    add_switch(*train, "verbose", verbose, "say more");
    const auto note = [this] {
      ran = true;
      body();
    };
    train->callback([&, note] {
      config = options_json(*train);
      note();
    });
    std::string file;
    eval->add_option("file", file, "what to read")->required();
    eval->callback(note);

    std::vector<const char*> argv = {"/some/where/program"};
    for (const std::string& arg : args) argv.push_back(arg.c_str());
    std::ostringstream cout, cerr;
    std::streambuf* old_out = std::cout.rdbuf(cout.rdbuf());
    std::streambuf* old_err = std::cerr.rdbuf(cerr.rdbuf());
    const int code = run_app(static_cast<int>(argv.size()), argv.data(), app, presets);
    std::cout.rdbuf(old_out);
    std::cerr.rdbuf(old_err);
    out = cout.str();
    err = cerr.str();
    return code;
  }
  nlohmann::ordered_json config;
};

std::string write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  return path;
}

}  // namespace

TEST_CASE("a command runs with the values of its flags") {
  Program p;
  CHECK(p({"train", "--out", "x", "--steps", "7", "--lr=0.25", "--no-shuffle", "--layers", "4", "5",
           "--seed", "18446744073709551615"}) == 0);
  CHECK(p.ran);
  CHECK(p.steps == 7);
  CHECK(p.lr == 0.25);
  CHECK_FALSE(p.shuffle);
  CHECK(p.layers == std::vector<int64_t>{4, 5});
  CHECK(p.common.seed == 18446744073709551615u);
  CHECK(p.err == "");
}

TEST_CASE("wrong usage exits with 2 and names the nearest option or command") {
  Program p;
  SECTION("option") {
    CHECK(p({"train", "--out", "x", "--stepz", "7"}) == 2);
    CHECK_THAT(p.err, Contains("error: program train: no option --stepz (nearest: --steps)"));
  }
  SECTION("a misspelt required option is reported as such") {
    CHECK(p({"train", "--uot", "x"}) == 2);
    CHECK_THAT(p.err, Contains("no option --uot (nearest: --out)"));
  }
  SECTION("option of the command before the command") {
    CHECK(p({"--steps", "7", "train", "--out", "x"}) == 2);
    CHECK_THAT(p.err, Contains("--steps: expected after the command: program train --steps"));
  }
  SECTION("command") {
    CHECK(p({"trian", "--out", "x"}) == 2);
    CHECK_THAT(p.err, Contains("no command 'trian' (nearest: train; all: train, eval)"));
  }
  SECTION("no command") {
    CHECK(p({}) == 2);
    CHECK_THAT(p.err, Contains("program: expected a command: train, eval"));
  }
  SECTION("missing option") {
    CHECK(p({"train"}) == 2);
    CHECK_THAT(p.err, Contains("program train: --out is required"));
  }
  SECTION("missing value") {
    CHECK(p({"train", "--out"}) == 2);
    CHECK_THAT(p.err, Contains("--out"));
  }
  SECTION("text for a number") {
    CHECK(p({"train", "--out", "x", "--steps", "many"}) == 2);
    CHECK_THAT(p.err, Contains("--steps: expected a number from 1 to 1e+09, got 'many'"));
  }
  SECTION("a fraction for a whole number") {
    CHECK(p({"train", "--out", "x", "--steps", "1.5"}) == 2);
    CHECK_THAT(p.err, Contains("--steps: expected a whole number in range, got '1.5'"));
  }
  SECTION("numbers out of range, NaN, infinity") {
    for (const char* lr : {"-1", "0", "nan", "inf", ""}) {
      CHECK(p({"train", "--out", "x", "--lr", lr}) == 2);
      CHECK_THAT(p.err, Contains("--lr: expected a number above 0, got '" + std::string(lr) + "'"));
    }
  }
  SECTION("superfluous argument") {
    CHECK(p({"eval", "a", "b"}) == 2);
    CHECK_THAT(p.err, Contains("program eval: unexpected argument 'b'"));
  }
  CHECK_FALSE(p.ran);
  CHECK(p.out == "");
  CHECK_THAT(p.err, Contains("--help"));
}

TEST_CASE("every exception becomes one line on stderr and exit code 1") {
  Program p;
  SECTION("Error") {
    p.body = [] { throw centroid::Error("matmul: inner sizes differ"); };
    CHECK(p({"eval", "a"}) == 1);
    CHECK(p.err == "error: matmul: inner sizes differ\n");
  }
  SECTION("std::exception") {
    p.body = [] { throw std::runtime_error("bad luck"); };
    CHECK(p({"eval", "a"}) == 1);
    CHECK(p.err == "error: bad luck\n");
  }
  SECTION("memory") {
    p.body = [] { throw std::bad_alloc(); };
    CHECK(p({"eval", "a"}) == 1);
    CHECK_THAT(p.err, Contains("error: out of memory"));
  }
  SECTION("device") {
    p.common.device = "cuda:1";
    p.body = [&] { apply(p.common); };
    CHECK(p({"train", "--out", "x", "--device", "cuda"}) == 1);
    CHECK_THAT(p.err, Contains("this build has no CUDA (make CUDA=1)"));
    CHECK(p({"train", "--out", "x", "--device", "gpu"}) == 1);
    CHECK_THAT(p.err, Contains("expected cpu, cuda or cuda:N, got 'gpu'"));
  }
}

TEST_CASE("help is grouped, shows defaults and exits with 0") {
  Program p;
  CHECK(p({"--help"}) == 0);
  CHECK_THAT(p.out, Contains("A program for tests.") && Contains("usage: program COMMAND") &&
                        Contains("  train  ") && Contains("trains"));
  CHECK(p({"train", "--steps", "7", "--help"}) == 0);
  CHECK_THAT(p.out, Contains("usage: program train [options]") && Contains("\nTraining:\n") &&
                        Contains("--steps N") && Contains("how long (default 100)") &&
                        Contains("(default 0.001)") && Contains("--out DIR") &&
                        Contains("(required)") && Contains("--shuffle, --no-shuffle") &&
                        Contains("epoch (default on)") && Contains("{large, small}"));
  CHECK(p.out.find("General:") > p.out.find("Training:"));
  std::istringstream lines(p.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 100);
  CHECK(p({"eval", "--help"}) == 0);
  CHECK_THAT(p.out, Contains("usage: program eval [options] file") && Contains("Arguments:"));
  CHECK_FALSE(p.ran);
}

TEST_CASE("dump-config prints all options with their values and runs nothing") {
  Program p;
  CHECK(p({"train", "--dump-config", "--steps", "7", "--lr", "1e-4", "--attention",
           "clustered:bits=63"}) == 0);
  CHECK_FALSE(p.ran);
  const auto config = nlohmann::ordered_json::parse(p.out);
  CHECK(config["steps"] == 7);
  CHECK(config["lr"] == 1e-4);
  CHECK(config["attention"] == "clustered:bits=63");
  CHECK(config["layers"] == nlohmann::ordered_json({1, 2}));
  CHECK(config["shuffle"] == true);
  CHECK(config["verbose"] == false);
  CHECK(config["seed"] == 1);
  CHECK(config["out"].is_null());
  for (const char* key : {"help", "config", "dump-config", "resume", "overwrite", "preset"}) {
    CHECK_FALSE(config.contains(key));
  }
}

TEST_CASE("what dump-config prints, config reads: the same values come out") {
  TempDir folder;
  Program first;
  REQUIRE(first({"train", "--dump-config", "--out", "some dir/007", "--steps", "7", "--lr", "1e-7",
                 "--layers", "3", "--no-shuffle", "--verbose", "--attention", "1e3"}) == 0);
  const std::string file = write(folder / "c.json", first.out);
  Program second;
  REQUIRE(second({"train", "--config", file}) == 0);
  CHECK(second.run.out == "some dir/007");
  CHECK(second.steps == 7);
  CHECK(second.lr == 1e-7);
  CHECK(second.layers == std::vector<int64_t>{3});
  CHECK_FALSE(second.shuffle);
  CHECK(second.verbose);
  CHECK(second.attention == "1e3");
  CHECK(second.config.dump(2) + "\n" == first.out);
}

TEST_CASE("flags win over the config file, that over a preset, that over defaults") {
  TempDir folder;
  const std::string file =
      write(folder / "c.json", R"({"steps": 20, "shuffle": false, "attention": ""})");
  Program p;
  SECTION("preset") {
    REQUIRE(p({"train", "--out", "x", "--preset", "small"}) == 0);
    CHECK(p.steps == 10);
    CHECK(p.lr == 0.5);
  }
  SECTION("config over preset") {
    REQUIRE(p({"train", "--out", "x", "--preset", "small", "--config", file}) == 0);
    CHECK(p.steps == 20);
    CHECK(p.lr == 0.5);
    CHECK(p.attention == "");
    CHECK_FALSE(p.shuffle);
  }
  SECTION("flags over both") {
    REQUIRE(p({"train", "--out", "x", "--preset=small", "--config=" + file, "--steps", "30",
               "--shuffle"}) == 0);
    CHECK(p.steps == 30);
    CHECK(p.lr == 0.5);
    CHECK(p.shuffle);
  }
  SECTION("unknown preset") {
    CHECK(p({"train", "--out", "x", "--preset", "smal"}) == 2);
    CHECK_THAT(p.err, Contains("no preset 'smal' (nearest: small; all: large, small)"));
  }
}

TEST_CASE("resume takes the options of the run's config.json") {
  TempDir folder;
  write(folder / "config.json", R"({"steps": 20, "lr": 0.125, "out": "elsewhere"})");
  Program p;
  REQUIRE(p({"train", "--resume", folder.path(), "--steps", "40"}) == 0);
  CHECK(p.run.resume == folder.path());
  CHECK(p.run.out == folder.path());
  CHECK(p.steps == 40);
  CHECK(p.lr == 0.125);
  CHECK(p({"train", "--resume", folder / "nothing"}) == 1);
  CHECK_THAT(p.err, Contains("expected the folder of an earlier run"));
  CHECK(p({"train", "--resume", folder.path(), "--preset", "small"}) == 2);
}

TEST_CASE("a bad config file is an error that names the file and the key") {
  TempDir folder;
  Program p;
  const auto error = [&](const std::string& text) {
    CHECK(p({"train", "--out", "x", "--config", write(folder / "c.json", text)}) == 1);
    CHECK_FALSE(p.ran);
    CHECK_THAT(p.err, Contains("error: config " + (folder / "c.json")));
    return p.err;
  };
  CHECK_THAT(error(R"({"stepz": 1})"), Contains("unknown option \"stepz\" (nearest: \"steps\")"));
  CHECK_THAT(error(R"({"steps": 1)"), Contains("expected a JSON object of options"));
  CHECK_THAT(error(""), Contains("expected a JSON object of options"));
  CHECK_THAT(error("[1]"), Contains("got array"));
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  CHECK_THAT(error("{\"steps\": " + deep + "}"), Contains("inside each other"));
  CHECK_THAT(error(R"({"steps": 1, "steps": 2})"), Contains("the key \"steps\" appears twice"));
  CHECK_THAT(error(R"({"steps": {"a": 1}})"), Contains("steps: expected a string, a number"));
  CHECK_THAT(error(R"({"steps": "many"})"), Contains("--steps: expected a number from 1"));
  CHECK_THAT(error(R"({"steps": 1.5})"), Contains("--steps: expected a whole number"));
  CHECK_THAT(error(R"({"shuffle": "yes"})"), Contains("shuffle: expected true or false"));
  CHECK_THAT(error(R"({"layers": 3})"), Contains("layers: expected a list"));
  CHECK_THAT(error(R"({"resume": "x"})"), Contains("can only be given on the command line"));
  CHECK(p({"train", "--out", "x", "--config", folder / "missing.json"}) == 1);
  CHECK_THAT(p.err, Contains("missing.json: cannot open the file"));
}

TEST_CASE("the nearest name has the fewest differences") {
  CHECK(nearest("stpes", {"steps", "seed", "save-every"}) == "steps");
  CHECK(nearest("x", {}) == "none");
}
