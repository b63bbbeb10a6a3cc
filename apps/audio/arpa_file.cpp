// ARPA files: text -> n-gram model -> text.
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>

#include "apps/audio/arpa.h"
#include "apps/audio/files.h"
#include "apps/audio/text.h"
#include "tensor/error.h"
#include "tensor/file.h"

namespace centroid::audio {

namespace {

/// Lines of a text, trimmed, without blank ones; a line is a view into the text.
class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : rest_(text), name_(name) {
    if (rest_.starts_with("\xEF\xBB\xBF")) rest_.remove_prefix(3);
  }

  /// The next line that is not blank; false at the end.
  bool next(std::string_view* line) {
    while (!rest_.empty()) {
      const size_t end = std::min(rest_.find('\n'), rest_.size());
      *line = rest_.substr(0, end);
      rest_.remove_prefix(std::min(end + 1, rest_.size()));
      ++number_;
      constexpr const char* kSpaces = " \t\r";
      const size_t first = line->find_first_not_of(kSpaces);
      if (first == line->npos) continue;
      *line = line->substr(first, line->find_last_not_of(kSpaces) - first + 1);
      return true;
    }
    ++number_;
    return false;
  }

  int64_t number() const { return number_; }

  template <typename... Parts>
  void check(bool ok, const Parts&... parts) const {
    if (!ok) throw Error(concat(name_, ":", number_, ": ", parts...));
  }

 private:
  std::string_view rest_;
  const std::string& name_;
  int64_t number_ = 0;
};

/// Cuts the next field off `line`; empty when there is none.
std::string_view take_field(std::string_view* line) {
  const size_t first = line->find_first_not_of(" \t");
  if (first == line->npos) {
    *line = {};
    return {};
  }
  line->remove_prefix(first);
  const std::string_view field = line->substr(0, line->find_first_of(" \t"));
  line->remove_prefix(field.size());
  return field;
}

template <typename T>
bool parse_value(std::string_view text, T* value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return code == std::errc() && end == text.data() + text.size();
}

std::string quoted(std::string_view text) {
  constexpr size_t kMost = 60;
  return concat("'", text.substr(0, kMost), text.size() > kMost ? "..." : "", "'");
}

class ArpaParser {
 public:
  ArpaParser(std::string_view text, const std::string& name) : in_(text, name), name_(name) {}

  NgramModel parse() {
    read_header();
    for (int n = 1; n <= static_cast<int>(counts_.size()); ++n) read_section(n);
    in_.check(line_ == "\\end\\", "expected \\end\\, got ", quoted(line_));
    const bool more = in_.next(&line_);
    in_.check(!more, "expected the end of the file after \\end\\, got ", quoted(line_));
    return NgramModel(std::move(words_), std::move(tables_), name_);
  }

 private:
  void read_line(const char* expected) {
    in_.check(in_.next(&line_), "expected ", expected, ", got the end of the file");
  }

  void read_header() {
    bool intermediate = false;
    do {
      in_.check(in_.next(&line_),
                "expected an n-gram model as ARPA text with a line \\data\\, found none");
      intermediate = intermediate || line_.starts_with("iARPA");
    } while (line_ != "\\data\\");
    in_.check(!intermediate,
              "expected ARPA text, got IRSTLM's intermediate iARPA "
              "(convert it with compile-lm --text=yes)");
    for (read_line("ngram 1=COUNT"); line_.starts_with("ngram"); read_line("\\1-grams:")) {
      read_count();
    }
    in_.check(!counts_.empty(), "expected ngram 1=COUNT, got ", quoted(line_));
    tables_.resize(counts_.size());
  }

  // `ngram 2=17`, with or without spaces around the numbers.
  void read_count() {
    std::string text;
    for (const char c : line_.substr(std::strlen("ngram"))) {
      if (c != ' ' && c != '\t') text += c;
    }
    const size_t equals = text.find('=');
    int order = 0;
    int64_t count = -1;
    const bool ok = equals != text.npos &&
                    parse_value(std::string_view(text).substr(0, equals), &order) &&
                    parse_value(std::string_view(text).substr(equals + 1), &count) && count >= 0;
    in_.check(ok, "expected ngram ORDER=COUNT, got ", quoted(line_));
    in_.check(order == static_cast<int>(counts_.size()) + 1, "expected the count of order ",
              counts_.size() + 1, ", got order ", order);
    counts_.push_back(count);
  }

  void read_section(int n) {
    const std::string title = concat("\\", n, "-grams:");
    in_.check(line_ == title, "expected ", title, ", got ", quoted(line_));
    NgramTable& table = tables_[n - 1];
    const bool highest = n == static_cast<int>(counts_.size());
    for (read_line("n-grams or \\end\\"); !line_.starts_with('\\');
         read_line("n-grams or \\end\\")) {
      read_ngram(n, highest, table);
    }
    const auto found = static_cast<int64_t>(table.log_prob.size());
    in_.check(found == counts_[n - 1], "the header promises ", counts_[n - 1], " ", n,
              "-grams, there are ", found);
  }

  void read_ngram(int n, bool highest, NgramTable& table) {
    std::string_view rest = line_;
    float log_prob = 0, backoff = 0;
    const std::string_view first = take_field(&rest);
    in_.check(parse_value(first, &log_prob) && std::isfinite(log_prob),
              "expected a log10 probability, got ", quoted(first));
    in_.check(log_prob <= 0, "expected a log10 probability of at most 0, got ", first);
    for (int k = 0; k < n; ++k) {
      const std::string_view word = take_field(&rest);
      in_.check(!word.empty(), "expected a ", n, "-gram, got ", k, " words: ", quoted(line_));
      table.words.push_back(number_of(word, n));
    }
    const std::string_view last = take_field(&rest);
    in_.check(last.empty() || (parse_value(last, &backoff) && std::isfinite(backoff)),
              "expected a log10 back-off weight after ", n, " words, got ", quoted(last));
    in_.check(take_field(&rest).empty(), "expected a ", n,
              "-gram, got more words: ", quoted(line_));
    in_.check(!highest || backoff == 0, "expected no back-off weight in the highest order, got ",
              last);
    table.log_prob.push_back(log_prob);
    if (!highest) table.backoff.push_back(backoff);
    table.lines.push_back(in_.number());
  }

  int32_t number_of(std::string_view text, int n) {
    std::string word(text);
    const auto it = numbers_.find(word);
    if (n > 1) {
      in_.check(it != numbers_.end(), "the word ", quoted(word), " is not among the unigrams");
      return it->second;
    }
    in_.check(it == numbers_.end(), "the word ", quoted(word), " occurs twice");
    in_.check(valid_utf8(word) && word.find('\0') == word.npos,
              "expected UTF-8, got other bytes (convert with iconv)");
    const auto number = static_cast<int32_t>(words_.size());
    numbers_.emplace(word, number);
    words_.push_back(std::move(word));
    return number;
  }

  Reader in_;
  const std::string& name_;
  std::string_view line_;
  std::vector<int64_t> counts_;
  std::vector<std::string> words_;
  std::unordered_map<std::string, int32_t> numbers_;
  std::vector<NgramTable> tables_;
};

void append_number(std::string& out, float value) {
  char text[32];
  const auto [end, code] = std::to_chars(text, text + sizeof text, value);
  out.append(text, end);
}

}  // namespace

NgramModel parse_arpa(std::string_view text, const std::string& name) {
  return ArpaParser(text, name).parse();
}

NgramModel read_arpa(const std::string& path) { return parse_arpa(read_text(path), path); }

std::string to_arpa(const NgramModel& model) {
  std::string out = "\\data\\\n";
  for (int n = 1; n <= model.order(); ++n) out += concat("ngram ", n, "=", model.count(n), "\n");
  const std::vector<NgramTable> tables = model.tables();
  for (int n = 1; n <= model.order(); ++n) {
    const NgramTable& table = tables[n - 1];
    out += concat("\n\\", n, "-grams:\n");
    for (size_t i = 0; i < table.log_prob.size(); ++i) {
      append_number(out, table.log_prob[i]);
      for (int k = 0; k < n; ++k) {
        out += k == 0 ? '\t' : ' ';
        out += model.words()[table.words[i * n + k]];
      }
      if (!table.backoff.empty() && table.backoff[i] != 0) {
        out += '\t';
        append_number(out, table.backoff[i]);
      }
      out += '\n';
    }
  }
  return out + "\n\\end\\\n";
}

void write_arpa(const std::string& path, const NgramModel& model) {
  write_text(path, to_arpa(model));
}

}  // namespace centroid::audio
