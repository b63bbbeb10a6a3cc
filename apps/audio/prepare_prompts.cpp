// Corpora of single speakers that come as packages: Festvox voices and Asterisk prompts.
#include <algorithm>
#include <cctype>
#include <filesystem>

#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/sound.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// The voice's own folder at or below `root`.
std::string find_voice(const std::string& root) {
  const std::string list = "etc/txt.done.data";
  check_folder("festvox", root);
  if (fs::exists(fs::path(root) / list)) return root;
  std::vector<std::string> found;
  for (const std::string& file : list_files(root, "txt.done.data")) {
    if (file.ends_with(list)) found.push_back(file.substr(0, file.size() - list.size()));
  }
  CENTROID_CHECK(!found.empty(), "festvox: expected ", list, " in or below ", root, ", found none");
  CENTROID_CHECK(found.size() == 1, "festvox: expected one voice below ", root, ", found ",
                 found.size(), ": ", join(found, ", "), " (name one of them)");
  return (fs::path(root) / found[0]).lexically_normal().string();
}

/// `( ID "text" )`. Throws naming what is expected.
Utterance parse_prompt(const std::string& line) {
  const size_t open = line.find('('), quote = line.find('"');
  const size_t last = line.rfind('"'), close = line.rfind(')');
  CENTROID_CHECK(open != line.npos && quote != line.npos && last > quote && close != line.npos &&
                     open < quote && close > last,
                 "expected ( ID \"text\" ), got ", line);
  Utterance u;
  u.id = trim(line.substr(open + 1, quote - open - 1));
  CENTROID_CHECK(!u.id.empty() && u.id.find_first_of("/\\ ") == u.id.npos,
                 "expected an id before the text, got \"", u.id, "\"");
  for (size_t i = quote + 1; i < last; ++i) {
    if (line[i] == '\\' && i + 1 < last) ++i;
    if (line[i] != '+') u.text += line[i];
  }
  return u;
}

/// Throws where labels end after their sound. What cannot be read is left to later checks.
void check_end(double end, const std::string& sound) {
  constexpr double kSlack = 0.1;  // labels may be rounded to frames
  double length = end;
  try {
    length = sound_duration(sound);
  } catch (const Error&) {
  }
  CENTROID_CHECK(end <= length + kSlack, "the labels end at ", end, " s, the sound at ", length,
                 " s (is it another recording's?)");
}

/// The phones of a label file.
std::vector<std::string> read_labels(const std::string& path, const std::string& sound,
                                     bool keep_pauses) {
  std::vector<std::string> phones;
  const std::vector<TimedWord> segments = read_lab(path);
  if (!segments.empty()) check_end(segments.back().end, sound);
  for (const TimedWord& segment : segments) {
    if (keep_pauses || segment.text != "pau") phones.push_back(segment.text);
  }
  return phones;
}

/// Takes out [...] and a wholly parenthesised sentence, and spells single figures ("3D": three D).
std::string speech_of(std::string sentence) {
  for (size_t open; (open = sentence.find('[')) != sentence.npos;) {
    const size_t close = std::min(sentence.find(']', open), sentence.size() - 1);
    sentence.erase(open, close - open + 1);
  }
  sentence = trim(sentence);
  if (sentence.starts_with('(') && sentence.ends_with(')')) return "";
  const auto figure = [&](size_t i) {
    return i < sentence.size() && sentence[i] >= '0' && sentence[i] <= '9';
  };
  std::string out;
  for (size_t i = 0; i < sentence.size(); ++i) {
    const bool single = figure(i) && !figure(i + 1) && (i == 0 || !figure(i - 1));
    const bool decimal = (i > 1 && sentence[i - 1] == '.' && figure(i - 2)) ||
                         (i + 1 < sentence.size() && sentence[i + 1] == '.' && figure(i + 2));
    out += single && !decimal ? kFigures[sentence[i] - '0'] : std::string(1, sentence[i]);
    const bool letter =
        i + 1 < sentence.size() && std::isalpha(static_cast<unsigned char>(sentence[i + 1]));
    if (single && letter) out += ' ';
  }
  return out;
}

}  // namespace

void read_festvox(const std::string& root, bool keep_pauses, Sink& sink) {
  const fs::path voice = find_voice(root);
  const bool labelled = fs::is_directory(voice / "lab");
  LineReader lines((voice / "etc/txt.done.data").string());
  NamedSounds named;
  for (std::string line; next_entry(lines, line, sink);) {
    sink.add(lines.place(), [&](Utterance& u) {
      u = parse_prompt(line);
      u.audio = (voice / "wav" / (u.id + ".wav")).string();
      named.add(u.audio);
      const std::string labels = (voice / "lab" / (u.id + ".lab")).string();
      if (labelled) u.phones = read_labels(labels, u.audio, keep_pauses);
    });
  }
  if (fs::is_directory(voice / "wav")) {
    named.reject_others((voice / "wav").string(), lines.name(), sink);
  }
}

void read_asterisk(const std::string& audio, const std::string& text_file, Sink& sink) {
  check_folder("asterisk", audio);
  LineReader lines(text_file);
  NamedSounds named;
  for (std::string entry; next_entry(lines, entry, sink);) {
    if (entry[0] == ';') continue;
    sink.add(lines.place(), [&](Utterance& u) {
      const size_t colon = entry.find(": ");
      CENTROID_CHECK(colon != entry.npos, "expected KEY: sentence, got ", entry);
      u.id = trim(entry.substr(0, colon));
      const std::string sentence = trim(entry.substr(colon + 1));
      u.text = speech_of(sentence);
      u.audio = (fs::path(audio) / (u.id + ".wav")).string();
      named.add(u.audio);
      CENTROID_CHECK(!u.text.empty(), "no speech: ", sentence);
    });
  }
  named.reject_others(audio, text_file, sink);
}

}  // namespace centroid::audio
