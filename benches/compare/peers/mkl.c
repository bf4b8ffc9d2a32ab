/* Intel MKL: cblas_gemm_s8u8s32 with packed weights (row major: A unsigned, B signed).
 * Only the run-time library is needed, so the few prototypes stand here; MKL_INT has 32 bits.
 * Build: cc -O2 mkl.c -ldl -o mkl      Run: MKL_THREADING_LAYER=GNU ./mkl libmkl_rt.so [--seconds S] */
#include "serve.h"
#include <dlfcn.h>
#include <stdint.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, PACKED = 151, B_MATRIX = 162, FIXED_OFFSET = 173 };

static size_t (*pack_size)(int, int, int, int);
static void (*pack)(int, int, int, int, int, int, const void *, int, void *);
static void (*compute)(int, int, int, int, int, int, int, float, const void *, int, int8_t, const void *, int, int8_t,
                       float, int32_t *, int, const int32_t *);

static struct { long m, k, n; uint8_t *a; int8_t *b; int32_t *c; void *packed; } p;

static void multiply(void *unused) {
  int32_t zero = 0;
  (void)unused;
  compute(ROW_MAJOR, NO_TRANSPOSE, PACKED, FIXED_OFFSET, p.m, p.n, p.k, 1, p.a, p.k, 0, p.packed, p.n, 0, 0, p.c, p.n, &zero);
}

static void make(long m, long k, long n) {
  free(p.a), free(p.b), free(p.c), free(p.packed);
  p.m = m, p.k = k, p.n = n;
  p.a = malloc(m * k), p.b = malloc(k * n), p.c = malloc(4 * m * n);
  for (long i = 0; i < m * k; i++) p.a[i] = rand();
  for (long i = 0; i < k * n; i++) p.b[i] = rand();
  p.packed = aligned_alloc(64, (pack_size(B_MATRIX, m, n, k) + 63) / 64 * 64);
  pack(ROW_MAJOR, B_MATRIX, NO_TRANSPOSE, m, n, k, p.b, n, p.packed);
}

static int right(void) {
  long row = p.m / 2, column = p.n / 3, sum = 0;
  for (long i = 0; i < p.k; i++) sum += (int)p.a[row * p.k + i] * (int)p.b[i * p.n + column];
  return p.c[row * p.n + column] == sum;
}

int main(int argc, char **argv) {
  void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
  if (!library) return fprintf(stderr, "no library: %s\n", argc > 1 ? dlerror() : "name it"), 1;
  pack_size = dlsym(library, "cblas_gemm_s8u8s32_pack_get_size");
  pack = dlsym(library, "cblas_gemm_s8u8s32_pack");
  compute = dlsym(library, "cblas_gemm_s8u8s32_compute");
  void (*version)(char *, int) = dlsym(library, "MKL_Get_Version_String");
  if (!pack_size || !pack || !compute || !version) return fputs("not an MKL with packed 8-bit products\n", stderr), 1;
  char text[256] = {0}, number[64] = "?", op[32];
  version(text, sizeof text - 1);
  char *found = strstr(text, "Version ");
  if (found) sscanf(found, "Version %63[0-9.]", number);
  printf("mkl %s\n", number);
  fflush(stdout);
  double seconds = seconds_of(argc, argv);
  long m, k, n;
  while (request(op, &m, &k, &n)) {
    if (strcmp(op, "u8s8")) { refuse("MKL has no such product"); continue; }
    if (m != p.m || k != p.k || n != p.n) make(m, k, n);
    double time = median(multiply, NULL, seconds);
    if (right()) answer(time); else refuse("wrong result");
  }
}
