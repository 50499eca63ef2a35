/* What this processor can do at most: exponentials, the recurrence in registers, multiply-adds, memory.
   Built and called by cpu_floor.py. Plain loops that a compiler can vectorise, and hand-written ones for AVX2 and AVX-512. */
#include <math.h>
#include <time.h>
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#define NEL 2048    /* numbers per array: they stay in the first-level cache */
#define TOKENS 64   /* tokens per block of the recurrence */
#define STATES 16
#define ALIGNED __attribute__((aligned(64)))
#define INLINE static inline __attribute__((always_inline))

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9*t.tv_nsec;
}

static float tab8[8], tab16[16], tab32[32];    /* tab8[i] = 2^(i/8) and so on, filled by floor_init */

/* 2^x = 2^round(x) * 2^f. Adding 1.5*2^23 rounds; the sum's low bits are then round(x), ready to be added to an exponent.
   Polynomials: least largest relative error with the constant term fixed at 1. With a table of 2^(i/m), the fraction f is
   smaller, and a lower degree will do. */
#define DEG5(f) (1.f + (f)*(0.693147004f + (f)*(0.240222424f + (f)*(0.0555073358f + (f)*(0.00967151299f + (f)*0.00132647273f)))))

INLINE float plain_deg5(float x) {
    union { float f; int i; } t, q;
    x = x > -126.f ? x : -126.f;
    t.f = x + 12582912.f;
    float f = x - (t.f - 12582912.f);
    q.f = DEG5(f);
    q.i = (int)((unsigned)q.i + ((unsigned)t.i << 23));
    return q.f;
}

/* The vector algorithms work on U vectors at once, step by step over all of them, so that none waits for the one before. */
#define EACH for (int j = 0; j < U; j++)
#define MOST 8

#ifdef __AVX2__
#define V8(x) _mm256_set1_ps(x)
#define ADDI8(q, n) _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), n))
INLINE void avx2_deg5_unclamped(__m256 *x, const int U) {
    __m256 t[MOST], q[MOST];
    EACH t[j] = x[j] + V8(12582912.f);
    EACH x[j] = x[j] - (t[j] - V8(12582912.f));
    EACH q[j] = V8(0.00967151299f) + x[j]*V8(0.00132647273f);
    EACH q[j] = V8(0.0555073358f) + x[j]*q[j];
    EACH q[j] = V8(0.240222424f) + x[j]*q[j];
    EACH q[j] = V8(0.693147004f) + x[j]*q[j];
    EACH q[j] = V8(1.f) + x[j]*q[j];
    EACH x[j] = ADDI8(q[j], _mm256_slli_epi32(_mm256_castps_si256(t[j]), 23));
}
INLINE void avx2_deg5(__m256 *x, const int U) {
    EACH x[j] = _mm256_max_ps(x[j], V8(-126.f));
    avx2_deg5_unclamped(x, U);
}
INLINE void avx2_table8_deg3(__m256 *x, const int U) {    /* eighths: the low 3 bits choose from a table in one register */
    __m256 t[MOST], q[MOST], T[MOST];
    EACH x[j] = _mm256_max_ps(x[j], V8(-126.f));
    EACH t[j] = x[j] + V8(1572864.f);
    EACH x[j] = x[j] - (t[j] - V8(1572864.f));
    EACH T[j] = _mm256_permutevar8x32_ps(_mm256_loadu_ps(tab8), _mm256_castps_si256(t[j]));
    EACH q[j] = V8(0.240257636f) + x[j]*V8(0.0554962233f);
    EACH q[j] = V8(0.693147242f) + x[j]*q[j];
    EACH x[j] = T[j]*x[j];
    EACH q[j] = T[j] + x[j]*q[j];
    EACH x[j] = ADDI8(q[j], _mm256_slli_epi32(_mm256_andnot_si256(_mm256_set1_epi32(7), _mm256_castps_si256(t[j])), 20));
}
#endif

#ifdef __AVX512F__
#define V16(x) _mm512_set1_ps(x)
INLINE void deg5_16(const __m512 *f, __m512 *q, const int U) {
    EACH q[j] = V16(0.00967151299f) + f[j]*V16(0.00132647273f);
    EACH q[j] = V16(0.0555073358f) + f[j]*q[j];
    EACH q[j] = V16(0.240222424f) + f[j]*q[j];
    EACH q[j] = V16(0.693147004f) + f[j]*q[j];
    EACH q[j] = V16(1.f) + f[j]*q[j];
}
INLINE void avx512_deg5(__m512 *x, const int U) {
    __m512 t[MOST], q[MOST];
    EACH x[j] = _mm512_max_ps(x[j], V16(-126.f));
    EACH t[j] = x[j] + V16(12582912.f);
    EACH x[j] = x[j] - (t[j] - V16(12582912.f));
    deg5_16(x, q, U);
    EACH x[j] = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(q[j]), _mm512_slli_epi32(_mm512_castps_si512(t[j]), 23)));
}
INLINE void avx512_deg5_scalef(__m512 *x, const int U) {
    __m512 s[MOST], q[MOST];
    EACH s[j] = _mm512_roundscale_ps(x[j], 0x08);
    EACH x[j] = x[j] - s[j];
    deg5_16(x, q, U);
    EACH x[j] = _mm512_scalef_ps(q[j], s[j]);
}
INLINE void avx512_table16_deg3(__m512 *x, const int U) {
    __m512 t[MOST], s[MOST], q[MOST], T[MOST];
    EACH t[j] = x[j] + V16(786432.f);
    EACH s[j] = t[j] - V16(786432.f);
    EACH x[j] = x[j] - s[j];
    EACH T[j] = _mm512_permutexvar_ps(_mm512_castps_si512(t[j]), _mm512_loadu_ps(tab16));
    EACH q[j] = V16(0.240257636f) + x[j]*V16(0.0554962233f);
    EACH q[j] = V16(0.693147242f) + x[j]*q[j];
    EACH x[j] = T[j]*x[j];
    EACH x[j] = _mm512_scalef_ps(T[j] + x[j]*q[j], s[j]);
}
INLINE void avx512_table32_deg2(__m512 *x, const int U) {
    __m512 t[MOST], s[MOST], q[MOST], T[MOST];
    EACH t[j] = x[j] + V16(393216.f);
    EACH s[j] = t[j] - V16(393216.f);
    EACH x[j] = x[j] - s[j];
    EACH T[j] = _mm512_permutex2var_ps(_mm512_loadu_ps(tab32), _mm512_castps_si512(t[j]), _mm512_loadu_ps(tab32+16));
    EACH q[j] = V16(0.693157315f) + x[j]*V16(0.240226507f);
    EACH x[j] = T[j]*x[j];
    EACH x[j] = _mm512_scalef_ps(T[j] + x[j]*q[j], s[j]);
}
#endif

/* For each algorithm: runs over an array, and the recurrence h = exp2(d*A)*h + du*B, y += h*C for one vector of channels.
   It takes NB states at a time, so that they fit the registers. */
#define RUN(name, V, W, LOAD, STORE, UNROLL) \
static void run##UNROLL##_##name(const float *in, float *out, long n) { \
    enum { U = UNROLL }; \
    for (long i = 0; i + U*W <= n; i += U*W) { \
        V x[U]; \
        EACH x[j] = LOAD(in + i + j*W); \
        name(x, U); \
        EACH STORE(out + i + j*W, x[j]); \
    } \
}
#define RECURRENCE(name, V, W, LOAD, STORE, SET, NB) \
static void rec##NB##_##name(const float *d, const float *du, const float *A, const float *B, const float *C, float *y) { \
    enum { U = NB }; \
    for (int s = 0; s < STATES; s += NB) { \
        V h[NB], a[NB], x[NB]; \
        EACH { h[j] = SET(0.f); a[j] = LOAD(A + (s+j)*W); } \
        for (int t = 0; t < TOKENS; t++) { \
            V dt = LOAD(d + t*W), w = LOAD(du + t*W), o = s ? LOAD(y + t*W) : SET(0.f); \
            EACH x[j] = dt*a[j]; \
            name(x, U); \
            EACH h[j] = x[j]*h[j] + w*SET(B[t*STATES + s+j]); \
            EACH o += h[j]*SET(C[t*STATES + s+j]); \
            STORE(y + t*W, o); \
        } \
    } \
}
#define ALGORITHM(name, V, W, LOAD, STORE, SET) \
RUN(name, V, W, LOAD, STORE, 1) RUN(name, V, W, LOAD, STORE, 2) RUN(name, V, W, LOAD, STORE, 4) \
RECURRENCE(name, V, W, LOAD, STORE, SET, 1) RECURRENCE(name, V, W, LOAD, STORE, SET, 2) \
RECURRENCE(name, V, W, LOAD, STORE, SET, 4) RECURRENCE(name, V, W, LOAD, STORE, SET, 8)

/* The plain recurrence works on 16 channels at a time, one loop over them, for the compiler to vectorise. */
static void rec_plain_deg5(const float *d, const float *du, const float *A, const float *B, const float *C, float *y) {
    float h[STATES][16] = {{0}};
    for (int t = 0; t < TOKENS; t++) {
        float o[16] = {0};
        for (int s = 0; s < STATES; s++) {
            float b = B[t*STATES+s], c = C[t*STATES+s];
            for (int k = 0; k < 16; k++) {
                h[s][k] = plain_deg5(d[t*16+k]*A[s*16+k])*h[s][k] + du[t*16+k]*b;
                o[k] += h[s][k]*c;
            }
        }
        for (int k = 0; k < 16; k++) y[t*16+k] = o[k];
    }
}
static void run_plain_deg5(const float *x, float *y, long n) { for (long i = 0; i < n; i++) y[i] = plain_deg5(x[i]); }
static void run_libm(const float *x, float *y, long n) { for (long i = 0; i < n; i++) y[i] = exp2f(x[i]); }

#ifdef __AVX2__
ALGORITHM(avx2_deg5_unclamped, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, V8)
ALGORITHM(avx2_deg5, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, V8)
ALGORITHM(avx2_table8_deg3, __m256, 8, _mm256_loadu_ps, _mm256_storeu_ps, V8)
#endif
#ifdef __AVX512F__
ALGORITHM(avx512_deg5, __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, V16)
ALGORITHM(avx512_deg5_scalef, __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, V16)
ALGORITHM(avx512_table16_deg3, __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, V16)
ALGORITHM(avx512_table32_deg2, __m512, 16, _mm512_loadu_ps, _mm512_storeu_ps, V16)
#endif

typedef void (*run_fn)(const float *, float *, long);
typedef void (*rec_fn)(const float *, const float *, const float *, const float *, const float *, float *);
#define VARIANTS 4
#define ENTRY(name, W) { #name, { run1_##name, run2_##name, run4_##name, 0 }, \
                         { rec1_##name, rec2_##name, rec4_##name, rec8_##name }, W }
static const struct { const char *name; run_fn run[VARIANTS]; rec_fn rec[VARIANTS]; int width; } table[] = {
    { "plain_deg5", { run_plain_deg5 }, { rec_plain_deg5 }, 16 },
    { "libm_exp2f", { run_libm }, { 0 }, 1 },
#ifdef __AVX2__
    ENTRY(avx2_deg5_unclamped, 8), ENTRY(avx2_deg5, 8), ENTRY(avx2_table8_deg3, 8),
#endif
#ifdef __AVX512F__
    ENTRY(avx512_deg5, 16), ENTRY(avx512_deg5_scalef, 16), ENTRY(avx512_table16_deg3, 16), ENTRY(avx512_table32_deg2, 16),
#endif
};

void floor_init(void) {
    for (int i = 0; i < 32; i++) {
        tab32[i] = (float)exp2(i/32.);
        if (i < 16) tab16[i] = (float)exp2(i/16.);
        if (i < 8) tab8[i] = (float)exp2(i/8.);
    }
}
int exp_count(void) { return (int)(sizeof table/sizeof *table); }
const char *exp_name(int k) { return table[k].name; }
int exp_width(int k) { return table[k].width; }    /* channels of one step of the recurrence */
void exp_run(int k, int variant, const float *x, float *y, long n) { table[k].run[variant](x, y, n); }    /* n: a multiple of 64 */

/* Seconds per exponential; -1 if algorithm k has no such variant (1, 2 or 4 vectors at a time). */
double exp_time(int k, int variant, long reps) {
    ALIGNED float x[NEL];
    ALIGNED float y[NEL];
    run_fn f = table[k].run[variant];
    if (!f) return -1;
    for (int i = 0; i < NEL; i++) x[i] = -20.f*i/NEL - 0.001f;
    double t = now();
    for (long r = 0; r < reps; r++) { f(x, y, NEL); __asm__ volatile("" :: "r"(y) : "memory"); }
    return (now()-t)/reps/NEL;
}

/* Seconds per state and token; -1 if algorithm k has no such variant (1, 2, 4 or 8 states at a time). */
double recurrence_time(int k, int variant, long reps) {
    ALIGNED float d[TOKENS*16], du[TOKENS*16], y[TOKENS*16];
    ALIGNED float A[STATES*16], B[TOKENS*STATES], C[TOKENS*STATES];
    rec_fn f = table[k].rec[variant];
    if (!f) return -1;
    for (int i = 0; i < TOKENS*16; i++) {
        d[i] = 0.001f + 0.1f*(i%37)/37;
        du[i] = d[i]*(i%11-5);
        B[i] = (i%13-6)*.2f;
        C[i] = (i%7-3)*.3f;
    }
    for (int i = 0; i < STATES*16; i++) A[i] = -1.44f*(i/16+1);
    double t = now();
    for (long r = 0; r < reps; r++) { f(d, du, A, B, C, y); __asm__ volatile("" :: "r"(y) : "memory"); }
    return (now()-t)/reps/((double)TOKENS*STATES*table[k].width);
}

#if defined(__AVX512F__)
typedef float wide __attribute__((vector_size(64)));
#elif defined(__AVX__)
typedef float wide __attribute__((vector_size(32)));
#else
typedef float wide __attribute__((vector_size(16)));
#endif
#define LANES ((int)(sizeof(wide)/4))
#define CHAINS 12
#define STEP(i) a##i = a##i*b + c;

/* Floating point operations per second: twelve chains of multiply-adds that do not wait for each other. */
double fma_rate(long reps) {
    wide zero = {0}, b = zero + .999f, c = zero + .001f;
    wide a0 = zero, a1 = zero+1, a2 = zero+2, a3 = zero+3, a4 = zero+4, a5 = zero+5;
    wide a6 = zero+6, a7 = zero+7, a8 = zero+8, a9 = zero+9, a10 = zero+10, a11 = zero+11;
    double t = now();
    for (long r = 0; r < reps; r++) { STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11) }
    t = now()-t;
    wide s = a0+a1+a2+a3+a4+a5+a6+a7+a8+a9+a10+a11;
    volatile float keep = s[0];
    (void)keep;
    return 2.*LANES*CHAINS*reps/t;
}

/* Seconds for a[i] = b[i] + s*c[i], `reps` times. */
double triad_time(float *restrict a, const float *restrict b, const float *restrict c, long n, long reps) {
    double t = now();
    for (long r = 0; r < reps; r++) {
        for (long i = 0; i < n; i++) a[i] = b[i] + 1.5f*c[i];
        __asm__ volatile("" :: "r"(a) : "memory");
    }
    return now()-t;
}
