#include "apps/audio/manifest.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "apps/audio/fields.h"
#include "apps/audio/files.h"
#include "tensor/error.h"
#include "tensor/json.h"

namespace centroid::audio {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::vector<std::string> phones_of(const json& object) {
  const auto it = object.find("phones");
  if (it == object.end() || it->is_null()) return {};
  CENTROID_CHECK(it->is_array(), "phones: expected a list of strings, got ", it->dump());
  std::vector<std::string> phones;
  for (const json& phone : *it) {
    CENTROID_CHECK(phone.is_string() && !phone.get_ref<const std::string&>().empty(),
                   "phones: expected a list of strings, got the element ", phone.dump());
    phones.push_back(phone.get<std::string>());
  }
  return phones;
}

/// `path` as a manifest in `folder` names it.
std::string stored_path(const std::string& path, const fs::path& folder) {
  const fs::path absolute = fs::absolute(path).lexically_normal();
  const fs::path relative = absolute.lexically_relative(folder);
  if (relative.empty() || *relative.begin() == "..") return absolute.string();
  return relative.generic_string();
}

}  // namespace

Utterance parse_utterance(std::string_view line, const std::string& folder) {
  const json object = parse_json(line, "not a line of JSON");
  CENTROID_CHECK(object.is_object(), "expected a JSON object {...}, got ", object.type_name());
  return utterance_of(object, folder);
}

Utterance utterance_of(const json& object, const std::string& folder) {
  Utterance u;
  u.id = string_of(object, "id");
  u.audio = string_of(object, "audio");
  if (u.audio.empty()) u.audio = string_of(object, "audio_filepath");
  CENTROID_CHECK(!u.audio.empty(), "audio: missing (the path of the sound file)");
  u.offset = seconds_of(object, "offset");
  u.duration = seconds_of(object, "duration");
  u.text = string_of(object, "text");
  u.phones = phones_of(object);
  u.speaker = string_of(object, "speaker");
  if (u.id.empty()) {
    u.id = fs::path(u.audio).replace_extension().generic_string();
    if (u.offset > 0) u.id += concat("@", u.offset);
  }
  if (fs::path(u.audio).is_relative()) {
    u.audio = (fs::path(folder) / u.audio).lexically_normal().string();
  }
  return u;
}

std::string manifest_line(const Utterance& u, const std::string& folder) {
  nlohmann::ordered_json object = {{"id", u.id}, {"audio", stored_path(u.audio, folder)}};
  if (u.offset > 0) object["offset"] = u.offset;
  object["duration"] = u.duration;
  object["text"] = u.text;
  if (!u.phones.empty()) object["phones"] = u.phones;
  if (!u.speaker.empty()) object["speaker"] = u.speaker;
  try {
    return object.dump() + "\n";
  } catch (const json::exception& error) {
    throw Error(concat("utterance ", u.id, ": cannot be written as JSON: ", error.what()));
  }
}

ManifestReader::ManifestReader(const std::string& path)
    : name_(path), folder_(fs::path(path).parent_path().string()) {
  std::error_code error;
  CENTROID_CHECK(fs::exists(path, error), path,
                 ": no such file (a manifest is made by: asr prepare)");
  CENTROID_CHECK(!fs::is_directory(path, error), path,
                 ": expected a manifest (JSON lines), got a folder");
  in_ = open_text(path);
}

ManifestReader::ManifestReader(std::unique_ptr<std::istream> in, std::string name,
                               std::string folder)
    : in_(std::move(in)), name_(std::move(name)), folder_(std::move(folder)) {}

bool ManifestReader::next(Utterance& utterance) {
  std::string text;
  while (in_ && std::getline(*in_, text)) {
    ++line_;
    if (trim(text).empty()) continue;
    try {
      utterance = parse_utterance(text, folder_);
      CENTROID_CHECK(ids_.insert(utterance.id), "id: ", utterance.id, " appears twice");
    } catch (const Error& error) {
      throw Error(concat(name_, ":", line_, ": ", error.what()));
    }
    return true;
  }
  // Closed first, so that a caller who goes on after the error finds the end, not the error again.
  const bool failed = in_ && in_->bad();
  in_.reset();
  CENTROID_CHECK(!failed, name_, ":", line_ + 1, ": reading failed: ", std::strerror(errno));
  return false;
}

std::vector<Utterance> read_manifest(const std::string& path) {
  ManifestReader reader(path);
  std::vector<Utterance> utterances;
  for (Utterance u; reader.next(u);) utterances.push_back(std::move(u));
  return utterances;
}

ManifestWriter::ManifestWriter(const std::string& path)
    : path_(path),
      folder_(fs::absolute(path).lexically_normal().parent_path().string()),
      file_(path) {}

void ManifestWriter::write(const Utterance& utterance) {
  try {
    buffer_ += manifest_line(utterance, folder_);
  } catch (const Error& error) {
    throw Error(concat(path_, ": ", error.what()));
  }
  if (buffer_.size() < (1 << 16)) return;
  file_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void ManifestWriter::commit() {
  file_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
  file_.commit();
}

void write_manifest(const std::string& path, const std::vector<Utterance>& utterances) {
  ManifestWriter writer(path);
  for (const Utterance& u : utterances) writer.write(u);
  writer.commit();
}

}  // namespace centroid::audio
