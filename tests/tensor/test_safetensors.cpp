#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "tensor/file.h"
#include "tensor/ops.h"
#include "tensor/safetensors.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::test;

namespace {

std::string data_file(const std::string& name) {
  return (repository_root() / "tests" / "data" / name).string();
}

// A file of a header text and data.
std::string make_file(const std::string& header, const std::string& data = "") {
  std::string bytes(8, '\0');
  const uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

std::string error_for(const std::string& bytes) {
  return error_of([&] { parse_safetensors(bytes, "f"); });
}

// The error of a file with one tensor "x", whose description is given, and 8 bytes of data.
std::string tensor_error(const std::string& description) {
  return error_for(make_file("{\"x\":" + description + "}", "01234567"));
}

// The description of an f32 tensor of shape (n) from `begin` to `end`.
std::string entry(int64_t n, int64_t begin, int64_t end) {
  return concat("{\"dtype\":\"F32\",\"shape\":[", n, "],\"data_offsets\":[", begin, ",", end, "]}");
}

}  // namespace

TEST_CASE("a file written by the Python library loads and saves again byte for byte") {
  const SafetensorsFile file = load_safetensors(data_file("mixed.safetensors"));
  REQUIRE(file.tensors.size() == 6);
  CHECK(file.metadata == std::map<std::string, std::string>{{"format", "np, \u00fc\n"}});
  const Tensor& weight = file.tensors.at("weight");
  CHECK(weight.dtype() == DType::f32);
  CHECK(weight.shape() == Shape{2, 3});
  CHECK(mismatch(weight, {0, 0.5, 1, 1.5, 2, 2.5}, 0, 0) == "");
  CHECK(file.tensors.at("layers.0.bias").dtype() == DType::f64);
  CHECK(mismatch(file.tensors.at("layers.0.bias"), {0, -0.25, -0.5}, 0, 0) == "");
  CHECK(file.tensors.at("steps").item<int64_t>() == 7);
  CHECK(mismatch(file.tensors.at("ids"), {0, 10, 20, 30}, 0, 0) == "");
  CHECK(file.tensors.at("ids").dtype() == DType::i32);
  CHECK(mismatch(file.tensors.at("mask"), {0, 1, 2}, 0, 0) == "");
  CHECK(file.tensors.at("none").shape() == Shape{0, 4});

  const TempDir dir;
  for (const char* name : {"mixed.safetensors", "bf16.safetensors", "nothing.safetensors"}) {
    INFO(name);
    const SafetensorsFile again = load_safetensors(data_file(name));
    save_safetensors(dir / "copy", again.tensors, again.metadata);
    CHECK(read_file(dir / "copy") == read_file(data_file(name)));
  }
}

TEST_CASE("bf16 tensors keep their bits") {
  const Tensor x = load_safetensors(data_file("bf16.safetensors")).tensors.at("x");
  REQUIRE(x.dtype() == DType::bf16);
  const auto values = x.to_vector<Bf16>();
  CHECK(values[0].bits == 0x3f80);
  CHECK(values[2].bits == 0x7f80);
}

TEST_CASE("dtypes that Centroid lacks are named with their tensor") {
  CHECK(error_of([] { load_safetensors(data_file("half.safetensors")); }) ==
        data_file("half.safetensors") +
            ": safetensors: tensor \"x\": dtype \"F16\" is not supported: expected F64, F32, BF16, "
            "I64, I32 or U8");
}

TEST_CASE("any strides and shapes save and read back bit for bit") {
  const TempDir dir;
  Rng rng(1);
  std::map<std::string, Tensor> tensors;
  tensors["matrix"] = strided(randn({3, 5}, rng, DType::f32));
  tensors["scalar"] = ones({}, DType::f64);
  tensors["deep"] = zeros({1, 2, 1, 2, 1, 2}, DType::i64);
  tensors["odd \"name\"\\ \n \u4e2d"] = from_vector(std::vector<uint8_t>{1, 2, 3}, {3});
  tensors["none"] = zeros({0});
  const std::map<std::string, std::string> metadata = {{"a", ""}, {"", "b\t\u20ac"}, {"{", "}"}};
  save_safetensors(dir / "x", tensors, metadata);
  const SafetensorsFile file = load_safetensors(dir / "x");
  CHECK(file.metadata == metadata);
  REQUIRE(file.tensors.size() == tensors.size());
  for (const auto& [name, x] : tensors) {
    INFO(name);
    CHECK(same_bits(file.tensors.at(name), x));
  }
}

TEST_CASE("data starts at a multiple of 8 and every tensor at one of its element size", "[host]") {
  const TempDir dir;
  std::map<std::string, Tensor> tensors;
  tensors["a"] = zeros({3}, DType::u8);
  tensors["b"] = zeros({1}, DType::f32);
  tensors["c"] = zeros({1}, DType::i64);
  tensors["d"] = empty({1}, DType::bf16);
  save_safetensors(dir / "x", tensors);
  const std::string bytes = read_file(dir / "x");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  CHECK(bytes.substr(8, length) == R"({"c":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                                   R"("d":{"dtype":"BF16","shape":[1],"data_offsets":[12,14]},)"
                                   R"("a":{"dtype":"U8","shape":[3],"data_offsets":[14,17]}})"
                                   "      ");
}

TEST_CASE("saving refuses what cannot be read back, and leaves nothing") {
  const TempDir dir;
  const std::string path = dir / "x";
  CHECK(error_of([&] {
          save_safetensors(path, {{"w", Tensor()}});
        }) == path + ": safetensors: tensor \"w\" is undefined");
  CHECK(error_of([&] {
          save_safetensors(path, {{"__metadata__", zeros({1})}});
        }) == path + ": safetensors: \"__metadata__\" cannot name a tensor");
  CHECK_THAT(error_of([&] {
               save_safetensors(path, {{"a\xff", zeros({1})}});
             }),
             Catch::Contains("text is not valid UTF-8"));
  CHECK_THAT(error_of([&] {
               save_safetensors(path, {}, {{"key", "\xc3"}});
             }),
             Catch::Contains("metadata \"key\": text is not valid UTF-8"));
  CHECK(std::filesystem::is_empty(dir.path()));
  CHECK_THAT(error_of([&] { save_safetensors(dir / "no/x", {}); }),
             Catch::Contains("no/x: No such file or directory"));
  CHECK_THAT(error_of([&] { load_safetensors(path); }), Catch::Contains("No such file"));
}

TEST_CASE("every truncation of a file and bytes at its end are errors") {
  const std::string bytes = read_file(data_file("mixed.safetensors"));
  for (size_t size = 0; size < bytes.size(); ++size) {
    INFO("cut to " << size);
    REQUIRE_THAT(error_for(bytes.substr(0, size)), Catch::StartsWith("f: safetensors: "));
  }
  CHECK(error_for(bytes + "ab") ==
        "f: safetensors: 2 bytes after the last tensor belong to no tensor");
}

TEST_CASE("a header length that lies is refused") {
  std::string bytes = make_file("{}");
  CHECK(parse_safetensors(bytes, "f").tensors.empty());
  bytes[0] = 3;
  CHECK(error_for(bytes) ==
        "f: safetensors: header of 3 bytes, but only 2 are left (truncated, or another format?)");
  bytes.replace(0, 8, 8, '\xff');
  CHECK_THAT(error_for(bytes), Catch::Contains("header of 18446744073709551615 bytes, but only 2"));
  CHECK(error_for("abc") == "f: safetensors: expected at least 8 bytes, got 3");
  CHECK_THAT(error_for(make_file("")), Catch::Contains("expected {"));
}

TEST_CASE("headers that are not the expected JSON are refused") {
  for (const char* header : {"{",
                             "[]",
                             "{}x",
                             " {}",
                             "\xef\xbb\xbf{}",
                             "{\"x\":1}",
                             "{\"x\":[]}",
                             "{\"x\":null}",
                             "{\"x\":{}}",
                             "{\"x\":{\"a\":{}}}",
                             "{\"\xff\":{}}",
                             "{\"__metadata__\":1}",
                             "{\"__metadata__\":[]}",
                             "{\"__metadata__\":{\"a\":1}}",
                             "{\"__metadata__\":{\"a\":{}}}",
                             "{\"__metadata__\":{\"a\":[]}}",
                             "{\"__metadata__\":{\"a\":null}}",
                             "{'x':1}",
                             "{\"x\":",
                             "{\"__metadata__\":{\"a\":true}}"}) {
    INFO(header);
    CHECK_THAT(error_for(make_file(header)), Catch::StartsWith("f: safetensors: "));
  }
  CHECK(error_for(make_file("{\"__metadata__\":{\"a\":1}}")) ==
        "f: safetensors: metadata \"a\": expected a string, got a number");
  CHECK(error_for(make_file("{\"x\":1}")) ==
        "f: safetensors: \"x\": expected an object, got a number");
  CHECK_THAT(error_for(make_file("{\"\xff\":{}}")), Catch::Contains("not valid JSON near byte"));
}

TEST_CASE("repeated names are refused at every level") {
  const std::string x = entry(1, 0, 4);
  CHECK(error_for(make_file("{\"x\":" + x + ",\"x\":" + x + "}", "0123")) ==
        "f: safetensors: name appears twice: \"x\"");
  CHECK(error_for(make_file("{\"__metadata__\":{},\"__metadata__\":{}}")) ==
        "f: safetensors: name appears twice: \"__metadata__\"");
  CHECK(error_for(make_file("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}")) ==
        "f: safetensors: metadata key appears twice: \"a\"");
  CHECK(tensor_error(R"({"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]})") ==
        "f: safetensors: tensor \"x\": key appears twice: \"dtype\"");
}

TEST_CASE("tensor descriptions are checked, and the error names the tensor") {
  CHECK(parse_safetensors(make_file("{\"x\":" + entry(2, 0, 8) + "}  \n", "01234567"), "f")
            .tensors.at("x")
            .shape() == Shape{2});
  const std::vector<std::pair<const char*, const char*>> cases = {
      {R"({"dtype":"F32","shape":[2]})", "dtype, shape or data_offsets is missing"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1})", "unknown key \"x\""},
      {R"({"dtype":"f32","shape":[2],"data_offsets":[0,8]})", "dtype \"f32\" is not supported"},
      {R"({"dtype":7,"shape":[2],"data_offsets":[0,8]})", "dtype: expected a string, got a number"},
      {R"({"dtype":[],"shape":[2],"data_offsets":[0,8]})",
       "dtype: expected a string, got an array"},
      {R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})",
       "shape: expected an array, got a number"},
      {R"({"dtype":"F32","shape":[[2]],"data_offsets":[0,8]})",
       "shape: expected whole numbers, got an array"},
      {R"({"dtype":"F32","shape":[true],"data_offsets":[0,8]})",
       "shape: expected whole numbers, got a boolean"},
      {R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", "shape: negative number -2"},
      {R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})", "shape: expected a whole number"},
      {R"({"dtype":"F32","shape":[1e99],"data_offsets":[0,8]})", "shape: expected a whole number"},
      {R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})",
       "shape: expected a whole number of at most 64 bits"},
      {R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]})", "is too large"},
      {R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]})",
       "more bytes than 64 bits count"},
      {R"({"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]})",
       "more bytes than 64 bits count"},
      {R"({"dtype":"F32","shape":[1,1,1,1,1,1,2],"data_offsets":[0,8]})", "more than 6 dimensions"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0]})", "expected 2 numbers, got 1"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,8]})", "expected 2 numbers, got more"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})", "data_offsets: negative number -8"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "begin is after end"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,12]})", "reach beyond the data"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]})",
       "reach beyond the data"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})",
       "f32(3,) needs 12 bytes, data_offsets [0, 8] hold 8"},
      {R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", "4 bytes before it belong to no"},
  };
  for (const auto& [description, problem] : cases) {
    INFO(description);
    CHECK_THAT(tensor_error(description),
               Catch::StartsWith("f: safetensors: tensor \"x\": ") && Catch::Contains(problem));
  }
  CHECK(tensor_error(entry(1, 0, 4)) ==
        "f: safetensors: 4 bytes after the last tensor belong to no tensor");
}

TEST_CASE("a header of lists in lists without end is refused, however deep") {
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const std::string& value : {deep, "{\"dtype\":" + deep + "}"}) {
    CHECK_THAT(error_for(make_file("{\"a\":" + value + "}", "")), Catch::Contains("nested"));
  }
  CHECK(error_for(make_file("{\"__metadata__\":{\"a\":\"" + deep + "\"}}", "")) == "<no error>");
}

TEST_CASE("overlaps and holes between tensors are refused") {
  const auto error = [](const std::string& a, const std::string& b) {
    return error_for(make_file("{\"a\":" + a + ",\"b\":" + b + "}", "0123456789ab"));
  };
  // Any order in the header is fine.
  CHECK(error(entry(2, 4, 12), entry(1, 0, 4)) == "<no error>");
  CHECK(error(entry(2, 0, 8), entry(2, 4, 12)) ==
        "f: safetensors: tensor \"b\": data_offsets [4, 12] overlap the tensor before, which ends "
        "at 8");
  CHECK(error(entry(3, 0, 12), entry(3, 0, 12)) ==
        "f: safetensors: tensor \"b\": data_offsets [0, 12] overlap the tensor before, which ends "
        "at 12");
  CHECK(error(entry(3, 0, 12), entry(0, 4, 4)) ==
        "f: safetensors: tensor \"b\": data_offsets [4, 4] overlap the tensor before, which ends "
        "at 12");
  CHECK(error(entry(1, 0, 4), entry(1, 8, 12)) ==
        "f: safetensors: tensor \"b\": 4 bytes before it belong to no tensor");
}
