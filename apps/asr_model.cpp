#include "apps/asr_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

namespace centroid::asr {

using nlohmann::json;

audio::Features FrontEnd::filterbank(const audio::Sound& sound) const {
  return audio::Fbank(fbank)(sound);
}

audio::Features FrontEnd::finish(audio::Features features) const {
  if (normalize == "utterance") audio::normalize_utterance(features);
  if (normalize == "global") audio::apply(stats, features);
  return stack == 1 && stride == 1 ? std::move(features)
                                   : audio::stack_frames(features, stack, stride);
}

audio::Features FrontEnd::operator()(const audio::Sound& sound) const {
  return finish(filterbank(sound));
}

int64_t FrontEnd::columns() const { return (fbank.bins + (fbank.use_energy ? 1 : 0)) * stack; }

int64_t FrontEnd::frames(double seconds) const {
  const int64_t raw = audio::Fbank(fbank).frames(std::llround(seconds * fbank.rate));
  return (raw + stride - 1) / stride;
}

void FrontEnd::validate() const {
  audio::validate(fbank);
  CENTROID_CHECK(fbank.dither == 0, "front end: dither: expected 0 in a recogniser, got ",
                 fbank.dither, " (features are computed once and reused)");
  CENTROID_CHECK(normalize == "utterance" || normalize == "global" || normalize == "none",
                 "front end: normalize: expected utterance, global or none, got '", normalize, "'");
  CENTROID_CHECK(stack >= 1 && stride >= 1 && stride <= stack,
                 "front end: expected stack >= stride >= 1, got stack ", stack, ", stride ",
                 stride);
}

void to_json(json& j, const FrontEnd& f) {
  j = json{
      {"fbank", f.fbank}, {"normalize", f.normalize}, {"stack", f.stack}, {"stride", f.stride}};
  if (f.normalize == "global") j["stats"] = f.stats;
}

void from_json(const json& j, FrontEnd& f) {
  j.at("fbank").get_to(f.fbank);
  j.at("normalize").get_to(f.normalize);
  j.at("stack").get_to(f.stack);
  j.at("stride").get_to(f.stride);
  if (f.normalize == "global") j.at("stats").get_to(f.stats);
  f.validate();
}

void to_json(json& j, const RecognizerOptions& o) {
  j = json{{"columns", o.columns},
           {"classes", o.classes},
           {"subsampling", o.subsampling},
           {"channels", o.channels},
           {"encoder", o.encoder}};
}

void from_json(const json& j, RecognizerOptions& o) {
  j.at("columns").get_to(o.columns);
  j.at("classes").get_to(o.classes);
  j.at("subsampling").get_to(o.subsampling);
  j.at("channels").get_to(o.channels);
  j.at("encoder").get_to(o.encoder);
}

Recognizer::Recognizer(const RecognizerOptions& o, Rng& rng)
    : options_(o),
      subsampling_(o.columns, o.encoder.width, o.subsampling, o.channels, rng),
      encoder_(o.encoder, rng),
      output_(o.encoder.width, o.classes, rng) {
  add_module("subsampling", subsampling_);
  add_module("encoder", encoder_);
  add_module("output", output_);
  assign_paths();
}

std::pair<Tensor, Lengths> Recognizer::forward(const Tensor& x, const Lengths& lengths,
                                               const nn::Context& context) {
  auto [short_x, short_lengths] = subsampling_.forward(x, lengths);
  auto [h, out_lengths] = encoder_.forward(short_x, short_lengths, context);
  return {output_.forward(h), out_lengths};
}

double TrainedRecognizer::frame_seconds() const {
  return audio::frame_seconds(front_end.fbank, front_end.stride * model->options().subsampling);
}

std::map<std::string, std::string> checkpoint_texts(const Recognizer& model,
                                                    const FrontEnd& front_end,
                                                    const audio::Vocab& vocab) {
  return {{"kind", "asr"},
          {"front_end", json(front_end).dump()},
          {"model", json(model.options()).dump()},
          {"vocab", json(vocab).dump()}};
}

std::string checkpoint_file(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) return path;
  for (const char* name : {"best.safetensors", "last.safetensors"}) {
    if (fs::exists(fs::path(path) / name)) return (fs::path(path) / name).string();
  }
  throw Error(concat(path, ": expected a run folder with best.safetensors or last.safetensors, ",
                     "found neither (has the training saved yet?)"));
}

TrainedRecognizer load_recognizer(const std::string& path, const std::string& attention) {
  const std::string file = checkpoint_file(path);
  const nn::Checkpoint checkpoint = nn::load_checkpoint(file);
  const auto text = [&](const char* key) -> const std::string& {
    const auto it = checkpoint.texts.find(key);
    CENTROID_CHECK(it != checkpoint.texts.end(), file, ": expected a recogniser's checkpoint, got ",
                   "one without '", key, "' (was it written by another program?)");
    return it->second;
  };
  CENTROID_CHECK(text("kind") == "asr", file, ": expected a checkpoint of asr, got one of ",
                 text("kind"));
  TrainedRecognizer trained;
  RecognizerOptions options;
  try {
    json::parse(text("front_end")).get_to(trained.front_end);
    json::parse(text("vocab")).get_to(trained.vocab);
    json::parse(text("model")).get_to(options);
  } catch (const json::exception& e) {
    throw Error(concat(file, ": damaged description of the model: ", e.what()));
  }
  if (!attention.empty()) options.encoder.attention = attention;
  Rng rng(0, "init");  // every value is overwritten below
  trained.model = std::make_unique<Recognizer>(options, rng);
  trained.model->load(checkpoint.ema.empty() ? checkpoint.model : checkpoint.ema);
  const auto loss = checkpoint.texts.find("loss");
  if (loss != checkpoint.texts.end()) trained.loss = loss->second;
  trained.step = checkpoint.step;
  return trained;
}

std::pair<Tensor, Lengths> pad_features(const std::vector<const audio::Features*>& items) {
  CENTROID_CHECK(!items.empty(), "pad_features: expected at least one item, got none");
  const int64_t columns = items[0]->bins;
  std::vector<int64_t> lengths;
  int64_t longest = 0;
  for (const auto* f : items) {
    CENTROID_CHECK(f->bins == columns, "pad_features: columns differ: ", columns, " and ", f->bins);
    lengths.push_back(f->frames);
    longest = std::max(longest, f->frames);
  }
  Tensor x = zeros({static_cast<int64_t>(items.size()), longest, columns}, DType::f32, Device{});
  for (size_t b = 0; b < items.size(); ++b) {
    std::memcpy(x.data<float>() + b * longest * columns, items[b]->data.data(),
                items[b]->data.size() * sizeof(float));
  }
  return {raw::to(x, default_device()), Lengths(std::move(lengths))};
}

}  // namespace centroid::asr
