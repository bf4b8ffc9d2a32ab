/* The conversation of a peer with `run`, for C and C++: see serve.py. */
#ifndef SERVE_H
#define SERVE_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Seconds of a call: the median of as many as fit the budget, after a tenth of it to warm up. */
static double median(void (*call)(void *), void *of, double budget) {
  enum { MOST = 1 << 18 };
  static double times[MOST];
  int count = 0;
  double begin = now();
  do call(of); while (now() - begin <= budget / 10);
  begin = now();
  do {
    double start = now();
    call(of);
    times[count++] = now() - start;
  } while (now() - begin < budget && count < MOST);
  qsort(times, count, sizeof *times, ascending);
  return times[count / 2];
}

static double seconds_of(int argc, char **argv) {
  for (int i = 1; i + 1 < argc; i++)
    if (!strcmp(argv[i], "--seconds")) return atof(argv[i + 1]);
  return 0.3;
}

/* The next request for a product; 0 at the end. */
static int request(char op[32], long *m, long *k, long *n) {
  char line[256];
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "%31s %ldx%ldx%ld", op, m, k, n) == 4) return 1;
    puts("! a request is: op MxKxN");
    fflush(stdout);
  }
  return 0;
}

static void answer(double seconds) {
  printf("%e\n", seconds);
  fflush(stdout);
}

static void refuse(const char *reason) {
  printf("! %s\n", reason);
  fflush(stdout);
}

#ifdef __cplusplus
}
#endif
#endif
