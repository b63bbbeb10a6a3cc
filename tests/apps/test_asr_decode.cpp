// Language models and decoding as a user of the program `asr` meets them.
#include <catch2/catch.hpp>
#include <set>

#include "apps/audio/files.h"
#include "apps/audio/manifest.h"
#include "tests/apps/process.h"
#include "tests/tones.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// Tones, a recogniser of them, language models of their letters and words, a lexicon: made once.
struct Trained {
  Trained() {
    make_tones(dir / "tones", 40);
    must({"prepare", "--format", "table", "--source", dir / "tones", "--transcripts",
          dir / "tones/transcripts.tsv", "--unit", "characters", "--out", dir / "data"});
    must(Words{"train", "--train", data("train"), "--dev", data("dev"), "--vocab",
               dir / "data/vocab.json", "--out", dir / "run"} +
         audio::split_words("--rate 8000 --bins 24 --width 32 --hidden 64 --layers 2 --heads 2 "
                            "--channels 4 --batch-items 8 --warmup 10 --eval-every 100 --lr 5e-3 "
                            "--freq-width 2 --time-width 3 --steps 220 --subsampling 2"));
    must({"lm", "--manifest", data("train"), "--unit", "characters", "--order", "2", "--out",
          dir / "letters.arpa"});
    must({"lm", "--manifest", data("train"), data("test"), "--order", "1", "--out",
          dir / "words.arpa.gz"});
    std::set<std::string> words;
    for (const char* set : {"train", "dev", "test"}) {
      for (const auto& u : audio::read_manifest(data(set))) words.insert(u.text);
    }
    std::string lines;
    for (const std::string& word : words) {
      lines += word;
      for (const char letter : word) lines += std::string(" ") + letter;
      lines += "\n";
    }
    std::ofstream(dir / "lexicon.txt") << lines;
  }
  std::string data(const std::string& set) const { return dir / ("data/" + set + ".jsonl"); }
  Outcome must(const Words& words) const {
    const Outcome o = run(dir, "asr", words);
    if (o.code != 0) throw Error(o.err);
    return o;
  }
  Outcome eval(const Words& more) const {
    return run(dir, "asr", Words{"eval", "--model", dir / "run", "--data", data("test")} + more);
  }
  TempDir dir;
};

const Trained& trained() {
  static const Trained instance;
  return instance;
}

json rate_of(const Words& more) {
  const Outcome o = trained().eval(more + Words{"--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  return json::parse(o.out);
}

}  // namespace

TEST_CASE("asr lm trains, prunes and tests language models", "[asr-decode]") {
  TempDir dir;
  std::ofstream(dir / "text") << "the cat sat\nthe cat\n\nA dog\n";
  std::ofstream(dir / "other") << "the dog flew\n";
  const Outcome o = run(dir, "asr",
                        {"lm", "--text", dir / "text", "--order", "2", "--lowercase", "--out",
                         dir / "lm.arpa", "--test", dir / "other", "--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const json r = json::parse(o.out);
  CHECK(r.at("sentences") == 3);
  CHECK(r.at("tokens") == 7);
  CHECK(r.at("orders").size() == 2);
  CHECK(r.at("tests")[0].at("unknown") == 1);
  CHECK_THAT(read_text(dir / "lm.arpa"), Contains("\ta dog"));
  const Outcome again =
      run(dir, "asr", {"lm", "--lm", dir / "lm.arpa", "--test", dir / "other", "--json"});
  CHECK(json::parse(again.out).at("tests") == r.at("tests"));
  const Outcome text = run(dir, "asr",
                           {"lm", "--text", dir / "text", "--unit", "characters", "--out",
                            dir / "c.arpa", "--test", dir / "other"});
  CHECK_THAT(text.out, Contains("1-grams") && Contains("other: perplexity"));
  CHECK_THAT(read_text(dir / "c.arpa"), Contains("<space> c a"));
  const Outcome pruned = run(dir, "asr",
                             {"lm", "--text", dir / "text", "--order", "3", "--prune", "0,1,1",
                              "--out", dir / "pruned.arpa", "--min-count", "2"});
  INFO(pruned.err);
  CHECK_THAT(read_text(dir / "pruned.arpa"), Contains("ngram 1=5"));

  const auto error = [&](const Words& words) { return run(dir, "asr", Words{"lm"} + words).err; };
  std::ofstream(dir / "bad") << "fine\nnot </s> fine\n";
  CHECK_THAT(error({"--text", dir / "bad", "--out", dir / "x"}),
             Contains("bad:2: n-gram training: expected words, got </s>"));
  CHECK_THAT(error({"--lm", dir / "lm.arpa", "--test", dir / "bad"}),
             Contains("bad:2: n-gram scoring: expected words, got </s>"));
  std::ofstream(dir / "none") << "\n";
  CHECK_THAT(error({"--text", dir / "text", "--out", dir / "x", "--words", dir / "none"}),
             Contains("none: expected words, got none"));
  CHECK_THAT(error({"--out", dir / "x"}), Contains("--text or --manifest"));
  CHECK_THAT(error({"--text", dir / "text"}), Contains("--out"));
  CHECK_THAT(error({"--text", dir / "text", "--out", dir / "x", "--prune", "0,2,1"}),
             Contains("numbers that do not fall"));
  CHECK_THAT(error({"--manifest", trained().data("train"), "--unit", "phones", "--out", dir / "x"}),
             Contains("train.jsonl:1: utterance") && Contains("has no phones"));
}

TEST_CASE("asr eval decodes with beams, language models and lexicons", "[asr-decode]") {
  const Trained& t = trained();
  const json greedy = rate_of({});
  CHECK(greedy.at("decoder").at("beam") == 1);
  const json beam =
      rate_of({"--lm", t.dir / "letters.arpa", "--lm-weight", "0.3", "--word-score", "0.5"});
  CHECK(beam.at("decoder").at("beam") == 16);
  CHECK(beam.at("decoder").at("lm-unit") == "tokens");
  CHECK(beam.at("rate").get<double>() < greedy.at("rate").get<double>() + 0.1);
  CHECK(beam.at("coverage").at("unknown_to_lm") == 0);

  TempDir dir;
  const json words =
      rate_of({"--lexicon", t.dir / "lexicon.txt", "--lm", t.dir / "words.arpa.gz", "--beam", "32",
               "--hyp", dir / "hyp", "--nbest", "4", "--nbest-out", dir / "nbest.jsonl"});
  CHECK(words.at("rate_name") == "WER");
  CHECK(words.at("decoder").at("lm-unit") == "words");
  CHECK(words.at("coverage").at("unknown_to_lexicon") == 0);
  CHECK(words.at("rate").get<double>() <= rate_of({"--score", "words"}).at("rate"));
  const auto lines = audio::read_lines(dir / "hyp");
  const auto lists = audio::read_lines(dir / "nbest.jsonl");
  REQUIRE(lines.size() == words.at("utterances").get<size_t>());
  REQUIRE(lists.size() == lines.size());
  for (size_t i = 0; i < lists.size(); ++i) {
    const json list = json::parse(lists[i]);
    const json& best = list.at("nbest")[0];
    CHECK(lines[i] ==
          audio::trim(list.at("id").get<std::string>() + " " + best.at("text").get<std::string>()));
    CHECK(list.at("nbest").size() <= 4);
    const auto& o = words.at("decoder");
    CHECK(best.at("score").get<double>() ==
          Approx(best.at("acoustic").get<double>() +
                 o.at("lm-weight").get<double>() * best.at("lm").get<double>() +
                 o.at("word-score").get<double>() * best.at("units").get<double>()));
    for (const json& word : best.at("words")) {
      CHECK(word.at("end").get<double>() > word.at("begin").get<double>());
      CHECK(word.at("confidence").get<double>() >= 0);
      CHECK(word.at("confidence").get<double>() <= 1);
    }
  }
  // The LM's words as the lexicon: the same words but those of the dev set.
  const json spelled = rate_of({"--lm", t.dir / "words.arpa.gz", "--lm-words", "--beam", "32"});
  CHECK(spelled.at("rate").get<double>() <= words.at("rate").get<double>() + 1e-9);
}

TEST_CASE("asr eval says what the lexicon lacks", "[asr-decode]") {
  const Trained& t = trained();
  TempDir dir;
  std::ofstream(dir / "small.txt") << "abc a b c\n";
  const Outcome o = t.eval({"--lexicon", dir / "small.txt"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  CHECK_THAT(o.err, Contains("warning: the lexicon lacks") && Contains("can never be right"));
  CHECK_THAT(o.out, Contains("decoder: beam 16") && Contains("(1 words)") && Contains("test WER"));
  std::ofstream(dir / "odd.txt") << "abc a b c\nx x\n";
  CHECK_THAT(t.eval({"--lexicon", dir / "odd.txt"}).err, Contains("x of x"));
  CHECK_THAT(t.eval({"--lexicon", dir / "odd.txt", "--lexicon-skip"}).out,
             Contains("1 pronunciations left out"));
}

TEST_CASE("asr tune finds weights, and eval and transcribe take them", "[asr-decode]") {
  const Trained& t = trained();
  TempDir dir;
  const Words common = {"--model",     t.dir / "run", "--data",
                        t.data("dev"), "--lm",        t.dir / "letters.arpa"};
  const Words tune = Words{"tune"} + common +
                     Words{"--lm-weights", "0,0.5,3", "--word-scores", "0,1", "--beam", "8"};
  const Outcome o = run(dir, "asr", tune + Words{"--out", dir / "best.json", "--json"});
  INFO(o.err);
  REQUIRE(o.code == 0);
  const json r = json::parse(o.out);
  CHECK(r.at("rescored").size() == 6);
  CHECK(json::parse(read_text(dir / "best.json")) == r.at("decoder"));
  const std::string dev = t.data("dev");
  for (const char* flag : {"--decoder", "--config"}) {
    const Outcome e =
        run(dir, "asr",
            {"eval", "--model", t.dir / "run", "--data", dev, flag, dir / "best.json", "--json"});
    INFO(e.err);
    REQUIRE(e.code == 0);
    CHECK(json::parse(e.out).at("rate") == r.at("rate"));
    CHECK(json::parse(e.out).at("decoder") == r.at("decoder"));
  }
  const json wider = rate_of({"--decoder", dir / "best.json", "--beam", "9"});
  CHECK(wider.at("decoder").at("beam") == 9);
  CHECK(wider.at("decoder").at("lm") == r.at("decoder").at("lm"));
  CHECK_THAT(run(dir, "asr", tune).out, Contains("LM weight") && Contains("best: --lm-weight"));
  CHECK(run(dir, "asr", tune + Words{"--json", "--threads", "1"}).out == o.out);

  const std::string wav = t.dir / "tones/u09.wav";
  const Outcome one = run(dir, "asr",
                          {"transcribe", "--model", t.dir / "run", "--decoder", dir / "best.json",
                           "--nbest", "3", "--json", wav});
  INFO(one.err);
  REQUIRE(one.code == 0);
  const json said = json::parse(one.out);
  CHECK(said.at("others").size() <= 2);
  CHECK(said.at("tokens").size() == said.at("text").get<std::string>().size());
  const Outcome times = run(
      dir, "asr",
      {"transcribe", "--model", t.dir / "run", "--times", "--lexicon", t.dir / "lexicon.txt", wav});
  CHECK(audio::split_words(times.out).size() >= 5);  // the text; begin, end, confidence, word
}

TEST_CASE("decoding options that do not fit are refused", "[asr-decode]") {
  const Trained& t = trained();
  TempDir dir;
  const auto error = [&](const Words& more) {
    const Outcome o = t.eval(more);
    CHECK(o.code == 1);
    return o.err;
  };
  std::ofstream(dir / "keys.json") << R"({"beams": 3})";
  CHECK_THAT(error({"--decoder", dir / "keys.json"}),
             Contains("got \"beams\"") && Contains("nearest: \"beam\""));
  std::ofstream(dir / "value.json") << R"({"beam": "many"})";
  CHECK_THAT(error({"--decoder", dir / "value.json"}), Contains("value.json"));
  std::ofstream(dir / "broken.arpa") << "\\data\\\nngram 1=x\n";
  CHECK_THAT(error({"--lm", dir / "broken.arpa"}), Contains("broken.arpa:2: expected ngram"));
  CHECK_THAT(error({"--nbest", "4"}), Contains("--beam 2 or more"));
  CHECK_THAT(error({"--lm-words"}), Contains("expected --lm FILE"));
  CHECK_THAT(error({"--lexicon", dir / "none.txt"}), Contains("none.txt"));
  CHECK_THAT(error({"--silence", "a"}), Contains("needs a lexicon"));
  CHECK_THAT(error({"--lm", t.dir / "words.arpa.gz", "--lm-unit", "tokens"}),
             Contains("none of the recogniser's"));
  CHECK_THAT(run(dir, "asr", {"tune", "--model", t.dir / "run", "--data", t.data("dev")}).err,
             Contains("expected --lm or --lexicon"));
  CHECK_THAT(run(dir, "asr",
                 {"tune", "--model", t.dir / "run", "--data", t.data("dev"), "--lm",
                  t.dir / "letters.arpa", "--lm-weights", "1,0.5,1"})
                 .err,
             Contains("got one twice"));
  CHECK(t.eval({"--lm-weight", "-1"}).code == 2);
}
