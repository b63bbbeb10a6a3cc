// asr train: manifests to a trained recogniser.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/asr.h"
#include "apps/asr_data.h"
#include "apps/asr_evaluate.h"
#include "apps/audio/files.h"
#include "apps/common/args.h"
#include "apps/common/run_folder.h"
#include "apps/common/train_loop.h"
#include "tensor/json.h"
#include "tensor/parallel.h"

namespace centroid::apps {

namespace {

struct TrainCommand {
  CLI::App* sub = nullptr;
  CommonOptions common;
  RunOptions run_options;
  TrainOptions train;
  std::string train_manifest, dev_manifest, vocab_file, start;
  asr::FrontEnd front_end;
  asr::RecognizerOptions model;
  asr::LossOptions loss;
  std::string positions = "rotary";
  nn::BatchOptions batches;
  AugmentOptions augment;
  bool drop_infeasible = false, show_model = false;
  double cache_mib = 4096, intermediate_weight = 0.3, first_blank = 0.75;
  std::vector<int64_t> intermediate;
  std::string cache_dir;
  int workers = 0;

  void add_options();
  void add_model_options();
  void add_data_options();
  void run();
  Tensor loss_of(asr::Recognizer& recognizer, const asr::Criterion& criterion,
                 const asr::SpeechBatch& batch, Rng& dropout) const;
  void check_intermediate() const;
  void check_unused() const;

 private:
  void prepare_front_end(const RunFolder& folder);
  void print_start(const asr::Recognizer& recognizer, const asr::Dataset& data,
                   const asr::Dataset* dev) const;
  std::unique_ptr<asr::Criterion> criterion_for(asr::Dataset& data,
                                                const audio::Vocab& vocab) const;
  void print_end(const TrainResult& result, bool evaluated) const;
};

void TrainCommand::add_model_options() {
  const char* group = "Model";
  nn::TransformerOptions& e = model.encoder;
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--layers", e.layers, "Encoder layers")->check(CLI::Range(1, 1000));
  add("--block", e.block, "What a layer is: transformer or conformer")
      ->check(CLI::IsMember({"transformer", "conformer"}));
  add("--kernel", e.kernel, "Positions that a conformer's convolution sees, odd")
      ->check(CLI::Range(1, 1001));
  add("--heads", e.heads, "Attention heads")->check(CLI::Range(1, 1000));
  add("--head-size", e.head_size, "Size of a head; 0: width / heads");
  add("--width", e.width, "Model width")->check(CLI::Range(1, 100000));
  add("--hidden", e.hidden, "Width of the feed-forward parts")->check(CLI::Range(1, 1000000));
  add("--dropout", e.dropout, "Dropout")->check(CLI::Range(0.0, 0.99));
  add("--attention", e.attention,
      "Attention variant that may look ahead; --help-attention lists them, with the causal ones");
  add("--activation", e.activation, "gelu, relu or silu")
      ->check(CLI::IsMember({"gelu", "relu", "silu"}));
  add("--positions", positions, "none, sinusoidal, learned or rotary");
  add("--max-length", e.max_length, "Longest sequence of learned positions");
  add("--subsampling", model.subsampling, "Input frames per position of the encoder: 1, 2, 4 or 8")
      ->check(CLI::IsMember({1, 2, 4, 8}));
  add("--channels", model.channels, "Channels of the subsampling convolutions")
      ->check(CLI::Range(1, 4096));
  add("--intermediate-ctc", intermediate,
      "Layers before the last after which the loss is taken too")
      ->delimiter(',');
  add("--intermediate-weight", intermediate_weight, "Part of the loss that they make up")
      ->check(CLI::Range(0.0, 0.99));
  add("--first-blank", first_blank,
      "Probability of the blank (of silence with LF-MMI's other topologies) before anything is "
      "learnt; with a low one a model learns late or never")
      ->check(CLI::Range(0.001, 0.999));
  add_switch(*sub, "pre-norm", e.pre_norm, "Layer norm before each part instead of after it")
      ->group(group);
  add_switch(*sub, "recompute", e.recompute, "Keep only each layer's input for backward")
      ->group(group);
  add("--start-from", start,
      "Run folder or checkpoint file whose weights are where training begins");
  sub->add_flag("--show-model", show_model, "Print every parameter before training")
      ->configurable(false)
      ->group(group);
  sub->add_flag_callback(
         "--help-attention",
         [] {
           std::cout << nn::attention_help();
           throw CLI::Success();
         },
         "List the attention variants and their options")
      ->configurable(false)
      ->group(group);
}

void TrainCommand::add_data_options() {
  const char* group = "Data";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return sub->add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--train", train_manifest, "Manifest to train on")->required();
  add("--dev", dev_manifest, "Manifest to evaluate on while training");
  add("--vocab", vocab_file, "vocab.json of `asr prepare`")->required();
  add("--batch-items", batches.max_items, "Utterances per batch at most")
      ->check(CLI::Range(1, 100000));
  add("--batch-frames", batches.max_frames, "Padded input frames per batch at most; 0: no limit");
  add("--buckets", batches.buckets, "Groups of similar length that batches are made of");
  add("--cache-mib", cache_mib,
      "Memory for features; what does not fit is read from --cache-dir or computed when needed")
      ->check(non_negative());
  add("--cache-dir", cache_dir, "Folder that keeps features on disk, for this and later runs");
  add("--workers", workers,
      "Threads that make batches ahead of the training; 0: as many as the work asks for")
      ->check(in_range(0, 1024));
  add_switch(*sub, "drop-infeasible", drop_infeasible,
             "Leave out utterances too short for their transcripts instead of refusing them")
      ->group(group);
}

void TrainCommand::add_options() {
  add_run_options(*sub, run_options);
  add_data_options();
  add_model_options();
  add_front_end_options(*sub, front_end, {"utterance", "speaker", "global", "none"});
  add_augment_options(*sub, augment);
  asr::add_loss_options(*sub, loss);
  add_train_options(*sub, train);
  add_common_options(*sub, common);
}

// Global statistics are taken once, at the start; a resumed run reads them from its checkpoint.
void TrainCommand::prepare_front_end(const RunFolder& folder) {
  front_end.validate();
  if (front_end.normalize != "global") return;
  if (folder.resumed()) {
    const nn::Checkpoint checkpoint = nn::load_checkpoint(folder.last());
    const auto text = checkpoint.texts.find("front_end");
    CENTROID_CHECK(text != checkpoint.texts.end(), folder.last(), ": no front end in it");
    parse_json(text->second, folder.last()).get_to(front_end);
  } else {
    front_end.stats = asr::corpus_stats(train_manifest, front_end, cache_dir);
  }
}

void TrainCommand::print_start(const asr::Recognizer& recognizer, const asr::Dataset& data,
                               const asr::Dataset* dev) const {
  if (show_model) std::fprintf(stderr, "%s\n", nn::summary(recognizer).c_str());
  std::fprintf(stderr, "training on %lld utterances, %.2f h", static_cast<long long>(data.size()),
               data.seconds() / 3600);
  if (dev) std::fprintf(stderr, "; %lld for development", static_cast<long long>(dev->size()));
  std::fprintf(stderr,
               "\nmodel: %lld layers, width %lld, %lld parameters, attention %s, %lldx "
               "subsampling\n",
               static_cast<long long>(model.encoder.layers),
               static_cast<long long>(model.encoder.width),
               static_cast<long long>(recognizer.parameter_count()),
               model.encoder.attention.c_str(), static_cast<long long>(model.subsampling));
}

// (1 - w) times the loss of the last layer, w times the mean of those in the middle.
Tensor TrainCommand::loss_of(asr::Recognizer& recognizer, const asr::Criterion& criterion,
                             const asr::SpeechBatch& batch, Rng& dropout) const {
  const auto [x, lengths] = batch.input();
  std::vector<int64_t> layers = intermediate;
  layers.push_back(model.encoder.layers);
  const auto [logits, out_lengths] =
      recognizer.forward_at(layers, x, lengths, {true, &dropout, {}});
  const auto of = [&, frames = out_lengths](const Tensor& scores) {
    return criterion.loss(scores, frames, batch.targets, nn::Reduction::mean,
                          /*zero_infeasible=*/false, /*scoring=*/false);
  };
  Tensor total = of(logits.back());
  if (intermediate.empty()) return total;
  total = total * (1 - intermediate_weight);
  const double part = intermediate_weight / static_cast<double>(intermediate.size());
  for (size_t i = 0; i < intermediate.size(); ++i) total = total + of(logits[i]) * part;
  return total;
}

void TrainCommand::check_intermediate() const {
  for (size_t i = 0; i < intermediate.size(); ++i) {
    const int64_t layer = intermediate[i];
    CENTROID_CHECK(
        layer >= 1 && layer < model.encoder.layers && (i == 0 || layer > intermediate[i - 1]),
        "--intermediate-ctc: expected ascending layers from 1 to ", model.encoder.layers - 1,
        ", got ", layer);
  }
}

void TrainCommand::print_end(const TrainResult& result, bool evaluated) const {
  if (result.seconds_waited > 0.05 * result.seconds) {
    std::fprintf(stderr, "the training waited %.0f of %.0f s for data (--workers, --cache-dir)\n",
                 result.seconds_waited, result.seconds);
  }
  if (!common.json) return;
  const auto best = evaluated ? nlohmann::json(result.best_metric) : nullptr;
  std::cout << nlohmann::json{{"steps", result.step},
                              {"stopped", result.stopped},
                              {"loss", result.last_loss},
                              {"best_metric", best},
                              {"best_step", result.best_step},
                              {"seconds", result.seconds},
                              {"utterances_per_second", result.units_per_second},
                              {"seconds_waited_for_data", result.seconds_waited}}
                   .dump(2)
            << "\n";
}

void check_texts(const asr::Dataset& data, const asr::Criterion& criterion) {
  for (int64_t i = 0; i < data.size(); ++i) {
    const audio::Utterance u = data.utterance(i);
    try {
      criterion.check_text(u.text);
    } catch (const Error& e) {
      throw Error(concat(u.id, ": ", e.what()));
    }
  }
}

// The loss for what `data` says. Utterances that it cannot train on are refused or left out.
std::unique_ptr<asr::Criterion> TrainCommand::criterion_for(asr::Dataset& data,
                                                            const audio::Vocab& vocab) const {
  const bool counted = loss.loss != "ctc";  // an n-gram of the transcripts
  auto criterion = asr::make_criterion(
      loss, vocab, counted ? data.labels() : std::vector<std::vector<int32_t>>{});
  if (!loss.lexicon.empty()) check_texts(data, *criterion);
  const auto min_frames = [&](const auto& labels) { return criterion->min_frames(labels); };
  for (const std::string& id :
       data.check_feasible(model.subsampling, drop_infeasible, min_frames)) {
    std::fprintf(stderr, "left out, too short for its transcript: %s\n", id.c_str());
  }
  return criterion;
}

// A resumed run keeps the options it began with.
void TrainCommand::check_unused() const {
  if (!run_options.resume.empty()) return;
  const auto needs = [&](bool met, const std::vector<std::string>& names, const char* expected) {
    if (!met) refuse_unused(*sub, names, expected);
  };
  needs(model.encoder.block == "conformer", {"kernel"}, "--block conformer");
  needs(loss.loss == "lfmmi",
        {"topology", "silence", "ngram-order", "ngram-states", "ngram-smooth", "leaky", "output-l2",
         "ctc-weight"},
        "--loss lfmmi");
  needs(!intermediate.empty(), {"intermediate-weight"}, "--intermediate-ctc");
  needs(!augment.sound.noise.empty(), {"noise-probability"}, "--noise");
  needs(!augment.sound.noise.empty() || augment.sound.coloured_noise > 0,
        {"noise-snr-min", "noise-snr-max"}, "--noise or --coloured-noise");
  needs(!augment.sound.reverb.empty(), {"reverb-probability"}, "--reverb");
}

void TrainCommand::run() {
  apply(common);
  check_unused();
  const RunFolder folder(run_options);
  prepare_front_end(folder);
  const audio::Vocab vocab = audio::read_vocab(vocab_file);
  model.encoder.positions = nn::parse_positions(positions);
  model.columns = front_end.columns();

  const asr::Augmentation changes = make_augmentation(augment, front_end);
  asr::Dataset data(train_manifest, front_end, vocab, cache_mib, cache_dir);
  const auto criterion = criterion_for(data, vocab);
  model.classes = criterion->outputs();
  check_intermediate();
  data.load(/*keep=*/!changes.of_sound());
  std::unique_ptr<asr::Dataset> dev;
  if (!dev_manifest.empty()) {
    dev = std::make_unique<asr::Dataset>(dev_manifest, front_end, vocab, cache_mib, cache_dir);
    dev->load();
  }

  Rng init(common.seed, "init"), dropout(common.seed, "dropout");
  asr::Recognizer recognizer(model, init);
  recognizer.expect_blank(first_blank);
  if (!start.empty() && !folder.resumed()) {
    const auto kept = asr::start_from(recognizer, vocab, start);
    std::fprintf(stderr, "weights of %s%s%s\n", start.c_str(),
                 kept.empty() ? "" : "; anew: ", audio::join(kept, ", ").c_str());
  }
  print_start(recognizer, data, dev.get());

  const int threads = workers > 0        ? workers
                      : data.in_memory() ? 1
                                         : std::clamp(num_threads() / 2, 1, 8);
  std::unique_ptr<asr::BatchStream> stream;
  int64_t position = 0;
  const auto seek = [&](int64_t to) {
    stream.reset();  // ends its thread before the next one starts
    stream = std::make_unique<asr::BatchStream>(data, batches, changes, common.seed, to, threads);
    position = to;
  };
  seek(0);

  TrainTask task;
  task.model = &recognizer;
  task.rngs = {{"dropout", &dropout}};
  task.position = [&] { return position; };
  task.seek = seek;
  task.config = options_json(*sub);
  task.texts = asr::checkpoint_texts(recognizer, front_end, vocab);
  task.texts["loss"] = criterion->text();
  task.unit = "utt";
  task.next_loss = [&] {
    const double waited = stream->waited();
    const asr::SpeechBatch batch = stream->next();
    ++position;
    TrainBatch result;
    result.loss = loss_of(recognizer, *criterion, batch, dropout);
    result.items = batch.ids;
    result.units = static_cast<double>(batch.ids.size());
    result.seconds = batch.seconds;
    result.waited = stream->waited() - waited;
    return result;
  };
  if (dev) {
    task.evaluate = [&, unit = audio::score_unit(vocab)] {
      const asr::Evaluation e = asr::evaluate(recognizer, *criterion, *dev, vocab, unit);
      const std::string rate = "dev_" + asr::rate_name(unit);
      return Evaluation{{{"dev_loss", e.loss}, {rate, e.errors.rate()}}, e.errors.rate()};
    };
  }
  print_end(apps::train(task, train, folder), dev != nullptr);
}

}  // namespace

void register_train(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  command->sub = app.add_subcommand("train", "Train a recogniser with CTC or LF-MMI");
  command->train.optimizer.lr = 1.5e-3;
  command->train.optimizer.weight_decay = 0.01;
  command->train.schedule.warmup = 200;
  command->train.steps = 5000;
  command->batches.max_items = 8;
  command->model.encoder.width = 144;
  command->model.encoder.hidden = 576;
  Presets shown = asr_presets();
  shown["auto"];
  add_preset_option(*command->sub, shown, asr_preset_help());
  command->add_options();
  command->sub->callback([command] { command->run(); });
}

}  // namespace centroid::apps
