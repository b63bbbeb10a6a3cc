#include "apps/audio/files.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <streambuf>
#ifdef CENTROID_HAVE_ZLIB
#include <zlib.h>
#endif

#include "apps/audio/text.h"
#include "tensor/error.h"
#include "tensor/file.h"

namespace centroid::audio {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kSpaces = " \t\r\n";

#ifdef CENTROID_HAVE_ZLIB

/// Inflates a gzip file. Errors leave it as exceptions.
class GzipBuffer : public std::streambuf {
 public:
  explicit GzipBuffer(const std::string& path) : path_(path), file_(gzopen(path.c_str(), "rb")) {
    CENTROID_CHECK(file_, path, ": cannot be opened: ", std::strerror(errno));
  }
  ~GzipBuffer() override { gzclose_r(file_); }

 protected:
  int_type underflow() override {
    const int got = gzread(file_, buffer_, sizeof buffer_);
    int code = Z_OK;
    const std::string message = gzerror(file_, &code);
    CENTROID_CHECK(got >= 0 && (code == Z_OK || code == Z_STREAM_END), path_,
                   ": truncated or corrupt gzip file: ", message);
    if (got == 0) return traits_type::eof();
    CENTROID_CHECK(!gzdirect(file_), path_, ": expected gzip data, got something else");
    setg(buffer_, buffer_, buffer_ + got);
    return traits_type::to_int_type(*gptr());
  }

 private:
  std::string path_;
  gzFile file_;
  char buffer_[1 << 16];
};

/// With exceptions on, what the buffer throws reaches the caller of getline and read.
class GzipStream : public std::istream {
 public:
  explicit GzipStream(const std::string& path) : std::istream(nullptr), buffer_(path) {
    init(&buffer_);
    exceptions(std::ios::badbit);
  }

 private:
  GzipBuffer buffer_;
};

std::unique_ptr<std::istream> open_gzip(const std::string& path) {
  return std::make_unique<GzipStream>(path);
}

std::string deflate(const std::string& path, const std::string& text) {
  z_stream stream{};
  constexpr int kGzip = 15 + 16;  // the largest window, and gzip's header
  CENTROID_CHECK(
      deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kGzip, 9, Z_DEFAULT_STRATEGY) == Z_OK,
      path, ": zlib cannot compress");
  std::string bytes;
  std::vector<unsigned char> buffer(1 << 16);
  int code = Z_OK;
  for (size_t at = 0; code == Z_OK;) {
    if (stream.avail_in == 0) {
      // zlib counts what it is given in 32 bits.
      const size_t part = std::min(text.size() - at, size_t{1} << 30);
      stream.next_in = reinterpret_cast<unsigned char*>(const_cast<char*>(text.data() + at));
      stream.avail_in = static_cast<unsigned>(part);
      at += part;
    }
    stream.next_out = buffer.data();
    stream.avail_out = static_cast<unsigned>(buffer.size());
    code = ::deflate(&stream, at == text.size() ? Z_FINISH : Z_NO_FLUSH);
    bytes.append(buffer.begin(), buffer.end() - stream.avail_out);
  }
  deflateEnd(&stream);
  CENTROID_CHECK(code == Z_STREAM_END, path, ": zlib cannot compress: code ", code);
  return bytes;
}

#else

std::string deflate(const std::string& path, const std::string&) {
  throw Error(concat(path, ": this build has no zlib (leave out .gz, or install zlib1g-dev and ",
                     "rebuild)"));
}

std::unique_ptr<std::istream> open_gzip(const std::string& path) {
  throw Error(concat(path, ": this build has no zlib (unpack the file with gunzip, or install ",
                     "zlib1g-dev and rebuild)"));
}

#endif

void check_file(const std::string& path) {
  std::error_code error;
  CENTROID_CHECK(fs::exists(path, error), path, ": no such file");
  CENTROID_CHECK(!fs::is_directory(path, error), path, ": expected a file, got a folder");
}

}  // namespace

std::string read_text(const std::string& path) {
  check_file(path);
  if (!path.ends_with(".gz")) return read_file(path);
  const std::unique_ptr<std::istream> in = open_gzip(path);
  return {std::istreambuf_iterator<char>(*in), {}};
}

std::unique_ptr<std::istream> open_text(const std::string& path) {
  check_file(path);
  if (path.ends_with(".gz")) return open_gzip(path);
  auto in = std::make_unique<std::ifstream>(path, std::ios::binary);
  CENTROID_CHECK(*in, path, ": cannot be opened: ", std::strerror(errno));
  return in;
}

bool LineReader::next(std::string& line) {
  bool more = false;
  try {
    more = in_ && std::getline(*in_, line);
  } catch (const Error&) {  // of damaged gzip data
    in_.reset();
    throw;
  }
  if (!more) {
    const bool failed = in_ && in_->bad();
    in_.reset();  // a caller who goes on after the error finds the end, not the error again
    CENTROID_CHECK(!failed, name_, ":", number_ + 1, ": reading failed: ", std::strerror(errno));
    return false;
  }
  if (++number_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
  if (line.ends_with('\r')) line.pop_back();
  CENTROID_CHECK(line.find('\0') == line.npos, place(), ": expected text, got a NUL byte");
  CENTROID_CHECK(valid_utf8(line), place(),
                 ": expected UTF-8, got other bytes (convert with iconv)");
  return true;
}

bool LineReader::next_entry(std::string& entry) {
  while (next(entry)) {
    entry = trim(entry);
    if (!entry.empty()) return true;
  }
  return false;
}

void write_text(const std::string& path, const std::string& text) {
  if (!path.ends_with(".gz")) return write_file_atomic(path, text.data(), text.size());
  const std::string bytes = deflate(path, text);
  write_file_atomic(path, bytes.data(), bytes.size());
}

namespace {

std::vector<std::string> all_lines(LineReader reader) {
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(std::move(line));
  return lines;
}

}  // namespace

std::vector<std::string> read_lines(const std::string& path) { return all_lines(LineReader(path)); }

std::vector<std::string> lines_of(std::string_view bytes, const std::string& name) {
  return all_lines(LineReader(std::make_unique<std::istringstream>(std::string(bytes)), name));
}

std::vector<Line> read_entries(const std::string& path) {
  LineReader reader(path);
  std::vector<Line> entries;
  for (std::string text; reader.next_entry(text);) {
    entries.push_back({reader.number(), std::move(text)});
  }
  return entries;
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  CENTROID_CHECK(!error, path, ": the folder cannot be made: ", error.message());
}

void check_folder(const std::string& what, const std::string& path) {
  std::error_code error;
  CENTROID_CHECK(fs::exists(path, error), what, ": expected a folder, got ", path,
                 ", which does not exist");
  CENTROID_CHECK(fs::is_directory(path, error), what, ": expected a folder, got ", path,
                 ", which is a file");
}

TemporaryFile::TemporaryFile(const std::string& name) {
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  CENTROID_CHECK(!error, "TMPDIR: no folder for temporary files: ", error.message());
  path_ = (folder / (name + "-XXXXXX")).string();  // mkstemp puts letters for each X
  const int fd = ::mkstemp(path_.data());
  CENTROID_CHECK(fd >= 0, path_, ": cannot be made: ", std::strerror(errno));
  ::close(fd);
}

TemporaryFile::~TemporaryFile() { ::unlink(path_.c_str()); }

std::vector<std::string> list_files(const std::string& folder, std::string_view suffix) {
  return list_files(folder, [&](const std::string& file) { return file.ends_with(suffix); });
}

std::vector<std::string> list_files(const std::string& folder,
                                    const std::function<bool(const std::string&)>& wanted) {
  check_folder("list files", folder);
  std::vector<std::string> found;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error), end;
  for (; !error && it != end; it.increment(error)) {
    std::string file = it->path().lexically_relative(folder).generic_string();
    if (wanted(file) && it->is_regular_file(error)) found.push_back(std::move(file));
    error.clear();  // a dangling link is not a file; it is not an error of the folder either
  }
  CENTROID_CHECK(!error, folder, ": the folder cannot be read: ", error.message());
  std::sort(found.begin(), found.end());
  return found;
}

std::string find_sound(const std::vector<std::string>& folders, const std::string& name,
                       const char* expected) {
  std::error_code error;
  for (const fs::path folder : folders) {
    for (const char* extension : {"", ".wav", ".flac", ".mp3", ".ogg", ".opus"}) {
      const fs::path path = folder / (name + extension);
      if (fs::is_regular_file(path, error)) return path.string();
    }
  }
  return (fs::path(folders[0]) / (name + expected)).string();
}

std::string trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpaces);
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1));
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = text.find_first_not_of(kSpaces); begin != text.npos;) {
    const size_t end = std::min(text.find_first_of(kSpaces, begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kSpaces, end);
  }
  return words;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

FirstWord first_word(std::string_view line) {
  const std::string text = trim(line);
  const size_t end = std::min(text.find_first_of(kSpaces), text.size());
  return {text.substr(0, end), trim(std::string_view(text).substr(end))};
}

bool parse_number(std::string_view text, double* value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return code == std::errc() && end == text.data() + text.size() && std::isfinite(*value);
}

}  // namespace centroid::audio
