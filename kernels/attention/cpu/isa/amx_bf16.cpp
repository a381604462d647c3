#define UVIT_ISA amx_bf16
#define UVIT_ISA_NAME "amx_bf16"
#define UVIT_LANES 16
#define UVIT_TABLE kAmxBf16Kernels
#define UVIT_BF16_DOT
#define UVIT_TILES
#include "kernels/attention/cpu/isa/table.h"
