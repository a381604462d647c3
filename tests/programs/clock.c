// Preloaded into a program: CLOCK_REALTIME jumps a day back, and an hour forward again, from call to call. The steady clock is left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec* time) {
  static int (*real)(clockid_t, struct timespec*);
  static int calls;
  if (!real) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(id, time);
  if (id == CLOCK_REALTIME) time->tv_sec += ++calls % 3 == 0 ? 3600 : -86400 * (calls % 3);
  return result;
}
