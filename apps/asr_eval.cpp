// asr eval: error rates of a recogniser on a manifest.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_alignment.h"
#include "apps/asr_evaluate.h"
#include "apps/audio/files.h"
#include "apps/common/args.h"

namespace centroid::apps {

namespace {

using nlohmann::json;

struct EvalCommand {
  CommonOptions common;
  asr::DecodeOptions decode;
  std::string model, data, attention, score = "auto", name, hyp, nbest_out;
  int64_t show = 0;
  bool list = false;

  void run();
  void write_transcripts(const asr::Evaluation& result, const asr::Decoder& decoder,
                         const audio::SegmentOptions& placing) const;
  void print(const asr::Evaluation& result, const std::string& line, double took) const;
  json report(const asr::Evaluation& result, audio::Unit unit, double took) const;
};

/// Throws where lines `id text` would not be read as they were meant.
void check_ids(const asr::Dataset& set) {
  for (int64_t i = 0; i < set.size(); ++i) {
    const std::string id = set.utterance(i).id;
    CENTROID_CHECK(audio::split_words(id) == std::vector{id}, "--hyp: expected ids without white ",
                   "space, got '", id, "' (rename it in the manifest, or use --nbest-out)");
  }
}

// `id text` lines, and one JSON object an utterance with all its hypotheses.
void EvalCommand::write_transcripts(const asr::Evaluation& result, const asr::Decoder& decoder,
                                    const audio::SegmentOptions& placing) const {
  std::string lines, lists;
  for (const asr::ScoredUtterance& u : result.utterances) {
    lines += audio::trim(u.id + " " + decoder.text(u.nbest[0])) + "\n";
    nlohmann::ordered_json list{{"id", u.id}};
    for (const audio::Hypothesis& h : u.nbest) list["nbest"].push_back(decoder.to_json(h, placing));
    lists += list.dump() + "\n";
  }
  if (!hyp.empty()) audio::write_text(hyp, lines);
  if (!nbest_out.empty()) audio::write_text(nbest_out, lists);
}

void EvalCommand::run() {
  apply(common);
  asr::read_decoder_file(decode);
  asr::TrainedRecognizer trained = asr::load_recognizer(model, attention);
  const auto criterion = asr::read_criterion(trained.loss, trained.vocab.size());
  const asr::Decoder decoder(decode, trained.vocab, criterion.get());
  asr::Dataset set(data, trained.front_end, trained.vocab, 4096);
  if (!hyp.empty()) check_ids(set);
  set.load();
  const audio::Unit unit = score == "auto" ? decoder.default_unit() : audio::unit_from(score);
  asr::Coverage coverage;
  for (int64_t i = 0; i < set.size(); ++i) decoder.cover(set.utterance(i), coverage);
  std::cerr << describe(coverage, decoder);
  const auto begin = std::chrono::steady_clock::now();
  const asr::Evaluation result =
      asr::evaluate(*trained.model, *criterion, set, trained.vocab, unit, &decoder);
  const double took =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  write_transcripts(result, decoder, asr::segment_options(trained, 1e9));
  if (common.json) {
    json out = report(result, unit, took);
    out["decoder"] = decoder.settings();
    out["coverage"] = to_json(coverage, decoder);
    std::cout << out.dump(2) << "\n";
  } else {
    if (!decoder.greedy()) std::cout << "decoder: " << decoder.describe() << "\n";
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
  const auto cut = std::count_if(
      result.utterances.begin(), result.utterances.end(),
      [](const asr::ScoredUtterance& u) { return !u.nbest.empty() && !u.nbest[0].complete; });
  if (cut > 0) {
    std::fprintf(stderr, "warning: %lld utterances end inside a word of the lexicon (--beam?)\n",
                 static_cast<long long>(cut));
  }
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
  sub->add_option(
         "--score", command->score,
         "Symbols to count: auto (those of the model; words for sub-words), phones, characters, "
         "words or subwords")
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
  sub->add_option("--hyp", command->hyp, "File for the transcripts: lines `id text`")->group(group);
  sub->add_option("--nbest-out", command->nbest_out,
                  "File for all hypotheses with scores, times and confidences: JSON lines")
      ->group(group);
  asr::add_decode_options(*sub, command->decode);
  add_common_options(*sub, command->common);
  sub->callback([command] {
    if (command->name.empty()) {
      command->name = std::filesystem::path(command->data).stem().string();
    }
    command->run();
  });
}

}  // namespace centroid::apps
