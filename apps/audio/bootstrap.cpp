#include "apps/audio/bootstrap.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"
#include "tensor/parallel.h"
#include "tensor/philox.h"
#include "tensor/rng.h"

namespace centroid::audio {

namespace {

constexpr int kTries = 1000;  // of one draw, until it has a reference symbol

void check(const std::vector<ErrorCount>& items, const BootstrapOptions& options) {
  CENTROID_CHECK(items.size() >= 2, "bootstrap: expected at least two items to draw from, got ",
                 items.size());
  CENTROID_CHECK(items.size() < size_t{1} << 31, "bootstrap: expected fewer items, got ",
                 items.size());
  CENTROID_CHECK(options.draws >= 1, "bootstrap: expected at least one draw, got ", options.draws);
  CENTROID_CHECK(options.confidence > 0 && options.confidence < 1,
                 "bootstrap: confidence: expected a number between 0 and 1, got ",
                 options.confidence);
  int64_t tokens = 0;
  for (const ErrorCount& item : items) {
    CENTROID_CHECK(item.errors >= 0 && item.tokens >= 0, "bootstrap: expected counts from 0 up");
    tokens += item.tokens;
  }
  CENTROID_CHECK(tokens > 0, "bootstrap: expected reference symbols, got none");
}

/// Calls use(i) for every item of a draw. Four items come from one Philox block; scaling 32 bits to
/// [0, n) makes no item likelier than another by more than n / 2^32.
template <typename Use>
void draw_items(uint64_t key, uint64_t draw, uint64_t attempt, size_t n, const Use& use) {
  for (size_t i = 0; i < n; i += 4) {
    const PhiloxBlock block = philox(key, draw, attempt << 32 | (i / 4));
    for (size_t k = 0; k < 4 && i + k < n; ++k) use(uint64_t{block.word[k]} * n >> 32);
  }
}

/// statistic(draw's items) for every draw.
template <typename Statistic>
std::vector<double> replicate(const BootstrapOptions& options, const Statistic& statistic) {
  const uint64_t key = Rng(options.seed, "bootstrap").state().key;
  std::vector<double> values(options.draws);
  parallel_for(0, options.draws, 64, [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) values[d] = statistic(key, static_cast<uint64_t>(d));
  });
  return values;
}

/// The value below which the share `p` of the sorted values lies, interpolated.
double quantile(const std::vector<double>& sorted, double p) {
  const double at = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Interval interval_of(std::vector<double> values, double confidence) {
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  return {quantile(values, (1 - confidence) / 2), quantile(values, (1 + confidence) / 2),
          std::sqrt(squares / n)};
}

/// Errors and tokens of one draw; drawn again while it has no token.
struct Totals {
  int64_t a = 0, b = 0, tokens = 0;
};
Totals draw_totals(const std::vector<ErrorCount>& a, const std::vector<ErrorCount>& b, uint64_t key,
                   uint64_t draw) {
  for (uint64_t attempt = 0; attempt < kTries; ++attempt) {
    Totals totals;
    draw_items(key, draw, attempt, a.size(), [&](size_t i) {
      totals.a += a[i].errors;
      totals.b += b[i].errors;
      totals.tokens += a[i].tokens;
    });
    if (totals.tokens > 0) return totals;
  }
  throw Error("bootstrap: expected more items with reference symbols: too many draws have none");
}

}  // namespace

Interval bootstrap_rate(const std::vector<ErrorCount>& items, const BootstrapOptions& options) {
  check(items, options);
  return interval_of(replicate(options,
                               [&](uint64_t key, uint64_t draw) {
                                 const Totals t = draw_totals(items, items, key, draw);
                                 return static_cast<double>(t.a) / static_cast<double>(t.tokens);
                               }),
                     options.confidence);
}

Improvement bootstrap_improvement(const std::vector<ErrorCount>& a,
                                  const std::vector<ErrorCount>& b,
                                  const BootstrapOptions& options) {
  check(a, options);
  check(b, options);
  CENTROID_CHECK(a.size() == b.size(), "bootstrap: expected the same items, got ", a.size(),
                 " and ", b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    CENTROID_CHECK(a[i].tokens == b[i].tokens, "bootstrap: item ", i,
                   ": expected the same reference, got ", a[i].tokens, " and ", b[i].tokens,
                   " symbols");
  }
  std::vector<double> differences = replicate(options, [&](uint64_t key, uint64_t draw) {
    const Totals t = draw_totals(a, b, key, draw);
    return static_cast<double>(t.b - t.a) / static_cast<double>(t.tokens);
  });
  double better = 0;
  for (const double d : differences) better += d < 0 ? 1 : d == 0 ? 0.5 : 0;
  const double draws = static_cast<double>(differences.size());
  return {interval_of(std::move(differences), options.confidence), better / draws};
}

}  // namespace centroid::audio
