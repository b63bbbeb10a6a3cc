#include "apps/audio/textgrid.h"

#include <algorithm>
#include <cmath>

#include "apps/audio/ctm.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/error.h"

namespace centroid::audio {

namespace {

/// UTF-16 with a byte order mark -> UTF-8; other bytes as they are.
std::string to_utf8_bytes(std::string_view bytes, const std::string& name) {
  const bool little = bytes.starts_with("\xFF\xFE"), big = bytes.starts_with("\xFE\xFF");
  if (!little && !big) {
    if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
    return std::string(bytes);
  }
  CENTROID_CHECK(bytes.size() % 2 == 0, name, ": expected UTF-16, got an odd number of bytes");
  const auto unit = [&](size_t i) {
    const auto a = static_cast<unsigned char>(bytes[i]),
               b = static_cast<unsigned char>(bytes[i + 1]);
    return static_cast<char32_t>(little ? a | b << 8 : a << 8 | b);
  };
  std::string out;
  for (size_t i = 2; i < bytes.size(); i += 2) {
    char32_t code = unit(i);
    if (code >= 0xD800 && code < 0xDC00 && i + 3 < bytes.size() && unit(i + 2) >> 10 == 0x37) {
      code = 0x10000 + ((code - 0xD800) << 10) + (unit(i + 2) - 0xDC00);
      i += 2;
    }
    CENTROID_CHECK(code < 0xD800 || code > 0xDFFF, name,
                   ": expected UTF-16, got half of a surrogate pair at byte ", i);
    out += to_utf8(code);
  }
  return out;
}

/// What a text file of Praat consists of: numbers, texts in quotes and flags in angle brackets that
/// stand free. All else (`xmin =`, `intervals [3]:`) is for the human reader, which is why the long
/// and the short format are read alike.
class Tokens {
 public:
  Tokens(std::string_view bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  double number(const char* what) {
    Token token = next(what);
    double value = 0;
    CENTROID_CHECK(!token.quoted && parse_number(token.text, &value), where(), what,
                   ": expected a number, got ", token.quoted ? "the text " : "", token.text);
    return value;
  }
  int64_t count(const char* what) {
    const double value = number(what);
    CENTROID_CHECK(value >= 0 && value == std::floor(value) && value < 1e15, where(), what,
                   ": expected a count, got ", value);
    return static_cast<int64_t>(value);
  }
  std::string text(const char* what) {
    Token token = next(what);
    CENTROID_CHECK(token.quoted, where(), what, ": expected a text in quotes, got ", token.text);
    return token.text;
  }
  std::string flag(const char* what) {
    Token token = next(what);
    CENTROID_CHECK(!token.quoted && token.text.starts_with('<'), where(), what,
                   ": expected a flag such as <exists>, got ", token.text);
    return token.text;
  }
  void expect_end() {
    Token token;
    CENTROID_CHECK(!find(&token), where(), "expected the end of the file, got ", token.text);
  }
  std::string where() const { return concat(name_, ":", line_, ": "); }

 private:
  struct Token {
    bool quoted = false;
    std::string text;
  };

  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

  char take() {
    if (bytes_[at_] == '\n') ++next_line_;
    return bytes_[at_++];
  }

  std::string quoted() {
    std::string text;
    for (++at_; at_ < bytes_.size();) {
      const char c = take();
      if (c != '"') {
        text += c;
      } else if (at_ < bytes_.size() && bytes_[at_] == '"') {
        text += take();
      } else {
        return text;
      }
    }
    throw Error(concat(where(), "a text in quotes does not end"));
  }

  bool find(Token* token) {
    for (;;) {
      while (at_ < bytes_.size() && is_space(bytes_[at_])) take();
      line_ = next_line_;
      if (at_ == bytes_.size()) return false;
      if (bytes_[at_] == '!') {  // a comment up to the end of the line
        while (at_ < bytes_.size() && bytes_[at_] != '\n') take();
        continue;
      }
      if (bytes_[at_] == '"') {
        *token = {true, quoted()};
        return true;
      }
      std::string word;
      while (at_ < bytes_.size() && !is_space(bytes_[at_])) word += take();
      double value = 0;
      if (word.starts_with('<') || parse_number(word, &value)) {
        *token = {false, std::move(word)};
        return true;
      }
    }
  }

  Token next(const char* what) {
    Token token;
    CENTROID_CHECK(find(&token), where(), "expected ", what, ", got the end of the file");
    return token;
  }

  std::string_view bytes_;
  const std::string& name_;
  size_t at_ = 0;
  int64_t line_ = 1, next_line_ = 1;
};

TimedWord read_mark(Tokens& tokens, bool point, double previous, double end) {
  TimedWord mark;
  mark.begin = tokens.number(point ? "time" : "xmin");
  mark.end = point ? mark.begin : tokens.number("xmax");
  CENTROID_CHECK(mark.begin >= previous && mark.end >= mark.begin && mark.end <= end,
                 tokens.where(), "expected a mark between ", previous, " and ", end, " s, got ",
                 mark.begin, " to ", mark.end, " s");
  mark.text = tokens.text("text");
  return mark;
}

Tier read_tier(Tokens& tokens) {
  const std::string kind = tokens.text("class");
  CENTROID_CHECK(kind == "IntervalTier" || kind == "TextTier", tokens.where(),
                 "class: expected IntervalTier or TextTier, got ", kind);
  Tier tier;
  tier.points = kind == "TextTier";
  tier.name = tokens.text("name");
  tier.begin = tokens.number("xmin");
  tier.end = tokens.number("xmax");
  CENTROID_CHECK(tier.begin <= tier.end, tokens.where(), "the tier ends at ", tier.end,
                 " s, before it begins at ", tier.begin, " s");
  double previous = tier.begin;
  for (int64_t left = tokens.count("number of marks"); left > 0; --left) {
    tier.marks.push_back(read_mark(tokens, tier.points, previous, tier.end));
    previous = tier.marks.back().end;
  }
  return tier;
}

std::string quoted(const std::string& text) {
  CENTROID_CHECK(valid_utf8(text) && text.find('\0') == text.npos,
                 "TextGrid: expected UTF-8, got other bytes in a text");
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

/// Writes `name = value` indented, or only the value, as the format has it.
class Writer {
 public:
  explicit Writer(bool short_format) : short_(short_format) {}
  void value(int depth, const std::string& name, const std::string& value) {
    out += short_ ? value + "\n" : indent(depth) + name + " = " + value + " \n";
  }
  void heading(int depth, const std::string& text) {
    if (!short_) out += indent(depth) + text + "\n";
  }
  std::string out;

 private:
  static std::string indent(int depth) { return std::string(4 * depth, ' '); }
  bool short_;
};

void write_tier(Writer& w, const Tier& tier) {
  w.value(2, "class", tier.points ? "\"TextTier\"" : "\"IntervalTier\"");
  w.value(2, "name", quoted(tier.name));
  w.value(2, "xmin", number_text(tier.begin));
  w.value(2, "xmax", number_text(tier.end));
  const std::string list = tier.points ? "points" : "intervals";
  w.value(2, list + ": size", std::to_string(tier.marks.size()));
  double previous = tier.begin;
  for (size_t i = 0; i < tier.marks.size(); ++i) {
    const TimedWord& mark = tier.marks[i];
    CENTROID_CHECK(mark.begin >= previous && mark.end >= mark.begin && mark.end <= tier.end,
                   "TextGrid: tier ", tier.name, ": expected marks in order between ", previous,
                   " and ", tier.end, " s, got ", mark.begin, " to ", mark.end, " s");
    CENTROID_CHECK(!tier.points || mark.begin == mark.end, "TextGrid: tier ", tier.name,
                   ": a point begins at ", mark.begin, " s and ends at ", mark.end, " s");
    previous = mark.end;
    w.heading(2, concat(list, " [", i + 1, "]:"));
    w.value(3, tier.points ? "number" : "xmin", number_text(mark.begin));
    if (!tier.points) w.value(3, "xmax", number_text(mark.end));
    w.value(3, tier.points ? "mark" : "text", quoted(mark.text));
  }
}

}  // namespace

const Tier* TextGrid::find(const std::string& name) const {
  for (const Tier& tier : tiers) {
    if (tier.name == name) return &tier;
  }
  return nullptr;
}

TextGrid read_textgrid(const std::string& path) { return parse_textgrid(read_text(path), path); }

TextGrid parse_textgrid(std::string_view bytes, const std::string& name) {
  const std::string text = to_utf8_bytes(bytes, name);
  CENTROID_CHECK(valid_utf8(text), name, ": expected UTF-8 or UTF-16, got other bytes (convert ",
                 "with iconv)");
  CENTROID_CHECK(text.find('\0') == text.npos, name,
                 ": expected a TextGrid as text, got a NUL byte (is it in Praat's binary format?)");
  Tokens tokens(text, name);
  const std::string kind = tokens.text("File type");
  CENTROID_CHECK(kind == "ooTextFile" || kind == "ooTextFile short", tokens.where(),
                 "File type: expected ooTextFile, got ", kind);
  const std::string object = tokens.text("Object class");
  CENTROID_CHECK(object == "TextGrid", tokens.where(), "Object class: expected TextGrid, got ",
                 object);
  TextGrid grid;
  grid.begin = tokens.number("xmin");
  grid.end = tokens.number("xmax");
  CENTROID_CHECK(grid.begin <= grid.end, tokens.where(), "the grid ends at ", grid.end,
                 " s, before it begins at ", grid.begin, " s");
  if (tokens.flag("tiers?") == "<exists>") {
    for (int64_t left = tokens.count("number of tiers"); left > 0; --left) {
      grid.tiers.push_back(read_tier(tokens));
    }
  }
  tokens.expect_end();
  return grid;
}

std::string format_textgrid(const TextGrid& grid, bool short_format) {
  const auto finite = [](double begin, double end) {
    CENTROID_CHECK(std::isfinite(begin) && std::isfinite(end) && begin <= end,
                   "TextGrid: expected finite times in order, got ", begin, " to ", end, " s");
  };
  finite(grid.begin, grid.end);
  Writer w(short_format);
  w.out = "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\n";
  w.value(0, "xmin", number_text(grid.begin));
  w.value(0, "xmax", number_text(grid.end));
  w.out += short_format ? "<exists>\n" : "tiers? <exists> \n";
  w.value(0, "size", std::to_string(grid.tiers.size()));
  w.heading(0, "item []: ");
  for (size_t i = 0; i < grid.tiers.size(); ++i) {
    finite(grid.tiers[i].begin, grid.tiers[i].end);
    w.heading(1, concat("item [", i + 1, "]:"));
    write_tier(w, grid.tiers[i]);
  }
  return w.out;
}

Tier interval_tier(const std::string& name, const std::vector<TimedWord>& segments, double end) {
  Tier tier;
  tier.name = name;
  tier.end = round_to_ms(end);
  double at = 0;
  const auto add = [&](double to, const std::string& text) {
    TimedWord mark;
    mark.begin = at;
    mark.end = at = to;
    mark.text = text;
    tier.marks.push_back(std::move(mark));
  };
  for (const TimedWord& s : segments) {
    const double from = round_to_ms(s.begin), to = round_to_ms(s.end);
    CENTROID_CHECK(from >= at && to > from && to <= tier.end, "TextGrid: tier ", name, ": ", s.text,
                   " from ", from, " to ", to, " s: expected a time above 0 s between ", at,
                   " and ", tier.end, " s");
    if (from > at) add(from, "");
    add(to, s.text);
  }
  if (at < tier.end) add(tier.end, "");
  return tier;
}

}  // namespace centroid::audio
