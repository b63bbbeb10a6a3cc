#include "apps/audio/nbest.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "apps/audio/score.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
using Strings = std::vector<std::string>;

// Where `ref` and `other` have the same symbol.
std::vector<bool> matches(const Strings& ref, const Strings& other) {
  std::vector<bool> same;
  for (const AlignedPair& pair : align(ref, other)) {
    if (pair.edit != Edit::insertion) same.push_back(pair.edit == Edit::match);
  }
  return same;
}

Strings token_names(const Hypothesis& h) {
  Strings names;
  for (const Token& token : h.tokens) names.push_back(std::to_string(token.id));
  return names;
}

Strings word_texts(const Hypothesis& h) {
  Strings texts;
  for (const auto& word : h.words) texts.push_back(word.text);
  return texts;
}

template <typename Symbols>
std::vector<double> agreement(const std::vector<Hypothesis>& all, const std::vector<double>& weight,
                              const Symbols& symbols) {
  const Strings best = symbols(all[0]);
  std::vector<double> sum(best.size(), 0.0);
  for (size_t h = 0; h < all.size(); ++h) {
    const std::vector<bool> same = matches(best, symbols(all[h]));
    for (size_t i = 0; i < best.size(); ++i) sum[i] += same[i] ? weight[h] : 0;
  }
  for (double& value : sum) value = std::min(1.0, value);
  return sum;
}

}  // namespace

// States 0, 1, 2, ... are a blank, the first symbol, a blank, ...; a path stays, moves on by one,
// or by two from a symbol to another one.
std::vector<Token> align_ctc(const std::vector<double>& log_probs, int64_t classes,
                             const std::vector<int32_t>& ids) {
  const int64_t frames = static_cast<int64_t>(log_probs.size()) / classes;
  const auto states = static_cast<int64_t>(2 * ids.size() + 1);
  const auto symbol = [&](int64_t s) { return s % 2 == 0 ? 0 : ids[s / 2]; };
  std::vector<double> score(states, kNever), before(states);
  std::vector<uint8_t> step(frames * states, 0);
  for (int64_t t = 0; t < frames; ++t) {
    std::swap(score, before);
    for (int64_t s = 0; s < states; ++s) {
      double best = t == 0 ? (s <= 1 ? 0 : kNever) : before[s];
      const auto offer = [&](int64_t distance) {
        if (t == 0 || s < distance || before[s - distance] <= best) return;
        best = before[s - distance];
        step[t * states + s] = static_cast<uint8_t>(distance);
      };
      offer(1);
      if (s % 2 == 1 && s >= 3 && ids[s / 2] != ids[s / 2 - 1]) offer(2);
      score[s] = best + log_probs[t * classes + symbol(s)];
    }
  }
  int64_t s = states - 1;
  if (states > 1 && frames > 0 && score[s - 1] > score[s]) --s;
  CENTROID_CHECK(ids.empty() || (frames > 0 && score[s] > kNever), "alignment: ", ids.size(),
                 " symbols do not fit into ", frames, " frames, or have probability 0");
  std::vector<Token> tokens;
  for (const int32_t id : ids) tokens.push_back({id, -1, -1});
  for (int64_t t = frames - 1; t >= 0; --t) {
    if (s % 2 == 1) {
      Token& token = tokens[s / 2];
      if (token.end < 0) token.end = t + 1;
      token.begin = t;
    }
    s -= step[t * states + s];
  }
  return tokens;
}

void add_times(Hypothesis& h, const std::vector<double>& log_probs, int64_t classes) {
  std::vector<int32_t> ids = ids_of(h.tokens);
  h.tokens = align_ctc(log_probs, classes, ids);
}

std::vector<double> posteriors(const std::vector<Hypothesis>& hypotheses) {
  double best = kNever, sum = 0;
  for (const Hypothesis& h : hypotheses) best = std::max(best, h.score);
  std::vector<double> p;
  for (const Hypothesis& h : hypotheses) p.push_back(std::exp(h.score - best));
  for (const double value : p) sum += value;
  for (double& value : p) value /= sum;
  return p;
}

Hypothesis best_path(const float* logits, int64_t frames, int64_t classes) {
  Hypothesis h;
  h.tokens = greedy_ctc(logits, frames, classes);
  h.units = static_cast<int64_t>(h.tokens.size());
  const std::vector<double> log_probs = log_softmax(logits, frames, classes);
  for (int64_t t = 0; t < frames; ++t) {
    const double* row = log_probs.data() + t * classes;
    h.acoustic += *std::max_element(row, row + classes);
  }
  h.score = h.acoustic;
  for (const Token& token : h.tokens) {
    double sum = 0;
    for (int64_t t = token.begin; t < token.end; ++t) sum += log_probs[t * classes + token.id];
    h.token_confidence.push_back(std::exp(sum / static_cast<double>(token.end - token.begin)));
  }
  return h;
}

void add_word_confidence(Hypothesis& h) {
  for (auto& word : h.words) {
    double sum = 0;
    for (int64_t i = 0; i < word.count; ++i) sum += std::log(h.token_confidence[word.first + i]);
    word.confidence = std::exp(sum / static_cast<double>(word.count));
  }
}

void add_confidence(std::vector<Hypothesis>& hypotheses) {
  CENTROID_CHECK(!hypotheses.empty(), "confidence: expected hypotheses, got none");
  Hypothesis& best = hypotheses[0];
  const std::vector<double> weight = posteriors(hypotheses);
  best.token_confidence = agreement(hypotheses, weight, token_names);
  const std::vector<double> words = agreement(hypotheses, weight, word_texts);
  for (size_t i = 0; i < words.size(); ++i) best.words[i].confidence = words[i];
}

size_t best_of(const std::vector<Hypothesis>& hypotheses, double lm_weight, double word_score) {
  CENTROID_CHECK(!hypotheses.empty(), "rescoring: expected hypotheses, got none");
  size_t best = 0;
  for (size_t i = 1; i < hypotheses.size(); ++i) {
    if (hypotheses[i].rescored(lm_weight, word_score) >
        hypotheses[best].rescored(lm_weight, word_score)) {
      best = i;
    }
  }
  return best;
}

void merge_nbest(std::vector<Hypothesis>& hypotheses, std::vector<Hypothesis> more) {
  std::set<std::pair<std::vector<int32_t>, Strings>> seen;
  for (const Hypothesis& h : hypotheses) seen.insert({ids_of(h.tokens), word_texts(h)});
  for (Hypothesis& h : more) {
    if (seen.insert({ids_of(h.tokens), word_texts(h)}).second) hypotheses.push_back(std::move(h));
  }
}

}  // namespace centroid::audio
