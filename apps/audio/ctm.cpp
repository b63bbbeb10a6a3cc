#include "apps/audio/ctm.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "apps/audio/files.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

/// A word that white space separates from its neighbours.
void check_field(const char* what, const std::string& text) {
  CENTROID_CHECK(split_words(text).size() == 1 && trim(text) == text, what,
                 ": expected text without white space, got '", text, "'");
  CENTROID_CHECK(text.find('\0') == text.npos, what, ": expected text, got a NUL byte");
}

/// What a recording's name may begin with, so that its line is not read as something else.
void check_recording(const std::string& name) {
  CENTROID_CHECK(!name.starts_with(";;") && !name.starts_with("\xEF\xBB\xBF"), "recording: '", name,
                 "' would be read as something else");
}

void check_seconds(const char* what, double value) {
  CENTROID_CHECK(std::isfinite(value) && value >= 0, what, ": expected seconds of at least 0, got ",
                 value);
}

CtmEntry parse_entry(const std::vector<std::string>& fields) {
  CENTROID_CHECK(fields.size() == 5 || fields.size() == 6,
                 "expected RECORDING CHANNEL BEGIN DURATION WORD [CONFIDENCE], got ", fields.size(),
                 " fields");
  CENTROID_CHECK(fields[2] != "*" && fields[3] != "*", "alternatives (", fields[4],
                 ") are not supported (write one transcript)");
  CtmEntry entry;
  entry.recording = fields[0];
  check_recording(entry.recording);
  entry.channel = fields[1];
  entry.word = fields[4];
  const auto number = [](const char* what, const std::string& text, double* value) {
    CENTROID_CHECK(parse_number(text, value), what, ": expected a number, got ", text);
  };
  number("begin", fields[2], &entry.begin);
  number("duration", fields[3], &entry.duration);
  check_seconds("begin", entry.begin);
  check_seconds("duration", entry.duration);
  if (fields.size() == 6 && fields[5] != "NA") number("confidence", fields[5], &entry.confidence);
  return entry;
}

struct LabLine {
  double end = 0;
  std::string label;
};

LabLine parse_lab_line(const std::string& text, double previous) {
  const std::vector<std::string> parts = split_words(text);
  LabLine line;
  CENTROID_CHECK(parts.size() >= 3 && parse_number(parts[0], &line.end),
                 "expected END_SECONDS COLOUR PHONE, got ", text);
  CENTROID_CHECK(line.end >= previous, "the labels go back in time, from ", previous, " s to ",
                 line.end, " s");
  line.label = parts[2];
  return line;
}

}  // namespace

std::string number_text(double value) {
  char buffer[32];
  // Fixed notation for what times and probabilities are; the shortest of all beyond it.
  const bool usual = value == 0 || (std::abs(value) >= 1e-7 && std::abs(value) < 1e15);
  const auto result =
      usual ? std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed)
            : std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

double round_to_ms(double seconds) { return std::round(seconds * 1000) / 1000; }

std::vector<CtmEntry> read_ctm(const std::string& path) { return parse_ctm(read_text(path), path); }

std::vector<CtmEntry> parse_ctm(std::string_view bytes, const std::string& name) {
  std::vector<CtmEntry> entries;
  size_t number = 0;
  for (const std::string& line : lines_of(bytes, name)) {
    ++number;
    const std::vector<std::string> fields = split_words(line);
    if (fields.empty() || fields[0].starts_with(";;")) continue;
    try {
      entries.push_back(parse_entry(fields));
    } catch (const Error& error) {
      throw Error(concat(name, ":", number, ": ", error.what()));
    }
  }
  return entries;
}

std::string format_ctm(const std::vector<CtmEntry>& entries) {
  std::string out;
  for (const CtmEntry& e : entries) {
    check_field("ctm: recording", e.recording);
    check_field("ctm: channel", e.channel);
    check_field("ctm: word", e.word);
    check_recording(e.recording);
    check_seconds("ctm: begin", e.begin);
    check_seconds("ctm: duration", e.duration);
    out +=
        join({e.recording, e.channel, number_text(e.begin), number_text(e.duration), e.word}, " ");
    if (!std::isnan(e.confidence)) out.append(" ").append(number_text(e.confidence));
    out += "\n";
  }
  return out;
}

std::vector<CtmEntry> ctm_entries(const std::string& recording,
                                  const std::vector<TimedWord>& words) {
  std::vector<CtmEntry> entries;
  for (const TimedWord& w : words) {
    const double begin = round_to_ms(w.begin);
    entries.push_back({recording, "1", begin, round_to_ms(round_to_ms(w.end) - begin), w.text,
                       std::round(w.confidence * 10000) / 10000});
  }
  return entries;
}

std::vector<TimedWord> read_lab(const std::string& path) {
  return parse_lab(read_text(path), path);
}

std::vector<TimedWord> parse_lab(std::string_view bytes, const std::string& name) {
  const std::vector<std::string> lines = lines_of(bytes, name);
  const auto header = std::find_if(lines.begin(), lines.end(),
                                   [](const std::string& line) { return trim(line) == "#"; });
  CENTROID_CHECK(header != lines.end(), name, ": expected a header that ends with a line #");
  std::vector<TimedWord> segments;
  double previous = 0;
  for (auto line = header + 1; line != lines.end(); ++line) {
    if (trim(*line).empty()) continue;
    try {
      const LabLine parsed = parse_lab_line(trim(*line), previous);
      TimedWord segment;
      segment.text = parsed.label;
      segment.begin = previous;
      segment.end = previous = parsed.end;
      segments.push_back(std::move(segment));
    } catch (const Error& error) {
      throw Error(concat(name, ":", line - lines.begin() + 1, ": ", error.what()));
    }
  }
  return segments;
}

std::string format_lab(const std::vector<TimedWord>& segments, const std::string& pause) {
  std::string out = "#\n";
  double at = 0;
  const auto add = [&](double end, const std::string& label) {
    check_field("lab: label", label);
    check_seconds("lab: end", end);
    out += number_text(end) + " 125 " + label + "\n";
    at = end;
  };
  for (const TimedWord& s : segments) {
    CENTROID_CHECK(s.begin >= at && s.end >= s.begin, "lab: ", s.text,
                   ": expected a segment after ", at, " s that ends after it begins, got ", s.begin,
                   " to ", s.end, " s");
    if (s.begin > at) add(s.begin, pause);
    add(s.end, s.text);
  }
  return out;
}

}  // namespace centroid::audio
