#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace uvit {

enum class DType { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

std::size_t size_of(DType dtype);
/// "F32", "BF16", "I64", ... : the names of the safetensors format.
std::string_view name_of(DType dtype);

/// Bytes of a row-major tensor; nothing for a negative side or a size that no memory holds (a hostile file).
std::optional<std::size_t> byte_size(DType dtype, const std::vector<std::int64_t>& shape);

/// A tensor in host memory, row-major, without LibTorch: what the file formats read and write.
struct HostTensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;

  std::int64_t numel() const;
  /// Elements widened to double, whatever the dtype (f16 and bf16 included).
  std::vector<double> to_double() const;
  template <class T>
  const T* as() const { return reinterpret_cast<const T*>(data.data()); }
  template <class T>
  T* as() { return reinterpret_cast<T*>(data.data()); }
};

/// Named tensors, in the order of the file.
struct TensorFile {
  std::vector<std::pair<std::string, HostTensor>> tensors;
  std::map<std::string, std::string> metadata;

  const HostTensor* find(std::string_view name) const;
  /// Throws Error naming `name` and the nearest name where there is none.
  const HostTensor& at(std::string_view name) const;
};

/// For instance "[2, 3, 16]".
std::string format_shape(const std::vector<std::int64_t>& shape);

}  // namespace uvit
