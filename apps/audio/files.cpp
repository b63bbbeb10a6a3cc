#include "apps/audio/files.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
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
std::string inflate_file(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  CENTROID_CHECK(file, path, ": cannot be opened: ", std::strerror(errno));
  std::string bytes;
  char buffer[1 << 16];
  int got = 0;
  while ((got = gzread(file, buffer, sizeof buffer)) > 0) bytes.append(buffer, got);
  int code = Z_OK;
  const std::string message = gzerror(file, &code);
  const bool plain = gzdirect(file);
  gzclose_r(file);
  CENTROID_CHECK(got == 0 && (code == Z_OK || code == Z_STREAM_END), path,
                 ": truncated or corrupt gzip file: ", message);
  CENTROID_CHECK(!plain || bytes.empty(), path, ": expected gzip data, got something else");
  return bytes;
}
#else
std::string inflate_file(const std::string& path) {
  throw Error(concat(path, ": this build has no zlib (unpack the file with gunzip, or install ",
                     "zlib1g-dev and rebuild)"));
}
#endif

}  // namespace

std::string read_text(const std::string& path) {
  std::error_code error;
  CENTROID_CHECK(fs::exists(path, error), path, ": no such file");
  CENTROID_CHECK(!fs::is_directory(path, error), path, ": expected a file, got a folder");
  return path.ends_with(".gz") ? inflate_file(path) : read_file(path);
}

std::vector<std::string> read_lines(const std::string& path) {
  return split_lines(read_text(path), path);
}

std::vector<std::string> split_lines(std::string_view bytes, const std::string& path) {
  std::string_view rest = bytes;
  if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
  std::vector<std::string> lines;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    const size_t number = lines.size() + 1;
    CENTROID_CHECK(line.find('\0') == line.npos, path, ":", number,
                   ": expected text, got a NUL byte");
    CENTROID_CHECK(valid_utf8(line), path, ":", number,
                   ": expected UTF-8, got other bytes (convert with iconv)");
    lines.emplace_back(line);
  }
  return lines;
}

std::vector<Line> read_entries(const std::string& path) {
  std::vector<Line> entries;
  size_t number = 0;
  for (const std::string& line : read_lines(path)) {
    ++number;
    if (std::string text = trim(line); !text.empty()) entries.push_back({number, std::move(text)});
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

std::vector<std::string> list_files(const std::string& folder, std::string_view suffix) {
  check_folder("list files", folder);
  std::vector<std::string> found;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error), end;
  for (; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().ends_with(suffix)) continue;
    if (it->is_regular_file(error)) {
      found.push_back(it->path().lexically_relative(folder).generic_string());
    }
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
