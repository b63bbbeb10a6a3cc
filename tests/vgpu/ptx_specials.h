#pragma once
// PTX's special registers by name.
#include <string_view>
#include <unordered_map>

#include "vgpu.h"

namespace vgpu {

inline const std::unordered_map<std::string_view, Special> kSpecials = {
    {"%tid.x", Special::kTidX},
    {"%tid.y", Special::kTidY},
    {"%tid.z", Special::kTidZ},
    {"%ntid.x", Special::kNTidX},
    {"%ntid.y", Special::kNTidY},
    {"%ntid.z", Special::kNTidZ},
    {"%ctaid.x", Special::kCtaX},
    {"%ctaid.y", Special::kCtaY},
    {"%ctaid.z", Special::kCtaZ},
    {"%nctaid.x", Special::kNCtaX},
    {"%nctaid.y", Special::kNCtaY},
    {"%nctaid.z", Special::kNCtaZ},
    {"%laneid", Special::kLane},
    {"%warpid", Special::kWarp},
    {"%nwarpid", Special::kNWarp},
    {"%smid", Special::kSm},
    {"%nsmid", Special::kNSm},
    {"%gridid", Special::kGrid},
    {"%lanemask_eq", Special::kMaskEq},
    {"%lanemask_lt", Special::kMaskLt},
    {"%lanemask_le", Special::kMaskLe},
    {"%lanemask_gt", Special::kMaskGt},
    {"%lanemask_ge", Special::kMaskGe},
    {"%dynamic_smem_size", Special::kDynamicShared},
    {"%total_smem_size", Special::kTotalShared},
    {"%clock", Special::kClock},
    {"%clock64", Special::kClock64},
    {"%globaltimer", Special::kClock64}};

}  // namespace vgpu
