// Warp-wide instructions, control flow, barriers, calls and tensor cores.
#include <array>
#include <functional>

#include "exec_float_types.h"
#include "test_ptx.h"

using namespace vgpu;
using namespace vgpu::test;

namespace {

// Runs `body` in one block; t is the thread, l the lane; x of every thread is the result.
std::string warp_kernel(const std::string& body, const std::string& outside = "") {
  return outside +
         "\n.visible .entry k(.param .u64 out)\n{\n.reg .pred p, q, r;\n.reg .b32 t, l, x, y, z, "
         "m;\n.reg .b64 at, u, v;\n"
         "mov.u32 t, %tid.x;\nmov.u32 l, %laneid;\n" +
         body +
         "\nld.param.u64 at, [out];\nmad.wide.u32 at, t, 4, at;\nst.global.u32 [at], x;\nret;\n}\n";
}

std::vector<u32> run_warp(const std::string& body, u32 threads = 32,
                          const std::string& outside = "") {
  Device<u32> out{std::vector<u32>(threads)};
  launch(warp_kernel(body, outside), dim3(1), dim3(threads), {&out.get()});
  return out.read();
}

void expect(const std::string& body, const std::function<u32(u32)>& f, u32 threads = 32,
            const std::string& outside = "") {
  INFO(body);
  const auto got = run_warp(body, threads, outside);
  for (u32 k = 0; k < threads; ++k) {
    INFO("thread " << k);
    REQUIRE(got[k] == f(k));
  }
}

void expect_fault(const std::string& body, const std::string& part, u32 threads = 32,
                  const std::string& outside = "") {
  const std::string text = report_of([&] { run_warp(body, threads, outside); });
  INFO(body << "\n" << text);
  CHECK(text.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("special registers", "[opcodes]") {
  expect(
      "mov.u32 x, %laneid;", [](u32 k) { return k % 32; }, 96);
  expect(
      "mov.u32 x, %warpid;", [](u32 k) { return k / 32; }, 96);
  expect("mov.u32 x, %lanemask_lt;", [](u32 k) { return (1u << k) - 1; });
  expect("mov.u32 x, %lanemask_ge;", [](u32 k) { return ~((1u << k) - 1); });
  expect("mov.u32 x, %lanemask_gt;\nmov.u32 y, %lanemask_le;\nxor.b32 x, x, y;",
         [](u32) { return ~0u; });
  expect(
      "mov.u32 x, %ntid.x;\nmov.u32 y, WARP_SZ;\nadd.u32 x, x, y;", [](u32) { return 96u; }, 64);
  expect("mov.u64 u, %clock64;\nmov.u64 v, %clock64;\nsub.u64 u, v, u;\ncvt.u32.u64 x, u;",
         [](u32) { return 0u; });
}

TEST_CASE("shuffles in every mode and segment", "[opcodes]") {
  expect("shfl.sync.bfly.b32 x, t, 5, 31, -1;", [](u32 k) { return k ^ 5; });
  expect("shfl.sync.idx.b32 x, t, 7, 31, -1;", [](u32) { return 7u; });
  expect("xor.b32 y, t, 31;\nshfl.sync.idx.b32 x, t, y, 31, -1;", [](u32 k) { return k ^ 31; });
  expect("shfl.sync.up.b32 x|p, t, 3, 0, -1;\n@!p add.u32 x, x, 100;",
         [](u32 k) { return k >= 3 ? k - 3 : k + 100; });
  expect("shfl.sync.down.b32 x|p, t, 3, 31, -1;\n@!p add.u32 x, x, 100;",
         [](u32 k) { return k < 29 ? k + 3 : k + 100; });
  // Segments of 8: c is (32 - 8) << 8 | limit.
  expect("shfl.sync.down.b32 x|p, t, 3, 6175, -1;\n@!p add.u32 x, x, 100;",
         [](u32 k) { return k % 8 < 5 ? k + 3 : k + 100; });
  expect("shfl.sync.up.b32 x|p, t, 2, 6144, -1;\n@!p add.u32 x, x, 100;",
         [](u32 k) { return k % 8 >= 2 ? k - 2 : k + 100; });
  expect("shfl.sync.idx.b32 x, t, 9, 6175, -1;", [](u32 k) { return k / 8 * 8 + 1; });
  expect("shfl.sync.bfly.b32 x|p, t, 12, 6175, -1;\n@!p add.u32 x, x, 100;",
         [](u32 k) { return (k ^ 12) <= (k / 8 * 8 + 7) ? k ^ 12 : k + 100; });
  expect("setp.lt.u32 p, t, 16;\nmov.u32 x, 50;\n@p shfl.sync.bfly.b32 x, t, 1, 31, 65535;",
         [](u32 k) { return k < 16 ? k ^ 1 : 50; });
  expect_fault("setp.lt.u32 p, t, 16;\n@p shfl.sync.idx.b32 x, t, 20, 31, 65535;\nmov.u32 x, 0;",
               "takes no part");
}

TEST_CASE("votes, matches and reductions", "[opcodes]") {
  expect("setp.gt.u32 p, t, 20;\nvote.sync.ballot.b32 x, p, -1;", [](u32) { return ~0u << 21; });
  expect("setp.gt.u32 p, t, 20;\nvote.sync.ballot.b32 x, !p, -1;",
         [](u32) { return ~(~0u << 21); });
  expect(
      "setp.gt.u32 p, t, 20;\nvote.sync.any.pred q, p, -1;\nvote.sync.all.pred r, p, -1;\nselp.u32 "
      "x, 1, 0, q;\nselp.u32 y, 2, 0, r;\nor.b32 x, x, y;",
      [](u32) { return 1u; });
  expect("setp.ge.u32 p, t, 0;\nvote.sync.uni.pred q, p, -1;\nselp.u32 x, 1, 0, q;",
         [](u32) { return 1u; });
  expect("and.b32 y, t, 3;\nmatch.any.sync.b32 x, y, -1;",
         [](u32 k) { return 0x11111111u << (k & 3); });
  expect("cvt.u64.u32 u, t;\nshr.u64 u, u, 3;\nmatch.any.sync.b64 x, u, -1;",
         [](u32 k) { return 0xffu << (k / 8 * 8); });
  expect("mov.u32 y, 4;\nmatch.all.sync.b32 x|p, y, -1;\n@!p mov.u32 x, 1;",
         [](u32) { return ~0u; });
  expect("match.all.sync.b32 x|p, t, -1;\n@!p add.u32 x, x, 1;", [](u32) { return 1u; });
  expect("redux.sync.add.s32 x, t, -1;", [](u32) { return 496u; });
  expect("sub.s32 y, 5, t;\nredux.sync.min.s32 x, y, -1;",
         [](u32) { return static_cast<u32>(-26); });
  expect("sub.s32 y, 5, t;\nredux.sync.max.u32 x, y, -1;", [](u32) { return ~0u; });
  expect("redux.sync.or.b32 x, t, -1;", [](u32) { return 31u; });
  expect("add.u32 y, t, 32;\nredux.sync.and.b32 x, y, -1;", [](u32) { return 32u; });
  expect("redux.sync.xor.b32 x, t, -1;", [](u32) { return 0u; });
  expect("elect.sync x|p, -1;\n@p add.u32 x, x, 5;", [](u32 k) { return k == 0 ? 5u : 0u; });
  // Lanes of one instruction with two disjoint masks.
  expect("setp.lt.u32 p, t, 12;\nselp.b32 m, 4095, -4096, p;\nredux.sync.add.u32 x, t, m;",
         [](u32 k) { return k < 12 ? 66u : 430u; });
}

TEST_CASE("diverged lanes meet again", "[opcodes]") {
  expect(
      "mov.u32 x, 0;\nmov.u32 y, 0;\nLOOP:\nadd.u32 x, x, y;\nadd.u32 y, y, 1;\nsetp.le.u32 p, y, "
      "t;\n@p bra LOOP;\nactivemask.b32 z;\n"
      "setp.eq.u32 p, z, -1;\n@!p mov.u32 x, -1;",
      [](u32 k) { return k * (k + 1) / 2; });
  expect(
      "setp.lt.u32 p, t, 10;\n@p bra LOW;\nactivemask.b32 x;\nbra.uni END;\nLOW:\nactivemask.b32 "
      "x;\nEND:",
      [](u32 k) { return k < 10 ? 1023u : ~1023u; });
  // Both sides of a branch wait for each other at a shuffle: it is one instruction for all.
  expect(
      "mov.u32 y, 1;\nsetp.lt.u32 p, t, 10;\n@p bra JOIN;\nmov.u32 y, 2;\nJOIN:\nshfl.sync.idx.b32 "
      "x, y, 0, 31, -1;\nadd.u32 x, x, y;",
      [](u32 k) { return k < 10 ? 2u : 3u; });
  expect(
      "LIST: .branchtargets A, B, C;\nrem.u32 y, t, 3;\nbrx.idx y, LIST;\nA:\nmov.u32 x, 10;\nbra "
      "END;\nB:\nmov.u32 x, 20;\nbra END;\nC:\nmov.u32 x, 30;\nEND:",
      [](u32 k) { return 10 * (k % 3 + 1); });
  expect_fault("LIST: .branchtargets A;\nbrx.idx t, LIST;\nA:\nmov.u32 x, 10;",
               "brx.idx: index 1 of 1");
  // Labels and registers of inline assembly are local to its braces.
  expect(
      "mov.u32 x, 1;\n{.reg .pred p; setp.eq.u32 p, t, 0; @p bra DONE; add.u32 x, x, 1;\nDONE:\n}\n"
      "{.reg .pred p; setp.eq.u32 p, t, 1; @p bra DONE; add.u32 x, x, 1;\nDONE:\n}",
      [](u32 k) { return k < 2 ? 2u : 3u; });
}

TEST_CASE("lanes that end early", "[opcodes]") {
  Device<u32> out{std::vector<u32>(32, 7)};
  launch(warp_kernel(
             "setp.ge.u32 p, t, 20;\n@p ret;\nsetp.lt.u32 p, t, 4;\n@p exit;\nactivemask.b32 x;"),
         dim3(1), dim3(32), {&out.get()});
  const auto got = out.read();
  for (u32 k = 0; k < 32; ++k) REQUIRE(got[k] == (k < 4 || k >= 20 ? 7 : 0x000ffff0));
  expect_fault("setp.ge.u32 p, t, 20;\n@p exit;\nredux.sync.add.u32 x, t, -1;", "have exited");
  expect_fault("setp.ge.u32 p, t, 20;\n@p exit;\nbar.sync 0;\nmov.u32 x, 0;", "have exited");
  expect_fault("setp.ge.u32 p, t, 32;\n@p exit;\nbar.sync 0;\nmov.u32 x, 0;",
               "32 threads of the block have exited", 64);
}

TEST_CASE("barriers", "[opcodes]") {
  expect(
      "setp.lt.u32 p, t, 40;\nbar.red.popc.u32 x, 0, p;", [](u32) { return 40u; }, 96);
  expect(
      "setp.lt.u32 p, t, 40;\nbar.red.popc.u32 x, 3, 96, !p;", [](u32) { return 56u; }, 96);
  expect(
      "setp.lt.u32 p, t, 40;\nbar.red.and.pred q, 0, p;\nbar.red.or.pred r, 0, p;\nselp.u32 x, 1, "
      "0, q;\nselp.u32 y, 2, 0, r;\nor.b32 x, x, y;",
      [](u32) { return 2u; }, 96);
  // Warp 0 produces for warp 1 through barrier 1; warp 2 and 3 meet at barrier 2.
  const std::string producer =
      ".shared .align 4 .u32 box;\nmov.u32 x, 0;\nsetp.ge.u32 p, t, 64;\n@p bra "
      "OTHERS;\nsetp.lt.u32 p, t, 32;\n@!p bra CONSUME;\n"
      "setp.eq.u32 q, t, 0;\n@q st.shared.u32 [box], 55;\nbar.arrive 1, 64;\nbra.uni "
      "END;\nCONSUME:\nbar.sync 1, 64;\nld.shared.u32 x, [box];\n"
      "bra.uni END;\nOTHERS:\nbarrier.sync.aligned 2, 64;\nEND:\nbar.sync 0;";
  expect(
      producer, [](u32 k) { return k / 32 == 1 ? 55u : 0u; }, 128);
  expect(
      "bar.sync 0;\nbarrier.cta.sync 5;\nbar.warp.sync -1;\nmov.u32 x, 1;", [](u32) { return 1u; },
      1024);
  expect(
      "mov.u32 y, 7;\nbar.sync y;\nmov.u32 x, 1;", [](u32) { return 1u; }, 50);
  expect_fault("setp.lt.u32 p, t, 8;\n@p bar.sync 0;\n@!p bar.sync 0;\nmov.u32 x, 0;",
               "divergent barrier");
  expect_fault(
      ".loc 1 5 1\nsetp.lt.u32 p, t, 32;\n@p bra A;\nbar.sync 0;\nbra END;\nA:\n.loc 1 9 "
      "1\nbar.sync 0;\nEND:\nmov.u32 x, 0;",
      "divergent __syncthreads()", 64);
  expect_fault("setp.lt.u32 p, t, 32;\n@p bar.sync 1, 128;\nmov.u32 x, 0;",
               "cannot arrive at barrier 1", 64);
  expect_fault("setp.lt.u32 p, t, 32;\n@p bar.sync 1;\n@!p bar.sync 2;\nmov.u32 x, 0;",
               "deadlock: barrier", 64);
  expect_fault("setp.lt.u32 p, t, 8;\n@p bar.warp.sync 65535;\nmov.u32 x, 0;",
               "deadlock in a warp");
  expect_fault("bar.warp.sync 255;\nmov.u32 x, 0;", "not in its mask");
  expect_fault("bar.sync 16;\nmov.u32 x, 0;", "only 16");
}

TEST_CASE("instructions that change nothing here", "[opcodes]") {
  expect(
      "membar.gl;\nmembar.cta;\nmembar.sys;\nfence.acq_rel.gpu;\nfence.sc.sys;\ngriddepcontrol."
      "wait;\n"
      "griddepcontrol.launch_dependents;\nnanosleep.u32 20;\nld.param.u64 u, "
      "[out];\nprefetch.global.L2 [u];\nmov.u32 x, 3;",
      [](u32) { return 3u; });
}

TEST_CASE("device functions", "[opcodes]") {
  const std::string outside =
      ".func (.param .b32 result) twice(.param .b32 a)\n;\n"
      ".global .align 8 .u64 table[2] = {twice, plus};\n"
      ".func (.param .b32 result) plus(.param .b32 a)\n{\n.reg .b32 r;\nld.param.u32 r, "
      "[a];\nadd.u32 r, r, 1000;\nst.param.b32 [result+0], r;\nret;\n}\n"
      ".func (.param .b32 result) twice(.param .b32 a)\n{\n.reg .b32 r;\nld.param.u32 r, "
      "[a];\nadd.u32 r, r, r;\nst.param.b32 [result+0], r;\nret;\n}\n"
      ".func (.param .b64 result) sum(.param .b64 n)\n{\n.reg .pred p;\n.reg .b64 n0, "
      "r;\nld.param.u64 n0, [n];\nmov.u64 r, 0;\n"
      "setp.eq.u64 p, n0, 0;\n@p bra END;\nadd.u64 r, n0, -1;\n{\n.param .b64 a;\nst.param.b64 "
      "[a+0], r;\n.param .b64 b;\n"
      "call.uni (b), sum, (a);\nld.param.b64 r, [b+0];\n}\nadd.u64 r, r, n0;\nEND:\nst.param.b64 "
      "[result+0], r;\nret;\n}\n"
      ".func (.param .align 8 .b8 result[16]) structs(.param .align 4 .b8 a[12])\n{\n.reg .b32 x, "
      "y;\n.reg .b64 s;\n"
      "mov.b64 s, a;\ncvta.local.u64 s, s;\nld.u32 x, [s+4];\nld.param.u32 y, "
      "[a+8];\nst.param.v2.b32 [result+8], {y, x};\nret;\n}\n"
      ".func change(.param .b64 pointer)\n{\n.reg .b64 p;\n.reg .b32 x;\nld.param.u64 p, "
      "[pointer];\nld.u32 x, [p];\nadd.u32 x, x, 5;\nst.u32 [p], x;\nret;\n}\n";
  auto call = [](const std::string& f, const std::string& argument) {
    return "{\n.param .b32 a;\nst.param.b32 [a+0], " + argument +
           ";\n.param .b32 b;\ncall.uni (b), " + f + ", (a);\nld.param.b32 x, [b+0];\n}\n";
  };
  expect(
      call("twice", "t"), [](u32 k) { return 2 * k; }, 32, outside);
  expect(
      "mov.u32 x, 3;\nsetp.lt.u32 p, t, 5;\n@p bra SKIP;\n" + call("twice", "t") + "SKIP:",
      [](u32 k) { return k < 5 ? 3 : 2 * k; }, 32, outside);
  expect(
      "cvt.u64.u32 u, t;\n{\n.param .b64 a;\nst.param.b64 [a+0], u;\n.param .b64 b;\ncall.uni (b), "
      "sum, (a);\nld.param.b64 u, [b+0];\n}\ncvt.u32.u64 x, u;",
      [](u32 k) { return k * (k + 1) / 2; }, 32, outside);
  expect(
      "{\n.param .align 4 .b8 a[12];\nst.param.b32 [a+4], t;\nst.param.b32 [a+8], 40;\n.param "
      ".align 8 .b8 b[16];\ncall.uni (b), structs, (a);\n"
      "ld.param.v2.b32 {x, y}, [b+8];\n}\nadd.u32 x, x, y;",
      [](u32 k) { return 40 + k; }, 32, outside);
  expect(
      ".local .align 4 .b8 depot[8];\nmov.u64 u, depot;\nst.local.u32 [u+4], t;\ncvta.local.u64 v, "
      "u;\nadd.u64 v, v, 4;\n"
      "{\n.param .b64 a;\nst.param.b64 [a+0], v;\ncall.uni change, (a);\n}\nld.local.u32 x, [u+4];",
      [](u32 k) { return k + 5; }, 32, outside);
  // Lanes call different functions through a table.
  expect(
      "and.b32 y, t, 1;\nmov.u64 u, table;\nmad.wide.u32 u, y, 8, u;\nld.global.u64 v, "
      "[u];\n{\n.param .b32 a;\nst.param.b32 [a+0], t;\n.param .b32 b;\n"
      "prototype_0 : .callprototype (.param .b32 _) _ (.param .b32 _);\ncall (b), v, (a), "
      "prototype_0;\nld.param.b32 x, [b+0];\n}",
      [](u32 k) { return k & 1 ? k + 1000 : 2 * k; }, 32, outside);
  expect_fault(
      "mov.u64 u, 100000;\n{\n.param .b64 a;\nst.param.b64 [a+0], u;\n.param .b64 b;\ncall.uni "
      "(b), sum, (a);\n}\nmov.u32 x, 0;",
      "stack overflow", 32, outside);
  expect_fault("{\ncall.uni nowhere, ();\n}\nmov.u32 x, 0;", "nowhere", 32, outside);
}

TEST_CASE("what is not implemented stops with its name, when it is executed", "[opcodes]") {
  expect_fault("trap;\nmov.u32 x, 0;", "trap");
  expect_fault("brkpt;\nmov.u32 x, 0;", "breakpoint");
  expect_fault("vabsdiff4.u32.u32.u32 x, t, t, t;", "does not implement 'vabsdiff4.u32.u32.u32'");
  expect_fault("add.strange.u32 x, t, t;", "does not implement '.strange' of 'add.strange.u32'");
  expect_fault("mul.lo.sat.u32 x, t, t;", "'.sat'");
  expect_fault("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {u}, {u}, {u}, {u};\nmov.u32 x, 0;",
               "mma");
  expect("setp.eq.u32 p, t, 99;\n@p vabsdiff4.u32.u32.u32 x, t, t, t;\nmov.u32 x, 1;",
         [](u32) { return 1u; });
}

TEST_CASE("PTX for every architecture nvcc 13 knows", "[opcodes]") {
  for (const char* target :
       {"sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120"}) {
    Module m(std::string("//\n.version 9.0\n.target ") + target +
             "\n.address_size 64\n.visible .entry k(\n.param .u64 .ptr .align 1 a\n)\n"
             ".maxntid 128, 1, 1\n.minnctapersm 1\n{\nret;\n}\n.section .debug_str\n{\n$L_s:\n.b8 "
             "1,2\n}\n");
    const Function* f = m.find("k");
    REQUIRE(f);
    CHECK(f->max_threads == 128);
    CHECK(m.target / 10 >= 7);
  }
}

namespace {

// A product D = A B + C of a 16 x K and a K x 8 matrix by one mma.sync of a warp.
struct Mma {
  std::string op;
  u32 k_size;
  Type type;  // of A and B; kF32 means tf32
  bool half_c;
  std::vector<float> a, b, c;
  u32 per, na, nb, nc;  // elements in a register of A or B; registers of each matrix

  Mma(const std::string& name, u32 k, Type t, bool half = false)
      : op(name), k_size(k), type(t), half_c(half), a(16 * k), b(8 * k), c(16 * 8) {
    std::mt19937 random(4);
    std::normal_distribution<float> normal;
    for (auto* v : {&a, &b, &c}) {
      for (float& x : *v) x = value(bits(normal(random)));
    }
    per = type == Type::kF32 ? 1 : 2;
    na = 16 * k / 32 / per, nb = 8 * k / 32 / per, nc = half ? 2 : 4;
  }

  u32 bits(float x) const {
    Half h;
    Bfloat f;
    round_to(h, x), round_to(f, x);
    return type == Type::kF32   ? std::bit_cast<u32>(x) & ~0x1fffu
           : type == Type::kF16 ? h.bits
                                : f.bits;
  }
  float value(u32 x) const {
    const u16 half = static_cast<u16>(x);
    return type == Type::kF32   ? std::bit_cast<float>(x)
           : type == Type::kF16 ? to_float(Half{half})
                                : to_float(Bfloat{half});
  }

  // The registers of all lanes, as the PTX ISA lays out the fragments.
  std::vector<u32> fragments() const {
    std::vector<u32> all(kLanes * (na + nb + nc));
    for (u32 l = 0; l < kLanes; ++l) {
      const u32 g = l / 4, t = l % 4;
      u32* r = &all[l * (na + nb + nc)];
      for (u32 q = 0; q < na; ++q) {
        for (u32 e = 0; e < per; ++e) {
          const u32 row = g + 8 * (q % 2), column = t * per + e + 4 * per * (q / 2);
          r[q] |= bits(a[row * k_size + column]) << 16 * e;
        }
      }
      for (u32 q = 0; q < nb; ++q) {
        for (u32 e = 0; e < per; ++e)
          r[na + q] |= bits(b[(t * per + e + 4 * per * q) * 8 + g]) << 16 * e;
      }
      for (u32 q = 0; q < 4; ++q) {
        const float x = c[(g + 8 * (q / 2)) * 8 + 2 * t + q % 2];
        u32& out = r[na + nb + (half_c ? q / 2 : q)];
        out = half_c ? out | bits(x) << 16 * (q % 2) : std::bit_cast<u32>(x);
      }
    }
    return all;
  }

  std::string kernel() const {
    const u32 n = na + nb + nc;
    auto list = [](const char* name, u32 first, u32 count) {
      std::string s = "{";
      for (u32 q = 0; q < count; ++q)
        s += (q ? ", " : "") + std::string(name) + std::to_string(first + q);
      return s + "}";
    };
    std::string k =
        ".visible .entry k(.param .u64 in, .param .u64 out)\n{\n.reg .b32 t, r<20>, d<4>;\n.reg "
        ".b64 from, at;\n"
        "mov.u32 t, %tid.x;\nld.param.u64 from, [in];\nmad.wide.u32 from, t, " +
        std::to_string(4 * n) + ", from;\nld.param.u64 at, [out];\nmad.wide.u32 at, t, 16, at;\n";
    for (u32 q = 0; q < n; ++q) {
      k += "ld.global.u32 r" + std::to_string(q) + ", [from+" + std::to_string(4 * q) + "];\n";
    }
    k += op + " " + list("d", 0, nc) + ", " + list("r", 0, na) + ", " + list("r", na, nb) + ", " +
         list("r", na + nb, nc) + ";\n";
    for (u32 q = 0; q < nc; ++q) {
      k += "st.global.u32 [at+" + std::to_string(4 * q) + "], d" + std::to_string(q) + ";\n";
    }
    return k + "ret;\n}\n";
  }

  void check() const {
    INFO(op);
    Device<u32> in(fragments()), out{std::vector<u32>(128)};
    launch(kernel(), dim3(1), dim3(32), {&in.get(), &out.get()});
    const auto got = out.read();
    for (u32 l = 0; l < kLanes; ++l) {
      for (u32 q = 0; q < 4; ++q) {
        const u32 row = l / 4 + 8 * (q / 2), column = 2 * (l % 4) + q % 2;
        double want = c[row * 8 + column];
        for (u32 j = 0; j < k_size; ++j)
          want += static_cast<double>(a[row * k_size + j]) * b[j * 8 + column];
        const u32 x = got[4 * l + (half_c ? q / 2 : q)];
        const float result = half_c ? value(x >> 16 * (q % 2)) : std::bit_cast<float>(x);
        REQUIRE(std::fabs(result - want) < (half_c ? 2e-2 : 1e-4));
      }
    }
  }
};

}  // namespace

TEST_CASE("mma.sync", "[opcodes]") {
  Mma("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, Type::kBF16).check();
  Mma("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", 16, Type::kF16).check();
  Mma("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", 16, Type::kF16, true).check();
  Mma("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", 8, Type::kBF16).check();
  Mma("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", 8, Type::kF16).check();
  Mma("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 8, Type::kF32).check();
  Mma("mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", 4, Type::kF32).check();
}

TEST_CASE("ldmatrix and stmatrix", "[opcodes]") {
  // Row r of matrix q holds the numbers 100 q + 10 r + column; four 8x8 matrices, 16 bytes a row.
  const std::string fill =
      ".shared .align 16 .b8 box[512];\n.reg .b32 a, b, c, e;\nmov.u32 a, box;\nshl.b32 y, t, "
      "4;\nadd.u32 a, a, y;\nshr.u32 y, t, 3;\n"
      "mul.lo.u32 y, y, 100;\nand.b32 z, t, 7;\nmad.lo.u32 y, z, 10, y;\nmov.u32 z, "
      "0;\nFILL:\nadd.u32 m, y, z;\nshl.b32 x, z, 1;\nadd.u32 x, x, a;\n"
      "st.shared.u16 [x], m;\nadd.u32 z, z, 1;\nsetp.lt.u32 p, z, 8;\n@p bra FILL;\nbar.warp.sync "
      "-1;\n";
  auto value = [](u32 q, u32 row, u32 column) { return 100 * q + 10 * row + column; };
  auto plain = [=](u32 q, u32 k) {
    return value(q, k / 4, k % 4 * 2) | value(q, k / 4, k % 4 * 2 + 1) << 16;
  };
  auto turned = [=](u32 q, u32 k) {
    return value(q, k % 4 * 2, k / 4) | value(q, k % 4 * 2 + 1, k / 4) << 16;
  };
  expect(fill + "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {x}, [a];",
         [=](u32 k) { return plain(0, k); });
  expect(fill + "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {y, x}, [a];",
         [=](u32 k) { return plain(1, k); });
  expect(fill + "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {y, b, c, x}, [a];",
         [=](u32 k) { return plain(3, k); });
  expect(fill + "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {y, b, x, c}, [a];",
         [=](u32 k) { return turned(2, k); });
  expect(fill + "ldmatrix.sync.aligned.m8n8.x2.trans.shared::cta.b16 {x, y}, [a];",
         [=](u32 k) { return turned(0, k); });
  expect(
      fill +
          "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {y, b, c, x}, [a];\nbar.warp.sync -1;\n"
          "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [a], {y, b, c, x};\nbar.warp.sync -1;\n"
          "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {y, x, c, b}, [a];",
      [=](u32 k) { return turned(1, k); });
}
