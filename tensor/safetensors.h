#pragma once
// The safetensors format: named tensors and text metadata. https://huggingface.co/docs/safetensors
//
//   8 bytes          length N of the header, little-endian
//   N bytes          JSON: {"__metadata__": {"key": "text"},
//                           "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin,
//                           end]}}
//   the rest         the tensors' bytes, row-major; offsets count from here
#include <map>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace centroid {

/// The content of a safetensors file; tensors are contiguous and on the host.
struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Writes tensors (any device, strides and dtype) and metadata; the file appears whole or not at
/// all. Equal content gives equal bytes: tensors are laid out by dtype, wider elements first so
/// that each is aligned, then by name, as the Python library does. Throws, naming file and tensor,
/// for undefined tensors, text that is not UTF-8, the reserved name `__metadata__`, and when
/// writing fails.
void save_safetensors(const std::string& path, const std::map<std::string, Tensor>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

/// Reads and checks a file: throws, naming the file and the tensor, unless the header is valid JSON
/// without repeated names, each dtype is F64, F32, BF16, I64, I32 or U8, each tensor has exactly
/// the bytes its shape needs, and the tensors fill the file without overlaps, holes or bytes left
/// over.
SafetensorsFile load_safetensors(const std::string& path);

/// `load_safetensors` of bytes in memory; `name` stands for the file in messages.
SafetensorsFile parse_safetensors(std::string_view bytes, const std::string& name);

}  // namespace centroid
