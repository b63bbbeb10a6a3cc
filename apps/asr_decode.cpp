#include "apps/asr_decode.h"

#include <algorithm>
#include <limits>

#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/nbest.h"
#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::asr {

using audio::Hypothesis;
using audio::LmUnit;
using audio::Unit;
using nlohmann::ordered_json;

namespace {

ordered_json timed_json(const std::vector<audio::TimedWord>& items, const char* name) {
  ordered_json list = ordered_json::array();
  for (const audio::TimedWord& item : items) {
    list.push_back({{name, item.text},
                    {"begin", audio::round_to_ms(item.begin)},
                    {"end", audio::round_to_ms(item.end)}});
    if (!std::isnan(item.confidence)) {
      list.back()["confidence"] = std::round(item.confidence * 1e4) / 1e4;
    }
  }
  return list;
}

}  // namespace

Decoder::Decoder(DecodeOptions options, const audio::Vocab& vocab, const Criterion* criterion)
    : options_(std::move(options)),
      vocab_(vocab),
      other_(criterion && !criterion->is_ctc() ? criterion : nullptr) {
  const bool constrained = !options_.lexicon.empty() || options_.lm_words;
  CENTROID_CHECK(!options_.lm_words || !options_.lm.empty(), "--lm-words: expected --lm FILE");
  CENTROID_CHECK(!options_.lm_words || options_.lexicon.empty(),
                 "--lm-words: expected no --lexicon beside it");
  auto& beam = options_.search.beam;
  if (beam == 0) beam = options_.lm.empty() && !constrained ? 1 : kDefaultBeam;
  greedy_ = beam == 1 && options_.lm.empty() && !constrained;
  CENTROID_CHECK(greedy_ || !criterion || criterion->has_blank(),
                 "decoding: beam search, LMs and lexicons need a recogniser with CTC's blank (",
                 "this one, of LF-MMI, is decoded by Viterbi with its own n-gram)");
  CENTROID_CHECK(!greedy_ || options_.search.nbest == 1, "--nbest ", options_.search.nbest,
                 ": expected --beam 2 or more: greedy decoding gives one transcript");
  if (!options_.lm.empty()) load_lm();
  if (constrained) load_lexicon();
  audio::BeamOptions all = options_.search;
  all.nbest = all.beam;
  beam_ = std::make_unique<audio::BeamDecoder>(vocab_.tokens(), all, lm_.get(), unit_, trie_.get());
}

// An LM of tokens knows them; one of words knows few (letters that are words), and no <space>.
void Decoder::load_lm() {
  lm_ = std::make_unique<audio::NgramModel>(audio::read_arpa(options_.lm));
  int64_t known = 0;
  for (size_t i = 1; i < vocab_.tokens().size(); ++i) {
    known += lm_->find(vocab_.tokens()[i]) != lm_->unknown();
  }
  const bool constrained = !options_.lexicon.empty() || options_.lm_words;
  const audio::BeamDecoder plain(vocab_.tokens(), {});
  if (options_.lm_unit == "auto") {
    const bool space = std::find(vocab_.tokens().begin(), vocab_.tokens().end(), "<space>") !=
                       vocab_.tokens().end();
    const bool tokens =
        space ? lm_->find("<space>") != lm_->unknown() : 2 * known >= vocab_.size() - 1;
    unit_ = constrained || (plain.has_words() && !tokens) ? LmUnit::words : LmUnit::tokens;
    options_.lm_unit = unit_ == LmUnit::words ? "words" : "tokens";
  } else {
    unit_ = options_.lm_unit == "words" ? LmUnit::words : LmUnit::tokens;
    // A recogniser of words puts out what an LM of words predicts.
    if (vocab_.unit() == Unit::words && !constrained) unit_ = LmUnit::tokens;
  }
  CENTROID_CHECK(unit_ == LmUnit::words || known > 0, options_.lm, ": none of the recogniser's ",
                 vocab_.size() - 1,
                 " symbols is in this language "
                 "model of ",
                 lm_->words().size(), " words, the first of which is '", lm_->words()[0],
                 "' (train it with asr lm on the same unit, or use --lm-unit)");
}

audio::Lexicon Decoder::spelled_words() const {
  CENTROID_CHECK(vocab_.unit() == Unit::characters,
                 "--lm-words: expected a recogniser of characters, got one of ",
                 audio::name_of(vocab_.unit()), " (use --lexicon)");
  audio::Lexicon lexicon;
  for (const std::string& word : lm_->words()) {
    if (word == "<s>" || word == "</s>" || word == "<unk>" || word == "<UNK>") continue;
    audio::Pronunciation p;
    for (const char32_t code : audio::code_points(word)) p.phones.push_back(audio::to_utf8(code));
    lexicon.add(word, std::move(p));
  }
  return lexicon;
}

void Decoder::load_lexicon() {
  const audio::Lexicon lexicon =
      options_.lm_words ? spelled_words() : audio::read_lexicon(options_.lexicon);
  trie_ = std::make_unique<audio::LexiconTrie>(lexicon, vocab_.tokens(),
                                               options_.lexicon_skip || options_.lm_words);
  for (const std::string& word : lexicon.words()) lexicon_words_[word] = true;
}

// As a beam search would give it, but for the score, which is that of the best path alone.
std::vector<Hypothesis> Decoder::best_path(const float* logits, int64_t frames) const {
  Hypothesis h =
      other_ ? other_->recognise(logits, frames) : audio::best_path(logits, frames, vocab_.size());
  beam_->add_words(h);
  audio::add_word_confidence(h);
  return {std::move(h)};
}

std::vector<Hypothesis> Decoder::decode(const float* logits, int64_t frames,
                                        const audio::BeamContext& context) const {
  if (greedy_) return best_path(logits, frames);
  const int64_t classes = vocab_.size();
  const std::vector<double> log_probs = audio::log_softmax(logits, frames, classes);
  std::vector<Hypothesis> list = beam_->decode(log_probs, context);
  audio::add_times(list[0], log_probs, classes);
  audio::add_confidence(list);
  list.resize(std::min<size_t>(list.size(), options_.search.nbest));
  for (size_t i = 1; i < list.size(); ++i) audio::add_times(list[i], log_probs, classes);
  return list;
}

std::vector<Hypothesis> Decoder::search(const std::vector<double>& log_probs) const {
  return beam_->decode(log_probs);
}

void Decoder::set_weights(double lm_weight, double word_score) {
  beam_->set_weights(lm_weight, word_score);
  options_.search.lm_weight = lm_weight;
  options_.search.word_score = word_score;
}

std::string Decoder::text(const Hypothesis& h) const {
  if (!beam_->has_words()) return vocab_.text(vocab_.decode(audio::ids_of(h.tokens)));
  std::vector<std::string> words;
  for (const auto& word : h.words) words.push_back(word.text);
  return audio::join(words, " ");
}

std::vector<std::string> Decoder::symbols(const Hypothesis& h, Unit unit) const {
  // A lexicon's words make the text: spaces at its ends do not count.
  if (unit == vocab_.unit() && !(trie_ && unit == Unit::characters)) {
    std::vector<std::string> symbols = vocab_.decode(audio::ids_of(h.tokens));
    std::erase_if(symbols, [&](const std::string& s) { return s == options_.search.silence; });
    return symbols;
  }
  const std::string own = audio::name_of(vocab_.unit());
  const bool letters = vocab_.unit() == Unit::characters;
  CENTROID_CHECK((letters || beam_->has_words()) && unit != Unit::phones, "score: a recogniser of ",
                 own, " can be scored in ", own,
                 letters              ? " or words"
                 : beam_->has_words() ? ", characters or words"
                                      : "",
                 ", not in ", audio::name_of(unit),
                 letters || beam_->has_words() ? "" : " (words need a --lexicon)");
  audio::Utterance said;
  said.text = text(h);
  return audio::symbols(said, unit);
}

std::vector<std::string> Decoder::reference(const audio::Utterance& utterance, Unit unit) const {
  return unit == vocab_.unit() ? vocab_.symbols(utterance)
                               : audio::symbols(utterance, unit, vocab_.lowercase());
}

Unit Decoder::default_unit() const { return trie_ ? Unit::words : audio::score_unit(vocab_); }

std::vector<audio::TimedWord> Decoder::tokens(const Hypothesis& h,
                                              const audio::SegmentOptions& placing) const {
  std::vector<audio::AlignedLabel> labels;
  for (const audio::Token& t : h.tokens) labels.push_back({t.id, 0, t.begin, t.end, 0});
  std::vector<audio::TimedWord> items = audio::place_segments(labels, placing);
  for (size_t i = 0; i < items.size(); ++i) {
    items[i].text = vocab_.tokens()[h.tokens[i].id];
    items[i].confidence = h.token_confidence.empty() ? std::numeric_limits<double>::quiet_NaN()
                                                     : h.token_confidence[i];
  }
  return items;
}

std::vector<audio::TimedWord> Decoder::words(const Hypothesis& h,
                                             const std::vector<audio::TimedWord>& tokens) const {
  if (vocab_.unit() == Unit::words && !trie_) return tokens;
  std::vector<audio::TimedWord> items;
  for (const auto& w : h.words) {
    if (w.count == 0) continue;
    items.push_back(
        {w.text, tokens[w.first].begin, tokens[w.first + w.count - 1].end, w.confidence});
  }
  return items;
}

ordered_json Decoder::to_json(const Hypothesis& h, const audio::SegmentOptions& placing) const {
  const std::vector<audio::TimedWord> items = tokens(h, placing);
  ordered_json out{{"text", text(h)}, {"score", h.score}, {"acoustic", h.acoustic},
                   {"lm", h.lm},      {"units", h.units}, {"complete", h.complete}};
  out["tokens"] = timed_json(items, "token");
  if (beam_->has_words()) out["words"] = timed_json(words(h, items), "word");
  return out;
}

ordered_json Decoder::settings() const {
  const audio::BeamOptions& o = options_.search;
  return {{"beam", o.beam},
          {"nbest", o.nbest},
          {"token-threshold", o.token_threshold},
          {"score-threshold", o.score_threshold},
          {"lm", options_.lm},
          {"lm-unit", options_.lm_unit},
          {"lm-weight", o.lm_weight},
          {"word-score", o.word_score},
          {"unk-score", o.unk_score},
          {"lexicon", options_.lexicon},
          {"lm-words", options_.lm_words},
          {"lexicon-skip", options_.lexicon_skip},
          {"look-ahead", o.look_ahead},
          {"silence", o.silence}};
}

std::string Decoder::describe() const {
  if (greedy_) return "greedy";
  const audio::BeamOptions& o = options_.search;
  std::string text = concat("beam ", o.beam, ", token threshold ", o.token_threshold,
                            ", score threshold ", o.score_threshold, ", word score ", o.word_score);
  if (lm_) {
    text += concat(", ", lm_->order(), "-gram LM of ", options_.lm_unit, " ", options_.lm,
                   ", LM weight ", o.lm_weight, ", score of unknown ", o.unk_score);
  }
  if (trie_) {
    text += concat(", lexicon ", options_.lm_words ? "of the LM's words" : options_.lexicon, " (",
                   trie_->words().size(), " words");
    if (trie_->skipped() > 0) text += concat(", ", trie_->skipped(), " pronunciations left out");
    text += ")";
    if (!o.silence.empty()) text += concat(", silence ", o.silence);
    if (lm_ && unit_ == LmUnit::words) text += o.look_ahead ? ", look-ahead" : ", no look-ahead";
  }
  return text;
}

void Decoder::cover(const audio::Utterance& utterance, Coverage& coverage) const {
  const bool tokens = !trie_ && unit_ != LmUnit::words;
  const auto items = tokens ? vocab_.symbols(utterance) : reference(utterance, Unit::words);
  for (const std::string& item : items) {
    ++coverage.words;
    if (lm_ && (tokens || unit_ == LmUnit::words)) {
      coverage.lm_unknown += lm_->find(item) == lm_->unknown();
    }
    if (!trie_ || lexicon_words_.contains(item)) continue;
    ++coverage.lexicon_unknown;
    ++coverage.missing[item];
  }
}

ordered_json to_json(const Coverage& c, const Decoder& decoder) {
  ordered_json out{{"reference_items", c.words}};
  if (decoder.lm()) out["unknown_to_lm"] = c.lm_unknown;
  if (!decoder.has_lexicon()) return out;
  out["unknown_to_lexicon"] = c.lexicon_unknown;
  out["missing_words"] = ordered_json::array();
  for (const auto& [word, count] : c.missing) out["missing_words"].push_back(word);
  return out;
}

std::string describe(const Coverage& c, const Decoder& decoder) {
  std::string text;
  const auto percent = [&](int64_t n) {
    return concat(n, " of ", c.words, " (",
                  std::round(1000.0 * n / std::max<int64_t>(1, c.words)) / 10, " %)");
  };
  if (decoder.lm())
    text += concat("the LM does not know ", percent(c.lm_unknown), " of the references' ",
                   decoder.options().lm_unit, "\n");
  if (!decoder.has_lexicon() || c.lexicon_unknown == 0) return text;
  text += concat("warning: the lexicon lacks ", percent(c.lexicon_unknown),
                 " of the references' words, which can never be right:");
  std::vector<std::pair<int64_t, std::string>> worst;
  for (const auto& [word, count] : c.missing) worst.emplace_back(-count, word);
  std::sort(worst.begin(), worst.end());
  for (size_t i = 0; i < std::min<size_t>(8, worst.size()); ++i) text += " " + worst[i].second;
  return text + (worst.size() > 8 ? " ...\n" : "\n");
}

}  // namespace centroid::asr
