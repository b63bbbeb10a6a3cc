#pragma once
// bench attention: what its three files share. bench_attention.cpp has the command and the timing,
// bench_attention_check.cpp the checks that come first, bench_attention_report.cpp what is written.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "nn/attention.h"

namespace centroid::apps {

/// A variant of attention to be timed.
struct BenchVariant {
  std::string name;    ///< as asked for: `clustered`, `clustered:clusters=50`
  std::string spec;    ///< with the benchmark's options filled in
  bool plain = false;  ///< asked for without options of its own
};

/// What all cases have in common.
struct AttentionSizes {
  int64_t heads = 6, size = 64;  ///< H, and E = D
  int64_t tokens = 8192;         ///< batch x length; longer inputs have batch 1
  bool causal = false;
};

/// Inputs as projections leave them: leaves (B, L, H, E), seen as (B, H, L, E) by the attention.
struct AttentionProblem {
  Tensor q, k, v, dout;  ///< (B, L, H, E), leaves, and the cotangent of the output
  Lengths lengths;       ///< empty = full
  bool causal = false;
};

/// Standard normal inputs, drawn from `seed`.
AttentionProblem make_attention_problem(const AttentionSizes& sizes, int64_t batch, int64_t length,
                                        DType dtype, uint64_t seed);

/// The attention's output as the next projection reads it, (B, L, H, D).
Tensor attend(nn::Attention& attention, const AttentionProblem& problem, bool training,
              nn::Choices* record = nullptr, const nn::Choices* replay = nullptr);

/// The gradients of q, k and v, (B, L, H, E) each, for the problem's cotangent of `out`; they are
/// taken out of the leaves.
std::vector<Tensor> take_gradients(const AttentionProblem& problem, const Tensor& out);

/// The largest errors found by the checks, as shares of the largest magnitude of what was expected.
struct AttentionCheck {
  std::string name;
  double output = 0, gradient = 0;  ///< f32 against f64 under the same choices
  std::optional<double> exact;      ///< f64 against plain softmax attention, where it must agree
};

/// Compares a variant's f32 output and gradients with its own f64 run under replayed choices, and,
/// in the options under which it promises full attention, its f64 run with softmax attention
/// composed of plain operations. Throws, naming the variant, when an error is too large.
AttentionCheck check_attention(const BenchVariant& variant, const AttentionSizes& sizes,
                               uint64_t seed);

/// One direction of one case.
struct AttentionTiming {
  std::vector<double> seconds;  ///< of each round, interleaved with those of the other variants
  double extra_memory = 0;      ///< peak beyond inputs and results, as a multiple of their size
};

/// One variant at one length.
struct AttentionResult {
  std::string name;
  int64_t length = 0, batch = 0;
  AttentionTiming forward{}, both{};  ///< both: forward and backward
};

/// Everything the command has found out.
struct AttentionReport {
  AttentionSizes sizes;
  int rounds = 0, threads = 0;
  double peak_flops = 0;
  std::string kernels;  ///< of OpenBLAS, and the width of our own
  std::vector<BenchVariant> variants;
  std::vector<AttentionCheck> checks;
  std::vector<AttentionResult> results;  ///< by length, then in the order of the variants
  std::vector<std::string> notes;        ///< what was left out, and why

  /// The result of one case; null where it was not timed.
  const AttentionResult* find(const std::string& name, int64_t length) const;
  std::vector<int64_t> lengths() const;
};

/// How many times as fast as `full` at the same length: the median over rounds; none without full.
std::optional<double> speedup(const AttentionReport& report, const AttentionResult& result,
                              AttentionTiming AttentionResult::*direction);

/// The shortest timed length from which on a variant beats `full` at every length where both were
/// timed; none if there is no such length.
std::optional<int64_t> crossover(const AttentionReport& report, const std::string& name,
                                 AttentionTiming AttentionResult::*direction);

/// The tables as text for a terminal, or as Markdown.
std::string report_text(const AttentionReport& report, bool markdown);
nlohmann::ordered_json report_json(const AttentionReport& report);
/// Makes the folder if needed; throws when it cannot.
void make_report_folder(const std::string& folder);
/// Writes attention.md, attention.json and, where pictures can be written, attention.png (time per
/// token over length) into an existing folder.
void write_report(const AttentionReport& report, const std::string& folder);

}  // namespace centroid::apps
