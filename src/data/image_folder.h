#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace uvit {

/// Whether a file of this name is taken for an image: it ends in .jpg .jpeg .png .webp .bmp, in any case.
bool is_image_name(std::string name);

/// Image files (is_image_name) under `folder` and its sub-folders, hidden ones left out, sorted by path as strings.
std::vector<std::filesystem::path> list_images(const std::filesystem::path& folder);

}  // namespace uvit
