// What is known of hypotheses beside their scores: times, confidences, other weights.
#include "apps/audio/nbest.h"

#include <limits>

#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;
using Ids = std::vector<int32_t>;

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
}  // namespace

TEST_CASE("Best alignments, confidences, rescoring", "[beam]") {
  centroid::Rng rng(12);
  for (int round = 0; round < 20; ++round) {
    const std::vector<double> p = random_scores(6, 3, rng);
    for (const Ids& ids : {Ids{}, Ids{1}, Ids{1, 1}, Ids{2, 1}, Ids{1, 2, 1}}) {
      const std::vector<Token> tokens = align_ctc(p, 3, ids);
      double score = 0, best = -kInfinity;
      int64_t at = 0;
      for (const Token& t : tokens) {
        REQUIRE((t.begin >= at && t.end > t.begin));
        for (; at < t.begin; ++at) score += p[at * 3];
        for (; at < t.end; ++at) score += p[at * 3 + t.id];
      }
      for (; at < 6; ++at) score += p[at * 3];
      // The greatest over all alignments of these symbols.
      for (int code = 0; code < 729; ++code) {
        Ids path, collapsed;
        double sum = 0;
        for (int t = 0, rest = code; t < 6; ++t, rest /= 3) {
          path.push_back(rest % 3);
          sum += p[t * 3 + rest % 3];
          if (path[t] != 0 && (t == 0 || path[t] != path[t - 1])) collapsed.push_back(path[t]);
        }
        if (collapsed == ids) best = std::max(best, sum);
      }
      CHECK(score == Approx(best));
      CHECK(ids_of(tokens) == ids);
    }
  }
  CHECK_THAT(message_of([] {
               align_ctc(std::vector<double>(6, -1), 3, {1, 1});
             }),
             Contains("2 symbols do not fit into 2 frames"));
  CHECK(align_ctc({}, 3, {}).empty());

  std::vector<Hypothesis> list(3);
  const auto set = [&](int i, const Ids& ids, const Strings& words, double acoustic, double lm) {
    for (const int32_t id : ids) list[i].tokens.push_back({id, -1, -1});
    for (const auto& w : words) list[i].words.push_back({w});
    list[i].acoustic = list[i].score = acoustic;
    list[i].lm = lm;
    list[i].units = static_cast<int64_t>(ids.size());
  };
  set(0, {1, 2}, {"x", "y"}, std::log(0.5), -9);
  set(1, {1}, {"x"}, std::log(0.3), -1);
  set(2, {3, 2}, {"z", "y"}, std::log(0.2), -20);
  CHECK(posteriors(list)[1] == Approx(0.3));
  add_confidence(list);
  CHECK(list[0].token_confidence[0] == Approx(0.8));
  CHECK(list[0].token_confidence[1] == Approx(0.7));
  CHECK(list[0].words[1].confidence == Approx(0.7));
  CHECK(best_of(list, 0, 0) == 0);
  CHECK(best_of(list, 1, 0) == 1);
  CHECK(best_of(list, 1, 20) == 0);
  merge_nbest(list, list);
  CHECK(list.size() == 3);
  // A best path: the mean of its frames.
  const std::vector<float> scores = {0, std::log(9.0f), std::log(1.0f), std::log(0.6f / 0.4f)};
  std::vector<Hypothesis> one = {best_path(scores.data(), 2, 2)};
  REQUIRE(one[0].tokens.size() == 1);
  CHECK(one[0].score == Approx(std::log(0.9 * 0.6)));
  CHECK(one[0].token_confidence[0] == Approx(std::sqrt(0.9 * 0.6)));
  one[0].words = {{"a", 0, 1}};
  add_word_confidence(one[0]);
  CHECK(one[0].words[0].confidence == Approx(std::sqrt(0.9 * 0.6)));
  // Of a beam with one hypothesis all agree.
  add_confidence(one);
  CHECK(one[0].token_confidence[0] == 1);
  CHECK(one[0].words[0].confidence == 1);
}
