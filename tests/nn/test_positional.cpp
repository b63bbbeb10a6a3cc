// Positional encodings against their formulas.
#include <catch2/catch.hpp>
#include <cmath>

#include "nn/positional.h"
#include "tests/support.h"

using namespace centroid;
using namespace centroid::nn;
using namespace centroid::test;
using Catch::Matchers::Contains;

TEST_CASE("sinusoidal positions: sin, then cos, wavelengths from 2 pi to 10000 * 2 pi") {
  const std::vector<double> table = doubles(sinusoidal_positions(50, 6));
  for (int64_t t : {0, 1, 7, 49}) {
    for (int64_t i = 0; i < 3; ++i) {
      const double angle = static_cast<double>(t) * std::pow(10000.0, -static_cast<double>(i) / 2);
      CHECK(table[t * 6 + i] == Approx(std::sin(angle)).margin(1e-6));
      CHECK(table[t * 6 + 3 + i] == Approx(std::cos(angle)).margin(1e-6));
    }
  }
  CHECK(sinusoidal_positions(1, 2).shape() == Shape{1, 2});
  CHECK_THAT(error_of([] { sinusoidal_positions(3, 5); }), Contains("even number, got 5"));
}

TEST_CASE("sinusoidal positions do not depend on the length of the sequence") {
  CHECK(same_bits(raw::slice(sinusoidal_positions(300, 8), 0, 0, 65), sinusoidal_positions(65, 8)));
}

TEST_CASE("rotary angles are t / base^(2i / E)") {
  const std::vector<double> angles = doubles(rotary_angles(9, 8, 100));
  for (int64_t t = 0; t < 9; ++t) {
    for (int64_t i = 0; i < 4; ++i) {
      CHECK(angles[t * 4 + i] ==
            Approx(static_cast<double>(t) / std::pow(100.0, 2.0 * static_cast<double>(i) / 8)));
    }
  }
  CHECK_THAT(error_of([] { rotary_angles(3, 3); }), Contains("even number, got 3"));
}

TEST_CASE("positional encodings add their table, and only that") {
  Rng rng(2);
  const Tensor x = randn({2, 5, 4}, rng, DType::f32);
  CHECK(same_bits(PositionalEncoding(Positions::none, 4, 8, rng).forward(x), x));
  CHECK(same_bits(PositionalEncoding(Positions::rotary, 4, 8, rng).forward(x), x));
  CHECK(mismatch(PositionalEncoding(Positions::sinusoidal, 4, 8, rng).forward(x),
                 raw::add(x, sinusoidal_positions(5, 4)), 1e-6, 1e-6) == "");
  const Tensor wide = raw::cast(x, DType::f64);
  CHECK(PositionalEncoding(Positions::sinusoidal, 4, 8, rng).forward(wide).dtype() == DType::f64);
}

TEST_CASE("a table of positions grows with what is asked for, not with changes of dtype") {
  int64_t most = 0;
  const PositionTable table([&](int64_t time, Device device) {
    most = std::max(most, time);
    return sinusoidal_positions(time, 4, 0, device);
  });
  for (int i = 0; i < 6; ++i) {
    const DType dtype = i % 2 == 0 ? DType::f32 : DType::f64;
    CHECK(same_bits(table.rows(2, 3, {}, dtype), raw::cast(sinusoidal_positions(3, 4, 2), dtype)));
  }
  CHECK(most == 5);
  table.rows(5, 1, {}, DType::f32);
  CHECK(most == 10);
}

TEST_CASE("learned positions receive gradients and end at their maximum") {
  Rng rng(2);
  const PositionalEncoding learned(Positions::learned, 4, 6, rng);
  const Tensor table = learned.named_parameters().at(0).second;
  CHECK(table.shape() == Shape{6, 4});
  backward(sum(learned.forward(zeros({3, 5, 4}))));
  CHECK(mismatch(raw::sum(table.grad(), {1}), std::vector<double>{12, 12, 12, 12, 12, 0}) == "");
  CHECK_THAT(error_of([&] {
               learned.forward(zeros({1, 7, 4}));
             }),
             Contains("at most 6 positions, got 7"));
  CHECK_THAT(error_of([&] { learned.forward(zeros({1, 6, 5})); }), Contains("expected (B, T, 4)"));
}

TEST_CASE("position names are read back and wrong ones list the valid") {
  for (Positions kind :
       {Positions::none, Positions::sinusoidal, Positions::learned, Positions::rotary}) {
    CHECK(parse_positions(to_string(kind)) == kind);
  }
  CHECK_THAT(error_of([] { parse_positions("rotery"); }), Contains("expected one of rotary, ") &&
                                                              Contains("sinusoidal") &&
                                                              Contains("got 'rotery'"));
}
