// Runs a fuzz target on mutated seed files, for compilers without libFuzzer. Every input is a
// function of the seed files, --seed and its number, so a failure is repeated with --first N
// --runs 1.
//
//   fuzz_npy [--runs N] [--seed S] [--first N] FILE...
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "tensor/error.h"
#include "tensor/file.h"
#include "tensor/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Sanitizers end the program by a signal that can be caught, so that the input can be kept.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

using Bytes = std::string;

constexpr size_t kMaxSize = 1 << 17;

struct Options {
  int64_t runs = 10000, seed = 1, first = 0;
  std::vector<Bytes> files;
} g_options;
int64_t g_run = 0;
Bytes g_input;

void keep_input() {
  const std::string path = std::filesystem::temp_directory_path() / "centroid-fuzz-failure.bin";
  try {
    centroid::write_file_atomic(path, g_input.data(), g_input.size());
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
  }
  std::cerr << "fuzz: failed on input " << g_run << " (kept in " << path << "); repeat with --seed "
            << g_options.seed << " --first " << g_run << " --runs 1\n";
}

// The program is lost here: what a handler may not do can do no more harm.
void on_signal(int signal) {
  std::signal(signal, SIG_DFL);
  keep_input();
  std::raise(signal);
}

// Numbers at which checks of sizes and offsets tend to be wrong.
uint64_t interesting(centroid::Rng& rng, size_t size) {
  const std::array<uint64_t, 14> values = {0,
                                           1,
                                           2,
                                           7,
                                           8,
                                           127,
                                           255,
                                           65535,
                                           uint64_t{1} << 31,
                                           uint64_t{1} << 32,
                                           uint64_t{1} << 62,
                                           uint64_t{1} << 63,
                                           ~uint64_t{0},
                                           size};
  return values[rng.below(values.size())] + rng.below(3) - 1;
}

// Overwrites 1, 2, 4 or 8 bytes with a number, little- or big-endian: the fields of binary headers.
void edit_field(Bytes& input, centroid::Rng& rng) {
  const size_t width = size_t{1} << rng.below(4);
  if (input.size() < width) return;
  // Half of the time near the start, where headers are.
  const size_t range = input.size() - width + 1;
  const size_t at = rng.below(rng.below(2) ? std::min<size_t>(range, 16) : range);
  const uint64_t value = interesting(rng, input.size());
  const bool big = rng.below(4) == 0;
  for (size_t i = 0; i < width; ++i) {
    input[at + i] = static_cast<char>(value >> (8 * (big ? width - 1 - i : i)));
  }
}

// Replaces a decimal number: the fields of text headers.
void edit_number(Bytes& input, centroid::Rng& rng) {
  const char* digits = "0123456789";
  const size_t begin = input.find_first_of(digits, rng.below(input.size() + 1));
  if (begin == Bytes::npos) return;
  const size_t end = std::min(input.find_first_not_of(digits, begin), input.size());
  const std::string number = std::to_string(interesting(rng, input.size()));
  input.replace(begin, end - begin, rng.below(8) ? number : "-" + number);
}

// Puts a deeply nested list in place of a value of JSON, for parsers that call themselves.
void nest(Bytes& input, centroid::Rng& rng) {
  const size_t colon = input.find(':', rng.below(input.size() + 1));
  if (colon == Bytes::npos) return;
  const size_t depth = rng.below(kMaxSize / 4);
  input.insert(colon + 1, Bytes(depth, '[') + Bytes(depth, ']') + ",\"nested\":");
}

void mutate(Bytes& input, centroid::Rng& rng) {
  const size_t n = input.size();
  switch (rng.below(9)) {
    case 0:
      if (n) input[rng.below(n)] ^= static_cast<char>(1 << rng.below(8));
      break;
    case 1:
      if (n) input[rng.below(n)] = static_cast<char>(rng.below(256));
      break;
    case 2: input.resize(rng.below(n + 1)); break;
    case 3: input.erase(rng.below(n + 1), 1 + rng.below(16)); break;
    case 4: {  // a piece of this or another file
      const Bytes& other =
          rng.below(2) ? input : g_options.files[rng.below(g_options.files.size())];
      const size_t from = rng.below(other.size() + 1);
      const Bytes piece = other.substr(from, rng.below(64));
      input.insert(rng.below(n + 1), piece);
      break;
    }
    case 5: {  // the start of this and the end of another
      const Bytes& other = g_options.files[rng.below(g_options.files.size())];
      input.resize(rng.below(n + 1));
      input += other.substr(rng.below(other.size() + 1));
      break;
    }
    case 6: edit_field(input, rng); break;
    case 7: edit_number(input, rng); break;
    case 8:
      if (rng.below(8) == 0) nest(input, rng);  // seldom: such inputs are slow
      break;
  }
  if (input.size() > kMaxSize) input.resize(kMaxSize);
}

Bytes make_input(int64_t run) {
  // First every file as it is.
  const int64_t files = g_options.files.size();
  if (run < files) return g_options.files[run];
  centroid::Rng rng = centroid::Rng(g_options.seed).fork(run);
  Bytes input = g_options.files[rng.below(files)];
  for (uint64_t i = 1 + rng.below(4); i > 0; --i) mutate(input, rng);
  return input;
}

void parse_arguments(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    int64_t* number = word == "--runs"    ? &g_options.runs
                      : word == "--seed"  ? &g_options.seed
                      : word == "--first" ? &g_options.first
                                          : nullptr;
    if (number) {
      CENTROID_CHECK(++i < argc, word, ": expected a number after it");
      *number = std::stoll(argv[i]);
    } else if (std::filesystem::is_regular_file(word)) {
      g_options.files.push_back(centroid::read_file(word));
    } else {
      throw centroid::Error("expected --runs, --seed, --first or a file, got " + word);
    }
  }
  CENTROID_CHECK(!g_options.files.empty(), "expected at least one seed file");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    parse_arguments(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 2;
  }
  for (int signal : {SIGABRT, SIGILL, SIGTRAP, SIGFPE}) std::signal(signal, on_signal);
  for (g_run = g_options.first; g_run < g_options.first + g_options.runs; ++g_run) {
    g_input = make_input(g_run);
    // An allocation of exactly this size, so that reading one byte too many is seen.
    const std::vector<uint8_t> exact(g_input.begin(), g_input.end());
    try {
      LLVMFuzzerTestOneInput(exact.data(), exact.size());
    } catch (const std::exception& error) {
      std::cerr << "fuzz: escaped exception: " << error.what() << '\n';
      keep_input();
      return 1;
    }
  }
  std::cout << g_options.runs << " inputs from " << g_options.files.size() << " seed files: ok\n";
}
