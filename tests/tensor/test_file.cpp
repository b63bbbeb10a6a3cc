#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <filesystem>
#include <string>

#include "tensor/file.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;
namespace fs = std::filesystem;

namespace {

size_t files_in(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

// Limits the size of files this process may write, like a full disk.
class SizeLimit {
 public:
  explicit SizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

}  // namespace

TEST_CASE("a file is replaced as a whole and reads back, zero bytes included") {
  const TempDir dir;
  const std::string path = dir / "file", content("a\0b\n", 4);
  write_file_atomic(path, "older and longer", 16);
  write_file_atomic(path, content.data(), content.size());
  CHECK(read_file(path) == content);
  write_file_atomic(path, nullptr, 0);
  CHECK(read_file(path).empty());
  CHECK(files_in(dir.path()) == 1);
  // Readable by whom the umask allows, as files from other programs are.
  struct stat info {};
  const mode_t mask = ::umask(0);
  ::umask(mask);
  REQUIRE(::stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("pieces written to an AtomicFile appear on commit, not before") {
  const TempDir dir;
  const std::string path = dir / "file";
  write_file_atomic(path, "old", 3);
  {
    AtomicFile file(path);
    file.write("new ", 4);
    file.write("text", 4);
    CHECK(read_file(path) == "old");
    file.commit();
    CHECK(read_file(path) == "new text");
    CHECK(error_of([&] { file.commit(); }) ==
          "write: " + path + " was already committed or has failed");
    CHECK_THROWS_AS(file.write("x", 1), Error);
  }
  CHECK(read_file(path) == "new text");
}

TEST_CASE("an AtomicFile that is not committed leaves nothing") {
  const TempDir dir;
  const std::string path = dir / "file";
  {
    AtomicFile file(path);
    file.write("abc", 3);
    CHECK(files_in(dir.path()) == 1);
  }
  CHECK(files_in(dir.path()) == 0);
}

TEST_CASE("two writers of one path do not disturb each other") {
  const TempDir dir;
  const std::string path = dir / "file";
  AtomicFile first(path), second(path);
  first.write("first", 5);
  second.write("second", 6);
  second.commit();
  CHECK(read_file(path) == "second");
  first.commit();
  CHECK(read_file(path) == "first");
}

TEST_CASE("a name as long as the system allows can be written") {
  const TempDir dir;
  const std::string path = dir / std::string(255, 'x');
  write_file_atomic(path, "a", 1);
  CHECK(read_file(path) == "a");
  CHECK(error_of([&] { write_file_atomic(dir / std::string(256, 'x'), "a", 1); }) ==
        "write: cannot rename a temporary file to " + (dir / std::string(256, 'x')) +
            ": File name too long");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("a symbolic link is followed, not replaced") {
  const TempDir dir;
  write_file_atomic(dir / "real", "old", 3);
  fs::create_symlink("real", dir.path() / "link");
  write_file_atomic(dir / "link", "new", 3);
  CHECK(fs::is_symlink(dir.path() / "link"));
  CHECK(read_file(dir / "real") == "new");
}

TEST_CASE("writing names the file and the reason when it fails, and leaves nothing") {
  const TempDir dir;
  const std::string missing = dir / "no/file";
  CHECK(error_of([&] { write_file_atomic(missing, "a", 1); }) ==
        "write: cannot create " + missing + ": No such file or directory");
  const std::string folder = dir / "folder";
  fs::create_directory(folder);
  CHECK(error_of([&] { write_file_atomic(folder, "a", 1); }) ==
        "write: cannot replace " + folder + ": it exists and is not a regular file");
  CHECK(error_of([] { write_file_atomic("/dev/null", "a", 1); }) ==
        "write: cannot replace /dev/null: it exists and is not a regular file");
  write_file_atomic(dir / "plain", "a", 1);
  const std::string below = dir / "plain/file";
  CHECK(error_of([&] { write_file_atomic(below, "a", 1); }) ==
        "write: cannot create " + below + ": Not a directory");
  CHECK(files_in(dir.path()) == 2);
}

TEST_CASE("a folder without write permission is an error") {
  if (::geteuid() == 0) {
    WARN("skipped: root may write everywhere");
    return;
  }
  const TempDir dir;
  fs::permissions(dir.path(), fs::perms::owner_read | fs::perms::owner_exec);
  const std::string path = dir / "file";
  CHECK(error_of([&] { write_file_atomic(path, "a", 1); }) ==
        "write: cannot create " + path + ": Permission denied");
}

TEST_CASE("a write cut short by the system is an error, the old file stays") {
  const TempDir dir;
  const std::string path = dir / "file", large(100000, 'x');
  write_file_atomic(path, "old", 3);
  std::string message;
  {
    const SizeLimit limit(65536);
    message = error_of([&] { write_file_atomic(path, large.data(), large.size()); });
  }
  CHECK(message == "write: cannot write " + path + ": File too large");
  CHECK(read_file(path) == "old");
  CHECK(files_in(dir.path()) == 1);
  // The writer itself is of no more use.
  AtomicFile file(path);
  {
    const SizeLimit limit(65536);
    CHECK_THROWS_AS(file.write(large.data(), large.size()), Error);
  }
  CHECK_THROWS_AS(file.commit(), Error);
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("reading names the file and the reason when it fails") {
  const TempDir dir;
  const std::string missing = dir / "none", folder = dir.path().string();
  CHECK(error_of([&] { read_file(missing); }) ==
        "read: cannot open " + missing + ": No such file or directory");
  CHECK(error_of([&] { read_file(folder); }) == "read: cannot read " + folder + ": Is a directory");
  CHECK(error_of([&] { InputFile file(folder); }) ==
        "read: cannot read " + folder + ": Is a directory");
  CHECK(error_of([] { InputFile file("/dev/null"); }) ==
        "read: cannot read /dev/null: it is not a regular file");
}

TEST_CASE("files without a known size are read to their end") {
  // /proc files say that they have 0 bytes.
  CHECK_FALSE(read_file("/proc/self/status").empty());
  CHECK(read_file("/dev/null").empty());
}

TEST_CASE("InputFile reads any range and notices the end") {
  const TempDir dir;
  const std::string path = dir / "file";
  write_file_atomic(path, "0123456789", 10);
  const InputFile file(path);
  CHECK(file.size() == 10);
  char text[4] = {};
  file.read(7, text, 3);
  CHECK(std::string(text) == "789");
  CHECK(error_of([&] { file.read(8, text, 3); }) ==
        "read: " + path + " ended 1 bytes early (was it changed while it was read?)");
}

TEST_CASE("checked_bytes refuses sizes that cannot be") {
  CHECK(checked_bytes({2, 3}, DType::f64, "x") == 48);
  CHECK(checked_bytes({}, DType::bf16, "x") == 2);
  CHECK(checked_bytes({0, int64_t{1} << 40}, DType::f32, "x") == 0);
  CHECK(error_of([] {
          checked_bytes({2, -1}, DType::f32, "f.npy: x");
        }) == "f.npy: x: shape (2, -1): negative size");
  const int64_t big = int64_t{1} << 31;
  const std::string message = "x: shape (2147483648, 2147483648, 0): more bytes than 64 bits count";
  CHECK(error_of([&] { checked_bytes({big, big, 0}, DType::f32, "x"); }) == message);
}
