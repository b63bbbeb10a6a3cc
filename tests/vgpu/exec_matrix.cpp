// Tensor core instructions: ldmatrix, stmatrix, mma.sync, wmma. Sums are in single precision, in
// the order of k; hardware may add in another order.
#include <cstring>

#include "exec_float_types.h"

#include "exec_access.h"
#include "vgpu.h"

namespace vgpu {
namespace {

void need_whole_warp(const Instr& i, u32 mask) {
  if (mask != kFullMask) {
    fault("'%s' needs the whole warp, lanes %08x execute it", std::string(i.text).c_str(), mask);
  }
}

float element(Type t, u32 bits) {
  const u16 half = static_cast<u16>(bits);
  return t == Type::kF16 ? to_float(Half{half}) : to_float(Bfloat{half});
}

u32 half_bits(float x) {
  Half h;
  round_to(h, x);
  return h.bits;
}

// ---- mma.sync.m16n8k{8,16}: fragments as the PTX ISA draws them
// -----------------------------------

template <u32 kK>
struct Tile {
  float a[16][kK], b[kK][8], c[16][8];
};

// 16-bit operands: a register holds two columns of A, or two rows of B.
template <u32 kK>
void load_halves(Tile<kK>& t, const Warp& w, const Instr& i, u32 l) {
  const u32 g = l >> 2, pair = (l & 3) * 2;
  for (u32 r = 0; r < kK / 4; ++r) {
    const u32 bits = lane_u32(w, i.in_group(1, r), l);
    for (u32 e = 0; e < 2; ++e) {
      t.a[g + 8 * (r & 1)][pair + e + 8 * (r >> 1)] = element(i.type, bits >> (16 * e));
    }
  }
  for (u32 r = 0; r < kK / 8; ++r) {
    const u32 bits = lane_u32(w, i.in_group(2, r), l);
    for (u32 e = 0; e < 2; ++e) t.b[pair + e + 8 * r][g] = element(i.type, bits >> (16 * e));
  }
}

// tf32: the low 13 bits are ignored.
template <u32 kK>
void load_tf32(Tile<kK>& t, const Warp& w, const Instr& i, u32 l) {
  const u32 g = l >> 2, k = l & 3;
  auto value = [](u32 bits) { return std::bit_cast<float>(bits & ~0x1fffu); };
  for (u32 r = 0; r < kK / 2; ++r) {
    t.a[g + 8 * (r & 1)][k + 4 * (r >> 1)] = value(lane_u32(w, i.in_group(1, r), l));
  }
  for (u32 r = 0; r < kK / 4; ++r) t.b[k + 4 * r][g] = value(lane_u32(w, i.in_group(2, r), l));
}

template <u32 kK, bool kTf32>
void multiply(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  Tile<kK> t;
  const bool half = i.flag;  // accumulators
  for (u32 l = 0; l < kLanes; ++l) {
    if constexpr (kTf32) {
      load_tf32(t, w, i, l);
    } else {
      load_halves(t, w, i, l);
    }
    for (u32 r = 0; r < 4; ++r) {
      const u32 bits = lane_u32(w, i.in_group(3, half ? r >> 1 : r), l);
      t.c[(l >> 2) + 8 * (r >> 1)][(l & 3) * 2 + (r & 1)] =
          half ? to_float(Half{static_cast<u16>(bits >> (16 * (r & 1)))})
               : std::bit_cast<float>(bits);
    }
  }
  for (u32 m = 0; m < 16; ++m) {
    for (u32 k = 0; k < kK; ++k) {
      for (u32 n = 0; n < 8; ++n) t.c[m][n] += t.a[m][k] * t.b[k][n];
    }
  }
  for (u32 l = 0; l < kLanes; ++l) {
    for (u32 r = 0; r < 4; ++r) {
      const float value = t.c[(l >> 2) + 8 * (r >> 1)][(l & 3) * 2 + (r & 1)];
      auto& out = lanes_of<u32>(w, i.in_group(0, half ? r >> 1 : r))[l];
      if (!half) {
        out = std::bit_cast<u32>(canonical(value));
      } else {
        out = r & 1 ? out | half_bits(value) << 16 : half_bits(value);
      }
    }
  }
}

// ---- ldmatrix, stmatrix: 8x8 matrices of 16-bit elements, a row at the address of each lane
// ---------

// The two elements that lane l holds are in one row, or with .trans in two.
struct Element {
  u32 row, column;
};
Element element_of(u32 l, u32 e, bool transposed) {
  const u32 major = l >> 2, minor = (l & 3) * 2 + e;
  return transposed ? Element{minor, major} : Element{major, minor};
}

void load_matrix(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  const u32 rows = 8 * i.count;
  const u32 addressed = rows == kLanes ? kFullMask : (1u << rows) - 1;
  u16 data[kLanes][8];
  WarpAccess a(w, i, i.in_group(1), i.offset, addressed, 16, AccessKind::kRead, false);
  a.run(i.space, [&](const std::byte* base, u32 lanes) {
    for_lanes(lanes, [&](u32 l) { std::memcpy(data[l], base + a.at(l), 16); });
  });
  for (u32 q = 0; q < i.count; ++q) {
    auto* d = lanes_of<u32>(w, i.in_group(0, q));
    for (u32 l = 0; l < kLanes; ++l) {
      const Element low = element_of(l, 0, i.flag), high = element_of(l, 1, i.flag);
      d[l] = data[8 * q + low.row][low.column] |
             static_cast<u32>(data[8 * q + high.row][high.column]) << 16;
    }
  }
}

void store_matrix(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  const u32 rows = 8 * i.count;
  const u32 addressed = rows == kLanes ? kFullMask : (1u << rows) - 1;
  u16 data[kLanes][8];
  for (u32 q = 0; q < i.count; ++q) {
    for (u32 l = 0; l < kLanes; ++l) {
      const u32 bits = lane_u32(w, i.in_group(1, q), l);
      for (u32 e = 0; e < 2; ++e) {
        const Element at = element_of(l, e, i.flag);
        data[8 * q + at.row][at.column] = static_cast<u16>(bits >> (16 * e));
      }
    }
  }
  WarpAccess a(w, i, i.in_group(0), i.offset, addressed, 16, AccessKind::kWrite, false);
  a.run(i.space, [&](std::byte* base, u32 lanes) {
    for_lanes(lanes, [&](u32 l) { std::memcpy(base + a.at(l), data[l], 16); });
  });
}

// ---- wmma m16n16k16: fragments are opaque, here element e is slot e % 8 of lane e / 8
// ----------------

// Runs f(slot, lane, data) for the 8 elements of every lane; i.flag: column major, i.mode: bytes.
template <class F>
void for_fragment(Warp& w, const Instr& i, u32 address_group, AccessKind kind, F f) {
  const u32 stride = lane_u32(w, i.in_group(2), 0);
  for (u32 slot = 0; slot < 8; ++slot) {
    std::array<u64, kLanes> address;
    for (u32 l = 0; l < kLanes; ++l) {
      const u32 e = l * 8 + slot, row = e / 16, column = e % 16;
      const u64 index = i.flag ? static_cast<u64>(column) * stride + row
                               : static_cast<u64>(row) * stride + column;
      address[l] = lane_address(w, i.in_group(address_group), l) + static_cast<u64>(i.offset) +
                   index * i.mode;
    }
    WarpAccess a(w, i, address, kFullMask, i.mode, kind);
    a.run(i.space, [&](std::byte* base, u32 lanes) {
      for_lanes(lanes, [&](u32 l) { f(slot, l, base + a.at(l)); });
    });
  }
}

void load_fragment(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  for_fragment(w, i, 1, AccessKind::kRead, [&](u32 slot, u32 l, const std::byte* p) {
    u32 bits = 0;
    std::memcpy(&bits, p, i.mode);
    if (i.mode == 4) {
      lanes_of<u32>(w, i.in_group(0, slot))[l] = bits;
    } else {
      auto& d = lanes_of<u32>(w, i.in_group(0, slot / 2))[l];
      d = slot & 1 ? (d & 0xffff) | bits << 16 : bits;
    }
  });
}

void store_fragment(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  for_fragment(w, i, 0, AccessKind::kWrite, [&](u32 slot, u32 l, std::byte* p) {
    const u32 bits = lane_u32(w, i.in_group(1, slot), l);
    std::memcpy(p, &bits, 4);
  });
}

void multiply_fragments(Warp& w, const Instr& i, u32 mask) {
  need_whole_warp(i, mask);
  float a[256], b[256], c[256];
  for (u32 e = 0; e < 256; ++e) {
    const u32 l = e / 8, slot = e % 8, shift = 16 * (slot & 1);
    a[e] = element(i.type, lane_u32(w, i.in_group(1, slot / 2), l) >> shift);
    b[e] = element(i.type, lane_u32(w, i.in_group(2, slot / 2), l) >> shift);
    c[e] = std::bit_cast<float>(lane_u32(w, i.in_group(3, slot), l));
  }
  for (u32 m = 0; m < 16; ++m) {
    for (u32 k = 0; k < 16; ++k) {
      for (u32 n = 0; n < 16; ++n) c[m * 16 + n] += a[m * 16 + k] * b[k * 16 + n];
    }
  }
  for (u32 e = 0; e < 256; ++e) {
    lanes_of<u32>(w, i.in_group(0, e % 8))[e / 8] = std::bit_cast<u32>(canonical(c[e]));
  }
}

// ---- decoding
// -------------------------------------------------------------------------------------

// mma.sync.aligned.m16n8k16.row.col.d.a.b.c
Execute decode_mma(Instr& i, Opcode& op) {
  if (!op.take("sync") || !op.take("row") || !op.take("col")) return nullptr;
  op.take("aligned");
  const int shape = op.take_one_of({"m16n8k16", "m16n8k8", "m16n8k4"});
  if (op.take("tf32") && op.take("tf32")) {
    if (op.take_type() != Type::kF32 || op.take_type() != Type::kF32) return nullptr;
    return shape == 1 ? multiply<8, true> : shape == 2 ? multiply<4, true> : nullptr;
  }
  const Type c = op.take_type(), b = op.take_type(), a = op.take_type(), d = op.take_type();
  i.type = a;
  i.flag = d == Type::kF16;
  if (a != b || c != d || (a != Type::kF16 && a != Type::kBF16)) return nullptr;
  if (d != Type::kF32 && d != Type::kF16) return nullptr;
  return shape == 0 ? multiply<16, false> : shape == 1 ? multiply<8, false> : nullptr;
}

Execute decode_matrix_move(Instr& i, Opcode& op) {
  const bool loads = op.base() == "ldmatrix";
  op.take("sync");
  op.take("aligned");
  if (!op.take("m8n8") || op.take_type() != Type::kU16) return nullptr;
  i.count = op.take("x4") ? 4 : op.take("x2") ? 2 : 1;
  op.take("x1");
  i.flag = op.take("trans");
  i.space = op.take_space();
  return loads ? load_matrix : store_matrix;
}

// wmma.load.a.sync.aligned.row.m16n16k16.global.f16,
// wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32
Execute decode_wmma(Instr& i, Opcode& op) {
  if (!op.take("m16n16k16") || !op.take("sync")) return nullptr;
  op.take("aligned");
  if (op.take("mma")) {
    // The layouts of A and B are those they were loaded with: fragments do not depend on them.
    op.take_one_of({"row", "col"});
    op.take_one_of({"row", "col"});
    const bool bfloat = op.peek_type(1) == Type::kBF16;
    i.type = bfloat ? Type::kBF16 : Type::kF16;
    if (op.take_type() != Type::kF32) return nullptr;
    if (bfloat && (op.take_type() != Type::kBF16 || op.take_type() != Type::kBF16)) return nullptr;
    return op.take_type() == Type::kF32 ? multiply_fragments : nullptr;
  }
  const bool loads = op.take("load");
  if (!loads && !op.take("store")) return nullptr;
  const bool accumulator = op.take_one_of({"c", "d"}) >= 0;
  op.take_one_of({"a", "b"});
  i.flag = op.take("col");
  op.take("row");
  i.space = op.take_space();
  const Type t = op.take_type();
  i.mode = static_cast<u8>(size_of(t));
  if (accumulator ? t != Type::kF32 : t != Type::kF16 && t != Type::kBF16) return nullptr;
  return loads ? load_fragment : store_fragment;
}

}  // namespace

Execute decode_matrix(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (o == "mma") return decode_mma(i, op);
  if (o == "ldmatrix" || o == "stmatrix") return decode_matrix_move(i, op);
  if (o == "wmma") return decode_wmma(i, op);
  return nullptr;
}

}  // namespace vgpu
