#include "cuda_on_cpu/shadow.h"

#include <fmt/format.h>

#include <algorithm>

#include "cuda_on_cpu/banks.h"
#include "cuda_on_cpu/block.h"
#include "cuda_on_cpu/memory.h"

namespace uvit::cuda::emulator {
namespace {

bool is_on = false;
std::uint64_t launch_begin = 0;

bool is_this_launch(std::uint64_t block_serial) { return block_serial >= launch_begin; }

[[noreturn]] void report(const char* what, const unsigned char* p, const std::string& other) {
  fail(fmt::format("{} at {}: {}, and no barrier between the two", what, describe_address(p), other));
}

bool was_written_unordered(const ShadowCell& cell, const Thread& self) {
  return cell.write_block == block->serial && cell.write_epoch == self.block_epoch && cell.writer != self.index &&
         (cell.writer / kLanes != self.warp || cell.write_warp_epoch == self.warp_epoch);
}

/// Reads by other warps in this epoch, or by other lanes of this warp since its last sync_warp.
bool was_read_unordered(const ShadowCell& cell, const Thread& self) {
  if (cell.read_block != block->serial || cell.read_epoch != self.block_epoch) return false;
  const std::uint32_t own_warp = 1u << self.warp, own_lane = 1u << self.lane;
  if (cell.reader_warps & ~own_warp) return true;
  return cell.read_warp_epoch == self.warp_epoch && (cell.reader_lanes & ~own_lane);
}

void read_byte(ShadowCell& cell, const unsigned char* p, bool is_shared) {
  const Thread& self = *current_thread;
  if (cell.write_block == block->serial) {
    if (cell.in_flight) fail(fmt::format("reads {} while cp_async_16 of thread {} is still to write it: a wait is missing", describe_address(p), cell.writer));
    if (was_written_unordered(cell, self)) report("reads what another thread wrote", p, fmt::format("thread {} wrote it", cell.writer));
  } else if (is_shared) {
    fail(fmt::format("reads {}, which nothing has written", describe_address(p)));
  } else if (is_this_launch(cell.write_block)) {
    report("reads what another block wrote", p, fmt::format("thread {} of that block wrote it", cell.writer));
  }
  const std::uint32_t warp = 1u << self.warp, lane = 1u << self.lane;
  if (cell.read_block != block->serial) {
    cell.read_by_blocks = is_this_launch(cell.read_block);  // by an earlier one of this launch too
    cell.read_block = block->serial;
    cell.read_epoch = ~self.block_epoch;
  }
  if (cell.read_epoch != self.block_epoch) {
    cell.read_epoch = self.block_epoch;
    cell.reader_warps = 0;
    cell.reader_lanes = 0;
  }
  if (cell.reader_warps != warp || cell.read_warp_epoch != self.warp_epoch) cell.reader_lanes = 0;
  cell.reader_warps |= warp;
  cell.read_warp_epoch = self.warp_epoch;
  cell.reader_lanes |= lane;
}

void write_byte(ShadowCell& cell, const unsigned char* p, bool is_shared, bool in_flight) {
  const Thread& self = *current_thread;
  if (cell.write_block == block->serial) {
    if (cell.in_flight && !(in_flight && cell.writer == self.index))
      fail(fmt::format("writes {} while cp_async_16 of thread {} is still to write it: a wait is missing", describe_address(p), cell.writer));
    if (was_written_unordered(cell, self)) report("overwrites what another thread wrote", p, fmt::format("thread {} wrote it", cell.writer));
  } else if (!is_shared && is_this_launch(cell.write_block)) {
    report("overwrites what another block wrote", p, fmt::format("thread {} of that block wrote it", cell.writer));
  }
  if (was_read_unordered(cell, self)) report("overwrites what another thread reads", p, "that thread may not have read it yet");
  if (!is_shared && is_this_launch(cell.read_block) && (cell.read_block != block->serial || cell.read_by_blocks))
    report("overwrites what another block reads", p, "that block may not have read it yet");
  cell.write_block = block->serial;
  cell.write_epoch = self.block_epoch;
  cell.write_warp_epoch = self.warp_epoch;
  cell.writer = static_cast<std::int16_t>(self.index);
  cell.in_flight = in_flight;
}

template <class Function>
void for_each_cell(const void* p, std::size_t bytes, Function function) {
  const auto* byte = static_cast<const unsigned char*>(p);
  const Shadow shadow = shadow_of(p);
  for (std::size_t i = 0; i < bytes; ++i) function(shadow.cells[i], byte + i, shadow.is_shared);
}

void check_plain(const void* p, std::size_t bytes, bool is_write, const void* instruction) {
  Space space;
  if (is_near_shared(p))
    space = Space::shared;
  else if (is_in_global_arena(p))
    space = Space::global;
  else
    return;
  const bool is_vector = (bytes & (bytes - 1)) == 0;
  check_access(space, is_write ? Access::write : Access::read, p, bytes, is_vector ? std::min<std::size_t>(bytes, 16) : 1);
  is_write ? note_write(p, bytes) : note_read(p, bytes);
  if (space == Space::shared && is_vector && bytes <= 16) record_shared_access(p, static_cast<int>(bytes), {instruction, 0}, current_thread->site);
}

}  // namespace

bool enable_race_checks() { return is_on = true; }
bool checks_races() { return is_on; }
void begin_launch(std::uint64_t first_block) { launch_begin = first_block; }

void note_read(const void* p, std::size_t bytes) {
  if (is_on) for_each_cell(p, bytes, read_byte);
}
void note_write(const void* p, std::size_t bytes) {
  if (is_on) for_each_cell(p, bytes, [](ShadowCell& cell, const unsigned char* at, bool is_shared) { write_byte(cell, at, is_shared, false); });
}
void note_departure(const void* p, std::size_t bytes) {
  if (is_on) for_each_cell(p, bytes, [](ShadowCell& cell, const unsigned char* at, bool is_shared) { write_byte(cell, at, is_shared, true); });
}
void note_arrival(const void* p, std::size_t bytes) {
  if (!is_on) return;
  for_each_cell(p, bytes, [](ShadowCell& cell, const unsigned char* at, bool is_shared) {
    cell.in_flight = false;
    write_byte(cell, at, is_shared, false);
  });
}

void check_plain_access(const void* p, std::size_t bytes, bool is_write, const void* instruction) {
  if (!current_thread) return;
  try {
    check_plain(p, bytes, is_write, instruction);
    return;
  } catch (const FiberFailed&) {
  }
  Fiber::leave();  // the compiler takes it that hooks do not throw, so the kernel's frames cannot be unwound
}

}  // namespace uvit::cuda::emulator
