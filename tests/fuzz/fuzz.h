#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "core/error.h"
#include "data/image_io.h"

namespace uvit::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) { return {reinterpret_cast<const char*>(data), size}; }

/// Runs a parser. It may read the input or refuse it with an Error of one line; anything else it throws ends the process, which libFuzzer reports.
inline int read_or_refuse(const std::function<void()>& parse) {
  try {
    parse();
  } catch (const Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) {
      std::fprintf(stderr, "an Error of several lines: %s\n", error.what());
      std::abort();
    }
  }
  return 0;
}

/// A folder in memory that this process keeps to itself, emptied by every call, removed at the end.
class Folder {
 public:
  Folder() : path_("/dev/shm/uvit-fuzz-XXXXXX") {
    if (!::mkdtemp(path_.data())) std::abort();
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  void clear() const {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) std::filesystem::remove_all(entry.path());
  }
  std::filesystem::path put(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path path = std::filesystem::path(path_) / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  std::filesystem::path path() const { return path_; }

 private:
  std::string path_;
};

inline const Folder& folder() {
  static const Folder only;
  only.clear();
  return only;
}

/// The first picture makes OpenCV load all its plug-ins, which takes seconds under a sanitizer: no input is to blame for that.
inline void load_decoders() {
  constexpr std::string_view kBitmap("BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\1\0\0\0\1\0\0\0\1\0\x18\0\0\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 58);
  decode_image(std::as_bytes(std::span(kBitmap)), 3, "a bitmap of one pixel");
}

/// The part of `rest` up to the first "\n--\n", which is taken off it: how one input holds several files.
inline std::string_view take_part(std::string_view& rest) {
  constexpr std::string_view kBorder = "\n--\n";
  const std::size_t end = rest.find(kBorder);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + kBorder.size());
  return part;
}

}  // namespace uvit::fuzz
