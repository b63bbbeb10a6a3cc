// N-gram models in memory and as ARPA files.
#include "apps/audio/arpa.h"

#include <cstdlib>
#include <map>

#include "apps/audio/files.h"
#include "apps/audio/kneser_ney.h"
#include "tensor/rng.h"
#include "tests/apps/audio_support.h"

using namespace centroid::audio;
using namespace audio_test;
using Catch::Matchers::Contains;
using Strings = std::vector<std::string>;

namespace {

const char* kSmall = R"(
made by hand

\data\
ngram 1=5
ngram 2=3
ngram 3=1

\1-grams:
-99	<s>	-0.5
-1.0	</s>
-2.0	<unk>
-0.5	a	-0.25
-0.7	b	-0.125

\2-grams:
-0.3	<s> a	-0.0625
-0.4	a b
-0.2	b </s>

\3-grams:
-0.1	<s> a b

\end\
)";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

double log10_of(const NgramModel& model, NgramModel::State state, const std::string& word,
                NgramModel::State* next = nullptr) {
  const auto step = model.score(state, model.find(word));
  if (next) *next = step.next;
  return step.log_prob / std::log(10.0);
}

/// Katz's recursion on lists of words: the definition.
struct Plain {
  std::map<Strings, std::pair<double, double>> ngrams;  // log10 probability, back-off

  explicit Plain(const NgramModel& model) {
    const auto tables = model.tables();
    for (size_t n = 1; n <= tables.size(); ++n) {
      const NgramTable& t = tables[n - 1];
      for (size_t i = 0; i < t.log_prob.size(); ++i) {
        Strings words;
        for (size_t k = 0; k < n; ++k) words.push_back(model.words()[t.words[i * n + k]]);
        ngrams[words] = {t.log_prob[i], t.backoff.empty() ? 0 : t.backoff[i]};
      }
    }
  }
  double score(Strings history, const std::string& word) const {
    Strings whole = history;
    whole.push_back(word);
    if (const auto it = ngrams.find(whole); it != ngrams.end()) return it->second.first;
    const auto it = ngrams.find(history);
    const double backoff = it == ngrams.end() ? 0 : it->second.second;
    history.erase(history.begin());
    return backoff + score(history, word);
  }
};

/// A model of random sentences over few words.
NgramModel random_model(int order, uint64_t seed, const std::vector<int64_t>& prune = {0}) {
  centroid::Rng rng(seed);
  KneserNeyTrainer trainer;
  for (int s = 0; s < 40; ++s) {
    Strings words;
    for (uint64_t n = rng.below(8); n > 0; --n) {
      words.push_back(std::string(1, static_cast<char>('a' + rng.below(1 + rng.below(6)))));
    }
    trainer.add(words);
  }
  KneserNeyOptions options;
  options.order = order;
  options.prune = prune;
  return trainer.train(options).model;
}

}  // namespace

TEST_CASE("ARPA: probabilities, back-off and states of a model made by hand", "[arpa]") {
  const NgramModel model = parse_arpa(kSmall, "small");
  CHECK(model.order() == 3);
  CHECK(model.count(1) == 5);
  CHECK(model.count(3) == 1);
  CHECK(model.find("zebra") == model.unknown());
  NgramModel::State state = model.begin_state();
  CHECK(log10_of(model, state, "a", &state) == Approx(-0.3));
  CHECK(log10_of(model, state, "b") == Approx(-0.1));
  CHECK(log10_of(model, state, "</s>") == Approx(-0.0625 - 0.25 - 1.0));
  CHECK(log10_of(model, state, "zebra", &state) == Approx(-0.0625 - 0.25 - 2.0));
  CHECK(state == model.empty_state());
  CHECK(log10_of(model, model.empty_state(), "b", &state) == Approx(-0.7));
  CHECK(log10_of(model, state, "</s>", &state) == Approx(-0.2));
  CHECK(state == model.empty_state());

  const TextScore score = score_sentence(model, {"a", "b", "x"});
  CHECK(score.log_prob / std::log(10.0) == Approx(-0.3 - 0.1 - (0.125 + 2.0) - 1.0));
  CHECK(score.words == 3);
  CHECK(score.unknown == 1);
  CHECK(score.perplexity(true) == Approx(std::pow(10.0, 3.525 / 4)));
  CHECK(score.perplexity() == Approx(std::pow(10.0, 1.4 / 3)));
  CHECK(std::isnan(TextScore{}.perplexity()));
}

TEST_CASE("ARPA: scores of any history are those of the definition", "[arpa]") {
  for (const int order : {1, 2, 3, 5}) {
    const NgramModel model = random_model(order, 3 + order, {0, 0, 1});
    const Plain plain(model);
    centroid::Rng rng(order);
    for (int round = 0; round < 200; ++round) {
      Strings history;
      NgramModel::State state = model.empty_state();
      if (rng.below(2) == 0) {
        history = {"<s>"};
        state = model.begin_state();
      }
      for (int k = 0; k < 7; ++k) {
        const std::string word = model.words()[2 + rng.below(model.words().size() - 2)];
        Strings recent = history;
        while (static_cast<int>(recent.size()) >= order) recent.erase(recent.begin());
        const double expected = plain.score(recent, word);
        CHECK(log10_of(model, state, word, &state) == Approx(expected).margin(1e-6));
        history.push_back(word);
      }
    }
  }
}

TEST_CASE("ARPA: what is written reads back to the same bits", "[arpa]") {
  TempFolder folder;
  for (const int order : {1, 2, 4}) {
    const NgramModel model = random_model(order, 11);
    const std::string text = to_arpa(model);
    CHECK(to_arpa(parse_arpa(text, "again")) == text);
    for (const char* name : {"/lm.arpa", "/lm.arpa.gz"}) {
      write_arpa(folder.path() + name, model);
      CHECK(to_arpa(read_arpa(folder.path() + name)) == text);
    }
    CHECK(slurp(folder / "lm.arpa") == text);
    CHECK(slurp(folder / "lm.arpa.gz").substr(0, 2) == "\x1f\x8b");
  }
  // An order without n-grams, numbers with signs, white space of other tools, no <s> and no <unk>.
  const NgramModel odd = parse_arpa(
      "\\data\\\r\nngram  1=       2\r\nngram 2 = 0\r\n\\1-grams:\r\n-1e-1 a +0.5\r\n 0\tb  \r\n"
      "\\2-grams:\r\n\\end\\",
      "odd");
  CHECK(odd.order() == 2);
  CHECK(odd.unknown() == -1);
  CHECK(odd.begin_state() == odd.empty_state());
  CHECK(score_sentence(odd, {"b", "a", "c"}).unknown == 1);
}

TEST_CASE("ARPA: broken files are refused with file and line", "[arpa]") {
  const auto error = [](const std::string& text) {
    return message_of([&] { parse_arpa(text, "x.arpa"); });
  };
  const auto changed = [&](const std::string& from, const std::string& to) {
    return error(replaced(kSmall, from, to));
  };
  CHECK(changed("ngram 2=3", "ngram 2=4") ==
        "x.arpa:21: the header promises 4 2-grams, there are 3");
  CHECK(changed("ngram 2=3", "ngram 3=3") ==
        "x.arpa:6: expected the count of order 2, got order 3");
  CHECK(changed("ngram 2=3", "ngram 2=-1") ==
        "x.arpa:6: expected ngram ORDER=COUNT, got 'ngram 2=-1'");
  CHECK(changed("-0.4\ta b", "-0.4\ta c") == "x.arpa:18: the word 'c' is not among the unigrams");
  CHECK(changed("-0.4\ta b", "-0.4\t<s> a") == "x.arpa:18: the 2-gram '<s> a' occurs twice");
  CHECK(changed("-0.1\t<s> a b", "-0.1\t<s> b a") ==
        "x.arpa:22: the 3-gram '<s> b a' lacks its context, the 2-gram '<s> b'");
  CHECK(changed("-0.7\tb", "-0.7\ta") == "x.arpa:14: the word 'a' occurs twice");
  CHECK(changed("-0.4\ta b", "0.4\ta b") ==
        "x.arpa:18: expected a log10 probability of at most 0, got 0.4");
  CHECK(changed("-0.4\ta b", "-0,4\ta b") == "x.arpa:18: expected a log10 probability, got '-0,4'");
  CHECK(changed("-0.4\ta b", "nan\ta b") == "x.arpa:18: expected a log10 probability, got 'nan'");
  CHECK(changed("-0.4\ta b", "-0.4\ta") == "x.arpa:18: expected a 2-gram, got 1 words: '-0.4\ta'");
  CHECK(changed("-0.4\ta b", "-0.4\ta b b") ==
        "x.arpa:18: expected a log10 back-off weight after 2 words, got 'b'");
  CHECK_THAT(changed("-0.4\ta b", "-0.4\ta b 0 0"), Contains("got more words"));
  CHECK(changed("<s> a b", "<s> a b -0.1") ==
        "x.arpa:22: expected no back-off weight in the highest order, got -0.1");
  CHECK(changed("\\end\\", "") ==
        "x.arpa:25: expected n-grams or \\end\\, got the end of the file");
  CHECK(changed("\\end\\", "\\end\\\nmore") ==
        "x.arpa:25: expected the end of the file after \\end\\, got 'more'");
  CHECK(changed("\\3-grams:", "\\4-grams:") == "x.arpa:21: expected \\3-grams:, got '\\4-grams:'");
  CHECK_THAT(changed("made by hand", "iARPA"), Contains("compile-lm"));
  CHECK_THAT(changed("\ta\t", "\t\xff\t"), Contains("x.arpa:13: expected UTF-8"));
  CHECK_THAT(error("hello"), Contains("with a line \\data\\, found none"));
  CHECK_THAT(error("\\data\\\n\\1-grams:\n"), Contains("expected ngram 1=COUNT"));
  CHECK_THAT(error("\\data\\\nngram 1=0\n\\1-grams:\n\\end\\\n"), Contains("got none"));
  CHECK_THAT(message_of([] { read_arpa("/nowhere/lm.arpa"); }), Contains("no such file"));
}

// Perplexity by an independent program, where it is installed (Debian: irstlm).
TEST_CASE("ARPA: irstlm finds the same perplexity", "[arpa]") {
  if (!fs::exists("/usr/bin/irstlm")) {
    WARN("skipped: irstlm is not installed");
    return;
  }
  TempFolder folder;
  for (const int order : {2, 3, 5}) {
    const NgramModel model = random_model(order, 17, {0, 0, 1});
    const std::string lm = folder / "lm.arpa", out = folder / "out";
    write_arpa(lm, model);
    centroid::Rng rng(5);
    TextScore score;
    std::string text;
    for (int s = 0; s < 30; ++s) {
      Strings words;
      for (uint64_t n = 1 + rng.below(7); n > 0; --n) {
        words.push_back(std::string(1, static_cast<char>('a' + rng.below(6))));
      }
      text += "<s> " + join(words, " ") + " </s>\n";
      score += score_sentence(model, words);
    }
    const std::string command =
        "irstlm compile-lm " + lm + " --eval=" + folder.write("text", text) + " > " + out + " 2>&1";
    REQUIRE(std::system(command.c_str()) == 0);
    const std::string said = slurp(out);
    INFO(said);
    const size_t at = said.find(" PP=");
    REQUIRE(at != said.npos);
    CHECK(std::stod(said.substr(at + 4)) == Approx(score.perplexity()).epsilon(2e-3));
  }
}
