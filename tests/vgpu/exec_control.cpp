// Branches, calls, returns, barriers' instructions and fences.
#include <cstring>

#include "exec.h"
#include "exec_barrier.h"
#include "exec_race.h"
#include "vgpu.h"

namespace vgpu {
namespace {

// Branches are executed by the main loop of the warp.
void branch(Warp&, const Instr&, u32) {}

void branch_indexed(Warp& w, const Instr& i, u32 mask) {
  for_lanes(mask, [&](u32 l) {
    const u32 index = lane_u32(w, i.ops[0], l);
    if (index >= i.table->size())
      lane_fault(w, l, "brx.idx: index %u of %zu", index, i.table->size());
    w.frame->pc[l] = (*i.table)[index];
  });
  w.reschedule = true;
}

void exit(Warp& w, const Instr&, u32 mask) { exit_lanes(w, mask); }
void leave(Warp& w, const Instr&, u32 mask) { return_lanes(w, mask); }

// ---- calls
// ----------------------------------------------------------------------------------------

std::string string_at(u64 address) {
  const char* p = reinterpret_cast<const char*>(address);
  return find_allocation(p) ? std::string(p) : std::string("?");
}

// __assertfail(message, file, line, function, character size)
[[noreturn]] void assertion_failed(Warp& w, const Instr& i, u32 mask) {
  const u32 l = static_cast<u32>(std::countr_zero(mask));
  auto argument = [&](u32 k) {
    u64 value = 0;
    const u64 at =
        static_cast<u64>(l) * w.local_stride + w.frame->local_base + i.call->arguments[k];
    std::memcpy(&value, w.local.data() + at, k == 2 ? 4 : 8);
    return value;
  };
  lane_fault(w, l, "assertion '%s' failed at %s:%u, function %s", string_at(argument(0)).c_str(),
             string_at(argument(1)).c_str(), static_cast<u32>(argument(2)),
             string_at(argument(3)).c_str());
}

void enter(Warp& w, const Instr& i, u32 mask, std::string_view name) {
  if (name == "__assertfail") assertion_failed(w, i, mask);
  const Function* f = w.frame->function->module->find(name);
  if (!f) fault("call of '%s', which this PTX does not define", std::string(name).c_str());
  push_frame(w, *f, mask, i.call);
}

void call(Warp& w, const Instr& i, u32 mask) { enter(w, i, mask, i.callee); }

// Lanes that call different functions take turns: the others come here again.
void call_indirect(Warp& w, const Instr& i, u32 mask) {
  const auto* target = lanes_of<u64>(w, i.ops[0]);
  const u64 first = target[std::countr_zero(mask)];
  u32 group = 0;
  for_lanes(mask, [&](u32 l) { group |= static_cast<u32>(target[l] == first) << l; });
  set_pc(*w.frame, mask & ~group, w.next - 1);
  const auto& names = w.frame->function->module->function_names;
  const u64 index = (first - kFunctionWindow) / 16;
  if (index >= names.size()) {
    lane_fault(w, static_cast<u32>(std::countr_zero(mask)), "call of address %#lx", first);
  }
  enter(w, i, group, names[index]);
}

// ---- the rest
// ---------------------------------------------------------------------------------------

void nothing(Warp&, const Instr&, u32) {}
void fence(Warp& w, const Instr&, u32) { race_fence(*w.block); }
void trap(Warp& w, const Instr&, u32 mask) {
  lane_fault(w, static_cast<u32>(std::countr_zero(mask)), "trap");
}
void breakpoint(Warp& w, const Instr&, u32 mask) {
  lane_fault(w, static_cast<u32>(std::countr_zero(mask)), "breakpoint");
}
void sleep(Warp& w, const Instr&, u32) { w.yielded = w.reschedule = true; }

Execute control(Instr& i, Execute exec) {
  i.flow = Flow::kControl;
  return exec;
}

Execute decode_barrier(Instr& i, Opcode& op) {
  op.take("cta");
  op.take("aligned");
  i.op = static_cast<u8>(BarrierOp::kSync);
  if (op.take("arrive")) {
    i.op = static_cast<u8>(BarrierOp::kArrive);
  } else if (op.take("red")) {
    const int which = op.take_one_of({"popc", "and", "or"});
    if (which < 0) return nullptr;
    i.op = static_cast<u8>(static_cast<int>(BarrierOp::kCount) + which);
    op.take_type();
  } else if (!op.take("sync")) {
    return nullptr;
  }
  return control(i, barrier);
}

Execute decode_fence(Opcode& op) {
  op.take_one_of({"sc", "acq_rel", "acquire", "release"});
  op.take_one_of({"cta", "gl", "gpu", "sys", "cluster"});
  return fence;
}

}  // namespace

Execute decode_control(Instr& i, Opcode& op) {
  const std::string_view o = op.base();
  if (o == "bra") {
    op.take("uni");
    i.flow = Flow::kBranch;
    return branch;
  }
  if (o == "brx") {
    op.take("uni");
    return op.take("idx") ? control(i, branch_indexed) : nullptr;
  }
  if (o == "call") {
    op.take("uni");
    return control(i, i.groups ? call_indirect : call);
  }
  if (o == "ret") {
    op.take("uni");
    return control(i, leave);
  }
  if (o == "exit") return control(i, exit);
  if (o == "trap") return trap;
  if (o == "brkpt") return breakpoint;
  if (o == "bar" || o == "barrier") return decode_barrier(i, op);
  if (o == "membar" || o == "fence") return decode_fence(op);
  if (o == "griddepcontrol") {  // launches are never overlapped
    op.take_one_of({"launch_dependents", "wait"});
    return nothing;
  }
  if (o == "nanosleep") {
    op.take_type();
    return control(i, sleep);
  }
  return nullptr;
}

}  // namespace vgpu
