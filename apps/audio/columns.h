#pragma once
// Tables of columns as text: TSV, CSV, `path|text`.
#include <initializer_list>
#include <string>
#include <vector>

#include "apps/audio/files.h"

namespace centroid::audio {

/// How the fields of a table are separated and quoted.
enum class TableStyle {
  tabs,          ///< tabs; quotes are text
  bars,          ///< `|`; quotes are text
  commas,        ///< CSV: fields may be quoted ("a, b", "" for a quote, line ends inside)
  common_voice,  ///< tabs; a field like "say ""yes""" is unwrapped, other quotes are text
};

/// Reads rows one at a time.
class RowReader {
 public:
  RowReader(LineReader& lines, TableStyle style) : lines_(lines), style_(style) {}
  /// Reads the next row that is not blank; false at the end. Throws as LineReader does, and for a
  /// quoted field that does not end.
  bool next(std::vector<std::string>& fields);
  /// `FILE:NUMBER` of the row's first line.
  const std::string& place() const { return place_; }
  /// Numbers of its first line, and of its last one, which is another where a quoted field spans
  /// lines.
  size_t first() const { return first_; }
  size_t last() const { return lines_.number(); }

 private:
  LineReader& lines_;
  TableStyle style_;
  std::string place_;
  size_t first_ = 0;
};

/// The style of a table by its first line: tabs, bars or commas, the first of these that occurs.
/// Throws when none does.
TableStyle style_of(const std::string& first_line);

/// The column that has one of these names (of several the first of the list), or -1. Case does not
/// matter.
int find_column(const std::vector<std::string>& header, std::initializer_list<const char*> names);

}  // namespace centroid::audio
