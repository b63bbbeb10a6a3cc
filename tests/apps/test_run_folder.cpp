// The folder of a run, signals, curves.
#include <catch2/catch.hpp>
#include <csignal>
#include <fstream>

#include "apps/common/canvas.h"
#include "apps/common/log.h"
#include "apps/common/run_folder.h"
#include "tests/support.h"

using namespace centroid::apps;
using Catch::Matchers::Contains;
using centroid::test::error_of;
using centroid::test::TempDir;
namespace fs = std::filesystem;

TEST_CASE("a new run gets a new folder, with its parents") {
  TempDir temp;
  const std::string path = temp / "a/b/c";
  const RunFolder folder({path, "", false});
  CHECK(fs::is_directory(path));
  CHECK_FALSE(folder.resumed());
  CHECK(folder.last() == path + "/last.safetensors");
  CHECK(folder.log() == path + "/log.jsonl");
  RunFolder again({path, "", false});  // still empty
}

TEST_CASE("a folder with files is not touched without resume or overwrite") {
  TempDir temp;
  std::ofstream(temp / "config.json") << "{}";
  std::ofstream(temp / "notes.txt") << "mine";
  CHECK_THAT(error_of([&] {
               RunFolder({temp.path(), "", false});
             }),
             Contains("expected a new or empty folder") && Contains("--resume") &&
                 Contains("--overwrite"));
  CHECK(fs::exists(temp / "config.json"));
  RunFolder({temp.path(), "", true});
  CHECK_FALSE(fs::exists(temp / "config.json"));
  CHECK(fs::exists(temp / "notes.txt"));
}

TEST_CASE("resuming needs a checkpoint") {
  TempDir temp;
  CHECK_THAT(error_of([&] {
               RunFolder({"", temp.path(), false});
             }),
             Contains("there is no") && Contains("last.safetensors"));
  std::ofstream(temp / "last.safetensors") << "x";
  const RunFolder folder({"", temp.path(), false});
  CHECK(folder.resumed());
  CHECK(folder.path() == temp.path());
  CHECK_THAT(error_of([&] {
               RunFolder({"", temp.path(), true});
             }),
             Contains("without --overwrite"));
  CHECK_THAT(error_of([&] {
               RunFolder({"other", temp.path(), false});
             }),
             Contains("expected the folder of --out"));
}

TEST_CASE("a folder that cannot be made or written is an error that names it") {
  TempDir temp;
  std::ofstream(temp / "file") << "x";
  CHECK_THAT(error_of([&] {
               RunFolder({temp / "file", "", false});
             }),
             Contains("--out " + (temp / "file") + ": cannot create the folder"));
  CHECK_THAT(error_of([&] {
               RunFolder({temp / "file/below", "", false});
             }),
             Contains("cannot create the folder"));
  CHECK_THAT(error_of([] { RunFolder({"", "", false}); }), Contains("expected a folder"));
  if (::geteuid() != 0) {  // root may write everywhere
    fs::create_directory(temp / "locked");
    fs::permissions(temp / "locked", fs::perms::owner_read | fs::perms::owner_exec);
    CHECK_THAT(error_of([&] {
                 RunFolder({temp / "locked", "", false});
               }),
               Contains("cannot write to the folder"));
  }
}

TEST_CASE("a first signal asks to stop, and the handlers come back afterwards") {
  for (const int number : {SIGINT, SIGTERM}) {
    static volatile std::sig_atomic_t seen;
    seen = 0;
    const auto before = std::signal(number, [](int) { seen = 1; });
    {
      StopSignal signal;
      CHECK_FALSE(StopSignal::stop_requested());
      std::raise(number);
      CHECK(StopSignal::stop_requested());
      CHECK(seen == 0);
      std::raise(number);  // the second one goes to the earlier handler
      CHECK(seen == 1);
    }
    seen = 0;
    std::raise(number);
    CHECK(seen == 1);
    std::signal(number, before);
    StopSignal next;
    CHECK_FALSE(StopSignal::stop_requested());
  }
}

TEST_CASE("curves are drawn from a log with evaluations, skipped steps and a half-written line") {
  TempDir temp;
  {
    JsonLog log(temp / "log.jsonl");
    CHECK_FALSE(draw_curves(temp / "log.jsonl", temp / "curves.png", "run"));
    for (int step = 1; step <= 200; ++step) {
      if (step == 50) {
        log.write({{"step", step}, {"event", "skip"}, {"loss", NAN}, {"items", {"a"}}});
        continue;
      }
      log.write({{"step", step}, {"loss", 1.0 / step}, {"lr", 1e-3}, {"time", 0.5}});
      if (step % 100 == 0) {
        log.write({{"step", step}, {"event", "eval"}, {"dev_loss", 0.5}, {"dev_per", 20.0}});
      }
    }
  }
  std::ofstream(temp / "log.jsonl", std::ios::app) << "{\"step\":201,\"lo";
  if (!can_write_png()) return;
  CHECK(draw_curves(temp / "log.jsonl", temp / "curves.png", "run"));
  CHECK(fs::file_size(temp / "curves.png") > 5000);
}
