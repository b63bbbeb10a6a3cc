#pragma once
// Element types and the bridge from a runtime dtype to a templated kernel.
#include <cstdint>
#include <ostream>
#include <string>

#include "tensor/error.h"

namespace centroid {

/// `bf16` is a storage type only: it can be held, saved and loaded; no kernel computes in it yet.
enum class DType : uint8_t { f64, f32, bf16, i64, i32, u8 };

struct Bf16 {
  uint16_t bits = 0;
};

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

constexpr const char* to_string(DType dtype) {
  constexpr const char* kNames[] = {"f64", "f32", "bf16", "i64", "i32", "u8"};
  return kNames[static_cast<int>(dtype)];
}
inline std::ostream& operator<<(std::ostream& out, DType dtype) { return out << to_string(dtype); }

constexpr bool is_float(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16;
}

template <typename T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<double>() {
  return DType::f64;
}
template <>
constexpr DType dtype_of<float>() {
  return DType::f32;
}
template <>
constexpr DType dtype_of<Bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::i64;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::i32;
}
template <>
constexpr DType dtype_of<uint8_t>() {
  return DType::u8;
}

/// Calls `f.template operator()<T>()` with T = double or float; throws, naming `what`, otherwise.
template <typename F>
decltype(auto) dispatch_float(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::f64: return f.template operator()<double>();
    case DType::f32: return f.template operator()<float>();
    default: throw Error(concat(what, ": dtype: expected f32 or f64, got ", dtype));
  }
}

/// Like `dispatch_float`, for i64 and i32.
template <typename F>
decltype(auto) dispatch_index(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::i64: return f.template operator()<int64_t>();
    case DType::i32: return f.template operator()<int32_t>();
    default: throw Error(concat(what, ": dtype: expected i64 or i32, got ", dtype));
  }
}

/// Like `dispatch_float`, for every type that has arithmetic: f64, f32, i64, i32, u8.
template <typename F>
decltype(auto) dispatch_numeric(DType dtype, const char* what, F&& f) {
  switch (dtype) {
    case DType::f64: return f.template operator()<double>();
    case DType::f32: return f.template operator()<float>();
    case DType::i64: return f.template operator()<int64_t>();
    case DType::i32: return f.template operator()<int32_t>();
    case DType::u8: return f.template operator()<uint8_t>();
    default: throw Error(concat(what, ": dtype: expected f64, f32, i64, i32 or u8, got ", dtype));
  }
}

/// Calls with an unsigned integer of the element's width: for kernels that only move bytes.
template <typename F>
decltype(auto) dispatch_bytes(DType dtype, F&& f) {
  switch (size_of(dtype)) {
    case 8: return f.template operator()<uint64_t>();
    case 4: return f.template operator()<uint32_t>();
    case 2: return f.template operator()<uint16_t>();
    default: return f.template operator()<uint8_t>();
  }
}

}  // namespace centroid
