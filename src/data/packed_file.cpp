#include "data/packed_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace uvit {

PackedFile read_packed_file(const std::filesystem::path& path) {
  errno = 0;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> stream(gzopen(path.c_str(), "rb"), gzclose);  // reads files that are not gzip as they are
  if (!stream) throw Error(fmt::format("cannot open {}: {}", path.string(), std::strerror(errno)));
  gzbuffer(stream.get(), 1u << 18);
  PackedFile file;
  constexpr unsigned kChunk = 1u << 20;
  while (true) {
    const std::size_t before = file.bytes.size();
    file.bytes.resize(before + kChunk);
    const int count = gzread(stream.get(), file.bytes.data() + before, kChunk);
    file.bytes.resize(before + static_cast<std::size_t>(count > 0 ? count : 0));
    int code = Z_OK;
    const char* reason = gzerror(stream.get(), &code);  // a cut stream gives its last bytes first and the error here
    if (code != Z_OK && code != Z_STREAM_END) {
      file.damage = code == Z_ERRNO ? std::strerror(errno) : (code == Z_BUF_ERROR ? "the gzip stream ends early" : fmt::format("gzip: {}", reason));
      return file;
    }
    if (count <= 0) return file;
  }
}

}  // namespace uvit
