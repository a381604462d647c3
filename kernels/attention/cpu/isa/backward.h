#include "kernels/attention/cpu/isa/forward_two.h"
