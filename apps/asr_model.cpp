#include "apps/asr_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numbers>

#include "apps/audio/files.h"
#include "tensor/json.h"

namespace centroid::asr {

using nlohmann::json;

namespace {

/// The computer of these options, made once: its tables cost more than a short sound's features.
std::shared_ptr<const audio::Fbank> shared_fbank(const audio::FbankOptions& options) {
  static std::mutex mutex;
  static std::vector<std::shared_ptr<const audio::Fbank>> known;
  const std::lock_guard lock(mutex);
  for (const auto& fbank : known) {
    if (fbank->options() == options) return fbank;
  }
  if (known.size() >= 8) known.erase(known.begin());
  known.push_back(std::make_shared<const audio::Fbank>(options));
  return known.back();
}

}  // namespace

audio::Features FrontEnd::filterbank(const audio::Sound& sound, Rng* dither) const {
  audio::FbankOptions options = fbank;
  if (!dither) options.dither = 0;
  return (*shared_fbank(options))(sound, dither);
}

void FrontEnd::limit(audio::Features& features, const std::vector<float>& maxima) const {
  if (dynamic_range == 0) return;
  std::vector<float> own;
  if (maxima.empty()) audio::raise_maxima(own, features);
  // dB to a step of 1 of the natural logarithm
  const double decibels = (fbank.use_power ? 10 : 20) / std::numbers::ln10;
  audio::limit_range(features, maxima.empty() ? own : maxima,
                     static_cast<float>(dynamic_range / decibels));
}

audio::Features FrontEnd::finish(audio::Features features,
                                 const audio::GlobalStats* speaker) const {
  limit(features);
  if (normalize == "global") audio::apply(stats, features, normalize_variance);
  if (normalize == "speaker" && speaker) audio::apply(*speaker, features, normalize_variance);
  if (normalize == "utterance" || (normalize == "speaker" && !speaker)) {
    audio::normalize_utterance(features, normalize_variance);
  }
  if (deltas.order > 0) features = audio::add_deltas(features, deltas);
  return stack == 1 && stride == 1 ? std::move(features)
                                   : audio::stack_frames(features, stack, stride);
}

audio::Features FrontEnd::operator()(const audio::Sound& sound) const {
  return finish(filterbank(sound));
}

int64_t FrontEnd::columns() const {
  return audio::feature_columns(fbank) * (1 + deltas.order) * stack;
}

int64_t FrontEnd::frames(double seconds) const {
  return frames_of(std::llround(seconds * fbank.rate));
}

int64_t FrontEnd::frames_of(int64_t samples) const {
  return (audio::frame_count(fbank, samples) + stride - 1) / stride;
}

void FrontEnd::validate() const {
  audio::validate(fbank);
  audio::validate(deltas);
  CENTROID_CHECK(dynamic_range >= 0 && std::isfinite(dynamic_range),
                 "front end: dynamic_range: expected dB >= 0, got ", dynamic_range);
  CENTROID_CHECK(dynamic_range == 0 || (fbank.type == audio::FeatureType::fbank &&
                                        fbank.use_log_fbank && !fbank.use_energy),
                 "front end: dynamic_range: expected logarithms of bands and no energy column");
  CENTROID_CHECK(normalize == "utterance" || normalize == "speaker" || normalize == "global" ||
                     normalize == "none",
                 "front end: normalize: expected utterance, speaker, global or none, got '",
                 normalize, "'");
  CENTROID_CHECK(stack >= 1 && stride >= 1 && stride <= stack,
                 "front end: expected stack >= stride >= 1, got stack ", stack, ", stride ",
                 stride);
}

// Keys that came after the first release stand there only where they are not the defaults.
void to_json(json& j, const FrontEnd& f) {
  j = json{
      {"fbank", f.fbank}, {"normalize", f.normalize}, {"stack", f.stack}, {"stride", f.stride}};
  if (f.normalize == "global") j["stats"] = f.stats;
  if (!f.normalize_variance) j["normalize_variance"] = false;
  if (f.dynamic_range != 0) j["dynamic_range"] = f.dynamic_range;
  if (f.deltas.order > 0) j["deltas"] = f.deltas;
}

void from_json(const json& j, FrontEnd& f) {
  j.at("fbank").get_to(f.fbank);
  j.at("normalize").get_to(f.normalize);
  j.at("stack").get_to(f.stack);
  j.at("stride").get_to(f.stride);
  if (f.normalize == "global") j.at("stats").get_to(f.stats);
  f.normalize_variance = j.value("normalize_variance", true);
  f.dynamic_range = j.value("dynamic_range", 0.0);
  f.deltas =
      j.contains("deltas") ? j.at("deltas").get<audio::DeltaOptions>() : audio::DeltaOptions{};
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

void Recognizer::expect_blank(double probability) {
  const double others = static_cast<double>(options_.classes - 1);
  output_.bias.data<float>()[0] =
      static_cast<float>(std::log(probability / (1 - probability) * others));
}

std::pair<std::vector<Tensor>, Lengths> Recognizer::forward_at(const std::vector<int64_t>& layers,
                                                               const Tensor& x,
                                                               const Lengths& lengths,
                                                               const nn::Context& context) {
  const auto [short_x, short_lengths] = subsampling_.forward(x, lengths);
  std::vector<Tensor> logits = encoder_.forward_at(layers, short_x, short_lengths, context);
  for (Tensor& h : logits) h = output_.forward(h);
  return {logits, short_lengths};
}

std::pair<Tensor, Lengths> Recognizer::forward(const Tensor& x, const Lengths& lengths,
                                               const nn::Context& context) {
  auto [logits, out_lengths] = forward_at({options_.encoder.layers}, x, lengths, context);
  return {logits[0], out_lengths};
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

std::vector<std::string> start_from(Recognizer& model, const audio::Vocab& vocab,
                                    const std::string& path) {
  const TrainedRecognizer other = load_recognizer(path);
  const auto is_output = [](const std::string& name) { return name.starts_with("output."); };
  nn::NamedTensors weights = other.model->named_parameters();
  if (!(other.vocab == vocab) || other.model->options().classes != model.options().classes) {
    std::erase_if(weights, [&](const auto& w) { return is_output(w.first); });
  }
  std::vector<std::string> kept = model.load(weights, /*strict=*/false), unfit = kept;
  std::erase_if(unfit, is_output);
  CENTROID_CHECK(unfit.empty(), path, ": expected weights for a model of the same shape, got ",
                 "others: ", audio::join(unfit, ", "),
                 " (the options of model and features must be those it was trained with)");
  return kept;
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
  const std::string damaged = file + ": damaged description of the model";
  try {
    parse_json(text("front_end"), damaged).get_to(trained.front_end);
    parse_json(text("vocab"), damaged).get_to(trained.vocab);
    parse_json(text("model"), damaged).get_to(options);
  } catch (const json::exception& e) {
    throw Error(concat(damaged, ": ", e.what()));
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
