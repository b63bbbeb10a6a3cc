#include "apps/audio/check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "apps/audio/sound.h"
#include "apps/audio/text.h"

namespace centroid::audio {

namespace {

constexpr std::pair<ProblemKind, const char*> kKinds[] = {
    {ProblemKind::format, "format"},
    {ProblemKind::missing, "missing"},
    {ProblemKind::unreadable, "unreadable"},
    {ProblemKind::segment, "segment"},
    {ProblemKind::no_text, "no-text"},
    {ProblemKind::duplicate, "duplicate"},
    {ProblemKind::silent, "silent"},
    {ProblemKind::unknown_word, "unknown-word"},
    {ProblemKind::unknown_symbol, "unknown-symbol"},
    {ProblemKind::too_short, "too-short"},
    {ProblemKind::not_listed, "not-listed"},
    {ProblemKind::clipped, "clipped"},
    {ProblemKind::too_long, "too-long"},
    {ProblemKind::rare_symbol, "rare-symbol"}};
static_assert(std::size(kKinds) == kProblemKinds);

/// An Error that knows its kind.
struct Failure : Error {
  Failure(ProblemKind k, const std::string& what) : Error(what), kind(k) {}
  ProblemKind kind;
};

std::string normalised(const std::string& text, const CheckOptions& o) {
  const std::string cased = o.letters == LetterCase::lower   ? lowercase(text)
                            : o.letters == LetterCase::upper ? uppercase(text)
                                                             : text;
  return o.strip_punctuation ? strip_punctuation(cased) : collapse_spaces(cased);
}

/// The words' most probable pronunciations, one after the other.
std::vector<std::string> pronounce(const std::string& text, const Lexicon& lexicon) {
  std::vector<std::string> phones, missing;
  for (const std::string& word : split_words(text)) {
    const Pronunciation* p = lexicon.best(word);
    if (p) phones.insert(phones.end(), p->phones.begin(), p->phones.end());
    if (!p && std::find(missing.begin(), missing.end(), word) == missing.end()) {
      missing.push_back(word);
    }
  }
  if (missing.empty()) return phones;
  throw Failure(ProblemKind::unknown_word, concat("not in the lexicon: ", join(missing, ", ")));
}

/// What a corpus took from the names of files may be any bytes.
void check_encoding(const Utterance& u) {
  for (const std::string& text : {u.id, u.audio, u.text, u.speaker}) {
    if (valid_utf8(text)) continue;
    throw Failure(ProblemKind::format, "expected UTF-8, got other bytes (rename the file)");
  }
}

void check_text(Utterance& u, const CheckOptions& o) {
  u.text = normalised(u.text, o);
  const bool phones = o.unit == Unit::phones;
  if (phones && o.lexicon) u.phones = pronounce(u.text, *o.lexicon);
  if (phones ? !u.phones.empty() : !u.text.empty()) return;
  throw Failure(ProblemKind::no_text,
                !phones     ? "the text is empty"
                : o.lexicon ? "the text is empty: there are no phones"
                            : "no phones (train on characters instead: --unit, or give a "
                              "--lexicon)");
}

/// Loudness and clipping of all samples.
void check_samples(const Sound& sound, const CheckOptions& o, const std::string& id,
                   std::vector<Problem>& problems) {
  float peak = 0;
  int64_t full = 0;
  for (const float x : sound.samples) {
    peak = std::max(peak, std::fabs(x));
    full += std::fabs(x) >= kFullScale;
  }
  const double level = 20 * std::log10(std::max(peak, 1e-10f));
  if (level <= o.silence_db) {
    throw Failure(ProblemKind::silent,
                  peak == 0 ? "silent: every sample is 0"
                            : concat("silent: the loudest sample has ", std::lround(level), " dB"));
  }
  const double share = static_cast<double>(full) / static_cast<double>(sound.samples.size());
  if (share > o.max_clipped) {
    char text[64];
    std::snprintf(text, sizeof text, "%.1f %% of the samples are at full scale", 100 * share);
    problems.push_back({id, text, ProblemKind::clipped});
  }
}

/// The sound's length, which has to hold the segment.
void check_length(Utterance& u) {
  const double length = sound_duration(u.audio);
  if (u.duration == 0 && u.offset < length) u.duration = length - u.offset;
  if (u.duration > 0 && u.offset + u.duration <= length + kSegmentSlack) return;
  throw Failure(ProblemKind::segment, concat("the segment ", u.offset, "..", u.offset + u.duration,
                                             " s is beyond the sound's end, ", length, " s"));
}

void check_sound(Utterance& u, const CheckOptions& o, std::vector<Problem>& problems) {
  if (o.sound == SoundCheck::none) {
    if (u.duration > 0) return;
    throw Failure(ProblemKind::format, "no duration is given, and the sound is not looked at");
  }
  std::error_code error;
  if (!std::filesystem::exists(u.audio, error)) {
    throw Failure(ProblemKind::missing, concat(u.audio, ": no such file"));
  }
  check_length(u);
  if (o.sound == SoundCheck::headers) return;
  const Sound sound = load_sound(u.audio, 0, u.offset, u.duration);
  u.duration = sound.seconds();
  check_samples(sound, o, u.id, problems);
}

}  // namespace

std::string name_of(ProblemKind kind) { return find_name(kKinds, kind, "problem"); }

bool check_utterance(Utterance& u, const CheckOptions& o, std::vector<Problem>& problems) {
  try {
    check_encoding(u);
    check_text(u, o);
    check_sound(u, o, problems);
  } catch (const Failure& failure) {
    problems.push_back({u.id, failure.what(), failure.kind});
    return false;
  } catch (const Error& error) {  // of the readers of sound files
    problems.push_back({u.id, error.what(), ProblemKind::unreadable});
    return false;
  }
  if (u.duration > o.longest) {
    problems.push_back({u.id, concat(u.duration, " s long"), ProblemKind::too_long});
  }
  return true;
}

int64_t positions(double seconds, int64_t subsampling) {
  const int64_t microseconds = std::llround(seconds * 1e6);
  const int64_t frames = microseconds < 25000 ? 0 : 1 + (microseconds - 25000) / 10000;
  return (frames + subsampling - 1) / subsampling;
}

int64_t ctc_positions(const std::vector<int32_t>& labels) {
  auto count = static_cast<int64_t>(labels.size());
  for (size_t i = 1; i < labels.size(); ++i) count += labels[i] == labels[i - 1];
  return count;
}

}  // namespace centroid::audio
