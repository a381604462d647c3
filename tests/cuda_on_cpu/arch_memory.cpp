// Memory accesses of one thread: asynchronous copies, vector loads and stores; and the indices.
#include <fmt/format.h>

#include "cuda_on_cpu/banks.h"
#include "cuda_on_cpu/block.h"
#include "cuda_on_cpu/shadow.h"

namespace uvit::cuda {
namespace emulator {

unsigned char* shared_memory() { return block->shared; }

void wait_async(int groups_left, Site site) {
  Thread& self = *current_thread;
  self.site = site;
  if (is_faulty(FaultKind::skip_wait, site)) {  // the data never arrives: the worst a GPU could do
    self.pending_groups.clear();
    return;
  }
  while (self.pending_groups.size() > static_cast<std::size_t>(groups_left)) {
    for (const AsyncCopy& copy : self.pending_groups.front()) {
      std::memcpy(copy.target, copy.data, 16);
      note_arrival(copy.target, 16);
    }
    self.pending_groups.erase(self.pending_groups.begin());
  }
}

void load(void* to, const void* from, int bytes, bool shared, Site site) {
  current_thread->site = site;
  const auto n = static_cast<std::size_t>(bytes);
  if (shared && is_faulty(FaultKind::past_shared, site)) from = static_cast<const char*>(from) + block->shared_bytes;
  check_access(shared ? Space::shared : Space::global, Access::read, from, n, n);
  note_read(from, n);
  std::memcpy(to, from, n);
  if (shared) record_shared_access(from, bytes, {site.file_name(), site.line()}, site);
}

void store(void* to, const void* from, int bytes, bool shared, Site site) {
  current_thread->site = site;
  const auto n = static_cast<std::size_t>(bytes);
  if (shared && is_faulty(FaultKind::past_shared, site)) to = static_cast<char*>(to) + block->shared_bytes;
  check_access(shared ? Space::shared : Space::global, Access::write, to, n, n);
  note_write(to, n);
  std::memcpy(to, from, n);
  if (shared) record_shared_access(to, bytes, {site.file_name(), site.line()}, site);
}

}  // namespace emulator

namespace arch {

using namespace emulator;

int thread_index() { return current_thread->index; }
int block_threads() { return block->threads; }
int block_index(int dim) { return block->index[dim]; }
int grid_size(int dim) { return block->grid[dim]; }

void cp_async_16(void* shared, const void* global, bool valid, Site site) {
  Thread& self = *current_thread;
  self.site = site;
  auto* target = static_cast<unsigned char*>(shared);
  if (is_faulty(FaultKind::past_shared, site)) target += block->shared_bytes;
  if (is_faulty(FaultKind::ignore_valid, site)) valid = true;
  check_access(Space::shared, Access::write, target, 16, 16);
  AsyncCopy copy{target, {}, site};
  if (valid) {
    check_access(Space::global, Access::read, global, 16, 16);
    note_read(global, 16);
    std::memcpy(copy.data, global, 16);
  }
  note_departure(target, 16);
  std::memset(target, 0xff, 16);  // NaN for whoever reads before the wait
  self.open_group.push_back(copy);
  ++active_counters.async_copies;
}

void cp_async_commit() {
  Thread& self = *current_thread;
  self.pending_groups.push_back(std::move(self.open_group));
  self.open_group.clear();
}

float masked(float score, bool visible, Site site) {
  return visible || is_faulty(FaultKind::skip_mask, site) ? score : -INFINITY;
}

}  // namespace arch
}  // namespace uvit::cuda
