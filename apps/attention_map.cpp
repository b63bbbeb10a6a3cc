// attention-map: where the layers and heads of a trained model look, as one picture; and how far an
// attention variant given the same queries and keys is from full attention.
#include "apps/attention_map.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
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

// One attention call: the matrix (H, L, S) of full attention, and that of each variant.
struct Seen {
  Tensor full;
  std::vector<Tensor> weights;
};

// The l1 distances of rows of attention weights from those of full attention: 0 to 2.
struct RowError {
  double sum = 0, max = 0;
  int64_t rows = 0;

  double mean() const { return sum / static_cast<double>(rows); }
  // Adds the rows of two matrices (L, S).
  void add(const Tensor& weights, const Tensor& full) {
    const auto a = raw::cast(weights, DType::f64).to_vector<double>();
    const auto b = raw::cast(full, DType::f64).to_vector<double>();
    const size_t columns = static_cast<size_t>(full.size(1));
    for (size_t begin = 0; begin < a.size(); begin += columns, ++rows) {
      double distance = 0;
      for (size_t i = begin; i < begin + columns; ++i) distance += std::fabs(a[i] - b[i]);
      sum += distance;
      max = std::max(max, distance);
    }
  }
  void add(const RowError& more) {
    sum += more.sum;
    max = std::max(max, more.max);
    rows += more.rows;
  }
  void write(nlohmann::ordered_json& to) const {
    to["rows"] = rows;
    to["row_error_mean"] = mean();
    to["row_error_max"] = max;
  }
};

// Of one variant: in all, and matrix by matrix.
struct VariantError {
  RowError all;
  nlohmann::ordered_json by_matrix = nlohmann::ordered_json::array();

  void add(int64_t layer, int64_t head, const RowError& error) {
    all.add(error);
    nlohmann::ordered_json matrix{{"layer", layer}, {"head", head}};
    error.write(matrix);
    by_matrix.push_back(std::move(matrix));
  }
};

struct MapCommand {
  CommonOptions common;
  std::string model, audio, data, id, out = "attention.png";
  std::vector<std::string> attention;
  std::vector<int64_t> layers, heads;
  CopyMapOptions copy;

  void run() const;
  void report(const std::vector<std::string>& names, const std::vector<VariantError>& errors,
              size_t matrices) const;
};

MapSource speech_source(const MapCommand& c) {
  auto trained = std::make_shared<asr::TrainedRecognizer>(asr::load_recognizer(c.model));
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

// What `attention` does to unit values when it stands at `path` and is not training.
Tensor weights_of(nn::Attention& attention, const std::string& path, nn::AttentionInput input) {
  Rng rng(0, path);
  input.rng = &rng;
  return raw::select(nn::attention_weights(attention, input), 0, 0);
}

// Runs the model as it was trained and shows the queries and keys of each layer to every variant;
// to the trained one where `variants` is empty.
std::vector<Seen> observe(const MapSource& source, const std::vector<std::string>& variants) {
  NoGrad no_grad;
  std::vector<std::unique_ptr<nn::Attention>> others;
  for (const std::string& variant : variants) others.push_back(nn::make_attention(variant));
  const auto full = nn::make_attention("full");
  std::vector<Seen> seen;
  nn::Context context;
  context.tap = [&](const std::string&, nn::Attention& own, const nn::AttentionInput& input) {
    Seen now{weights_of(*full, own.path(), input), {}};
    if (others.empty()) now.weights.push_back(weights_of(own, own.path(), input));
    for (const auto& other : others) {
      other->assign_paths(own.path());
      now.weights.push_back(weights_of(*other, own.path(), input));
    }
    seen.push_back(std::move(now));
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

HeatmapSpec cell(const MapSource& source, const Tensor& weights, const RowError& error,
                 const std::string& title) {
  HeatmapSpec spec;
  const Tensor matrix = raw::cast(weights, DType::f32);
  spec.title = title;
  spec.rows = matrix.size(0);
  spec.columns = matrix.size(1);
  spec.values = matrix.to_vector<float>();
  spec.x_label = source.x_label;
  if (error.max > 0) {
    char text[48];  // the mean over the rows
    std::snprintf(text, sizeof text, "; %.2g from full", error.mean());
    spec.x_label += text;
  }
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
  const MapSource source = is_copy ? copy_source(model, copy) : speech_source(*this);
  const std::vector<Seen> seen = observe(source, attention);
  CENTROID_CHECK(!seen.empty(), "attention-map: ", model, " has no attention");
  const std::vector<std::string> names =
      attention.empty() ? std::vector<std::string>{"as trained"} : attention;
  std::vector<HeatmapSpec> cells;
  std::vector<VariantError> errors(names.size());
  const auto head_list = chosen(heads, seen[0].full.size(0), "head");
  for (int64_t layer : chosen(layers, static_cast<int64_t>(seen.size()), "layer")) {
    for (int64_t head : head_list) {
      const std::string place = concat("layer ", layer, ", head ", head);
      for (size_t i = 0; i < names.size(); ++i) {
        const Tensor weights = raw::select(seen[layer].weights[i], 0, head);
        RowError error;
        error.add(weights, raw::select(seen[layer].full, 0, head));
        errors[i].add(layer, head, error);
        cells.push_back(cell(source, weights, error, names.size() > 1 ? names[i] : place));
        if (names.size() == 1) continue;
        cells.back().y_label = concat(place, ": ", source.y_label);
        cells.back().width = cells.back().height = 300;  // room for the variant's name
      }
    }
  }
  const size_t columns = names.size() > 1 ? names.size() : head_list.size();
  heatmap_grid("Attention: " + source.title, cells, static_cast<int>(columns), out);
  report(names, errors, cells.size());
}

void MapCommand::report(const std::vector<std::string>& names,
                        const std::vector<VariantError>& errors, size_t matrices) const {
  nlohmann::ordered_json result{{"picture", out}, {"matrices", matrices}};
  for (size_t i = 0; i < names.size(); ++i) {
    nlohmann::ordered_json variant{{"attention", names[i]}};
    errors[i].all.write(variant);
    variant["by_matrix"] = errors[i].by_matrix;
    result["variants"].push_back(std::move(variant));
  }
  if (common.json) {
    std::cout << result.dump() << "\n";
    return;
  }
  std::cout << out << ": " << matrices << " attention matrices, layers from top to bottom\n";
  for (size_t i = 0; i < names.size(); ++i) {
    const RowError& error = errors[i].all;
    if (error.max == 0) {
      std::cout << names[i] << ": the rows of full attention\n";
      continue;
    }
    std::cout << names[i] << ": rows differ from full attention by " << error.mean()
              << " (l1, mean of " << error.rows << "), at most by " << error.max << "\n";
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
      "Variant to show instead of the trained one, for the queries and keys of the model as it was "
      "trained; several (one flag each) stand side by side")
      ->take_all()
      ->allow_extra_args(false);
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
