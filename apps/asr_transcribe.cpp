// asr transcribe: sound files to text.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_decode.h"
#include "apps/asr_model.h"
#include "apps/common/args.h"
#include "autograd/node.h"

namespace centroid::apps {

namespace {

struct TranscribeCommand {
  CommonOptions common;
  asr::DecodeOptions decode;
  std::string model, attention;
  std::vector<std::string> files;
  bool times = false;

  void run();
};

struct Transcript {
  std::vector<audio::Hypothesis> nbest;
  double seconds = 0;
};

Transcript transcribe(asr::TrainedRecognizer& recognizer, const asr::Decoder& decoder,
                      const std::string& file) {
  NoGrad no_grad;
  const audio::Sound sound = audio::load_sound(file, recognizer.front_end.fbank.rate);
  const audio::Features features = recognizer.front_end(sound);
  const auto [x, lengths] = asr::pad_features({&features});
  const auto [logits, out_lengths] = recognizer.model->forward(x, lengths, {});
  const Tensor host_logits = raw::to(logits, Device{});
  return {decoder.decode(host_logits.data<float>(), out_lengths[0]), sound.seconds()};
}

nlohmann::ordered_json to_json(const Transcript& t, const asr::Decoder& decoder,
                               const std::string& file, double frame) {
  nlohmann::ordered_json out{{"audio", file}, {"seconds", t.seconds}};
  out.update(decoder.to_json(t.nbest[0], frame));
  for (size_t i = 1; i < t.nbest.size(); ++i) {
    out["others"].push_back(decoder.to_json(t.nbest[i], frame));
  }
  return out;
}

void print_times(const std::vector<audio::TimedWord>& items) {
  for (const audio::TimedWord& item : items) {
    std::printf("%9.2f %9.2f  %5.3f  %s\n", item.begin, item.end, item.confidence,
                item.text.c_str());
  }
  std::fflush(stdout);
}

void TranscribeCommand::run() {
  apply(common);
  asr::read_decoder_file(decode);
  asr::TrainedRecognizer recognizer = asr::load_recognizer(model, attention);
  const asr::Decoder decoder(decode, recognizer.vocab);
  const double frame = recognizer.frame_seconds();
  for (const std::string& file : files) {
    const Transcript t = transcribe(recognizer, decoder, file);
    if (common.json) {
      std::cout << to_json(t, decoder, file, frame).dump() << "\n";
      continue;
    }
    for (const audio::Hypothesis& h : t.nbest) {
      std::cout << (files.size() > 1 ? file + ": " : "") << decoder.text(h) << "\n";
    }
    if (!times) continue;
    const auto words = decoder.words(t.nbest[0], frame);
    print_times(decoder.has_lexicon() ? words : decoder.tokens(t.nbest[0], frame));
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
  sub->add_flag(
         "--times", command->times,
         "Also print begin, end (in seconds) and confidence of each token, or word of the lexicon")
      ->group(group);
  asr::add_decode_options(*sub, command->decode);
  add_common_options(*sub, command->common);
  sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
