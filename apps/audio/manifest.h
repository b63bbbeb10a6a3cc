#pragma once
// Manifests: one JSON object a line, one line an utterance.
#include <cstdint>
#include <istream>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

namespace centroid::audio {

/// One transcribed stretch of sound.
struct Utterance {
  std::string id;
  std::string audio;                ///< path of the sound file
  double offset = 0, duration = 0;  ///< segment in seconds; duration 0: up to the file's end
  std::string text;
  std::vector<std::string> phones;  ///< may be empty
  std::string speaker;              ///< may be empty
};

/// Reads a manifest line by line, so that its size does not matter.
///
/// Keys: `id`, `audio` (or NeMo's `audio_filepath`), `offset`, `duration`, `text`, `phones` (list
/// of strings), `speaker`. Only the audio path is required; a missing id is made of the path
/// without extension, and `@offset` for segments. Other keys are ignored, blank lines too. Relative
/// audio paths are relative to the manifest's folder.
class ManifestReader {
 public:
  /// Throws when the file cannot be opened.
  explicit ManifestReader(const std::string& path);
  /// Reads from any stream; `name` stands for the file in messages, `folder` is where relative
  /// paths start.
  ManifestReader(std::unique_ptr<std::istream> in, std::string name, std::string folder);

  /// Reads the next utterance; false at the end. Throws naming file, line and what is wrong: no
  /// JSON object, missing or mistyped key, negative time, id seen before.
  bool next(Utterance& utterance);

  /// Number of the line read last, from 1.
  int64_t line() const { return line_; }

 private:
  Utterance parse(const std::string& text) const;

  std::unique_ptr<std::istream> in_;
  std::string name_, folder_;
  int64_t line_ = 0;
  std::unordered_set<std::string> ids_;
};

/// All utterances of a manifest. Throws as ManifestReader does.
std::vector<Utterance> read_manifest(const std::string& path);

/// Writes a manifest atomically. Audio below the manifest's folder is written relative to it (the
/// folder can be moved as a whole), other audio as an absolute path.
void write_manifest(const std::string& path, const std::vector<Utterance>& utterances);

}  // namespace centroid::audio
