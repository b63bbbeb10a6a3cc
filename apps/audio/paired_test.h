#pragma once
// Whether two systems differ by more than chance on the same utterances (L. Gillick and S. J. Cox,
// "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989).
#include <cstdint>
#include <vector>

#include "apps/audio/score.h"

namespace centroid::audio {

/// Matched pairs of sentence segments (MAPSSWE, the test of NIST's benchmarks).
struct SegmentTest {
  int64_t segments = 0;  ///< stretches in which at least one system errs
  int64_t a_errors = 0, b_errors = 0;
  double mean = 0, deviation = 0;  ///< of errors(a) - errors(b) in a segment
  double z = 0;                    ///< mean / (deviation / sqrt(segments)); above 0: b is better
  double p = 1;                    ///< two-sided, by the normal distribution
};

/// `a` and `b` are the alignments of two systems, one a sentence, with the same references. A
/// segment ends where both systems have two or more symbols in a row right, or with the sentence:
/// errors on both sides of such an island are taken as independent. With fewer than two segments p
/// is 1; where all of them show the same difference, z is infinite. The normal approximation asks
/// for about 50 segments or more. Counts, deviation and z are those of sctk's sc_stats. Throws
/// where the references differ in length.
SegmentTest segment_test(const std::vector<std::vector<AlignedPair>>& a,
                         const std::vector<std::vector<AlignedPair>>& b);

/// McNemar's test on sentences: those that only one of two systems has wholly right.
struct SentenceTest {
  int64_t a_only = 0, b_only = 0;  ///< sentences right in a alone, in b alone
  double p = 1;                    ///< two-sided, by the binomial distribution (exact)
};
/// The same arguments as of segment_test.
SentenceTest sentence_test(const std::vector<std::vector<AlignedPair>>& a,
                           const std::vector<std::vector<AlignedPair>>& b);

}  // namespace centroid::audio
