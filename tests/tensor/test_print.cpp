// Expected texts are NumPy's own (2.4, default print options).
#include <catch2/catch.hpp>
#include <limits>
#include <sstream>
#include <vector>

#include "tensor/ops.h"
#include "tests/support.h"

using namespace centroid;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

template <typename T>
Tensor tensor(const std::vector<T>& values, const Shape& shape) {
  return from_vector(values, shape);
}

// 0, 1, 2, ... in a shape.
Tensor as(const Shape& shape) { return raw::reshape(arange(numel(shape)), shape); }

}  // namespace

TEST_CASE("floats share the width of the longest, whole numbers keep their point") {
  CHECK(to_string(tensor<float>({1, 2, 3}, {3})) == "[1. 2. 3.]");
  CHECK(to_string(tensor<float>({0.1f, -2.25f, 100}, {3})) == "[  0.1   -2.25 100.  ]");
  CHECK(to_string(tensor<float>({1.5f, -2, 30, 0.125f}, {2, 2})) == R"([[ 1.5   -2.   ]
 [30.     0.125]])");
  CHECK(to_string(tensor<float>({0, -0.0f}, {2})) == "[ 0. -0.]");
  CHECK(to_string(tensor<double>({0.3333333333333333, 0.6666666666666666, 1}, {3})) ==
        "[0.33333333 0.66666667 1.        ]");
  CHECK(to_string(tensor<float>({0.33333334f, 0.6666667f, 1}, {3})) ==
        "[0.33333334 0.6666667  1.        ]");
}

TEST_CASE("numbers that span much are written with exponents") {
  CHECK(to_string(tensor<float>({1.0e-05f, 1}, {2})) == "[1.e-05 1.e+00]");
  CHECK(to_string(tensor<double>({1.0e+08, 1}, {2})) == "[1.e+08 1.e+00]");
  CHECK(to_string(tensor<double>({1.23456785e+07, 99999}, {2})) == "[12345678.5    99999. ]");
  CHECK(to_string(tensor<float>({1000000, 1}, {2})) == "[1.e+06 1.e+00]");
  CHECK(to_string(tensor<float>({999999, 1000.5f}, {2})) == "[999999.    1000.5]");
  CHECK(to_string(tensor<float>({0.001f, 1.001f}, {2})) == "[1.000e-03 1.001e+00]");
  CHECK(to_string(tensor<float>({0.001f, 1}, {2})) == "[0.001 1.   ]");
  CHECK(to_string(tensor<double>({1.0e-300, -1.0e+300, 0}, {3})) == "[ 1.e-300 -1.e+300  0.e+000]");
  CHECK(to_string(tensor<float>({1.0e-45f, 3.4028235e+38f}, {2})) ==
        "[1.4012985e-45 3.4028235e+38]");
  CHECK(to_string(tensor<double>({1.0e+100, 1.0e-05}, {2})) == "[1.e+100 1.e-005]");
}

TEST_CASE("digits end after eight places") {
  CHECK(to_string(tensor<double>({3.141592653589793, 271.8281828459045}, {2})) ==
        "[  3.14159265 271.82818285]");
  CHECK(to_string(tensor<double>({0.123456785, 0.123456775}, {2})) == "[0.12345678 0.12345678]");
  CHECK(to_string(tensor<double>({3.1415926535897934e-10}, {1})) == "[3.14159265e-10]");
  CHECK(to_string(tensor<double>({1.000000001}, {1})) == "[1.]");
  CHECK(to_string(tensor<float>({1.6777216e+07f, 0}, {2})) == "[1.6777216e+07 0.0000000e+00]");
  CHECK(to_string(tensor<float>({0.99999994f, 0.5f}, {2})) == "[0.99999994 0.5       ]");
  CHECK(to_string(tensor<double>({0.999999999}, {1})) == "[1.]");
}

TEST_CASE("NaN and infinities are padded like numbers") {
  CHECK(to_string(tensor<float>({kNan, 1}, {2})) == "[nan  1.]");
  CHECK(to_string(tensor<float>({kInf, -kInf, kNan}, {3})) == "[ inf -inf  nan]");
  CHECK(to_string(tensor<float>({-kInf, 0.5f}, {2})) == "[-inf  0.5]");
  CHECK(to_string(tensor<double>({kNan}, {1})) == "[nan]");
  CHECK(to_string(tensor<double>({1.0e-10, kInf, kNan}, {3})) == "[1.e-10    inf    nan]");
  CHECK(to_string(tensor<float>({-1.5f, kNan}, {2})) == "[-1.5  nan]");
}

TEST_CASE("integers are aligned to the right") {
  CHECK(to_string(tensor<int64_t>({1, -20, 300}, {3})) == "[  1 -20 300]");
  CHECK(to_string(tensor<int32_t>({1, 2, -3, 4}, {2, 2})) == R"([[ 1  2]
 [-3  4]])");
  CHECK(to_string(tensor<uint8_t>({0, 255, 7}, {3})) == "[  0 255   7]");
  CHECK(to_string(tensor<int64_t>({std::numeric_limits<int64_t>::min(), 9223372036854775807},
                                  {2})) == "[-9223372036854775808  9223372036854775807]");
}

TEST_CASE("a scalar is a bare number") {
  CHECK(to_string(tensor<float>({3}, {})) == "3.0");
  CHECK(to_string(tensor<float>({0.1f}, {})) == "0.1");
  CHECK(to_string(tensor<double>({0.1}, {})) == "0.1");
  CHECK(to_string(tensor<double>({0.3333333333333333}, {})) == "0.3333333333333333");
  CHECK(to_string(tensor<float>({1.0e-05f}, {})) == "1e-05");
  CHECK(to_string(tensor<double>({1.0e+16}, {})) == "1e+16");
  CHECK(to_string(tensor<double>({1.23456789012345e+14}, {})) == "123456789012345.0");
  CHECK(to_string(tensor<float>({kNan}, {})) == "nan");
  CHECK(to_string(tensor<double>({-kInf}, {})) == "-inf");
  CHECK(to_string(tensor<double>({-0.0}, {})) == "-0.0");
  CHECK(to_string(tensor<int64_t>({7}, {})) == "7");
  CHECK(to_string(tensor<int32_t>({-7}, {})) == "-7");
  CHECK(to_string(tensor<uint8_t>({200}, {})) == "200");
  CHECK(to_string(tensor<double>({1.5e-07}, {})) == "1.5e-07");
  CHECK(to_string(tensor<double>({1.0e-300}, {})) == "1e-300");
  CHECK(to_string(tensor<float>({1.6777216e+07f}, {})) == "1.6777216e+07");
  CHECK(to_string(tensor<float>({1.0e-04f}, {})) == "1e-04");
  CHECK(to_string(tensor<float>({999999}, {})) == "999999.0");
  CHECK(to_string(tensor<float>({1000000}, {})) == "1e+06");
}

TEST_CASE("nested brackets are indented, matrices are set apart by an empty line") {
  CHECK(to_string(tensor<int64_t>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, {2, 3, 2})) ==
        R"([[[ 0  1]
  [ 2  3]
  [ 4  5]]

 [[ 6  7]
  [ 8  9]
  [10 11]]])");
  CHECK(to_string(tensor<int64_t>({0, 1, 2, 3}, {1, 1, 2, 1, 2, 1})) == R"([[[[[[0]
     [1]]]


   [[[2]
     [3]]]]]])");
  CHECK(to_string(tensor<float>({0, 1, 2, 3}, {2, 2, 1})) == R"([[[0.]
  [1.]]

 [[2.]
  [3.]]])");
}

TEST_CASE("lines end before 75 characters") {
  CHECK(to_string(tensor<int64_t>(
            {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
             20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39},
            {40})) == R"([ 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23
 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39])");
  CHECK(to_string(tensor<float>({0, 0.5f, 1, 1.5f, 2, 2.5f, 3, 3.5f, 4, 4.5f,
                                 5, 5.5f, 6, 6.5f, 7, 7.5f, 8, 8.5f, 9, 9.5f},
                                {20})) ==
        R"([0.  0.5 1.  1.5 2.  2.5 3.  3.5 4.  4.5 5.  5.5 6.  6.5 7.  7.5 8.  8.5
 9.  9.5])");
  CHECK(to_string(tensor<double>(
            {0.3333333333333333, 1.3333333333333333, 2.3333333333333335, 3.3333333333333335,
             4.333333333333333, 5.333333333333333, 6.333333333333333, 7.333333333333333,
             8.333333333333334, 9.333333333333334},
            {1, 10})) == R"([[0.33333333 1.33333333 2.33333333 3.33333333 4.33333333 5.33333333
  6.33333333 7.33333333 8.33333333 9.33333333]])");
  CHECK(to_string(tensor<double>({0, 3.3333333333333335, 6.666666666666667, 10, 13.333333333333334},
                                 {5})) ==
        "[ 0.          3.33333333  6.66666667 10.         13.33333333]");
  CHECK(to_string(tensor<int64_t>(
            {1000000000000000000, 1000000000000000001, 1000000000000000002, 1000000000000000003},
            {4})) == R"([1000000000000000000 1000000000000000001 1000000000000000002
 1000000000000000003])");
  CHECK(to_string(tensor<int64_t>(
            {1000000000000000000, 1000000000000000001, 1000000000000000002, 1000000000000000003},
            {1, 1, 4})) == R"([[[1000000000000000000 1000000000000000001 1000000000000000002
   1000000000000000003]]])");
}

TEST_CASE("more than 1000 elements are shown by their edges") {
  CHECK(to_string(arange(1001)) == "[   0    1    2 ...  998  999 1000]");
  CHECK(to_string(raw::slice(arange(1001), 0, 0, 8)) == "[0 1 2 3 4 5 6 7]");
  CHECK(to_string(as({40, 30})) == R"([[   0    1    2 ...   27   28   29]
 [  30   31   32 ...   57   58   59]
 [  60   61   62 ...   87   88   89]
 ...
 [1110 1111 1112 ... 1137 1138 1139]
 [1140 1141 1142 ... 1167 1168 1169]
 [1170 1171 1172 ... 1197 1198 1199]])");
  CHECK(to_string(as({2, 501, 2})) == R"([[[   0    1]
  [   2    3]
  [   4    5]
  ...
  [ 996  997]
  [ 998  999]
  [1000 1001]]

 [[1002 1003]
  [1004 1005]
  [1006 1007]
  ...
  [1998 1999]
  [2000 2001]
  [2002 2003]]])");
  CHECK(to_string(as({6, 200})) == R"([[   0    1    2 ...  197  198  199]
 [ 200  201  202 ...  397  398  399]
 [ 400  401  402 ...  597  598  599]
 [ 600  601  602 ...  797  798  799]
 [ 800  801  802 ...  997  998  999]
 [1000 1001 1002 ... 1197 1198 1199]])");
  CHECK(to_string(raw::transpose(as({40, 30}), 0, 1)) == R"([[   0   30   60 ... 1110 1140 1170]
 [   1   31   61 ... 1111 1141 1171]
 [   2   32   62 ... 1112 1142 1172]
 ...
 [  27   57   87 ... 1137 1167 1197]
 [  28   58   88 ... 1138 1168 1198]
 [  29   59   89 ... 1139 1169 1199]])");
}

TEST_CASE("empty tensors are a pair of brackets") {
  CHECK(to_string(zeros({0})) == "[]");
  CHECK(to_string(zeros({3, 0, 2}, DType::i64)) == "[]");
}

TEST_CASE("an undefined tensor says so") { CHECK(to_string(Tensor()) == "undefined"); }

TEST_CASE("bf16 prints the value that its bits stand for") {
  const Tensor x = tensor<Bf16>({{0x3f80}, {0xc000}, {0x3e80}}, {3});
  CHECK(to_string(x) == "[ 1.   -2.    0.25]");
}

TEST_CASE("views print their own elements, and streams take tensors") {
  const Tensor x = as({3, 4});
  std::ostringstream out;
  out << raw::slice(x, 1, 1, 4, 2);
  CHECK(out.str() == "[[ 1  3]\n [ 5  7]\n [ 9 11]]");
  CHECK(to_string(raw::expand(tensor<float>({0.5}, {1, 1}), {2, 2})) == "[[0.5 0.5]\n [0.5 0.5]]");
}
