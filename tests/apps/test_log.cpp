// Progress lines and log.jsonl.
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <sstream>

#include "apps/common/log.h"
#include "tests/support.h"

using namespace centroid::apps;
using Catch::Matchers::Contains;
using centroid::test::error_of;
using centroid::test::read_text;
using centroid::test::TempDir;
using Json = nlohmann::ordered_json;

namespace {

/// A progress whose clock and output the test holds.
struct Scene {
  double now = 1000;
  std::ostringstream out;
  ProgressOptions options() {
    ProgressOptions o;
    o.label = "train";
    o.total = 100;
    o.unit = "utt";
    o.out = &out;
    o.width = 120;
    o.terminal = 0;
    o.clock = [this] { return now; };
    return o;
  }
  size_t lines() const {
    const std::string text = out.str();
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
};

}  // namespace

TEST_CASE("plain progress lines come after some seconds or some percent, not at every step") {
  Scene scene;
  auto options = scene.options();
  options.every_seconds = 10;
  options.every_percent = 25;
  Progress progress(options);
  for (int step = 1; step <= 24; ++step) progress.update(step, step, {});
  CHECK(scene.lines() == 1);  // the first update shows that something happens
  progress.update(26, 26, {});
  CHECK(scene.lines() == 2);
  scene.now += 9;
  progress.update(27, 27, {});
  CHECK(scene.lines() == 2);
  scene.now += 1;
  progress.update(28, 28, {});
  CHECK(scene.lines() == 3);
  CHECK(scene.out.str().find('\r') == std::string::npos);
}

TEST_CASE("a progress line gives rate, fields, time left and time passed") {
  Scene scene;
  Progress progress(scene.options());
  for (int step = 1; step <= 50; ++step) {
    scene.now += 2;
    progress.update(step, 8.0 * step, {{"loss", "1.25"}, {"rtf", "0.01"}});
  }
  progress.finish();
  CHECK_THAT(scene.out.str(), Contains("train  50/100   50 %  4.00 utt/s  loss 1.25  rtf 0.01  "
                                       "ETA 1:40  elapsed 1:40\n"));
}

TEST_CASE("the time left of a resumed run counts its own steps only") {
  Scene scene;
  auto options = scene.options();
  options.start = 90;
  Progress progress(options);
  scene.now += 10;
  progress.update(95, 5, {});
  CHECK_THAT(scene.out.str(), Contains("ETA 0:10"));
}

TEST_CASE("the rate leaves out excluded time") {
  Scene scene;
  auto options = scene.options();
  options.every_percent = 1;
  Progress progress(options);
  for (int step = 1; step <= 4; ++step) {
    scene.now += 60;
    progress.exclude(59);
    progress.update(step, 3 * step, {});
  }
  CHECK_THAT(scene.out.str(), Contains("train  4/100    4 %  3.00 utt/s"));
}

TEST_CASE("on a terminal one line is redrawn and never longer than the terminal") {
  Scene scene;
  auto options = scene.options();
  options.terminal = 1;
  options.width = 60;
  Progress progress(options);
  for (int step = 1; step <= 100; ++step) {
    scene.now += 0.01;
    progress.update(step, step, {{"loss", "1.25"}, {"a long name", "and a long value"}});
  }
  progress.message("hello");
  progress.finish();
  const std::string text = scene.out.str();
  CHECK(scene.lines() == 2);  // the message and the end
  std::istringstream parts(text);
  size_t drawings = 0;
  for (std::string part; std::getline(parts, part, '\r'); ++drawings) {
    part = part.substr(0, part.find('\033'));
    CHECK(part.size() < 60);
  }
  CHECK(drawings > 5);
  CHECK(drawings < 20);  // 1 s of steps at 10 drawings per second
  CHECK_THAT(text, Contains("hello\n"));
}

TEST_CASE("times and numbers read well") {
  CHECK(clock_text(0) == "0:00");
  CHECK(clock_text(61.4) == "1:01");
  CHECK(clock_text(3599.6) == "1:00:00");
  CHECK(clock_text(-1) == "?");
  CHECK(clock_text(INFINITY) == "?");
  CHECK(short_number(0) == "0");
  CHECK(short_number(1.23456) == "1.235");
  CHECK(short_number(123.456) == "123.5");
  CHECK(short_number(12345.6) == "12346");
  CHECK(short_number(0.00123456) == "0.001235");
  CHECK(short_number(1e-7) == "1e-07");
  CHECK(short_number(NAN) == "nan");
}

TEST_CASE("a log line is in the file when write returns, whatever its numbers") {
  TempDir folder;
  const std::string path = folder / "log.jsonl";
  JsonLog log(path);
  log.write({{"step", 1}, {"loss", 0.1}});
  CHECK(read_text(path) == "{\"step\":1,\"loss\":0.1}\n");
  log.write({{"step", 2}, {"loss", NAN}, {"list", {1.0, INFINITY, -INFINITY}}});
  log.write({{"step", 3}, {"id", "not utf-8: \xff"}});
  const auto lines = read_json_lines(path);
  REQUIRE(lines.size() == 3);
  CHECK(std::isnan(logged_number(lines[1], "loss")));
  CHECK(lines[1]["list"] == Json({1.0, "inf", "-inf"}));
  CHECK(logged_number(lines[0], "loss") == 0.1);
  CHECK(std::isnan(logged_number(lines[0], "missing")));
}

TEST_CASE("a log is continued, not replaced") {
  TempDir folder;
  const std::string path = folder / "log.jsonl";
  JsonLog(path).write({{"step", 1}});
  JsonLog(path).write({{"step", 2}});
  CHECK(read_json_lines(path).size() == 2);
}

TEST_CASE("cut_back keeps the lines up to a step, byte for byte, and the log goes on") {
  TempDir folder;
  const std::string path = folder / "log.jsonl";
  const std::string kept = "{\"step\":1,\"loss\":0.10000000000000001}\n{\"step\": 2}\n";
  std::ofstream(path) << kept << "{\"step\":3}\n{\"note\":1}\n{\"step\":4,\"lo";
  JsonLog log(path);
  log.cut_back(2);
  CHECK(read_text(path) == kept);
  log.write({{"step", 3}});
  CHECK(read_text(path) == kept + "{\"step\":3}\n");
  log.cut_back(0);
  CHECK(read_text(path) == "");
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    files += entry.exists();
  }
  CHECK(files == 1);
}

TEST_CASE("a damaged line in the middle of a log is an error, a half-written last one is not") {
  TempDir folder;
  const std::string path = folder / "log.jsonl";
  std::ofstream(path) << "{\"step\":1}\n{\"step\":2\n{\"step\":3}\n";
  CHECK_THAT(error_of([&] { read_json_lines(path); }),
             Contains("log.jsonl:2: expected a JSON object, got '{\"step\":2'"));
  std::ofstream(path) << "{\"step\":1}\n{\"step\":2}";
  CHECK(read_json_lines(path).size() == 1);
  CHECK_THAT(error_of([&] { read_json_lines(folder / "none"); }), Contains("none: cannot open"));
}

TEST_CASE("a log that cannot be written is an error that names the file") {
  TempDir folder;
  CHECK_THAT(error_of([&] { JsonLog log((folder / "missing") + "/log.jsonl"); }),
             Contains("missing/log.jsonl: cannot write"));
  if (std::filesystem::exists("/dev/full")) {
    JsonLog log("/dev/full");
    CHECK_THAT(error_of([&] {
                 log.write({{"step", 1}});
               }),
               Contains("/dev/full: cannot write: No space left on device"));
  }
}

TEST_CASE("a line that does not fit any more is taken back") {
  TempDir folder;
  const std::string path = folder / "log.jsonl";
  JsonLog log(path);
  log.write({{"step", 1}});
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = old;
  small.rlim_cur = 40;  // bytes: the next line begins and does not end
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = error_of([&] {
    log.write({{"step", 2}, {"text", std::string(60, 'x')}});
  });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Contains("log.jsonl: cannot write: File too large"));
  CHECK(read_text(path) == "{\"step\":1}\n");
}
