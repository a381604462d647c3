#pragma once
#include <string>

namespace uvit {

/// Model name and the instruction sets that matter here, for instance "AMD EPYC, avx2 avx512f avx512_bf16".
std::string cpu_description();

}  // namespace uvit
