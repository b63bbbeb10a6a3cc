// Intervals of error rates and tests of two systems.
#include "apps/audio/bootstrap.h"

#include <algorithm>

#include "apps/audio/files.h"
#include "apps/audio/paired_test.h"
#include "tensor/parallel.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;

namespace {

std::vector<ErrorCount> random_items(size_t n, uint64_t seed, double rate) {
  centroid::Rng rng(seed);
  std::vector<ErrorCount> items(n);
  for (ErrorCount& item : items) {
    item.tokens = 10;
    for (int i = 0; i < 10; ++i) item.errors += rng.bernoulli(rate);
  }
  return items;
}

std::vector<AlignedPair> aligned(const std::string& ref, const std::string& hyp) {
  return align(split_words(ref), split_words(hyp));
}

}  // namespace

TEST_CASE("The bootstrap's standard error is that of a mean of equal items", "[score]") {
  const auto items = random_items(200, 3, 0.3);
  double sum = 0, squares = 0;
  for (const ErrorCount& item : items) sum += double(item.errors) / 10;
  for (const ErrorCount& item : items) squares += std::pow(double(item.errors) / 10 - sum / 200, 2);
  const double expected = std::sqrt(squares / 200 / 200);
  const Interval i = bootstrap_rate(items, {10000, 0.95, 1});
  CHECK(i.standard_error == Approx(expected).epsilon(0.03));
  CHECK(i.low == Approx(sum / 200 - 1.96 * expected).epsilon(0.02));
  CHECK(i.high == Approx(sum / 200 + 1.96 * expected).epsilon(0.02));
  const Interval wide = bootstrap_rate(items, {10000, 0.99, 1});
  CHECK(wide.low < i.low);
  CHECK(wide.high > i.high);
}

TEST_CASE("The bootstrap of two items has the values that can be counted", "[score]") {
  // Draws: (0, 0), (0, 1), (1, 0), (1, 1) with rates 0, 1/4, 1/4, 1/3.
  const std::vector<ErrorCount> items = {{0, 1}, {1, 3}};
  const Interval i = bootstrap_rate(items, {20000, 0.98, 7});
  CHECK(i.low == 0);
  CHECK(i.high == Approx(1.0 / 3));
  const double mean = (0.0 + 0.25 + 0.25 + 1.0 / 3) / 4;
  const double square = (0.0 + 2 * 0.0625 + 1.0 / 9) / 4;
  CHECK(i.standard_error == Approx(std::sqrt(square - mean * mean)).epsilon(0.02));
}

TEST_CASE("The bootstrap depends on the seed and not on the threads", "[score]") {
  const auto items = random_items(37, 5, 0.2);
  const auto at = [&](int threads, uint64_t seed) {
    centroid::set_num_threads(threads);
    const Interval i = bootstrap_rate(items, {999, 0.9, seed});
    centroid::set_num_threads(0);
    return std::vector<double>{i.low, i.high, i.standard_error};
  };
  CHECK(at(1, 4) == at(2, 4));
  CHECK(at(1, 4) == at(5, 4));
  CHECK(at(1, 4) != at(1, 5));
}

TEST_CASE("Items without reference symbols are drawn again, never divided by", "[score]") {
  const Interval i = bootstrap_rate({{0, 0}, {0, 0}, {1, 2}}, {500, 0.95, 1});
  CHECK(i.low == 0.5);
  CHECK(i.high == 0.5);
}

TEST_CASE("The probability of improvement is that of paired draws", "[score]") {
  auto a = random_items(100, 9, 0.3), b = a;
  Improvement none = bootstrap_improvement(a, b, {1000, 0.95, 1});
  CHECK(none.probability == 0.5);
  CHECK(none.difference.standard_error == 0);
  for (ErrorCount& item : b) item.errors = std::max<int64_t>(0, item.errors - 1);
  const Improvement sure = bootstrap_improvement(a, b, {1000, 0.95, 1});
  CHECK(sure.probability == 1);
  CHECK(sure.difference.high < 0);
  const Improvement back = bootstrap_improvement(b, a, {1000, 0.95, 1});
  CHECK(back.probability == 0);
  CHECK(back.difference.low == Approx(-sure.difference.high));
  // One item more in error: the draws without it are ties.
  b = a;
  b[0].errors += 1;
  const double without = std::pow(1 - 1.0 / 100, 100);
  CHECK(bootstrap_improvement(a, b, {20000, 0.95, 1}).probability ==
        Approx(without / 2).margin(0.01));
}

TEST_CASE("The bootstrap refuses what has no answer", "[score]") {
  const auto refused = [](const std::vector<ErrorCount>& items, BootstrapOptions options) {
    return message_of([&] { bootstrap_rate(items, options); });
  };
  CHECK_THAT(refused({{1, 2}}, {}), Contains("expected at least two items"));
  CHECK_THAT(refused({{1, 0}, {0, 0}}, {}), Contains("expected reference symbols"));
  CHECK_THAT(refused({{1, 2}, {1, 2}}, {0, 0.95, 1}), Contains("at least one draw"));
  CHECK_THAT(refused({{1, 2}, {1, 2}}, {10, 1.0, 1}), Contains("between 0 and 1"));
  CHECK_THAT(refused({{1, 2}, {-1, 2}}, {}), Contains("counts from 0 up"));
  CHECK_THAT(message_of([] {
               bootstrap_improvement({{1, 2}, {1, 2}}, {{1, 2}, {1, 3}}, {});
             }),
             Contains("item 1: expected the same reference, got 2 and 3"));
}

TEST_CASE("Sentence segments are parted by two symbols that both systems have right", "[score]") {
  const std::string ref = "a b c d e f g";
  // One right symbol (c) between errors keeps a segment open, two (d e) close it.
  const SegmentTest t = segment_test({aligned(ref, "x b c y e f g"), aligned("a b", "a b")},
                                     {aligned(ref, "a x c d e f y"), aligned("a b", "b")});
  CHECK(t.segments == 3);
  CHECK(t.a_errors == 2);
  CHECK(t.b_errors == 3);
  CHECK(t.mean == Approx(-1.0 / 3));
  // Differences 2 - 1, 0 - 1, 0 - 1.
  CHECK(t.deviation == Approx(std::sqrt(4.0 / 3)));
  CHECK(t.z == Approx(-1.0 / 3 / std::sqrt(4.0 / 9)));
  CHECK(t.p == Approx(std::erfc(0.5 / std::sqrt(2.0))));
  // An insertion between two right symbols parts them, and counts.
  const SegmentTest inserted =
      segment_test({aligned("a b c", "x b q c")}, {aligned("a b c", "a b c")});
  CHECK(inserted.segments == 1);
  CHECK(inserted.a_errors == 2);
  CHECK(inserted.p == 1);
}

TEST_CASE("Paired tests of equal, of constantly different and of mismatched systems", "[score]") {
  const auto right = aligned("a b", "a b"), wrong = aligned("a b", "a x");
  const SegmentTest same = segment_test({wrong, wrong}, {wrong, wrong});
  CHECK(same.segments == 2);
  CHECK(same.z == 0);
  CHECK(same.p == 1);
  const SegmentTest constant = segment_test({wrong, wrong}, {right, right});
  CHECK(std::isinf(constant.z));
  CHECK(constant.p == 0);
  CHECK(segment_test({}, {}).p == 1);
  CHECK_THROWS_AS(segment_test({right}, {}), centroid::Error);
  CHECK_THROWS_AS(segment_test({right}, {aligned("a", "a")}), centroid::Error);
}

TEST_CASE("McNemar's test counts the sentences that one system alone has right", "[score]") {
  const auto right = aligned("a", "a"), wrong = aligned("a", "");
  const auto test = [&](int a_only, int b_only) {
    std::vector<std::vector<AlignedPair>> a{right, wrong}, b{right, wrong};
    for (int i = 0; i < a_only; ++i) a.push_back(right), b.push_back(wrong);
    for (int i = 0; i < b_only; ++i) a.push_back(wrong), b.push_back(right);
    return sentence_test(a, b);
  };
  CHECK(test(1, 6).a_only == 1);
  CHECK(test(1, 6).b_only == 6);
  CHECK(test(1, 6).p == Approx(2 * (1 + 7) / 128.0));  // 2 P(at most 1 head in 7 throws)
  CHECK(test(3, 3).p == 1);
  CHECK(test(0, 0).p == 1);
  CHECK(test(0, 20).p == Approx(2 * std::pow(0.5, 20)));
}

TEST_CASE("Sentence segments and their statistic are those of sctk", "[score][sclite]") {
  if (std::system("command -v sctk > /dev/null 2>&1") != 0) {
    WARN("sctk is not installed: no comparison");
    return;
  }
  TempFolder folder;
  centroid::Rng rng(77);
  const auto word = [&] { return std::string(1, static_cast<char>('a' + rng.below(8))); };
  std::string files[3];
  std::vector<std::vector<AlignedPair>> alignments[2];
  for (int i = 0; i < 200; ++i) {
    std::string lines[3];
    for (uint64_t n = 1 + rng.below(14); n > 0; --n) {
      lines[0] += word() + " ";
      const std::string last = lines[0].substr(lines[0].size() - 2);
      for (int k = 1; k < 3; ++k) {
        if (!rng.bernoulli(0.08)) lines[k] += rng.bernoulli(0.1 * k) ? word() + " " : last;
        if (rng.bernoulli(0.05)) lines[k] += word() + " ";
      }
    }
    for (int k = 0; k < 3; ++k) {
      files[k] += lines[k] + "(s-" + std::to_string(i) + ")\n";
      if (k > 0) {
        alignments[k - 1].push_back(
            align(split_words(lines[0]), split_words(lines[k]), kScliteCosts));
      }
    }
  }
  std::string command = "(";
  const std::string ref = folder.write("r.trn", files[0]);
  for (int k = 1; k < 3; ++k) {
    const std::string hyp = folder.write("h" + std::to_string(k) + ".trn", files[k]);
    command += "sctk sclite -r " + ref + " trn -h " + hyp + " trn -i spu_id -o sgml stdout;";
  }
  command += ") 2>/dev/null | sctk sc_stats -p -t mapsswe -v -n - > " + (folder / "report");
  REQUIRE(std::system(command.c_str()) == 0);
  const std::string report = slurp(folder / "report");
  const SegmentTest t = segment_test(alignments[0], alignments[1]);
  char line[200];
  std::snprintf(line, sizeof line, "(mean: %.3f) (std dev: %.3f) (Z Stat: %.3f)", t.mean,
                t.deviation, t.z);
  CHECK_THAT(report, Contains("(# segs: " + std::to_string(t.segments) + ")"));
  CHECK_THAT(report, Contains(line));
}
