#include "tensor/safetensors.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "tensor/file.h"
#include "tensor/json.h"
#include "tensor/ops.h"

namespace centroid {
namespace {

using nlohmann::json;

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
  DType dtype;
  Shape shape;
  uint64_t begin, end;  // of its bytes, counted from the header's end
};

std::string quote(const std::string& text) { return '"' + text + '"'; }

// What the value is, for messages: "an object", "a number", "null".
std::string kind_of(const json& value) {
  const std::string name = value.type_name();
  return value.is_null() ? name : (value.is_structured() ? "an " : "a ") + name;
}

// The header as JSON. Here and below `what`, the file and the format, begins each message. The
// parser by itself would keep the last of two equal keys and say nothing, and would skip a byte
// order mark and white space, which the format does not allow here.
json parse_json(const std::string& text, const std::string& what) {
  CENTROID_CHECK(text.starts_with('{'), what, "header: expected { as its first character");
  CENTROID_CHECK(!too_deep_json(text), what, "header: nested more than ", kJsonDepth, " deep");
  std::vector<std::string> path;            // the keys that lead to the current value
  std::vector<std::set<std::string>> seen;  // the keys so far at each level
  const auto check_key = [&](int depth, json::parse_event_t event, const json& key) {
    if (event == json::parse_event_t::object_start) {
      seen.resize(depth);
      seen.emplace_back();
    } else if (event == json::parse_event_t::key) {
      path.resize(depth);
      path.back() = key.get<std::string>();
      const std::string place = depth == 1             ? "name"
                                : path[0] == kMetadata ? "metadata key"
                                                       : "tensor " + quote(path[0]) + ": key";
      CENTROID_CHECK(seen[depth - 1].insert(path.back()).second, what, place,
                     " appears twice: ", quote(path.back()));
    }
    return true;
  };
  try {
    return json::parse(text, check_key);
  } catch (const json::parse_error& error) {
    throw Error(
        concat(what, "header is not valid JSON near byte ", error.byte, ": ", error.what()));
  } catch (const json::exception& error) {
    throw Error(concat(what, "header is not valid JSON: ", error.what()));
  }
}

std::vector<uint64_t> read_numbers(const json& object, const char* key, const std::string& what) {
  const json& list = object.at(key);
  CENTROID_CHECK(list.is_array(), what, key, ": expected an array, got ", kind_of(list));
  std::vector<uint64_t> values;
  for (const json& x : list) {
    CENTROID_CHECK(x.is_number(), what, key, ": expected whole numbers, got ", kind_of(x));
    CENTROID_CHECK(x.is_number_unsigned() || !x.is_number_integer(), what, key,
                   ": negative number ", x);
    CENTROID_CHECK(x.is_number_unsigned(), what, key,
                   ": expected a whole number of at most 64 bits, got ", x);
    values.push_back(x.get<uint64_t>());
  }
  return values;
}

Shape read_shape(const json& object, const std::string& what) {
  Shape shape;
  for (const uint64_t size : read_numbers(object, "shape", what)) {
    CENTROID_CHECK(size <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), what,
                   "shape: size ", size, " is too large");
    CENTROID_CHECK(shape.size() < kMaxDims, what, "shape: more than ", kMaxDims, " dimensions");
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

DType read_dtype(const json& object, const std::string& what) {
  const json& value = object.at("dtype");
  CENTROID_CHECK(value.is_string(), what, "dtype: expected a string, got ", kind_of(value));
  for (const auto& [dtype, name] : kDTypes) {
    if (value.get_ref<const std::string&>() == name) return dtype;
  }
  throw Error(
      concat(what, "dtype ", value, " is not supported: expected F64, F32, BF16, I64, I32 or U8"));
}

Entry read_entry(const std::string& name, const json& object, const std::string& what) {
  for (const auto& [key, value] : object.items()) {
    CENTROID_CHECK(key == "dtype" || key == "shape" || key == "data_offsets", what, "unknown key ",
                   quote(key));
  }
  CENTROID_CHECK(object.size() == 3, what, "dtype, shape or data_offsets is missing");
  const std::vector<uint64_t> offsets = read_numbers(object, "data_offsets", what);
  CENTROID_CHECK(offsets.size() == 2, what, "data_offsets: expected 2 numbers, got ",
                 offsets.size() > 2 ? "more" : std::to_string(offsets.size()));
  return {name, read_dtype(object, what), read_shape(object, what), offsets[0], offsets[1]};
}

// The header's tensors in order of their bytes; its metadata go to `metadata`.
std::vector<Entry> read_header(const std::string& text, const std::string& what,
                               std::map<std::string, std::string>& metadata) {
  const json header = parse_json(text, what);
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    CENTROID_CHECK(value.is_object(), what, quote(name), ": expected an object, got ",
                   kind_of(value));
    if (name != kMetadata) {
      entries.push_back(read_entry(name, value, what + "tensor " + quote(name) + ": "));
      continue;
    }
    for (const auto& [key, content] : value.items()) {
      CENTROID_CHECK(content.is_string(), what, "metadata ", quote(key),
                     ": expected a string, got ", kind_of(content));
      metadata[key] = content.get<std::string>();
    }
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  return entries;
}

// Throws unless the tensors' bytes tile [0, data_size) exactly.
void check_layout(const std::vector<Entry>& entries, uint64_t data_size, const std::string& what) {
  uint64_t at = 0;
  for (const auto& [name, dtype, shape, begin, end] : entries) {
    const std::string tensor = what + "tensor " + quote(name);
    const std::string range = concat("data_offsets [", begin, ", ", end, "]");
    CENTROID_CHECK(begin <= end, tensor, ": ", range, ": begin is after end");
    CENTROID_CHECK(end <= data_size, tensor, ": ", range, " reach beyond the data, which has ",
                   data_size, " bytes (truncated?)");
    const uint64_t bytes = checked_bytes(shape, dtype, tensor);
    CENTROID_CHECK(end - begin == bytes, tensor, ": ", dtype, shape, " needs ", bytes, " bytes, ",
                   range, " hold ", end - begin);
    CENTROID_CHECK(begin >= at, tensor, ": ", range, " overlap the tensor before, which ends at ",
                   at);
    CENTROID_CHECK(begin == at, tensor, ": ", begin - at, " bytes before it belong to no tensor");
    at = end;
  }
  CENTROID_CHECK(at == data_size, what, data_size - at,
                 " bytes after the last tensor belong to no tensor");
}

SafetensorsFile read_safetensors(const InputFile& in) {
  const std::string what = in.name() + ": safetensors: ";
  CENTROID_CHECK(in.size() >= 8, what, "expected at least 8 bytes, got ", in.size());
  const uint64_t left = in.size() - 8;
  uint64_t length = 0;
  in.read(0, &length, 8);
  CENTROID_CHECK(length <= left, what, "header of ", length, " bytes, but only ", left,
                 " are left (truncated, or another format?)");
  CENTROID_CHECK(length <= kMaxHeader, what, "header of ", length, " bytes: expected at most ",
                 kMaxHeader);
  std::string text(length, '\0');
  in.read(8, text.data(), length);
  SafetensorsFile file;
  const std::vector<Entry> entries = read_header(text, what, file.metadata);
  check_layout(entries, left - length, what);
  for (const Entry& entry : entries) {
    const Tensor x = empty(entry.shape, entry.dtype, Device{});
    in.read(8 + length + entry.begin, x.bytes(), entry.end - entry.begin);
    file.tensors.emplace(entry.name, x);
  }
  return file;
}

void check_utf8(const std::string& text, const std::string& what) {
  try {
    json(text).dump();
  } catch (const json::exception&) {
    throw Error(what + ": text is not valid UTF-8");
  }
}

}  // namespace

void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string what = path + ": safetensors: ";
  for (const auto& [key, value] : metadata) {
    for (const std::string& text : {key, value}) check_utf8(text, what + "metadata " + quote(key));
  }
  for (const auto& [name, x] : tensors) {
    CENTROID_CHECK(x.defined(), what, "tensor ", quote(name), " is undefined");
    CENTROID_CHECK(name != kMetadata, what, quote(name), " cannot name a tensor");
    check_utf8(name, what + "tensor " + quote(name));
  }
  nlohmann::ordered_json entries = nlohmann::ordered_json::object();
  if (!metadata.empty()) entries[kMetadata] = metadata;
  std::vector<Tensor> order;  // of the bytes in the file
  uint64_t end = 0;
  for (const auto& [dtype, dtype_name] : kDTypes) {
    for (const auto& [name, x] : tensors) {
      if (x.dtype() != dtype) continue;
      const uint64_t begin = std::exchange(end, end + x.numel() * size_of(dtype));
      entries[name] = {{"dtype", dtype_name},
                       {"shape", std::vector<int64_t>(x.shape().begin(), x.shape().end())},
                       {"data_offsets", {begin, end}}};
      order.push_back(x);
    }
  }
  std::string header = entries.dump();
  header.append((8 - header.size() % 8) % 8, ' ');
  const uint64_t length = header.size();
  CENTROID_CHECK(length <= kMaxHeader, what, "header of ", length, " bytes: expected at most ",
                 kMaxHeader);
  AtomicFile file(path);
  file.write(&length, 8);
  file.write(header.data(), length);
  for (const Tensor& x : order) {
    const Tensor host = raw::contiguous(raw::to(x, Device{}));
    file.write(host.bytes(), host.numel() * size_of(host.dtype()));
  }
  file.commit();
}

SafetensorsFile load_safetensors(const std::string& path) {
  return read_safetensors(InputFile(path));
}

SafetensorsFile parse_safetensors(std::string_view bytes, const std::string& name) {
  return read_safetensors(InputFile(bytes, name));
}

}  // namespace centroid
