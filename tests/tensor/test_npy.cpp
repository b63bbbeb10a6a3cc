#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "tensor/file.h"
#include "tensor/npy.h"
#include "tensor/ops.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

std::string data_file(const std::string& name) {
  return (repository_root() / "tests" / "data" / name).string();
}

// 0, f, 2 f, ...: what tests/data/make_python_files.py writes.
std::vector<double> multiples(int64_t n, double factor) {
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(static_cast<double>(i) * factor);
  return values;
}

void check_file(const std::string& name, DType dtype, const Shape& shape, double factor) {
  INFO(name);
  const Tensor x = load_npy(data_file(name));
  CHECK(x.dtype() == dtype);
  CHECK(x.shape() == shape);
  CHECK(x.is_contiguous());
  CHECK(mismatch(x, multiples(numel(shape), factor), 0, 0) == "");
}

// A version 1.0 file of a header text and data.
std::string make_npy(const std::string& header, const std::string& data) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 255);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + data;
}

std::string error_for(const std::string& bytes) {
  return error_of([&] { parse_npy(bytes, "f.npy"); });
}

std::string header_of(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

}  // namespace

TEST_CASE("files written by NumPy load") {
  check_file("f8.npy", DType::f64, {2, 3}, 0.5);
  check_file("f4.npy", DType::f32, {5}, -0.25);
  check_file("i8.npy", DType::i64, {2, 2, 2}, -1099511627776.);
  check_file("i4.npy", DType::i32, {3, 1}, 1000);
  check_file("u1.npy", DType::u8, {4}, 60);
  check_file("empty.npy", DType::f32, {0, 3}, 1);
  check_file("fortran.npy", DType::f32, {2, 3, 4}, 1);
  check_file("big_endian.npy", DType::f32, {2, 3}, 0.5);
  check_file("big_endian_i8.npy", DType::i64, {3}, 8589934592.);
  check_file("version2.npy", DType::f32, {2, 2}, 1);
  check_file("version3.npy", DType::f32, {2, 2}, 1);
  CHECK(load_npy(data_file("scalar.npy")).item<float>() == 1.5f);
  CHECK(mismatch(load_npy(data_file("b1.npy")), {1, 0, 1}) == "");
}

TEST_CASE("saving gives the bytes that NumPy writes") {
  const TempDir dir;
  for (const char* name :
       {"f8.npy", "f4.npy", "i8.npy", "i4.npy", "u1.npy", "scalar.npy", "empty.npy"}) {
    INFO(name);
    save_npy(dir / "copy.npy", load_npy(data_file(name)));
    CHECK(read_file(dir / "copy.npy") == read_file(data_file(name)));
  }
}

TEST_CASE("any strides save in row-major order and read back bit for bit") {
  const TempDir dir;
  Rng rng(1);
  const Tensor x = randn({3, 4, 5}, rng, DType::f32);
  save_npy(dir / "x.npy", strided(x));
  CHECK(same_bits(load_npy(dir / "x.npy"), x));
  const Tensor deep = raw::reshape(x, {1, 3, 1, 4, 5, 1});
  save_npy(dir / "x.npy", deep);
  CHECK(same_bits(load_npy(dir / "x.npy"), deep));
}

TEST_CASE("what NumPy can hold and Centroid cannot is named") {
  const auto error = [](const std::string& name) {
    return error_of([&] { load_npy(data_file(name)); });
  };
  CHECK(error("half.npy") ==
        data_file("half.npy") +
            ": npy: dtype '<f2' is not supported: expected f8, f4, i8, i4, u1 or b1 (astype "
            "converts)");
  CHECK(error("structured.npy") ==
        data_file("structured.npy") + ": npy: structured dtypes are not supported");
  CHECK(error("seven_dims.npy") == data_file("seven_dims.npy") + ": npy: more than 6 dimensions");
}

TEST_CASE("saving refuses bf16 and leaves nothing when it fails") {
  const TempDir dir;
  CHECK_THAT(error_of([&] { save_npy(dir / "x.npy", empty({2}, DType::bf16)); }),
             Catch::Contains("x.npy: npy: NumPy has no bf16"));
  CHECK(std::filesystem::is_empty(dir.path()));
  CHECK_THAT(error_of([&] { save_npy(dir / "no/x.npy", zeros({2})); }),
             Catch::Contains("no/x.npy: No such file or directory"));
  CHECK_THAT(error_of([&] { load_npy(dir / "x.npy"); }), Catch::Contains("No such file"));
  CHECK_THROWS_AS(save_npy(dir / "x.npy", Tensor()), Error);
}

TEST_CASE("every truncation of a file is an error") {
  for (const char* name : {"f4.npy", "version2.npy", "fortran.npy"}) {
    const std::string bytes = read_file(data_file(name));
    for (size_t size = 0; size < bytes.size(); ++size) {
      INFO(name << " cut to " << size);
      REQUIRE_THAT(error_for(bytes.substr(0, size)), Catch::StartsWith("f.npy: npy: "));
    }
    CHECK_THAT(error_for(bytes + '\0'), Catch::Contains("the file has"));
  }
}

TEST_CASE("files that are not .npy or of a later version are refused") {
  std::string bytes = make_npy(header_of("<f4", "()"), "abcd");
  CHECK(parse_npy(bytes, "f.npy").shape() == Shape{});
  CHECK(error_for("not a file") ==
        "f.npy: npy: not an .npy file (it does not start with \\x93NUMPY)");
  bytes[6] = 4;
  CHECK(error_for(bytes) == "f.npy: npy: version: expected 1.0, 2.0 or 3.0, got 4.0");
  bytes[6] = 1;
  bytes[7] = 1;
  CHECK(error_for(bytes) == "f.npy: npy: version: expected 1.0, 2.0 or 3.0, got 1.1");
}

TEST_CASE("lengths and sizes that lie are refused") {
  std::string bytes = make_npy(header_of("<f4", "(2,)"), "01234567");
  CHECK(parse_npy(bytes, "f.npy").shape() == Shape{2});
  bytes[9] = 1;
  CHECK_THAT(error_for(bytes), Catch::Contains("left (truncated?)"));
  CHECK(error_for(make_npy(header_of("<f4", "(3,)"), "01234567")) ==
        "f.npy: npy: (3,) of '<f4' needs 12 bytes, the file has 8 (truncated?)");
  CHECK(error_for(make_npy(header_of("<f4", "(1,)"), "01234567")) ==
        "f.npy: npy: (1,) of '<f4' needs 4 bytes, the file has 8");
  CHECK_THAT(error_for(make_npy(header_of("<f4", "(-1,)"), "")), Catch::Contains("negative size"));
  CHECK_THAT(error_for(make_npy(header_of("<f4", "(9223372036854775808,)"), "")),
             Catch::Contains("size of more than 64 bits"));
  // 2^62 * 4 elements is 0 in 64 bits.
  CHECK_THAT(error_for(make_npy(header_of("u1", "(4611686018427387904, 4)"), "")),
             Catch::Contains("dtype 'u1' is not supported"));
  for (const char* shape : {"(4611686018427387904, 4)", "(4294967296, 4294967296, 0)"}) {
    CHECK_THAT(error_for(make_npy(header_of("|u1", shape), "")),
               Catch::Contains("more bytes than 64 bits count"));
  }
  CHECK(error_for(make_npy(header_of("|b1", "(3,)"), std::string("\0\1\2", 3))) ==
        "f.npy: npy: boolean 2: expected 0 or 1, got 2");
}

TEST_CASE("headers may be written in any valid way, others are refused") {
  const std::string data = "0123";
  for (const char* header :
       {"{'descr':'<f4','fortran_order':False,'shape':(1,)}",
        "{ \"shape\" : ( 1 , ) , \"fortran_order\" : True , \"descr\" : \"<f4\" , } \n"}) {
    INFO(header);
    CHECK(parse_npy(make_npy(header, data), "f.npy").shape() == Shape{1});
  }
  for (const char* header : {
           "",
           "{",
           "{}",
           "[]",
           "{'descr': '<f4', 'fortran_order': False}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': [1]}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}",
           "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
           "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
           "{'descr': <f4, 'fortran_order': False, 'shape': (1,)}",
           "{'descr': '<f4, 'fortran_order': False, 'shape': (1,)}",
           "{'descr': '', 'fortran_order': False, 'shape': (1,)}",
           "{'descr': '|f4', 'fortran_order': False, 'shape': (1,)}",
           "{'descr': '<f4x', 'fortran_order': False, 'shape': (1,)}",
       }) {
    INFO(header);
    CHECK_THAT(error_for(make_npy(header, data)), Catch::StartsWith("f.npy: npy: "));
  }
}
