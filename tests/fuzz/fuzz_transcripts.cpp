// Transcripts of other tools, maps of symbols and speakers: a value or an Error, and what is
// written reads back the same.
#include <cstdint>
#include <string>

#include "apps/audio/score.h"
#include "apps/audio/transcripts.h"
#include "tensor/error.h"

namespace {

using namespace centroid;
using namespace centroid::audio;

constexpr TranscriptFormat kWritten[] = {TranscriptFormat::trn, TranscriptFormat::kaldi,
                                         TranscriptFormat::tsv};

void check_written(const Transcripts& read, TranscriptFormat format) {
  std::string bytes;
  try {
    bytes = format_transcripts(read.items, format);
  } catch (const Error&) {
    return;  // the format cannot hold it
  }
  const Transcripts again = parse_transcripts(bytes, "written", format);
  if (again.items.size() != read.items.size()) __builtin_trap();
  for (size_t i = 0; i < read.items.size(); ++i) {
    if (again.items[i].id != read.items[i].id) __builtin_trap();
    if (read.items[i].phones.empty() && again.items[i].text != read.items[i].text) __builtin_trap();
  }
}

void check_symbols(const Transcript& t) {
  NormalizeOptions options;
  options.lowercase = options.strip_punctuation = true;
  for (const Unit unit : {Unit::phones, Unit::characters, Unit::words}) {
    if (unit != Unit::phones && t.text.empty() && !t.phones.empty()) continue;
    const auto symbols = scored_symbols(t, unit, options);
    for (const std::string& symbol : symbols) {
      if (symbol.empty()) __builtin_trap();
    }
    if (symbols.size() > 200) continue;
    ErrorRate rate;
    rate.add(align(symbols, symbols, kScliteCosts));
    if (rate.errors() != 0 || rate.tokens != int64_t(symbols.size())) __builtin_trap();
  }
}

void read(const std::string& bytes, std::optional<TranscriptFormat> format) {
  try {
    const Transcripts t = parse_transcripts(bytes, "input", format);
    if (t.items.empty()) __builtin_trap();
    for (size_t i = 0; i < t.items.size(); ++i) {
      const Transcript& item = t.items[i];
      const Transcript* found = t.find(item.id);
      if (item.id.empty() || !found || !(*found == item)) __builtin_trap();
      if (i < 5 || i + 5 >= t.items.size()) check_symbols(item);
    }
    for (const TranscriptFormat written : kWritten) check_written(t, written);
  } catch (const Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  read(bytes, {});
  for (const TranscriptFormat format : kWritten) read(bytes, format);
  read(bytes, TranscriptFormat::manifest);
  try {
    parse_symbol_map(bytes, "map");
  } catch (const Error&) {
  }
  try {
    parse_utt2spk(bytes, "utt2spk");
  } catch (const Error&) {
  }
  return 0;
}
