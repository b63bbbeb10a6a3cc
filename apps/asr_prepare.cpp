// asr prepare: from a speech corpus to checked manifests and a vocabulary.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/audio/files.h"
#include "apps/audio/preparation.h"
#include "apps/common/args.h"
#include "apps/common/plot.h"

namespace centroid::apps {

namespace {

using namespace audio;
using Strings = std::vector<std::string>;
namespace fs = std::filesystem;

struct PrepareCommand {
  CLI::App* sub = nullptr;
  CommonOptions common;
  std::string format, source, dev_source, test_source, transcripts, recordings;
  std::string unit = "auto", split = "auto", vocab_from = "all", check = "full";
  std::string lexicon_file;
  bool lowercase = false, uppercase = false, keep_pauses = false, skip_bad = false, strict = false;
  double dev_fraction = 0.1, test_fraction = 0.1;
  Strings dev_speakers, test_speakers;
  std::string train_ids, dev_ids, test_ids;
  DigitsOptions digits;
  PreparationOptions options;
  Lexicon lexicon;

  void run();

 private:
  Unit symbol() const;
  void check_unused() const;
  void set_options();
  void read_source(const std::string& from, Sink& sink) const;
  void read_common_voice_sets(Preparation& preparation) const;
  void read_digits(Preparation& preparation);
  void read(Preparation& preparation);
  std::unique_ptr<Split> make_split() const;
  void finish(Preparation& preparation) const;
  void report(const Preparation& preparation) const;
  void report_json(const Preparation& preparation) const;
};

std::string path_in(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::string required(const std::string& value, const std::string& format, const char* what) {
  CENTROID_CHECK(!value.empty(), "prepare: format ", format, " needs ", what);
  return value;
}

Unit PrepareCommand::symbol() const {
  if (unit != "auto") return unit_from(unit);
  return format == "festvox" || !lexicon_file.empty() ? Unit::phones : Unit::characters;
}

void PrepareCommand::check_unused() const {
  const auto needs = [&](bool met, const Strings& names, const char* expected) {
    if (!met) refuse_unused(*sub, names, expected);
  };
  const bool digit_sequences = format == "digits";
  needs(digit_sequences,
        {"min-seconds", "max-seconds", "max-gap", "train-sequences", "dev-sequences",
         "test-sequences", "leave-out"},
        "--format digits");
  needs(!digit_sequences, {"split", "dev-source", "test-source"}, "another --format than digits");
  needs(split == "speakers", {"dev-speakers", "test-speakers"}, "--split speakers");
  needs(split == "lists", {"train-ids", "dev-ids", "test-ids"}, "--split lists");
  needs(split == "hash" || split == "texts", {"dev-fraction", "test-fraction"},
        "--split hash or texts");
  needs(symbol() == Unit::subwords,
        {"subword-model", "subwords", "subword-type", "subword-coverage"}, "--unit subwords");
  needs(format == "asterisk" || format == "table" || format == "commonvoice", {"transcripts"},
        "--format asterisk, table or commonvoice");
  needs(format == "jsonl", {"recordings"}, "--format jsonl");
  needs(format == "festvox", {"keep-pauses"}, "--format festvox");
}

void PrepareCommand::set_options() {
  check_unused();
  CENTROID_CHECK(!lowercase || !uppercase, "prepare: --lowercase and --uppercase exclude each ",
                 "other");
  CheckOptions& o = options.check;
  o.unit = symbol();
  o.letters = lowercase ? LetterCase::lower : uppercase ? LetterCase::upper : LetterCase::keep;
  o.sound = check == "full"      ? SoundCheck::full
            : check == "headers" ? SoundCheck::headers
                                 : SoundCheck::none;
  if (!lexicon_file.empty()) {
    CENTROID_CHECK(o.unit == Unit::phones, "prepare: --lexicon makes phones of words: expected ",
                   "--unit phones, got ", name_of(o.unit));
    lexicon = read_lexicon(lexicon_file);
    o.lexicon = &lexicon;
  }
  CENTROID_CHECK(o.unit != Unit::subwords || !options.vocab.empty() || Subwords::available(),
                 "prepare: sub-words: this build has no SentencePiece (install ",
                 "libsentencepiece-dev and rebuild, or use --unit characters)");
  options.vocab_from_all = vocab_from == "all";
  options.one_set = split == "none" && format != "digits";
  options.subwords.seed = common.seed;
}

void PrepareCommand::read_source(const std::string& from, Sink& sink) const {
  if (format == "festvox") return read_festvox(from, keep_pauses, sink);
  if (format == "fsdd") return read_fsdd(from, sink);
  if (format == "jsonl") return read_json_lines(from, recordings, sink);
  if (format == "kaldi") return read_kaldi(from, sink);
  if (format == "librispeech") return read_librispeech(from, sink);
  const std::string table = required(transcripts, format, "--transcripts FILE");
  if (format == "asterisk") return read_asterisk(from, table, sink);
  if (format == "commonvoice") return read_common_voice(from, table, sink);
  read_table(from, table, sink);
}

/// train.tsv, dev.tsv and test.tsv of a language's folder, in the corpus's own sets.
void PrepareCommand::read_common_voice_sets(Preparation& preparation) const {
  for (const Set set : {Set::train, Set::dev, Set::test}) {
    if (split == "auto") preparation.begin_set(set);
    const std::string name = concat(kSetNames[static_cast<int>(set)], ".tsv");
    read_common_voice(source, path_in(source, name), preparation);
  }
}

void PrepareCommand::read_digits(Preparation& preparation) {
  digits.seed = common.seed;
  digits.skip_bad = skip_bad;
  std::vector<Problem> problems;
  const Splits splits = make_connected_digits(source, options.out, digits, problems);
  for (const Problem& p : problems) preparation.reject(p);
  for (const auto& [set, utterances] :
       {std::pair{Set::train, &splits.train}, {Set::dev, &splits.dev}, {Set::test, &splits.test}}) {
    preparation.begin_set(set);
    for (const Utterance& u : *utterances) preparation.accept(u, "");
  }
}

void PrepareCommand::read(Preparation& preparation) {
  if (format == "digits") return read_digits(preparation);
  const bool own_sets = format == "commonvoice" && transcripts.empty();
  const bool given = !dev_source.empty() || !test_source.empty();
  CENTROID_CHECK(!given || (split == "auto" && !own_sets),
                 "prepare: --dev-source and --test-source ", "name the sets: expected no --split",
                 own_sets ? " and one table" : "");
  if (own_sets) return read_common_voice_sets(preparation);
  if (given) preparation.begin_set(Set::train);
  read_source(source, preparation);
  for (const auto& [set, from] : {std::pair{Set::dev, &dev_source}, {Set::test, &test_source}}) {
    if (from->empty()) continue;
    preparation.begin_set(set);
    read_source(*from, preparation);
  }
}

std::unique_ptr<Split> PrepareCommand::make_split() const {
  if (split == "none") return split_none();
  if (split == "hash") return split_by_hash(dev_fraction, test_fraction);
  if (split == "texts") return split_by_text(dev_fraction, test_fraction);
  if (split == "speakers") return split_by_speaker(dev_speakers, test_speakers);
  if (split == "lists") return split_by_lists(train_ids, dev_ids, test_ids);
  return split_every_10th();
}

/// Utterances by length, at most about 40 bars.
void draw_lengths(const std::vector<SetSummary>& sets, const std::string& path) {
  double longest = 0;
  for (const SetSummary& set : sets) longest = std::max(longest, set.longest);
  int64_t tenths = 1;  // per bar: 1, 2 or 5 times a power of ten
  for (int i = 0; longest * 10 / static_cast<double>(tenths) > 40; ++i) {
    tenths = i % 3 == 1 ? tenths / 2 * 5 : tenths * 2;
  }
  BarSpec spec;
  spec.title = "Lengths of the utterances";
  spec.x_label = "seconds";
  spec.y_label = "utterances";
  spec.step = static_cast<double>(tenths) / 10;
  for (const SetSummary& set : sets) {
    BarSpec::Part part{set.name, {}};
    for (const auto& [length, count] : set.histogram) {
      const auto bar = static_cast<size_t>(length / tenths);
      if (part.values.size() <= bar) part.values.resize(bar + 1);
      part.values[bar] += static_cast<double>(count);
    }
    spec.parts.push_back(std::move(part));
  }
  bar_plot(spec, path);
}

void print_sets(const std::vector<SetSummary>& sets) {
  std::printf("%-6s %10s %9s %8s %24s %10s %9s\n", "set", "utterances", "hours", "speakers",
              "seconds: mean, min, max", "symbols", "distinct");
  for (const SetSummary& set : sets) {
    const std::string speakers =
        set.speakers.size() > 0 ? std::to_string(set.speakers.size()) : "-";
    std::printf("%-6s %10lld %9.3f %8s %10.2f %6.2f %6.2f %10lld %9zu\n", set.name.c_str(),
                static_cast<long long>(set.utterances), set.seconds / 3600, speakers.c_str(),
                set.mean(), set.shortest, set.longest, static_cast<long long>(set.symbols),
                set.distinct.size());
  }
}

void print_problems(const ProblemLog& problems, const std::string& file) {
  if (problems.faults() + problems.warnings() == 0) return;
  std::printf("problems: %s\n", file.c_str());
  for (int i = 0; i < kProblemKinds; ++i) {
    const auto kind = static_cast<ProblemKind>(i);
    if (problems.count(kind) == 0) continue;
    std::printf("  %-15s %8lld  %s\n", name_of(kind).c_str(),
                static_cast<long long>(problems.count(kind)),
                is_warning(kind) ? "kept" : "left out");
  }
}

void PrepareCommand::report(const Preparation& preparation) const {
  print_sets(preparation.sets());
  const Vocab& vocab = preparation.vocab();
  std::printf("%lld %s, and the blank: %s/vocab.json\n", static_cast<long long>(vocab.size() - 1),
              name_of(vocab.unit()).c_str(), options.out.c_str());
  std::printf("manifests:");
  for (const SetSummary& set : preparation.sets()) {
    std::printf(" %s/%s.jsonl", options.out.c_str(), set.name.c_str());
  }
  std::printf("\n");
  if (can_write_png()) std::printf("lengths: %s/lengths.png\n", options.out.c_str());
  print_problems(preparation.problems(), path_in(options.out, "problems.tsv"));
  std::fflush(stdout);
}

void PrepareCommand::report_json(const Preparation& preparation) const {
  nlohmann::ordered_json result = {{"out", options.out}};
  for (const SetSummary& set : preparation.sets()) {
    result[set.name] = {
        {"utterances", set.utterances},    {"hours", set.seconds / 3600},
        {"speakers", set.speakers.size()}, {"mean_seconds", set.mean()},
        {"min_seconds", set.shortest},     {"max_seconds", set.longest},
        {"symbols", set.symbols},          {"distinct_symbols", set.distinct.size()}};
  }
  const Vocab& vocab = preparation.vocab();
  result["vocabulary"] = {{"unit", name_of(vocab.unit())}, {"symbols", vocab.size() - 1}};
  result["problems"] = nlohmann::ordered_json::array();
  for (const Problem& p : read_problems(path_in(options.out, "problems.tsv"))) {
    result["problems"].push_back(
        {{"kind", name_of(p.kind)}, {"id", p.id}, {"what", p.what}, {"used", is_warning(p.kind)}});
  }
  std::cout << result.dump(1) << "\n";
}

/// Says what is wrong, and decides whether that is an error.
void PrepareCommand::finish(Preparation& preparation) const {
  const ProblemLog& problems = preparation.problems();
  const int64_t faults = problems.faults(), warnings = problems.warnings();
  for (const Problem& p : problems.first()) {
    std::cerr << (is_warning(p.kind) ? "warning: " : "problem: ") << p.id << ": " << p.what << "\n";
  }
  const int64_t more = faults + warnings - static_cast<int64_t>(problems.first().size());
  const std::string list = path_in(options.out, "problems.tsv");
  if (more > 0) std::cerr << "... and " << more << " more in " << list << "\n";
  CENTROID_CHECK(preparation.usable() + faults > 0, "prepare: ", source,
                 ": expected utterances, found none");
  CENTROID_CHECK(faults == 0 || skip_bad, "prepare: ", faults, " problems (", list, "), ",
                 preparation.usable(),
                 " usable utterances (mend them, or leave them out with --skip-bad)");
  CENTROID_CHECK(warnings == 0 || !strict, "prepare: ", warnings, " warnings (", list,
                 ") and --strict");
  CENTROID_CHECK(!preparation.sets().empty() && preparation.sets()[0].utterances > 0,
                 "prepare: no utterance is left for training (", faults, " problems: ", list, ")");
  preparation.commit();
}

void PrepareCommand::run() {
  apply(common);
  set_options();
  make_folder(options.out);
  Preparation preparation(options, make_split());
  read(preparation);
  preparation.examine();
  finish(preparation);
  if (can_write_png()) draw_lengths(preparation.sets(), path_in(options.out, "lengths.png"));
  common.json ? report_json(preparation) : report(preparation);
}

CLI::Validator one_of(const Strings& values) { return CLI::IsMember(values); }

/// Adds options to one group of the help.
struct Group {
  CLI::App& sub;
  const char* name;

  template <typename T>
  CLI::Option* add(const char* option, T& value, const char* help) {
    return sub.add_option(option, value, help)->group(name);
  }
  void add_switch(const char* option, bool& value, const char* help) {
    apps::add_switch(sub, option, value, help)->group(name);
  }
};

void add_corpus_options(Group group, PrepareCommand& c) {
  group
      .add("--format", c.format,
           "festvox, asterisk, fsdd, digits (sequences made of fsdd), jsonl (own manifests, NeMo, "
           "WeNet, lhotse), kaldi, librispeech, commonvoice, or table (folder of sounds + TSV or "
           "CSV)")
      ->check(one_of({"festvox", "asterisk", "fsdd", "digits", "jsonl", "kaldi", "librispeech",
                      "commonvoice", "table"}))
      ->required();
  group.add("--source", c.source, "the corpus: a folder, for jsonl a file")->required();
  group.add("--dev-source", c.dev_source, "the same for dev; --source is then for training");
  group.add("--test-source", c.test_source, "the same for test");
  group.add(
      "--transcripts", c.transcripts,
      "asterisk, table: the file of transcripts; commonvoice: one table instead of train.tsv, "
      "dev.tsv and test.tsv");
  group.add("--recordings", c.recordings,
            "jsonl: lhotse's recordings for supervisions; default: the file named alike");
  group
      .add("--out", c.options.out,
           "folder for train.jsonl, dev.jsonl, test.jsonl (or all.jsonl), vocab.json, lengths.png "
           "and problems.tsv")
      ->required();
}

void add_check_options(Group group, PrepareCommand& c) {
  group
      .add("--check", c.check,
           "full: decode every sound; headers: trust their lengths; none: open nothing, trust the "
           "durations of the corpus")
      ->check(one_of({"full", "headers", "none"}));
  group.add_switch("skip-bad", c.skip_bad, "leave out what cannot be used instead of stopping");
  group.add_switch("strict", c.strict, "stop for warnings (clipped, too-long, rare-symbol) too");
  CheckOptions& o = c.options.check;
  group
      .add("--subsampling", c.options.subsampling,
           "too-short: input frames per position of the recogniser; 0: not checked")
      ->check(CLI::IsMember({0, 1, 2, 4, 8}));
  group.add("--silence-db", o.silence_db, "silent: level that some sample has to pass, dB")
      ->check(in_range(-200, 0));
  group.add("--max-clipped", o.max_clipped, "clipped: part of the samples allowed at full scale")
      ->check(in_range(0, 1));
  group.add("--longest", o.longest, "too-long: seconds")->check(positive());
  group
      .add("--rare", c.options.rare,
           "rare-symbol: characters and phones seen less often in training")
      ->check(non_negative());
}

void add_text_options(Group group, PrepareCommand& c) {
  group
      .add("--unit", c.unit,
           "symbols of the vocabulary: phones, characters, words or subwords; auto: phones for "
           "festvox and with --lexicon, else characters")
      ->check(one_of({"auto", "phones", "characters", "words", "subwords"}));
  group.add("--lexicon", c.lexicon_file,
            "phones: pronunciations of the words (Kaldi's lexicon.txt or lexiconp.txt, CMU)");
  group.add("--subwords", c.options.subwords.size, "subwords: number of pieces")
      ->check(CLI::Range(1, 1000000));
  group.add("--subword-type", c.options.subwords.type, "subwords: unigram or bpe")
      ->check(one_of({"unigram", "bpe"}));
  group
      .add("--subword-coverage", c.options.subwords.coverage,
           "subwords: part of the characters covered; below 1 for thousands of characters")
      ->check(in_range(0.9, 1));
  group.add("--subword-model", c.options.subword_model,
            "subwords: a model of SentencePiece to use instead of training one");
  group.add_switch("lowercase", c.lowercase, "turn letters into small ones");
  group.add_switch("uppercase", c.uppercase, "turn letters into capitals");
  group.add_switch("strip-punctuation", c.options.check.strip_punctuation,
                   "keep letters, figures, apostrophes");
  group.add_switch("keep-pauses", c.keep_pauses, "festvox: keep the pause `pau` among the phones");
  group.add("--vocab", c.options.vocab, "an existing vocab.json to use; others are unknown-symbol");
  group.add("--vocab-from", c.vocab_from, "sets whose symbols make the vocabulary: all or train")
      ->check(one_of({"all", "train"}));
}

void add_split_options(Group group, PrepareCommand& c) {
  group
      .add(
          "--split", c.split,
          "every-10th (by sorted id: 10th for test, 5th for dev), hash (of the id), texts (hash of "
          "the transcript: a sentence is in one set only), speakers, lists or none; auto: the "
          "corpus's own, else every-10th")
      ->check(one_of({"auto", "every-10th", "hash", "texts", "speakers", "lists", "none"}));
  group.add("--dev-fraction", c.dev_fraction, "hash, texts: part for dev")->check(in_range(0, 1));
  group.add("--test-fraction", c.test_fraction, "hash, texts: part for test")
      ->check(in_range(0, 1));
  group.add("--dev-speakers", c.dev_speakers, "speakers: those for dev");
  group.add("--test-speakers", c.test_speakers, "speakers: those for test");
  group.add("--train-ids", c.train_ids, "lists: file of ids for training; default: all others");
  group.add("--dev-ids", c.dev_ids, "lists: file of ids for dev");
  group.add("--test-ids", c.test_ids, "lists: file of ids for test");
}

void add_digits_options(Group group, DigitsOptions& o) {
  group.add("--min-seconds", o.min_seconds, "shortest sequence")->check(positive());
  group.add("--max-seconds", o.max_seconds, "longest sequence")->check(positive());
  group.add("--max-gap", o.max_gap, "longest silence between digits, s")->check(non_negative());
  group.add("--train-sequences", o.train, "number for training")->check(non_negative());
  group.add("--dev-sequences", o.dev, "number for dev")->check(non_negative());
  group.add("--test-sequences", o.test, "number for test")->check(non_negative());
  group.add("--leave-out", o.leave_out, "speaker heard in the test set only");
}

}  // namespace

void register_prepare(CLI::App& app) {
  auto* sub = app.add_subcommand("prepare",
                                 "turn a speech corpus or own recordings into checked manifests");
  auto command = std::make_shared<PrepareCommand>();
  command->sub = sub;
  add_corpus_options({*sub, "Corpus"}, *command);
  add_text_options({*sub, "Transcripts"}, *command);
  add_check_options({*sub, "Checks"}, *command);
  add_split_options({*sub, "Sets"}, *command);
  add_digits_options({*sub, "Connected digits"}, command->digits);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
