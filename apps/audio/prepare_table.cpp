// A folder of sound files with a table of transcripts: TSV, CSV or `path|text`.
#include <algorithm>
#include <filesystem>

#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

/// One row and the line it starts at.
struct Row {
  size_t line = 0;
  std::vector<std::string> fields;
};

/// Rows of fields. With commas, fields may be quoted ("a, b", "" for a quote, line ends inside).
std::vector<Row> split_rows(const std::string& path, const std::vector<std::string>& lines,
                            char separator) {
  std::vector<Row> rows;
  bool quoted = false;
  for (size_t l = 0; l < lines.size(); ++l) {
    const std::string& line = lines[l];
    if (quoted) {
      rows.back().fields.back() += '\n';
    } else {
      if (trim(line).empty()) continue;
      rows.push_back({l + 1, {""}});
    }
    std::vector<std::string>& fields = rows.back().fields;
    for (size_t i = 0; i < line.size(); ++i) {
      if (quoted && line[i] == '"' && i + 1 < line.size() && line[i + 1] == '"') {
        fields.back() += line[i++];
      } else if (separator == ',' && line[i] == '"' && (quoted || fields.back().empty())) {
        quoted = !quoted;
      } else if (!quoted && line[i] == separator) {
        fields.emplace_back();
      } else {
        fields.back() += line[i];
      }
    }
  }
  CENTROID_CHECK(!quoted, path, ":", rows.back().line, ": a quoted field does not end");
  return rows;
}

char separator_of(const std::string& path, const std::string& first_line) {
  for (const char separator : {'\t', '|', ','}) {
    if (first_line.find(separator) != first_line.npos) return separator;
  }
  throw Error(concat(path, ":1: expected columns separated by tab, comma or |, got ", first_line));
}

/// The first column that has one of these names, or -1.
int find_column(const std::vector<std::string>& header, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (size_t i = 0; i < header.size(); ++i) {
      if (lowercase(trim(header[i])) == name) return static_cast<int>(i);
    }
  }
  return -1;
}

}  // namespace

Prepared prepare_table(const std::string& folder, const std::string& table) {
  check_folder("table", folder);
  const std::vector<std::string> lines = read_lines(table);
  CENTROID_CHECK(!lines.empty(), table, ": expected lines of path and text, got an empty file");
  const std::vector<Row> rows = split_rows(table, lines, separator_of(table, lines[0]));
  const std::vector<std::string>& header = rows[0].fields;
  int path = find_column(header, {"path", "audio", "audio_filepath", "file", "filename",
                                  "file_name", "wav", "wav_filename"});
  int text = find_column(header, {"sentence", "text", "transcript", "transcription"});
  int speaker = find_column(header, {"speaker", "speaker_id", "client_id"});
  const bool named = path >= 0 && text >= 0;
  if (!named) path = 0, text = 1, speaker = -1;
  const int needed = std::max(path, text) + 1;
  Prepared out;
  for (size_t r = named ? 1 : 0; r < rows.size(); ++r) {
    out.add(concat(table, ":", rows[r].line), [&, &fields = rows[r].fields](Utterance& u) {
      const int columns = static_cast<int>(fields.size());
      const std::string name = columns >= needed ? trim(fields[path]) : "";
      CENTROID_CHECK(!name.empty(), "expected a path and a text in ", needed, " columns, got ",
                     columns);
      u.audio = find_sound({folder, folder + "/clips"}, name);
      const bool sound_name = fs::path(u.audio).extension() == fs::path(name).extension();
      u.id = sound_name ? fs::path(name).replace_extension().generic_string() : name;
      u.text = trim(fields[text]);
      if (speaker >= 0 && speaker < columns) u.speaker = trim(fields[speaker]);
    });
  }
  return out;
}

}  // namespace centroid::audio
