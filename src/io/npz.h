#pragma once
#include <filesystem>

#include "io/host_tensor.h"

namespace uvit {

/// Reads a .npz archive (stored or deflated .npy members; C and Fortran order; little-endian numbers). Throws Error naming file and member.
TensorFile read_npz(const std::filesystem::path& path);
/// Reads one .npy array. Throws Error naming the file; pickled objects are refused.
HostTensor read_npy(const std::filesystem::path& path);
/// Writes a .npy that numpy.load reads.
void write_npy(const std::filesystem::path& path, const HostTensor& tensor);
/// Writes a deflated .npz that numpy.load reads.
void write_npz(const std::filesystem::path& path, const TensorFile& file);

}  // namespace uvit
