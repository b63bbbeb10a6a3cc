#include "apps/audio/columns.h"

#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

char separator_of(TableStyle style) {
  return style == TableStyle::bars ? '|' : style == TableStyle::commas ? ',' : '\t';
}

/// `"say ""yes"""` -> `say "yes"`; anything else stays.
std::string unwrap(const std::string& field) {
  if (field.size() < 2 || !field.starts_with('"') || !field.ends_with('"')) return field;
  std::string inside;
  for (size_t i = 1; i + 1 < field.size(); ++i) {
    if (field[i] == '"' && (i + 2 >= field.size() || field[++i] != '"')) return field;
    inside += field[i];
  }
  return inside;
}

/// Adds the fields of one line. `quoted`: the line begins, and on return ends, inside of quotes.
void split_line(const std::string& line, TableStyle style, bool& quoted,
                std::vector<std::string>& fields) {
  const char separator = separator_of(style);
  const bool quotes = style == TableStyle::commas;
  for (size_t i = 0; i < line.size(); ++i) {
    if (quoted && line[i] == '"' && i + 1 < line.size() && line[i + 1] == '"') {
      fields.back() += line[i++];
    } else if (quotes && line[i] == '"' && (quoted || fields.back().empty())) {
      quoted = !quoted;
    } else if (!quoted && line[i] == separator) {
      fields.emplace_back();
    } else {
      fields.back() += line[i];
    }
  }
}

}  // namespace

bool RowReader::next(std::vector<std::string>& fields) {
  std::string line;
  do {
    if (!lines_.next(line)) return false;
  } while (trim(line).empty());
  place_ = lines_.place();
  first_ = lines_.number();
  fields.assign(1, "");
  bool quoted = false;
  split_line(line, style_, quoted, fields);
  while (quoted) {
    try {
      CENTROID_CHECK(lines_.next(line), place_, ": a quoted field does not end");
    } catch (const Error& error) {
      throw Error(concat(error.what(), " (a quoted field took in lines ", first_, " to ",
                         lines_.number(), ")"));
    }
    fields.back() += '\n';
    split_line(line, style_, quoted, fields);
  }
  if (style_ == TableStyle::common_voice) {
    for (std::string& field : fields) field = unwrap(field);
  }
  return true;
}

TableStyle style_of(const std::string& first_line) {
  for (const TableStyle style : {TableStyle::tabs, TableStyle::bars, TableStyle::commas}) {
    if (first_line.find(separator_of(style)) != first_line.npos) return style;
  }
  throw Error(concat("expected columns separated by tab, comma or |, got ", first_line));
}

int find_column(const std::vector<std::string>& header, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    for (size_t i = 0; i < header.size(); ++i) {
      if (lowercase(trim(header[i])) == name) return static_cast<int>(i);
    }
  }
  return -1;
}

}  // namespace centroid::audio
