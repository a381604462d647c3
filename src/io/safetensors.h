#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "io/host_tensor.h"

namespace uvit {

/// Reads a .safetensors file: 8 bytes little-endian header length, a JSON header, the data. Everything is checked: lengths,
/// offsets within the file, no overlap and no hole, shape * dtype = size. Throws Error naming the file and what is wrong.
TensorFile read_safetensors(const std::filesystem::path& path);

/// A .safetensors file of which single rows (along the first side) are read when they are wanted. Reading is safe from many threads.
class SafetensorsReader {
 public:
  /// Reads and checks the header as read_safetensors does. Throws Error naming the file.
  explicit SafetensorsReader(const std::filesystem::path& path);
  ~SafetensorsReader();
  SafetensorsReader(SafetensorsReader&&) noexcept;

  /// Dtype and shape of a tensor, without data; null where there is none.
  const HostTensor* find(std::string_view name) const;
  /// One whole tensor. Throws Error naming file and tensor where there is none.
  HostTensor read(std::string_view name) const;
  /// Row `row` of tensor `name` into `out`, which must have its size. Throws Error naming file and tensor.
  void read_row(std::string_view name, std::int64_t row, std::span<std::byte> out) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Writes `file` (through a temporary name and a rename). Throws Error when the disk is full or the folder not writable.
void write_safetensors(const std::filesystem::path& path, const TensorFile& file);

}  // namespace uvit
