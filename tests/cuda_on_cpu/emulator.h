#pragma once
// A CUDA thread block on one CPU thread: what tests of kernels use. README.md beside this file says what is checked and how.
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_on_cpu/faults.h"
#include "cuda_on_cpu/run_grid.h"

namespace uvit::cuda::emulator {

/// Something that a kernel must not do. The message names kernel, block, thread and source line.
class EmulationError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct Settings {
  std::uint32_t seed = 0;     ///< 0: threads run in order; else the order of warps and lanes is drawn anew at every step
  Fault fault;                ///< what is broken on purpose
  bool record_sites = false;  ///< fill Counters::fault_sites (slow)
};

/// What the launches of a Scope did, all blocks together.
struct Counters {
  std::uint64_t launches = 0, blocks = 0, barriers = 0, mma = 0, ldmatrix = 0, shuffles = 0, async_copies = 0;
  std::uint64_t shared_wavefronts = 0;  ///< passes over the banks that the recorded shared accesses need (ldmatrix, load_shared, store_shared)
  std::uint64_t bank_conflicts = 0;     ///< and how many of them a better layout would save
  std::map<std::string, std::uint64_t> conflicts_by_site;  ///< "file:line": its bank conflicts
  std::vector<FaultSite> fault_sites;   ///< every call that ran and at which a fault can be seeded, in order of first use
};

/// Sets the settings and zeroes the counters; puts the old ones back at its end.
class Scope {
 public:
  explicit Scope(const Settings& settings);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  const Counters& counters() const;

 private:
  Settings old_settings_;
  Counters old_counters_;
};

/// Global memory: pages of its own between pages that cannot be touched, the last byte at the end of its last page (to 16 bytes).
/// Starts as NaN in every dtype (all bits set).
class GlobalMemory {
 public:
  /// @param name  for messages.
  GlobalMemory(std::string name, std::size_t bytes);
  ~GlobalMemory();
  GlobalMemory(const GlobalMemory&) = delete;
  GlobalMemory& operator=(const GlobalMemory&) = delete;
  unsigned char* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  unsigned char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// An array in emulated global memory. Kernels may read and write only what is in one.
template <class T>
class Buffer {
 public:
  Buffer(const std::string& name, std::size_t count) : memory_(name, count * sizeof(T)), count_(count) {}
  Buffer(const std::string& name, const std::vector<T>& values) : Buffer(name, values.size()) {
    if (!values.empty()) std::memcpy(memory_.data(), values.data(), memory_.bytes());
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) const { return data()[i]; }
  std::vector<T> values() const { return {data(), data() + count_}; }

 private:
  GlobalMemory memory_;
  std::size_t count_;
};

}  // namespace uvit::cuda::emulator
