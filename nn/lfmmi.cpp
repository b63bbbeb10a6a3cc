#include "nn/lfmmi.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "nn/layers.h"

namespace centroid::nn {

using nlohmann::json;

LfmmiGraph::LfmmiGraph(Ngram ngram, Topology topology, double silence)
    : ngram_(std::move(ngram)),
      topology_(topology),
      silence_(silence),
      denominator_(frame_graph(label_acceptor(ngram_), topology, silence)) {
  denominator_.fsa.leak = mean_occupancy(denominator_.fsa);
  host_ = pack({&denominator_.fsa}, outputs(), Device{});
}

const FsaBatch& LfmmiGraph::packed_denominator(Device device) const {
  if (device.kind == DeviceKind::cpu) return host_;
  if (packed_.count == 0 || !(packed_.initial.device() == device)) {
    packed_ = pack({&denominator_.fsa}, outputs(), device);
  }
  return packed_;
}

FrameGraph LfmmiGraph::numerator(const Transcript& transcript) const {
  return frame_graph(label_acceptor(transcript, ngram_), topology_, silence_);
}

int64_t LfmmiGraph::min_frames(const std::vector<int32_t>& labels) const {
  return nn::min_frames(numerator(transcript(labels)).fsa);
}

std::vector<LabelSpan> LfmmiGraph::decode(const float* logits, int64_t frames, double scale) const {
  return best_path(denominator_, logits, frames, outputs(), scale).labels;
}

Recognised LfmmiGraph::recognise(const float* logits, int64_t frames) const {
  const BestPath path = best_path(denominator_, logits, frames, outputs());
  Recognised result{path.labels, std::vector<double>(path.labels.size()), 0};
  if (frames == 0) return result;
  const Tensor x = from_vector(std::vector<float>(logits, logits + frames * outputs()),
                               {1, frames, outputs()}, Device{});
  const raw::PathSums all = raw::forward_backward(x, {}, host_, 0, /*with_posteriors=*/true);
  const double log_z = all.log_z.item<double>();
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  result.log_prob = log_z == kNever ? kNever : path.weight - log_z;
  if (log_z == kNever) return result;
  const float* posterior = all.posteriors.data<float>();
  for (size_t i = 0; i < path.labels.size(); ++i) {
    const LabelSpan& span = path.labels[i];
    double sum = 0;
    for (int64_t t = span.begin; t < span.end; ++t) {
      const float* row = posterior + t * outputs();
      sum += topology_ == Topology::two_state ? row[2 * span.label - 1] + row[2 * span.label]
                                              : row[span.label];
    }
    result.confidence[i] = std::min(1.0, sum / static_cast<double>(span.end - span.begin));
  }
  return result;
}

void to_json(json& j, const LfmmiGraph& graph) {
  j = json{
      {"topology", name_of(graph.topology_)}, {"silence", graph.silence_}, {"ngram", graph.ngram_}};
}

std::unique_ptr<LfmmiGraph> LfmmiGraph::from(const json& j) {
  try {
    return std::make_unique<LfmmiGraph>(Ngram::from(j.at("ngram")),
                                        topology_from(j.at("topology").get<std::string>()),
                                        j.at("silence").get<double>());
  } catch (const json::exception& e) {
    throw Error(concat("lfmmi: damaged description of a graph: ", e.what()));
  }
}

namespace {

// The labels of the first alternatives.
int64_t length_of(const Transcript& transcript) {
  int64_t labels = 0;
  for (const auto& ways : transcript) {
    if (!ways.empty()) labels += static_cast<int64_t>(ways[0].labels.size());
  }
  return labels;
}

// Throws for the first item without a path in its frames, or returns which have one.
std::vector<uint8_t> feasible_items(const std::vector<FrameGraph>& numerators,
                                    const std::vector<int64_t>& frames, bool zero_infeasible) {
  std::vector<uint8_t> fits;
  for (size_t b = 0; b < numerators.size(); ++b) {
    const int64_t needed = min_frames(numerators[b].fsa);
    const bool stuck = numerators[b].fsa.arcs.empty() && frames[b] > 0;
    fits.push_back(needed >= 0 && needed <= frames[b] && !stuck);
    CENTROID_CHECK(needed >= 0 || zero_infeasible, "lfmmi: item ", b,
                   ": the n-gram gives its transcript no probability (smooth it, count this "
                   "transcript too, leave the item out or set zero_infeasible)");
    CENTROID_CHECK(!stuck || zero_infeasible, "lfmmi: item ", b,
                   ": its transcript is empty, and without silence nothing can fill its ",
                   frames[b], " frames");
    CENTROID_CHECK(fits[b] || zero_infeasible, "lfmmi: item ", b,
                   ": its transcript needs at least ", needed, " frames, got ", frames[b],
                   " (subsample less, leave the item out or set zero_infeasible)");
  }
  return fits;
}

// What is added per item: l2 / 2 the sum of squares, and the ctc_weight's sum of log sum e^x.
Tensor frame_terms(const Tensor& logits, const Lengths& lengths, const LfmmiOptions& options) {
  const Tensor valid = mask_padding(logits, lengths);
  Tensor terms;
  if (options.l2 > 0) terms = sum(square(valid), {1, 2}) * (options.l2 / 2);
  if (options.ctc_weight > 0) {
    const Tensor sums = mask_padding(logsumexp(valid, {2}), lengths);
    const Tensor weighted = sum(sums, {1}) * options.ctc_weight;
    terms = terms.defined() ? terms + weighted : weighted;
  }
  return terms.defined() ? cast(terms, DType::f64) : terms;
}

}  // namespace

// With the logarithms N and D of numerator and denominator, the loss is D - N + w (S - N): S =
// sum_t log sum_k e^(x_tk) turns N into the logarithm of the sum over softmax-normalised paths. D
// and S differ from N by little where the loss is small, so that they are kept in f64.
Tensor lfmmi(const Tensor& logits, const Lengths& lengths,
             const std::vector<Transcript>& transcripts, const LfmmiGraph& graph,
             const LfmmiOptions& options) {
  CENTROID_CHECK(logits.dim() == 3 && logits.size(0) >= 1 && logits.size(2) == graph.outputs(),
                 "lfmmi: expected logits (B, T, ", graph.outputs(), ") with B at least 1, got ",
                 logits.shape());
  const int64_t batch = logits.size(0);
  CENTROID_CHECK(static_cast<int64_t>(transcripts.size()) == batch, "lfmmi: ", transcripts.size(),
                 " transcripts for a batch of ", batch);
  CENTROID_CHECK(options.leaky >= 0 && options.l2 >= 0 && options.ctc_weight >= 0,
                 "lfmmi: expected options that are not negative, got leaky ", options.leaky,
                 ", l2 ", options.l2, ", ctc_weight ", options.ctc_weight);
  lengths.check(batch, logits.size(1), "lfmmi");
  const std::vector<int64_t> frames =
      lengths.empty() ? std::vector<int64_t>(batch, logits.size(1)) : lengths.values();

  std::vector<FrameGraph> numerators;
  std::vector<const Fsa*> acceptors;
  for (const Transcript& t : transcripts) numerators.push_back(graph.numerator(t));
  for (const FrameGraph& n : numerators) acceptors.push_back(&n.fsa);
  const std::vector<uint8_t> fits = feasible_items(numerators, frames, options.zero_infeasible);

  const Device device = logits.device();
  // An item without a path has -inf, for which 0 is put; below it has the weight 0.
  const bool all_fit = std::count(fits.begin(), fits.end(), 0) == 0;
  const auto partition = [&](const FsaBatch& fsa, double leaky) {
    const Tensor log_z = log_partition(logits, lengths, fsa, leaky);
    if (all_fit) return log_z;
    const Tensor zero = zeros({batch}, DType::f64, device);
    return where(from_vector(fits, {batch}, device), log_z, zero);
  };
  const Tensor numerator = partition(pack(acceptors, graph.outputs(), device), 0);
  const Tensor denominator = partition(graph.packed_denominator(device), options.leaky);
  Tensor losses = denominator - numerator * (1 + options.ctc_weight);
  const Tensor terms = frame_terms(logits, lengths, options);
  if (terms.defined()) losses = losses + terms;

  std::vector<double> weights;
  for (int64_t b = 0; b < batch; ++b) {
    const double labels = static_cast<double>(std::max<int64_t>(length_of(transcripts[b]), 1));
    const bool mean = options.reduction == Reduction::mean;
    weights.push_back(fits[b] ? mean ? 1 / (labels * static_cast<double>(batch)) : 1 : 0);
  }
  return cast(sum(losses * from_vector(weights, {batch}, device)), logits.dtype());
}

Tensor lfmmi(const Tensor& logits, const Lengths& lengths,
             const std::vector<std::vector<int32_t>>& labels, const LfmmiGraph& graph,
             const LfmmiOptions& options) {
  std::vector<Transcript> transcripts;
  for (const auto& l : labels) transcripts.push_back(transcript(l));
  return lfmmi(logits, lengths, transcripts, graph, options);
}

}  // namespace centroid::nn
