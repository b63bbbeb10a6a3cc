// The readers of corpora: any bytes give utterances that a manifest can hold, or problems.
#include <cmath>
#include <cstdint>
#include <sstream>
#include <string>

#include "apps/audio/columns.h"
#include "apps/audio/prepare.h"

namespace {

using namespace centroid;
using namespace centroid::audio;

LineReader lines_of(const std::string& bytes) {
  return LineReader(std::make_unique<std::istringstream>(bytes), "input");
}

/// Traps unless each utterance survives its manifest.
class Checked : public Sink {
 public:
  void accept(Utterance u, const std::string&) override {
    if (u.id.empty() || u.audio.empty() || !std::isfinite(u.offset) || u.offset < 0 ||
        !std::isfinite(u.duration) || u.duration < 0) {
      __builtin_trap();
    }
    const Utterance v = parse_utterance(manifest_line(u, "/"), "/");
    if (v.id != u.id || v.text != u.text || v.offset != u.offset || v.duration != u.duration ||
        v.speaker != u.speaker) {
      __builtin_trap();
    }
  }
  void reject(Problem problem) override {
    if (problem.what.empty()) __builtin_trap();
  }
};

void common_voice(const std::string& bytes, Sink& sink) {
  parse_common_voice("folder", lines_of(bytes), sink);
}

void json_lines(const std::string& bytes, Sink& sink) {
  parse_json_lines(lines_of(bytes), "folder", "", sink);
}

/// The four files, with lines `--` between them.
void kaldi(const std::string& bytes, Sink& sink) {
  std::string parts[4];
  size_t part = 0;
  std::istringstream in(bytes);
  for (std::string line; std::getline(in, line);) {
    if (line == "--" && part < 3) {
      ++part;
    } else {
      parts[part] += line + "\n";
    }
  }
  KaldiFiles files{lines_of(parts[0]), lines_of(parts[1]), {}, {}};
  if (part > 1) files.segments.emplace(lines_of(parts[2]));
  if (part > 2) files.utt2spk.emplace(lines_of(parts[3]));
  parse_kaldi(std::move(files), "folder", sink);
}

void rows(const std::string& bytes, Sink&) {
  for (const TableStyle style : {TableStyle::tabs, TableStyle::bars, TableStyle::commas}) {
    LineReader lines = lines_of(bytes);
    RowReader reader(lines, style);
    for (std::vector<std::string> fields; reader.next(fields);) {
      if (fields.empty() || reader.place().empty()) __builtin_trap();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Checked sink;
  for (const auto parse : {common_voice, json_lines, kaldi, rows}) {
    try {
      parse(bytes, sink);
    } catch (const Error&) {
    }
  }
  return 0;
}
