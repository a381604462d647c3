#define UVIT_ISA avx512
#define UVIT_ISA_NAME "avx512"
#define UVIT_LANES 16
#define UVIT_TABLE kAvx512Kernels
#include "kernels/attention/cpu/isa/table.h"
