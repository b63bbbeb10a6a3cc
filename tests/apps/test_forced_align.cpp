// Forced alignment against the enumeration of all paths; segments; boundary errors.
#include "apps/audio/forced_align.h"

#include <catch2/catch.hpp>
#include <cmath>

#include "apps/audio/boundaries.h"
#include "apps/audio/ctm.h"
#include "apps/audio/words.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Labels = std::vector<int32_t>;

namespace {

std::vector<float> random_scores(int64_t frames, int64_t classes, uint64_t seed) {
  centroid::Rng rng(seed, "scores");
  std::vector<float> scores(frames * classes);
  for (float& s : scores) s = static_cast<float>(2 * rng.normal());
  return scores;
}

double log_prob(const std::vector<float>& scores, int64_t classes, int64_t t, int32_t v) {
  return scores[t * classes + v] - log_normaliser(scores.data() + t * classes, classes, t);
}

// What a path of classes reads as: repeats merged, blanks dropped.
Labels reading(const Labels& path, int32_t blank) {
  Labels labels;
  for (size_t t = 0; t < path.size(); ++t) {
    if (path[t] != blank && (t == 0 || path[t] != path[t - 1])) labels.push_back(path[t]);
  }
  return labels;
}

struct Best {
  double log_prob = -INFINITY;
  Labels path;
};

// The most probable of all V^T paths that read as one of `targets`.
Best enumerate(const std::vector<float>& scores, int64_t frames, int64_t classes,
               const std::vector<Labels>& targets, int32_t blank) {
  Best best;
  Labels path(frames, 0);
  for (;;) {
    const Labels read = reading(path, blank);
    if (std::find(targets.begin(), targets.end(), read) != targets.end()) {
      double sum = 0;
      for (int64_t t = 0; t < frames; ++t) sum += log_prob(scores, classes, t, path[t]);
      if (sum > best.log_prob) best = {sum, path};
    }
    int64_t t = 0;
    while (t < frames && ++path[t] == classes) path[t++] = 0;
    if (t == frames) return best;
  }
}

// Compares an alignment with the best path: labels, frames and probabilities.
void check_equal(const Alignment& alignment, const Best& best, const std::vector<float>& scores,
                 int64_t classes, int32_t blank) {
  REQUIRE(alignment.log_prob == Approx(best.log_prob).epsilon(1e-12));
  Labels path(best.path.size(), blank);
  int64_t last = 0;
  for (const AlignedLabel& label : alignment.labels) {
    REQUIRE(label.begin >= last);
    REQUIRE(label.end > label.begin);
    last = label.end;
    double sum = 0;
    for (int64_t t = label.begin; t < label.end; ++t) {
      path[t] = label.label;
      sum += log_prob(scores, classes, t, label.label);
    }
    CHECK(label.log_prob == Approx(sum / static_cast<double>(label.end - label.begin)));
    CHECK(label.confidence() == Approx(std::exp(label.log_prob)));
  }
  CHECK(path == best.path);
}

AlignedLabel at(int64_t begin, int64_t end) { return {1, 0, begin, end, 0}; }

}  // namespace

TEST_CASE("the aligned path is the best of all paths", "[forced-align]") {
  const std::vector<Labels> targets = {{},        {1},       {2, 1},    {1, 1},
                                       {1, 2, 1}, {2, 2, 1}, {1, 1, 1}, {2, 1, 1, 2}};
  for (int64_t frames = 1; frames <= 7; ++frames) {
    for (const Labels& target : targets) {
      const auto scores = random_scores(frames, 3, 10 * frames + target.size());
      const Best best = enumerate(scores, frames, 3, {target}, 0);
      CAPTURE(frames, target);
      if (best.path.empty()) {
        CHECK_THROWS_WITH(forced_align(scores.data(), frames, 3, linear_graph(target)),
                          Contains("labels need at least"));
      } else {
        check_equal(forced_align(scores.data(), frames, 3, linear_graph(target)), best, scores, 3,
                    0);
      }
    }
  }
  // Another blank; more classes.
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const auto scores = random_scores(5, 5, seed);
    check_equal(forced_align(scores.data(), 5, 5, linear_graph({4, 4, 0}), 2),
                enumerate(scores, 5, 5, {{4, 4, 0}}, 2), scores, 5, 2);
  }
}

TEST_CASE("of several pronunciations the best one is taken", "[forced-align]") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    // (1 | 2 1 | 2 2) (1 | 3), with and without an end after the first word.
    LabelGraph graph;
    const Labels first = {graph.add_chain({1}, {-1}), graph.add_chain({2, 1}, {-1}),
                          graph.add_chain({2, 2}, {-1})};
    graph.finals = {graph.add_chain({1}, first), graph.add_chain({3}, first)};
    std::vector<Labels> targets = {{1, 1}, {1, 3}, {2, 1, 1}, {2, 1, 3}, {2, 2, 1}, {2, 2, 3}};
    if (seed % 2 == 1) {
      graph.finals.push_back(first[1]);
      targets.push_back({2, 1});
    }
    const auto scores = random_scores(6, 4, seed);
    const Alignment alignment = forced_align(scores.data(), 6, 4, graph);
    check_equal(alignment, enumerate(scores, 6, 4, targets, 0), scores, 4, 0);
    for (size_t i = 0; i < alignment.labels.size(); ++i) {
      CHECK(graph.nodes[alignment.labels[i].node].label == alignment.labels[i].label);
    }
  }
}

TEST_CASE("back-pointers are right beyond one machine word", "[forced-align]") {
  // A path that is all but certain, through a graph of which only one branch fits.
  const int64_t frames = 301;
  Labels target, wrong;
  std::vector<float> scores(frames * 4, 0);
  for (int64_t t = 0; t < frames; ++t) {
    const int32_t label = t % 3 == 2 ? 0 : 1 + static_cast<int32_t>(t / 3 % 3);
    scores[t * 4 + label] = 30;
    if (t % 3 == 0) target.push_back(label);
  }
  wrong.assign(target.rbegin(), target.rend());
  LabelGraph graph;
  graph.finals = {graph.add_chain(wrong, {-1}), graph.add_chain(target, {-1})};
  const Alignment alignment = forced_align(scores.data(), frames, 4, graph);
  REQUIRE(alignment.labels.size() == target.size());
  for (size_t i = 0; i < target.size(); ++i) {
    CHECK(alignment.labels[i].label == target[i]);
    CHECK(alignment.labels[i].begin == static_cast<int64_t>(3 * i));
    CHECK(alignment.labels[i].end == std::min<int64_t>(3 * i + 2, frames));
  }
}

TEST_CASE("alignment refuses what cannot be aligned", "[forced-align]") {
  auto scores = random_scores(4, 3, 1);
  const auto align = [&](const Labels& labels, int64_t frames = 4) {
    return message_of([&] { forced_align(scores.data(), frames, 3, linear_graph(labels)); });
  };
  CHECK_THAT(align({1, 1, 2, 1}), Contains("4 labels need at least 5 frames, got 4"));
  CHECK_THAT(align({1}, 0), Contains("1 labels need at least 1 frames, got 0"));
  CHECK(forced_align(scores.data(), 0, 3, linear_graph({})).labels.empty());
  CHECK_THAT(align({3}), Contains("expected labels in 0..2"));
  CHECK_THAT(align({0}), Contains("without the blank"));
  CHECK_THAT(message_of([&] { forced_align(scores.data(), 4, 3, LabelGraph{}); }),
             Contains("no final node"));
  LabelGraph backward;
  backward.nodes = {{1, {0}}};
  backward.finals = {0};
  CHECK_THAT(message_of([&] { forced_align(scores.data(), 4, 3, backward); }),
             Contains("expected predecessors in -1..-1, got 0"));
  for (int64_t t = 0; t < 4; ++t) scores[t * 3 + 1] = -INFINITY;
  CHECK_THAT(align({1}), Contains("every path of the transcript has probability 0"));
  CHECK(align({2}) == "<no error>");
  scores[7] = NAN;
  CHECK_THAT(align({2}), Contains("class 1 at frame 2"));
}

TEST_CASE("segments divide what lies between symbols", "[forced-align]") {
  SegmentOptions o;
  o.frame_seconds = 0.02;
  o.first_centre = 0.0125;
  o.reach = 0.1;
  o.end = 1;
  // Frame t covers 0.02 t + 0.0025 to 0.02 t + 0.0225.
  const auto s = place_segments({at(2, 3), at(7, 9), at(9, 10), at(40, 41), at(49, 50)}, o);
  const std::pair<double, double> expected[] = {{0, 0.1025},       // would begin at -0.0575
                                                {0.1025, 0.1825},  // half way between 3 and 7
                                                {0.1825, 0.3025},  // 0.1 s behind frame 10
                                                {0.7025, 0.9025},  // 0.1 s before frame 40
                                                {0.9025, 1.0}};    // ends with the sound
  REQUIRE(s.size() == 5);
  for (size_t i = 0; i < 5; ++i) {
    CHECK(s[i].begin == Approx(expected[i].first));
    CHECK(s[i].end == Approx(expected[i].second));
  }
  o.shift = -0.01;
  CHECK(place_segments({at(40, 41)}, o)[0].begin == Approx(0.6925));
  CHECK(place_segments({}, o).empty());
  o.frame_seconds = 0;
  CHECK_THROWS_WITH(place_segments({}, o), Contains("expected a frame above 0 s"));
}

TEST_CASE("words are made of characters", "[forced-align]") {
  const std::vector<TimedWord> symbols = {{"<space>", 0, 0.1, 0.9}, {"a", 0.1, 0.2, 0.5},
                                          {"b", 0.2, 0.3, 0.125},   {"<space>", 0.3, 0.4, 0.9},
                                          {"<space>", 0.4, 0.5, 1}, {"c", 0.6, 0.7, 0.7}};
  const auto words = words_of(symbols, Unit::characters);
  REQUIRE(words.size() == 2);
  CHECK(words[0].text == "ab");
  CHECK(words[0].begin == 0.1);
  CHECK(words[0].end == 0.3);
  CHECK(words[0].confidence == Approx(0.25));
  CHECK(words[1].text == "c");
  CHECK(words_of(symbols, Unit::phones).size() == 6);
  CHECK(words_of({}, Unit::characters).empty());
}

TEST_CASE("boundary errors are those of matching symbols", "[forced-align]") {
  BoundaryErrors errors;
  errors.add({{"a", 0, 1}, {"b", 1, 2}, {"c", 2, 3}}, {{"a", 0.01, 1}, {"x", 1, 2}, {"c", 2, 3.1}});
  errors.add({{"d", 0, 1}}, {{"d", 0, 0.98}, {"e", 1, 2}});
  CHECK(errors.begins.size() == 3);
  CHECK(errors.missing == 1);
  CHECK(errors.surplus == 2);
  const BoundaryStats all = errors.all();  // 10, 0, 0, 0, 100, -20 ms
  CHECK(all.count == 6);
  CHECK(all.mean == Approx(0.13 / 6));
  CHECK(all.median == Approx(0.005));
  CHECK(all.bias == Approx(0).margin(1e-12));
  CHECK(all.within_20_ms == Approx(5.0 / 6));
  CHECK(all.within_50_ms == Approx(5.0 / 6));
  CHECK(std::isnan(summarise({}).mean));
}

TEST_CASE("reference marks come from label files, TextGrids and CTM", "[forced-align]") {
  TempFolder dir;
  dir.write("marks/one.lab", "#\n0.5 125 pau\n0.75 125 a\n1 125 b\n");
  const std::string ctm =
      dir.write("all.ctm", "two 1 1.5 0.5 b\none 1 0.5 0.25 a\ntwo 1 0 1 sil\n");
  const ReferenceMarks folder(dir / "marks", "phones", {"pau"});
  const auto one = folder.of("one");
  REQUIRE(one.size() == 2);
  CHECK(one[0].text == "a");
  CHECK(one[0].begin == 0.5);
  CHECK(one[1].end == 1);
  CHECK_THROWS_WITH(folder.of("two"), Contains("expected two.lab or two.TextGrid, found neither"));
  const ReferenceMarks file(ctm, "", {"sil"});
  REQUIRE(file.of("two").size() == 1);
  CHECK(file.of("two")[0].end == 2);
  CHECK_THROWS_WITH(file.of("three"), Contains("no line for the recording three"));
  CHECK_THROWS_WITH(ReferenceMarks(dir / "none", "", {}), Contains("no such file"));
}
