#include "apps/audio/problem_log.h"

#include <cstdio>
#include <numeric>

#include "apps/audio/files.h"
#include "apps/audio/text.h"

namespace centroid::audio {

namespace {

const char* const kHeader = "kind\tid\twhat";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\t' || c == '\n' || c == '\r' || c == '\\') {
      out += '\\';
      out += c == '\t' ? 't' : c == '\n' ? 'n' : c == '\r' ? 'r' : '\\';
    } else {
      out += c;
    }
  }
  return out;
}

/// Bytes that are no UTF-8, as names of files may have them, become `\xFF`.
std::string printable(const std::string& text) {
  if (valid_utf8(text)) return text;
  std::string out;
  for (const char c : text) {
    char code[8];
    const auto byte = static_cast<unsigned char>(c);
    std::snprintf(code, sizeof code, byte < 0x80 ? "%c" : "\\x%02X", byte);
    out += code;
  }
  return out;
}

std::string unescaped(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    out += c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
  }
  return out;
}

ProblemKind kind_from(const std::string& name) {
  for (int i = 0; i < kProblemKinds; ++i) {
    if (name_of(static_cast<ProblemKind>(i)) == name) return static_cast<ProblemKind>(i);
  }
  throw Error(concat("expected a kind of problem, got ", name));
}

}  // namespace

ProblemLog::ProblemLog(const std::string& path) : file_(path), buffer_(concat(kHeader, "\n")) {}

void ProblemLog::add(const Problem& problem) {
  const Problem p{printable(problem.id), printable(problem.what), problem.kind};
  ++counts_[static_cast<size_t>(p.kind)];
  if (first_.size() < kKept) first_.push_back(p);
  buffer_ += concat(name_of(p.kind), "\t", escaped(p.id), "\t", escaped(p.what), "\n");
  if (buffer_.size() < (1 << 16)) return;
  file_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void ProblemLog::commit() {
  file_.write(buffer_.data(), buffer_.size());
  file_.commit();
}

int64_t ProblemLog::faults() const {
  return std::accumulate(counts_.begin(), counts_.end(), int64_t{0}) - warnings();
}

int64_t ProblemLog::warnings() const {
  int64_t sum = 0;
  for (int i = 0; i < kProblemKinds; ++i) {
    if (is_warning(static_cast<ProblemKind>(i))) sum += counts_[i];
  }
  return sum;
}

std::vector<Problem> read_problems(const std::string& path) {
  LineReader lines(path);
  std::string line;
  CENTROID_CHECK(lines.next(line) && line == kHeader, path,
                 ":1: expected the columns kind, id and what, got ", line);
  std::vector<Problem> problems;
  while (lines.next(line)) {
    const size_t first = line.find('\t'), second = line.find('\t', first + 1);
    CENTROID_CHECK(first != line.npos && second != line.npos, lines.place(),
                   ": expected three columns, got ", line);
    try {
      problems.push_back({unescaped(line.substr(first + 1, second - first - 1)),
                          unescaped(line.substr(second + 1)), kind_from(line.substr(0, first))});
    } catch (const Error& error) {
      throw Error(concat(lines.place(), ": ", error.what()));
    }
  }
  return problems;
}

}  // namespace centroid::audio
