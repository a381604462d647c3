#pragma once
#include <filesystem>

#include "io/host_tensor.h"

namespace uvit {

/// Reads a .npz archive (stored or deflated .npy members; C and Fortran order; little-endian numbers). Throws Error naming file and member.
TensorFile read_npz(const std::filesystem::path& path);
/// Writes a deflated .npz that numpy.load reads.
void write_npz(const std::filesystem::path& path, const TensorFile& file);

}  // namespace uvit
