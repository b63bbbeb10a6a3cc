#pragma once
// Manifests: one JSON object a line, one line an utterance.
#include <cstdint>
#include <istream>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "apps/audio/id_set.h"
#include "tensor/file.h"

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

/// The utterance of one line of a manifest; relative audio paths start at `folder`. Throws saying
/// what is wrong: no JSON object, missing or mistyped key, negative time.
Utterance parse_utterance(std::string_view line, const std::string& folder);

/// The same of a JSON object.
Utterance utterance_of(const nlohmann::json& object, const std::string& folder);

/// An utterance as a line of a manifest, with its line end. Audio below the absolute path `folder`
/// is named relative to it, other audio by its absolute path. Throws when it is not UTF-8.
std::string manifest_line(const Utterance& utterance, const std::string& folder);

/// Reads a manifest (also `.gz`) line by line, so that its size does not matter: of earlier lines
/// only the ids are remembered, in an IdSet.
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

  /// Reads the next utterance; false at the end. Throws naming file, line and what is wrong: what
  /// parse_utterance refuses, or an id seen before.
  bool next(Utterance& utterance);

  /// Number of the line read last, from 1.
  int64_t line() const { return line_; }
  /// Bytes that the ids seen so far take.
  size_t memory() const { return ids_.bytes(); }

 private:
  std::unique_ptr<std::istream> in_;
  std::string name_, folder_;
  int64_t line_ = 0;
  IdSet ids_;
};

/// All utterances of a manifest. Throws as ManifestReader does.
std::vector<Utterance> read_manifest(const std::string& path);

/// Writes a manifest one utterance at a time; the file appears, whole, with `commit`. Audio below
/// the manifest's folder is written relative to it (the folder can be moved as a whole), other
/// audio as an absolute path.
class ManifestWriter {
 public:
  explicit ManifestWriter(const std::string& path);
  /// Throws, naming file and utterance, when it is not UTF-8.
  void write(const Utterance& utterance);
  void commit();

 private:
  std::string path_, folder_, buffer_;
  AtomicFile file_;
};

/// Writes a manifest atomically with a ManifestWriter.
void write_manifest(const std::string& path, const std::vector<Utterance>& utterances);

}  // namespace centroid::audio
