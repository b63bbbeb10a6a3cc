// asr tune: the LM weight and word score that suit a development set.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/asr.h"
#include "apps/asr_evaluate.h"
#include "apps/asr_loss.h"
#include "apps/audio/files.h"
#include "apps/audio/nbest.h"
#include "apps/common/args.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

using nlohmann::ordered_json;

struct Weights {
  double lm = 0, word = 0;
  friend bool operator==(const Weights&, const Weights&) = default;
};

/// An utterance with all hypotheses found so far, and their errors once they are known.
struct Candidates {
  std::vector<float> logits;
  int64_t frames = 0;
  std::vector<std::string> ref;
  std::vector<audio::Hypothesis> list;
  std::vector<audio::ErrorRate> errors;  // utterances 0: not yet known
};

struct Point {
  Weights weights;
  double rate = 0;
};

struct TuneCommand {
  CommonOptions common;
  asr::DecodeOptions decode;
  std::string model, data, attention, score = "auto", out;
  std::vector<double> lm_weights{0, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2};
  std::vector<double> word_scores{-2, -1, 0, 1, 2, 3};
  int rounds = 3;

  void run();
  std::vector<Point> grid(std::vector<Candidates>& set, const asr::Decoder& decoder,
                          audio::Unit unit) const;
  void print_table(const std::vector<Point>& points, const Point& best) const;
};

std::vector<Candidates> scores_of(asr::Recognizer& model, const asr::Dataset& data,
                                  const asr::Decoder& decoder, audio::Unit unit) {
  std::vector<Candidates> set(data.size());
  asr::run_model(model, data,
                 [&](const nn::Batch& indices, const asr::SpeechBatch&, const Tensor& logits,
                     const Lengths& lengths) {
                   const Tensor host = raw::to(logits, Device{});
                   const int64_t classes = logits.size(2), stride = logits.size(1) * classes;
                   for (size_t b = 0; b < indices.size(); ++b) {
                     Candidates& c = set[indices[b]];
                     c.frames = lengths[static_cast<int64_t>(b)];
                     const float* from = host.data<float>() + static_cast<int64_t>(b) * stride;
                     c.logits.assign(from, from + c.frames * classes);
                     c.ref = decoder.reference(data.utterance(indices[b]), unit);
                   }
                 });
  return set;
}

const audio::ErrorRate& errors_of(Candidates& c, size_t i, const asr::Decoder& decoder,
                                  audio::Unit unit) {
  c.errors.resize(c.list.size());
  if (c.errors[i].utterances == 0) {
    c.errors[i].add(audio::align(c.ref, decoder.symbols(c.list[i], unit)));
  }
  return c.errors[i];
}

/// Decodes everything with the decoder's weights, keeps what is new, and gives the error rate.
double decode_all(std::vector<Candidates>& set, const asr::Decoder& decoder, audio::Unit unit,
                  int64_t classes) {
  std::vector<audio::ErrorRate> errors(set.size());
  parallel_for(0, static_cast<int64_t>(set.size()), 1, [&](int64_t i, int64_t) {
    Candidates& c = set[i];
    auto list = decoder.search(audio::log_softmax(c.logits.data(), c.frames, classes));
    errors[i].add(audio::align(c.ref, decoder.symbols(list[0], unit)));
    audio::merge_nbest(c.list, std::move(list));
  });
  audio::ErrorRate total;
  for (const audio::ErrorRate& e : errors) total += e;
  return total.rate();
}

std::vector<Point> TuneCommand::grid(std::vector<Candidates>& set, const asr::Decoder& decoder,
                                     audio::Unit unit) const {
  std::vector<Point> points;
  for (const double lm : lm_weights) {
    for (const double word : word_scores) points.push_back({{lm, word}, 0});
  }
  std::vector<std::vector<audio::ErrorRate>> errors(set.size());
  parallel_for(0, static_cast<int64_t>(set.size()), 1, [&](int64_t i, int64_t) {
    for (const Point& p : points) {
      const size_t best = audio::best_of(set[i].list, p.weights.lm, p.weights.word);
      errors[i].push_back(errors_of(set[i], best, decoder, unit));
    }
  });
  for (size_t k = 0; k < points.size(); ++k) {
    audio::ErrorRate total;
    for (const auto& of : errors) total += of[k];
    points[k].rate = total.rate();
  }
  return points;
}

// Of equal rates the first, that is the smallest weights.
const Point& best_point(const std::vector<Point>& points) {
  const Point* best = &points[0];
  for (const Point& p : points) {
    if (p.rate < best->rate) best = &p;
  }
  return *best;
}

void TuneCommand::print_table(const std::vector<Point>& points, const Point& best) const {
  std::printf("%% wrong     word score\nLM weight ");
  for (const double word : word_scores) std::printf("%7g ", word);
  for (size_t k = 0; k < points.size(); ++k) {
    const Point& p = points[k];
    if (k % word_scores.size() == 0) std::printf("\n%9g ", p.weights.lm);
    std::printf("%7.2f%c", 100 * p.rate, p.weights == best.weights ? '*' : ' ');
  }
  std::printf("\n");
  std::fflush(stdout);
}

void TuneCommand::run() {
  apply(common);
  asr::read_decoder_file(decode);
  CENTROID_CHECK(!decode.lm.empty() || !decode.lexicon.empty(),
                 "tune: expected --lm or --lexicon, whose weights are tuned, got neither");
  CENTROID_CHECK(!lm_weights.empty() && !word_scores.empty(),
                 "tune: expected LM weights and word scores to try");
  for (const auto* values : {&lm_weights, &word_scores}) {
    CENTROID_CHECK(std::set<double>(values->begin(), values->end()).size() == values->size(),
                   "tune: expected each LM weight and word score once, got one twice");
  }
  if (decode.lm.empty()) lm_weights = {0};
  asr::TrainedRecognizer trained = asr::load_recognizer(model, attention);
  CENTROID_CHECK(asr::read_criterion(trained.loss, trained.vocab.size())->has_blank(), model,
                 ": tune: expected a recogniser with CTC's blank (--loss ctc, or lfmmi with "
                 "--topology ctc), got another");
  asr::Decoder decoder(decode, trained.vocab);
  asr::Dataset set(data, trained.front_end, trained.vocab, 4096);
  set.load();
  const audio::Unit unit = score == "auto" ? decoder.default_unit() : audio::unit_from(score);
  asr::Coverage coverage;
  for (int64_t i = 0; i < set.size(); ++i) decoder.cover(set.utterance(i), coverage);
  std::cerr << describe(coverage, decoder);
  std::vector<Candidates> candidates = scores_of(*trained.model, set, decoder, unit);

  const auto& now = decoder.options().search;
  std::vector<Point> decoded, points;
  for (Weights at{now.lm_weight, now.word_score}; static_cast<int>(decoded.size()) <= rounds;) {
    decoder.set_weights(at.lm, at.word);
    decoded.push_back({at, decode_all(candidates, decoder, unit, trained.vocab.size())});
    std::fprintf(stderr, "decoded with LM weight %g, word score %g: %s %.2f %%\n", at.lm, at.word,
                 asr::rate_name(unit).c_str(), 100 * decoded.back().rate);
    points = grid(candidates, decoder, unit);
    at = best_point(points).weights;
    const auto same = [&](const Point& p) { return p.weights == at; };
    if (std::any_of(decoded.begin(), decoded.end(), same)) break;
  }
  const Point best = best_point(decoded);
  decoder.set_weights(best.weights.lm, best.weights.word);
  const ordered_json settings = decoder.settings();
  if (!out.empty()) audio::write_text(out, settings.dump(2) + "\n");
  if (!common.json) {
    print_table(points, best_point(points));
    std::printf("best: --lm-weight %g --word-score %g: %s %.2f %% when decoded\n", best.weights.lm,
                best.weights.word, asr::rate_name(unit).c_str(), 100 * best.rate);
    std::fflush(stdout);
    return;
  }
  const auto list = [](const std::vector<Point>& of) {
    ordered_json items = ordered_json::array();
    for (const Point& p : of) {
      items.push_back(
          {{"lm-weight", p.weights.lm}, {"word-score", p.weights.word}, {"rate", p.rate}});
    }
    return items;
  };
  std::cout << ordered_json{{"rate_name", asr::rate_name(unit)},
                            {"rate", best.rate},
                            {"decoder", settings},
                            {"coverage", to_json(coverage, decoder)},
                            {"decoded", list(decoded)},
                            {"rescored", list(points)}}
                   .dump(2)
            << "\n";
}

}  // namespace

void register_tune(CLI::App& app) {
  auto command = std::make_shared<TuneCommand>();
  CLI::App* sub = app.add_subcommand(
      "tune", "Finds the LM weight and word score with the fewest errors on a development set");
  const char* group = "Tuning";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->group(group);
  };
  add("--model", command->model, "Run folder or checkpoint file")->required();
  add("--data", command->data, "Manifest with transcripts: not the test set")->required();
  add("--attention", command->attention,
      "Attention to use instead of the one the model was trained with");
  add("--score", command->score,
      "Symbols to count: auto (words with a lexicon, else those of the model), phones, characters "
      "or words")
      ->capture_default_str();
  add("--lm-weights", command->lm_weights, "LM weights to try")
      ->capture_default_str()
      ->delimiter(',')
      ->check(non_negative());
  add("--word-scores", command->word_scores, "Word scores to try")
      ->capture_default_str()
      ->delimiter(',')
      ->check(in_range(-1e6, 1e6));
  add("--rounds", command->rounds,
      "Times to decode anew with the best weights, which adds to the hypotheses that are rescored")
      ->capture_default_str()
      ->check(CLI::Range(0, 100));
  add("--out", command->out, "JSON file for the settings found, for --decoder");
  asr::add_decode_options(*sub, command->decode);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
