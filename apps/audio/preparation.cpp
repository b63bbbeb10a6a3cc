#include "apps/audio/preparation.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/parallel.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

// Utterances checked at a time: enough for every thread, few enough to hold.
constexpr size_t kBatch = 256;

std::string file_in(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

}  // namespace

void SetSummary::add(const Utterance& u, const std::vector<int32_t>& labels) {
  shortest = utterances == 0 ? u.duration : std::min(shortest, u.duration);
  longest = std::max(longest, u.duration);
  ++utterances;
  seconds += u.duration;
  symbols += static_cast<int64_t>(labels.size());
  if (!u.speaker.empty()) speakers.insert(u.speaker);
  distinct.insert(labels.begin(), labels.end());
  ++histogram[static_cast<int64_t>(u.duration * 10)];
}

Preparation::Preparation(PreparationOptions options, std::unique_ptr<Split> split)
    : options_(std::move(options)),
      split_(std::move(split)),
      problems_(file_in(options_.out, "problems.tsv")) {
  const std::string path = file_in(options_.out, concat(".utterances-", ::getpid()));
  spool_.open(path, std::ios::in | std::ios::out | std::ios::trunc | std::ios::binary);
  CENTROID_CHECK(spool_, path, ": cannot be created: ", std::strerror(errno));
  fs::remove(path);  // the open file lives on without a name, and ends with this object
}

void Preparation::begin_set(std::optional<Set> set) { given_ = set; }

void Preparation::accept(Utterance utterance, const std::string& place) {
  waiting_.push_back({std::move(utterance), place, given_});
  if (waiting_.size() == kBatch) check_waiting();
}

void Preparation::reject(Problem problem) {
  check_waiting();  // so that problems are listed in the order of the corpus
  split_->see(problem.id, "");
  problems_.add(problem);
}

void Preparation::check_waiting() {
  std::vector<std::vector<Problem>> found(waiting_.size());
  std::vector<uint8_t> usable(waiting_.size());
  parallel_for(0, static_cast<int64_t>(waiting_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      usable[i] = check_utterance(waiting_[i].utterance, options_.check, found[i]);
    }
  });
  for (size_t i = 0; i < waiting_.size(); ++i) {
    const auto& [u, place, set] = waiting_[i];
    split_->see(u.id, u.speaker);
    if (!ids_.insert(u.id)) {
      problems_.add({u.id, concat(place, place.empty() ? "" : ": ", "the id appears twice"),
                     ProblemKind::duplicate});
      continue;
    }
    for (const Problem& p : found[i]) problems_.add(p);
    if (!usable[i]) continue;
    spool_ << (set ? static_cast<char>('0' + static_cast<int>(*set)) : ' ') << manifest_line(u, "");
  }
  waiting_.clear();
}

std::optional<Set> Preparation::set_of(const Utterance& u, std::optional<Set> given) const {
  return given ? given : split_->choose(u);
}

void Preparation::rewind() {
  spool_.clear();
  spool_.seekg(0);
}

bool Preparation::next(Utterance& utterance, std::optional<Set>& set) {
  std::string line;
  if (!std::getline(spool_, line)) return false;
  utterance = parse_utterance(std::string_view(line).substr(1), "");
  set = set_of(utterance, line[0] == ' ' ? std::nullopt : std::optional(Set(line[0] - '0')));
  return true;
}

bool Preparation::has_training_set() {
  rewind();
  Utterance u;
  for (std::optional<Set> set; next(u, set);) {
    if (set == Set::train) return true;
  }
  return false;
}

void Preparation::make_vocab() {
  if (!options_.vocab.empty()) {
    vocab_ = read_vocab(options_.vocab);
    CENTROID_CHECK(vocab_.unit() == options_.check.unit, options_.vocab, ": expected ",
                   name_of(options_.check.unit), ", got a vocabulary of ", name_of(vocab_.unit()),
                   " (--unit ", name_of(vocab_.unit()), ")");
    return;
  }
  if (options_.check.unit == Unit::subwords) {
    vocab_ = make_subwords();
    return;
  }
  VocabBuilder builder(options_.check.unit, options_.check.letters == LetterCase::lower);
  rewind();
  Utterance u;
  for (std::optional<Set> set; next(u, set);) {
    if (set == Set::train || (set && options_.vocab_from_all)) builder.add(u);
  }
  vocab_ = builder.finish();
}

// The pieces come from the training set. With `vocab_from_all` the characters that only the other
// sets have are covered as well, through one more sentence in which each is a word, so that their
// transcripts can be written with the pieces.
Vocab Preparation::make_subwords() {
  const bool lower = options_.check.letters == LetterCase::lower;
  if (!options_.subword_model.empty()) {
    try {
      return Vocab(std::make_shared<Subwords>(read_file(options_.subword_model)), lower);
    } catch (const Error& error) {
      throw Error(concat(options_.subword_model, ": ", error.what()));
    }
  }
  Utterance u;
  std::optional<Set> set;
  std::set<char32_t> known{U' '}, others;
  for (rewind(); next(u, set);) {
    if (!set) continue;
    for (const char32_t c : code_points(u.text)) (set == Set::train ? known : others).insert(c);
  }
  std::string last;
  for (const char32_t c : others) {
    if (options_.vocab_from_all && !known.contains(c)) last += to_utf8(c) + " ";
  }
  rewind();
  const auto next_sentence = [&](std::string& sentence) {
    while (next(u, set)) {
      if (set != Set::train) continue;
      sentence = u.text;
      return true;
    }
    sentence = std::exchange(last, "");
    return !sentence.empty();
  };
  return Vocab(Subwords::train(next_sentence, options_.subwords), lower);
}

void Preparation::write_sets() {
  for (const char* name : kSetNames) {
    if (options_.one_set && !sets_.empty()) break;
    sets_.emplace_back().name = options_.one_set ? "all" : name;
    writers_.push_back(
        std::make_unique<ManifestWriter>(file_in(options_.out, sets_.back().name + ".jsonl")));
  }
  counts_.assign(vocab_.size(), 0);
  examples_.assign(vocab_.size(), "");
  rewind();
  Utterance u;
  for (std::optional<Set> set; next(u, set);) {
    if (!set) {
      problems_.add({u.id, "in none of the lists of ids", ProblemKind::not_listed});
      continue;
    }
    std::vector<int32_t> labels;
    try {
      labels = vocab_.encode(u);
    } catch (const Error& error) {
      problems_.add({u.id, error.what(), ProblemKind::unknown_symbol});
      continue;
    }
    const int64_t have = options_.subsampling > 0 ? positions(u.duration, options_.subsampling) : 0;
    if (options_.subsampling > 0 && ctc_positions(labels) > have) {
      problems_.add(
          {u.id,
           concat(labels.size(), " symbols need at least ", ctc_positions(labels), " positions, ",
                  u.duration, " s have ", have, " after subsampling by ", options_.subsampling),
           ProblemKind::too_short});
      continue;
    }
    const size_t index = options_.one_set ? 0 : static_cast<size_t>(*set);
    writers_[index]->write(u);
    sets_[index].add(u, labels);
    for (const int32_t label : labels) {
      counts_[label] += index == 0;
      if (examples_[label].empty()) examples_[label] = u.id;
    }
    if (options_.check.lexicon) {
      for (std::string& word : split_words(u.text)) words_.insert(std::move(word));
    }
  }
}

void Preparation::find_rare_symbols() {
  const Unit unit = vocab_.unit();
  if (unit != Unit::phones && unit != Unit::characters) return;
  for (int32_t id = 1; id < vocab_.size(); ++id) {
    if (counts_[id] >= options_.rare || examples_[id].empty()) continue;
    problems_.add({examples_[id],
                   concat("\"", vocab_.tokens()[id], "\" occurs ", counts_[id],
                          counts_[id] == 1 ? " time" : " times", " in the training set"),
                   ProblemKind::rare_symbol});
  }
}

void Preparation::examine() {
  check_waiting();
  std::vector<Problem> of_split;
  split_->close(of_split);
  for (const Problem& p : of_split) problems_.add(p);
  CENTROID_CHECK(spool_.flush(), options_.out, ": writing failed: ", std::strerror(errno));
  try {
    if (has_training_set()) {
      make_vocab();
      write_sets();
      find_rare_symbols();
    }
  } catch (...) {
    problems_.commit();
    throw;
  }
  problems_.commit();
}

int64_t Preparation::usable() const {
  int64_t count = 0;
  for (const SetSummary& set : sets_) count += set.utterances;
  return count;
}

void Preparation::write_lexicon() const {
  if (!options_.check.lexicon) return;
  Lexicon used;
  for (const std::string& word : words_) {
    for (const Pronunciation& p : *options_.check.lexicon->find(word)) used.add(word, p);
  }
  const std::string text = format_lexicon(used);
  write_file_atomic(file_in(options_.out, "lexicon.txt"), text.data(), text.size());
}

void Preparation::commit() {
  write_lexicon();
  for (const auto& writer : writers_) writer->commit();
  write_vocab(file_in(options_.out, "vocab.json"), vocab_);
}

}  // namespace centroid::audio
