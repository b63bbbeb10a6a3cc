// From what a reader finds to manifests: sets, vocabularies, lists of problems, and the command.
#include "apps/audio/preparation.h"

#include <algorithm>
#include <map>

#include "apps/audio/files.h"
#include "tensor/parallel.h"
#include "tests/apps/audio_support.h"
#include "tests/apps/process.h"
#include "tests/tones.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using centroid::test::Outcome;
using centroid::test::run;
using centroid::test::operator+;
using centroid::test::Words;
using nlohmann::json;
using Strings = std::vector<std::string>;

namespace {

Utterance timed(const std::string& id, const std::string& text, double seconds = 1) {
  Utterance u;
  u.id = id;
  u.audio = "/" + id + ".wav";
  u.duration = seconds;
  u.text = text;
  return u;
}

PreparationOptions unchecked(const TempFolder& folder, Unit unit = Unit::characters) {
  PreparationOptions o;
  o.out = folder.path();
  o.check.unit = unit;
  o.check.sound = SoundCheck::none;
  o.vocab_from_all = true;
  o.rare = 0;
  return o;
}

// Kinds and ids of a list of problems.
std::multimap<std::string, std::string> problems_in(const std::string& path) {
  std::multimap<std::string, std::string> found;
  for (const Problem& p : read_problems(path)) found.emplace(name_of(p.kind), p.id);
  return found;
}

Strings ids_in(const std::string& manifest) {
  Strings ids;
  for (const Utterance& u : read_manifest(manifest)) ids.push_back(u.id);
  return ids;
}

Outcome prepare(const TempFolder& folder, const Words& more) {
  return run(folder, "asr", Words{"prepare", "--out", folder / "out"} + more);
}

}  // namespace

TEST_CASE("Given sets, faults and warnings end where they belong", "[preparation]") {
  TempFolder folder;
  PreparationOptions o = unchecked(folder);
  o.rare = 2;
  o.check.longest = 5;
  Preparation p(o, split_every_10th());
  p.begin_set(Set::train);
  p.accept(timed("a", "abba", 0.2), "m:1");
  p.accept(timed("b", "ab x", 6), "m:2");
  p.accept(timed("a", "ab"), "m:3");
  p.reject({"m:4", "no JSON", ProblemKind::format});
  p.begin_set(Set::dev);
  p.accept(timed("d", "ba"), "");
  p.accept(timed("s", "aaaa", 0.2), "");  // 18 frames: 5 positions; 4 symbols need 7
  p.begin_set(Set::test);
  p.accept(timed("e", " "), "");
  p.examine();
  CHECK(p.problems().faults() == 4);
  CHECK(p.problems().warnings() == 3);
  CHECK(p.usable() == 3);
  REQUIRE(p.sets().size() == 3);
  const SetSummary& train = p.sets()[0];
  CHECK(train.utterances == 2);
  CHECK(train.seconds == Approx(6.2));
  CHECK(train.shortest == 0.2);
  CHECK(train.longest == 6);
  CHECK(train.mean() == Approx(3.1));
  CHECK(train.symbols == 8);
  CHECK(train.distinct.size() == 4);
  CHECK(p.sets()[1].utterances == 1);
  CHECK(p.sets()[2].utterances == 0);
  CHECK_FALSE(fs::exists(folder / "train.jsonl"));
  p.commit();
  CHECK(ids_in(folder / "train.jsonl") == Strings{"a", "b"});
  CHECK(ids_in(folder / "dev.jsonl") == Strings{"d"});
  CHECK(ids_in(folder / "test.jsonl").empty());
  CHECK(read_vocab(folder / "vocab.json").tokens() == Strings{"<blank>", "<space>", "a", "b", "x"});
  const auto bad = problems_in(folder / "problems.tsv");
  CHECK(bad == std::multimap<std::string, std::string>{{"duplicate", "a"},
                                                       {"format", "m:4"},
                                                       {"no-text", "e"},
                                                       {"too-short", "s"},
                                                       {"too-long", "b"},
                                                       {"rare-symbol", "b"},
                                                       {"rare-symbol", "b"}});
  for (const Problem& problem : read_problems(folder / "problems.tsv")) {
    if (problem.kind == ProblemKind::duplicate) CHECK(problem.what == "m:3: the id appears twice");
  }
  // Nothing else is left in the folder.
  CHECK(std::distance(fs::directory_iterator(folder.path()), {}) == 5);
}

TEST_CASE("Vocabularies: of the training set, given, and of the wrong unit", "[preparation]") {
  TempFolder folder;
  const auto prepare_with = [&](PreparationOptions o) {
    Preparation p(std::move(o), split_none());
    p.begin_set(Set::train);
    p.accept(timed("a", "ab"), "");
    p.begin_set(Set::test);
    p.accept(timed("b", "abc"), "");
    p.examine();
    p.commit();
    return problems_in(folder / "problems.tsv");
  };
  PreparationOptions o = unchecked(folder);
  CHECK(prepare_with(o).empty());
  o.vocab_from_all = false;
  CHECK(prepare_with(o) == std::multimap<std::string, std::string>{{"unknown-symbol", "b"}});
  write_vocab(folder / "given.json", Vocab(Unit::characters, {"b", "a", "c", "d"}));
  o.vocab = folder / "given.json";
  CHECK(prepare_with(o).empty());
  CHECK(read_vocab(folder / "vocab.json") == read_vocab(folder / "given.json"));
  write_vocab(folder / "given.json", Vocab(Unit::words, {"ab"}));
  CHECK_THAT(message_of([&] { prepare_with(o); }), Contains("expected characters, got a vocabul"));
}

TEST_CASE("Sub-words cover the characters that only the other sets have", "[preparation]") {
  if (!Subwords::available()) return;
  for (const char* type : {"unigram", "bpe"}) {
    for (const bool all : {true, false}) {
      TempFolder folder;
      PreparationOptions o = unchecked(folder, Unit::subwords);
      o.vocab_from_all = all;
      o.subwords.size = 7;
      o.subwords.type = type;
      Preparation p(o, split_none());
      for (int i = 0; i < 40; ++i) {
        p.begin_set(i == 0 ? Set::test : Set::train);
        p.accept(timed("u" + std::to_string(i), i == 0  ? "go Ж on"
                                                : i % 2 ? "go on"
                                                        : "no one"),
                 "");
      }
      p.examine();
      p.commit();
      const auto bad = problems_in(folder / "problems.tsv");
      CHECK(bad.count("unknown-symbol") == (all ? 0 : 1));
      CHECK(p.vocab().size() == 8);
    }
  }
}

TEST_CASE("A lexicon gives phones, its used part and the words it lacks", "[preparation]") {
  TempFolder folder;
  const Lexicon lexicon =
      parse_lexicon("no N OW\nno N AH\nyes Y EH S\nmaybe M EY B IY\n", "lexicon");
  PreparationOptions o = unchecked(folder, Unit::phones);
  o.check.lexicon = &lexicon;
  Preparation p(o, split_none());
  p.accept(timed("a", "yes no"), "");
  p.accept(timed("b", "no way"), "");
  p.examine();
  p.commit();
  CHECK(problems_in(folder / "problems.tsv") ==
        std::multimap<std::string, std::string>{{"unknown-word", "b"}});
  CHECK(read_manifest(folder / "train.jsonl")[0].phones == Strings{"Y", "EH", "S", "N", "OW"});
  CHECK(slurp(folder / "lexicon.txt") == "no N OW\nno N AH\nyes Y EH S\n");
}

TEST_CASE("A corpus is the same on any number of threads, and problems keep its order",
          "[preparation]") {
  std::string first;
  for (const int threads : {1, 2, 4}) {
    TempFolder folder;
    centroid::set_num_threads(threads);
    PreparationOptions o = unchecked(folder);
    o.check.sound = SoundCheck::full;
    Preparation p(o, split_every_10th());
    const std::string tone = folder.write_tone("tone.wav", 1.0, 8000);
    for (int i = 0; i < 600; ++i) {
      Utterance u = timed("u" + std::to_string(10000 + i), "ab");
      u.audio = i % 7 == 3 ? "/none.wav" : tone;
      u.offset = i % 3 * 0.1;
      u.duration = 0.5;
      p.accept(u, "");
      if (i % 50 == 0) p.reject({"line" + std::to_string(i), "bad", ProblemKind::format});
    }
    p.examine();
    p.commit();
    const auto list = read_problems(folder / "problems.tsv");
    CHECK(list.size() == 86 + 12);
    CHECK(list[0].id == "line0");
    CHECK(list[1].id == "u10003");
    std::string all;
    for (const char* name : {"train", "dev", "test"}) {
      all += slurp(folder / (std::string(name) + ".jsonl"));
    }
    all += slurp(folder / "problems.tsv");
    for (size_t at; (at = all.find(folder.path())) != all.npos;) {
      all.erase(at, folder.path().size());
    }
    if (first.empty()) first = all;
    CHECK(all == first);
  }
  centroid::set_num_threads(0);
}

TEST_CASE("Names that are no UTF-8 are problems of their utterances", "[preparation]") {
  TempFolder folder;
  for (const char* take : {"0", "1", "2"}) {
    folder.write_tone(std::string("7_theo_") + take + ".wav", 0.5);
  }
  folder.write_tone("7_the\xff_3.wav", 0.5);
  folder.write_tone("the\xff.wav", 0.5);
  const Words corpus = {"--format", "fsdd", "--source", folder.path(), "--unit", "words"};
  for (const Words& more : {Words{}, Words{"--json"}}) {
    const Outcome o = prepare(folder, corpus + Words{"--skip-bad"} + more);
    REQUIRE(o.code == 0);
    CHECK(ids_in(folder / "out/train.jsonl") == Strings{"7_theo_0", "7_theo_1", "7_theo_2"});
    CHECK(problems_in(folder / "out/problems.tsv") ==
          std::multimap<std::string, std::string>{{"format", "7_the\\xFF_3"},
                                                  {"format", "the\\xFF.wav"}});
  }
}

TEST_CASE("Problems survive their file", "[preparation]") {
  TempFolder folder;
  ProblemLog log(folder / "p.tsv");
  for (int i = 0; i < kProblemKinds; ++i) {
    log.add({"id\t" + std::to_string(i), "a\tb\nc\\n\rd", static_cast<ProblemKind>(i)});
  }
  CHECK(log.faults() == 11);
  CHECK(log.warnings() == 3);
  log.commit();
  const auto read = read_problems(folder / "p.tsv");
  REQUIRE(read.size() == kProblemKinds);
  for (int i = 0; i < kProblemKinds; ++i) {
    CHECK(read[i].id == "id\t" + std::to_string(i));
    CHECK(read[i].what == "a\tb\nc\\n\rd");
    CHECK(read[i].kind == static_cast<ProblemKind>(i));
  }
  CHECK_THAT(message_of([&] { read_problems(folder.write("x", "kind\n")); }), Contains("x:1:"));
  CHECK_THAT(message_of([&] { read_problems(folder.write("x", "kind\tid\twhat\nodd\ta\tb\n")); }),
             Contains("x:2: expected a kind of problem, got odd"));
}

TEST_CASE("asr prepare: table, figures, picture; --strict and --skip-bad", "[preparation]") {
  TempFolder folder;
  centroid::test::make_tones(folder / "tones", 20);
  const Words table = {"--format",       "table",         "--source",
                       folder / "tones", "--transcripts", folder / "tones/transcripts.tsv"};
  Outcome o = prepare(folder, table);
  REQUIRE(o.code == 0);
  CHECK_THAT(o.out, Contains("train          16") && Contains("4 characters, and the blank"));
  CHECK(fs::exists(folder / "out/vocab.json"));
  CHECK(slurp(folder / "out/problems.tsv") == "kind\tid\twhat\n");
#ifdef CENTROID_HAVE_STB
  CHECK(slurp(folder / "out/lengths.png").starts_with("\x89PNG"));
#endif
  o = prepare(folder, table + Words{"--json", "--longest", "0.5"});
  REQUIRE(o.code == 0);
  const json result = json::parse(o.out);
  CHECK(result.at("train").at("utterances") == 16);
  CHECK(result.at("train").at("max_seconds") > 0.5);
  REQUIRE(!result.at("problems").empty());
  CHECK(result.at("problems")[0].at("kind") == "too-long");
  CHECK(result.at("problems")[0].at("used") == true);
  CHECK_THAT(o.err, Contains("warning: "));
  o = prepare(folder, table + Words{"--strict", "--longest", "0.5"});
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("warnings") && Contains("--strict"));

  fs::remove(folder / "tones/u03.wav");
  fs::remove_all(folder / "out");
  o = prepare(folder, table);
  CHECK(o.code == 1);
  CHECK_THAT(o.err, Contains("problem: u03") && Contains("--skip-bad"));
  CHECK_FALSE(fs::exists(folder / "out/train.jsonl"));
  CHECK(problems_in(folder / "out/problems.tsv").count("missing") == 1);
  o = prepare(folder, table + Words{"--skip-bad", "--uppercase"});
  CHECK(o.code == 0);
  CHECK_THAT(o.out, Contains("missing") && Contains("left out"));
  CHECK(read_vocab(folder / "out/vocab.json").tokens() == Strings{"<blank>", "A", "B", "C", "D"});
  CHECK(prepare(folder, table + Words{"--lowercase", "--uppercase"}).code == 1);
  CHECK(prepare(folder, table + Words{"--rare", "-1"}).code == 2);
}

TEST_CASE("asr prepare refuses options that would have no effect", "[preparation]") {
  TempFolder folder;
  for (const char* speaker : {"theo", "lucas"}) {
    for (const char* take : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
      folder.write_tone(std::string("fsdd/7_") + speaker + "_" + take + ".wav", 0.5);
    }
  }
  const Words fsdd = {"--format", "fsdd", "--source", folder / "fsdd", "--unit", "words"};
  const Words digits = {"--format", "digits", "--source", folder / "fsdd", "--unit", "words"};
  const auto refuses = [&](const Words& words, const char* option, const char* expected) {
    const Outcome o = prepare(folder, words);
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains(std::string("error: ") + option + ": of no use here: expected ") &&
                          Contains(expected));
    CHECK_FALSE(fs::exists(folder / "out"));
  };
  refuses(fsdd + Words{"--leave-out", "theo"}, "--leave-out", "--format digits");
  refuses(fsdd + Words{"--dev-speakers", "theo"}, "--dev-speakers", "--split speakers");
  refuses(fsdd + Words{"--split", "speakers", "--dev-ids", "x"}, "--dev-ids", "--split lists");
  refuses(fsdd + Words{"--dev-fraction", "0.2"}, "--dev-fraction", "--split hash or texts");
  refuses(digits + Words{"--split", "none"}, "--split", "another --format");
  refuses(digits + Words{"--dev-source", "x"}, "--dev-source", "another --format");
  refuses(fsdd + Words{"--subword-model", "x"}, "--subword-model", "--unit subwords");
  refuses(fsdd + Words{"--transcripts", "x"}, "--transcripts", "--format asterisk");
  // Defaults may be given, as a file of --dump-config gives them.
  const Outcome dump = prepare(folder, fsdd + Words{"--dump-config"});
  REQUIRE(dump.code == 0);
  const Outcome o = prepare(folder, {"--config", folder.write("c.json", dump.out)});
  INFO(o.err);
  CHECK(o.code == 0);
}

TEST_CASE("asr prepare: Common Voice in its own sets, Kaldi folders for each set",
          "[preparation]") {
  TempFolder folder;
  const auto row = [&](const std::string& id, const std::string& text) {
    folder.write_tone("cv/clips/" + id + ".wav", 0.5);
    return "speaker\t" + id + ".wav\t" + text + "\n";
  };
  const std::string header = "client_id\tpath\tsentence\n";
  folder.write("cv/train.tsv", header + row("a", "Ano.") + row("b", "Ne."));
  folder.write("cv/dev.tsv", header + row("c", "Ano, ne."));
  folder.write("cv/test.tsv", header + row("d", "Ne!"));
  const Words corpus = {"--format", "commonvoice", "--source", folder / "cv"};
  const Words text = {"--lowercase", "--strip-punctuation", "--rare", "0"};
  Outcome o = prepare(folder, corpus + text);
  REQUIRE(o.code == 0);
  CHECK(ids_in(folder / "out/train.jsonl") == Strings{"a", "b"});
  CHECK(ids_in(folder / "out/dev.jsonl") == Strings{"c"});
  CHECK(read_manifest(folder / "out/dev.jsonl")[0].text == "ano ne");
  CHECK(read_manifest(folder / "out/dev.jsonl")[0].speaker == "speaker");
  o = prepare(folder, corpus + text + Words{"--split", "none"});
  REQUIRE(o.code == 0);
  CHECK(ids_in(folder / "out/all.jsonl") == Strings{"a", "b", "c", "d"});
  CHECK(prepare(folder, corpus + Words{"--dev-source", "x"}).code == 1);

  for (const char* set : {"train", "dev"}) {
    const std::string id = std::string("k-") + set;
    folder.write_tone(std::string("kaldi/") + set + "/x.wav", 0.5);
    folder.write(std::string("kaldi/") + set + "/wav.scp", id + " x.wav\n");
    folder.write(std::string("kaldi/") + set + "/text", id + " ano\n");
  }
  o = prepare(folder, {"--format", "kaldi", "--source", folder / "kaldi/train", "--dev-source",
                       folder / "kaldi/dev", "--unit", "words", "--json"});
  REQUIRE(o.code == 0);
  CHECK(ids_in(folder / "out/train.jsonl") == Strings{"k-train"});
  CHECK(ids_in(folder / "out/dev.jsonl") == Strings{"k-dev"});
  CHECK(json::parse(o.out).at("vocabulary").at("unit") == "words");
}

TEST_CASE("asr prepare: sub-words and phones of a lexicon", "[preparation]") {
  TempFolder folder;
  centroid::test::make_tones(folder / "tones", 20);
  const Words table = {"--format",       "table",         "--source",
                       folder / "tones", "--transcripts", folder / "tones/transcripts.tsv"};
  const Outcome o = prepare(folder, table + Words{"--unit", "subwords", "--subwords", "12"});
  if (!Subwords::available()) {
    CHECK(o.code == 1);
    CHECK_THAT(o.err, Contains("libsentencepiece-dev"));
  } else {
    REQUIRE(o.code == 0);
    const Vocab vocab = read_vocab(folder / "out/vocab.json");
    CHECK(vocab.size() == 13);
    const Utterance u = read_manifest(folder / "out/train.jsonl")[0];
    CHECK(vocab.text(vocab.decode(vocab.encode(u))) == u.text);
    folder.write("model", vocab.model_bytes());
    const Words given = {"--unit", "subwords", "--subword-model", folder / "model"};
    CHECK(prepare(folder, table + given).code == 0);
    CHECK(read_vocab(folder / "out/vocab.json") == vocab);
    folder.write("model", "no model");
    CHECK_THAT(prepare(folder, table + given).err, Contains("model: sub-words: expected a model"));
    CHECK_THAT(prepare(folder, table + Words{"--unit", "subwords", "--subwords", "9999"}).err,
               Contains("sub-words: training 9999 pieces"));
  }
  folder.write("lexicon", "x Y\n");
  const Outcome missing =
      prepare(folder, table + Words{"--lexicon", folder / "lexicon", "--skip-bad"});
  CHECK(missing.code == 1);
  CHECK_THAT(missing.err, Contains("not in the lexicon: ") && Contains("no utterance is left"));
  CHECK(prepare(folder, table + Words{"--lexicon", folder / "lexicon", "--unit", "words"}).code ==
        1);
}
