#include "io/zip_archive.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <memory>

#include "core/atomic_file.h"
#include "core/error.h"
#include "io/file_descriptor.h"

namespace uvit {
namespace {

/// Deflate packs 1032 bytes into one at best: a member that claims more is damaged, or a bomb.
constexpr std::uint64_t kBestDeflateRatio = 1032;

std::string reason(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

std::uint64_t checked_size(zip* archive, std::uint64_t index, const std::string& name, std::uint64_t file_size) {
  zip_stat_t status;
  if (zip_stat_index(archive, index, 0, &status) != 0) throw Error(fmt::format("member {}: {}", name, zip_strerror(archive)));
  constexpr zip_uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if ((status.valid & kNeeded) != kNeeded) throw Error(fmt::format("member {} has no size", name));
  if (status.encryption_method != ZIP_EM_NONE) throw Error(fmt::format("member {} is encrypted", name));
  if (status.comp_method != ZIP_CM_STORE && status.comp_method != ZIP_CM_DEFLATE)
    throw Error(fmt::format("member {} is packed by method {}; only stored and deflated members are read", name, status.comp_method));
  const std::uint64_t most = status.comp_method == ZIP_CM_STORE ? status.comp_size : status.comp_size * kBestDeflateRatio;
  if (status.comp_size > file_size || status.size > most)
    throw Error(fmt::format("member {} claims {} bytes, more than the file can hold", name, status.size));
  return status.size;
}

/// Members that share their packed bytes let a small file unpack to any size.
void refuse_overlaps(zip* archive, std::uint64_t file_size) {
  std::uint64_t packed = 0;
  for (zip_int64_t i = 0; i < zip_get_num_entries(archive, 0); ++i) {
    zip_stat_t status;
    if (zip_stat_index(archive, static_cast<zip_uint64_t>(i), 0, &status) != 0 || !(status.valid & ZIP_STAT_COMP_SIZE)) continue;
    if (status.comp_size > file_size - packed) throw Error("it is no zip file, or a damaged one: its members are larger than the file");
    packed += status.comp_size;
  }
}

/// Adds a member whose bytes stay where they are until the archive is closed.
void add_member(zip* archive, const ZipMember& member, bool deflate) {
  zip_source_t* source = zip_source_buffer(archive, member.bytes.data(), member.bytes.size(), 0);
  if (!source) throw Error(zip_strerror(archive));
  const zip_int64_t index = zip_file_add(archive, member.name.c_str(), source, ZIP_FL_ENC_UTF_8);
  if (index < 0) {
    zip_source_free(source);
    throw Error(fmt::format("member {}: {}", member.name, zip_strerror(archive)));
  }
  constexpr zip_uint16_t kFirstDosDate = (0 << 9) | (1 << 5) | 1;  // 1 January 1980
  const auto at = static_cast<zip_uint64_t>(index);
  if (zip_set_file_compression(archive, at, deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0) != 0 ||
      zip_file_set_dostime(archive, at, 0, kFirstDosDate, 0) != 0)
    throw Error(fmt::format("member {}: {}", member.name, zip_strerror(archive)));
}

}  // namespace

ZipReader::ZipReader(const std::filesystem::path& path) : file_size_(InputFile(path).size()) {
  int code = 0;
  archive_ = zip_open(path.c_str(), ZIP_RDONLY, &code);
  if (!archive_) throw Error(fmt::format("it is no zip file, or a damaged or truncated one ({})", reason(code)));
  const zip_int64_t count = zip_get_num_entries(archive_, 0);
  for (zip_int64_t i = 0; i < count; ++i) {
    const char* name = zip_get_name(archive_, static_cast<zip_uint64_t>(i), ZIP_FL_ENC_GUESS);
    names_.emplace_back(name ? name : "");
  }
  try {
    refuse_overlaps(archive_, file_size_);
  } catch (...) {
    zip_discard(archive_);
    throw;
  }
}

ZipReader::~ZipReader() { zip_discard(archive_); }

bool ZipReader::contains(const std::string& name) const { return zip_name_locate(archive_, name.c_str(), ZIP_FL_ENC_GUESS) >= 0; }

std::vector<std::byte> ZipReader::read(const std::string& name) const {
  const zip_int64_t index = zip_name_locate(archive_, name.c_str(), ZIP_FL_ENC_GUESS);
  if (index < 0) throw Error(fmt::format("it has no member {}", name));
  const std::uint64_t size = checked_size(archive_, static_cast<zip_uint64_t>(index), name, file_size_);
  const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> member(zip_fopen_index(archive_, static_cast<zip_uint64_t>(index), 0), zip_fclose);
  if (!member) throw Error(fmt::format("member {}: {}", name, zip_strerror(archive_)));
  std::vector<std::byte> bytes(size);
  std::uint64_t done = 0;
  std::byte extra;
  while (true) {  // reads once past the end: only there does libzip compare the checksum
    const bool at_end = done == size;
    const zip_int64_t count = zip_fread(member.get(), at_end ? &extra : bytes.data() + done, at_end ? 1 : size - done);
    if (count < 0) throw Error(fmt::format("member {} is damaged: {}", name, zip_file_strerror(member.get())));
    if (at_end && count > 0) throw Error(fmt::format("member {} is longer than it claims", name));
    if (count == 0 && !at_end) throw Error(fmt::format("member {} is shorter than it claims", name));
    if (count == 0) return bytes;
    done += static_cast<std::uint64_t>(count);
  }
}

void write_zip(const std::filesystem::path& path, std::span<const ZipMember> members, bool deflate) {
  replace_file(path, [&](const std::filesystem::path& temporary) {
    int code = 0;
    zip* archive = zip_open(temporary.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!archive) throw Error(fmt::format("cannot write {}: {}", path.string(), reason(code)));
    try {
      for (const ZipMember& member : members) add_member(archive, member, deflate);
      if (zip_close(archive) != 0) throw Error(zip_strerror(archive));
    } catch (const Error& error) {
      zip_discard(archive);
      throw Error(fmt::format("cannot write {}: {}", path.string(), error.what()));
    }
  });
}

}  // namespace uvit
