// Decoding, alignment and error rates.
#include "apps/audio/score.h"

#include <algorithm>
#include <limits>
#include <map>

#include "apps/audio/decode.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

/// Edit distance by plain recursion over prefixes: the definition.
int64_t distance(const Strings& a, const Strings& b, size_t i, size_t j,
                 std::map<std::pair<size_t, size_t>, int64_t>& seen) {
  if (i == 0 || j == 0) return static_cast<int64_t>(i + j);
  if (const auto it = seen.find({i, j}); it != seen.end()) return it->second;
  const int64_t best =
      std::min({distance(a, b, i - 1, j - 1, seen) + (a[i - 1] != b[j - 1]),
                distance(a, b, i - 1, j, seen) + 1, distance(a, b, i, j - 1, seen) + 1});
  return seen[{i, j}] = best;
}

ErrorRate rate_of(const Strings& ref, const Strings& hyp) {
  ErrorRate rate;
  rate.add(align(ref, hyp));
  return rate;
}

}  // namespace

TEST_CASE("Alignments use the fewest edits and contain both sides whole") {
  centroid::Rng rng(7);
  for (int round = 0; round < 200; ++round) {
    Strings ref, hyp;
    for (auto* side : {&ref, &hyp}) {
      const auto n = rng.below(9);
      for (uint64_t i = 0; i < n; ++i)
        side->push_back(std::string(1, static_cast<char>('a' + rng.below(3))));
    }
    const auto pairs = align(ref, hyp);
    Strings back_ref, back_hyp;
    for (const AlignedPair& p : pairs) {
      if (p.edit != Edit::insertion) back_ref.push_back(p.ref);
      if (p.edit != Edit::deletion) back_hyp.push_back(p.hyp);
      CHECK((p.edit == Edit::match) == (p.ref == p.hyp));
    }
    CHECK(back_ref == ref);
    CHECK(back_hyp == hyp);
    std::map<std::pair<size_t, size_t>, int64_t> seen;
    const ErrorRate rate = rate_of(ref, hyp);
    CHECK(rate.errors() == distance(ref, hyp, ref.size(), hyp.size(), seen));
    CHECK(rate.tokens == static_cast<int64_t>(ref.size()));
  }
}

TEST_CASE("Error rates count each kind and add up") {
  ErrorRate total = rate_of({"a", "b", "c", "d"}, {"a", "x", "d", "e"});
  CHECK(total.substitutions == 1);
  CHECK(total.deletions == 1);
  CHECK(total.insertions == 1);
  total += rate_of({"a", "b"}, {"a", "b"});
  CHECK(total.tokens == 6);
  CHECK(total.utterances == 2);
  CHECK(total.wrong_utterances == 1);
  CHECK(total.rate() == 0.5);
  CHECK(rate_of({}, {"a", "b"}).insertions == 2);
  CHECK(rate_of({"a", "b"}, {}).deletions == 2);
  CHECK(rate_of({"a"}, {"x", "y", "z"}).rate() == 3.0);
  CHECK(rate_of({}, {}).rate() == 0.0);
  CHECK(rate_of({}, {"a"}).rate() == std::numeric_limits<double>::infinity());
}

TEST_CASE("The summary is one line with percentages of the reference tokens") {
  ErrorRate rate;
  rate.substitutions = 151;
  rate.deletions = 80;
  rate.insertions = 53;
  rate.tokens = 1000;
  CHECK(summary("test", "PER", rate) == "test PER 28.4 % (sub 15.1 del 8.0 ins 5.3; 1000 tokens)");
  CHECK(summary("dev", "WER", rate_of({}, {"a"})) ==
        "dev WER undefined (no reference tokens; 1 insertions)");
}

TEST_CASE("Aligned listings line up and wrap") {
  const auto pairs = align({"k", "ay", "漢字", "a"}, {"k", "ё", "漢字", "a", "bcd"});
  CHECK(format_alignment(pairs) ==
        "REF: k ay 漢字 a ***\n"
        "HYP: k ё  漢字 a bcd\n"
        "OP:    S         I\n");
  CHECK(format_alignment(align({"abc"}, {})) == "REF: abc\nHYP: ***\nOP:  D\n");
  CHECK(format_alignment({}) == "REF:\nHYP:\nOP:\n");
  const std::string wrapped = format_alignment(pairs, 14);
  CHECK(wrapped ==
        "REF: k ay 漢字\nHYP: k ё  漢字\nOP:    S\n\n"
        "REF: a ***\nHYP: a bcd\nOP:    I\n");
}

TEST_CASE("Greedy CTC merges repeats, drops blanks and tells where symbols were seen") {
  // Classes 0 (blank), 1, 2; best path 0 1 1 0 1 2 2.
  const std::vector<int> path = {0, 1, 1, 0, 1, 2, 2};
  std::vector<float> logits(path.size() * 3, -5.0f);
  for (size_t t = 0; t < path.size(); ++t) logits[t * 3 + path[t]] = 1.0f;
  const auto tokens = greedy_ctc(logits.data(), 7, 3);
  CHECK(ids_of(tokens) == std::vector<int32_t>{1, 1, 2});
  CHECK(tokens[0].begin == 1);
  CHECK(tokens[0].end == 3);
  CHECK(tokens[1].begin == 4);
  CHECK(tokens[1].end == 5);
  CHECK(tokens[2].begin == 5);
  CHECK(tokens[2].end == 7);
  // The same path with another class as the blank.
  CHECK(ids_of(greedy_ctc(logits.data(), 7, 3, 2)) == std::vector<int32_t>{0, 1, 0, 1});
  CHECK(greedy_ctc(logits.data(), 0, 3).empty());
  const std::vector<float> tie(3, 0.0f);
  CHECK(greedy_ctc(tie.data(), 1, 3).empty());
  logits[4] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THAT(message_of([&] { greedy_ctc(logits.data(), 7, 3); }),
             Contains("class 1 at frame 1 is NaN"));
  CHECK_THROWS_AS(greedy_ctc(logits.data(), 1, 3, 3), centroid::Error);
}
