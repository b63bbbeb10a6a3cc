#pragma once
// Time-marked transcripts as NIST's CTM files, and label files of Festival and xwaves.
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/timed_words.h"

namespace centroid::audio {

/// A word of a recording: a line `RECORDING CHANNEL BEGIN DURATION WORD [CONFIDENCE]`.
struct CtmEntry {
  std::string recording;
  std::string channel = "1";
  double begin = 0, duration = 0;  ///< seconds
  std::string word;
  double confidence = std::numeric_limits<double>::quiet_NaN();  ///< NaN: not given
};

/// Reads CTM; lines that begin with `;;` are comments. Throws naming file and line for missing or
/// surplus fields, numbers that are none, negative times, and alternatives (`*` for a time), which
/// are not supported. `parse_ctm` takes the bytes; `name` stands for the file in messages.
std::vector<CtmEntry> read_ctm(const std::string& path);
std::vector<CtmEntry> parse_ctm(std::string_view bytes, const std::string& name);

/// The entries as CTM, in the given order, every number as short as reading it back exactly allows.
/// Throws for what CTM cannot hold: empty fields, white space in them, a recording that begins with
/// `;;`, times that are negative or not finite.
std::string format_ctm(const std::vector<CtmEntry>& entries);

/// The words of one recording as entries, times in whole milliseconds.
std::vector<CtmEntry> ctm_entries(const std::string& recording,
                                  const std::vector<TimedWord>& words);

/// Reads a label file of Festival and xwaves: a header that ends with a line `#`, then lines
/// `END_SECONDS COLOUR LABEL`; a segment begins where the one before it ends, the first at 0.
/// Throws naming file and line when there is no `#`, for malformed lines, and for times that go
/// back.
std::vector<TimedWord> read_lab(const std::string& path);
std::vector<TimedWord> parse_lab(std::string_view bytes, const std::string& name);

/// Segments as a label file, with the colour 125. Stretches between them get the label `pause`.
/// Throws for segments that overlap, empty labels and labels with white space.
std::string format_lab(const std::vector<TimedWord>& segments, const std::string& pause = "pau");

/// The number as text, as short as reading it back exactly allows.
std::string number_text(double value);

/// Seconds rounded to whole milliseconds, which `number_text` writes with three decimals at most.
double round_to_ms(double seconds);

}  // namespace centroid::audio
