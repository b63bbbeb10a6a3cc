// Kneser-Ney models against the definition.
#include "apps/audio/kneser_ney.h"

#include <algorithm>
#include <map>
#include <set>

#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;
using Corpus = std::vector<Strings>;

namespace {

/// The formulas of kneser_ney.h on maps of strings.
class Definition {
 public:
  Definition(const Corpus& corpus, int order, std::vector<int64_t> prune, Strings words)
      : order_(order), prune_(std::move(prune)), words_(std::move(words)) {
    for (const Strings& s : corpus) {
      Strings text{"<s>"};
      text.insert(text.end(), s.begin(), s.end());
      text.push_back("</s>");
      for (size_t i = 0; i < text.size(); ++i) {
        for (int n = 1; n <= order && i + n <= text.size(); ++n) {
          ++seen_[Strings(text.begin() + i, text.begin() + i + n)];
        }
      }
    }
    for (const auto& [g, count] : seen_) {
      if (static_cast<int>(g.size()) == order || g[0] == "<s>") adjusted_[g] = count;
      if (g.size() > 1) {
        const Strings rest(g.begin() + 1, g.end());
        ++adjusted_[rest];
      }
    }
    for (int n = 1; n <= order; ++n) {
      std::array<int64_t, 4> t{};
      for (const auto& [g, a] : adjusted_) {
        const bool counts = static_cast<int>(g.size()) == n && g != Strings{"<s>"};
        if (counts && a >= 1 && a <= 4) ++t[a - 1];
      }
      discounts_.push_back(discounts_of(t));
    }
  }

  double probability(const Strings& history, const std::string& word) const {
    const auto n = static_cast<int>(history.size()) + 1;
    double total = 0, freed = 0, own = 0;
    for (const std::string& x : words_) {
      if (x == "<s>") continue;
      Strings g = history;
      g.push_back(x);
      const auto it = adjusted_.find(g);
      if (it == adjusted_.end()) continue;
      const int64_t a = it->second;
      const bool kept = n == 1 || seen_.at(g) > prune_[std::min<size_t>(n, prune_.size()) - 1];
      const double discount = kept ? discounts_[n - 1].of(a) : static_cast<double>(a);
      total += static_cast<double>(a);
      freed += discount;
      if (x == word) own = static_cast<double>(a) - discount;
    }
    const double lower = n == 1 ? 1.0 / static_cast<double>(words_.size() - 1)
                                : probability(Strings(history.begin() + 1, history.end()), word);
    return total == 0 ? lower : own / total + freed / total * lower;
  }

  std::set<Strings> histories() const {
    std::set<Strings> all{{}};
    for (const auto& [g, count] : seen_) {
      if (static_cast<int>(g.size()) < order_ && g.back() != "</s>") all.insert(g);
    }
    return all;
  }

 private:
  int order_;
  std::vector<int64_t> prune_;
  Strings words_;
  std::map<Strings, int64_t> seen_, adjusted_;
  std::vector<Discounts> discounts_;
};

Corpus random_corpus(int sentences, int words, uint64_t seed) {
  centroid::Rng rng(seed);
  Corpus corpus(sentences);
  for (Strings& s : corpus) {
    for (uint64_t n = rng.below(9); n > 0; --n) {
      s.push_back(std::string(1, static_cast<char>('a' + rng.below(1 + rng.below(words)))));
    }
  }
  return corpus;
}

KneserNey train(const Corpus& corpus, const KneserNeyOptions& options) {
  KneserNeyTrainer trainer;
  for (const Strings& s : corpus) trainer.add(s);
  return trainer.train(options);
}

NgramModel::State state_of(const NgramModel& model, const Strings& history) {
  NgramModel::State state = model.empty_state();
  for (size_t i = 0; i < history.size(); ++i) {
    state =
        history[i] == "<s>" ? model.begin_state() : model.score(state, model.find(history[i])).next;
  }
  return state;
}

void compare(const Corpus& corpus, const KneserNeyOptions& options) {
  const KneserNey result = train(corpus, options);
  const NgramModel& model = result.model;
  CHECK(model.order() == options.order);
  const Definition definition(corpus, options.order, options.prune, model.words());
  double worst = 0, worst_sum = 0;
  for (const Strings& history : definition.histories()) {
    const NgramModel::State state = state_of(model, history);
    double sum = 0;
    for (const std::string& word : model.words()) {
      if (word == "<s>") continue;
      const double p = std::exp(model.score(state, model.find(word)).log_prob);
      worst = std::max(worst, std::fabs(p / definition.probability(history, word) - 1));
      sum += p;
    }
    worst_sum = std::max(worst_sum, std::fabs(sum - 1));
  }
  CHECK(worst < 2e-6);  // logarithms are stored in single precision
  CHECK(worst_sum < 1e-6);
}

}  // namespace

TEST_CASE("Kneser-Ney: every probability is that of the definition, contexts sum to 1",
          "[kneser-ney]") {
  for (const int order : {1, 2, 3, 4}) {
    KneserNeyOptions options;
    options.order = order;
    for (const uint64_t seed : {1, 2}) {
      compare(random_corpus(30, 9, seed), options);  // discounts of few counts
      compare(random_corpus(300, 26, seed), options);
      options.prune = {0, 1, 1, 2};
      compare(random_corpus(300, 9, seed), options);
      options.prune = {0};
    }
    compare({{}}, options);
    compare({{"a"}}, options);
    compare({{"a", "a", "a", "a"}, {"a", "a"}}, options);
  }
}

TEST_CASE("Kneser-Ney: a corpus worked by hand", "[kneser-ney]") {
  KneserNeyOptions options;
  options.order = 2;
  const KneserNey r = train({{"a", "b"}, {"a", "c"}}, options);
  // Bigrams: <s> a twice; a b, a c, b </s>, c </s> once: Y = 4 / (4 + 2).
  // Words before: one each of a, b, c, two of </s>: Y = 3 / (3 + 2); 0.48 / 5 for every word.
  CHECK(r.discounts[1].kind == Discounts::Kind::single);
  CHECK(r.discounts[1].of(1) == Approx(2.0 / 3));
  CHECK(r.discounts[0].of(1) == Approx(0.6));
  const auto p = [&](const Strings& history, const std::string& word) {
    return std::exp(r.model.score(state_of(r.model, history), r.model.find(word)).log_prob);
  };
  CHECK(p({}, "b") == Approx(0.176));
  CHECK(p({}, "</s>") == Approx(0.376));
  CHECK(p({}, "never") == Approx(0.096));
  CHECK(p({"a"}, "b") == Approx(1.0 / 6 + 2.0 / 3 * 0.176));
  CHECK(p({"<s>"}, "a") == Approx((2 - 2.0 / 3) / 2 + 1.0 / 3 * 0.176));
  CHECK(p({"a"}, "a") == Approx(2.0 / 3 * 0.176));
  CHECK(r.sentences == 2);
  CHECK(r.words == 4);
  CHECK(r.counted == std::vector<int64_t>{6, 5});
}

TEST_CASE("Kneser-Ney: discounts by counts of counts", "[kneser-ney]") {
  const Discounts d = discounts_of({100, 40, 20, 10});
  const double y = 100.0 / 180;
  CHECK(d.kind == Discounts::Kind::modified);
  CHECK(d.of(0) == 0);
  CHECK(d.of(1) == Approx(1 - 2 * y * 40 / 100));
  CHECK(d.of(2) == Approx(2 - 3 * y * 20 / 40));
  CHECK(d.of(3) == Approx(3 - 4 * y * 10 / 20));
  CHECK(d.of(77) == d.of(3));
  CHECK(discounts_of({0, 40, 20, 10}).kind == Discounts::Kind::fixed);
  CHECK(discounts_of({0, 40, 20, 10}).of(2) == 1);
  CHECK(discounts_of({9, 0, 20, 10}).kind == Discounts::Kind::fixed);
  CHECK(discounts_of({9, 3, 0, 10}).kind == Discounts::Kind::single);
  CHECK(discounts_of({9, 3, 2, 0}).of(5) == Approx(0.6));
  CHECK(discounts_of({10, 10, 100, 1}).kind == Discounts::Kind::single);  // D2 < 0
}

TEST_CASE("Kneser-Ney: rare words and words outside a vocabulary are <unk>", "[kneser-ney]") {
  const Corpus corpus = {{"a", "b", "a"}, {"b", "c"}, {"a", "<unk>"}};
  KneserNeyOptions options;
  options.order = 2;
  options.min_count = 2;
  KneserNey r = train(corpus, options);
  CHECK(r.model.words() == Strings{"<unk>", "<s>", "</s>", "a", "b"});
  CHECK(r.unknown == 2);
  CHECK(r.model.find("c") == r.model.unknown());
  compare({{"a", "b", "a"}, {"b", "<unk>"}, {"a", "<unk>"}}, KneserNeyOptions{});
  options = {};
  options.vocabulary = {"z", "b"};
  r = train(corpus, options);
  CHECK(r.model.words() == Strings{"<unk>", "<s>", "</s>", "z", "b"});
  CHECK(r.unknown == 5);
  const double z = r.model.score(r.model.empty_state(), r.model.find("z")).log_prob;
  CHECK(std::isfinite(z));
}

TEST_CASE("Kneser-Ney: wrong input and options", "[kneser-ney]") {
  KneserNeyTrainer trainer;
  CHECK_THAT(message_of([&] { trainer.train({}); }), Contains("expected sentences, got none"));
  CHECK_THAT(message_of([&] { trainer.add({"a", "</s>"}); }), Contains("got </s>"));
  trainer.add({"a"});
  KneserNeyOptions options;
  options.order = 0;
  CHECK_THAT(message_of([&] { trainer.train(options); }), Contains("order of 1 to 20, got 0"));
  options = {};
  options.prune = {1};
  CHECK_THAT(message_of([&] { trainer.train(options); }), Contains("prune"));
  options.prune = {0, 2, 1};
  CHECK_THAT(message_of([&] { trainer.train(options); }), Contains("got 1 after 2"));
  options = {};
  options.vocabulary = {"a", "a"};
  CHECK_THAT(message_of([&] { trainer.train(options); }), Contains("a"));
  options.order = 20;  // longer than every sentence
  options.vocabulary.clear();
  CHECK(trainer.train(options).model.count(20) == 0);
}
