#pragma once
#include <filesystem>

#include "io/host_tensor.h"

namespace uvit {

/// Reads a .safetensors file: 8 bytes little-endian header length, a JSON header, the data. Everything is checked: lengths,
/// offsets within the file, no overlap and no hole, shape * dtype = size. Throws Error naming the file and what is wrong.
TensorFile read_safetensors(const std::filesystem::path& path);

/// Writes `file` (through a temporary name and a rename). Throws Error when the disk is full or the folder not writable.
void write_safetensors(const std::filesystem::path& path, const TensorFile& file);

}  // namespace uvit
