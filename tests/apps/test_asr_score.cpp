// The command `asr score` as a user runs it.
#include <catch2/catch.hpp>
#include <fstream>

#include "tests/apps/process.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

/// Files of transcripts in a folder, and the command run on them.
struct Files {
  TempDir dir;
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(dir / name) << text;
    return dir / name;
  }
  Outcome score(const Words& arguments) const {
    return run(dir, "asr", Words{"score"} + arguments);
  }
};

struct Small : Files {
  std::string ref = write("ref.trn", "the cat sat (a-1)\non the mat (a-2)\nHello, world (b-1)\n");
  std::string hyp = write("hyp.txt", "a-1 the cat sad\nb-1 hello world\na-2 the mat\n");
};

}  // namespace

TEST_CASE("asr score counts words of any pair of formats", "[score][cli]") {
  Small f;
  const Outcome o = f.score({f.ref, f.hyp});
  CHECK(o.code == 0);
  CHECK_THAT(o.out, Contains("counted: words, costs 4/3/3 as sclite"));
  CHECK_THAT(o.out, Contains("ref.trn (trn), hypotheses ") && Contains("hyp.txt (kaldi)"));
  CHECK_THAT(o.out, Contains("hyp WER 37.5 % (sub 25.0 del 12.5 ins 0.0; 8 tokens)"));
  CHECK_THAT(o.out, Contains("correct 5, sub 2, del 1, ins 0; 3 of 3 sentences wrong (100.0 %)"));
  CHECK_THAT(o.out, Contains("95 % interval") && Contains("10000 draws of utterances"));

  const json plain = json::parse(f.score({f.ref, f.hyp, "--lowercase", "--strip-punctuation",
                                          "--json", "--speakers", "--confusions", "5", "--list"})
                                     .out);
  CHECK(plain["rate"] == 0.25);
  CHECK(plain["settings"] == "words, costs 4/3/3 as sclite, lower case, no punctuation");
  CHECK(plain["speakers"]["a"]["substitutions"] == 1);
  CHECK(plain["speakers"]["b"]["rate"] == 0);
  CHECK(plain["confusions"]["substitutions"][0]["ref"] == "sat");
  CHECK(plain["confusions"]["deletions"][0]["ref"] == "on");
  CHECK(plain["alignments"][1]["pairs"][0] == json({"on", "", "D"}));
  CHECK(plain["interval"]["low"].get<double>() <= 0.25);

  const Outcome letters = f.score({f.ref, f.hyp, "--unit", "characters", "--no-spaces"});
  CHECK_THAT(letters.out, Contains("characters without spaces") && Contains("28 tokens"));
  CHECK_THAT(f.score({f.ref, f.hyp, "--unit", "characters"}).out, Contains("33 tokens"));
}

TEST_CASE("asr score scores phones of manifests and keeps speakers apart", "[score][cli]") {
  Files f;
  const std::string ref =
      f.write("ref.jsonl", R"({"id":"1","audio":"1.wav","text":"x","phones":["a","b"],"speaker":"S"}
{"id":"2","audio":"2.wav","text":"y","phones":["sil","c"],"speaker":"T"}
)");
  const std::string hyp = f.write("hyp.tsv", "id\ttext\n1\ta b\n2\td\n");
  const json j = json::parse(
      f.score({ref, hyp, "--unit", "phones", "--ignore", "sil", "--speakers", "--json"}).out);
  CHECK(j["rate_name"] == "PER");
  CHECK(j["format"] == "tsv");
  CHECK(j["tokens"] == 3);
  CHECK(j["speakers"]["T"]["rate"] == 1);
  const std::string table = f.write("utt2spk", "1 U\n2 U\n");
  CHECK_THAT(f.score({ref, hyp, "--speakers", "--utt2spk", table}).out, Contains("\nU "));
  CHECK_THAT(f.score({ref, hyp, "--utt2spk", f.write("short", "1 U\n")}).err,
             Contains("no speaker for 2"));
  const std::string text = f.write("text.jsonl", "{\"id\":\"1\",\"text\":\"x\"}\n");
  CHECK_THAT(f.score({text, hyp, "--unit", "phones"}).err,
             Contains("1: expected phones, got a text alone"));
  const std::string map = f.write("map", "d c\n");
  CHECK_THAT(f.score({ref, hyp, "--unit", "phones", "--map", map, "--ignore", "sil"}).out,
             Contains("PER 0.0 %") && Contains("mapped by"));
}

TEST_CASE("asr score refuses ids that one side lacks, unless told otherwise", "[score][cli]") {
  Small f;
  const std::string hyp = f.write("part.txt", "a-1 the cat sat\nz-9 more\n");
  const Outcome missing = f.score({f.ref, hyp});
  CHECK(missing.code == 1);
  CHECK_THAT(missing.err, Contains("no hypothesis for 2 of 3 references: a-2, b-1"));
  const Outcome extra = f.score({f.ref, hyp, "--allow-missing"});
  CHECK(extra.code == 1);
  CHECK_THAT(extra.err, Contains("1 hypotheses without a reference") && Contains("z-9"));
  const Outcome both = f.score({f.ref, hyp, "--allow-missing", "--allow-extra"});
  CHECK(both.code == 0);
  CHECK_THAT(both.out, Contains("del 62.5 ins 0.0; 8 tokens") &&
                           Contains("2 missing hypotheses counted as deletions") &&
                           Contains("1 hypotheses without a reference left out"));
  CHECK_THAT(f.score({f.ref, hyp + "x"}).err, Contains("no such file"));
  CHECK(f.score({f.ref}).code == 2);
  CHECK(f.score({f.ref, hyp, "--hyp-format", "stm"}).code == 2);
  CHECK_THAT(f.score({f.ref, hyp, "--hyp-format", "trn"}).err, Contains("expected `words (id)`"));
}

TEST_CASE("asr score compares two systems", "[score][cli]") {
  Files f;
  std::string ref, a, b;
  for (int i = 0; i < 60; ++i) {
    const std::string id = " (s" + std::to_string(i % 4) + "-" + std::to_string(i) + ")\n";
    ref += "one two three four" + id;
    a += (i % 2 ? "one too three four" : "one two three four") + id;
    b += (i % 6 ? "one two three four" : "one two three") + id;
  }
  const std::string r = f.write("r.trn", ref), x = f.write("a.trn", a), y = f.write("b.trn", b);
  const Outcome o = f.score({r, x, "--versus", y});
  CHECK(o.code == 0);
  CHECK_THAT(o.out, Contains("b against a") && Contains("difference -8.33 %"));
  CHECK_THAT(o.out, Contains("MAPSSWE: 40 segments, 30 and 10 errors") && Contains("is rough"));
  CHECK_THAT(o.out, Contains("McNemar: 10 sentences right in a alone, 30 in b alone"));
  const json j = json::parse(f.score({r, x, "--versus", y, "--json", "--seed", "3"}).out);
  CHECK(j["versus"]["deletions"] == 10);
  CHECK(j["comparison"]["probability_of_improvement"].get<double>() > 0.9);
  CHECK(j["comparison"]["mcnemar"]["p"].get<double>() == Approx(0.00222).epsilon(0.01));
  // Two speakers have all errors of a, the other two all of b: four draws leave more doubt.
  const json speakers = json::parse(f.score({r, x, "--versus", y, "--json", "--by-speaker"}).out);
  CHECK(speakers["comparison"]["probability_of_improvement"].get<double>() ==
        Approx(0.816).margin(0.02));
  const json none = json::parse(f.score({r, x, "--versus", x, "--json", "--draws", "0"}).out);
  CHECK(none["interval"].is_null());
  CHECK_FALSE(none["comparison"].contains("interval"));
  CHECK(none["comparison"]["mapsswe"]["p"] == 1);
}

TEST_CASE("asr score with unit costs counts as asr eval does", "[score][cli]") {
  Files f;
  const std::string ref = f.write("r.trn", "a b c d e (s-1)\nx (s-2)\n");
  const std::string hyp = f.write("h.trn", "d e x y z (s-1)\nx (s-2)\n");
  CHECK(json::parse(f.score({ref, hyp, "--json"}).out)["insertions"] == 3);
  const json unit = json::parse(f.score({ref, hyp, "--json", "--costs", "levenshtein"}).out);
  CHECK(unit["substitutions"] == 5);
  CHECK(unit["settings"] == "words, costs 1/1/1 (Levenshtein)");
}
