// Operations of a whole warp or block: shuffles, votes, mma, ldmatrix, barriers.
#include <fmt/format.h>

#include <algorithm>

#include "cuda_on_cpu/banks.h"
#include "cuda_on_cpu/block.h"
#include "cuda_on_cpu/shadow.h"

namespace uvit::cuda {
namespace emulator {
namespace {

bool same_place(const Site& a, const Site& b) { return a.line() == b.line() && std::strcmp(a.file_name(), b.file_name()) == 0; }

void check_lane(const Thread& other, Operation operation, const Site& site) {
  const Thread& self = *current_thread;
  if (other.done) fail(fmt::format("{}: lane {} has ended", operation_name(operation), other.lane));
  if (other.waits_in == Operation::none) return;
  if (other.waits_in != operation || !same_place(other.site, site))
    fail(fmt::format("lanes of one warp diverge: lane {} is in {}, lane {} waits in {} at {}", self.lane, operation_name(operation), other.lane,
                     operation_name(other.waits_in), site_name(other.site)));
}

}  // namespace

void collective(Operation operation, const void* operands, void* result, Site site, void (*perform)(Lanes)) {
  Thread& self = *current_thread;
  self.site = site;
  Thread* lanes[kLanes];
  int arrived = 1;
  for (int l = 0; l < kLanes; ++l) {
    lanes[l] = &block->thread(self.warp * kLanes + l);
    if (lanes[l] == &self) continue;
    check_lane(*lanes[l], operation, site);
    arrived += lanes[l]->waits_in != Operation::none;
  }
  self.operands = operands;
  self.result = result;
  if (arrived < kLanes) {
    self.waits_in = operation;
    Fiber::pause();  // resumed once the last lane has released it
    return;
  }
  if (perform) perform(lanes);
  for (Thread* lane : lanes) {
    lane->waits_in = Operation::none;
    lane->warp_epoch += operation == Operation::sync_warp;  // the other collectives order no memory accesses
  }
}

// ---- shuffles and votes
namespace {

struct ShuffleOperands {
  std::uint32_t bits;
  int lane;
  bool is_xor, wrong_lane;
};

void perform_shuffle(Lanes lanes) {
  for (int l = 0; l < kLanes; ++l) {
    const auto& in = *static_cast<const ShuffleOperands*>(lanes[l]->operands);
    int source = in.is_xor ? l ^ in.lane : in.lane;
    if (source < 0 || source >= kLanes) fail(fmt::format("a shuffle names lane {}", source));
    if (in.wrong_lane) source = (source + 1) % kLanes;
    *static_cast<std::uint32_t*>(lanes[l]->result) = static_cast<const ShuffleOperands*>(lanes[source]->operands)->bits;
  }
  ++active_counters.shuffles;
}

struct VoteOperands {
  bool value, is_any;
};

void perform_vote(Lanes lanes) {
  const bool is_any = static_cast<const VoteOperands*>(lanes[0]->operands)->is_any;
  const auto is_true = [](const Thread* lane) { return static_cast<const VoteOperands*>(lane->operands)->value; };
  const bool outcome = is_any ? std::any_of(lanes, lanes + kLanes, is_true) : std::all_of(lanes, lanes + kLanes, is_true);
  for (Thread* lane : lanes) *static_cast<bool*>(lane->result) = outcome;
}

bool vote(bool value, bool is_any, const Site& site) {
  const VoteOperands operands{value, is_any};
  bool outcome = false;
  collective(Operation::vote, &operands, &outcome, site, perform_vote);
  return outcome;
}

}  // namespace

std::uint32_t shuffle_bits(std::uint32_t bits, int lane, bool is_xor, Site site) {
  const ShuffleOperands operands{bits, lane, is_xor, is_faulty(FaultKind::shuffle_wrong_lane, site)};
  std::uint32_t result = 0;
  collective(Operation::shuffle, &operands, &result, site, perform_shuffle);
  return result;
}

// ---- tensor core
namespace {

struct MmaOperands {
  Element element;
  std::uint32_t a[4], b[2];
  float c[4];
};

float half_of(std::uint32_t bits, int half, Element element) {
  const auto value = static_cast<std::uint16_t>(bits >> (16 * half));
  return element == Element::bf16 ? arch::to_float(arch::bf16{value}) : f16_to_float(value);
}

float tf32_of(std::uint32_t bits) { return std::bit_cast<float>(bits & 0xffffe000u); }  // the instruction ignores the low 13 bits

/// The fragment layouts of arch.cuh. kDepth: 16, or 8 for tf32.
template <int kDepth>
void multiply(Lanes lanes) {
  float a[16][kDepth], b[kDepth][8], c[16][8];
  for (int l = 0; l < kLanes; ++l) {
    const auto& in = *static_cast<const MmaOperands*>(lanes[l]->operands);
    const int g = l >> 2, t = l & 3;
    if constexpr (kDepth == 16) {
      for (int i = 0; i < 8; ++i) a[g + 8 * (i >> 1 & 1)][2 * t + (i & 1) + 8 * (i >> 2)] = half_of(in.a[i >> 1], i & 1, in.element);
      for (int i = 0; i < 4; ++i) b[2 * t + (i & 1) + 8 * (i >> 1)][g] = half_of(in.b[i >> 1], i & 1, in.element);
    } else {
      for (int i = 0; i < 4; ++i) a[g + 8 * (i & 1)][t + 4 * (i >> 1)] = tf32_of(in.a[i]);
      for (int i = 0; i < 2; ++i) b[t + 4 * i][g] = tf32_of(in.b[i]);
    }
    for (int i = 0; i < 4; ++i) c[g + 8 * (i >> 1)][2 * t + (i & 1)] = in.c[i];
  }
  for (int m = 0; m < 16; ++m) {
    float sum[8] = {};
    for (int k = 0; k < kDepth; ++k)
      for (int n = 0; n < 8; ++n) sum[n] += a[m][k] * b[k][n];
    for (int n = 0; n < 8; ++n) c[m][n] += sum[n];
  }
  for (int l = 0; l < kLanes; ++l)
    for (int i = 0; i < 4; ++i) static_cast<float*>(lanes[l]->result)[i] = c[(l >> 2) + 8 * (i >> 1)][2 * (l & 3) + (i & 1)];
  ++active_counters.mma;
}

struct LoadOperands {
  const unsigned char* row;
  int count;
  bool transposed;
};

void perform_ldmatrix(Lanes lanes) {
  const auto& shape = *static_cast<const LoadOperands*>(lanes[0]->operands);
  Thread* const last = current_thread;
  for (int i = 0; i < shape.count; ++i) {
    std::uint16_t matrix[8][8];
    const void* rows[8];
    for (int r = 0; r < 8; ++r) {
      current_thread = lanes[8 * i + r];  // the lane that an error is to name
      rows[r] = static_cast<const LoadOperands*>(current_thread->operands)->row;
      check_access(Space::shared, Access::read, rows[r], 16, 16);
      note_read(rows[r], 16);
      std::memcpy(matrix[r], rows[r], 16);
    }
    current_thread = last;
    count_wavefronts(rows, 8, 16, lanes[0]->site);
    for (int l = 0; l < kLanes; ++l) {
      const int g = l >> 2, t = l & 3;
      const std::uint32_t lo = shape.transposed ? matrix[2 * t][g] : matrix[g][2 * t], hi = shape.transposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
      static_cast<std::uint32_t*>(lanes[l]->result)[i] = lo | hi << 16;
    }
  }
  ++active_counters.ldmatrix;
}

}  // namespace

void mma(Element element, float* c, const std::uint32_t* a, const std::uint32_t* b, Site site) {
  MmaOperands operands;
  operands.element = element;
  std::copy(a, a + 4, operands.a);
  std::copy(b, b + 2, operands.b);
  std::copy(c, c + 4, operands.c);
  if (is_faulty(FaultKind::swap_a_registers, site)) std::swap(operands.a[1], operands.a[2]);
  if (is_faulty(FaultKind::swap_b_registers, site)) std::swap(operands.b[0], operands.b[1]);
  if (is_faulty(FaultKind::swap_c_registers, site)) std::swap(operands.c[1], operands.c[2]);
  collective(Operation::mma, &operands, c, site, element == Element::tf32 ? multiply<8> : multiply<16>);
}

void load_matrices(std::uint32_t* registers, int count, bool transposed, const void* row, Site site) {
  LoadOperands operands{static_cast<const unsigned char*>(row), count, transposed != is_faulty(FaultKind::transpose_loaded, site)};
  if (is_faulty(FaultKind::past_shared, site)) operands.row += block->shared_bytes;
  collective(Operation::ldmatrix, &operands, registers, site, perform_ldmatrix);
  if (is_faulty(FaultKind::swap_loaded, site)) std::swap(registers[0], registers[1]);
}

}  // namespace emulator

namespace arch {

using namespace emulator;

bool warp_any(bool p, Site site) { return vote(p, true, site); }
bool warp_all(bool p, Site site) { return vote(p, false, site); }

void sync_warp(Site site) {
  if (!is_faulty(FaultKind::skip_sync_warp, site)) collective(Operation::sync_warp, nullptr, nullptr, site, nullptr);
}

void sync_block(Site site) {
  if (is_faulty(FaultKind::skip_sync_block, site)) return;
  Thread& self = *current_thread;
  self.site = site;
  self.waits_in = Operation::sync_block;
  ++block->at_barrier;
  Fiber::pause();  // the scheduler releases all threads together
}

}  // namespace arch
}  // namespace uvit::cuda
