#define UVIT_ISA portable
#define UVIT_ISA_NAME "portable"
#define UVIT_LANES 4
#define UVIT_TABLE kPortableKernels
#include "kernels/attention/cpu/isa/table.h"
