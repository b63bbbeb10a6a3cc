// Decoding, alignment and error rates.
#include "apps/audio/score.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>

#include "apps/audio/decode.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "apps/audio/transcripts.h"
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

namespace {

/// The lowest cost of any alignment, by plain recursion over prefixes.
int64_t cheapest(const Strings& a, const Strings& b, size_t i, size_t j, const AlignCosts& c) {
  if (i == 0) return static_cast<int64_t>(j) * c.insertion;
  if (j == 0) return static_cast<int64_t>(i) * c.deletion;
  return std::min({cheapest(a, b, i - 1, j - 1, c) + (a[i - 1] != b[j - 1] ? c.substitution : 0),
                   cheapest(a, b, i - 1, j, c) + c.deletion,
                   cheapest(a, b, i, j - 1, c) + c.insertion});
}

Strings random_symbols(centroid::Rng& rng, uint64_t most, uint64_t alphabet) {
  Strings symbols(rng.below(most + 1));
  for (std::string& s : symbols) s = std::string(1, static_cast<char>('a' + rng.below(alphabet)));
  return symbols;
}

/// `corr sub del ins` of an alignment, as sclite lists them.
std::string counts_of(const Strings& ref, const Strings& hyp) {
  ErrorRate r;
  r.add(align(ref, hyp, kScliteCosts));
  return centroid::concat(r.correct(), " ", r.substitutions, " ", r.deletions, " ", r.insertions);
}

/// Checks our counts of all pairs against lines `id corr sub del ins`; returns how many there were.
size_t check_counts(const std::string& ref, const std::string& hyp, const std::string& counts) {
  const Transcripts refs = parse_transcripts(ref, "ref"), hyps = parse_transcripts(hyp, "hyp");
  size_t checked = 0;
  for (const std::string& line : lines_of(counts, "counts")) {
    const auto [id, expected] = first_word(line);
    const Transcript *r = refs.find(id), *h = hyps.find(id);
    REQUIRE(r);
    REQUIRE(h);
    ++checked;
    const std::string ours = counts_of(split_words(r->text), split_words(h->text));
    if (ours != expected) FAIL_CHECK(id << ": ours " << ours << ", sclite's " << expected);
  }
  return checked;
}

}  // namespace

TEST_CASE("Transcripts whose alignment would fill the memory are refused") {
  const std::vector<std::string> day(100000);
  CHECK_THROWS_WITH(align(day, day), Contains("got 100000 and 100000 (cut the recording"));
}

TEST_CASE("Alignments are the cheapest for any costs") {
  centroid::Rng rng(5);
  for (const AlignCosts costs : {kScliteCosts, AlignCosts{1, 2, 5, true}, AlignCosts{7, 1, 1}}) {
    for (int round = 0; round < 40; ++round) {
      const Strings ref = random_symbols(rng, 6, 3), hyp = random_symbols(rng, 6, 3);
      ErrorRate rate;
      rate.add(align(ref, hyp, costs));
      CHECK(rate.substitutions * costs.substitution + rate.deletions * costs.deletion +
                rate.insertions * costs.insertion ==
            cheapest(ref, hyp, ref.size(), hyp.size(), costs));
    }
  }
  CHECK_THROWS_AS(align({"a"}, {"b"}, {0, 1, 1, false}), centroid::Error);
}

TEST_CASE("Alignment costs decide between three substitutions and a match") {
  // a b c d against x y d z ... : sclite's costs match the d, unit costs keep fewer errors.
  const Strings ref = {"a", "b", "c", "d", "e"}, hyp = {"d", "e", "x", "y", "z"};
  ErrorRate unit, sclite;
  unit.add(align(ref, hyp));
  sclite.add(align(ref, hyp, kScliteCosts));
  CHECK(unit.errors() == 5);
  CHECK(unit.substitutions == 5);
  CHECK(sclite.correct() == 2);
  CHECK(sclite.errors() == 6);
}

TEST_CASE("Of alignments that cost the same sclite's is taken", "[score]") {
  // Not `* a b` against `b a *`, which costs as much.
  for (const AlignCosts& costs : {kUnitCosts, kScliteCosts}) {
    CHECK(format_alignment(align({"a", "b"}, {"b", "a"}, costs)) ==
          "REF: a b *\nHYP: * b a\nOP:  D   I\n");
  }
}

TEST_CASE("Counts under 4/3/3 are sclite's, on stored ones", "[score][sclite]") {
  const std::string data = (centroid::test::repository_root() / "tests/data/").string();
  CHECK(check_counts(slurp(data + "sclite_ref.trn"), slurp(data + "sclite_hyp.trn"),
                     slurp(data + "sclite_counts.txt")) == 400);
}

TEST_CASE("Counts under 4/3/3 are sclite's, on new ones where sctk is installed",
          "[score][sclite]") {
  if (std::system("command -v sctk > /dev/null 2>&1") != 0) {
    WARN("sctk is not installed: only the stored counts were compared");
    return;
  }
  TempFolder folder;
  std::string ref, hyp;
  centroid::Rng rng(20);
  for (int i = 0; i < 5000; ++i) {
    const uint64_t alphabet = 1 + rng.below(6);
    const std::string id = " (s" + std::to_string(i % 7) + "-" + std::to_string(i) + ")\n";
    ref += "a " + join(random_symbols(rng, 14, alphabet), " ") + id;
    hyp += join(random_symbols(rng, 14, alphabet), " ") + id;
  }
  const std::string r = folder.write("r.trn", ref), h = folder.write("h.trn", hyp);
  const std::string report = folder / "report";
  REQUIRE(std::system(("sctk sclite -r " + r + " trn -h " + h +
                       " trn -i spu_id -o pralign stdout > " + report + " 2>&1")
                          .c_str()) == 0);
  std::string id, counts;
  for (const std::string& line : read_lines(report)) {
    const std::string scores = "Scores: (#C #S #D #I) ";
    if (line.starts_with("id: (")) id = line.substr(5, line.find(')') - 5);
    if (line.starts_with(scores)) counts += id + " " + line.substr(scores.size()) + "\n";
  }
  CHECK(check_counts(ref, hyp, counts) == 5000);
}

TEST_CASE("Confusions are counted and sorted", "[score]") {
  Confusions counted;
  counted.add(align({"a", "b", "c"}, {"x", "b", "c", "d"}));
  counted.add(align({"q", "c"}, {"c"}));
  counted.add(align({"a"}, {"x"}));
  counted.add(align({"m"}, {"n"}));
  const auto pairs = counted.most_frequent(Edit::substitution, 10);
  REQUIRE(pairs.size() == 2);
  CHECK((pairs[0].ref == "a" && pairs[0].hyp == "x" && pairs[0].count == 2));
  CHECK((pairs[1].ref == "m" && pairs[1].hyp == "n" && pairs[1].count == 1));
  CHECK(counted.most_frequent(Edit::substitution, 1).size() == 1);
  CHECK(counted.most_frequent(Edit::deletion, 5).at(0).ref == "q");
  CHECK(counted.most_frequent(Edit::insertion, 5).at(0).hyp == "d");
  CHECK(counted.most_frequent(Edit::match, 5).empty());
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
