// attention-map: where the layers and heads of a trained model look, as one picture.
#include "apps/attention_map.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr_model.h"
#include "apps/audio/manifest.h"
#include "apps/common/args.h"
#include "apps/common/plot.h"
#include "nn/checkpoint.h"

namespace centroid::apps {

namespace {

struct MapCommand {
  CommonOptions common;
  std::string model, audio, data, id, attention, out = "attention.png";
  std::vector<int64_t> layers, heads;
  CopyMapOptions copy;

  void run() const;
};

// One attention call: its module path and its matrix (H, L, S).
struct Seen {
  std::string path;
  Tensor weights;
};

MapSource speech_source(const MapCommand& c) {
  auto trained =
      std::make_shared<asr::TrainedRecognizer>(asr::load_recognizer(c.model, c.attention));
  audio::Sound sound;
  std::string title = c.audio;
  const int rate = trained->front_end.fbank.rate;
  if (!c.audio.empty()) {
    sound = audio::load_sound(c.audio, rate);
  } else {
    CENTROID_CHECK(!c.data.empty() && !c.id.empty(),
                   "attention-map: a speech model needs --audio FILE, or --data MANIFEST and --id");
    const auto utterances = audio::read_manifest(c.data);
    const auto u = std::find_if(utterances.begin(), utterances.end(),
                                [&](const auto& item) { return item.id == c.id; });
    CENTROID_CHECK(u != utterances.end(), c.data, ": no utterance '", c.id, "'");
    sound = audio::load_sound(u->audio, rate, u->offset, u->duration);
    title = c.id;
  }
  MapSource source;
  source.title = std::filesystem::path(title).filename().string();
  source.step = trained->frame_seconds();
  source.x_label = "attended time, s";
  source.y_label = "time, s";
  source.run = [trained, sound](const nn::Context& context) {
    const audio::Features features = trained->front_end(sound);
    const auto [x, lengths] = asr::pad_features({&features});
    trained->model->forward(x, lengths, context);
  };
  return source;
}

std::vector<Seen> observe(const MapSource& source) {
  NoGrad no_grad;
  std::vector<Seen> seen;
  nn::Context context;
  context.tap = [&](const std::string& path, nn::Attention& attention,
                    const nn::AttentionInput& input) {
    seen.push_back({path, raw::select(nn::attention_weights(attention, input), 0, 0)});
  };
  source.run(context);
  return seen;
}

// Which of 0..count-1 were asked for; all when none were.
std::vector<int64_t> chosen(const std::vector<int64_t>& wanted, int64_t count, const char* what) {
  std::vector<int64_t> result = wanted;
  if (result.empty()) {
    for (int64_t i = 0; i < count; ++i) result.push_back(i);
  }
  for (int64_t i : result) {
    CENTROID_CHECK(i >= 0 && i < count, "attention-map: ", what, ": expected 0 to ", count - 1,
                   ", got ", i);
  }
  return result;
}

HeatmapSpec cell(const MapSource& source, const Seen& seen, int64_t layer, int64_t head) {
  HeatmapSpec spec;
  const Tensor matrix = raw::cast(raw::select(seen.weights, 0, head), DType::f32);
  spec.title = concat("layer ", layer, ", head ", head);
  spec.rows = matrix.size(0);
  spec.columns = matrix.size(1);
  spec.values = matrix.to_vector<float>();
  spec.x_label = source.x_label;
  spec.y_label = source.y_label;
  spec.x_step = spec.y_step = source.step;
  spec.row_tokens = spec.column_tokens = source.tokens;
  spec.width = spec.height = 240;
  return spec;
}

void MapCommand::run() const {
  apply(common);
  const auto texts = nn::load_checkpoint(asr::checkpoint_file(model)).texts;
  const auto kind = texts.find("kind");
  const bool is_copy = kind != texts.end() && kind->second == "copy";
  const MapSource source = is_copy ? copy_source(model, attention, copy) : speech_source(*this);
  const std::vector<Seen> seen = observe(source);
  CENTROID_CHECK(!seen.empty(), "attention-map: ", model, " has no attention");
  std::vector<HeatmapSpec> cells;
  const auto head_list = chosen(heads, seen[0].weights.size(0), "head");
  for (int64_t layer : chosen(layers, static_cast<int64_t>(seen.size()), "layer")) {
    for (int64_t head : head_list) cells.push_back(cell(source, seen[layer], layer, head));
  }
  heatmap_grid("Attention: " + source.title, cells, static_cast<int>(head_list.size()), out);
  if (common.json) {
    std::cout << nlohmann::json{{"picture", out}, {"matrices", cells.size()}}.dump() << "\n";
  } else {
    std::cout << out << ": " << cells.size() << " attention matrices, layers from top to bottom\n";
  }
}

}  // namespace

void register_attention_map(CLI::App& app) {
  auto command = std::make_shared<MapCommand>();
  const char* group = "Attention map";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return app.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--model", command->model, "Run folder or checkpoint of asr or copy")->required();
  add("--out", command->out, "The picture (PNG)");
  add("--layers", command->layers, "Layers to draw, from 0; all if not given")->delimiter(',');
  add("--heads", command->heads, "Heads to draw, from 0; all if not given")->delimiter(',');
  add("--attention", command->attention,
      "Attention to use instead of the one the model was trained with");
  add("--audio", command->audio, "Speech model: a sound file ...");
  add("--data", command->data, "... or a manifest");
  add("--id", command->id, "... and the id of an utterance in it");
  add("--length", command->copy.length, "Copy model: length of the sequence; 0: as trained")
      ->check(CLI::Range(0, 1000000));
  add_common_options(app, command->common);
  command->copy.seed = &command->common.seed;
  app.callback([command] { command->run(); });
}

}  // namespace centroid::apps

int main(int argc, char** argv) {
  CLI::App app{"Attention matrices of chosen layers and heads of a trained model, as one picture."};
  centroid::apps::register_attention_map(app);
  return centroid::apps::run_app(argc, argv, app);
}
