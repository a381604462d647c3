// For tests alone: amx_bf16 with the tile instructions emulated.
#define UVIT_ISA amx_bf16_emulated
#define UVIT_ISA_NAME "amx_bf16_emulated"
#define UVIT_LANES 16
#define UVIT_TABLE kAmxBf16EmulatedKernels
#define UVIT_BF16_DOT
#define UVIT_TILES
#define UVIT_AMX_EMULATED
#include "kernels/attention/cpu/isa/table.h"
