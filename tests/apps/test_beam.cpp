// Prefix beam search against the sum over all alignments of all transcripts.
#include "apps/audio/beam.h"

#include <functional>
#include <limits>
#include <map>
#include <set>

#include "apps/audio/files.h"
#include "apps/audio/kneser_ney.h"
#include "apps/audio/nbest.h"
#include "tensor/parallel.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;
using Ids = std::vector<int32_t>;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  const double high = std::max(a, b);
  return high == -kInfinity ? high : high + std::log(std::exp(a - high) + std::exp(b - high));
}

/// log P(tokens | sound) of every sequence: all classes^frames alignments, collapsed.
std::map<Ids, double> all_transcripts(const std::vector<double>& p, int64_t classes) {
  std::map<Ids, double> sums;
  const auto frames = static_cast<int64_t>(p.size()) / classes;
  Ids path(frames, 0);
  const std::function<void(int64_t, double)> visit = [&](int64_t t, double score) {
    if (t == frames) {
      Ids ids;
      for (int64_t k = 0; k < frames; ++k) {
        if (path[k] != 0 && (k == 0 || path[k] != path[k - 1])) ids.push_back(path[k]);
      }
      const auto [it, added] = sums.emplace(ids, score);
      if (!added) it->second = log_add(it->second, score);
      return;
    }
    for (int32_t v = 0; v < classes; ++v) {
      path[t] = v;
      visit(t + 1, score + p[t * classes + v]);
    }
  };
  visit(0, 0);
  return sums;
}

NgramModel lm_of(const std::vector<Strings>& corpus, int order = 3) {
  KneserNeyTrainer trainer;
  for (const Strings& s : corpus) trainer.add(s);
  KneserNeyOptions options;
  options.order = order;
  return trainer.train(options).model;
}

BeamOptions exact() {
  BeamOptions options;
  options.beam = options.nbest = 1000000;
  options.token_threshold = options.score_threshold = kInfinity;
  options.lm_weight = 0.7;
  options.word_score = 0.3;
  options.unk_score = -2;
  return options;
}

/// The score of words (or tokens) by the LM, as decoding defines it.
double lm_score(const NgramModel& lm, const Strings& words, double unk_score) {
  double sum = 0;
  NgramModel::State state = lm.begin_state();
  for (const std::string& word : words) {
    const int32_t number = lm.find(word);
    if (number == lm.unknown()) sum += unk_score;
    const auto step = lm.score(state, number);
    sum += step.log_prob;
    state = step.next;
  }
  return sum + lm.score(state, lm.sentence_end()).log_prob;
}

struct Expected {
  double acoustic = -kInfinity, lm = 0;
  int64_t units = 0;
};

void check_equal(const std::vector<Hypothesis>& got, const std::map<Strings, Expected>& expected,
                 const BeamOptions& o, const std::function<Strings(const Hypothesis&)>& key) {
  CHECK(got.size() == expected.size());
  double last = kInfinity;
  for (const Hypothesis& h : got) {
    const auto it = expected.find(key(h));
    REQUIRE(it != expected.end());
    CHECK(h.acoustic == Approx(it->second.acoustic).margin(1e-9));
    CHECK(h.lm == Approx(it->second.lm).margin(1e-9));
    CHECK(h.units == it->second.units);
    CHECK(h.score == Approx(h.rescored(o.lm_weight, o.word_score)).margin(1e-9));
    CHECK(h.score <= last);
    CHECK(h.complete);
    last = h.score;
  }
}

Strings words_of(const Hypothesis& h) {
  Strings words;
  for (const auto& w : h.words) words.push_back(w.text);
  return words;
}

struct Spoken {
  std::string word;
  Ids tokens;
  double log_prob;
};

/// Every way to read `ids` as words: calls `found` with the words and the log probability of their
/// pronunciations. `space` > 0 stands between words and may stand once at each end; `silence` > 0
/// may stand once between words and at the ends.
void read_as_words(const Ids& ids, const std::vector<Spoken>& lexicon, int32_t space,
                   int32_t silence, const std::function<void(const Strings&, double)>& found) {
  Strings words;
  const std::function<void(size_t, bool, double)> at = [&](size_t i, bool ready, double log_prob) {
    // ready: a word may begin here.
    if (i == ids.size()) found(words, log_prob);
    if (i < ids.size() && space > 0 && ids[i] == space && !ready) at(i + 1, true, log_prob);
    if (i == 0 && space > 0 && !ids.empty() && ids[0] == space) at(1, true, log_prob);
    if (i < ids.size() && silence > 0 && ids[i] == silence && (i == 0 || ids[i - 1] != silence)) {
      at(i + 1, true, log_prob);
    }
    if (!ready) return;
    for (const Spoken& s : lexicon) {
      if (i + s.tokens.size() > ids.size() ||
          !std::equal(s.tokens.begin(), s.tokens.end(), ids.begin() + i)) {
        continue;
      }
      words.push_back(s.word);
      at(i + s.tokens.size(), space <= 0, log_prob + s.log_prob);
      words.pop_back();
    }
  };
  at(0, true, 0);
}

const Strings kPhones = {"<blank>", "a", "b", "c"};
const Strings kLetters = {"<blank>", "<space>", "a", "b"};

/// Compares decoding with a lexicon to the enumeration of all transcripts and their readings.
void check_lexicon(const Strings& symbols, const std::vector<Spoken>& entries,
                   const std::string& silence, uint64_t seed, int64_t frames) {
  Lexicon lexicon;
  for (const Spoken& s : entries) {
    Pronunciation p{{}, s.log_prob};
    for (const int32_t id : s.tokens) p.phones.push_back(symbols[id]);
    lexicon.add(s.word, p);
  }
  const LexiconTrie trie(lexicon, symbols);
  const NgramModel lm = lm_of({{"one", "two"}, {"two", "one", "one"}, {"three"}}, 2);
  centroid::Rng rng(seed);
  const auto classes = static_cast<int64_t>(symbols.size());
  const std::vector<double> p = random_scores(frames, classes, rng);
  BeamOptions options = exact();
  options.silence = silence;
  int32_t silence_id = -1;
  for (int32_t i = 1; i < classes; ++i) {
    if (symbols[i] == silence) silence_id = i;
  }
  std::map<Strings, Expected> expected;
  for (const auto& [ids, score] : all_transcripts(p, classes)) {
    read_as_words(ids, entries, symbols[1] == "<space>" ? 1 : -1, silence_id,
                  [&, s = score](const Strings& words, double log_prob) {
                    Expected& e = expected[words];
                    e.acoustic = log_add(e.acoustic, s + log_prob);
                    e.lm = lm_score(lm, words, options.unk_score);
                    e.units = static_cast<int64_t>(words.size());
                  });
  }
  for (const bool look_ahead : {false, true}) {
    options.look_ahead = look_ahead;
    const BeamDecoder decoder(symbols, options, &lm, LmUnit::words, &trie);
    check_equal(decoder.decode(p), expected, options, words_of);
  }
}

}  // namespace

TEST_CASE("Beam search without limits gives every transcript its probability", "[beam]") {
  centroid::Rng rng(1);
  for (const auto& [frames, classes] : {std::pair{1, 2}, {0, 3}, {5, 2}, {6, 3}, {5, 4}}) {
    const std::vector<double> p = random_scores(frames, classes, rng);
    const Strings symbols(kPhones.begin(), kPhones.begin() + classes);
    BeamOptions options = exact();
    std::map<Strings, Expected> expected;
    for (const auto& [ids, score] : all_transcripts(p, classes)) {
      Strings names;
      for (const int32_t id : ids) names.push_back(symbols[id]);
      expected[names] = {score, 0, static_cast<int64_t>(ids.size())};
    }
    const auto names_of = [&](const Hypothesis& h) {
      Strings names;
      for (const Token& t : h.tokens) names.push_back(symbols[t.id]);
      return names;
    };
    check_equal(BeamDecoder(symbols, options).decode(p), expected, options, names_of);
    // With a language model of the symbols, which does not know c.
    const NgramModel lm = lm_of({{"a", "b", "a"}, {"b", "b"}, {"a"}});
    for (auto& [names, e] : expected) e.lm = lm_score(lm, names, options.unk_score);
    const BeamDecoder fused(symbols, options, &lm, LmUnit::tokens);
    CHECK_FALSE(fused.has_words());
    check_equal(fused.decode(p), expected, options, names_of);
  }
}

TEST_CASE("Beam search: a language model of words over letters", "[beam]") {
  const NgramModel lm = lm_of({{"a", "ab"}, {"ab", "b", "a"}, {"aa"}}, 2);
  // U+2581 begins a word as <space> ends one; a word of nothing does not count.
  const Strings pieces = {"<blank>", "\xE2\x96\x81",
                          "\xE2\x96\x81"
                          "a",
                          "b"};
  for (const bool marked : {false, true}) {
    const Strings& symbols = marked ? pieces : kLetters;
    centroid::Rng rng(2);
    for (int round = 0; round < 3; ++round) {
      const std::vector<double> p = random_scores(6, 4, rng);
      const BeamOptions options = exact();
      const BeamDecoder decoder(symbols, options, &lm, LmUnit::words);
      const auto key = [&](const Hypothesis& h) {
        Strings names = words_of(h);
        names.push_back("|");
        for (const Token& t : h.tokens) names.push_back(symbols[t.id]);
        return names;
      };
      std::map<Strings, Expected> expected;
      for (const auto& [ids, score] : all_transcripts(p, 4)) {
        std::string text;
        for (const int32_t id : ids) {
          const std::string& s = symbols[id];
          text += s == "<space>" ? " " : s.starts_with("\xE2") ? " " + s.substr(3) : s;
        }
        const Strings words = split_words(text);
        Strings name = words;
        name.push_back("|");
        for (const int32_t id : ids) name.push_back(symbols[id]);
        expected[name] = {score, lm_score(lm, words, options.unk_score),
                          static_cast<int64_t>(words.size())};
      }
      check_equal(decoder.decode(p), expected, options, key);
    }
  }
}

TEST_CASE("Beam search: lexicons of phones and of letters", "[beam]") {
  const double half = std::log(0.5);
  // Two pronunciations, homophones, a word that begins another, repeats, a word the LM lacks.
  const std::vector<Spoken> phones = {{"one", {1, 2}, half},
                                      {"one", {1}, half},
                                      {"two", {2, 2}, 0},
                                      {"three", {1, 2}, 0},
                                      {"four", {2}, std::log(0.25)}};
  const std::vector<Spoken> letters = {
      {"one", {2, 3}, 0}, {"two", {2}, 0}, {"three", {3, 3}, 0}, {"two", {3}, half}};
  for (const uint64_t seed : {1, 2, 3}) {
    check_lexicon(kPhones, phones, "", seed, 6);
    check_lexicon(kPhones, phones, "c", seed, 6);
    check_lexicon(kLetters, letters, "", seed, 6);
  }
  // <space> inside the pronunciations: then it is a symbol as any other.
  const std::vector<Spoken> spaced = {{"one", {2, 1}, 0}, {"two", {3, 1}, 0}};
  Lexicon lexicon;
  for (const Spoken& s : spaced) lexicon.add(s.word, {{kLetters[s.tokens[0]], "<space>"}, 0});
  const LexiconTrie trie(lexicon, kLetters);
  centroid::Rng rng(4);
  for (const auto& h : BeamDecoder(kLetters, exact(), nullptr, LmUnit::none, &trie)
                           .decode(random_scores(5, 4, rng))) {
    CHECK(h.tokens.size() == 2 * h.words.size());
  }
}

TEST_CASE("Beam search: words know their tokens", "[beam]") {
  Lexicon lexicon;
  lexicon.add("one", {{"a", "b"}, 0});
  lexicon.add("two", {{"b"}, 0});
  const LexiconTrie phone_trie(lexicon, kPhones), letter_trie(lexicon, kLetters);
  BeamOptions options = exact();
  options.silence = "c";
  centroid::Rng rng(6);
  const BeamDecoder phones(kPhones, options, nullptr, LmUnit::none, &phone_trie);
  options.silence = "";
  const BeamDecoder letters(kLetters, options, nullptr, LmUnit::none, &letter_trie);
  const BeamDecoder plain(kLetters, options);
  const std::vector<double> p = random_scores(6, 4, rng);
  for (const auto& [decoder, symbols] :
       {std::pair{&phones, &kPhones}, {&letters, &kLetters}, {&plain, &kLetters}}) {
    for (const Hypothesis& h : decoder->decode(p)) {
      int64_t end = 0;
      for (const auto& w : h.words) {
        CHECK(w.first >= end);
        end = w.first + w.count;
        std::string spelled;
        for (int64_t i = w.first; i < end; ++i) spelled += (*symbols)[h.tokens[i].id];
        CHECK(spelled == (w.text == "one" ? "ab" : w.text == "two" ? "b" : w.text));
      }
    }
  }
  // A sound that ends inside every word.
  std::vector<float> logits = {-50, 50, -50, -50};
  const auto cut = phones.decode(log_softmax(logits.data(), 1, 4));
  CHECK(cut[0].complete);  // nothing was said, says the lexicon
  logits[0] = -INFINITY;
  const auto inside = phones.decode(log_softmax(logits.data(), 1, 4));
  CHECK(inside[0].words.size() + inside[0].tokens.size() > 0);
  logits[2] = logits[3] = -INFINITY;
  CHECK_FALSE(phones.decode(log_softmax(logits.data(), 1, 4))[0].complete);
}

TEST_CASE("Beam search goes on from what was said before", "[beam]") {
  centroid::Rng rng(12);
  const NgramModel lm = lm_of({{"a", "b", "a"}, {"b", "b"}, {"a"}});
  const std::vector<double> p = random_scores(5, 4, rng);
  const BeamDecoder tokens(kPhones, exact(), &lm, LmUnit::tokens);
  const auto lm_score = [&](const Hypothesis& h, std::vector<int32_t> before, bool ends) {
    auto state = lm.begin_state();
    double sum = 0;
    const auto say = [&](int32_t word) {
      const auto step = lm.score(state, word);
      state = step.next;
      return step.log_prob;
    };
    for (const int32_t id : before) say(lm.find(kPhones[id]));
    for (const Token& t : h.tokens) {
      const int32_t word = lm.find(kPhones[t.id]);
      if (word == lm.unknown()) sum += exact().unk_score;
      if (word >= 0) sum += say(word);
      if (word < 0) state = lm.empty_state();
    }
    return sum + (ends ? say(lm.sentence_end()) : 0);
  };
  for (const bool ends : {true, false}) {
    const auto found = tokens.decode(p, {{1, 2}, {}, ends});
    REQUIRE(found.size() > 50);
    for (const Hypothesis& h : found) CHECK(h.lm == Approx(lm_score(h, {1, 2}, ends)).margin(1e-9));
  }
  // In the middle of a sound a word may be unfinished, even if others are not.
  Lexicon lexicon;
  lexicon.add("one", {{"a", "b"}});
  const LexiconTrie trie(lexicon, kPhones);
  const BeamDecoder phones(kPhones, exact(), nullptr, LmUnit::none, &trie);
  const std::vector<float> logits = {-50, 50, -50, -50};
  const std::vector<double> a = log_softmax(logits.data(), 1, 4);
  CHECK(phones.decode(a)[0].tokens.empty());
  const Hypothesis open = phones.decode(a, {{}, {}, false})[0];
  CHECK(ids_of(open.tokens) == std::vector<int32_t>{1});
  CHECK_FALSE(open.complete);
}

TEST_CASE("Beam search: limits keep the best, in a fixed order, on any thread", "[beam]") {
  centroid::Rng rng(9);
  const NgramModel lm = lm_of({{"a", "b", "a"}, {"b", "b"}, {"a"}});
  const std::vector<double> p = random_scores(40, 4, rng, 10);
  BeamOptions options = exact();
  options.beam = 300;
  options.nbest = 20;
  const auto wide = BeamDecoder(kPhones, options, &lm, LmUnit::tokens).decode(p);
  REQUIRE(wide.size() == 20);
  options.beam = 16;
  options.token_threshold = 10;
  options.score_threshold = 25;
  const BeamDecoder narrow(kPhones, options, &lm, LmUnit::tokens);
  const auto best = narrow.decode(p);
  CHECK(best.size() == 16);
  CHECK(ids_of(best[0].tokens) == ids_of(wide[0].tokens));
  CHECK(best[0].score <= wide[0].score + 1e-9);
  CHECK(best[0].acoustic == Approx(wide[0].acoustic).epsilon(0.01));
  options.beam = 1;
  CHECK(BeamDecoder(kPhones, options).decode(p).size() == 1);
  std::vector<std::vector<Hypothesis>> again(8);
  centroid::parallel_for(0, 8, 1, [&](int64_t i, int64_t) { again[i] = narrow.decode(p); });
  for (const auto& list : again) {
    REQUIRE(list.size() == best.size());
    for (size_t i = 0; i < best.size(); ++i) {
      CHECK(list[i].score == best[i].score);
      CHECK(ids_of(list[i].tokens) == ids_of(best[i].tokens));
    }
  }
}

TEST_CASE("Beam search finds a word that greedy decoding cannot", "[beam]") {
  // The best path is a blank; a's alignments together are more probable.
  const std::vector<double> p = {std::log(0.6), std::log(0.4), std::log(0.6), std::log(0.4)};
  const std::vector<float> logits(p.begin(), p.end());
  CHECK(greedy_ctc(logits.data(), 2, 2).empty());
  const auto best = BeamDecoder({"<blank>", "a"}, BeamOptions{}).decode(p);
  CHECK(ids_of(best[0].tokens) == Ids{1});
  CHECK(best[0].acoustic == Approx(std::log(0.64)));
}

TEST_CASE("Decoders refuse what they cannot use", "[beam]") {
  const NgramModel lm = lm_of({{"a"}});
  const auto error = [&](const std::function<void(BeamOptions&)>& change, LmUnit unit,
                         const NgramModel* model) {
    BeamOptions options;
    change(options);
    return message_of([&] { BeamDecoder(kPhones, options, model, unit); });
  };
  const auto same = [](BeamOptions&) {};
  CHECK_THAT(error([](auto& o) { o.beam = 0; }, LmUnit::none, nullptr),
             Contains("beam: expected at least 1, got 0"));
  CHECK_THAT(error([](auto& o) { o.lm_weight = NAN; }, LmUnit::none, nullptr),
             Contains("LM weight"));
  CHECK_THAT(error([](auto& o) { o.unk_score = 1; }, LmUnit::none, nullptr), Contains("up to 0"));
  CHECK_THAT(error([](auto& o) { o.silence = "sil"; }, LmUnit::none, nullptr),
             Contains("'sil' for silence"));
  CHECK_THAT(error([](auto& o) { o.silence = "c"; }, LmUnit::none, nullptr),
             Contains("needs a lexicon"));
  CHECK_THAT(error(same, LmUnit::words, &lm), Contains("needs symbols with <space>"));
  CHECK_THAT(error(same, LmUnit::none, &lm), Contains("or neither"));
  CHECK_THAT(message_of([] { BeamDecoder({"<blank>"}, {}); }), Contains("got 1 classes"));
  CHECK_THAT(message_of([] {
               BeamDecoder(kPhones, {}).decode({0, 0, 0});
             }),
             Contains("frames of 4 classes"));
  const std::vector<float> bad = {0, NAN}, none = {-INFINITY, -INFINITY};
  CHECK_THAT(message_of([&] { log_softmax(bad.data(), 1, 2); }), Contains("class 1 at frame 0"));
  CHECK_THAT(message_of([&] { log_softmax(none.data(), 1, 2); }), Contains("got none"));

  Lexicon lexicon;
  lexicon.add("one", {{"a", "x"}, 0});
  CHECK_THAT(message_of([&] { LexiconTrie(lexicon, kPhones); }), Contains("x of one"));
  CHECK_THAT(message_of([&] { LexiconTrie(lexicon, kPhones, true); }), Contains("got none"));
  lexicon.add("one", {{"a"}, 0});
  CHECK(LexiconTrie(lexicon, kPhones, true).skipped() == 1);
}
