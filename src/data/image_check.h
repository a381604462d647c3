#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace uvit {

/// What is wrong with an encoded image, seen from its container alone: "" when it is a whole JPEG, PNG, WebP or BMP file.
/// Decoders fill the missing part of a cut JPEG with grey and report nothing, and libpng writes its errors to stderr, so this runs before them.
std::string image_damage(std::span<const std::byte> file);

}  // namespace uvit
