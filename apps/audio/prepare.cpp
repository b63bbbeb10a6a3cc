// What the readers of corpora share: bad lines, and recordings that no line names.
#include "apps/audio/prepare.h"

#include <filesystem>

#include "apps/audio/sound_stream.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// One text for all ways to name a recording, whatever its format.
std::string key_of(const std::string& path) {
  fs::path key = fs::absolute(path).lexically_normal();
  if (is_sound_name(path)) key.replace_extension();
  return key.string();
}

}  // namespace

void reject_line(const LineReader& lines, const Error& error, Sink& sink) {
  const std::string place = lines.place(), what = error.what();
  sink.reject({place, what.starts_with(place + ": ") ? what.substr(place.size() + 2) : what,
               ProblemKind::format});
}

bool next_entry(LineReader& lines, std::string& entry, Sink& sink) {
  for (;;) {
    try {
      return lines.next_entry(entry);
    } catch (const Error& error) {
      reject_line(lines, error, sink);
    }
  }
}

void NamedSounds::add(const std::string& path) { named_.insert(key_of(path)); }

void NamedSounds::reject_others(const std::string& folder, const std::string& list,
                                Sink& sink) const {
  const auto path_of = [&](const std::string& file) { return (fs::path(folder) / file).string(); };
  const auto is_other = [&](const std::string& file) {
    return is_sound_name(file) && !named_.contains(key_of(path_of(file)));
  };
  for (const std::string& file : list_files(folder, is_other)) {
    sink.reject({fs::path(file).replace_extension().generic_string(),
                 concat(path_of(file), " has no line in ", list), ProblemKind::format});
  }
}

}  // namespace centroid::audio
