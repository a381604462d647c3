#pragma once
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace uvit {

/// Makes the folder and its parents. Throws Error with the reason of the system.
void make_directories(const std::filesystem::path& folder);

/// Calls `write` with a temporary path beside `path`, syncs what it wrote, and renames it to `path`.
/// When `write` throws or the disk is full, the temporary file is removed and `path` is untouched.
void replace_file(const std::filesystem::path& path, const std::function<void(const std::filesystem::path& temporary)>& write);

/// Removes from the folder what processes that were killed within replace_file left of it, those of this machine that still run excepted.
void remove_temporaries(const std::filesystem::path& folder);

/// replace_file with these bytes.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

/// Writes all bytes to an open descriptor. Throws Error naming `path` and the system's reason (no space left, file too large, ...).
void write_all(int descriptor, std::span<const std::byte> bytes, const std::filesystem::path& path);

/// Appends one line, in one write call, making the file where there is none. Throws Error when it cannot.
void append_line(const std::filesystem::path& path, std::string_view line);

/// fsync of a file or a folder. Throws Error.
void sync_path(const std::filesystem::path& path);

/// The whole file. Throws Error where it is missing or unreadable.
std::string read_file(const std::filesystem::path& path);

}  // namespace uvit
