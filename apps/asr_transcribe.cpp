// asr transcribe: sound files to text.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_loss.h"
#include "apps/asr_model.h"
#include "apps/common/args.h"
#include "autograd/node.h"

namespace centroid::apps {

namespace {

using nlohmann::json;

struct TranscribeCommand {
  CommonOptions common;
  std::string model, attention;
  std::vector<std::string> files;
  bool times = false;

  void run() const;
};

struct Transcript {
  std::string text;
  std::vector<audio::Token> tokens;
  std::vector<std::string> symbols;
  double seconds = 0;
};

Transcript transcribe(asr::TrainedRecognizer& recognizer, const asr::Criterion& criterion,
                      const std::string& file) {
  NoGrad no_grad;
  const audio::Sound sound = audio::load_sound(file, recognizer.front_end.fbank.rate);
  const audio::Features features = recognizer.front_end(sound);
  const auto [x, lengths] = asr::pad_features({&features});
  const auto [logits, out_lengths] = recognizer.model->forward(x, lengths, {});
  Transcript result;
  const Tensor host_logits = raw::to(logits, Device{});
  result.tokens = criterion.decode(host_logits.data<float>(), out_lengths[0]);
  result.symbols = recognizer.vocab.decode(audio::ids_of(result.tokens));
  result.text = recognizer.vocab.text(result.symbols);
  result.seconds = sound.seconds();
  return result;
}

json to_json(const Transcript& t, const std::string& file, double frame) {
  json tokens = json::array();
  for (size_t i = 0; i < t.tokens.size(); ++i) {
    tokens.push_back({{"token", t.symbols[i]},
                      {"begin", t.tokens[i].begin * frame},
                      {"end", t.tokens[i].end * frame}});
  }
  return {{"audio", file}, {"seconds", t.seconds}, {"text", t.text}, {"tokens", tokens}};
}

void TranscribeCommand::run() const {
  apply(common);
  asr::TrainedRecognizer recognizer = asr::load_recognizer(model, attention);
  const auto criterion = asr::read_criterion(recognizer.loss, recognizer.vocab.size());
  const double frame = recognizer.frame_seconds();
  for (const std::string& file : files) {
    const Transcript t = transcribe(recognizer, *criterion, file);
    if (common.json) {
      std::cout << to_json(t, file, frame).dump() << "\n";
      continue;
    }
    std::cout << (files.size() > 1 ? file + ": " : "") << t.text << "\n";
    if (!times) continue;
    for (size_t i = 0; i < t.tokens.size(); ++i) {
      std::printf("%9.2f %9.2f  %s\n", t.tokens[i].begin * frame, t.tokens[i].end * frame,
                  t.symbols[i].c_str());
    }
    std::fflush(stdout);
  }
}

}  // namespace

void register_transcribe(CLI::App& app) {
  auto command = std::make_shared<TranscribeCommand>();
  CLI::App* sub = app.add_subcommand(
      "transcribe", "Sound files (anything libsndfile reads, at any rate) to text");
  const char* group = "Transcription";
  sub->add_option("files", command->files, "Sound files")->required()->group(group);
  sub->add_option("--model", command->model, "Run folder or checkpoint file")
      ->required()
      ->group(group);
  sub->add_option("--attention", command->attention,
                  "Attention to use instead of the one the model was trained with")
      ->group(group);
  sub->add_flag("--times", command->times, "Also print begin and end of each token, in seconds")
      ->group(group);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
