#pragma once
// NumPy's .npy files. Format:
// https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace centroid {

/// Writes `x` (any device and strides; f64, f32, i64, i32, u8) as a version 1.0 file, byte for byte
/// as numpy.save does; the file appears whole or not at all. Throws for bf16, which NumPy lacks,
/// and when the file cannot be written.
void save_npy(const std::string& path, const Tensor& x);

/// Reads a file of version 1.0, 2.0 or 3.0 in C or Fortran order, little- or big-endian, with
/// elements f8, f4, i8, i4, u1 or b1 (which becomes u8) -> contiguous tensor on the host. Throws,
/// naming the file and what is wrong, for everything else, and when the data is shorter or longer
/// than the header says.
Tensor load_npy(const std::string& path);

/// `load_npy` of bytes in memory; `name` stands for the file in messages.
Tensor parse_npy(std::string_view bytes, const std::string& name);

}  // namespace centroid
