#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace uvit {

/// Image files (.jpg .jpeg .png .webp .bmp, any case) under `folder` and its sub-folders, hidden ones left out, sorted by path as strings.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder);

}  // namespace uvit
