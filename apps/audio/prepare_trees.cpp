// Kaldi data folders, LibriSpeech trees and manifests.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// A Kaldi table: key, white space, value. Repeated keys become problems.
std::map<std::string, std::string> read_scp(const fs::path& path, std::vector<Problem>& problems) {
  std::map<std::string, std::string> table;
  for (const auto& [number, line] : read_entries(path.string())) {
    const FirstWord entry = first_word(line);
    if (!table.emplace(entry.word, entry.rest).second) {
      problems.push_back({entry.word, concat(path.string(), ":", number, ": appears twice")});
    }
  }
  return table;
}

/// Where the recording of a wav.scp entry is. Throws for pipes.
std::string kaldi_audio(const fs::path& folder, const std::string& entry) {
  CENTROID_CHECK(!entry.empty(), "wav.scp names no file");
  CENTROID_CHECK(!entry.ends_with('|'), "wav.scp has a command (", entry,
                 "): commands are not run (write its output to a file and name that)");
  if (fs::path(entry).is_absolute()) return entry;
  std::error_code error;
  const fs::path inside = folder / entry;
  return fs::exists(inside, error) || !fs::exists(entry, error) ? inside.string() : entry;
}

/// `RECORDING START END` of the file segments.
void apply_segment(const std::string& segment, std::string* recording, Utterance* u) {
  const std::vector<std::string> parts = split_words(segment);
  double begin = 0, end = 0;
  CENTROID_CHECK(
      parts.size() == 3 && parse_number(parts[1], &begin) && parse_number(parts[2], &end),
      "segments: expected RECORDING START END, got ", segment);
  CENTROID_CHECK(begin >= 0 && end > begin, "segments: expected 0 <= start < end, got ", begin,
                 " and ", end, " s");
  *recording = parts[0];
  u->offset = begin;
  u->duration = end - begin;
}

}  // namespace

Prepared prepare_jsonl(const std::string& path) {
  ManifestReader reader(path);
  Prepared out;
  for (bool more = true; more;) {
    try {
      Utterance u;
      more = reader.next(u);
      if (more) out.utterances.push_back(std::move(u));
    } catch (const Error& error) {
      const std::string place = concat(path, ":", reader.line()), message = error.what();
      out.problems.push_back(
          {place, message.starts_with(place + ": ") ? message.substr(place.size() + 2) : message});
    }
  }
  return out;
}

Prepared prepare_kaldi(const std::string& name) {
  check_folder("kaldi", name);
  const fs::path folder = name;
  Prepared out;
  const auto recordings = read_scp(folder / "wav.scp", out.problems);
  const auto texts = read_scp(folder / "text", out.problems);
  std::map<std::string, std::string> segments, speakers;
  const bool segmented = fs::exists(folder / "segments");
  if (segmented) segments = read_scp(folder / "segments", out.problems);
  if (fs::exists(folder / "utt2spk")) speakers = read_scp(folder / "utt2spk", out.problems);

  std::set<std::string> ids;
  for (const auto& [id, text] : texts) ids.insert(id);
  for (const auto& [id, rest] : segmented ? segments : recordings) ids.insert(id);
  for (const std::string& id : ids) {
    out.add(id, [&](Utterance& u) {
      CENTROID_CHECK(texts.contains(id), "no line in text");
      u.text = texts.at(id);
      std::string recording = id;
      if (segmented) {
        CENTROID_CHECK(segments.contains(id), "no line in segments");
        apply_segment(segments.at(id), &recording, &u);
      }
      CENTROID_CHECK(recordings.contains(recording), "no line in wav.scp for ", recording);
      u.audio = kaldi_audio(folder, recordings.at(recording));
      if (speakers.contains(id)) u.speaker = speakers.at(id);
    });
  }
  return out;
}

Prepared prepare_librispeech(const std::string& root) {
  check_folder("librispeech", root);
  Prepared out;
  std::set<std::string> transcribed;
  const std::vector<std::string> lists = list_files(root, ".trans.txt");
  CENTROID_CHECK(!lists.empty(), "librispeech: expected SPEAKER-CHAPTER.trans.txt files below ",
                 root, ", found none");
  for (const std::string& list : lists) {
    const fs::path path = fs::path(root) / list;
    for (const auto& [number, line] : read_entries(path.string())) {
      const FirstWord entry = first_word(line);
      transcribed.insert(entry.word);
      out.add(entry.word, [&](Utterance& u) {
        u.text = entry.rest;
        u.speaker = u.id.substr(0, u.id.find('-'));
        u.audio = find_sound({path.parent_path().string()}, u.id, ".flac");
      });
    }
  }
  for (const std::string& file : list_files(root, ".flac")) {
    const std::string id = fs::path(file).stem().string();
    if (transcribed.count(id) == 0)
      out.problems.push_back({id, concat(file, " has no line in a .trans.txt file")});
  }
  return out;
}

}  // namespace centroid::audio
