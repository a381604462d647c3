#define UVIT_ISA avx2
#define UVIT_ISA_NAME "avx2"
#define UVIT_LANES 8
#define UVIT_TABLE kAvx2Kernels
#include "kernels/attention/cpu/isa/table.h"
