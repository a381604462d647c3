#define UVIT_ISA avx512_bf16
#define UVIT_ISA_NAME "avx512_bf16"
#define UVIT_LANES 16
#define UVIT_TABLE kAvx512Bf16Kernels
#define UVIT_BF16_DOT
#include "kernels/attention/cpu/isa/table.h"
