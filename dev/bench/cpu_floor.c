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

#ifdef __AVX2__
#define V8(x) _mm256_set1_ps(x)
#define ADDI8(q, n) _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(q), n))
INLINE __m256 avx2_deg5_unclamped(__m256 x) {
    __m256 t = x + V8(12582912.f), f = x - (t - V8(12582912.f));
    __m256 q = V8(0.00967151299f) + f*V8(0.00132647273f);
    q = V8(0.240222424f) + f*(V8(0.0555073358f) + f*q);
    q = V8(1.f) + f*(V8(0.693147004f) + f*q);
    return ADDI8(q, _mm256_slli_epi32(_mm256_castps_si256(t), 23));
}
INLINE __m256 avx2_deg5(__m256 x) { return avx2_deg5_unclamped(_mm256_max_ps(x, V8(-126.f))); }
INLINE __m256 avx2_table8_deg3(__m256 x) {    /* eighths: the low 3 bits choose from a table in one register */
    x = _mm256_max_ps(x, V8(-126.f));
    __m256 t = x + V8(1572864.f), f = x - (t - V8(1572864.f));
    __m256i i = _mm256_castps_si256(t);
    __m256 T = _mm256_permutevar8x32_ps(_mm256_loadu_ps(tab8), i);
    __m256 q = V8(0.693147242f) + f*(V8(0.240257636f) + f*V8(0.0554962233f));
    return ADDI8(T + (T*f)*q, _mm256_slli_epi32(_mm256_andnot_si256(_mm256_set1_epi32(7), i), 20));
}
#endif

#ifdef __AVX512F__
#define V16(x) _mm512_set1_ps(x)
INLINE __m512 deg5_16(__m512 f) {
    __m512 q = V16(0.00967151299f) + f*V16(0.00132647273f);
    q = V16(0.240222424f) + f*(V16(0.0555073358f) + f*q);
    return V16(1.f) + f*(V16(0.693147004f) + f*q);
}
INLINE __m512 avx512_deg5(__m512 x) {
    x = _mm512_max_ps(x, V16(-126.f));
    __m512 t = x + V16(12582912.f), q = deg5_16(x - (t - V16(12582912.f)));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(q), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
INLINE __m512 avx512_deg5_scalef(__m512 x) {
    __m512 s = _mm512_roundscale_ps(x, 0x08);
    return _mm512_scalef_ps(deg5_16(x - s), s);
}
INLINE __m512 avx512_table16_deg3(__m512 x) {
    __m512 t = x + V16(786432.f), s = t - V16(786432.f), f = x - s;
    __m512 T = _mm512_permutexvar_ps(_mm512_castps_si512(t), _mm512_loadu_ps(tab16));
    __m512 q = V16(0.693147242f) + f*(V16(0.240257636f) + f*V16(0.0554962233f));
    return _mm512_scalef_ps(T + (T*f)*q, s);
}
INLINE __m512 avx512_table32_deg2(__m512 x) {
    __m512 t = x + V16(393216.f), s = t - V16(393216.f), f = x - s;
    __m512 T = _mm512_permutex2var_ps(_mm512_loadu_ps(tab32), _mm512_castps_si512(t), _mm512_loadu_ps(tab32+16));
    return _mm512_scalef_ps(T + (T*f)*(V16(0.693157315f) + f*V16(0.240226507f)), s);
}
#endif

/* For each algorithm: a run over an array, and the recurrence h = exp2(d*A)*h + du*B, y += h*C for W channels,
   B states at a time so that they fit the registers. */
#define RECURRENCE(name, V, W, LOAD, STORE, SET, NB) \
static void rec##NB##_##name(const float *d, const float *du, const float *A, const float *B, const float *C, float *y) { \
    for (int s = 0; s < STATES; s += NB) { \
        V h[NB], a[NB]; \
        for (int j = 0; j < NB; j++) { h[j] = SET(0.f); a[j] = LOAD(A + (s+j)*W); } \
        for (int t = 0; t < TOKENS; t++) { \
            V x = LOAD(d + t*W), w = LOAD(du + t*W), o = s ? LOAD(y + t*W) : SET(0.f); \
            for (int j = 0; j < NB; j++) { \
                h[j] = name(x*a[j])*h[j] + w*SET(B[t*STATES + s+j]); \
                o += h[j]*SET(C[t*STATES + s+j]); \
            } \
            STORE(y + t*W, o); \
        } \
    } \
}
#define ALGORITHM(name, V, W, LOAD, STORE, SET) \
static void run_##name(const float *x, float *y, long n) { \
    for (long i = 0; i < n; i += W) STORE(y+i, name(LOAD(x+i))); \
} \
RECURRENCE(name, V, W, LOAD, STORE, SET, 4) \
RECURRENCE(name, V, W, LOAD, STORE, SET, 8) \
RECURRENCE(name, V, W, LOAD, STORE, SET, 16)

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
#define ENTRY(name, W) { #name, run_##name, { rec4_##name, rec8_##name, rec16_##name }, W }
static const struct { const char *name; run_fn run; rec_fn rec[3]; int width; } table[] = {
    { "plain_deg5", run_plain_deg5, { rec_plain_deg5, 0, 0 }, 16 },
    { "libm_exp2f", run_libm, { 0, 0, 0 }, 1 },
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
void exp_run(int k, const float *x, float *y, long n) { table[k].run(x, y, n); }    /* n: a multiple of 16 */

/* Seconds per exponential. */
double exp_time(int k, long reps) {
    float x[NEL], y[NEL];
    for (int i = 0; i < NEL; i++) x[i] = -20.f*i/NEL - 0.001f;
    double t = now();
    for (long r = 0; r < reps; r++) { table[k].run(x, y, NEL); __asm__ volatile("" :: "r"(y) : "memory"); }
    return (now()-t)/reps/NEL;
}

/* Seconds per state and token; `block` chooses 4, 8 or 16 states at a time; -1 if there is no such variant. */
double recurrence_time(int k, int block, long reps) {
    float d[TOKENS*16], du[TOKENS*16], y[TOKENS*16], A[STATES*16], B[TOKENS*STATES], C[TOKENS*STATES];
    rec_fn f = table[k].rec[block];
    if (!f) return -1;
    for (int i = 0; i < TOKENS*16; i++) { d[i] = 0.001f + 0.1f*(i%37)/37; du[i] = d[i]*(i%11-5); B[i] = (i%13-6)*.2f; C[i] = (i%7-3)*.3f; }
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
