// `asr train --loss lfmmi` and what is done with its recognisers, on speech in miniature.
#include <catch2/catch.hpp>
#include <cmath>

#include "apps/audio/files.h"
#include "nn/checkpoint.h"
#include "tests/apps/tone_corpus.h"

using namespace centroid;
using namespace centroid::test;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

const ToneCorpus& corpus() {
  static const ToneCorpus instance(20);
  return instance;
}

Words tiny(const std::string& out, int steps, const Words& more = {}) {
  const std::string options =
      "--loss lfmmi --rate 8000 --bins 24 --width 32 --hidden 64 --layers 2 --heads 2 --channels 4 "
      "--batch-items 8 --warmup 10 --eval-every 0 --lr 5e-3 --subsampling 2 --no-spec-augment";
  return Words{"train",
               "--train",
               corpus().data("train.jsonl"),
               "--dev",
               corpus().data("train.jsonl"),
               "--vocab",
               corpus().data("vocab.json"),
               "--out",
               out} +
         Words{"--steps", std::to_string(steps)} + audio::split_words(options) + more;
}

}  // namespace

TEST_CASE("a training by LF-MMI begins with silence", "[asr][lfmmi]") {
  TempDir dir;
  const Outcome o = run(dir, "asr", tiny(dir / "run", 1, {"--first-blank", "0.6"}));
  INFO(o.err);
  REQUIRE(o.code == 0);
  for (const auto& [name, weight] : nn::load_checkpoint(dir / "run/last.safetensors").model) {
    if (name != "output.bias") continue;
    const std::vector<float> bias = weight.to_vector<float>();
    const auto others = static_cast<double>(bias.size() - 1);
    CHECK(bias[0] == Approx(std::log(0.6 / 0.4 * others)).margin(2e-3));
    CHECK(bias[1] == Approx(0).margin(0.5));
  }
}

TEST_CASE("asr learns tones by LF-MMI, is evaluated and transcribes", "[asr][lfmmi]") {
  TempDir dir;
  for (const auto& [topology, steps] :
       std::vector<std::pair<std::string, int>>{{"two-state", 140}, {"ctc", 60}}) {
    const std::string model = dir / topology;
    const Outcome o = run(dir, "asr", tiny(model, steps, {"--topology", topology}));
    INFO(o.err);
    REQUIRE(o.code == 0);
    const Outcome eval = run(
        dir, "asr", {"eval", "--model", model, "--data", corpus().data("train.jsonl"), "--json"});
    INFO(eval.err);
    REQUIRE(eval.code == 0);
    const json result = json::parse(eval.out);
    CHECK(result.at("rate").get<double>() < 0.15);
    CHECK(result.at("loss").get<double>() < 0.5);
    CHECK(result.at("loss").get<double>() >= 0);

    const Outcome said =
        run(dir, "asr", {"transcribe", "--model", model, "--json", corpus().dir / "tones/u03.wav"});
    REQUIRE(said.code == 0);
    const json t = json::parse(said.out);
    double last = 0;
    for (const json& token : t.at("tokens")) {
      CHECK(token.at("begin").get<double>() >= last);
      last = token.at("end").get<double>();
    }
    CHECK(last > 0);
    CHECK(last < t.at("seconds").get<double>() + 0.1);
  }
}

TEST_CASE("recognisers of LF-MMI with CTC's topology are searched and aligned", "[asr][lfmmi]") {
  TempDir dir;
  const std::string set = corpus().data("train.jsonl"), arpa = dir / "letters.arpa";
  REQUIRE(run(dir, "asr", {"lm", "--manifest", set, "--unit", "characters", "--out", arpa}).code ==
          0);
  for (const bool ctc : {true, false}) {
    const std::string model = dir / (ctc ? "ctc" : "two-state");
    const Words topology{"--topology", ctc ? "ctc" : "two-state"};
    REQUIRE(run(dir, "asr", tiny(model, ctc ? 60 : 1, topology)).code == 0);
    const Words with{"--model", model, "--data", set};
    const Outcome greedy = run(dir, "asr", Words{"eval", "--json"} + with);
    const Outcome beam =
        run(dir, "asr", Words{"eval", "--json", "--lm", arpa, "--lm-weight", "0.3"} + with);
    const Outcome tuned = run(dir, "asr", Words{"tune", "--lm", arpa, "--rounds", "1"} + with);
    const Outcome aligned = run(dir, "asr", Words{"align", "--out", dir / "aligned"} + with);
    CHECK(greedy.code == 0);
    if (ctc) {
      const auto rate = [](const Outcome& o) {
        return json::parse(o.out).at("rate").get<double>();
      };
      INFO(beam.err);
      REQUIRE(beam.code == 0);
      CHECK(rate(beam) < rate(greedy) + 0.05);
      CHECK(tuned.code == 0);
      CHECK(aligned.code == 0);
    } else {
      for (const Outcome& o : {beam, tuned, aligned}) CHECK_THAT(o.err, Contains("CTC's blank"));
    }
  }
}

TEST_CASE("a training by LF-MMI resumes bit for bit, on any number of threads", "[asr][lfmmi]") {
  TempDir dir;
  const Words more{"--ngram-order", "2", "--topology", "ctc", "--save-every", "3"};
  const std::string whole = dir / "whole", killed = dir / "killed";
  REQUIRE(run(dir, "asr", tiny(whole, 20, more + Words{"--threads", "1"})).code == 0);
  train_and_kill(dir, tiny(killed, 20, more + Words{"--threads", "3"}), killed);
  const Outcome resumed = run(dir, "asr", {"train", "--resume", killed});
  INFO(resumed.err);
  REQUIRE(resumed.code == 0);
  const auto lines = log_lines(whole);
  CHECK(lines.size() >= 20);
  CHECK(log_lines(killed) == lines);
}

TEST_CASE("with a lexicon every pronunciation of a word counts as right", "[asr][lfmmi]") {
  TempDir dir;
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(dir / name) << text;
    return dir / name;
  };
  std::string table;  // each letter a word
  for (char c : read_text(corpus().dir / "tones/transcripts.tsv")) {
    const bool letter = table.find('\t', table.rfind('\n') + 1) != table.npos && c != '\n';
    table += letter ? std::string{c, ' '} : std::string{c};
  }
  const std::string one = write("one", "a A\nb B\nc C\nd D D\n");
  const Outcome prepared =
      run(dir, "asr",
          {"prepare", "--format", "table", "--source", corpus().dir / "tones", "--transcripts",
           write("table.tsv", table), "--lexicon", one, "--out", dir / "data"});
  INFO(prepared.err);
  REQUIRE(prepared.code == 0);
  int runs = 0;
  const auto train = [&](const Words& more, const std::string& loss = "lfmmi") {
    Words words = tiny(dir / std::to_string(runs++), 3, more);
    *std::find(words.begin(), words.end(), "lfmmi") = loss;
    words[2] = words[4] = dir / "data/train.jsonl";
    words[6] = dir / "data/vocab.json";
    return run(dir, "asr", words);
  };
  REQUIRE(train({}).code == 0);
  REQUIRE(train({"--lexicon", one}).code == 0);
  CHECK(log_lines(dir / "1") == log_lines(dir / "0"));

  REQUIRE(train({"--lexicon", write("two", "a A\na(2) C\nb B\nc C\nd D D\n")}).code == 0);
  const auto first_loss = [&](const std::string& name) {
    return json::parse(log_lines(dir / name).at(0)).at("loss").get<double>();
  };
  CHECK(first_loss("2") < first_loss("1"));

  const auto error = [&](const Words& more, const std::string& loss = "lfmmi") {
    const Outcome o = train(more, loss);
    CHECK(o.code == 1);
    return o.err;
  };
  CHECK_THAT(error({"--lexicon", write("few", "a A\nb B\n")}),
             Contains("u0") && Contains("is not in the lexicon"));
  CHECK_THAT(error({"--lexicon", write("odd", "a X\nb B\nc C\nd D\n")}), Contains("\"X\""));
  CHECK_THAT(error({"--lexicon", one}, "ctc"), Contains("--lexicon: expected --loss"));
}

TEST_CASE("options of LF-MMI that cannot be are refused", "[asr][lfmmi]") {
  TempDir dir;
  const auto error = [&](const Words& more) {
    const Outcome o = run(dir, "asr", tiny(dir / "run", 1, more));
    CHECK(o.code != 0);
    return o.err;
  };
  CHECK_THAT(error({"--topology", "hmm"}), Contains("one-state"));
  CHECK_THAT(error({"--leaky", "-1"}), Contains("--leaky"));
  CHECK_THAT(error({"--silence", "1"}), Contains("--silence"));
  CHECK_THAT(error({"--ngram-order", "9"}), Contains("--ngram-order"));
}
