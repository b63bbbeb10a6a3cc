// A folder of sound files with a table of transcripts: TSV, CSV or `path|text`; Common Voice.
#include <algorithm>
#include <filesystem>

#include "apps/audio/columns.h"
#include "apps/audio/files.h"
#include "apps/audio/prepare.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

using Fields = std::vector<std::string>;

/// Which column holds what; -1: none does.
struct Columns {
  int path = 0, text = 1, speaker = -1;
  bool named = false;  // by the first row
};

Columns columns_of(const Fields& first) {
  Columns c;
  c.path = find_column(first, {"path", "audio", "audio_filepath", "file", "filename", "file_name",
                               "wav", "wav_filename"});
  c.text = find_column(first, {"sentence", "text", "transcript", "transcription"});
  c.speaker = find_column(first, {"speaker", "speaker_id", "client_id"});
  c.named = c.path >= 0 && c.text >= 0;
  return c.named ? c : Columns{};
}

/// The utterance of a row, which has as many columns as the first one. Its sound is added to
/// `named`, whatever else is wrong.
void fill(const std::vector<std::string>& folders, const Columns& c, size_t width,
          const RowReader& rows, const Fields& fields, NamedSounds* named, Utterance& u) {
  const size_t path = c.path;
  const std::string name = path < fields.size() ? trim(fields[path]) : "";
  if (!name.empty()) u.audio = find_sound(folders, name);
  if (!name.empty() && named) named->add(u.audio);
  CENTROID_CHECK(rows.first() == rows.last(), "a quoted field spans lines ", rows.first(), " to ",
                 rows.last(), " (a stray quote? else write it on one line)");
  CENTROID_CHECK(fields.size() == width, "expected ", width, " columns as in the ",
                 c.named ? "header" : "first row", ", got ", fields.size());
  CENTROID_CHECK(!name.empty(), "expected a path in column ", path + 1, ", got none");
  const bool sound_name = fs::path(u.audio).extension() == fs::path(name).extension();
  u.id = sound_name ? fs::path(name).replace_extension().generic_string() : name;
  u.text = trim(fields[c.text]);
  if (c.speaker >= 0) u.speaker = trim(fields[c.speaker]);
}

/// A row that begins nowhere else than in a bad line becomes a problem of that line.
bool next_row(RowReader& rows, const LineReader& lines, Fields& fields, Sink& sink) {
  for (;;) {
    try {
      return rows.next(fields);
    } catch (const Error& error) {
      reject_line(lines, error, sink);
    }
  }
}

}  // namespace

void read_table(const std::string& folder, const std::string& table, Sink& sink) {
  check_folder("table", folder);
  TableStyle style = TableStyle::tabs;
  {
    LineReader first(table);
    std::string line;
    while (trim(line).empty()) {
      CENTROID_CHECK(first.next(line), table,
                     ": expected lines of path and text, got an empty file");
    }
    try {
      style = style_of(line);
    } catch (const Error& error) {
      throw Error(concat(first.place(), ": ", error.what()));
    }
  }
  LineReader lines(table);
  RowReader rows(lines, style);
  Fields fields;
  rows.next(fields);
  const Columns columns = columns_of(fields);
  const size_t width = fields.size();
  CENTROID_CHECK(width >= 2, rows.place(), ": expected a path and a text, got one column");
  const std::vector<std::string> folders = {folder, folder + "/clips"};
  NamedSounds named;
  for (bool more = !columns.named || next_row(rows, lines, fields, sink); more;
       more = next_row(rows, lines, fields, sink)) {
    sink.add(
        rows.place(), [&](Utterance& u) { fill(folders, columns, width, rows, fields, &named, u); },
        rows.place());
  }
  named.reject_others(folder, table, sink);
}

void read_common_voice(const std::string& folder, const std::string& table, Sink& sink) {
  check_folder("commonvoice", folder);
  parse_common_voice(folder, LineReader(table), sink);
}

void parse_common_voice(const std::string& folder, LineReader lines, Sink& sink) {
  RowReader rows(lines, TableStyle::common_voice);
  Fields fields;
  CENTROID_CHECK(rows.next(fields), lines.name(), ": expected a header, got an empty file");
  const Columns columns{find_column(fields, {"path"}), find_column(fields, {"sentence"}),
                        find_column(fields, {"client_id"}), true};
  CENTROID_CHECK(columns.path >= 0 && columns.text >= 0, rows.place(),
                 ": expected a header with the columns path and sentence, got ",
                 join(fields, ", "));
  const std::vector<std::string> folders = {folder + "/clips", folder};
  const size_t width = fields.size();
  while (next_row(rows, lines, fields, sink)) {
    sink.add(
        rows.place(),
        [&](Utterance& u) { fill(folders, columns, width, rows, fields, nullptr, u); },
        rows.place());
  }
}

}  // namespace centroid::audio
