#pragma once
// The loss of a recogniser and the decoding that belongs to it.
#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "apps/audio/beam.h"
#include "apps/audio/vocab.h"
#include "nn/loss.h"
#include "tensor/lengths.h"

namespace centroid::asr {

struct Targets;

/// Which loss, and its numbers. `add_loss_options` makes each of them a flag.
struct LossOptions {
  std::string loss = "ctc";            ///< ctc or lfmmi
  std::string topology = "two-state";  ///< and the rest: of lfmmi
  double silence = 0.1;
  int64_t ngram_order = 3, ngram_states = 200;
  bool ngram_smooth = true;
  double leaky = 1e-5, output_l2 = 1e-4, ctc_weight = 0.1;
  std::string lexicon;  ///< a file; empty: none
};
/// `options` must outlive `command` and holds the defaults when this is called.
void add_loss_options(CLI::App& command, LossOptions& options);

/// What training and decoding need to know of a loss.
class Criterion {
 public:
  virtual ~Criterion() = default;
  /// Whether `decode` takes the best class of each frame and no more.
  virtual bool is_ctc() const { return false; }
  /// Whether outputs are the symbols with CTC's blank: what beam search and alignment work on.
  virtual bool has_blank() const { return is_ctc(); }
  /// Classes that the model puts out.
  virtual int64_t outputs() const = 0;
  /// Frames that a transcript needs at least; -1 when no number of frames is enough.
  virtual int64_t min_frames(const std::vector<int32_t>& labels) const = 0;
  /// Throws when the words of an utterance cannot be trained on: not in the lexicon.
  virtual void check_text(const std::string&) const {}
  /// logits (B, T, outputs()) -> (), as nn::ctc reduces it. With `scoring` the loss of the labels
  /// alone, without what is added to it in training; else, with a lexicon, that of all
  /// pronunciations of the texts.
  virtual Tensor loss(const Tensor& logits, const Lengths& lengths, const Targets& targets,
                      nn::Reduction reduction, bool zero_infeasible, bool scoring) const = 0;
  /// The labels of one utterance: logits (frames, outputs()), row-major, on the host.
  virtual std::vector<audio::Token> decode(const float* logits, int64_t frames) const = 0;
  /// The same with its score and confidences, and without words.
  virtual audio::Hypothesis recognise(const float* logits, int64_t frames) const = 0;
  /// What a checkpoint keeps of it: from this text `read_criterion` makes the same one.
  virtual std::string text() const = 0;
};

/// The criterion of a new model for the symbols of `vocab`. The n-gram of lfmmi is counted in
/// `transcripts`. Throws for a lexicon with another loss or vocabulary than lfmmi's of phones.
std::unique_ptr<Criterion> make_criterion(const LossOptions& options, const audio::Vocab& vocab,
                                          const std::vector<std::vector<int32_t>>& transcripts);
/// The one of a checkpoint for `symbols` symbols; no text is CTC's. Throws when the text is damaged
/// or for another number of symbols.
std::unique_ptr<Criterion> read_criterion(const std::string& text, int64_t symbols);

}  // namespace centroid::asr
