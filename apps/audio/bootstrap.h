#pragma once
// How sure an error rate is, and the difference of two: resampling (M. Bisani and H. Ney,
// "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004).
#include <cstdint>
#include <vector>

namespace centroid::audio {

/// Errors and reference symbols of what is drawn as a whole: an utterance, or all utterances of a
/// speaker.
struct ErrorCount {
  int64_t errors = 0, tokens = 0;
};

struct BootstrapOptions {
  int64_t draws = 10000;
  double confidence = 0.95;  ///< share of the draws inside the interval
  uint64_t seed = 1;
};

/// Where an error rate (or a difference of two) may lie: percentiles of its values in the draws,
/// and their standard deviation.
struct Interval {
  double low = 0, high = 0;
  double standard_error = 0;
};

/// The interval of the rate sum(errors) / sum(tokens): every draw takes as many items as there are,
/// each with equal probability and with repetition. Draws without any reference symbol are drawn
/// again. A function of items, options and seed only: the same on any number of threads.
/// Throws for fewer than two items, items without a single reference symbol, draws < 1, a
/// confidence outside (0, 1), and negative counts.
Interval bootstrap_rate(const std::vector<ErrorCount>& items, const BootstrapOptions& options);

/// Two systems on the same items.
struct Improvement {
  Interval difference;     ///< of rate(b) - rate(a); below 0 where b is better
  double probability = 0;  ///< share of the draws in which b has fewer errors; ties count half
};

/// Both systems are counted on the same drawn items, so that what makes an item hard for both
/// cancels out. Throws as bootstrap_rate, and where the items' tokens differ.
Improvement bootstrap_improvement(const std::vector<ErrorCount>& a,
                                  const std::vector<ErrorCount>& b,
                                  const BootstrapOptions& options);

}  // namespace centroid::audio
