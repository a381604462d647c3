#include "io/event_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/process_info.h"
#include "io/file_descriptor.h"
#include "io/protobuf.h"

// Field numbers are those of TensorFlow's event.proto, summary.proto, tensor.proto and tensor_shape.proto, and of TensorBoard's
// plugins/hparams/{plugin_data,api}.proto; google.protobuf.Value is of struct.proto.

namespace uvit {
namespace fs = std::filesystem;

namespace {

using Message = ProtoMessage;

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr std::uint64_t kRecordHeader = 12, kRecordFooter = 4;  // size and its checksum; checksum of the event

double system_time() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

/// metadata.plugin_data of a summary value
Message plugin(std::string_view name, std::string_view content = {}) {
  Message data;
  data.bytes(1, name);
  if (!content.empty()) data.bytes(2, content);
  return Message().message(1, data);
}

/// The seconds in an event file's name; -1 for another name.
std::int64_t seconds_of(const std::string& name) {
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t seconds = -1;
  const auto result = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
  constexpr std::int64_t kLatest = std::int64_t{1} << 40;  // a name from elsewhere may hold any number, and the next one must be larger
  return result.ec == std::errc() && seconds < kLatest ? seconds : -1;
}

/// The time of the last whole record of an event file; 0 where there is none.
double last_time(const fs::path& path) {
  const InputFile file(path);
  double time = 0;
  for (std::uint64_t at = 0; at + kRecordHeader + 9 + kRecordFooter <= file.size();) {
    std::array<std::byte, kRecordHeader + 9> head;  // the event's first field is its time: a key of one byte and a double
    file.read(head, at);
    std::uint64_t size = 0;
    std::memcpy(&size, head.data(), sizeof size);
    const std::uint64_t left = file.size() - at - kRecordHeader - kRecordFooter;
    if (size > left || size < 9 || head[kRecordHeader] != std::byte{0x09}) break;
    std::memcpy(&time, head.data() + kRecordHeader + 1, sizeof time);
    at += kRecordHeader + size + kRecordFooter;
  }
  return time;
}

/// The event file of a folder whose name is the last in order, which is the order TensorBoard reads them in.
fs::path newest_file(const fs::path& folder) {
  fs::path newest;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (seconds_of(entry.path().filename().string()) >= 0) newest = std::max(newest, entry.path());
  return newest;
}

/// Opens a file that no other has: two runs may start in one folder in the same second.
int open_new(fs::path& path) {
  const std::string base = path.string();
  for (int number = 1;; ++number) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor >= 0) return descriptor;
    if (errno != EEXIST) throw Error(fmt::format("cannot write {}: {}", path.string(), std::strerror(errno)));
    path = fmt::format("{}.{}", base, number);
  }
}

}  // namespace

EventFile::EventFile(const fs::path& folder, std::optional<std::int64_t> first_step)
    : started_wall_(system_time()), started_(std::chrono::steady_clock::now()) {
  make_directories(folder);
  auto seconds = static_cast<std::int64_t>(started_wall_);
  if (const fs::path before = newest_file(folder); !before.empty()) {
    started_wall_ = std::max(started_wall_, last_time(before));
    seconds = std::max(seconds, seconds_of(before.filename().string()) + 1);
  }
  path_ = folder / fmt::format("{}{:010}.{}.{}", kPrefix, seconds, host_name(), ::getpid());
  descriptor_ = open_new(path_);
  try {
    write_record(Message().fixed64(1, now()).bytes(3, "brain.Event:2").text());
    if (first_step) purge_from(*first_step);
  } catch (...) {
    ::close(descriptor_);
    ::unlink(path_.c_str());
    throw;
  }
}

EventFile::~EventFile() { ::close(descriptor_); }

double EventFile::now() const { return started_wall_ + std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count(); }

void EventFile::write_value(std::int64_t step, const std::string& value) {
  Message event;
  event.fixed64(1, now()).varint(2, static_cast<std::uint64_t>(step)).message(5, Message().bytes(1, value));
  write_record(event.text());
}

void EventFile::write_record(const std::string& event) {
  const std::uint64_t size = event.size();
  const auto append = [](std::string& record, const auto& number) { record.append(reinterpret_cast<const char*>(&number), sizeof number); };
  std::string record;
  append(record, size);
  append(record, masked_crc32c(std::as_bytes(std::span(&size, 1))));
  record += event;
  append(record, masked_crc32c(std::as_bytes(std::span(event))));
  const off_t before = ::lseek(descriptor_, 0, SEEK_CUR);
  try {
    write_all(descriptor_, std::as_bytes(std::span(record)), path_);
  } catch (const Error&) {
    // A reader stops at half a record, and would never see what follows it.
    if (before >= 0 && ::ftruncate(descriptor_, before) == 0) ::lseek(descriptor_, before, SEEK_SET);
    throw;
  }
}

void EventFile::purge_from(std::int64_t step) {
  constexpr std::uint64_t kStart = 1;  // SessionLog.START
  Message event;
  event.fixed64(1, now()).varint(2, static_cast<std::uint64_t>(step)).message(7, Message().varint(1, kStart));
  write_record(event.text());
}

void EventFile::add_scalar(const std::string& tag, std::int64_t step, double value) {
  write_value(step, Message().bytes(1, tag).fixed32(2, static_cast<float>(value)).text());
}

void EventFile::add_image(const std::string& tag, std::int64_t step, std::span<const std::byte> png, int height, int width, int channels) {
  Message image;
  image.varint(1, static_cast<std::uint64_t>(height)).varint(2, static_cast<std::uint64_t>(width)).varint(3, static_cast<std::uint64_t>(channels));
  image.bytes(4, std::string_view(reinterpret_cast<const char*>(png.data()), png.size()));
  write_value(step, Message().bytes(1, tag).message(4, image).text());
}

void EventFile::add_text(const std::string& tag, std::int64_t step, const std::string& text) {
  constexpr std::uint64_t kString = 7;  // DT_STRING
  const Message shape = Message().message(2, Message().varint(1, 1));
  const Message tensor = Message().varint(1, kString).message(2, shape).bytes(8, text);
  write_value(step, Message().bytes(1, tag).message(8, tensor).message(9, plugin("text")).text());
}

void EventFile::add_histogram(const std::string& tag, std::int64_t step, const Histogram& histogram) {
  const Histogram& h = histogram;
  Message message;
  message.fixed64(1, h.min).fixed64(2, h.max).fixed64(3, h.num).fixed64(4, h.sum).fixed64(5, h.sum_squares);
  message.packed(6, h.limits).packed(7, h.counts);
  write_value(step, Message().bytes(1, tag).message(5, message).text());
}

namespace {

/// google.protobuf.Value
Message value_of(const HParam& setting) {
  if (const bool* flag = std::get_if<bool>(&setting.value)) return Message().varint(4, *flag ? 1 : 0);
  if (const double* number = std::get_if<double>(&setting.value)) return Message().fixed64(2, *number);
  return Message().bytes(3, std::get<std::string>(setting.value));
}

/// DataType of an HParamInfo: STRING 1, BOOL 2, FLOAT64 3
std::uint64_t type_of(const HParam& setting) {
  if (std::holds_alternative<bool>(setting.value)) return 2;
  return std::holds_alternative<double>(setting.value) ? 3 : 1;
}

/// A summary value that carries plugin data alone: its tensor is an empty one of float32. @param data  HParamsPluginData, version 0
std::string hparams_value(const std::string& tag, const Message& data) {
  constexpr std::uint64_t kFloat = 1;  // DT_FLOAT
  const Message empty = Message().varint(1, kFloat).message(2, Message().message(2, Message().varint(1, 0)));
  return Message().bytes(1, tag).message(8, empty).message(9, plugin("hparams", data.text())).text();
}

}  // namespace

void EventFile::add_hparams(const std::string& run, const std::vector<HParam>& settings, const std::vector<std::string>& metric_tags) {
  Message experiment, session;
  experiment.fixed64(3, now());
  for (const HParam& setting : settings) {
    experiment.message(4, Message().bytes(1, setting.name).varint(4, type_of(setting)));
    session.message(1, Message().bytes(1, setting.name).message(2, value_of(setting)));  // an entry of the map `hparams`
  }
  for (const std::string& tag : metric_tags) experiment.message(5, Message().message(1, Message().bytes(2, tag)));
  session.bytes(4, run).fixed64(5, now());
  write_value(0, hparams_value("_hparams_/experiment", Message().message(2, experiment)));
  write_value(0, hparams_value("_hparams_/session_start_info", Message().message(3, session)));
}

void EventFile::end_hparams(bool success) {
  const Message session = Message().varint(1, success ? 1 : 2).fixed64(2, now());  // Status: SUCCESS 1, FAILURE 2
  write_value(0, hparams_value("_hparams_/session_end_info", Message().message(4, session)));
}

}  // namespace uvit
