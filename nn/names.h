#pragma once
// Messages about names that are not known.
#include <string>
#include <vector>

namespace centroid::nn {

/// `names` joined by ", ", those most like `given` (by edit distance) first: what an error lists as
/// valid. "none" when there are no names.
std::string nearest_first(std::vector<std::string> names, const std::string& given);

}  // namespace centroid::nn
