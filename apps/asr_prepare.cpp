// asr prepare: from a speech corpus to checked manifests and a vocabulary.
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/common/args.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

using namespace audio;
using Strings = std::vector<std::string>;

struct PrepareCommand {
  CommonOptions common;
  std::string format, source, transcripts, out;
  std::string unit = "auto", split = "every-10th", vocab_from = "all", check = "full";
  bool lowercase = false, strip_punctuation = false, keep_pauses = false, skip_bad = false;
  double dev_fraction = 0.1, test_fraction = 0.1;
  Strings dev_speakers, test_speakers;
  std::string train_ids, dev_ids, test_ids;
  DigitsOptions digits;

  Prepared read() const;
  Splits make_splits(Prepared& prepared) const;
  Vocab build_vocabulary(Splits& splits, Unit unit, std::vector<Problem>& problems) const;
  void run();
};

/// The sets of the result, by the names of their files.
using Sets = std::vector<std::pair<std::string, const std::vector<Utterance>*>>;

std::string required(const std::string& value, const std::string& format, const char* what) {
  CENTROID_CHECK(!value.empty(), "prepare: format ", format, " needs ", what);
  return value;
}

Prepared PrepareCommand::read() const {
  if (format == "festvox") return prepare_festvox(source, keep_pauses);
  if (format == "fsdd") return prepare_fsdd(source);
  if (format == "jsonl") return prepare_jsonl(source);
  if (format == "kaldi") return prepare_kaldi(source);
  if (format == "librispeech") return prepare_librispeech(source);
  const std::string table = required(transcripts, format, "--transcripts FILE");
  return format == "asterisk" ? prepare_asterisk(source, table) : prepare_table(source, table);
}

Splits PrepareCommand::make_splits(Prepared& prepared) const {
  if (split == "every-10th") return split_every_10th(prepared);
  if (split == "hash") return split_by_hash(prepared, dev_fraction, test_fraction);
  if (split == "speakers") return split_by_speaker(prepared, dev_speakers, test_speakers);
  return split_by_lists(prepared, train_ids, dev_ids, test_ids, prepared.problems);
}

/// With `--vocab-from train`, what the other sets say with symbols unseen in training is a problem.
Vocab PrepareCommand::build_vocabulary(Splits& splits, Unit symbol,
                                       std::vector<Problem>& problems) const {
  std::vector<Utterance> known = splits.train;
  if (vocab_from == "all") {
    known.insert(known.end(), splits.dev.begin(), splits.dev.end());
    known.insert(known.end(), splits.test.begin(), splits.test.end());
  }
  const Vocab vocab = build_vocab(known, symbol, lowercase);
  for (std::vector<Utterance>* set : {&splits.dev, &splits.test}) {
    std::erase_if(*set, [&](const Utterance& u) {
      return !attempt(problems, u.id, [&] { vocab.encode(u); });
    });
  }
  return vocab;
}

double hours(const std::vector<Utterance>& utterances) {
  double seconds = 0;
  for (const Utterance& u : utterances) seconds += u.duration;
  return seconds / 3600;
}

void report(const PrepareCommand& command, const Sets& sets, const Vocab& vocab,
            const std::vector<Problem>& problems) {
  if (command.common.json) {
    nlohmann::ordered_json result = {{"out", command.out}};
    for (const auto& [name, set] : sets) {
      result[name] = {{"utterances", set->size()}, {"hours", hours(*set)}};
    }
    result["vocabulary"] = {{"unit", name_of(vocab.unit())}, {"symbols", vocab.size() - 1}};
    result["problems"] = nlohmann::ordered_json::array();
    for (const Problem& p : problems)
      result["problems"].push_back({{"id", p.id}, {"what", p.what}});
    std::cout << result.dump(1) << "\n";
    return;
  }
  for (const auto& [name, set] : sets) {
    std::printf("%-6s %6zu utterances  %7.3f h  %s/%s.jsonl\n", name.c_str(), set->size(),
                hours(*set), command.out.c_str(), name.c_str());
  }
  std::printf("%lld %s, and the blank: %s/vocab.json\n", static_cast<long long>(vocab.size() - 1),
              name_of(vocab.unit()).c_str(), command.out.c_str());
  if (!problems.empty()) std::printf("%zu problems were skipped\n", problems.size());
  std::fflush(stdout);
}

void PrepareCommand::run() {
  apply(common);
  const Unit symbol =
      unit == "auto" ? (format == "festvox" ? Unit::phones : Unit::characters) : unit_from(unit);
  Splits splits;
  Prepared prepared;
  const bool one_set = split == "none" && format != "digits";
  if (format == "digits") {
    make_folder(out);
    digits.seed = common.seed;
    digits.skip_bad = skip_bad;
    splits = prepare_connected_digits(source, out, digits, prepared.problems);
  } else {
    prepared = read();
    check_utterances(prepared, {symbol, lowercase, strip_punctuation, check == "full"});
    CENTROID_CHECK(!prepared.utterances.empty() || !prepared.problems.empty(), "prepare: ", source,
                   ": expected utterances, found none");
    splits = one_set ? Splits{prepared.utterances, {}, {}} : make_splits(prepared);
  }
  const size_t usable = splits.train.size() + splits.dev.size() + splits.test.size();
  std::vector<Problem>& problems = prepared.problems;
  Vocab vocab;
  if (!splits.train.empty()) vocab = build_vocabulary(splits, symbol, problems);
  for (const Problem& p : problems) std::cerr << "problem: " << p.id << ": " << p.what << "\n";
  CENTROID_CHECK(problems.empty() || skip_bad, "prepare: ", problems.size(),
                 " problems (listed above), ", usable,
                 " usable utterances (mend them, or leave them out with --skip-bad)");
  CENTROID_CHECK(!splits.train.empty(), "prepare: no utterance is left for training (",
                 problems.size(), " problems)");

  make_folder(out);
  Sets sets = {{"train", &splits.train}, {"dev", &splits.dev}, {"test", &splits.test}};
  if (one_set) sets = {{"all", &splits.train}};
  const std::filesystem::path folder = out;
  for (const auto& [name, set] : sets) write_manifest((folder / (name + ".jsonl")).string(), *set);
  write_vocab((folder / "vocab.json").string(), vocab);
  report(*this, sets, vocab, problems);
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
           "festvox, asterisk, fsdd, digits (sequences made of fsdd), jsonl, kaldi, librispeech, "
           "or table (folder of sounds + TSV or CSV)")
      ->check(one_of(
          {"festvox", "asterisk", "fsdd", "digits", "jsonl", "kaldi", "librispeech", "table"}))
      ->required();
  group.add("--source", c.source, "the corpus: a folder, for jsonl a file")->required();
  group.add("--transcripts", c.transcripts, "asterisk, table: the file of transcripts");
  group
      .add("--out", c.out,
           "folder for train.jsonl, dev.jsonl, test.jsonl (or all.jsonl) and vocab.json")
      ->required();
  group.add("--check", c.check, "full: decode every sound; headers: trust lengths (faster)")
      ->check(one_of({"full", "headers"}));
  group.add_switch("skip-bad", c.skip_bad, "leave out what has problems instead of stopping");
}

void add_text_options(Group group, PrepareCommand& c) {
  group
      .add("--unit", c.unit,
           "symbols of the vocabulary: phones, characters or words; auto: phones for festvox, "
           "else characters")
      ->check(one_of({"auto", "phones", "characters", "words"}));
  group.add_switch("lowercase", c.lowercase, "turn letters into small ones");
  group.add_switch("strip-punctuation", c.strip_punctuation, "keep letters, figures, apostrophes");
  group.add_switch("keep-pauses", c.keep_pauses, "festvox: keep the pause `pau` among the phones");
  group.add("--vocab-from", c.vocab_from, "sets whose symbols make the vocabulary: all or train")
      ->check(one_of({"all", "train"}));
}

void add_split_options(Group group, PrepareCommand& c) {
  group
      .add("--split", c.split,
           "every-10th (by sorted id: 10th for test, 5th for dev), hash (of the id), speakers, "
           "lists or none")
      ->check(one_of({"every-10th", "hash", "speakers", "lists", "none"}));
  group.add("--dev-fraction", c.dev_fraction, "hash: part for dev")->check(in_range(0, 1));
  group.add("--test-fraction", c.test_fraction, "hash: part for test")->check(in_range(0, 1));
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
  add_corpus_options({*sub, "Corpus"}, *command);
  add_text_options({*sub, "Transcripts"}, *command);
  add_split_options({*sub, "Sets"}, *command);
  add_digits_options({*sub, "Connected digits"}, command->digits);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
