#include "tensor/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "tensor/file.h"
#include "tensor/ops.h"

namespace centroid {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read as little-endian memory");

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr const char* kMetadata = "__metadata__";

struct DTypeName {
  DType dtype;
  const char* name;
};
// In the order in which tensors are laid out in a file.
constexpr DTypeName kDTypes[] = {{DType::i64, "I64"}, {DType::f64, "F64"},   {DType::f32, "F32"},
                                 {DType::i32, "I32"}, {DType::bf16, "BF16"}, {DType::u8, "U8"}};

// One tensor as the header describes it.
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  std::optional<Shape> shape;
  std::vector<uint64_t> offsets;  // begin, end
  bool has_offsets = false;
};

struct Header {
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
};

// Receives the events of the JSON parser. A tree (nlohmann::json) would not do: it keeps the last
// of two equal keys and says nothing.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, Header& header) : file_(file), header_(header) {}

  bool key(string_t& name) override {
    switch (place_) {
      case Place::top:
        if (!names_.insert(name).second) fail("name appears twice: " + quoted(name));
        if (name != kMetadata) header_.entries.emplace_back().name = name;
        break;
      case Place::metadata:
        if (header_.metadata.contains(name)) fail("metadata key appears twice: " + quoted(name));
        header_.metadata[name];
        break;
      default:
        if (name != "dtype" && name != "shape" && name != "data_offsets") {
          fail("unknown key " + quoted(name));
        }
        if (!fields_.insert(name).second) fail("key appears twice: " + quoted(name));
    }
    key_ = name;
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::before) {
      place_ = Place::top;
    } else if (place_ == Place::top) {
      place_ = key_ == kMetadata ? Place::metadata : Place::tensor;
      fields_.clear();
    } else {
      wrong_value("an object");
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::tensor) {
      const Entry& entry = header_.entries.back();
      if (!entry.dtype || !entry.shape || !entry.has_offsets) {
        fail("dtype, shape or data_offsets is missing");
      }
      if (entry.offsets.size() != 2) {
        fail(concat("data_offsets: expected 2 numbers, got ", entry.offsets.size()));
      }
    }
    place_ = Place::top;
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") wrong_value("an array");
    place_ = Place::list;
    if (key_ == "shape") header_.entries.back().shape.emplace();
    if (key_ == "data_offsets") header_.entries.back().has_offsets = true;
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = value;
    } else if (place_ == Place::tensor && key_ == "dtype") {
      header_.entries.back().dtype = dtype_named(value);
    } else {
      wrong_value("a string");
    }
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::list) wrong_value("a number");
    Entry& entry = header_.entries.back();
    if (key_ == "data_offsets") {
      if (entry.offsets.size() == 2) fail("data_offsets: expected 2 numbers, got more");
      entry.offsets.push_back(value);
      return true;
    }
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(concat("shape: size ", value, " is too large"));
    }
    if (entry.shape->size() == kMaxDims) {
      fail(concat("shape: more than ", kMaxDims, " dimensions"));
    }
    entry.shape->push_back(static_cast<int64_t>(value));
    return true;
  }
  bool number_integer(number_integer_t value) override {
    fail(concat(key_, ": negative number ", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    fail(concat(key_, ": expected a whole number of at most 64 bits, got ", text));
  }
  bool null() override { wrong_value("null"); }
  bool boolean(bool) override { wrong_value("a boolean"); }
  bool binary(binary_t&) override { wrong_value("binary"); }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    throw Error(concat(file_, ": safetensors: header is not valid JSON near byte ", position, ": ",
                       error.what()));
  }

 private:
  enum class Place { before, top, metadata, tensor, list };

  static std::string quoted(const std::string& text) { return '"' + text + '"'; }

  [[noreturn]] void fail(const std::string& problem) const {
    const bool inside = place_ == Place::tensor || place_ == Place::list;
    throw Error(concat(file_, ": safetensors: ",
                       inside ? "tensor " + quoted(header_.entries.back().name) + ": " : "",
                       problem));
  }

  [[noreturn]] void wrong_value(const char* got) const {
    switch (place_) {
      case Place::before:
        fail(concat("header: expected an object, got ", got));
      case Place::top:
        fail(concat(quoted(key_), ": expected an object, got ", got));
      case Place::metadata:
        fail(concat("metadata ", quoted(key_), ": expected a string, got ", got));
      case Place::list:
        fail(concat(key_, ": expected whole numbers, got ", got));
      case Place::tensor:
        break;
    }
    fail(concat(key_, ": expected ", key_ == "dtype" ? "a string" : "an array", ", got ", got));
  }

  DType dtype_named(const std::string& name) const {
    for (const auto& [dtype, known] : kDTypes) {
      if (name == known) return dtype;
    }
    fail("dtype " + quoted(name) + " is not supported: expected F64, F32, BF16, I64, I32 or U8");
  }

  const std::string& file_;
  Header& header_;
  Place place_ = Place::before;
  std::string key_;
  std::set<std::string> names_;   // of all tensors so far
  std::set<std::string> fields_;  // of the current tensor so far
};

Header parse_header(const std::string& text, const std::string& file) {
  // The parser would skip a byte order mark and white space; the format allows neither here.
  CENTROID_CHECK(!text.empty() && text[0] == '{', file,
                 ": safetensors: header: expected { as its first character");
  Header header;
  HeaderReader reader(file, header);
  nlohmann::json::sax_parse(text, &reader);
  return header;
}

// Puts the entries in order of their bytes and checks that these tile [0, data_size) exactly.
void check_layout(std::vector<Entry>& entries, uint64_t data_size, const std::string& file) {
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& a, const Entry& b) { return a.offsets < b.offsets; });
  uint64_t end = 0;
  for (const Entry& entry : entries) {
    const std::string what = file + ": safetensors: tensor \"" + entry.name + '"';
    const uint64_t from = entry.offsets[0], to = entry.offsets[1];
    CENTROID_CHECK(from <= to, what, ": data_offsets [", from, ", ", to, "]: begin is after end");
    CENTROID_CHECK(to <= data_size, what, ": data_offsets [", from, ", ", to,
                   "] reach beyond the data, which has ", data_size, " bytes (truncated?)");
    const uint64_t bytes = checked_bytes(*entry.shape, *entry.dtype, what);
    CENTROID_CHECK(to - from == bytes, what, ": ", *entry.dtype, *entry.shape, " needs ", bytes,
                   " bytes, data_offsets [", from, ", ", to, "] hold ", to - from);
    CENTROID_CHECK(from >= end, what, ": data_offsets [", from, ", ", to,
                   "] overlap the tensor before, which ends at ", end);
    CENTROID_CHECK(from == end, what, ": ", from - end, " bytes before it belong to no tensor");
    end = to;
  }
  CENTROID_CHECK(end == data_size, file, ": safetensors: ", data_size - end,
                 " bytes after the last tensor belong to no tensor");
}

// Reads `bytes` bytes from `offset` of a file or of memory.
using Read = std::function<void(uint64_t offset, void* data, size_t bytes)>;

SafetensorsFile read_safetensors(uint64_t size, const Read& read, const std::string& name) {
  CENTROID_CHECK(size >= 8, name, ": safetensors: expected at least 8 bytes, got ", size);
  uint64_t length = 0;
  read(0, &length, 8);
  CENTROID_CHECK(length <= size - 8, name, ": safetensors: header of ", length, " bytes, but only ",
                 size - 8, " are left (truncated, or another format?)");
  CENTROID_CHECK(length <= kMaxHeader, name, ": safetensors: header of ", length,
                 " bytes: expected at most ", kMaxHeader);
  std::string text(length, '\0');
  read(8, text.data(), length);
  Header header = parse_header(text, name);
  check_layout(header.entries, size - 8 - length, name);

  SafetensorsFile file;
  file.metadata = std::move(header.metadata);
  for (const Entry& entry : header.entries) {
    const Tensor x = empty(*entry.shape, *entry.dtype);
    const uint64_t bytes = entry.offsets[1] - entry.offsets[0];
    if (bytes > 0) read(8 + length + entry.offsets[0], x.bytes(), bytes);
    file.tensors.emplace(entry.name, x);
  }
  return file;
}

int layout_rank(DType dtype) {
  for (int i = 0; i < static_cast<int>(std::size(kDTypes)); ++i) {
    if (kDTypes[i].dtype == dtype) return i;
  }
  return -1;
}

using Named = std::pair<std::string, Tensor>;

// Names and tensors in the order of their bytes in the file.
std::vector<Named> layout(const std::string& path, const std::map<std::string, Tensor>& tensors) {
  std::vector<Named> order;
  for (const auto& [name, x] : tensors) {
    CENTROID_CHECK(x.defined(), path, ": safetensors: tensor \"", name, "\" is undefined");
    CENTROID_CHECK(name != kMetadata, path, ": safetensors: \"", name, "\" cannot name a tensor");
    order.emplace_back(name, x);
  }
  std::stable_sort(order.begin(), order.end(), [](const Named& a, const Named& b) {
    return layout_rank(a.second.dtype()) < layout_rank(b.second.dtype());
  });
  return order;
}

// A JSON value as text; throws, naming what it belongs to, unless it is UTF-8.
std::string dump(const nlohmann::ordered_json& value, const std::string& path, const char* kind,
                 const std::string& name) {
  try {
    return value.dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(concat(path, ": safetensors: ", kind, " \"", name, "\": text is not valid UTF-8"));
  }
}

std::string make_header(const std::string& path, const std::vector<Named>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += '"' + std::string(kMetadata) + "\":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      text += dump(key, path, "metadata", key) + ':' + dump(value, path, "metadata", key);
    }
    text += '}';
  }
  uint64_t at = 0;
  for (const auto& [name, x] : order) {
    const uint64_t bytes = x.numel() * size_of(x.dtype());
    nlohmann::ordered_json entry;
    entry["dtype"] = kDTypes[layout_rank(x.dtype())].name;
    entry["shape"] = std::vector<int64_t>(x.shape().begin(), x.shape().end());
    entry["data_offsets"] = {at, at + bytes};
    if (text.size() > 1) text += ',';
    text += dump(name, path, "tensor", name) + ':' + entry.dump();
    at += bytes;
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  CENTROID_CHECK(text.size() <= kMaxHeader, path, ": safetensors: header of ", text.size(),
                 " bytes: expected at most ", kMaxHeader);
  return text;
}

}  // namespace

void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::vector<Named> order = layout(path, tensors);
  const std::string header = make_header(path, order, metadata);
  const uint64_t length = header.size();
  AtomicFile file(path);
  file.write(&length, 8);
  file.write(header.data(), length);
  for (const auto& [name, x] : order) {
    const Tensor host = raw::contiguous(raw::to(x, Device{}));
    file.write(host.bytes(), host.numel() * size_of(host.dtype()));
  }
  file.commit();
}

SafetensorsFile load_safetensors(const std::string& path) {
  const InputFile file(path);
  return read_safetensors(
      file.size(),
      [&](uint64_t offset, void* data, size_t bytes) { file.read(offset, data, bytes); }, path);
}

SafetensorsFile parse_safetensors(std::string_view bytes, const std::string& name) {
  return read_safetensors(
      bytes.size(),
      [&](uint64_t offset, void* data, size_t count) {
        if (count > 0) std::memcpy(data, bytes.data() + offset, count);
      },
      name);
}

}  // namespace centroid
