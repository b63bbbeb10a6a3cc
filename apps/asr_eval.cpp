// asr eval: error rates of a recogniser on a manifest.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_evaluate.h"
#include "apps/common/args.h"

namespace centroid::apps {

namespace {

using nlohmann::json;

struct EvalCommand {
  CommonOptions common;
  std::string model, data, attention, score = "auto", name;
  int64_t show = 0;
  bool list = false;

  void run() const;
  void print(const asr::Evaluation& result, const std::string& line, double took) const;
  json report(const asr::Evaluation& result, audio::Unit unit, double took) const;
};

void EvalCommand::run() const {
  apply(common);
  asr::TrainedRecognizer trained = asr::load_recognizer(model, attention);
  asr::Dataset set(data, trained.front_end, trained.vocab, 4096);
  set.load();
  const audio::Unit unit = score == "auto" ? trained.vocab.unit() : audio::unit_from(score);
  const auto begin = std::chrono::steady_clock::now();
  const auto criterion = asr::read_criterion(trained.loss, trained.vocab.size());
  const asr::Evaluation result =
      asr::evaluate(*trained.model, *criterion, set, trained.vocab, unit);
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (common.json) {
    std::cout << report(result, unit, took).dump(2) << "\n";
  } else {
    print(result, audio::summary(name, asr::rate_name(unit), result.errors), took);
  }
}

void EvalCommand::print(const asr::Evaluation& result, const std::string& line, double took) const {
  const int64_t count = list ? static_cast<int64_t>(result.utterances.size()) : show;
  for (int64_t i = 0; i < std::min<int64_t>(count, result.utterances.size()); ++i) {
    const auto& u = result.utterances[i];
    std::cout << u.id << "\n" << audio::format_alignment(u.alignment) << "\n";
  }
  std::cout << line << "\n";
  std::fprintf(stderr, "%zu utterances, %.0f s of sound in %.1f s: %.0f times real time\n",
               result.utterances.size(), result.seconds, took, result.seconds / took);
}

json EvalCommand::report(const asr::Evaluation& result, audio::Unit unit, double took) const {
  const audio::ErrorRate& e = result.errors;
  json out{{"set", name},
           {"rate_name", asr::rate_name(unit)},
           {"rate", e.rate()},
           {"substitutions", e.substitutions},
           {"deletions", e.deletions},
           {"insertions", e.insertions},
           {"tokens", e.tokens},
           {"utterances", e.utterances},
           {"wrong_utterances", e.wrong_utterances},
           {"loss", result.loss},
           {"seconds_of_sound", result.seconds},
           {"seconds_taken", took}};
  if (!list) return out;
  for (const auto& u : result.utterances) {
    json pairs = json::array();
    for (const auto& p : u.alignment) {
      pairs.push_back({p.ref, p.hyp, std::string(1, static_cast<char>(p.edit))});
    }
    out["alignments"].push_back({{"id", u.id}, {"pairs", pairs}});
  }
  return out;
}

}  // namespace

void register_eval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  CLI::App* sub = app.add_subcommand("eval", "Error rate of a recogniser on a manifest");
  const char* group = "Evaluation";
  sub->add_option("--model", command->model, "Run folder or checkpoint file")
      ->required()
      ->group(group);
  sub->add_option("--data", command->data, "Manifest with transcripts")->required()->group(group);
  sub->add_option("--name", command->name, "What to call the set in the result")
      ->default_str("the manifest's name")
      ->group(group);
  sub->add_option("--score", command->score,
                  "Symbols to count: auto (those of the model), phones, characters or words")
      ->capture_default_str()
      ->group(group);
  sub->add_option("--attention", command->attention,
                  "Attention to use instead of the one the model was trained with")
      ->group(group);
  sub->add_option("--show", command->show, "Print this many aligned transcripts")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber)
      ->group(group);
  sub->add_flag("--list", command->list, "Print every aligned transcript")->group(group);
  add_common_options(*sub, command->common);
  sub->callback([command] {
    if (command->name.empty()) {
      command->name = std::filesystem::path(command->data).stem().string();
    }
    command->run();
  });
}

}  // namespace centroid::apps
