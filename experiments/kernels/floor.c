/* The floor: out = sum of f_i x_i over n bfloat16 streams, one pass, everything in registers. */
#include <stdint.h>
#include <string.h>

static inline float wide(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static inline uint16_t rounded(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#define FLOOR(N)                                                                        \
  static void floor##N(const uint16_t *restrict const *x, const float *f,               \
                       uint16_t *restrict y, int64_t count) {                           \
    const uint16_t *restrict p[N];                                                      \
    float w[N];                                                                         \
    for (int k = 0; k < N; k++) p[k] = x[k], w[k] = f[k];                               \
    for (int64_t i = 0; i < count; i++) {                                               \
      float sum = 0.0f;                                                                 \
      for (int k = 0; k < N; k++) sum += w[k] * wide(p[k][i]);                          \
      y[i] = rounded(sum);                                                              \
    }                                                                                   \
  }
FLOOR(1) FLOOR(2) FLOOR(3) FLOOR(4) FLOOR(5) FLOOR(6) FLOOR(7) FLOOR(8) FLOOR(9)

typedef void (*pass)(const uint16_t *restrict const *, const float *, uint16_t *restrict, int64_t);
static const pass PASSES[] = {0, floor1, floor2, floor3, floor4, floor5, floor6, floor7, floor8, floor9};

void linear_combination(int streams, const uint16_t *const *x, const float *f, uint16_t *y,
                        int64_t count) {
  PASSES[streams](x, f, y, count);
}
