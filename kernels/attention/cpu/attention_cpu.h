#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/attention/params.h"

namespace uvit::kernels {

/// Calls body(begin, end) on disjoint ranges that together are [0, n), on any threads, and returns when all are done.
/// Results of the kernels do not depend on the ranges.
using ParallelFor = std::function<void(std::int64_t n, const std::function<void(std::int64_t begin, std::int64_t end)>& body)>;

/// One thread: the whole range at once.
void serial_for(std::int64_t n, const std::function<void(std::int64_t begin, std::int64_t end)>& body);

/// Whether the fused kernels take these widths: each a multiple of 8 from 8 to 128.
bool attention_supported(std::int64_t head_dim, std::int64_t value_dim);

/// Fused attention on the CPU; formulas in kernels/README.md. Nothing of size L x Lk is stored: the extra memory is linear in L.
/// Sums, exponentials and signs are float32, for bfloat16 tensors too.
/// @param params  sizes, views and results as params.h says; L and Lk from 0 on
/// @throws std::invalid_argument naming the field, when a width is not supported or a pointer that the kind needs is null
void attention_forward(const AttentionParams& params, const ParallelFor& parallel_for = serial_for);
void attention_backward(const AttentionParams& params, const ParallelFor& parallel_for = serial_for);

/// Bytes that a call takes beside its operands: for each thread, and shared by all. Linear in L and Lk.
struct AttentionMemory {
  std::size_t each_thread = 0, shared = 0;
};
AttentionMemory attention_memory(const AttentionParams& params, bool backward);

/// The instruction set in use: "portable", "avx2", "avx512", "avx512_bf16" or "amx_bf16", the best that this machine has, or the one UVIT_CPU_ISA
/// names. Read once. @throws std::invalid_argument for a UVIT_CPU_ISA that is unknown or that this machine has not.
std::string attention_isa();

/// The names this machine can run, the best last.
std::vector<std::string> attention_isas_available();

/// Selects an instruction set from here on (tests and benchmarks); not while a kernel runs. @throws as attention_isa.
void set_attention_isa(const std::string& name);

}  // namespace uvit::kernels
