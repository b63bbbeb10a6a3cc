// Loads, stores, atomics, asynchronous copies and the state spaces.
#include "exec_access.h"
#include "exec_stats.h"
#include "test_ptx.h"

using namespace vgpu;
using namespace vgpu::test;

namespace {

std::vector<u32> counting(size_t n, u32 first = 0) {
  std::vector<u32> v(n);
  for (size_t k = 0; k < n; ++k) v[k] = first + static_cast<u32>(k);
  return v;
}

// A kernel with parameters in and out; `at` is out + 4 * thread, `from` is in + 4 * thread, t the
// thread, x, y, z and u, v scratch. `outside`: declarations at module level.
std::string memory_kernel(const std::string& body, const std::string& outside = "") {
  return outside +
         "\n.visible .entry k(.param .u64 out, .param .u64 in)\n{\n.reg .pred p, q;\n.reg .b16 h, "
         "g;\n"
         ".reg .b32 t, x, y, z, x0, x1, x2, x3;\n.reg .f32 f;\n.reg .b64 at, from, u, v, w, s;\n"
         "ld.param.u64 u, [out];\nld.param.u64 v, [in];\nmov.u32 t, %tid.x;\nmad.wide.u32 at, t, "
         "4, u;\n"
         "mad.wide.u32 from, t, 4, v;\n" +
         body + "\nret;\n}\n";
}

std::vector<u32> run_memory(const std::string& body, const std::vector<u32>& in, size_t out = 32,
                            u32 threads = 32, const std::string& outside = "", size_t dynamic = 0) {
  Device<u32> input(in), output{std::vector<u32>(out)};
  launch(memory_kernel(body, outside), dim3(1), dim3(threads), {&output.get(), &input.get()},
         dynamic);
  return output.read();
}

std::string fault_of(const std::string& body, u32 threads = 32, const std::string& outside = "") {
  return report_of([&] { run_memory(body, counting(64), 64, threads, outside); });
}

bool mentions(const std::string& text, const std::string& part) {
  INFO(text);
  CHECK(text.find(part) != std::string::npos);
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("loads extend sub-words to their register", "[opcodes]") {
  const std::vector<u32> in(32, 0xfedc8ba9);
  auto first = [&](const std::string& body) {
    return run_memory(body + "\nst.global.u32 [at], x;", in)[5];
  };
  CHECK(first("ld.global.u8 x, [from];") == 0xa9);
  CHECK(first("ld.global.s8 x, [from];") == 0xffffffa9);
  CHECK(first("ld.global.u16 x, [from+2];") == 0xfedc);
  CHECK(first("ld.global.s16 x, [from+2];") == 0xfffffedc);
  CHECK(first("ld.global.b8 h, [from+1];\ncvt.u32.u16 x, h;") == 0x8b);
  CHECK(first("ld.global.s8 h, [from+1];\ncvt.s32.s16 x, h;") == 0xffffff8b);
  CHECK(first("ld.global.u32 w, [from];\nshr.u64 w, w, 32;\ncvt.u32.u64 x, w;") == 0);
  CHECK(first("ld.global.s32 w, [from];\nshr.u64 w, w, 32;\ncvt.u32.u64 x, w;") == 0xffffffff);
  CHECK(first("ld.global.s8 w, [from];\nshr.u64 w, w, 4;\ncvt.u32.u64 x, w;") == 0xfffffffa);
  CHECK(first("ld.volatile.global.u32 x, [from];") == 0xfedc8ba9);
  CHECK(first("ld.global.nc.L1::no_allocate.L2::128B.u32 x, [from];") == 0xfedc8ba9);
  CHECK(first("ld.relaxed.gpu.global.u32 x, [from];") == 0xfedc8ba9);
  CHECK(first("ld.u32 x, [from];") == 0xfedc8ba9);
}

TEST_CASE("stores write the low bytes of any register", "[opcodes]") {
  auto first = [&](const std::string& body) {
    return run_memory(
        "mov.u64 w, 0x1122334455667788;\nmov.u32 x, 0x99aabbcc;\nmov.b16 h, 0xddee;\n"
        "st.global.u32 [at], 0;\n" +
            body,
        counting(32))[7];
  };
  CHECK(first("st.global.u32 [at], w;") == 0x55667788);
  CHECK(first("st.global.u16 [at], w;") == 0x7788);
  CHECK(first("st.global.u8 [at+1], w;") == 0x8800);
  CHECK(first("st.global.u8 [at], x;") == 0xcc);
  CHECK(first("st.global.u16 [at+2], x;") == 0xbbcc0000);
  CHECK(first("st.global.u8 [at+3], h;") == 0xee000000);
  CHECK(first("st.global.u32 [at], 305419896;") == 0x12345678);
  CHECK(first("st.release.gpu.global.u32 [at], x;") == 0x99aabbcc);
  CHECK(first("setp.eq.u32 p, t, 7;\n@p st.global.u32 [at], x;") == 0x99aabbcc);
  CHECK(first("setp.eq.u32 p, t, 7;\n@!p st.global.u32 [at], x;") == 0);
}

TEST_CASE("vectors of registers", "[opcodes]") {
  const auto reversed = run_memory(
      "shl.b32 y, t, 4;\nadd.u64 from, v, 0;\ncvt.u64.u32 w, y;\nadd.u64 from, v, w;\nadd.u64 at, "
      "u, w;\n"
      "ld.global.v4.u32 {x0, x1, x2, x3}, [from];\nst.global.v4.u32 [at], {x3, x2, x1, x0};",
      counting(128), 128);
  for (u32 k = 0; k < 128; ++k) REQUIRE(reversed[k] == k / 4 * 4 + 3 - k % 4);
  const auto swapped = run_memory(
      "mad.wide.u32 from, t, 16, v;\nmad.wide.u32 at, t, 16, u;\nld.global.v2.u64 {w, s}, [from];\n"
      "st.global.v2.b64 [at], {s, w};",
      counting(128), 128);
  for (u32 k = 0; k < 128; ++k) REQUIRE(swapped[k] == (k ^ 2));
  const auto bytes =
      run_memory("ld.global.v4.u8 {x0, x1, x2, x3}, [from];\nst.global.v2.u16 [at], {x1, x3};",
                 std::vector<u32>(32, 0x04030201));
  CHECK(bytes[9] == 0x00040002);
  const auto eight = run_memory(
      "{.reg .b32 r<8>;\nmad.wide.u32 from, t, 32, v;\nmad.wide.u32 at, t, 32, u;\n"
      "ld.global.v8.b32 {r0,r1,r2,r3,r4,r5,r6,r7}, [from];\nst.global.v8.b32 [at], "
      "{r7,r6,r5,r4,r3,r2,r1,r0};}",
      counting(256), 256);
  for (u32 k = 0; k < 256; ++k) REQUIRE(eight[k] == k / 8 * 8 + 7 - k % 8);
  const auto sunk =
      run_memory("ld.global.v2.u32 {_, x}, [v];\nst.global.u32 [at], x;", counting(32));
  CHECK(sunk[3] == 1);
}

TEST_CASE("shared memory: several variables and a dynamic array", "[opcodes]") {
  const std::string outside = ".extern .shared .align 16 .b8 dynamic[];";
  const auto out = run_memory(
      ".shared .align 4 .b8 one[128];\n.shared .align 8 .b8 two[256];\nshl.b32 x, t, 2;\nmov.u32 "
      "y, one;\nadd.u32 y, y, x;\n"
      "st.shared.u32 [y], t;\nshl.b32 x, t, 3;\nmov.u64 s, two;\ncvt.u64.u32 w, x;\nadd.u64 s, s, "
      "w;\n"
      "mul.wide.u32 w, t, 1000;\nst.shared.u64 [s], w;\nmov.u32 z, dynamic;\nshl.b32 x, t, "
      "2;\nadd.u32 z, z, x;\n"
      "st.shared.u32 [z+128], x;\nbar.sync 0;\nxor.b32 x, t, 31;\nshl.b32 x, x, 2;\nmov.u32 y, "
      "one;\nadd.u32 y, y, x;\n"
      "ld.shared.u32 x0, [y];\nld.shared.u64 w, [two+24];\ncvt.u32.u64 x1, w;\nld.shared.u32 x2, "
      "[dynamic+132];\n"
      "add.u32 x, x0, x1;\nadd.u32 x, x, x2;\nst.global.u32 [at], x;",
      counting(32), 32, 32, outside, 256);
  for (u32 k = 0; k < 32; ++k) REQUIRE(out[k] == (k ^ 31) + 3000 + 4);
}

TEST_CASE("generic addresses of every space", "[opcodes]") {
  const std::string outside =
      ".global .align 4 .u32 cell = 77;\n.const .align 4 .b8 table[8] = {1, 0, 0, 0, 5, 0, 0, 0};";
  const auto out = run_memory(
      ".shared .align 4 .b8 box[128];\n.local .align 8 .b8 depot[16];\n"
      "mov.u64 w, depot;\nst.local.u32 [w+4], t;\ncvta.local.u64 s, w;\nld.u32 x0, [s+4];\n"
      "mov.u64 w, box;\ncvta.shared.u64 s, w;\nmul.wide.u32 w, t, 4;\nadd.u64 s, s, w;\nst.u32 "
      "[s], 100;\nld.u32 x1, [s];\n"
      "cvta.to.shared.u64 w, s;\nld.shared.u32 x2, [w];\nadd.u32 x1, x1, x2;\n"
      "mov.u64 w, cell;\ncvta.global.u64 s, w;\nld.u32 x2, [s];\nld.const.u32 x3, [table+4];\n"
      "isspacep.shared p, s;\nisspacep.global q, s;\nselp.u32 x, 1, 0, p;\nselp.u32 y, 10000, 0, "
      "q;\n"
      // One instruction that touches global memory in some lanes, shared and local in others.
      "mov.u64 w, depot;\ncvta.local.u64 w, w;\nadd.u64 w, w, 4;\nsetp.lt.u32 p, t, 8;\nselp.b64 "
      "s, w, s, p;\n"
      "ld.u32 z, [s];\nadd.u32 x, x, z;\nadd.u32 x, x, y;\nadd.u32 x, x, x0;\nadd.u32 x, x, "
      "x1;\nadd.u32 x, x, x2;\n"
      "add.u32 x, x, x3;\nst.global.u32 [at], x;",
      counting(32), 32, 32, outside);
  for (u32 k = 0; k < 32; ++k) REQUIRE(out[k] == 10000 + k + 200 + 77 + 5 + (k < 8 ? k : 77));
}

TEST_CASE("initialised variables, also with addresses", "[opcodes]") {
  const std::string outside =
      ".global .align 4 .b8 text[4] = {104, 105, 33};\n.global .align 8 .u64 names[2] = "
      "{generic(text), text+1};\n"
      ".global .align 4 .f32 number = 0f3FC00000;\n.global .align 8 .f64 numbers[2] = "
      "{0d3FF8000000000000, 0d4000000000000000};\n"
      ".global .align 4 .s32 negative[3] = {-5, 7};";
  const auto out = run_memory(
      "ld.global.u64 w, [names];\nld.u8 x0, [w];\nld.global.u64 w, [names+8];\nld.global.u8 x1, "
      "[w];\nld.global.u32 x2, [number];\n"
      "ld.global.u32 x3, [negative];\nld.global.u32 x, [negative+8];\nld.global.u64 w, "
      "[numbers+8];\ncvt.rzi.s32.f64 y, w;\n"
      "st.global.u32 [u], x0;\nst.global.u32 [u+4], x1;\nst.global.u32 [u+8], x2;\nst.global.u32 "
      "[u+12], x3;\n"
      "st.global.u32 [u+16], x;\nst.global.u32 [u+20], y;",
      counting(32), 32, 1, outside);
  CHECK(std::vector<u32>(out.begin(), out.begin() + 6) ==
        std::vector<u32>{104, 105, 0x3fc00000, static_cast<u32>(-5), 0, 2});
}

TEST_CASE("kernel parameters up to 4 KB, structs by value", "[opcodes]") {
  struct Big {
    u32 values[1020];
  } big;
  for (u32 k = 0; k < 1020; ++k) big.values[k] = k * k;
  Device<u32> out{std::vector<u32>(32)};
  launch(
      ".visible .entry k(.param .align 4 .b8 big[4080], .param .u64 out)\n{\n.reg .b32 t, x, y, "
      "z;\n.reg .b64 at, b, g;\n"
      "mov.u32 t, %tid.x;\nld.param.u64 at, [out];\nmad.wide.u32 at, t, 4, at;\nmov.b64 b, "
      "big;\nmul.wide.u32 g, t, 4;\n"
      "add.u64 g, b, g;\nld.param.u32 x, [g+3952];\nld.param.v2.u32 {y, z}, [big+16];\nadd.u32 x, "
      "x, y;\n"
      "cvta.param.u64 g, b;\nld.u32 y, [g+12];\nadd.u32 x, x, y;\nst.global.u32 [at], "
      "x;\nret;\n}\n",
      dim3(1), dim3(32), {&big, &out.get()});
  const auto got = out.read();
  for (u32 k = 0; k < 32; ++k) REQUIRE(got[k] == (988 + k) * (988 + k) + 16 + 9);
}

TEST_CASE("local arrays belong to their thread", "[opcodes]") {
  const auto out = run_memory(
      ".local .align 16 .b8 depot[64];\nmov.u64 s, depot;\nmov.u32 x, 0;\nLOOP:\nmul.lo.u32 y, x, "
      "t;\nmul.wide.u32 w, x, 4;\n"
      "add.u64 w, s, w;\nst.local.u32 [w], y;\nadd.u32 x, x, 1;\nsetp.lt.u32 p, x, 16;\n@p bra "
      "LOOP;\nand.b32 x, t, 15;\n"
      "mul.wide.u32 w, x, 4;\nadd.u64 w, s, w;\nld.local.u32 y, [w];\nst.local.v4.u32 [s], {t, t, "
      "t, y};\n"
      "ld.local.v2.u32 {x, y}, [s+8];\nadd.u32 x, x, y;\nst.global.u32 [at], x;",
      counting(64), 64, 64);
  for (u32 k = 0; k < 64; ++k) REQUIRE(out[k] == k + (k % 16) * k);
}

TEST_CASE("atomics", "[opcodes]") {
  // All 32 lanes update out[0]; lane t stores what it got to out[1 + t].
  auto atomic = [](const std::string& op, u32 initial, const std::string& operands) {
    return run_memory("setp.eq.u32 p, t, 0;\n@p st.global.u32 [u], " + std::to_string(initial) +
                          ";\nbar.warp.sync -1;\natom." + op + " x, [u], " + operands +
                          ";\nst.global.u32 [at+4], x;",
                      counting(32), 33);
  };
  auto sum = atomic("global.add.u32", 5, "t");
  CHECK(sum[0] == 5 + 496);
  CHECK(sum[4] == 5 + 0 + 1 + 2);
  CHECK(atomic("global.min.u32", 9, "t")[0] == 0);
  CHECK(atomic("global.max.s32", 9, "t")[0] == 31);
  CHECK(atomic("global.max.u32", 0x80000000, "t")[0] == 0x80000000);
  CHECK(atomic("global.max.s32", 0x80000000, "t")[0] == 31);
  CHECK(atomic("global.exch.b32", 9, "t")[0] == 31);
  CHECK(atomic("global.and.b32", 0xff, "t")[0] == 0);
  CHECK(atomic("global.or.b32", 0x100, "t")[0] == 0x11f);
  CHECK(atomic("global.xor.b32", 1, "t")[0] == 1);
  CHECK(atomic("global.inc.u32", 0, "6")[0] == 32 % 7);
  CHECK(atomic("global.dec.u32", 0, "6")[0] == (7 - 32 % 7) % 7);
  CHECK(atomic("global.cas.b32", 0, "t, 40")[0] == 40);
  CHECK(atomic("add.u32", 1, "2")[0] == 65);
  CHECK(atomic("relaxed.gpu.global.add.u32", 1, "2")[0] == 65);
  CHECK(atomic("global.add.f32", 0x3f800000, "0f3F000000")[0] == std::bit_cast<u32>(17.0f));
  auto wide = [](const std::string& op, const std::string& operands) {
    const auto out = run_memory(
        "setp.eq.u32 p, t, 0;\nmov.u64 w, 3;\n@p st.global.u64 [u], w;\nbar.warp.sync "
        "-1;\ncvt.u64.u32 w, t;\natom." +
            op + " s, [u], " + operands + ";",
        counting(32), 2);
    return out[0] | static_cast<u64>(out[1]) << 32;
  };
  CHECK(wide("global.add.u64", "0x100000000") == 3 + (32ull << 32));
  CHECK(wide("global.cas.b64", "3, 0x500000000") == 5ull << 32);
  CHECK(wide("global.min.s64", "-4") == static_cast<u64>(-4));
  CHECK(wide("global.exch.b64", "w") == 31);
  const auto doubles = run_memory(
      "setp.eq.u32 p, t, 0;\nmov.u64 w, 0d3FF0000000000000;\n@p st.global.u64 [u], "
      "w;\nbar.warp.sync -1;\n"
      "red.global.add.f64 [u], 0d3FE0000000000000;",
      counting(32), 2);
  CHECK((doubles[0] | static_cast<u64>(doubles[1]) << 32) == std::bit_cast<u64>(17.0));
}

TEST_CASE("atomics on 16-bit values, in shared memory, and red", "[opcodes]") {
  const auto cas = run_memory(
      "setp.eq.u32 p, t, 0;\n@p st.global.u32 [u], 0x00070003;\nbar.warp.sync "
      "-1;\natom.global.cas.b16 h, [u+2], 7, 9;\n"
      "cvt.u32.u16 x, h;\nst.global.u32 [at+4], x;",
      counting(32), 33);
  CHECK(cas[0] == 0x00090003);
  CHECK(cas[1] == 7);
  CHECK(cas[2] == 9);
  const auto pair = run_memory(
      "setp.eq.u32 p, t, 0;\n@p st.global.u32 [u], 0x3f803f80;\nbar.warp.sync -1;\nmov.u32 y, "
      "0x3f800000;\n"
      "atom.add.noftz.bf16x2 x, [u], y;",
      counting(32), 1);
  CHECK(pair[0] == 0x42043f80);
  const auto half = run_memory(
      "setp.eq.u32 p, t, 0;\n@p st.global.u32 [u], 0x00003c00;\nbar.warp.sync -1;\nmov.b16 h, "
      "0x3c00;\n"
      "red.global.add.noftz.f16 [u], h;",
      counting(32), 1);
  CHECK(half[0] == 0x5020);
  const auto shared = run_memory(
      ".shared .align 4 .u32 sum;\nsetp.eq.u32 p, t, 0;\n@p st.shared.u32 [sum], 0;\nbar.sync 0;\n"
      "atom.shared.add.u32 x, [sum], t;\nred.shared.max.u32 [sum], 7;\nbar.sync 0;\n"
      "ld.shared.u32 x, [sum];\nst.global.u32 [at], x;",
      counting(32), 32, 1);
  CHECK(shared[0] == 7);
}

TEST_CASE("asynchronous copies land when they are waited for", "[opcodes]") {
  const std::string copy =
      ".shared .align 16 .b8 box[1024];\nmul.wide.u32 w, t, 16;\nadd.u64 from, v, w;\nmov.u32 x, "
      "box;\nshl.b32 y, t, 4;\n"
      "add.u32 x, x, y;\ncp.async.cg.shared.global.L2::128B [x], [from], "
      "16;\ncp.async.commit_group;\n"
      "cp.async.ca.shared.global [x+512], [from+512], 8, 4;\ncp.async.ca.shared.global [x+520], "
      "[from+520], 8;\n"
      "cp.async.commit_group;\n";
  const auto in = counting(256, 100);
  const auto out = run_memory(
      copy +
          "cp.async.wait_group 1;\nld.shared.u32 x0, [x+4];\ncp.async.wait_group 0;\n"
          "ld.shared.v4.u32 {y, z, x2, x3}, [x+512];\nadd.u32 x0, x0, y;\nadd.u32 x0, x0, z;\n"
          "add.u32 x0, x0, x3;\nst.global.u32 [at], x0;",
      in);
  for (u32 k = 0; k < 32; ++k) REQUIRE(out[k] == (101 + 4 * k) + (228 + 4 * k) + 0 + (231 + 4 * k));
  const auto all = run_memory(
      copy + "cp.async.wait_all;\nld.shared.u32 x0, [x+512];\nst.global.u32 [at], x0;", in);
  CHECK(all[3] == 240);
  CHECK(mentions(
      fault_of(copy +
               "cp.async.wait_group 1;\nld.shared.u32 x0, [x+512];\nst.global.u32 [at], x0;"),
      "vgpu"));
}

TEST_CASE("unused bytes of a vector load may be uninitialised", "[opcodes]") {
  const std::string body =
      ".shared .align 16 .b8 box[16];\nmov.u32 x, 9;\nst.shared.u32 [box+4], x;\n";
  const std::string load = "ld.shared.v4.u32 {x0, x1, x2, x3}, [box];\nst.global.u32 [u], x1;";
  const auto out =
      run_memory(body + ".pragma \"used_bytes_mask 240\";\n" + load, counting(32), 32, 1);
  CHECK(out[0] == 9);
  mentions(fault_of(body + load, 1), "uninitialised shared memory");
}

TEST_CASE("blocks of 1024 threads", "[opcodes]") {
  const auto out = run_memory(
      ".shared .align 4 .b8 box[4096];\nshl.b32 x, t, 2;\nmov.u32 y, box;\nadd.u32 y, y, x;\n"
      "st.shared.u32 [y], t;\nbar.sync 0;\nxor.b32 x, t, 1023;\nshl.b32 x, x, 2;\nmov.u32 y, box;\n"
      "add.u32 y, y, x;\nld.shared.u32 x, [y];\nst.global.u32 [at], x;",
      counting(1024), 1024, 1024);
  for (u32 k = 0; k < 1024; ++k) REQUIRE(out[k] == (k ^ 1023));
}

TEST_CASE("wrong accesses are reported with thread and source line", "[opcodes]") {
  const std::string report =
      fault_of(".file 1 \"dir/some.cu\"\n.loc 1 42 3\nst.global.u32 [at+200], t;");
  mentions(report, "out of bounds");
  mentions(report, "some.cu:42");
  mentions(report, "kernel k, block (0,0,0), thread (14,0,0)");
  mentions(
      fault_of(
          ".file 1 \"a/user.cu\"\n.file 2 \"b/lib.cuh\"\n.loc 1 7 2\n.loc 2 9 1, function_name "
          "$L, inlined_at 1 7 2\n.loc 2 30 1, function_name $M, inlined_at 2 9 1\ntrap;"),
      "lib.cuh:30, inlined at lib.cuh:9, inlined at user.cu:7");
  mentions(fault_of("st.global.u32 [at+2], t;"), "misaligned address");
  mentions(fault_of("ld.global.v2.u32 {x, y}, [from+4];"), "misaligned address");
  mentions(fault_of("ld.global.u32 x, [100];"), "no device memory");
  mentions(fault_of(".shared .align 4 .b8 box[128];\nshl.b32 x, t, 2;\nmov.u32 y, box;\nadd.u32 y, "
                    "y, x;\nld.shared.u32 x, [y];"),
           "uninitialised shared memory");
  mentions(fault_of(".shared .align 4 .b8 box[128];\nst.shared.u32 [box+128], t;"),
           "out of bounds of every shared variable");
  mentions(fault_of(".shared .align 4 .b8 box[128];\nst.shared.v2.u32 [box], {t, t};"),
           "misaligned shared access");
  mentions(fault_of(".local .align 4 .b8 depot[8];\nmov.u64 w, depot;\nst.local.u32 [w+8], t;"),
           "out of bounds of local memory");
  mentions(fault_of("mov.u64 w, out;\ncvta.param.u64 w, w;\nst.u32 [w], t;"),
           "write to kernel parameters");
  mentions(fault_of("st.global.u32 [u], t;"), "data race");
  mentions(fault_of("st.global.u32 [at], t;\nxor.b32 x, t, 1;\nmad.wide.u32 w, x, 4, "
                    "u;\nld.global.u32 x, [w];"),
           "data race");
  CHECK(fault_of("st.global.u32 [at], t;\nbar.warp.sync -1;\nxor.b32 x, t, 1;\nmad.wide.u32 w, x, "
                 "4, u;\nld.global.u32 x, [w];")
            .empty());
}

TEST_CASE("counters by source line", "[opcodes]") {
  g_counting = true;
  run_memory(
      ".file 1 \"a/counted.cu\"\n.shared .align 16 .b8 box[1024];\n.loc 1 10 1\nld.global.u32 x, "
      "[from];\n.loc 1 11 1\n"
      "mad.wide.u32 w, t, 32, v;\nld.global.u32 y, [w];\n.loc 1 12 1\nld.global.u32 z, [v];\n.loc "
      "1 20 1\nshl.b32 x0, t, 3;\n"
      "mov.u32 x1, box;\nadd.u32 x1, x1, x0;\n.loc 1 21 1\nst.shared.u32 [x1], t;\n.loc 1 22 1\n"
      "setp.lt.u32 p, t, 8;\n@p ld.shared.u32 x2, [x1];\n.loc 1 23 1\nst.shared.v2.u32 [x1+512], "
      "{t, t};\nst.global.u32 [at], t;",
      counting(256));
  g_counting = false;
  const std::string text = stats_text();
  mentions(text,
           "kernel k\n  launches 1  threads 32  shared 0  warp instructions 18  active lanes "
           "95.8%\n");
  mentions(text, "  counted.cu:10  issued 1  lanes 100.0%  sectors 4/4\n");
  mentions(text, "  counted.cu:11  issued 2  lanes 100.0%  sectors 32/4\n");
  mentions(text, "  counted.cu:12  issued 1  lanes 100.0%  sectors 1/1\n");
  mentions(text, "  counted.cu:20  issued 3  lanes 100.0%\n");
  mentions(text, "  counted.cu:21  issued 1  lanes 100.0%  bank passes 2/1\n");
  mentions(text, "  counted.cu:22  issued 2  lanes 62.5%  bank passes 1/1\n");
}
