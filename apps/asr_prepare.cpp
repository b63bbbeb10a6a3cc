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
  void build_vocabulary(Splits& splits, Unit unit, Vocab& vocab,
                        std::vector<Problem>& problems) const;
  void run();
};

/// One set of the result and the name of its file.
struct Set {
  std::string name;
  const std::vector<Utterance>* utterances;
};

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
void PrepareCommand::build_vocabulary(Splits& splits, Unit symbol, Vocab& vocab,
                                      std::vector<Problem>& problems) const {
  std::vector<Utterance> known = splits.train;
  if (vocab_from == "all") {
    known.insert(known.end(), splits.dev.begin(), splits.dev.end());
    known.insert(known.end(), splits.test.begin(), splits.test.end());
  }
  vocab = build_vocab(known, symbol, lowercase);
  for (std::vector<Utterance>* set : {&splits.dev, &splits.test}) {
    std::erase_if(*set, [&](const Utterance& u) {
      try {
        vocab.encode(u);
        return false;
      } catch (const Error& error) {
        problems.push_back({u.id, error.what()});
        return true;
      }
    });
  }
}

double hours(const std::vector<Utterance>& utterances) {
  double seconds = 0;
  for (const Utterance& u : utterances) seconds += u.duration;
  return seconds / 3600;
}

void print_problems(const std::vector<Problem>& problems) {
  for (const Problem& p : problems) std::cerr << "problem: " << p.id << ": " << p.what << "\n";
}

void report(const PrepareCommand& command, const std::vector<Set>& sets, const Vocab& vocab,
            const std::vector<Problem>& problems) {
  if (command.common.json) {
    nlohmann::ordered_json result = {{"out", command.out}};
    for (const Set& set : sets) {
      result[set.name] = {{"utterances", set.utterances->size()},
                          {"hours", hours(*set.utterances)}};
    }
    result["vocabulary"] = {{"unit", name_of(vocab.unit())}, {"symbols", vocab.size() - 1}};
    result["problems"] = nlohmann::ordered_json::array();
    for (const Problem& p : problems)
      result["problems"].push_back({{"id", p.id}, {"what", p.what}});
    std::cout << result.dump(1) << "\n";
    return;
  }
  for (const Set& set : sets) {
    std::printf("%-6s %6zu utterances  %7.3f h  %s/%s.jsonl\n", set.name.c_str(),
                set.utterances->size(), hours(*set.utterances), command.out.c_str(),
                set.name.c_str());
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
  const bool digits_format = format == "digits";
  if (digits_format) {
    make_folder(out);
    digits.seed = common.seed;
    digits.skip_bad = skip_bad;
    splits = prepare_connected_digits(source, out, digits, prepared.problems);
  } else {
    prepared = read();
    check_utterances(prepared, {symbol, lowercase, strip_punctuation, check == "full"});
    CENTROID_CHECK(!prepared.utterances.empty() || !prepared.problems.empty(), "prepare: ", source,
                   ": expected utterances, found none");
    if (split != "none") splits = make_splits(prepared);
  }
  if (split == "none" && !digits_format) splits.train = prepared.utterances;
  const size_t usable = splits.train.size() + splits.dev.size() + splits.test.size();
  std::vector<Problem>& problems = prepared.problems;
  Vocab vocab;
  if (!splits.train.empty()) build_vocabulary(splits, symbol, vocab, problems);
  print_problems(problems);
  CENTROID_CHECK(problems.empty() || skip_bad, "prepare: ", problems.size(),
                 " problems (listed above), ", usable,
                 " usable utterances (mend them, or leave them out with --skip-bad)");
  CENTROID_CHECK(!splits.train.empty(), "prepare: no utterance is left for training (",
                 problems.size(), " problems)");

  make_folder(out);
  std::vector<Set> sets = {{"train", &splits.train}, {"dev", &splits.dev}, {"test", &splits.test}};
  if (split == "none" && !digits_format) sets = {{"all", &splits.train}};
  const std::filesystem::path folder = out;
  for (const Set& set : sets)
    write_manifest((folder / (set.name + ".jsonl")).string(), *set.utterances);
  write_vocab((folder / "vocab.json").string(), vocab);
  report(*this, sets, vocab, problems);
}

void add_text_options(CLI::App& sub, PrepareCommand& c) {
  const char* group = "Transcripts";
  sub.add_option("--unit", c.unit,
                 "symbols of the vocabulary: phones, characters or words; auto: phones for "
                 "festvox, else characters")
      ->check(CLI::IsMember(Strings{"auto", "phones", "characters", "words"}))
      ->group(group);
  add_switch(sub, "lowercase", c.lowercase, "turn letters into small ones")->group(group);
  add_switch(sub, "strip-punctuation", c.strip_punctuation, "keep letters, figures, apostrophes")
      ->group(group);
  add_switch(sub, "keep-pauses", c.keep_pauses, "festvox: keep the pause `pau` among the phones")
      ->group(group);
  sub.add_option("--vocab-from", c.vocab_from,
                 "sets whose symbols make the vocabulary: all or train")
      ->check(CLI::IsMember(Strings{"all", "train"}))
      ->group(group);
}

void add_split_options(CLI::App& sub, PrepareCommand& c) {
  const char* group = "Sets";
  sub.add_option("--split", c.split,
                 "every-10th (by sorted id: 10th for test, 5th for dev), hash (of the id), "
                 "speakers, lists or none")
      ->check(CLI::IsMember(Strings{"every-10th", "hash", "speakers", "lists", "none"}))
      ->group(group);
  sub.add_option("--dev-fraction", c.dev_fraction, "hash: part for dev")
      ->check(in_range(0, 1))
      ->group(group);
  sub.add_option("--test-fraction", c.test_fraction, "hash: part for test")
      ->check(in_range(0, 1))
      ->group(group);
  sub.add_option("--dev-speakers", c.dev_speakers, "speakers: those for dev")->group(group);
  sub.add_option("--test-speakers", c.test_speakers, "speakers: those for test")->group(group);
  sub.add_option("--train-ids", c.train_ids, "lists: file of ids for training; default: all others")
      ->group(group);
  sub.add_option("--dev-ids", c.dev_ids, "lists: file of ids for dev")->group(group);
  sub.add_option("--test-ids", c.test_ids, "lists: file of ids for test")->group(group);
}

void add_digits_options(CLI::App& sub, PrepareCommand& c) {
  const char* group = "Connected digits";
  sub.add_option("--min-seconds", c.digits.min_seconds, "shortest sequence")
      ->check(positive())
      ->group(group);
  sub.add_option("--max-seconds", c.digits.max_seconds, "longest sequence")
      ->check(positive())
      ->group(group);
  sub.add_option("--max-gap", c.digits.max_gap, "longest silence between digits, s")
      ->check(non_negative())
      ->group(group);
  sub.add_option("--train-sequences", c.digits.train, "number for training")
      ->check(non_negative())
      ->group(group);
  sub.add_option("--dev-sequences", c.digits.dev, "number for dev")
      ->check(non_negative())
      ->group(group);
  sub.add_option("--test-sequences", c.digits.test, "number for test")
      ->check(non_negative())
      ->group(group);
  sub.add_option("--leave-out", c.digits.leave_out, "speaker heard in the test set only")
      ->group(group);
}

}  // namespace

void register_prepare(CLI::App& app) {
  auto* sub = app.add_subcommand("prepare",
                                 "turn a speech corpus or own recordings into checked manifests");
  auto command = std::make_shared<PrepareCommand>();
  PrepareCommand& c = *command;
  const char* group = "Corpus";
  sub->add_option("--format", c.format,
                  "festvox, asterisk, fsdd, digits (sequences made of fsdd), jsonl, kaldi, "
                  "librispeech, or table "
                  "(folder of sounds + TSV or CSV)")
      ->check(CLI::IsMember(Strings{"festvox", "asterisk", "fsdd", "digits", "jsonl", "kaldi",
                                    "librispeech", "table"}))
      ->required()
      ->group(group);
  sub->add_option("--source", c.source, "the corpus: a folder, for jsonl a file")
      ->required()
      ->group(group);
  sub->add_option("--transcripts", c.transcripts, "asterisk, table: the file of transcripts")
      ->group(group);
  sub->add_option("--out", c.out,
                  "folder for train.jsonl, dev.jsonl, test.jsonl (or all.jsonl) and vocab.json")
      ->required()
      ->group(group);
  sub->add_option("--check", c.check, "full: decode every sound; headers: trust lengths (faster)")
      ->check(CLI::IsMember(Strings{"full", "headers"}))
      ->group(group);
  add_switch(*sub, "skip-bad", c.skip_bad, "leave out what has problems instead of stopping")
      ->group(group);
  add_text_options(*sub, c);
  add_split_options(*sub, c);
  add_digits_options(*sub, c);
  add_common_options(*sub, c.common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
