#pragma once
#include <map>
#include <string>
#include <vector>

namespace uvit {

/// Everything needed to get a score again, by name: num_images, reference and its hash, network and its hash, resize, precision, solver, seeds, ...
using Recipe = std::map<std::string, std::string>;

/// What differs between two recipes: one line a key, for instance "resize: pytorch-fid against clean-fid"; a key of one side alone is "(not given)"
/// on the other. Two scores are comparable when this is empty.
std::vector<std::string> recipe_differences(const Recipe& a, const Recipe& b);

}  // namespace uvit
