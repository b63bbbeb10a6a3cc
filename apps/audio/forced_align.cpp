#include "apps/audio/forced_align.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// Rows of small unsigned numbers, each of a width of its own.
class PackedRows {
 public:
  explicit PackedRows(const std::vector<int>& widths) {
    for (const int width : widths) {
      offsets_.push_back(bits_);
      widths_.push_back(width);
      bits_ += width;
    }
  }
  void add_row() { words_.resize((++rows_ * bits_ + 63) / 64 + 1); }
  void set(size_t column, uint64_t value) {  // in the last row, which is 0 so far
    const size_t at = (rows_ - 1) * bits_ + offsets_[column];
    words_[at / 64] |= value << (at % 64);
    if (at % 64 != 0) words_[at / 64 + 1] |= value >> (64 - at % 64);
  }
  uint64_t get(size_t row, size_t column) const {
    const size_t at = row * bits_ + offsets_[column];
    uint64_t value = words_[at / 64] >> (at % 64);
    if (at % 64 != 0) value |= words_[at / 64 + 1] << (64 - at % 64);
    return value & ((uint64_t{1} << widths_[column]) - 1);
  }

 private:
  std::vector<size_t> offsets_;
  std::vector<int> widths_;
  std::vector<uint64_t> words_;
  size_t bits_ = 0, rows_ = 0;
};

void check_graph(const LabelGraph& graph, int64_t classes, int32_t blank) {
  CENTROID_CHECK(classes > 0 && blank >= 0 && blank < classes,
                 "forced alignment: expected a blank in 0..", classes - 1, ", got ", blank);
  const auto size = static_cast<int32_t>(graph.nodes.size());
  for (int32_t n = 0; n < size; ++n) {
    const LabelGraph::Node& node = graph.nodes[n];
    CENTROID_CHECK(node.label >= 0 && node.label < classes && node.label != blank,
                   "forced alignment: expected labels in 0..", classes - 1, " without the blank ",
                   blank, ", got ", node.label);
    CENTROID_CHECK(!node.previous.empty() && node.previous.size() < (1u << 30),
                   "forced alignment: node ", n, " of the graph has no predecessor");
    for (const int32_t p : node.previous) {
      CENTROID_CHECK(p >= -1 && p < n, "forced alignment: node ", n,
                     " of the graph: expected predecessors in -1..", n - 1, ", got ", p);
    }
  }
  CENTROID_CHECK(!graph.finals.empty(), "forced alignment: the graph has no final node");
  for (const int32_t f : graph.finals) {
    CENTROID_CHECK(f >= -1 && f < size, "forced alignment: expected final nodes in -1..", size - 1,
                   ", got ", f);
  }
}

/// Throws when even the shortest label sequence, with the blanks between equal neighbours, has more
/// frames than there are.
void check_length(const LabelGraph& graph, int64_t frames) {
  struct Need {
    int64_t frames = std::numeric_limits<int64_t>::max(), labels = 0;
  };
  std::vector<Need> needs(graph.nodes.size());
  for (size_t n = 0; n < needs.size(); ++n) {
    const LabelGraph::Node& node = graph.nodes[n];
    for (const int32_t p : node.previous) {
      Need need{1, 1};
      if (p >= 0) {
        need.frames += needs[p].frames + (graph.nodes[p].label == node.label);
        need.labels += needs[p].labels;
      }
      if (need.frames < needs[n].frames) needs[n] = need;
    }
  }
  Need least;
  for (const int32_t f : graph.finals) {
    const Need need = f < 0 ? Need{0, 0} : needs[f];
    if (need.frames < least.frames) least = need;
  }
  CENTROID_CHECK(least.frames <= frames, "forced alignment: ", least.labels,
                 " labels need at least ", least.frames, " frames, got ", frames,
                 " (is it the transcript of this sound?)");
}

/// The recursion over frames. Each node has a state for its label and one for the blank behind it;
/// the blank behind node -1 is the one before the first label.
class Viterbi {
 public:
  Viterbi(const float* logits, int64_t frames, int64_t classes, const LabelGraph& graph,
          int32_t blank)
      : logits_(logits),
        frames_(frames),
        classes_(classes),
        graph_(graph),
        blank_id_(blank),
        back_(widths(graph)) {}

  Alignment run() {
    const size_t nodes = graph_.nodes.size();
    blank_.assign(nodes + 1, kNever);
    label_.assign(nodes + 1, kNever);
    blank_[0] = 0;  // before the first frame everything stands in the first blank
    for (int64_t t = 0; t < frames_; ++t) step(t);
    double best = kNever;
    int32_t state = -1;
    for (const int32_t f : graph_.finals) {
      if (blank_[f + 1] > best) best = blank_[f + 1], state = 2 * (f + 1);
      if (label_[f + 1] > best) best = label_[f + 1], state = 2 * (f + 1) + 1;
    }
    CENTROID_CHECK(best > kNever, "forced alignment: every path of the transcript has probability ",
                   "0 (scores of -inf)");
    return trace(state, best);
  }

 private:
  // Columns: the blank behind node n - 1 (1 bit: 1 = from the label), then the nodes (0 = stays,
  // 1 + 2 i = from the blank of predecessor i, 2 + 2 i = from predecessor i itself).
  static std::vector<int> widths(const LabelGraph& graph) {
    std::vector<int> widths(graph.nodes.size() + 1, 1);
    for (const LabelGraph::Node& node : graph.nodes) {
      widths.push_back(std::bit_width(2 * node.previous.size()));
    }
    return widths;
  }

  double log_prob(int64_t t, int32_t label) const {
    return static_cast<double>(logits_[t * classes_ + label]) - normaliser_[t];
  }

  void step(int64_t t) {
    normaliser_.push_back(log_normaliser(logits_ + t * classes_, classes_, t));
    const size_t nodes = graph_.nodes.size();
    back_.add_row();
    next_blank_.assign(nodes + 1, kNever);
    next_label_.assign(nodes + 1, kNever);
    const double emit_blank = log_prob(t, blank_id_);
    for (size_t n = 0; n <= nodes; ++n) {
      const bool from_label = label_[n] > blank_[n];
      if (from_label) back_.set(n, 1);
      next_blank_[n] = (from_label ? label_[n] : blank_[n]) + emit_blank;
    }
    for (size_t n = 0; n < nodes; ++n) {
      const LabelGraph::Node& node = graph_.nodes[n];
      double best = label_[n + 1];
      uint64_t from = 0;
      for (size_t i = 0; i < node.previous.size(); ++i) {
        const int32_t p = node.previous[i];
        if (blank_[p + 1] > best) best = blank_[p + 1], from = 1 + 2 * i;
        const bool skip = p >= 0 && graph_.nodes[p].label != node.label;
        if (skip && label_[p + 1] > best) best = label_[p + 1], from = 2 + 2 * i;
      }
      back_.set(nodes + 1 + n, from);
      next_label_[n + 1] = best + log_prob(t, node.label);
    }
    std::swap(blank_, next_blank_);
    std::swap(label_, next_label_);
  }

  // `state`: 2 (n + 1) is the blank behind node n, 2 (n + 1) + 1 node n itself.
  Alignment trace(int32_t state, double log_prob_of_path) const {
    Alignment out;
    out.log_prob = log_prob_of_path;
    const size_t nodes = graph_.nodes.size();
    for (int64_t t = frames_ - 1; t >= 0; --t) {
      const int32_t n = state / 2 - 1;
      if (state % 2 == 0) {
        if (back_.get(t, n + 1) == 1) ++state;
        continue;
      }
      const LabelGraph::Node& node = graph_.nodes[n];
      const bool entered = out.labels.empty() || out.labels.back().node != n;
      if (entered) out.labels.push_back({node.label, n, t, t + 1, 0});
      AlignedLabel& label = out.labels.back();
      label.begin = t;
      label.log_prob += log_prob(t, node.label);
      const uint64_t from = back_.get(t, nodes + 1 + n);
      if (from == 0) continue;
      const int32_t p = node.previous[(from - 1) / 2];
      state = 2 * (p + 1) + (from % 2 == 0);
    }
    std::reverse(out.labels.begin(), out.labels.end());
    for (AlignedLabel& label : out.labels) {
      label.log_prob /= static_cast<double>(label.end - label.begin);
    }
    return out;
  }

  const float* logits_;
  int64_t frames_, classes_;
  const LabelGraph& graph_;
  int32_t blank_id_;
  PackedRows back_;
  std::vector<double> normaliser_;
  std::vector<double> blank_, label_, next_blank_, next_label_;  // [n + 1] belongs to node n
};

}  // namespace

int32_t LabelGraph::add_chain(const std::vector<int32_t>& labels,
                              const std::vector<int32_t>& from) {
  CENTROID_CHECK(!labels.empty(), "label graph: expected at least one label in a chain, got none");
  for (size_t i = 0; i < labels.size(); ++i) {
    const auto last = static_cast<int32_t>(nodes.size()) - 1;
    nodes.push_back({labels[i], i == 0 ? from : std::vector<int32_t>{last}});
  }
  return static_cast<int32_t>(nodes.size()) - 1;
}

LabelGraph linear_graph(const std::vector<int32_t>& labels) {
  LabelGraph graph;
  graph.finals = {labels.empty() ? -1 : graph.add_chain(labels, {-1})};
  return graph;
}

double AlignedLabel::confidence() const { return std::exp(log_prob); }

double log_normaliser(const float* row, int64_t classes, int64_t frame) {
  float most = -std::numeric_limits<float>::infinity();
  for (int64_t v = 0; v < classes; ++v) {
    CENTROID_CHECK(!std::isnan(row[v]) && row[v] != INFINITY, "scores: class ", v, " at frame ",
                   frame, ": expected a number, got ", row[v]);
    most = std::max(most, row[v]);
  }
  CENTROID_CHECK(std::isfinite(most), "scores: frame ", frame, ": every class is -inf");
  double sum = 0;
  for (int64_t v = 0; v < classes; ++v) sum += std::exp(static_cast<double>(row[v]) - most);
  return most + std::log(sum);
}

Alignment forced_align(const float* logits, int64_t frames, int64_t classes,
                       const LabelGraph& graph, int32_t blank) {
  check_graph(graph, classes, blank);
  check_length(graph, frames);
  return Viterbi(logits, frames, classes, graph, blank).run();
}

std::vector<TimedWord> place_segments(const std::vector<AlignedLabel>& labels,
                                      const SegmentOptions& o) {
  CENTROID_CHECK(o.frame_seconds > 0 && o.reach >= 0 && o.end >= 0,
                 "segments: expected a frame above 0 s and reach and end of at least 0 s, got ",
                 o.frame_seconds, ", ", o.reach, " and ", o.end);
  // The time of the edge between the frames t - 1 and t; t may be a half.
  const auto edge = [&](double t) {
    const double time = o.first_centre + o.shift + (t - 0.5) * o.frame_seconds;
    return std::clamp(time, 0.0, o.end);
  };
  const double reach = o.reach / o.frame_seconds;
  std::vector<TimedWord> out;
  for (size_t i = 0; i < labels.size(); ++i) {
    const AlignedLabel& label = labels[i];
    double begin = static_cast<double>(label.begin) - reach;
    if (i > 0) {
      const auto before = static_cast<double>(labels[i - 1].end);
      const double middle = 0.5 * (before + static_cast<double>(label.begin));
      out.back().end = edge(std::min(middle, before + reach));
      begin = std::max(begin, middle);
    }
    TimedWord segment;
    segment.begin = edge(begin);
    segment.end = edge(static_cast<double>(label.end) + reach);
    segment.confidence = label.confidence();
    out.push_back(std::move(segment));
  }
  return out;
}

}  // namespace centroid::audio
