// Kernels that move elements: copies between any strides, conversions, constants.
#include <catch2/catch.hpp>
#include <limits>

#include "cuda/indices.h"
#include "tensor/kernels.h"
#include "tests/cuda/compare.h"

using namespace centroid;
using namespace centroid::test;

namespace {

const DType kAll[] = {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32, DType::u8};

Tensor counting(const Shape& shape, DType dtype, Device device = Device{}) {
  return raw::reshape(raw::to(raw::cast(arange(numel(shape), DType::i64, Device{}), dtype), device),
                      shape);
}

// Whether `view`, applied to the same numbers on both devices, holds the same after a copy.
bool copies(const Shape& shape, DType dtype, const std::function<Tensor(const Tensor&)>& view) {
  const Tensor host = raw::clone(view(counting(shape, dtype)));
  const Tensor device = raw::clone(view(counting(shape, dtype, kCuda)));
  return same_bits(raw::to(device, Device{}), host);
}

// The same for copying into a view.
bool copies_into(const Shape& shape, DType dtype,
                 const std::function<Tensor(const Tensor&)>& view) {
  Tensor results[2];
  for (const Device device : {Device{}, kCuda}) {
    const Tensor y = zeros(shape, dtype, device), target = view(y);
    raw::copy_(target, counting(target.shape(), dtype, device));
    results[device == kCuda] = raw::to(y, Device{});
  }
  return same_bits(results[0], results[1]);
}

}  // namespace

TEST_CASE("cuda indices: division by a multiplication") {
  const uint32_t top = 0x7fffffff;
  for (const uint32_t d : {1u, 2u, 3u, 5u, 7u, 10u, 31u, 32u, 33u, 641u, 65535u, 65536u, 65537u,
                           1000003u, 0x3fffffffu, 0x40000000u, 0x40000001u, top, 0x80000000u}) {
    const cuda::Divisor divisor(d);
    for (uint64_t n = 0; n <= top; n += n < 3000 ? 1 : n / 97) {
      CHECK(divisor.quotient(static_cast<uint32_t>(n)) == n / d);
      // The neighbours of multiples of d.
      const uint64_t below = n / d * d + d - 1;
      if (below < top) CHECK(divisor.quotient(static_cast<uint32_t>(below)) == n / d);
    }
    CHECK(divisor.quotient(top) == top / d);
  }
  CHECK(cuda::quotient(int64_t{1} << 40, 3) == (int64_t{1} << 40) / 3);
  CHECK(cuda::quotient(0xffffffff, 7) == 0xffffffff / 7);
}

TEST_CASE("cuda indices: parts of loops cover everything once, within the limit") {
  const Shape shape = {3, 200, 7};
  const Strides strides[] = {{1400, 7, 1}, {200, 1, 600}, {0, 1000, 0}};
  const Loops<3> loops(shape, row_major_order(3), {&strides[0], &strides[1], &strides[2]});
  for (const int64_t limit : {1 << 30, 4000, 900, 100, 1}) {
    std::vector<int> visits(numel(shape));
    cuda::for_each_part(loops, limit, [&](const Loops<3>& part, const cuda::Start<3>& start) {
      int64_t count = 1;
      for (int d = 0; d < part.dims; ++d) count *= part.size[d];
      CHECK(count <= limit);
      for_each_row(part, 0, count, [&](const int64_t* offset, int64_t length) {
        for (int64_t i = 0; i < length; ++i) {
          int64_t at[3];
          for (int t = 0; t < 3; ++t) {
            const int64_t within = offset[t] + i * part.stride[t][part.dims - 1];
            if (within >= limit) FAIL("an offset of " << within);
            at[t] = start.at[t] + within;
          }
          ++visits.at(at[0]);
          const int64_t a = at[0] / 1400, b = at[0] / 7 % 200, c = at[0] % 7;
          if (at[1] != 200 * a + b + 600 * c || at[2] != 1000 * b) FAIL("wrong offsets");
        }
      });
    });
    CHECK(std::count(visits.begin(), visits.end(), 1) == numel(shape));
  }
}

TEST_CASE("cuda copy: every layout, from and to, in every width") {
  for (const DType dtype : kAll) {
    CAPTURE(dtype);
    const auto check = [&](const Shape& shape, const std::function<Tensor(const Tensor&)>& view) {
      CHECK(copies(shape, dtype, view));
      CHECK(copies_into(shape, dtype, view));
    };
    check({5, 7}, [](const Tensor& x) { return x; });
    check({33, 70}, [](const Tensor& x) { return raw::transpose(x, 0, 1); });
    check({64, 32}, [](const Tensor& x) { return raw::transpose(x, 0, 1); });
    check({3, 9, 40}, [](const Tensor& x) { return raw::transpose(x, 1, 2); });
    check({2, 12, 3, 8}, [](const Tensor& x) { return raw::transpose(x, 1, 2); });
    check({4, 11, 2, 10}, [](const Tensor& x) { return raw::permute(x, {3, 1, 0, 2}); });
    check({2, 3, 2, 3, 2, 5}, [](const Tensor& x) { return raw::permute(x, {5, 1, 4, 0, 3, 2}); });
    check({9, 24}, [](const Tensor& x) { return raw::slice(x, 1, 3, 20); });
    check({9, 32}, [](const Tensor& x) { return raw::slice(x, 1, 16, 32); });
    check({9, 24}, [](const Tensor& x) { return raw::slice(x, 1, 1, 24, 3); });
    check({30, 4}, [](const Tensor& x) { return raw::slice(x, 0, 2, 29, 2); });
    check({2100}, [](const Tensor& x) { return raw::slice(x, 0, 0, 2099, 2); });
    check({1, 1}, [](const Tensor& x) { return x; });
    check({0, 3}, [](const Tensor& x) { return raw::transpose(x, 0, 1); });
    check({}, [](const Tensor& x) { return x; });
  }
}

TEST_CASE("cuda copy: broadcast sources") {
  for (const DType dtype : {DType::f32, DType::u8}) {
    CHECK(copies({1, 20}, dtype, [](const Tensor& x) { return raw::expand(x, {6, 20}); }));
    CHECK(copies({20, 1}, dtype, [](const Tensor& x) { return raw::expand(x, {20, 33}); }));
    CHECK(copies({1}, dtype, [](const Tensor& x) { return raw::expand(x, {3, 1000}); }));
    CHECK(copies({12, 16}, dtype, [](const Tensor& x) {
      return raw::expand(raw::unsqueeze(raw::transpose(x, 0, 1), 0), {3, 16, 12});
    }));
  }
}

TEST_CASE("cuda copy: several blocks, every tile") {
  CHECK(copies({300, 257}, DType::f32, [](const Tensor& x) { return raw::transpose(x, 0, 1); }));
  CHECK(copies({5, 20, 31}, DType::f32, [](const Tensor& x) { return raw::slice(x, 1, 1, 19); }));
  CHECK(
      copies_into({37, 500}, DType::f64, [](const Tensor& x) { return raw::slice(x, 1, 1, 499); }));
}

TEST_CASE("cuda cast: every pair of types, also at the ends of their ranges") {
  const double inf = INFINITY, nan = NAN;
  const std::vector<double> values = {
      0,    -0.0, 1,     -1,   2.5,   -2.5,   127.5,  255.5, 256,   -300,   65536, 1e9,  3e9, -3e9,
      9e18, 1e19, -1e19, 1e30, 1e300, -1e300, 1e-310, 1e-40, 1.003, 1.0039, inf,   -inf, nan};
  const Tensor wide = from_vector(values, {static_cast<int64_t>(values.size())}, Device{});
  for (const DType from : kAll) {
    const Tensor x = raw::cast(wide, from);
    for (const DType to : kAll) {
      CAPTURE(from, to);
      const Tensor host = raw::cast(x, to);
      const Tensor device = raw::to(raw::cast(raw::to(x, kCuda), to), Device{});
      if (is_float(to))  // whose NaN may have any bits
        CHECK(mismatch(raw::cast(device, DType::f64), raw::cast(host, DType::f64), 0, 0) == "");
      else
        CHECK(same_bits(device, host));
    }
  }
}

TEST_CASE("cuda cast: strided and broadcast inputs") {
  for (const DType to : {DType::f64, DType::bf16, DType::u8}) {
    for (const Shape& shape : {Shape{40, 12}, Shape{7, 9}, Shape{16, 64}}) {
      const auto f = [&](Device device) {
        const Tensor x = counting(shape, DType::f32, device);
        const Tensor wide = raw::expand(raw::slice(x, 0, 0, 1), shape);
        return Tensors{raw::cast(raw::transpose(x, 0, 1), to), raw::cast(wide, to),
                       raw::cast(raw::slice(x, 1, 1, shape[1]), to)};
      };
      const Tensors host = f(Device{}), device = moved(f(kCuda), Device{});
      for (size_t i = 0; i < host.size(); ++i) CHECK(same_bits(host[i], device[i]));
    }
  }
}

TEST_CASE("cuda fill: whole tensors and views") {
  for (const DType dtype : kAll) {
    CAPTURE(dtype);
    for (const int64_t n : {0, 1, 5, 4099}) {
      CHECK(
          same_bits(raw::to(full({n}, 3, dtype, kCuda), Device{}), full({n}, 3, dtype, Device{})));
    }
    Tensor results[2];
    for (const Device device : {Device{}, kCuda}) {
      const Tensor y = counting({9, 32}, dtype, device);
      raw::fill_(raw::slice(y, 1, 3, 18), 1);
      raw::fill_(raw::slice(y, 0, 1, 9, 3), 2);
      raw::fill_(raw::slice(raw::transpose(y, 0, 1), 0, 20, 32, 2), 7);
      results[device == kCuda] = raw::to(y, Device{});
    }
    CHECK(same_bits(results[0], results[1]));
  }
  CHECK(full({3}, 1e12, DType::i32, kCuda).to_vector<int32_t>()[2] ==
        std::numeric_limits<int32_t>::max());
}

TEST_CASE("cuda arange: every type") {
  for (const DType dtype : {DType::f64, DType::f32, DType::i64, DType::i32, DType::u8}) {
    for (const int64_t n : {0, 1, 1000}) {
      CHECK(same_bits(raw::to(arange(n, dtype, kCuda), Device{}), arange(n, dtype, Device{})));
    }
  }
}
