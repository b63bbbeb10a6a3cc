#include "apps/audio/paired_test.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tensor/error.h"

namespace centroid::audio {

namespace {

using Alignment = std::vector<AlignedPair>;

constexpr int64_t kIsland = 2;  // symbols that both have right between two segments

/// Errors of one system by reference symbol: at(0) insertions before the first symbol, at(2 i + 1)
/// the symbol i, at(2 i + 2) insertions after it.
std::vector<int64_t> errors_by_symbol(const Alignment& alignment) {
  std::vector<int64_t> errors{0};
  for (const AlignedPair& pair : alignment) {
    if (pair.edit == Edit::insertion) {
      ++errors.back();
    } else {
      errors.push_back(pair.edit != Edit::match);
      errors.push_back(0);
    }
  }
  return errors;
}

struct Segment {
  int64_t a = 0, b = 0;
};

void add_segments(const Alignment& a, const Alignment& b, std::vector<Segment>& segments) {
  const std::vector<int64_t> in_a = errors_by_symbol(a), in_b = errors_by_symbol(b);
  CENTROID_CHECK(in_a.size() == in_b.size(), "paired test: sentence: expected one reference, got ",
                 in_a.size() / 2, " and ", in_b.size() / 2, " symbols");
  bool open = false;
  int64_t right = 0;  // symbols in a row
  for (size_t i = 0; i < in_a.size(); ++i) {
    if (in_a[i] + in_b[i] == 0) {
      right += i % 2;  // a place without insertions neither ends the row nor adds to it
      open = open && right < kIsland;
      continue;
    }
    right = 0;
    if (!open) segments.push_back({});
    open = true;
    segments.back().a += in_a[i];
    segments.back().b += in_b[i];
  }
}

void check_sizes(size_t a, size_t b) {
  CENTROID_CHECK(a == b, "paired test: expected the same sentences, got ", a, " and ", b);
}

bool all_right(const Alignment& alignment) {
  return std::all_of(alignment.begin(), alignment.end(),
                     [](const AlignedPair& pair) { return pair.edit == Edit::match; });
}

}  // namespace

SegmentTest segment_test(const std::vector<Alignment>& a, const std::vector<Alignment>& b) {
  check_sizes(a.size(), b.size());
  std::vector<Segment> segments;
  for (size_t i = 0; i < a.size(); ++i) add_segments(a[i], b[i], segments);
  SegmentTest test;
  test.segments = static_cast<int64_t>(segments.size());
  for (const Segment& s : segments) test.a_errors += s.a, test.b_errors += s.b;
  if (segments.empty()) return test;
  const auto n = static_cast<double>(segments.size());
  test.mean = static_cast<double>(test.a_errors - test.b_errors) / n;
  if (segments.size() < 2) return test;
  double squares = 0;
  for (const Segment& s : segments) {
    squares += std::pow(static_cast<double>(s.a - s.b) - test.mean, 2);
  }
  test.deviation = std::sqrt(squares / (n - 1));
  if (test.mean == 0) return test;
  test.z = test.deviation > 0 ? test.mean / (test.deviation / std::sqrt(n))
                              : std::copysign(std::numeric_limits<double>::infinity(), test.mean);
  test.p = std::erfc(std::fabs(test.z) / std::sqrt(2.0));
  return test;
}

SentenceTest sentence_test(const std::vector<Alignment>& a, const std::vector<Alignment>& b) {
  check_sizes(a.size(), b.size());
  SentenceTest test;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool in_a = all_right(a[i]), in_b = all_right(b[i]);
    test.a_only += in_a && !in_b;
    test.b_only += in_b && !in_a;
  }
  // Twice the probability that a fair coin thrown n times shows at most the smaller count.
  const int64_t n = test.a_only + test.b_only, least = std::min(test.a_only, test.b_only);
  double tail = 0;
  for (int64_t k = 0; k <= least; ++k) {
    tail += std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) - std::lgamma(n - k + 1.0) -
                     static_cast<double>(n) * std::log(2.0));
  }
  test.p = std::min(1.0, 2 * tail);
  return test;
}

}  // namespace centroid::audio
