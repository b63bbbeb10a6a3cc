#pragma once
// Words and other symbols with their places in a recording: what decoders and aligners give and
// what CTM, TextGrid, SRT and JSON files hold.
#include <limits>
#include <string>
#include <vector>

namespace centroid::audio {

/// A symbol of a transcript (a word, phone or character) and when it was heard.
struct TimedWord {
  std::string text;
  double begin = 0, end = 0;  ///< seconds from the beginning of the recording
  /// Probability that it is right, 0..1; NaN: unknown.
  double confidence = std::numeric_limits<double>::quiet_NaN();
};

}  // namespace centroid::audio
