// asr lm: n-gram language models from text.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/audio/files.h"
#include "apps/audio/kneser_ney.h"
#include "apps/audio/manifest.h"
#include "apps/audio/text.h"
#include "apps/audio/vocab.h"
#include "apps/common/args.h"
#include "tensor/error.h"

namespace centroid::apps {

namespace {

using nlohmann::ordered_json;
using Strings = std::vector<std::string>;

struct LmCommand {
  CommonOptions common;
  Strings texts, manifests, tests;
  std::string unit = "words", words, out, lm;
  bool lowercase = false;
  audio::KneserNeyOptions options;

  void run();
  void train(audio::NgramModel& model, ordered_json& report);
  void test(const audio::NgramModel& model, const std::string& path, ordered_json& report) const;
  template <typename Use>
  void read(const std::string& path, bool manifest, const Use& use) const;
  void print(const ordered_json& report) const;
};

// Phones of a text are what white space separates, as words are.
Strings symbols_of(const std::string& line, audio::Unit unit, bool lowercase) {
  audio::Utterance u;
  u.text = line;
  const bool split = unit == audio::Unit::phones;
  return audio::symbols(u, split ? audio::Unit::words : unit, lowercase && !split);
}

/// Calls `use` with the symbols of each sentence that has any; names the file and line of errors.
template <typename Use>
void LmCommand::read(const std::string& path, bool manifest, const Use& use) const {
  const audio::Unit kind = audio::unit_from(unit);
  const auto give = [&](const Strings& symbols, const auto& where) {
    if (symbols.empty()) return;
    try {
      use(symbols);
    } catch (const Error& error) {
      throw Error(concat(where(), ": ", error.what()));
    }
  };
  if (manifest) {
    audio::ManifestReader reader(path);
    for (audio::Utterance u; reader.next(u);) {
      CENTROID_CHECK(kind != audio::Unit::phones || !u.phones.empty(), path, ":", reader.line(),
                     ": utterance ", u.id, " has no phones (--unit characters or words?)");
      give(audio::symbols(u, kind, lowercase), [&] { return concat(path, ":", reader.line()); });
    }
    return;
  }
  for (const audio::Line& line : audio::read_entries(path)) {
    give(symbols_of(line.text, kind, lowercase), [&] { return concat(path, ":", line.number); });
  }
}

void LmCommand::train(audio::NgramModel& model, ordered_json& report) {
  audio::KneserNeyTrainer trainer;
  const auto add = [&](const Strings& symbols) { trainer.add(symbols); };
  for (const std::string& path : texts) read(path, false, add);
  for (const std::string& path : manifests) read(path, true, add);
  if (!words.empty()) {
    for (const audio::Line& line : audio::read_entries(words)) {
      options.vocabulary.push_back(audio::first_word(line.text).word);
    }
    CENTROID_CHECK(!options.vocabulary.empty(), words, ": expected words, got none");
  }
  audio::KneserNey trained = trainer.train(options);
  model = std::move(trained.model);
  report["unit"] = unit;
  report["sentences"] = trained.sentences;
  report["tokens"] = trained.words;
  report["unknown"] = trained.unknown;
  for (int n = 1; n <= model.order(); ++n) {
    const audio::Discounts& d = trained.discounts[n - 1];
    report["orders"].push_back({{"order", n},
                                {"seen", trained.counted[n - 1]},
                                {"ngrams", model.count(n)},
                                {"discounts", d.amount},
                                {"kind", audio::name_of(d.kind)}});
  }
  audio::write_arpa(out, model);
  report["out"] = out;
}

void LmCommand::test(const audio::NgramModel& model, const std::string& path,
                     ordered_json& report) const {
  audio::TextScore score;
  read(path, path.ends_with(".jsonl"),
       [&](const Strings& symbols) { score += audio::score_sentence(model, symbols); });
  CENTROID_CHECK(score.words > 0, path, ": expected text to score, got none");
  const auto finite = [](double x) { return std::isfinite(x) ? ordered_json(x) : ordered_json(); };
  report["tests"].push_back({{"file", path},
                             {"sentences", score.sentences},
                             {"tokens", score.words},
                             {"unknown", score.unknown},
                             {"log_prob", score.log_prob},
                             {"perplexity", finite(score.perplexity())}});
  if (score.scores_unknown) {
    report["tests"].back()["perplexity_with_unknown"] = finite(score.perplexity(true));
  }
}

void LmCommand::print(const ordered_json& r) const {
  if (r.contains("orders")) {
    std::cout << r["sentences"] << " sentences, " << r["tokens"] << " " << unit << ", "
              << r["unknown"] << " of them unknown\n";
    for (const ordered_json& o : r["orders"]) {
      std::printf("%2d-grams %9lld of %9lld seen, discounts %.3f %.3f %.3f (%s)\n",
                  o["order"].get<int>(), o["ngrams"].get<long long>(), o["seen"].get<long long>(),
                  o["discounts"][0].get<double>(), o["discounts"][1].get<double>(),
                  o["discounts"][2].get<double>(), o["kind"].get<std::string>().c_str());
    }
    std::fflush(stdout);
  }
  for (const ordered_json& t : r.value("tests", ordered_json::array())) {
    const auto number = [](const ordered_json& x) {
      return x.is_null() ? std::nan("") : x.get<double>();
    };
    std::printf("%s: perplexity %.2f (%lld tokens, %lld unknown",
                t["file"].get<std::string>().c_str(), number(t["perplexity"]),
                t["tokens"].get<long long>(), t["unknown"].get<long long>());
    if (t.contains("perplexity_with_unknown") && t["unknown"].get<long long>() > 0) {
      std::printf(", with them %.2f", number(t["perplexity_with_unknown"]));
    }
    std::printf(")\n");
  }
  std::fflush(stdout);
}

void LmCommand::run() {
  apply(common);
  CENTROID_CHECK(lm.empty() != (texts.empty() && manifests.empty()),
                 "lm: expected --text or --manifest to train on, or --lm to read a model");
  CENTROID_CHECK(lm.empty() == !out.empty() && (lm.empty() || !tests.empty()),
                 "lm: expected --out for a model that is trained, and --test for one that is read");
  ordered_json report;
  audio::NgramModel model;
  if (lm.empty()) {
    train(model, report);
  } else {
    model = audio::read_arpa(lm);
  }
  for (const std::string& path : tests) test(model, path, report);
  if (common.json) {
    std::cout << report.dump(2) << "\n";
  } else {
    print(report);
  }
}

}  // namespace

void register_lm(CLI::App& app) {
  auto command = std::make_shared<LmCommand>();
  CLI::App* sub = app.add_subcommand(
      "lm", "Text -> an n-gram language model (interpolated modified Kneser-Ney) as ARPA file");
  const char* group = "Language model";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->group(group);
  };
  add("--text", command->texts, "Text files, plain or .gz, a sentence a line");
  add("--manifest", command->manifests, "Manifests of transcribed utterances");
  add("--unit", command->unit,
      "What the model predicts: words, characters (with <space>) or phones")
      ->capture_default_str()
      ->check(CLI::IsMember({"words", "characters", "phones"}));
  add("--order", command->options.order, "Longest n-grams")
      ->capture_default_str()
      ->check(CLI::Range(1, 20));
  add("--out", command->out, "The ARPA file to write; compressed if its name ends in .gz");
  add("--test", command->tests, "Texts, or manifests named *.jsonl, to compute the perplexity of");
  add("--lm", command->lm, "Read this ARPA file instead of training, for --test");
  add("--prune", command->options.prune,
      "Leave out n-grams seen at most so often, for orders 1, 2, ...; the last holds for the rest")
      ->capture_default_str()
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  add("--min-count", command->options.min_count, "Words seen less often count as <unk>")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40));
  add("--words", command->words,
      "File with the words of the model, the first of each line; others count as <unk>");
  add_switch(*sub, "lowercase", command->lowercase, "Lower case letters (not of phones)")
      ->group(group);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
