#pragma once
// Runs pieces of PTX on the virtual device and compares them with host arithmetic.
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine.h"

namespace vgpu::test {

/// Device memory with the contents of a vector.
template <class T>
class Device {
 public:
  explicit Device(const std::vector<T>& v) : n_(v.size()) {
    REQUIRE(cudaMalloc(reinterpret_cast<void**>(&p_), std::max<size_t>(n_, 1) * sizeof(T)) ==
            cudaSuccess);
    REQUIRE(cudaMemcpy(p_, v.data(), n_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~Device() { cudaFree(p_); }
  Device(const Device&) = delete;
  T*& get() { return p_; }
  std::vector<T> read() const {
    std::vector<T> v(n_);
    REQUIRE(cudaMemcpy(v.data(), p_, n_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return v;
  }

 private:
  T* p_ = nullptr;
  size_t n_;
};

inline const std::string kHeader = ".version 9.0\n.target sm_90\n.address_size 64\n";

/// Launches kernel `k` of a PTX file.
inline void launch(const std::string& ptx, dim3 grid, dim3 block, std::vector<void*> arguments,
                   size_t dynamic_shared = 0) {
  Module& m = load_ptx(kHeader + ptx);
  REQUIRE(launch_kernel(m, "k", grid, block, arguments.data(), dynamic_shared) == cudaSuccess);
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
}

/// What is printed when `f` ends the process with a fault; empty when it does not.
template <class F>
std::string report_of(F f) {
  int fd[2];
  REQUIRE(pipe(fd) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(fd[1], 2);
    try {
      f();
    } catch (...) {  // of a REQUIRE: the parent sees that there was no fault
    }
    _exit(0);
  }
  close(fd[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = read(fd[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  close(fd[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "" : text + " ";
}

/// "b16", "b32" or "b64": as registers and memory hold T.
template <class T>
std::string bits_of() {
  return "b" + std::to_string(8 * sizeof(T));
}

/// A kernel that runs `body` for each element. Registers a, b, c hold the inputs, d receives the
/// result, p and q are predicates, x, y and z 32-bit, u and v 64-bit scratch. With `divergent` only
/// odd lanes run the body, the others keep d = 0x5a5a...
template <class D, class... S>
std::string element_kernel(const std::string& body, bool divergent) {
  const std::string size = std::to_string(sizeof(D));
  std::string k = ".visible .entry k(.param .u64 out";
  for (size_t s = 0; s < sizeof...(S); ++s) k += ", .param .u64 in" + std::to_string(s);
  k += ")\n{\n.reg .pred p, q, odd;\n.reg .b32 i, x, y, z;\n.reg .b64 at, base, u, v, w;\n.reg ." +
       bits_of<D>() + " d;\nmov.u32 i, %tid.x;\nmov.u32 x, %ctaid.x;\nmad.lo.s32 i, x, 64, i;\n";
  size_t s = 0;
  auto load = [&](const std::string& bits, size_t bytes) {
    const std::string name(1, static_cast<char>('a' + s));
    k += ".reg ." + bits + " " + name + ";\nld.param.u64 base, [in" + std::to_string(s++) +
         "];\nmad.wide.u32 at, i, " + std::to_string(bytes) + ", base;\nld.global." + bits + " " +
         name + ", [at];\n";
  };
  (load(bits_of<S>(), sizeof(S)), ...);
  k += "mov.b64 u, 0x5a5a5a5a5a5a5a5a;\ncvt.u" + std::to_string(8 * sizeof(D)) + ".u64 d, u;\n";
  if (divergent) k += "and.b32 x, i, 1;\nsetp.eq.u32 odd, x, 0;\n@odd bra DONE;\n";
  k += "{\n" + body + "\n}\nDONE:\nld.param.u64 base, [out];\nmad.wide.u32 at, i, " + size +
       ", base;\nst.global." + bits_of<D>() + " [at], d;\nret;\n}\n";
  return k;
}

/// Results of `body` for each element; the number of elements is a multiple of 64.
template <class D, class... S>
std::vector<D> run(const std::string& body, bool divergent, const std::vector<S>&... inputs) {
  const size_t n = std::max({inputs.size()...});
  Device<D> out{std::vector<D>(n)};
  std::vector<void*> arguments{&out.get()};
  auto call = [&](auto&... devices) {
    (arguments.push_back(&devices.get()), ...);
    launch(element_kernel<D, S...>(body, divergent), dim3(static_cast<unsigned>(n / 64)), dim3(64),
           arguments);
    return out.read();
  };
  return [&](Device<S>&&... devices) { return call(devices...); }(Device<S>(inputs)...);
}

template <class T>
bool same(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a != a && b != b) return true;
  }
  return std::memcmp(&a, &b, sizeof a) == 0;
}

/// Repeats elements up to a multiple of 64.
template <class T>
void pad(std::vector<T>& v) {
  for (size_t k = 0; v.size() % 64; ++k) v.push_back(v[k]);
}

/// Runs `body` on the inputs, in full and in divergent warps, and compares with f.
template <class D, class F, class... S>
void check(const std::string& body, F f, std::vector<S>... inputs) {
  INFO(body);
  (pad(inputs), ...);
  D untouched;
  std::memset(&untouched, 0x5a, sizeof untouched);
  for (const bool divergent : {false, true}) {
    const std::vector<D> got = run<D>(body, divergent, inputs...);
    for (size_t k = 0; k < got.size(); ++k) {
      const D want = divergent && k % 2 == 0 ? untouched : static_cast<D>(f(inputs[k]...));
      if (same(got[k], want)) continue;
      INFO("element " << k << (divergent ? " divergent" : ""));
      ((UNSCOPED_INFO("input " << +inputs[k])), ...);
      CAPTURE(+got[k], +want);
      REQUIRE(same(got[k], want));
    }
  }
  SUCCEED();
}

/// Values at which arithmetic on T goes wrong first, and some random ones.
template <class T>
std::vector<T> corners() {
  static std::mt19937_64 random(5);
  std::vector<T> v;
  using L = std::numeric_limits<T>;
  if constexpr (std::is_floating_point_v<T>) {
    v = {0,
         -T{0},
         1,
         -1,
         T(0.5),
         T(1.5),
         T(2.5),
         -T(2.5),
         T(3.14159265),
         L::min(),
         -L::min(),
         L::denorm_min(),
         L::min() / 2,
         L::max(),
         L::lowest(),
         L::infinity(),
         -L::infinity(),
         L::quiet_NaN(),
         L::epsilon(),
         T(1) + L::epsilon(),
         T(1e-3),
         T(-77.25),
         T(16777217),
         T(4294967296.0),
         T(2147483648.0),
         T(1e15),
         T(-0.75)};
    std::normal_distribution<double> normal;
    for (int k = 0; k < 7; ++k) v.push_back(static_cast<T>(normal(random) * std::pow(10.0, k - 3)));
  } else {
    for (const int64_t k : {0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256}) {
      v.push_back(static_cast<T>(k));
      v.push_back(static_cast<T>(-k));
    }
    v.insert(v.end(),
             {L::max(), L::min(), static_cast<T>(L::max() - 1), static_cast<T>(L::min() + 1)});
    for (int k = 0; k < 8; ++k) v.push_back(static_cast<T>(random()));
  }
  return v;
}

/// All pairs of elements.
template <class A, class B>
std::pair<std::vector<A>, std::vector<B>> pairs(const std::vector<A>& a, const std::vector<B>& b) {
  std::pair<std::vector<A>, std::vector<B>> p;
  for (const A x : a) {
    for (const B y : b) {
      p.first.push_back(x);
      p.second.push_back(y);
    }
  }
  return p;
}

template <class T, class F>
void check1(const std::string& body, F f) {
  check<decltype(f(T{}))>(body, f, corners<T>());
}
template <class A, class B = A, class F>
void check2(const std::string& body, F f) {
  const auto [a, b] = pairs(corners<A>(), corners<B>());
  check<decltype(f(A{}, B{}))>(body, f, a, b);
}
/// The third operand runs through the corners in another order.
template <class A, class B = A, class C = A, class F>
void check3(const std::string& body, F f) {
  const auto [a, b] = pairs(corners<A>(), corners<B>());
  const std::vector<C> some = corners<C>();
  std::vector<C> c;
  for (size_t k = 0; k < a.size(); ++k) c.push_back(some[(k * 7 + k / 31) % some.size()]);
  check<decltype(f(A{}, B{}, C{}))>(body, f, a, b, c);
}

}  // namespace vgpu::test
