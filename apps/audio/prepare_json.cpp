// JSON lines: own manifests, NeMo's, WeNet's and lhotse's.
#include <cmath>
#include <filesystem>

#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/string_table.h"
#include "tensor/json.h"

namespace centroid::audio {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

json parse_object(const std::string& line) {
  const json object = parse_json(line, "not a line of JSON");
  CENTROID_CHECK(object.is_object(), "expected a JSON object {...}, got ", object.type_name());
  return object;
}

/// The list under `key`; empty when it is missing or null.
const json& list_of(const json& object, const char* key) {
  static const json none = json::array();
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return none;
  CENTROID_CHECK(it->is_array(), key, ": expected a list, got ", it->dump());
  return *it;
}

/// The one channel that a cut or supervision is of; -1: all of them.
int channel_of(const json& object) {
  const auto it = object.find("channel");
  if (it == object.end() || it->is_null()) return -1;
  if (it->is_number_integer()) return it->get<int>();
  CENTROID_CHECK(it->is_array(), "channel: expected a number or a list, got ", it->dump());
  if (it->size() != 1) return -1;
  CENTROID_CHECK((*it)[0].is_number_integer(), "channel: expected a number, got ", it->dump());
  return (*it)[0].get<int>();
}

/// Whether a source is heard whole when `channel` of it is asked for.
bool is_source_of(const json& source, int channel) {
  const json& channels = list_of(source, "channels");
  return channel < 0 || channels.empty() || (channels.size() == 1 && channels[0] == channel);
}

/// A path of lhotse: from the manifest's folder, or else from the current one.
std::string find_path(const std::string& path, const std::string& folder) {
  std::error_code error;
  const fs::path inside = fs::path(folder) / path;
  if (fs::path(path).is_absolute()) return path;
  return fs::exists(inside, error) || !fs::exists(path, error) ? inside.lexically_normal().string()
                                                               : path;
}

/// The sound file of a lhotse recording.
std::string file_of(const json& recording, int channel, const std::string& folder) {
  CENTROID_CHECK(recording.is_object(), "recording: expected an object, got ", recording.dump());
  for (const json& transform : list_of(recording, "transforms")) {
    const std::string name = transform.is_object() ? string_of(transform, "name") : "";
    CENTROID_CHECK(name == "Resample", "recording: transforms are not applied (", transform.dump(),
                   "): write the sounds to files first");
  }
  const json& sources = list_of(recording, "sources");
  CENTROID_CHECK(!sources.empty(), "recording: expected sources, got none");
  for (const json& source : sources) {
    CENTROID_CHECK(source.is_object(), "source: expected an object, got ", source.dump());
    if (sources.size() > 1 && (channel < 0 || !is_source_of(source, channel))) continue;
    const std::string type = string_of(source, "type"), path = string_of(source, "source");
    CENTROID_CHECK(type == "file", "source: expected the type file, got ", type,
                   type == "command" ? " (commands are not run: write the output to a file)" : "");
    CENTROID_CHECK(is_source_of(source, channel), "source: ", path, " has several channels, of ",
                   "which channel ", channel, " alone is meant (write it to a file of its own)");
    CENTROID_CHECK(!path.empty(), "source: names no file");
    return find_path(path, folder);
  }
  throw Error(concat("recording: expected one source or one of channel ", channel, ", got ",
                     sources.size()));
}

/// Text and place of a supervision that begins `start` seconds into its recording.
void fill_supervision(const json& supervision, double start, Utterance& u) {
  u.text = string_of(supervision, "text");
  u.speaker = string_of(supervision, "speaker");
  CENTROID_CHECK(std::isfinite(start), "start: expected seconds, got ", start);
  u.offset = start;
  u.duration = seconds_of(supervision, "duration");
}

/// .../NAME_supervisions_PART.jsonl.gz -> .../NAME_recordings_PART.jsonl.gz; empty without that.
std::string sibling(const std::string& path) {
  std::string name = fs::path(path).filename().string();
  const std::string from = "supervisions";
  const size_t at = name.rfind(from);
  if (at == name.npos) return "";
  return (fs::path(path).parent_path() / name.replace(at, from.size(), "recordings")).string();
}

/// Hands over what the lines of one file say.
class JsonLines {
 public:
  JsonLines(LineReader lines, const std::string& folder, const std::string& recordings, Sink& sink)
      : lines_(std::move(lines)), folder_(folder), recordings_path_(recordings), sink_(sink) {}

  void read() {
    for (bool more = true; more;) {
      try {
        std::string line;
        more = lines_.next_entry(line);
        if (more) handle(parse_object(line));
      } catch (const Error& error) {
        reject_line(lines_, error, sink_);
      }
    }
  }

 private:
  void handle(const json& object) {
    if (object.contains("supervisions") || object.contains("tracks")) return cut(object);
    if (object.contains("recording_id") && !object.contains("audio")) return supervision(object);
    if (object.contains("wav") && !object.contains("audio")) return wenet(object);
    CENTROID_CHECK(!object.contains("sources"),
                   "a recording of lhotse, without a transcript (name ",
                   "the cuts or the supervisions as the source)");
    sink_.accept(utterance_of(object, folder_), lines_.place());
  }

  void cut(const json& object) {
    const std::string id = string_of(object, "id");
    const auto fail = [&](const std::string& what) {
      sink_.reject({id, concat(lines_.place(), ": ", what), ProblemKind::format});
    };
    if (id.empty()) throw Error("id: missing");
    if (object.contains("tracks")) return fail("a mixed cut: only cuts of one recording are read");
    const json& supervisions = list_of(object, "supervisions");
    if (supervisions.empty()) return fail("a cut without supervision: there is no transcript");
    for (const json& s : supervisions) {
      try {
        CENTROID_CHECK(s.is_object(), "supervision: expected an object, got ", s.dump());
        CENTROID_CHECK(object.contains("recording"), "the cut has no recording (features alone ",
                       "cannot be read)");
        Utterance u;
        u.id = supervisions.size() == 1 ? id : string_of(s, "id");
        CENTROID_CHECK(!u.id.empty(), "supervision: id: missing");
        // A supervision may begin before its cut.
        const auto start = s.find("start");
        const bool before = start != s.end() && start->is_number() && start->get<double>() < 0;
        CENTROID_CHECK(!before, "supervision: begins ", start->dump(), " s before its cut");
        fill_supervision(s, seconds_of(object, "start") + seconds_of(s, "start"), u);
        u.audio = file_of(object.at("recording"), channel_of(object), folder_);
        sink_.accept(std::move(u), lines_.place());
      } catch (const Error& error) {
        fail(error.what());
      }
    }
  }

  void supervision(const json& object) {
    load_recordings();
    const std::string recording = string_of(object, "recording_id");
    const size_t at = recordings_.find(recording);
    CENTROID_CHECK(at != StringTable::kNone, "recording ", recording, " is not in ",
                   recordings_path_);
    Utterance u;
    u.id = string_of(object, "id");
    CENTROID_CHECK(!u.id.empty(), "id: missing");
    fill_supervision(object, seconds_of(object, "start"), u);
    u.audio = file_of(parse_json(recordings_.rest(at), recording), channel_of(object),
                      fs::path(recordings_path_).parent_path().string());
    sink_.accept(std::move(u), lines_.place());
  }

  void load_recordings() {
    if (loaded_) return;
    loaded_ = true;  // also when it fails: the next lines then miss their recordings
    CENTROID_CHECK(!recordings_path_.empty(), "supervisions need --recordings FILE");
    LineReader lines(recordings_path_);
    for (std::string line; lines.next_entry(line);) {
      const json object = parse_object(line);
      json kept = {{"sources", list_of(object, "sources")},
                   {"transforms", list_of(object, "transforms")}};
      recordings_.add(string_of(object, "id"), kept.dump());
    }
    for (const std::string& id : recordings_.sort()) {
      sink_.reject(
          {id, concat(recordings_path_, ": the recording appears twice"), ProblemKind::duplicate});
    }
  }

  void wenet(const json& object) {
    Utterance u;
    u.id = string_of(object, "key");
    u.audio = string_of(object, "wav");
    CENTROID_CHECK(!u.id.empty(), "key: missing");
    CENTROID_CHECK(!u.audio.ends_with('|'), "wav: ", u.audio, ": commands are not run (write the ",
                   "output to a file)");
    u.text = string_of(object, "txt");
    u.speaker = string_of(object, "speaker");
    u.offset = seconds_of(object, "start");
    const double end = seconds_of(object, "end");
    CENTROID_CHECK(end == 0 || end > u.offset, "expected start < end, got ", u.offset, " and ", end,
                   " s");
    if (end > 0) u.duration = end - u.offset;
    if (fs::path(u.audio).is_relative()) {
      u.audio = (fs::path(folder_) / u.audio).lexically_normal().string();
    }
    sink_.accept(std::move(u), lines_.place());
  }

  LineReader lines_;
  std::string folder_, recordings_path_;
  Sink& sink_;
  StringTable recordings_;
  bool loaded_ = false;
};

}  // namespace

void read_json_lines(const std::string& path, const std::string& recordings, Sink& sink) {
  parse_json_lines(LineReader(path), fs::path(path).parent_path().string(),
                   recordings.empty() ? sibling(path) : recordings, sink);
}

void parse_json_lines(LineReader lines, const std::string& folder, const std::string& recordings,
                      Sink& sink) {
  JsonLines(std::move(lines), folder, recordings, sink).read();
}

}  // namespace centroid::audio
