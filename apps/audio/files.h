#pragma once
// Reading of text files and folders, and the few string helpers the parsers share. Files are
// written with write_file_atomic of tensor/file.h.
#include <functional>
#include <istream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace centroid::audio {

/// The bytes of a file; a name ending in `.gz` is inflated. Throws when it cannot be read, is not
/// valid gzip, or is gzip and the build has no zlib.
std::string read_text(const std::string& path);

/// The lines of a text without their line ends (LF or CRLF) and without a byte order mark. `name`
/// stands for the file in messages. Throws for a NUL byte or invalid UTF-8, naming the line.
std::vector<std::string> lines_of(std::string_view bytes, const std::string& name);

/// Writes a text file atomically; compressed when the name ends in `.gz`. Throws as
/// write_file_atomic does, and when it is to be compressed and the build has no zlib.
void write_text(const std::string& path, const std::string& text);

/// The bytes of a file as a stream; a name ending in `.gz` is inflated on the way. Throws as
/// read_text does, for damaged gzip data while it is read.
std::unique_ptr<std::istream> open_text(const std::string& path);

/// The lines of a text file (also `.gz`), one at a time, without their line ends (LF or CRLF) and
/// without a byte order mark.
class LineReader {
 public:
  /// Throws when the file is missing or cannot be opened.
  explicit LineReader(const std::string& path) : LineReader(open_text(path), path) {}
  /// Reads from any stream; `name` stands for the file in messages.
  LineReader(std::unique_ptr<std::istream> in, std::string name)
      : in_(std::move(in)), name_(std::move(name)) {}

  /// Reads the next line; false at the end. Throws, naming file and line, for a line with a NUL
  /// byte or invalid UTF-8 (the next call goes on after it) and when reading fails.
  bool next(std::string& line);
  /// As `next`, without white space at the line's ends and without blank lines.
  bool next_entry(std::string& entry);

  const std::string& name() const { return name_; }
  /// Number of the line read last, from 1.
  size_t number() const { return number_; }
  /// `NAME:NUMBER` of the line read last.
  std::string place() const { return name_ + ":" + std::to_string(number_); }

 private:
  std::unique_ptr<std::istream> in_;
  std::string name_;
  size_t number_ = 0;
};

/// The lines of a text file (also `.gz`) without their line ends (LF or CRLF) and without a byte
/// order mark. Throws when the file is missing or holds a NUL byte or invalid UTF-8, naming the
/// line.
std::vector<std::string> read_lines(const std::string& path);

/// The same of bytes; `name` stands for the file in messages.
std::vector<std::string> split_lines(std::string_view bytes, const std::string& name);

/// One line of a file, without white space at its ends, and its number from 1.
struct Line {
  size_t number;
  std::string text;
};

/// `read_lines` without blank lines.
std::vector<Line> read_entries(const std::string& path);

/// Creates a folder and its parents. Throws with the system's reason.
void make_folder(const std::string& path);

/// A new empty file in the folder for temporary files ($TMPDIR) that vanishes with this object. Who
/// has opened it keeps what is in it.
class TemporaryFile {
 public:
  /// `name` is part of the file's name. Throws when it cannot be made.
  explicit TemporaryFile(const std::string& name);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The paths (relative to `folder`, sorted, '/' separators) of the regular files below it whose
/// name ends in `suffix`. Throws when the folder is missing.
std::vector<std::string> list_files(const std::string& folder, std::string_view suffix);
/// The same of those whose path (relative to `folder`) is wanted.
std::vector<std::string> list_files(const std::string& folder,
                                    const std::function<bool(const std::string&)>& wanted);

/// The sound file `name` in the first of `folders` that has it, as it is or with a usual extension
/// added; if there is none, `name` with the extension `expected` in the first folder.
std::string find_sound(const std::vector<std::string>& folders, const std::string& name,
                       const char* expected = "");

/// Throws unless `path` is a folder; `what` begins the message.
void check_folder(const std::string& what, const std::string& path);

/// `text` without white space (space, tab, CR, LF) at both ends.
std::string trim(std::string_view text);

/// Splits at runs of white space; no empty parts.
std::vector<std::string> split_words(std::string_view text);

/// The parts joined with `separator` between them.
std::string join(const std::vector<std::string>& parts, std::string_view separator);

/// `word` and the rest of the line after the white space that follows it.
struct FirstWord {
  std::string word, rest;
};
FirstWord first_word(std::string_view line);

/// A number written in full (no trailing characters), finite. Returns false otherwise.
bool parse_number(std::string_view text, double* value);

}  // namespace centroid::audio
