#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace uvit {

/// A protocol buffer being written, in its wire format: fields are appended in the order of the calls.
class ProtoMessage {
 public:
  ProtoMessage& varint(int field, std::uint64_t value) {
    key(field, 0);
    raw_varint(value);
    return *this;
  }
  ProtoMessage& fixed64(int field, double value) {
    key(field, 1);
    little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  ProtoMessage& fixed32(int field, float value) {
    key(field, 5);
    little_endian(std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  ProtoMessage& bytes(int field, std::string_view value) {
    key(field, 2);
    raw_varint(value.size());
    text_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return bytes(field, value.text_); }
  /// A packed repeated field of doubles.
  template <class Doubles>
  ProtoMessage& packed(int field, const Doubles& values) {
    ProtoMessage inside;
    for (const double value : values) inside.little_endian(std::bit_cast<std::uint64_t>(value), 8);
    return message(field, inside);
  }
  const std::string& text() const { return text_; }

 private:
  void key(int field, int wire_type) { raw_varint(static_cast<std::uint64_t>(field) << 3 | static_cast<std::uint64_t>(wire_type)); }
  void raw_varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) text_ += static_cast<char>(value | 0x80);
    text_ += static_cast<char>(value);
  }
  void little_endian(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i));
  }
  std::string text_;
};

}  // namespace uvit
