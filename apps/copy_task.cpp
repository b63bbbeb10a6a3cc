#include "apps/copy_task.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "nn/loss.h"
#include "tensor/json.h"

namespace centroid::copy {

using nlohmann::json;

// ---- the task ---------------------------------------------------------------------------------

namespace {

// |w| of the causal task is drawn from [low, high).
int64_t low_size(const TaskOptions& o) { return std::max<int64_t>(o.length / 4, 1); }
int64_t high_size(const TaskOptions& o) { return (o.length - 1) / 2; }

// Symbols masked in each of the two copies of a word of `size` symbols.
int64_t masked_count(const TaskOptions& o, int64_t size) {
  const int64_t wanted = std::llround(o.masked * static_cast<double>(size));
  return std::clamp<int64_t>(wanted, 1, size / 2);
}

using Symbols = std::vector<int64_t>;

// A sequence and its targets.
struct Item {
  Symbols inputs, targets;
};

Item draw_item(const TaskOptions& o, Rng rng) {
  const bool fixed = o.fixed || !o.causal();
  const auto spread = static_cast<uint64_t>(high_size(o) - low_size(o));
  const int64_t size =
      fixed ? (o.length - 2) / 2 : low_size(o) + static_cast<int64_t>(rng.below(spread));
  Symbols whole(2 * size + 2, 0);
  for (int64_t i = 0; i < size; ++i) {
    whole[1 + i] = 1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(o.alphabet)));
    whole[2 + size + i] = whole[1 + i];
  }
  Item item{whole, Symbols(whole.size(), kIgnore)};
  if (o.causal()) {
    item.inputs.pop_back();
    item.targets.pop_back();
    for (int64_t i = size + 1; i <= 2 * size; ++i) item.targets[i] = whole[i + 1];
    return item;
  }
  const int64_t count = masked_count(o, size);
  const Symbols order = rng.permutation(size);
  for (int64_t i = 0; i < 2 * count; ++i) {
    const int64_t at = order[i] + (i < count ? 1 : 2 + size);
    item.targets[at] = whole[at];
    item.inputs[at] = o.mask_symbol();
  }
  return item;
}

}  // namespace

void check(const TaskOptions& o) {
  CENTROID_CHECK(o.task == "causal" || o.task == "masked",
                 "copy task: expected causal or masked, got '", o.task, "'");
  CENTROID_CHECK(o.alphabet >= 1 && o.alphabet <= 1000000,
                 "copy task: alphabet: expected 1 to 1000000 symbols, got ", o.alphabet);
  CENTROID_CHECK(o.length <= 1000000000, "copy task: length: expected at most 1000000000, got ",
                 o.length);
  if (o.causal() && !o.fixed) {
    CENTROID_CHECK(o.length >= 5, "copy task: length: expected at least 5, got ", o.length);
    return;
  }
  const int64_t least = o.causal() ? 4 : 6;
  CENTROID_CHECK(o.length >= least && o.length % 2 == 0,
                 "copy task: length: `0 w 0 w` needs an even length of at least ", least, ", got ",
                 o.length);
  CENTROID_CHECK(o.causal() || (o.masked > 0 && o.masked <= 0.5),
                 "copy task: masked: expected a share above 0 and at most 0.5, got ", o.masked);
}

void to_json(json& j, const TaskOptions& o) {
  j = json{{"task", o.task},
           {"length", o.length},
           {"alphabet", o.alphabet},
           {"masked", o.masked},
           {"fixed", o.fixed}};
}

void from_json(const json& j, TaskOptions& o) {
  j.at("task").get_to(o.task);
  j.at("length").get_to(o.length);
  j.at("alphabet").get_to(o.alphabet);
  j.at("masked").get_to(o.masked);
  j.at("fixed").get_to(o.fixed);
  check(o);
}

Batch make_batch(const TaskOptions& options, int64_t items, const Rng& rng) {
  check(options);
  CENTROID_CHECK(items >= 1, "copy task: expected at least one sequence, got ", items);
  std::vector<Item> drawn;
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < items; ++b) {
    drawn.push_back(draw_item(options, rng.fork(static_cast<uint64_t>(b))));
    lengths.push_back(static_cast<int64_t>(drawn.back().inputs.size()));
  }
  const int64_t time = *std::max_element(lengths.begin(), lengths.end());
  Symbols inputs, targets;
  Batch batch;
  for (Item& item : drawn) {
    batch.asked += std::count_if(item.targets.begin(), item.targets.end(),
                                 [](int64_t target) { return target != kIgnore; });
    item.inputs.resize(time, 0);
    item.targets.resize(time, kIgnore);
    inputs.insert(inputs.end(), item.inputs.begin(), item.inputs.end());
    targets.insert(targets.end(), item.targets.begin(), item.targets.end());
  }
  batch.inputs = from_vector(inputs, {items, time}, Device{});
  batch.targets = from_vector(targets, {items, time}, Device{});
  batch.lengths = Lengths(std::move(lengths));
  return batch;
}

// ---- the model --------------------------------------------------------------------------------

namespace {

nn::TransformerOptions encoder_for(const TaskOptions& task, nn::TransformerOptions encoder) {
  check(task);
  encoder.causal = task.causal();
  return encoder;
}

}  // namespace

Model::Model(const TaskOptions& task, nn::TransformerOptions encoder, Rng& rng)
    : task_(task),
      options_(encoder_for(task, std::move(encoder))),
      embedding_(task.symbols(), options_.width, rng),
      encoder_(options_, rng),
      output_(options_.width, task.symbols(), rng) {
  add_module("embedding", embedding_);
  add_module("encoder", encoder_);
  add_module("output", output_);
  assign_paths();
}

Tensor Model::forward(const Tensor& inputs, const Lengths& lengths, const nn::Context& context) {
  return output_.forward(encoder_.forward(embedding_.forward(inputs), lengths, context).first);
}

Tensor Model::step(nn::EncoderState& state, const Tensor& symbols) {
  CENTROID_CHECK(symbols.dim() == 1, "copy: step: expected symbols (B), got ", symbols.shape());
  const NoGrad off;
  const Tensor x = embedding_.forward(raw::unsqueeze(symbols, 1));
  return raw::select(output_.forward(encoder_.step(state, x)), 1, 0);
}

namespace {

void check_fits(const Model& model, const TaskOptions& task, int64_t batches) {
  CENTROID_CHECK(task.task == model.task().task && task.symbols() == model.task().symbols(),
                 "copy: expected the task the model was trained on, ", model.task().task, " with ",
                 model.task().alphabet, " symbols, got ", task.task, " with ", task.alphabet);
  CENTROID_CHECK(batches >= 1, "copy: batches: expected at least 1, got ", batches);
}

}  // namespace

Score evaluate(Model& model, const TaskOptions& task, int64_t items, int64_t batches,
               const Rng& rng, Device device) {
  check_fits(model, task, batches);
  NoGrad off;
  Score score;
  for (int64_t i = 0; i < batches; ++i) {
    const Batch batch = make_batch(task, items, rng.fork(static_cast<uint64_t>(i)));
    const Tensor logits = model.forward(raw::to(batch.inputs, device), batch.lengths, {});
    score.loss +=
        nn::cross_entropy(logits, raw::to(batch.targets, device), kIgnore, 0, nn::Reduction::sum)
            .item();
    const Symbols best = raw::to(raw::argmax(logits), Device{}).to_vector<int64_t>();
    const Symbols targets = batch.targets.to_vector<int64_t>();
    for (size_t t = 0; t < targets.size(); ++t) score.right += best[t] == targets[t];
    score.asked += batch.asked;
  }
  score.loss /= static_cast<double>(score.asked);
  return score;
}

namespace {

// All symbols that a batch was made to read, and all logits.
struct Written {
  Symbols symbols;             // (T, B)
  std::vector<Tensor> logits;  // T times (B, V)
};

// Position t + 1 is what the model found likeliest at t where that is asked for, and the prompt
// elsewhere.
Written write(Model& model, const Batch& batch, Device device, Generation& score) {
  const int64_t items = batch.inputs.size(0), time = batch.inputs.size(1);
  const Symbols inputs = batch.inputs.to_vector<int64_t>();
  const Symbols targets = batch.targets.to_vector<int64_t>();
  nn::EncoderState state = model.start_decoding();
  Written written;
  Symbols best;
  for (int64_t t = 0; t < time; ++t) {
    Symbols now(items);
    for (int64_t b = 0; b < items; ++b) {
      const bool own = t > 0 && targets[b * time + t - 1] != kIgnore;
      now[b] = own ? best[b] : inputs[b * time + t];
    }
    written.logits.push_back(model.step(state, from_vector(now, {items}, device)));
    best = raw::to(raw::argmax(written.logits.back()), Device{}).to_vector<int64_t>();
    for (int64_t b = 0; b < items; ++b) score.right += best[b] == targets[b * time + t];
    written.symbols.insert(written.symbols.end(), now.begin(), now.end());
  }
  score.asked += batch.asked;
  score.tokens += items * time;
  return written;
}

// The largest difference of the logits of steps from those of a forward pass, relative to the
// largest logit, for each of the symbols (T, B): (B, T).
Tensor differences(Model& model, const Tensor& symbols, const std::vector<Tensor>& logits,
                   const nn::Context& context = {}) {
  const Tensor whole =  // (B, T, V)
      model.forward(raw::contiguous(raw::transpose(symbols, 0, 1)), {}, context);
  const Tensor apart = raw::abs(raw::sub(raw::stack(logits, 1), whole));
  return raw::mul(raw::max(apart, {2}), 1 / std::max(raw::max(raw::abs(whole)).item(), 1e-30));
}

// Keeps a NaN.
void raise(double& most, double value) {
  if (!(value <= most)) most = value;
}

// See Generation::difference and what follows it.
void compare_with_forward(Model& model, const Written& written, int64_t items, Device device,
                          Generation& result) {
  const auto time = static_cast<int64_t>(written.logits.size());
  const Tensor symbols = from_vector(written.symbols, {time, items}, device);
  nn::Context context;
  context.tap = [&](const std::string&, nn::Attention& attention, nn::AttentionInput input) {
    nn::Choices choices;
    input.record = &choices;
    if (!result.chooses) attention.attend(input);
    result.chooses = result.chooses || !choices.empty();
  };
  const Tensor narrow = differences(model, symbols, written.logits, context);
  raise(result.difference_f32, raw::max(narrow).item());
  for (const float apart : raw::to(narrow, Device{}).to_vector<float>()) {
    result.apart += !(apart <= kAgreement);
  }
  model.to(DType::f64);
  nn::EncoderState state = model.start_decoding();
  std::vector<Tensor> logits;
  for (int64_t t = 0; t < time; ++t) {
    logits.push_back(model.step(state, raw::select(symbols, 0, t)));
  }
  raise(result.difference, raw::max(differences(model, symbols, logits)).item());
  model.to(DType::f32);  // the values it had: they were exact in f64
}

}  // namespace

Generation generate(Model& model, const TaskOptions& task, int64_t items, int64_t batches,
                    const Rng& rng, bool compare, Device device) {
  CENTROID_CHECK(model.task().causal(),
                 "copy: generation: expected a model of the causal task, got one of the ",
                 model.task().task, " task");
  check_fits(model, task, batches);
  const NoGrad off;
  Generation result;
  for (int64_t i = 0; i < batches; ++i) {
    const Batch batch = make_batch(task, items, rng.fork(static_cast<uint64_t>(i)));
    const auto start = std::chrono::steady_clock::now();
    const Written written = write(model, batch, device, result);
    result.seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (compare) compare_with_forward(model, written, items, device, result);
  }
  return result;
}

// ---- words and files --------------------------------------------------------------------------

std::string describe(const TaskOptions& task, const Score& score) {
  char text[160];
  std::snprintf(text, sizeof text, "%s %.2f %% (%lld of %lld right, loss %.3g, length %lld)",
                task.causal() ? "copied symbols" : "masked accuracy", 100 * score.accuracy(),
                static_cast<long long>(score.right), static_cast<long long>(score.asked),
                score.loss, static_cast<long long>(task.length));
  return text;
}

std::map<std::string, std::string> checkpoint_texts(const Model& model) {
  return {{"kind", "copy"},
          {"task", json(model.task()).dump()},
          {"model", json(model.encoder_options()).dump()}};
}

TrainedModel load_model(const std::string& path, const std::string& attention) {
  namespace fs = std::filesystem;
  std::string file = path;
  if (fs::is_directory(path)) {
    const fs::path best = fs::path(path) / "best.safetensors";
    const fs::path last = fs::path(path) / "last.safetensors";
    file = (fs::exists(best) ? best : last).string();
    CENTROID_CHECK(fs::exists(file), path, ": expected a run folder with best.safetensors or ",
                   "last.safetensors, found neither (has the training saved yet?)");
  }
  const nn::Checkpoint checkpoint = nn::load_checkpoint(file);
  const auto text = [&](const char* key) {
    const auto found = checkpoint.texts.find(key);
    return found == checkpoint.texts.end() ? std::string() : found->second;
  };
  CENTROID_CHECK(text("kind") == "copy", file, ": expected a checkpoint of copy, got one of ",
                 text("kind").empty() ? "another program" : text("kind"));
  TaskOptions task;
  nn::TransformerOptions encoder;
  const std::string damaged = file + ": damaged description of the model";
  try {
    parse_json(text("task"), damaged).get_to(task);
    parse_json(text("model"), damaged).get_to(encoder);
  } catch (const json::exception& error) {
    throw Error(concat(damaged, ": ", error.what()));
  }
  if (!attention.empty()) encoder.attention = attention;
  Rng rng(0, "init");  // every value is overwritten below
  TrainedModel trained{std::make_unique<Model>(task, encoder, rng), file, checkpoint.step};
  trained.model->load(checkpoint.ema.empty() ? checkpoint.model : checkpoint.ema);
  return trained;
}

}  // namespace centroid::copy
