// What a BeamDecoder prepares once for all utterances.
#include <algorithm>
#include <cmath>

#include "apps/audio/beam.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

void validate(const BeamOptions& o) {
  const auto least = [](const char* name, auto value, auto minimum) {
    CENTROID_CHECK(value >= minimum, "beam search: ", name, ": expected at least ", minimum,
                   ", got ", value);
  };
  least("beam", o.beam, int64_t{1});
  least("n-best", o.nbest, int64_t{1});
  least("token threshold", o.token_threshold, 0.0);
  least("score threshold", o.score_threshold, 0.0);
  least("LM weight", o.lm_weight, 0.0);
  CENTROID_CHECK(std::isfinite(o.lm_weight) && std::isfinite(o.word_score),
                 "beam search: expected a finite LM weight and word score, got ", o.lm_weight,
                 " and ", o.word_score);
  CENTROID_CHECK(o.unk_score <= 0 && std::isfinite(o.unk_score),
                 "beam search: score of unknown words: expected a number up to 0, got ",
                 o.unk_score);
}

}  // namespace

BeamDecoder::BeamDecoder(std::vector<std::string> tokens, const BeamOptions& options,
                         const NgramModel* lm, LmUnit unit, const LexiconTrie* lexicon)
    : tokens_(std::move(tokens)), options_(options), lm_(lm), unit_(unit), lexicon_(lexicon) {
  validate(options);
  CENTROID_CHECK(tokens_.size() > 1, "beam search: expected a blank and symbols, got ",
                 tokens_.size(), " classes");
  CENTROID_CHECK((lm_ != nullptr) == (unit != LmUnit::none),
                 "beam search: expected a language model and what it predicts, or neither");
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& token = tokens_[i];
    begins_word_.push_back(i > 0 && token.starts_with(kWordMark));
    markers_ = markers_ || begins_word_.back();
    if (i > 0 && token == "<space>") space_ = static_cast<int32_t>(i);
    if (i > 0 && token == options.silence) silence_ = static_cast<int32_t>(i);
  }
  CENTROID_CHECK(options.silence.empty() || silence_ > 0, "beam search: the symbol '",
                 options.silence, "' for silence is not among the recogniser's");
  CENTROID_CHECK(options.silence.empty() || lexicon_,
                 "beam search: a symbol for silence between words needs a lexicon");
  // A lexicon that spells the spaces out needs none between its words.
  if (lexicon_ && space_ >= 0 && lexicon_->uses(space_)) space_ = -1;
  CENTROID_CHECK(unit != LmUnit::words || has_words(),
                 "beam search: a language model of words needs symbols with <space>, symbols with "
                 "word marks, or a lexicon");
  if (unit == LmUnit::tokens) {
    for (const std::string& token : tokens_) lm_number_.push_back(lm_->find(token));
  }
  if (unit != LmUnit::words || !lexicon_) return;
  std::vector<double> unigrams;
  for (const std::string& word : lexicon_->words()) {
    const int32_t number = lm_->find(word);
    lm_number_.push_back(number);
    double score = number == lm_->unknown() ? options.unk_score : 0;
    if (number >= 0) score += lm_->score(lm_->empty_state(), number).log_prob;
    unigrams.push_back(score);
  }
  if (options.look_ahead) look_ahead_ = lexicon_->look_ahead(unigrams);
}

void BeamDecoder::add_words(Hypothesis& h) const {
  if (lexicon_ || !has_words()) return;
  bool inside = false;
  for (size_t k = 0; k < h.tokens.size(); ++k) {
    const int32_t token = h.tokens[k].id;
    const bool mark = begins_word_[token];
    if (token == space_ || mark) inside = false;
    if (token == space_) continue;
    if (!inside) h.words.push_back({"", static_cast<int64_t>(k), 0});
    inside = true;
    const std::string& text = tokens_[token];
    h.words.back().text += mark ? text.substr(std::char_traits<char>::length(kWordMark)) : text;
    ++h.words.back().count;
  }
  std::erase_if(h.words, [](const Hypothesis::Word& w) { return w.text.empty(); });
}

void BeamDecoder::set_weights(double lm_weight, double word_score) {
  BeamOptions changed = options_;
  changed.lm_weight = lm_weight;
  changed.word_score = word_score;
  validate(changed);
  options_ = changed;
}

}  // namespace centroid::audio
