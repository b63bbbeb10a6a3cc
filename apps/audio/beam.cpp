#include "apps/audio/beam.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <queue>
#include <tuple>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr int32_t kBlank = 0;

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNever ? a : a + std::log1p(std::exp(b - a));
}

/// A sequence of tokens: one more than its parent's, and what the LM and the lexicon make of it.
struct Node {
  int32_t parent = -1, token = -1;
  int32_t trie = 0;     // place in the lexicon; 0: between words
  int32_t word = -1;    // of the lexicon, ended by this token
  int32_t state = 0;    // of the LM
  int32_t active = -1;  // place in the beam
  int64_t units = 0;
  double lm = 0;
  double pronunciation = 0;  // log probability of those of the words
  bool pending = false;      // inside a word, where there is no lexicon
};

struct Active {
  int32_t node;
  double blank, label;  // log probability of the alignments that end in a blank, in the last token
  double total, rank;   // of both; with what the LM, words and look-ahead add
};

/// A token that may follow a hypothesis, and the best rank it can lead to.
struct Candidate {
  double bound;
  int32_t active, token;
};

struct Final {
  int32_t node, word;  // a word of the lexicon that the end of the sound ends, or -1
  double acoustic, lm, score;
  int64_t units;
  bool complete;
};

}  // namespace

class BeamSearch {
 public:
  BeamSearch(const BeamDecoder& decoder, const std::vector<double>& log_probs,
             const BeamContext& context)
      : d_(decoder),
        context_(context),
        o_(decoder.options_),
        log_probs_(log_probs),
        classes_(static_cast<int64_t>(decoder.tokens_.size())),
        counts_words_(d_.lexicon_ || (d_.has_words() && d_.unit_ != LmUnit::tokens)),
        table_(1024, -1) {}

  std::vector<Hypothesis> run();

 private:
  template <typename F>
  void expand(const Node& from, int32_t token, const F& visit) const;
  bool may_follow(const Node& from, int32_t token) const;
  int32_t intern(int32_t parent, int32_t token, int32_t trie, int32_t word, double log_prob);
  Node make(int32_t parent, int32_t token, int32_t trie, int32_t word, double log_prob) const;
  void add_lm(Node& node, int32_t number) const;
  void end_word(Node& node, int32_t last) const;
  std::string spell(int32_t node) const;
  double base(const Node& n) const {
    return (d_.lm_ ? o_.lm_weight * n.lm : 0) + o_.word_score * static_cast<double>(n.units) +
           n.pronunciation;
  }
  double rank(const Node& n) const {
    const bool ahead = n.trie != 0 && !d_.look_ahead_.empty();
    return base(n) + (ahead ? o_.lm_weight * d_.look_ahead_[n.trie] : 0);
  }

  int32_t first_state() const;
  void step(int64_t frame);
  std::vector<Active> stay(const double* row);
  std::vector<Candidate> candidates(const double* row) const;
  void extend(const double* row, const std::vector<Candidate>& candidates,
              std::vector<Active>& next);
  void keep(std::vector<Active>& next);

  void finish(const Active& a, std::vector<Final>& finals) const;
  Hypothesis hypothesis(const Final& f) const;
  void lexicon_words(const std::vector<int32_t>& path, const Final& f, Hypothesis& h) const;
  std::vector<Hypothesis> select(std::vector<Final> finals) const;

  const BeamDecoder& d_;
  const BeamContext& context_;
  const BeamOptions& o_;
  const std::vector<double>& log_probs_;
  int64_t classes_;
  bool counts_words_;
  std::vector<Node> nodes_;
  std::vector<int32_t> table_;  // a hash table of nodes
  std::vector<Active> beam_;
};

// The ways to go on with `token`: visit(place in the lexicon, word that ends, log probability).
template <typename F>
void BeamSearch::expand(const Node& from, int32_t token, const F& visit) const {
  if (!d_.lexicon_) return visit(0, -1, 0.0);
  const LexiconTrie& trie = *d_.lexicon_;
  const bool spaces = d_.space_ >= 0;
  if (const int32_t node = trie.child(from.trie, token); node >= 0) {
    if (!spaces) {
      for (const auto& w : trie.ends(node)) visit(0, w.word, w.log_prob);
    }
    if (spaces || trie.has_children(node)) visit(node, -1, 0.0);
  }
  if (spaces && token == d_.space_) {
    if (from.token < 0) visit(0, -1, 0.0);
    if (from.trie == 0) return;
    for (const auto& w : trie.ends(from.trie)) visit(0, w.word, w.log_prob);
  }
  if (token == d_.silence_ && from.trie == 0 && from.token != token) visit(0, -1, 0.0);
}

bool BeamSearch::may_follow(const Node& from, int32_t token) const {
  return !d_.lexicon_ || token == d_.space_ || token == d_.silence_ ||
         d_.lexicon_->child(from.trie, token) >= 0;
}

void BeamSearch::add_lm(Node& node, int32_t number) const {
  if (number == d_.lm_->unknown()) node.lm += o_.unk_score;
  if (number < 0) {
    node.state = d_.lm_->empty_state();
    return;
  }
  const auto [log_prob, next] = d_.lm_->score(node.state, number);
  node.lm += log_prob;
  node.state = next;
}

// The letters of the word that ends with `node`; empty for a mark that stands alone.
std::string BeamSearch::spell(int32_t node) const {
  std::string text;
  for (; nodes_[node].token >= 0 && nodes_[node].token != d_.space_; node = nodes_[node].parent) {
    const std::string& token = d_.tokens_[nodes_[node].token];
    if (d_.begins_word_[nodes_[node].token]) {
      return token.substr(std::char_traits<char>::length(kWordMark)) + text;
    }
    text = token + text;
  }
  return text;
}

// `last` is the node of the word's last token.
void BeamSearch::end_word(Node& node, int32_t last) const {
  node.pending = false;
  const bool scored = d_.unit_ == LmUnit::words;
  if (!scored && !counts_words_) return;
  const std::string word = spell(last);
  if (word.empty()) return;
  if (scored) add_lm(node, d_.lm_->find(word));
  if (counts_words_) ++node.units;
}

Node BeamSearch::make(int32_t parent, int32_t token, int32_t trie, int32_t word,
                      double log_prob) const {
  Node node = nodes_[parent];
  node.parent = parent;
  node.token = token;
  node.trie = trie;
  node.word = word;
  node.active = -1;
  node.pronunciation += log_prob;
  if (d_.lexicon_) {
    if (word >= 0 && d_.unit_ == LmUnit::words) add_lm(node, d_.lm_number_[word]);
    node.units += word >= 0;
  } else if (d_.has_words()) {
    const bool boundary = token == d_.space_ || d_.begins_word_[token];
    if (boundary && node.pending) end_word(node, parent);
    node.pending = token != d_.space_;
  }
  if (d_.unit_ == LmUnit::tokens) add_lm(node, d_.lm_number_[token]);
  if (!counts_words_) ++node.units;
  return node;
}

// The node of a sequence, made when it is new: a sequence that left the beam and comes back is the
// same node, so that its continuations find each other.
int32_t BeamSearch::intern(int32_t parent, int32_t token, int32_t trie, int32_t word,
                           double log_prob) {
  const auto slot = [&](int32_t p, int32_t t, int32_t l, int32_t w) {
    uint64_t h = static_cast<uint64_t>(p) * 0x9E3779B97F4A7C15u;
    for (const int32_t x : {t, l, w}) h = (h ^ static_cast<uint32_t>(x)) * 0xD6E8FEB86659FD93u;
    return (h ^ h >> 32) & (table_.size() - 1);
  };
  uint64_t at = slot(parent, token, trie, word);
  for (; table_[at] >= 0; at = (at + 1) & (table_.size() - 1)) {
    const Node& n = nodes_[table_[at]];
    if (n.parent == parent && n.token == token && n.trie == trie && n.word == word) {
      return table_[at];
    }
  }
  const auto id = static_cast<int32_t>(nodes_.size());
  table_[at] = id;
  nodes_.push_back(make(parent, token, trie, word, log_prob));
  if (nodes_.size() * 2 > table_.size()) {
    table_.assign(table_.size() * 2, -1);
    for (size_t i = 1; i < nodes_.size(); ++i) {
      const Node& n = nodes_[i];
      uint64_t free = slot(n.parent, n.token, n.trie, n.word);
      while (table_[free] >= 0) free = (free + 1) & (table_.size() - 1);
      table_[free] = static_cast<int32_t>(i);
    }
  }
  return id;
}

// What the hypotheses of the beam become without a new token: a blank, the last token again, or,
// for one whose parent is in the beam, too, the parent's alignments with the token that it lacks.
std::vector<Active> BeamSearch::stay(const double* row) {
  std::vector<Active> next = beam_;
  for (size_t j = 0; j < beam_.size(); ++j) {
    const Node& node = nodes_[beam_[j].node];
    next[j].blank = beam_[j].total + row[kBlank];
    next[j].label = kNever;
    if (node.token < 0) continue;
    next[j].label = beam_[j].label + row[node.token];
    const int32_t i = nodes_[node.parent].active;
    if (i < 0) continue;
    const bool repeat = nodes_[node.parent].token == node.token;
    next[j].label =
        log_add(next[j].label, (repeat ? beam_[i].blank : beam_[i].total) + row[node.token]);
  }
  for (Active& a : next) {
    a.total = log_add(a.blank, a.label);
    a.rank = a.total + rank(nodes_[a.node]);
  }
  return next;
}

// LM and pronunciations take score away, so a new token adds at most a word's bonus.
std::vector<Candidate> BeamSearch::candidates(const double* row) const {
  const double least = *std::max_element(row, row + classes_) - o_.token_threshold;
  const double bonus = std::max(0.0, o_.word_score);
  std::vector<Candidate> found;
  for (int32_t token = 0; token < classes_; ++token) {
    if (token == kBlank || row[token] < least || row[token] == kNever) continue;
    for (size_t i = 0; i < beam_.size(); ++i) {
      const Node& node = nodes_[beam_[i].node];
      const double before = node.token == token ? beam_[i].blank : beam_[i].total;
      if (before == kNever || !may_follow(node, token)) continue;
      found.push_back({before + row[token] + base(node) + bonus, static_cast<int32_t>(i), token});
    }
  }
  return found;
}

// Adds new hypotheses to `next`, best bound first, until none can come into the beam. One that is
// in the beam already has been given its parent's part.
void BeamSearch::extend(const double* row, const std::vector<Candidate>& candidates,
                        std::vector<Active>& next) {
  std::priority_queue<double, std::vector<double>, std::greater<>> best;  // the beam's ranks
  const auto add_rank = [&](double rank) {
    best.push(rank);
    if (static_cast<int64_t>(best.size()) > o_.beam) best.pop();
  };
  for (const Active& a : next) add_rank(a.rank);
  for (const Candidate& c : candidates) {
    if (static_cast<int64_t>(best.size()) == o_.beam && c.bound <= best.top()) break;
    const int32_t parent = beam_[c.active].node;
    const double before =
        nodes_[parent].token == c.token ? beam_[c.active].blank : beam_[c.active].total;
    const Node from = nodes_[parent];  // a copy: making nodes moves them
    expand(from, c.token, [&](int32_t trie, int32_t word, double log_prob) {
      const int32_t id = intern(parent, c.token, trie, word, log_prob);
      if (nodes_[id].active >= 0) return;
      const double label = before + row[c.token];
      next.push_back({id, kNever, label, label, label + rank(nodes_[id])});
      add_rank(next.back().rank);
    });
  }
}

void BeamSearch::keep(std::vector<Active>& next) {
  std::sort(next.begin(), next.end(), [](const Active& a, const Active& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.node < b.node;
  });
  const double least = next[0].rank - o_.score_threshold;
  size_t count = 0;
  while (count < next.size() && static_cast<int64_t>(count) < o_.beam &&
         next[count].rank >= least && next[count].rank > kNever) {
    ++count;
  }
  next.resize(count);
}

void BeamSearch::step(int64_t frame) {
  const double* row = log_probs_.data() + frame * classes_;
  std::vector<Active> next = stay(row);
  std::vector<Candidate> found = candidates(row);
  if (static_cast<int64_t>(next.size()) >= o_.beam) {
    double least = next[0].rank;
    for (const Active& a : next) least = std::min(least, a.rank);
    std::erase_if(found, [&](const Candidate& c) { return c.bound <= least; });
  }
  std::sort(found.begin(), found.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(b.bound, a.active, a.token) < std::tie(a.bound, b.active, b.token);
  });
  extend(row, found, next);
  keep(next);
  CENTROID_CHECK(!next.empty(), "beam search: no hypothesis is left at frame ", frame,
                 ": every symbol that may come has probability 0");
  for (const Active& a : beam_) nodes_[a.node].active = -1;
  beam_ = std::move(next);
  for (size_t i = 0; i < beam_.size(); ++i) {
    nodes_[beam_[i].node].active = static_cast<int32_t>(i);
  }
}

void BeamSearch::finish(const Active& a, std::vector<Final>& finals) const {
  const auto add = [&](Node node, int32_t word, bool complete) {
    const bool sentence = d_.lm_ && d_.lm_->sentence_end() >= 0 && context_.ends;
    if (sentence) add_lm(node, d_.lm_->sentence_end());
    finals.push_back({a.node, word, a.total + node.pronunciation, node.lm,
                      context_.ends ? a.total + base(node) : a.rank, node.units, complete});
  };
  Node node = nodes_[a.node];
  if (node.pending && context_.ends) end_word(node, a.node);
  add(node, -1, node.trie == 0);
  if (node.trie == 0 || d_.space_ < 0 || !context_.ends) return;
  for (const auto& w : d_.lexicon_->ends(node.trie)) {
    Node ended = node;
    ended.pronunciation += w.log_prob;
    ++ended.units;
    if (d_.unit_ == LmUnit::words) add_lm(ended, d_.lm_number_[w.word]);
    add(ended, w.word, true);
  }
}

// A word begins where the lexicon is left from its root, and ends with the token that ends it or,
// where a space does, before that.
void BeamSearch::lexicon_words(const std::vector<int32_t>& path, const Final& f,
                               Hypothesis& h) const {
  int64_t first = 0;
  const bool spaces = d_.space_ >= 0;
  const auto size = static_cast<int64_t>(path.size());
  for (int64_t k = 0; k < size; ++k) {
    const Node& node = nodes_[path[k]];
    if (nodes_[node.parent].trie == 0) first = k;
    if (node.word < 0) continue;
    h.words.push_back({d_.lexicon_->words()[node.word], first, k - first + (spaces ? 0 : 1)});
  }
  if (f.word >= 0) h.words.push_back({d_.lexicon_->words()[f.word], first, size - first});
}

Hypothesis BeamSearch::hypothesis(const Final& f) const {
  Hypothesis h;
  std::vector<int32_t> path;
  for (int32_t at = f.node; nodes_[at].parent >= 0; at = nodes_[at].parent) path.push_back(at);
  std::reverse(path.begin(), path.end());
  for (const int32_t at : path) h.tokens.push_back({nodes_[at].token, -1, -1});
  if (d_.lexicon_) lexicon_words(path, f, h);
  d_.add_words(h);
  h.acoustic = f.acoustic;
  h.lm = f.lm;
  h.units = f.units;
  h.score = f.score;
  h.complete = f.complete;
  return h;
}

std::vector<Hypothesis> BeamSearch::select(std::vector<Final> finals) const {
  const bool any = context_.ends &&
                   std::any_of(finals.begin(), finals.end(), [](auto& f) { return f.complete; });
  std::erase_if(finals, [&](const Final& f) { return any && !f.complete; });
  std::stable_sort(finals.begin(), finals.end(),
                   [](const Final& a, const Final& b) { return a.score > b.score; });
  std::vector<Hypothesis> best;
  std::map<std::vector<std::string>, size_t> seen;
  for (const Final& f : finals) {
    Hypothesis h = hypothesis(f);
    if (d_.lexicon_) {
      std::vector<std::string> words;
      for (const auto& w : h.words) words.push_back(w.text);
      const auto [it, added] = seen.emplace(std::move(words), best.size());
      if (!added) {
        Hypothesis& same = best[it->second];
        const double score = log_add(same.score, h.score);
        same.acoustic += score - same.score;
        same.score = score;
        continue;
      }
    }
    best.push_back(std::move(h));
  }
  std::stable_sort(best.begin(), best.end(),
                   [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
  if (static_cast<int64_t>(best.size()) > o_.nbest) best.resize(o_.nbest);
  return best;
}

// The LM's state after what was said before.
int32_t BeamSearch::first_state() const {
  if (!d_.lm_) return 0;
  int32_t state = d_.lm_->begin_state();
  const auto say = [&](int32_t number) {
    state = number < 0 ? d_.lm_->empty_state() : d_.lm_->score(state, number).next;
  };
  if (d_.unit_ == LmUnit::tokens) {
    for (const int32_t token : context_.tokens) say(d_.lm_number_.at(token));
  } else {
    for (const std::string& word : context_.words) say(d_.lm_->find(word));
  }
  return state;
}

std::vector<Hypothesis> BeamSearch::run() {
  Node root;
  root.state = first_state();
  root.active = 0;
  nodes_ = {root};
  beam_ = {{0, 0, kNever, 0, 0}};
  const auto frames = static_cast<int64_t>(log_probs_.size()) / classes_;
  for (int64_t t = 0; t < frames; ++t) step(t);
  std::vector<Final> finals;
  for (const Active& a : beam_) finish(a, finals);
  return select(std::move(finals));
}

std::vector<double> log_softmax(const float* logits, int64_t frames, int64_t classes) {
  std::vector<double> out(frames * classes);
  for (int64_t t = 0; t < frames; ++t) {
    const float* row = logits + t * classes;
    double best = kNever, sum = 0;
    for (int64_t v = 0; v < classes; ++v) {
      CENTROID_CHECK(!std::isnan(row[v]) && row[v] < std::numeric_limits<float>::infinity(),
                     "decoding: expected a finite score, got ", row[v], " for class ", v,
                     " at frame ", t);
      best = std::max<double>(best, row[v]);
    }
    CENTROID_CHECK(best > kNever, "decoding: expected a finite score at frame ", t, ", got none");
    for (int64_t v = 0; v < classes; ++v) sum += std::exp(row[v] - best);
    const double norm = best + std::log(sum);
    for (int64_t v = 0; v < classes; ++v) out[t * classes + v] = row[v] - norm;
  }
  return out;
}

std::vector<Hypothesis> BeamDecoder::decode(const std::vector<double>& log_probs,
                                            const BeamContext& context) const {
  CENTROID_CHECK(log_probs.size() % tokens_.size() == 0, "beam search: expected frames of ",
                 tokens_.size(), " classes, got ", log_probs.size(), " numbers");
  return BeamSearch(*this, log_probs, context).run();
}

}  // namespace centroid::audio
