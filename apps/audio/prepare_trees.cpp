// Kaldi data folders and LibriSpeech trees.
#include <algorithm>
#include <cmath>
#include <filesystem>

#include "apps/audio/files.h"
#include "apps/audio/id_set.h"
#include "apps/audio/prepare.h"
#include "apps/audio/sound_stream.h"
#include "apps/audio/string_table.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// A Kaldi table: key, white space, value. Repeated keys and bad lines become problems.
StringTable read_scp(LineReader lines, Sink& sink) {
  StringTable table;
  for (std::string line; next_entry(lines, line, sink);) {
    const FirstWord entry = first_word(line);
    table.add(entry.word, entry.rest);
  }
  for (const std::string& key : table.sort()) {
    sink.reject({key, concat(lines.name(), ": ", key, " appears twice"), ProblemKind::duplicate});
  }
  return table;
}

/// Whether `name` is a file and an offset into it, as in archives (`FILE.ark:123`).
bool is_archive(const std::string& name) {
  const size_t colon = name.rfind(':');
  return colon != name.npos && colon + 1 < name.size() &&
         name.find_first_not_of("0123456789", colon + 1) == name.npos;
}

/// Where the recording of a wav.scp entry is. Throws for commands and archives.
std::string kaldi_audio(const fs::path& folder, const std::string& entry) {
  CENTROID_CHECK(!entry.empty(), "wav.scp names no file");
  CENTROID_CHECK(!entry.ends_with('|') && !entry.starts_with('|'), "wav.scp has a command (", entry,
                 "): commands are not run (write its output to a file and name that)");
  std::error_code error;
  CENTROID_CHECK(!is_archive(entry) || fs::exists(entry, error), "wav.scp has a place in an ",
                 "archive (", entry, "): archives are not read (write the sounds to files)");
  if (fs::path(entry).is_absolute()) return entry;
  const fs::path inside = folder / entry;
  return fs::exists(inside, error) || !fs::exists(entry, error) ? inside.string() : entry;
}

/// `RECORDING START END [CHANNEL]` of the file segments.
void apply_segment(const std::string& segment, Utterance* u) {
  const std::vector<std::string> parts = split_words(segment);
  double begin = 0, end = 0;
  CENTROID_CHECK(
      parts.size() == 3 && parse_number(parts[1], &begin) && parse_number(parts[2], &end),
      "segments: expected RECORDING START END, got ", segment,
      parts.size() == 4 ? " (one channel of several: write it to a file of its own)" : "");
  CENTROID_CHECK(begin >= 0 && (end > begin || end == -1), "segments: expected 0 <= start < end, ",
                 "got ", begin, " and ", end, " s");
  u->offset = begin;
  u->duration = end == -1 ? 0 : end - begin;
}

/// The speaker in line `at` of utt2spk.
std::string speaker_of(const StringTable& speakers, size_t at) {
  CENTROID_CHECK(at != StringTable::kNone, "no line in utt2spk");
  CENTROID_CHECK(split_words(speakers.rest(at)).size() == 1,
                 "utt2spk: expected UTTERANCE SPEAKER, got '", speakers.rest(at),
                 "' as the speaker");
  return std::string(speakers.rest(at));
}

/// Makes problems of the lines that no utterance has used.
void reject_others(const StringTable& table, const std::vector<bool>& used, const char* what,
                   Sink& sink) {
  for (size_t i = 0; i < table.size(); ++i) {
    if (!used[i]) sink.reject({std::string(table.key(i)), what, ProblemKind::format});
  }
}

}  // namespace

void read_kaldi(const std::string& name, Sink& sink) {
  check_folder("kaldi", name);
  const auto file = [&](const char* part) { return (fs::path(name) / part).string(); };
  KaldiFiles files{LineReader(file("wav.scp")), LineReader(file("text")), {}, {}};
  if (fs::exists(file("segments"))) files.segments.emplace(file("segments"));
  if (fs::exists(file("utt2spk"))) files.utt2spk.emplace(file("utt2spk"));
  parse_kaldi(std::move(files), name, sink);
}

void parse_kaldi(KaldiFiles files, const std::string& folder, Sink& sink) {
  const StringTable recordings = read_scp(std::move(files.wav_scp), sink);
  const StringTable texts = read_scp(std::move(files.text), sink);
  StringTable segments, speakers;
  const bool segmented = files.segments.has_value();
  if (segmented) segments = read_scp(std::move(*files.segments), sink);
  const bool spoken = files.utt2spk.has_value();
  if (spoken) speakers = read_scp(std::move(*files.utt2spk), sink);

  // Both tables are sorted by id: a merge visits every id once.
  const StringTable& sounds = segmented ? segments : recordings;
  std::vector<bool> heard(recordings.size()), uttered(speakers.size());
  for (size_t t = 0, s = 0; t < texts.size() || s < sounds.size();) {
    const bool no_sound = s == sounds.size() || (t < texts.size() && texts.key(t) < sounds.key(s));
    const bool no_text = t == texts.size() || (s < sounds.size() && sounds.key(s) < texts.key(t));
    const std::string id(no_text ? sounds.key(s) : texts.key(t));
    const std::string recording =
        segmented && !no_sound ? first_word(segments.rest(s)).word : std::string(id);
    const size_t at = recordings.find(recording), speaker = speakers.find(id);
    if (at != StringTable::kNone) heard[at] = true;
    if (speaker != StringTable::kNone) uttered[speaker] = true;
    sink.add(id, [&](Utterance& u) {
      CENTROID_CHECK(!no_text, "no line in text");
      u.text = texts.rest(t);
      CENTROID_CHECK(!segmented || !no_sound, "no line in segments");
      if (segmented) apply_segment(std::string(segments.rest(s)), &u);
      CENTROID_CHECK(at != StringTable::kNone, "no line in wav.scp for ", recording);
      u.audio = kaldi_audio(folder, std::string(recordings.rest(at)));
      if (spoken) u.speaker = speaker_of(speakers, speaker);
    });
    t += !no_text;
    s += !no_sound;
  }
  reject_others(recordings, heard, "wav.scp: no segment is of this recording", sink);
  reject_others(speakers, uttered, "utt2spk: there is no such utterance", sink);
}

void read_librispeech(const std::string& root, Sink& sink) {
  check_folder("librispeech", root);
  IdSet transcribed;
  const std::vector<std::string> lists = list_files(root, ".trans.txt");
  CENTROID_CHECK(!lists.empty(), "librispeech: expected SPEAKER-CHAPTER.trans.txt files below ",
                 root, ", found none");
  for (const std::string& list : lists) {
    const fs::path path = fs::path(root) / list;
    LineReader lines(path.string());
    for (std::string line; next_entry(lines, line, sink);) {
      const FirstWord entry = first_word(line);
      transcribed.insert(entry.word);
      sink.add(
          entry.word,
          [&](Utterance& u) {
            u.text = entry.rest;
            u.speaker = u.id.substr(0, u.id.find('-'));
            u.audio = find_sound({path.parent_path().string()}, u.id, ".flac");
          },
          lines.place());
    }
  }
  for (const std::string& file : list_files(root, is_sound_name)) {
    const std::string id = fs::path(file).stem().string();
    if (!transcribed.contains(id)) {
      sink.reject({id, concat(file, " has no line in a .trans.txt file"), ProblemKind::format});
    }
  }
}

}  // namespace centroid::audio
