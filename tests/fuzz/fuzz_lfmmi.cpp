// The graph of LF-MMI as a checkpoint holds it: a value that is written as it was read, or an
// Error.
#include <cstdint>
#include <string>

#include "nn/lfmmi.h"
#include "tensor/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace centroid;
  const auto json = try_parse_json({reinterpret_cast<const char*>(data), size});
  if (json.is_discarded()) return 0;
  try {
    const auto graph = nn::LfmmiGraph::from(json);
    const auto written = nlohmann::json(*graph);
    if (nlohmann::json(*nn::LfmmiGraph::from(written)) != written) __builtin_trap();
    if (graph->denominator().fsa.leak.size() != graph->denominator().fsa.initial.size()) {
      __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
