#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace uvit {

/// An image as its file holds it.
struct EncodedImage {
  std::vector<std::byte> bytes;
  std::string ending;                 ///< "jpg", "png", ...: what bytes are
  std::vector<std::string> captions;  ///< texts that lie beside it
};

/// What a dataset whose images are whole files is besides. Reading is const and safe from many threads.
class EncodedImages {
 public:
  virtual ~EncodedImages() = default;
  /// Throws Error naming the image when it cannot be read. Its content is not looked at.
  virtual EncodedImage encoded(std::int64_t index) const = 0;
};

}  // namespace uvit
