#include "io/host_tensor.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"
#include "core/name_table.h"

namespace uvit {
namespace {

double half_to_double(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double sign = (bits >> 15) ? -1 : 1;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  if (exponent < 31) return sign * std::ldexp(1024 + mantissa, exponent - 25);
  return mantissa ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
}

double bfloat16_to_double(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

template <class T, class Convert>
void widen(const std::vector<std::byte>& data, std::vector<double>& out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}

template <class T>
void widen(const std::vector<std::byte>& data, std::vector<double>& out) {
  widen<T>(data, out, [](T value) { return static_cast<double>(value); });
}

}  // namespace

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16: return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean: return 1;
  }
  throw std::logic_error("a dtype outside its enumeration");
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64: return "F64";
    case DType::f32: return "F32";
    case DType::f16: return "F16";
    case DType::bf16: return "BF16";
    case DType::i64: return "I64";
    case DType::i32: return "I32";
    case DType::i16: return "I16";
    case DType::i8: return "I8";
    case DType::u8: return "U8";
    case DType::boolean: return "BOOL";
  }
  throw std::logic_error("a dtype outside its enumeration");
}

std::int64_t HostTensor::numel() const {
  std::int64_t count = 1;
  for (std::int64_t side : shape) count *= side;
  return count;
}

std::optional<std::size_t> byte_size(DType dtype, const std::vector<std::int64_t>& shape) {
  std::size_t size = size_of(dtype);
  bool empty = false;
  for (std::int64_t side : shape) {
    if (side < 0) return std::nullopt;
    if (side == 0)
      empty = true;
    else if (__builtin_mul_overflow(size, static_cast<std::size_t>(side), &size) || size > std::numeric_limits<std::int64_t>::max())
      return std::nullopt;
  }
  return empty ? 0 : size;
}

std::vector<double> HostTensor::to_double() const {
  const std::optional<std::size_t> size = byte_size(dtype, shape);
  if (!size || *size != data.size())
    throw std::logic_error(fmt::format("a tensor of shape {} and {} bytes of {}", format_shape(shape), data.size(), name_of(dtype)));
  std::vector<double> out(*size / size_of(dtype));
  switch (dtype) {
    case DType::f64: widen<double>(data, out); break;
    case DType::f32: widen<float>(data, out); break;
    case DType::f16: widen<std::uint16_t>(data, out, half_to_double); break;
    case DType::bf16: widen<std::uint16_t>(data, out, bfloat16_to_double); break;
    case DType::i64: widen<std::int64_t>(data, out); break;
    case DType::i32: widen<std::int32_t>(data, out); break;
    case DType::i16: widen<std::int16_t>(data, out); break;
    case DType::i8: widen<std::int8_t>(data, out); break;
    case DType::u8:
    case DType::boolean: widen<std::uint8_t>(data, out); break;
  }
  return out;
}

const HostTensor* TensorFile::find(std::string_view name) const {
  for (const auto& [key, tensor] : tensors)
    if (key == name) return &tensor;
  return nullptr;
}

const HostTensor& TensorFile::at(std::string_view name) const {
  if (const HostTensor* tensor = find(name)) return *tensor;
  std::vector<std::string> names;
  for (const auto& [key, tensor] : tensors) names.push_back(key);
  const std::string nearest = nearest_name(name, names);
  throw Error(fmt::format("no tensor '{}' among {}{}", name, names.size(), nearest.empty() ? "" : fmt::format(": did you mean '{}'?", nearest)));
}

std::string format_shape(const std::vector<std::int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

}  // namespace uvit
