#include "apps/asr_loss.h"

#include <nlohmann/json.hpp>

#include "apps/asr_data.h"
#include "apps/audio/files.h"
#include "apps/audio/lexicon.h"
#include "apps/audio/nbest.h"
#include "apps/common/args.h"
#include "nn/lfmmi.h"
#include "tensor/json.h"

namespace centroid::asr {

namespace {

using nlohmann::json;
using Labels = std::vector<std::vector<int32_t>>;

class Ctc : public Criterion {
 public:
  explicit Ctc(int64_t symbols) : symbols_(symbols) {}
  bool is_ctc() const override { return true; }
  int64_t outputs() const override { return symbols_; }
  int64_t min_frames(const std::vector<int32_t>& labels) const override {
    return nn::ctc_min_frames(labels);
  }
  Tensor loss(const Tensor& logits, const Lengths& lengths, const Targets& targets,
              nn::Reduction reduction, bool zero_infeasible, bool) const override {
    return nn::ctc(logits, lengths, targets.labels,
                   {.reduction = reduction, .zero_infeasible = zero_infeasible});
  }
  std::vector<audio::Token> decode(const float* logits, int64_t frames) const override {
    return audio::greedy_ctc(logits, frames, symbols_);
  }
  audio::Hypothesis recognise(const float* logits, int64_t frames) const override {
    return audio::best_path(logits, frames, symbols_);
  }
  std::string text() const override { return json{{"loss", "ctc"}}.dump(); }

 private:
  int64_t symbols_;
};

/// The ways to say a text, by a lexicon.
class Pronunciations {
 public:
  Pronunciations(const std::string& path, const audio::Vocab& vocab)
      : path_(path), lexicon_(audio::read_lexicon(path)), vocab_(vocab) {}

  nn::Transcript transcript(const std::string& text) const {
    nn::Transcript transcript;
    audio::Utterance spoken;
    for (const std::string& word : audio::split_words(text)) {
      const auto* found = lexicon_.find(word);
      CENTROID_CHECK(found, "\"", word, "\" is not in the lexicon ", path_);
      spoken.id = concat(path_, ": ", word);
      transcript.emplace_back();
      for (const audio::Pronunciation& p : *found) {
        spoken.phones = p.phones;
        transcript.back().push_back({vocab_.encode(spoken), p.log_prob});
      }
    }
    return transcript;
  }

 private:
  std::string path_;
  audio::Lexicon lexicon_;
  audio::Vocab vocab_;
};

class Lfmmi : public Criterion {
 public:
  Lfmmi(std::unique_ptr<nn::LfmmiGraph> graph, const nn::LfmmiOptions& options,
        std::unique_ptr<Pronunciations> pronunciations = nullptr)
      : graph_(std::move(graph)), options_(options), pronunciations_(std::move(pronunciations)) {}
  bool has_blank() const override { return graph_->topology() == nn::Topology::ctc; }
  int64_t outputs() const override { return graph_->outputs(); }
  int64_t min_frames(const std::vector<int32_t>& labels) const override {
    return graph_->min_frames(labels);
  }
  void check_text(const std::string& text) const override {
    if (pronunciations_) pronunciations_->transcript(text);
  }
  Tensor loss(const Tensor& logits, const Lengths& lengths, const Targets& targets,
              nn::Reduction reduction, bool zero_infeasible, bool scoring) const override {
    nn::LfmmiOptions options = options_;
    options.reduction = reduction;
    options.zero_infeasible = zero_infeasible;
    if (scoring) options.l2 = options.ctc_weight = 0;
    if (scoring || !pronunciations_) {
      return nn::lfmmi(logits, lengths, targets.labels, *graph_, options);
    }
    std::vector<nn::Transcript> transcripts;
    for (const std::string& text : targets.texts) {
      transcripts.push_back(pronunciations_->transcript(text));
    }
    return nn::lfmmi(logits, lengths, transcripts, *graph_, options);
  }
  std::vector<audio::Token> decode(const float* logits, int64_t frames) const override {
    std::vector<audio::Token> tokens;
    for (const nn::LabelSpan& span : graph_->decode(logits, frames)) {
      tokens.push_back({span.label, span.begin, span.end});
    }
    return tokens;
  }
  audio::Hypothesis recognise(const float* logits, int64_t frames) const override {
    nn::Recognised found = graph_->recognise(logits, frames);
    audio::Hypothesis h;
    for (const nn::LabelSpan& span : found.labels) {
      h.tokens.push_back({span.label, span.begin, span.end});
    }
    h.token_confidence = std::move(found.confidence);
    h.units = static_cast<int64_t>(h.tokens.size());
    h.score = h.acoustic = found.log_prob;
    return h;
  }
  std::string text() const override {
    return json{{"loss", "lfmmi"}, {"graph", *graph_}, {"leaky", options_.leaky}}.dump();
  }

 private:
  std::unique_ptr<nn::LfmmiGraph> graph_;
  nn::LfmmiOptions options_;
  std::unique_ptr<Pronunciations> pronunciations_;  // or none: labels are what is said
};

}  // namespace

void add_loss_options(CLI::App& command, LossOptions& o) {
  const char* group = "Loss";
  const auto add = [&](const std::string& name, auto& value, const std::string& help) {
    return command.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--loss", o.loss, "ctc, or lfmmi: lattice-free MMI, whose options follow")
      ->check(CLI::IsMember({"ctc", "lfmmi"}));
  add("--topology", o.topology,
      "Classes of a symbol: two-state (one for its first frame, one for the others), one-state "
      "(one; "
      "equal neighbours sound like one symbol), or ctc (one, and a blank between equal neighbours)")
      ->check(CLI::IsMember({"ctc", "one-state", "two-state"}));
  add("--silence", o.silence, "Probability of silence between two symbols (not for ctc)")
      ->check(apps::in_range(0, 0.99));
  add("--ngram-order", o.ngram_order,
      "Symbols of an n-gram of the denominator, counted in the training transcripts; 0: no n-gram")
      ->check(CLI::Range(0, 8));
  add("--ngram-states", o.ngram_states, "Histories of two or more symbols, the most frequent ones")
      ->check(CLI::Range(0, 1000000));
  apps::add_switch(command, "ngram-smooth", o.ngram_smooth,
                   "Give n-grams that do not occur a probability too (Witten-Bell)")
      ->group(group);
  add("--leaky", o.leaky, "Weight of a jump between two frames of the denominator; 0: none")
      ->check(apps::non_negative());
  add("--output-l2", o.output_l2, "Adds half of this times the sum of squares of the outputs")
      ->check(apps::non_negative());
  add("--ctc-weight", o.ctc_weight,
      "Adds this times the loss without a denominator, of normalised outputs")
      ->check(apps::non_negative());
  add("--lexicon", o.lexicon,
      "Pronunciations of the words (Kaldi's lexicon.txt or lexiconp.txt, CMU): any of them counts "
      "as right, not only the manifest's phones");
}

std::unique_ptr<Criterion> make_criterion(const LossOptions& o, const audio::Vocab& vocab,
                                          const Labels& transcripts) {
  const bool lexicon = !o.lexicon.empty();
  CENTROID_CHECK(!lexicon || (o.loss == "lfmmi" && vocab.unit() == audio::Unit::phones),
                 "--lexicon: expected --loss lfmmi and a vocabulary of phones, got ", o.loss,
                 " and ", audio::name_of(vocab.unit()));
  if (o.loss == "ctc") return std::make_unique<Ctc>(vocab.size());
  nn::Ngram ngram(transcripts, vocab.size(),
                  {.order = o.ngram_order, .states = o.ngram_states, .smooth = o.ngram_smooth});
  return std::make_unique<Lfmmi>(
      std::make_unique<nn::LfmmiGraph>(std::move(ngram), nn::topology_from(o.topology), o.silence),
      nn::LfmmiOptions{.leaky = o.leaky, .l2 = o.output_l2, .ctc_weight = o.ctc_weight},
      lexicon ? std::make_unique<Pronunciations>(o.lexicon, vocab) : nullptr);
}

std::unique_ptr<Criterion> read_criterion(const std::string& text, int64_t symbols) {
  if (text.empty()) return std::make_unique<Ctc>(symbols);
  try {
    const json j = parse_json(text, "loss: damaged description");
    const auto loss = j.at("loss").get<std::string>();
    if (loss == "ctc") return std::make_unique<Ctc>(symbols);
    CENTROID_CHECK(loss == "lfmmi", "loss: expected ctc or lfmmi, got '", loss, "'");
    auto graph = nn::LfmmiGraph::from(j.at("graph"));
    CENTROID_CHECK(graph->ngram().symbols() == symbols, "loss: a graph for ",
                   graph->ngram().symbols(), " symbols with a vocabulary of ", symbols);
    return std::make_unique<Lfmmi>(std::move(graph),
                                   nn::LfmmiOptions{.leaky = j.at("leaky").get<double>()});
  } catch (const json::exception& e) {
    throw Error(concat("loss: damaged description: ", e.what()));
  }
}

}  // namespace centroid::asr
