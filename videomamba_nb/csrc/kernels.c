/* Written from nbs/13a_vectors.ipynb, nbs/14_scan_cpu.ipynb, nbs/14a_product_cpu.ipynb, nbs/15_block_cpu.ipynb, nbs/15_mixer_cpu.ipynb by dev/export_c.py: edit there, not here. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#  include <immintrin.h>
#endif

typedef int64_t num;

#ifndef W
#  if defined(__AVX512F__)
#    define W 16
#  elif defined(__AVX__)
#    define W 8
#  elif defined(__GNUC__)
#    define W 4
#  else
#    define W 1
#  endif
#endif

#if W > 1
typedef float vf __attribute__((vector_size(4*W)));
typedef int32_t vi __attribute__((vector_size(4*W)));
typedef float quad __attribute__((vector_size(16)));
typedef float uf __attribute__((vector_size(4*W), aligned(4), may_alias));
typedef float uq __attribute__((vector_size(16), aligned(4), may_alias));
#  define LESS(a, b) ((a) < (b))
#  define SAME(a, b) ((a) == (b))
#else
typedef float vf, uf;
typedef int32_t vi;
#  define LESS(a, b) (-((a) < (b)))
#  define SAME(a, b) (-((a) == (b)))
#endif

#ifdef __GNUC__
#  define INLINE static inline __attribute__((always_inline))
#  define PREFETCH(p) __builtin_prefetch(p)
#  define OWN(p) __builtin_prefetch(p, 1)
#else
#  define INLINE static inline
#  define PREFETCH(p) (void)(p)
#  define OWN(p) (void)(p)
#endif
#ifdef _WIN32
#  define API __declspec(dllexport)
#else
#  define API
#endif

INLINE vf every(float x) { vf zero = {0}; return zero + x; }
INLINE vi bits(vf x) { vi i; memcpy(&i, &x, sizeof i); return i; }
INLINE vf unbits(vi i) { vf x; memcpy(&x, &i, sizeof x); return x; }
INLINE vf pick(vi mask, vf a, vf b) { return unbits((mask & bits(a)) | (~mask & bits(b))); }
INLINE vf absolute(vf x) { return unbits(bits(x) & 0x7fffffff); }

#if defined(__AVX512F__) && W == 16
#  define TABLE 16
INLINE vf larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf smaller(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vi upper(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }
INLINE vf inverse(vf x) { vf r = (vf)_mm512_rcp14_ps((__m512)x); return r*(2.f - x*r); }
INLINE vi look_up(const void *p, vi i) { return (vi)_mm512_permutexvar_epi32((__m512i)i, _mm512_load_si512(p)); }
INLINE vf twos(vf a, vf b) {
    return (vf)_mm512_unpacklo_ps((__m512)a, (__m512)b) + (vf)_mm512_unpackhi_ps((__m512)a, (__m512)b);
}
INLINE vf fours(vf a, vf b) {
    return (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)b) + (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)b);
}
#elif defined(__AVX2__) && W == 8
#  define TABLE 8
INLINE vf larger(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf smaller(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vi upper(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }
INLINE vf inverse(vf x) { return 1.f/x; }
INLINE vi look_up(const void *p, vi i) { return (vi)_mm256_permutevar8x32_epi32(_mm256_load_si256(p), (__m256i)i); }
INLINE vf twos(vf a, vf b) { return (vf)_mm256_hadd_ps((__m256)a, (__m256)b); }
INLINE vf fours(vf a, vf b) { return twos(a, b); }
#else
#  define TABLE 1
INLINE vf larger(vf a, vf b) { return pick(LESS(b, a), a, b); }
INLINE vf smaller(vf a, vf b) { return pick(LESS(a, b), a, b); }
INLINE vi upper(vi a, vi b) { vi up = LESS(a, b); return (up & b) | (~up & a); }
INLINE vf inverse(vf x) { return 1.f/x; }
#endif
INLINE vf at_least(float low, vf x) { return larger(every(low), x); }
INLINE vf at_most(float high, vf x) { return smaller(every(high), x); }
INLINE vi topmost(vi top, vf x) { return upper(top, bits(absolute(x))); }

INLINE vf load(const float *p, num step, int lanes) {
    if (step == 1 && lanes == W) return *(const uf *)p;
    float x[W] = {0};
    for (int j = 0; j < lanes; j++) x[j] = p[j*step];
    return *(const uf *)x;
}

INLINE void save(float *p, num step, int lanes, vf v) {
    if (step == 1 && lanes == W) { *(uf *)p = v; return; }
    float x[W];
    *(uf *)x = v;
    for (int j = 0; j < lanes; j++) p[j*step] = x[j];
}

INLINE float total(vf v) {
#if W > 4
    quad x[W/4], sum = {0};
    memcpy(x, &v, sizeof v);
    for (int j = 0; j < W/4; j++) sum += x[j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
#else
    float x[W], sum = 0;
    *(uf *)x = v;
    for (int j = 0; j < W; j++) sum += x[j];
    return sum;
#endif
}

#define P 4
#define EACH for (int k = 0; k < P; k++)
#define MAGIC (12582912.f/TABLE)
#define LOG2E 1.44269504f
#define LN2 .693147181f

#if TABLE == 16
#  define SHIFT 19
#  define CUBIC(f) (((f + 4.33232832f)*f + 12.4999332f)*f + 18.0335903f)
static const uint32_t POWERS[16] __attribute__((aligned(64))) = {
    0x3d6321b7, 0x3d65300c, 0x3d67b05a, 0x3d6953d7, 0x3d670da6, 0x3d65085b, 0x3d6346d5, 0x3d61cc14,
    0x3d609b3b, 0x3d5fb78e, 0x3d5f247a, 0x3d5ee58e, 0x3d5efe86, 0x3d5f7345, 0x3d6047db, 0x3d618087};
#elif TABLE == 8
#  define SHIFT 20
#  define CUBIC(f) (((f + 4.33153534f)*f + 12.496171f)*f + 18.028162f)
static const uint32_t POWERS[8] __attribute__((aligned(32))) = {
    0x3d633339, 0x3d67c372, 0x3d67180f, 0x3d63522f, 0x3d60a79c, 0x3d5f31fa, 0x3d5f0d3f, 0x3d6057e9};
#endif

INLINE void exp2_each(vf *x) {
    vf t[P], f[P];
    EACH t[k] = x[k] + MAGIC;
    EACH f[k] = x[k] - (t[k] - MAGIC);
#if TABLE > 1
    EACH x[k] = unbits(look_up(POWERS, bits(t[k])) + (bits(t[k]) << SHIFT));
    EACH x[k] *= CUBIC(f[k]);
#else
    vf q[P];
    EACH q[k] = 1.326472712e-3f*f[k] + 9.671512645e-3f;
    EACH q[k] = q[k]*f[k] + 5.550733743e-2f;
    EACH q[k] = q[k]*f[k] + 2.402224209e-1f;
    EACH q[k] = q[k]*f[k] + 6.931469776e-1f;
    EACH q[k] = q[k]*f[k] + 1.f;
    EACH x[k] = unbits(bits(q[k]) + (bits(t[k]) << 23));
#endif
}

#define LEAST (-121.f)

INLINE void exp2_careful(vf *x) {
    vf y[P];
    EACH y[k] = at_least(LEAST, at_most(128.f, x[k]));
    exp2_each(y);
    EACH y[k] = pick(LESS(x[k], every(LEAST)), every(0.f), y[k]);
    EACH x[k] = pick(SAME(x[k], x[k]), y[k], x[k]);
}

INLINE void softplus_each(vf *x) {
    static const float c[] = {
        5.364825440e-3f, -3.006579673e-2f, 7.920454278e-2f, -1.375380295e-1f, 1.915365522e-1f,
        -2.485716374e-1f, 3.332132263e-1f, -4.999964796e-1f, 1.f};
    vf w[P], r[P];
    EACH w[k] = at_least(LEAST, absolute(x[k])*-LOG2E);
    exp2_each(w);
    EACH r[k] = every(c[0]);
    for (int i = 1; i < 9; i++) EACH r[k] = r[k]*w[k] + c[i];
    EACH x[k] = at_least(0.f, x[k]) + r[k]*w[k];
}

INLINE void sigmoid_each(vf *x) {
    vf w[P];
    EACH w[k] = at_least(LEAST, at_most(126.f, x[k]*-LOG2E));
    exp2_each(w);
    EACH x[k] = inverse(1.f + w[k]);
}

#define T 16

typedef struct { float *p; num b, c, l, gap; } Signal;

typedef struct {
    Signal u, delta, B, C;
    const float *A, *D, *bias, *weight, *h0;
    float *last, *starts;
    num Ae, An, We, Wr, Bg, Cg, r, softplus, log;
} Direction;

typedef struct {
    num b, l, e, n, groups, block, directions;
    Signal z, y, raw;
    Direction d[2];
} Scan;

typedef struct {
    num b, part, turn, from, to, vecs, N;
    vf *A, *H, *bias, *skip, *most, *weight;
    float *B, *C, *low;
} Work;

INLINE num padded(num n) { return (n + P-1)/P*P; }
INLINE int lanes_from(const Work *w, num v) { num left = w->to - w->from - v*W; return left < W ? (int)left : W; }

typedef struct { num v, i, step, on, far; int m, lanes, whole; } Spot;

INLINE Spot spot(const Work *w, num v, num i, num step, int m, num next) {
    const int last = v + 2 >= w->vecs, lanes = lanes_from(w, v);
    return (Spot){v, i, step, last ? (2 - w->vecs)*W : 2*W, last ? next : 0, m, lanes, m == T && lanes == W};
}

static void rates(vf *A, const Scan *s, const Direction *d, num c, int m) {
    for (num n = 0; n < s->n; n += P) {
        vf a[P];
        EACH a[k] = n+k < s->n ? load(d->A + c*d->Ae + (n+k)*d->An, d->Ae, m)*LOG2E : every(0.f);
        if (d->log) exp2_careful(a);
        EACH A[n+k] = n+k < s->n ? d->log ? a[k]*-LOG2E : a[k] : every(0.f);
    }
}

static void prepare(Work *w, const Scan *s, const Direction *d) {
    memset(w->B, 0, T*(2*w->N + padded(d->r))*sizeof(float));
    for (num v = 0; v < w->vecs; v++) {
        const num c = w->from + v*W;
        const int m = lanes_from(w, v);
        vi most = {0};
        rates(w->A + v*w->N, s, d, c, m);
        for (num n = 0; n < w->N; n++) {
            vf h = d->h0 && n < s->n ? load(d->h0 + (w->b*s->e + c)*s->n + n, s->n, m) : every(0.f);
            w->H[v*w->N + n] = h;
            most = topmost(most, w->A[v*w->N + n]);
        }
        w->most[v] = unbits(most);
        w->bias[v] = d->bias ? load(d->bias + c, 1, m) : every(0.f);
        w->skip[v] = d->D ? load(d->D + c, 1, m) : every(0.f);
        for (num r = 0; r < d->r; r++) w->weight[v*d->r + r] = load(d->weight + c*d->We + r*d->Wr, d->We, m);
    }
}

static void read_rows(float *rows, const Signal *x, const float *p, const Scan *s, num N, num i, num step, int m) {
    for (int t = 0; t < T; t++, i += step)
        if (t >= m) memset(rows + t*N, 0, N*sizeof(float));
        else if (x->c == 1) for (num n = 0; n < s->n; n += W) {
            const int lanes = s->n - n < W ? (int)(s->n - n) : W;
            save(rows + t*N + n, 1, lanes, load(p + i*x->l + n, 1, lanes));
        }
        else for (num n = 0; n < s->n; n++) rows[t*N + n] = p[i*x->l + n*x->c];
}

static void read_low(float *low, const Direction *d, num b, num i, num step, int m) {
    const float *p = d->delta.p + b*d->delta.b + i*d->delta.l;
    for (num r = 0; r < d->r; r++, low += T)
        for (int t = 0; t < T; t++) low[t] = t < m ? p[t*step*d->delta.l + r*d->delta.c] : 0.f;
}

typedef struct { float *p; num hop; } Walk;

INLINE float *home(const Signal *x, const Work *w, const Spot *at) {
    return x->p + w->b*x->b + w->part*x->gap + (w->from + at->v*W)*x->c + at->i*x->l;
}

INLINE int in_place(const Signal *x, const Spot *at) { return at->whole && x->c == 1; }

INLINE Walk onto(const Signal *x, const Work *w, const Spot *at, vf *room) {
    return in_place(x, at) && x->p ? (Walk){home(x, w, at), at->step*x->l} : (Walk){(float *)room, W};
}

INLINE void turn_quads(const float *p, num gap, float *o, num hop) {
#if W > 1
    const quad a = *(const uq *)p, b = *(const uq *)(p + gap);
    const quad c = *(const uq *)(p + 2*gap), d = *(const uq *)(p + 3*gap);
    for (int k = 0; k < 4; k++) *(uq *)(o + k*hop) = (quad){a[k], b[k], c[k], d[k]};
#endif
}

INLINE void carry(const Signal *x, const Work *w, const Spot *at, float *room, int out) {
    float *p = home(x, w, at);
    const num c = x->c, l = at->step*x->l, back = at->step < 0 ? 3 : 0;
    if (W > 1 && at->whole && x->l == 1) for (int t = 0; t < T; t += 4) for (int j = 0; j < W; j += 4) {
        float *a = p + j*c + t*l - back, *b = room + (t + back)*W + j;
        if (out) turn_quads(b, l*W, a, c);
        else turn_quads(a, c, b, l*W);
    }
    else for (int j = 0; j < at->lanes; j++) for (int t = 0; t < at->m; t++) {
        float *a = p + j*c + t*l, *b = room + t*W + j;
        if (out) *a = *b;
        else *b = *a;
    }
}

INLINE Walk from(const Signal *x, const Work *w, const Spot *at, vf *room) {
    const Walk o = onto(x, w, at, room);
    if (o.p != (float *)room || !x->p) return o;
    if (!at->whole) memset(room, 0, T*sizeof(vf));
    carry(x, w, at, o.p, 0);
    return o;
}

INLINE void bring(const Signal *x, const Work *w, const Spot *at, vf *room) {
    if (x->p && !in_place(x, at)) carry(x, w, at, (float *)room, 1);
}

INLINE vf take(Walk *x) { vf v = *(const uf *)x->p; x->p += x->hop; return v; }
INLINE void put(Walk *x, vf v) { *(uf *)x->p = v; x->p += x->hop; }

#define SOON 12

typedef struct { const float *p[SOON]; num hop[SOON]; int n; } Soon;

INLINE Soon nothing(const Work *w) {
    Soon q = {.n = 0};
    for (int j = 0; j < SOON; j++) q.p[j] = w->B;
    return q;
}

INLINE void expect(Soon *q, const Signal *x, const Work *w, const Spot *at) {
    if (!x->p) return;
    const num row = at->step*x->l, last = x->c == 1 ? 0 : (T-1)*row;
    q->p[q->n] = home(x, w, at) + at->far*x->l + at->on*x->c + last;
    q->hop[q->n++] = x->c == 1 ? row : x->c;
}

INLINE int pair(num n) { return n/P*2 < SOON ? (int)(n/P*2) : SOON-2; }
INLINE void ask(const Soon *q, int j, int t) { PREFETCH(q->p[j] + t*q->hop[j]); }
INLINE void rest(const Soon *q, num N) {
    for (int j = pair(N); j < q->n; j++) for (int t = 0; t < T; t++) ask(q, j, t);
}

INLINE int reaches(vf x, float limit) {
    float v[W];
    int found = 0;
    *(uf *)v = x;
    for (int j = 0; j < W; j++) found |= !(v[j] < limit);
    return found;
}

INLINE void ranked(vf *x, const Work *w, num v, num rank) {
    const vf *weight = w->weight + v*rank;
    for (int t = 0; t < T; t += 8) {
        vf s[8];
        for (int k = 0; k < 8; k++) s[k] = w->bias[v];
        for (num r = 0; r < rank; r++) for (int k = 0; k < 8; k++) s[k] += w->low[r*T + t+k]*weight[r];
        for (int k = 0; k < 8; k++) x[t+k] = s[k];
    }
}

INLINE int begin(const Work *w, const Direction *d, const Spot *at, vf *dt, vf *du, vf *u, vf *x) {
    vf room[2][T];
    Walk pu = from(&d->u, w, at, room[0]), pd = d->r ? pu : from(&d->delta, w, at, room[1]);
    const vf skip = w->skip[at->v], bias = w->bias[at->v];
    vi top = {0};
    if (d->r) ranked(dt, w, at->v, d->r);
    for (int t = 0; t < T; t += P) {
        vf s[P], o[P];
        EACH o[k] = take(&pu);
        EACH s[k] = d->r ? dt[t+k] : bias + take(&pd);
        if (x) EACH x[t+k] = s[k];
        if (d->softplus) softplus_each(s);
        EACH {
            dt[t+k] = t+k < at->m ? s[k] : every(0.f);
            top = topmost(top, dt[t+k]);
            du[t+k] = dt[t+k]*o[k];
            u[t+k] = x ? o[k] : skip*o[k];
        }
    }
    return reaches(unbits(top)*w->most[at->v], -LEAST);
}

#if TABLE > 1
#  define APART(x) __asm__("" : "+v"(x))
#else
#  define APART(x) (void)0
#endif

INLINE void decays(vf *a, vf dt, const vf *A, int careful) {
    EACH {
        a[k] = dt*A[k];
        APART(a[k]);
    }
    if (careful) exp2_careful(a);
    else exp2_each(a);
}

INLINE void advance(vf *h, const vf *A, const vf *dt, const vf *du, vf *y, const float *B, const float *C, num N,
                    int careful, const Soon *q, int j) {
    vf s[P], a[P];
    EACH s[k] = h[k];
    for (int t = 0; t < T; t++, B += N, C += N) {
        ask(q, j, t);
        ask(q, j+1, t);
        decays(a, dt[t], A, careful);
        EACH s[k] = a[k]*s[k] + du[t]*B[k];
        vf even = y[t] + s[0]*C[0], odd = s[1]*C[1];
        even += s[2]*C[2];
        odd += s[3]*C[3];
        y[t] = even + odd;
    }
    EACH h[k] = s[k];
}

INLINE float *start_of(const Scan *s, const Direction *d, const Work *w, num v, num chunk) {
    return d->starts + ((w->b*((s->l + T-1)/T) + chunk)*s->e + w->from + v*W)*w->N;
}

INLINE void finish(const Scan *s, const Work *w, const Spot *at, int add, int gate, const vf *y) {
    vf room[3][T];
    Walk out = add ? from(&s->y, w, at, room[0]) : onto(&s->y, w, at, room[0]), before = out;
    Walk z = gate ? from(&s->z, w, at, room[1]) : out, raw = onto(&s->raw, w, at, room[2]);
    for (int t = 0; t < T; t += P) {
        vf o[P], q[P], g[P];
        EACH o[k] = y[t+k];
        if (add) EACH o[k] += take(&before);
        if (gate) {
            if (s->raw.p) EACH put(&raw, o[k]);
            EACH g[k] = q[k] = take(&z);
            sigmoid_each(g);
            EACH o[k] *= q[k]*g[k];
        }
        EACH put(&out, o[k]);
    }
    bring(&s->y, w, at, room[0]);
    if (gate) bring(&s->raw, w, at, room[2]);
}

INLINE Soon wanted(const Scan *s, const Direction *d, const Work *w, const Spot *at, int gate) {
    Soon q = nothing(w);
    expect(&q, &d->u, w, at);
    if (!d->r) expect(&q, &d->delta, w, at);
    expect(&q, &s->y, w, at);
    if (gate) {
        expect(&q, &s->z, w, at);
        expect(&q, &s->raw, w, at);
    }
    return q;
}

INLINE void tile(const Scan *s, const Direction *d, const Work *w, const Spot *at, int add, int gate, num chunk) {
    vf dt[T], du[T], y[T];
    vf *h = w->H + at->v*w->N, *A = w->A + at->v*w->N;
    const Soon q = wanted(s, d, w, at, gate);
    const int careful = begin(w, d, at, dt, du, y, 0);
    if (d->starts) {
        float *p = start_of(s, d, w, at->v, chunk);
        for (num n = 0; n < w->N; n++) save(p + n*at->lanes, 1, at->lanes, h[n]);
    }
    for (num n = 0; n < w->N; n += P)
        if (careful) advance(h + n, A + n, dt, du, y, w->B + n, w->C + n, w->N, 1, &q, pair(n));
        else advance(h + n, A + n, dt, du, y, w->B + n, w->C + n, w->N, 0, &q, pair(n));
    rest(&q, w->N);
    finish(s, w, at, add, gate, y);
}

static void sweep(const Scan *s, int way, Work *w) {
    const Direction *d = &s->d[way];
    const num L = s->l, step = way ? -1 : 1, group = w->from/(s->e/s->groups);
    const int gate = s->z.p && w->turn == s->directions-1;
    prepare(w, s, d);
    for (num t0 = 0; t0 < L; t0 += T) {
        const num i = way ? L-1-t0 : t0;
        const int m = L - t0 < T ? (int)(L - t0) : T;
        read_rows(w->B, &d->B, d->B.p + w->b*d->B.b + group*d->Bg, s, w->N, i, step, m);
        read_rows(w->C, &d->C, d->C.p + w->b*d->C.b + group*d->Cg, s, w->N, i, step, m);
        read_low(w->low, d, w->b, i, step, m);
        for (num v = 0; v < w->vecs; v++) {
            const Spot at = spot(w, v, i, step, m, T*step);
            tile(s, d, w, &at, w->turn > 0, gate, t0/T);
        }
    }
    if (d->last) for (num v = 0; v < w->vecs; v++) {
        const num c = w->from + v*W;
        for (num n = 0; n < s->n; n++)
            save(d->last + (w->b*s->e + c)*s->n + n, s->n, lanes_from(w, v), w->H[v*w->N + n]);
    }
}

static float *aligned(void *p) { return (float *)(((uintptr_t)p + 63)/64*64); }
static num parts_of(const Scan *s) { return (s->e/s->groups + s->block-1)/s->block; }
static num rank_of(const Scan *s) { return s->d[0].r > s->d[1].r ? s->d[0].r : s->d[1].r; }

static float *place(Work *w, const Scan *s, num task, float *memory) {
    const num per = s->e/s->groups, parts = parts_of(s), start = task/parts % s->groups*per;
    w->b = task/parts/s->groups;
    w->part = task % parts;
    w->from = start + w->part*s->block;
    w->to = w->from + s->block < start + per ? w->from + s->block : start + per;
    w->vecs = (w->to - w->from + W-1)/W;
    w->N = padded(s->n);
    w->A = (vf *)memory;
    w->H = w->A + w->vecs*w->N;
    w->bias = w->H + w->vecs*w->N;
    w->skip = w->bias + w->vecs;
    w->most = w->skip + w->vecs;
    w->weight = w->most + w->vecs;
    w->B = (float *)(w->weight + w->vecs*rank_of(s));
    w->C = w->B + T*w->N;
    w->low = w->C + T*w->N;
    return aligned(w->low + T*padded(rank_of(s)));
}

static num scratch(const Scan *s) {
    const num N = padded(s->n), vecs = (s->block + W-1)/W;
    return vecs*(2*N + 3 + rank_of(s))*W + T*(2*N + padded(rank_of(s))) + 32;
}

INLINE int way_of(const Scan *s, const Work *w, num task) {
    const int turned = s->directions == 2 && task % 2 && s->y.p != s->d[0].u.p;
    return (int)(turned ? 1 - w->turn : w->turn);
}

API num scan_tasks(const Scan *s) { return s->b*s->groups*parts_of(s); }

API int scan_forward_task(const Scan *s, num task) {
    Work w;
    void *memory = malloc(scratch(s)*sizeof(float));
    if (!memory) return 1;
    place(&w, s, task, aligned(memory));
    for (w.turn = 0; w.turn < s->directions; w.turn++) sweep(s, way_of(s, &w, task), &w);
    free(memory);
    return 0;
}

#define PRAGMA(x) _Pragma(#x)
#define ON_DEMAND schedule(dynamic, 1)
#define IN_SHARES schedule(static)
#define FOR_ALL(how, count, call) { \
    const num n_ = count; \
    int failed = 0; \
    PRAGMA(omp parallel for how num_threads(threads) reduction(|:failed)) \
    for (num i = 0; i < n_; i++) failed |= call; \
    return failed; }

API int scan_forward(const Scan *s, int threads) {
    if (scan_tasks(s) <= threads) FOR_ALL(IN_SHARES, scan_tasks(s), scan_forward_task(s, i))
    FOR_ALL(ON_DEMAND, scan_tasks(s), scan_forward_task(s, i))
}

typedef struct {
    Signal u, delta;
    float *B, *C, *low, *A, *D, *bias, *weight, *h0;
    const float *last;
    num row, low_row;
} Grads;
typedef struct { Signal out, z, y; Grads d[2]; } ScanGrads;
typedef struct { vf *H, *A, *D, *bias, *weight; float *B, *C, *low; } Sums;
typedef struct { vf dt[T], du[T], u[T], x[T], gy[T], gdu[T], gx[T], a[T][P], h[T+1][P]; } Tile;

#define STRANDS (W < 4 ? 1 : W/4)

INLINE void collect(float *sums, const vf *x) {
#if TABLE > 1
    *(vf *)sums += fours(twos(x[0], x[1]), twos(x[2], x[3]));
#elif W > 1
    for (int g = 0; g < W; g += 4) EACH sums[g+k] += (x[k][g] + x[k][g+1]) + (x[k][g+2] + x[k][g+3]);
#else
    EACH sums[k] += x[k];
#endif
}

static float collected(const float *sums, num n) {
    float sum = 0;
    for (int g = 0; g < STRANDS; g++) sum += sums[(n/P*STRANDS + g)*P + n % P];
    return sum;
}

INLINE void retrace(const Sums *g, Tile *o, num n, num N, const vf *A, const float *B, int careful,
                    const Soon *q, int j) {
    vf s[P], a[P], gC[P];
    EACH s[k] = o->h[0][k];
    for (int t = 0; t < T; t++, B += N) {
        ask(q, j, t);
        decays(a, o->dt[t], A, careful);
        EACH s[k] = a[k]*s[k] + o->du[t]*B[k];
        EACH gC[k] = o->gy[t]*s[k];
        EACH o->a[t][k] = a[k];
        EACH o->h[t+1][k] = s[k];
        collect(g->C + (t*N + n)*STRANDS, gC);
    }
}

INLINE void retreat(const Sums *g, Tile *o, num v, num n, num N, const vf *A, const float *B, const float *C,
                    const Soon *soon, int j) {
    vf gh[P], gA[P], gB[P], q[P];
    EACH gh[k] = g->H[v*N + n+k];
    EACH gA[k] = g->A[v*N + n+k];
    for (int t = T-1; t >= 0; t--) {
        ask(soon, j, t);
        vf gdu = o->gdu[t], gx = o->gx[t];
        EACH gh[k] += o->gy[t]*C[t*N + k];
        EACH gB[k] = gh[k]*o->du[t];
        EACH gdu += gh[k]*B[t*N + k];
        EACH gh[k] *= o->a[t][k];
        EACH q[k] = gh[k]*o->h[t][k];
        EACH gx += q[k]*A[k];
        EACH gA[k] += q[k]*o->dt[t];
        o->gdu[t] = gdu;
        o->gx[t] = gx;
        collect(g->B + (t*N + n)*STRANDS, gB);
    }
    EACH g->H[v*N + n+k] = gh[k];
    EACH g->A[v*N + n+k] = gA[k];
}

INLINE void gate_back(const Scan *s, const ScanGrads *G, const Work *w, const Spot *at, int first, vf *gy) {
    vf room[5][T];
    const int gated = s->z.p != 0;
    Walk out = from(&G->out, w, at, room[0]), z = from(&s->z, w, at, room[1]);
    Walk raw = first ? from(&s->raw, w, at, room[2]) : z;
    Walk gz = onto(&G->z, w, at, room[3]), again = onto(&G->y, w, at, room[4]);
    for (int t = 0; t < T; t += P) {
        vf o[P], q[P], g[P];
        EACH o[k] = take(&out);
        if (gated) {
            EACH g[k] = q[k] = take(&z);
            sigmoid_each(g);
            if (first) EACH {
                const vf y = take(&raw)*g[k];
                put(&gz, y*o[k]*(1.f + q[k]*(1.f - g[k])));
                put(&again, y*q[k]);
            }
            EACH o[k] *= q[k]*g[k];
        }
        EACH gy[t+k] = o[k];
    }
    if (!gated || !first) return;
    bring(&G->z, w, at, room[3]);
    bring(&G->y, w, at, room[4]);
}

INLINE void step_back(const Direction *d, const Grads *q, const Work *w, const Sums *g, const Spot *at, Tile *o) {
    vf room[2][T], gD = g->D[at->v], gb = g->bias[at->v];
    const vf skip = w->skip[at->v];
    Walk pu = onto(&q->u, w, at, room[0]), pd = onto(&q->delta, w, at, room[1]);
    for (int t = 0; t < T; t += P) {
        vf gx[P], s[P];
        EACH gx[k] = o->gx[t+k]*LN2 + o->gdu[t+k]*o->u[t+k];
        EACH gD += o->gy[t+k]*o->u[t+k];
        if (d->softplus) {
            EACH s[k] = o->x[t+k];
            sigmoid_each(s);
            EACH gx[k] *= s[k];
        }
        EACH o->gx[t+k] = gx[k] = t+k < at->m ? gx[k] : every(0.f);
        EACH gb += gx[k];
        if (!d->r) EACH put(&pd, gx[k]);
        EACH put(&pu, o->gdu[t+k]*o->dt[t+k] + o->gy[t+k]*skip);
    }
    g->D[at->v] = gD;
    g->bias[at->v] = gb;
    bring(&q->u, w, at, room[0]);
    if (!d->r) bring(&q->delta, w, at, room[1]);
}

INLINE void rank_back(const Direction *d, const Work *w, const Sums *g, num v, const Tile *o) {
    const vf zero = every(0.f);
    for (num r = 0; r < d->r; r += P) {
        vf gw[P], weight[P], gl[P];
        EACH gw[k] = r+k < d->r ? g->weight[v*d->r + r+k] : zero;
        EACH weight[k] = r+k < d->r ? w->weight[v*d->r + r+k] : zero;
        for (int t = 0; t < T; t++) {
            EACH gw[k] += o->gx[t]*w->low[(r+k)*T + t];
            EACH gl[k] = o->gx[t]*weight[k];
            collect(g->low + (r*T + t*P)*STRANDS, gl);
        }
        EACH if (r+k < d->r) g->weight[v*d->r + r+k] = gw[k];
    }
}

INLINE Soon wanted_back(const Scan *s, const ScanGrads *G, int way, const Work *w, const Spot *at) {
    const Direction *d = &s->d[way];
    const Grads *g = &G->d[way];
    const Signal *always[] = {&d->u, &G->out, &s->z, &g->u, &g->delta}, *first[] = {&s->raw, &G->z, &G->y};
    Soon q = nothing(w);
    for (int j = 0; j < 5; j++) expect(&q, always[j], w, at);
    if (!d->r) expect(&q, &d->delta, w, at);
    for (int j = 0; j < 3 && !w->turn; j++) expect(&q, first[j], w, at);
    return q;
}

INLINE void tile_back(const Scan *s, const ScanGrads *G, int way, const Work *w, const Sums *g, const Spot *at,
                      num chunk) {
    const Direction *d = &s->d[way];
    const num v = at->v, N = w->N, lanes = at->lanes;
    const vf *A = w->A + v*N;
    const float *starts = start_of(s, d, w, v, chunk);
    const Soon q = wanted_back(s, G, way, w, at);
    Tile o;
    const int careful = begin(w, d, at, o.dt, o.du, o.u, o.x);
    gate_back(s, G, w, at, w->turn == 0, o.gy);
    for (int t = 0; t < T; t++) o.gdu[t] = o.gx[t] = every(0.f);
    for (num n = 0; n < N; n += P) {
        EACH o.h[0][k] = load(starts + (n + k)*lanes, 1, at->lanes);
        EACH PREFETCH(starts + (N + n + k)*lanes);
        if (careful) retrace(g, &o, n, N, A + n, w->B + n, 1, &q, pair(n));
        else retrace(g, &o, n, N, A + n, w->B + n, 0, &q, pair(n));
        retreat(g, &o, v, n, N, A + n, w->B + n, w->C + n, &q, pair(n)+1);
    }
    rest(&q, N);
    step_back(d, &G->d[way], w, g, at, &o);
    rank_back(d, w, g, v, &o);
}

static void write_sums(const Scan *s, const ScanGrads *G, int way, const Work *w, const Sums *g) {
    const Grads *q = &G->d[way];
    const num R = s->d[way].r;
    for (num v = 0; v < w->vecs; v++) {
        const num c = w->b*s->e + w->from + v*W;
        const int m = lanes_from(w, v);
        for (num n = 0; n < s->n; n++) {
            save(q->A + c*s->n + n, s->n, m, g->A[v*w->N + n]);
            save(q->h0 + c*s->n + n, s->n, m, g->H[v*w->N + n]);
        }
        save(q->D + c, 1, m, g->D[v]);
        save(q->bias + c, 1, m, g->bias[v]);
        for (num r = 0; r < R; r++) save(q->weight + c*R + r, R, m, g->weight[v*R + r]);
    }
}

static void sweep_back(const Scan *s, const ScanGrads *G, int way, num task, Work *w, float *memory) {
    const Direction *d = &s->d[way];
    const Grads *q = &G->d[way];
    const num L = s->l, N = w->N, vecs = w->vecs, step = way ? -1 : 1;
    const num parts = parts_of(s), group = task/parts % s->groups;
    Sums g;
    g.H = (vf *)memory; g.A = g.H + vecs*N;
    g.D = g.A + vecs*N; g.bias = g.D + vecs; g.weight = g.bias + vecs;
    g.B = (float *)(g.weight + vecs*d->r); g.C = g.B + T*N*STRANDS; g.low = g.C + T*N*STRANDS;
    memset(memory, 0, vecs*(2*N + 2 + d->r)*sizeof(vf));
    prepare(w, s, d);
    if (q->last) for (num v = 0; v < vecs; v++) for (num n = 0; n < s->n; n++)
        g.H[v*N + n] = load(q->last + (w->b*s->e + w->from + v*W)*s->n + n, s->n, lanes_from(w, v));
    for (num chunk = (L-1)/T; chunk >= 0; chunk--) {
        const num t0 = chunk*T, i = way ? L-1-t0 : t0;
        const num row = ((task % parts*s->b + w->b)*s->groups + group)*L;
        const int m = L - t0 < T ? (int)(L - t0) : T;
        read_rows(w->B, &d->B, d->B.p + w->b*d->B.b + group*d->Bg, s, N, i, step, m);
        read_rows(w->C, &d->C, d->C.p + w->b*d->C.b + group*d->Cg, s, N, i, step, m);
        read_low(w->low, d, w->b, i, step, m);
        memset(g.B, 0, T*(2*N + padded(d->r))*STRANDS*sizeof(float));
        for (num v = 0; v < vecs; v++) {
            const Spot at = spot(w, v, i, step, m, -T*step);
            tile_back(s, G, way, w, &g, &at, chunk);
        }
        for (int t = 0; t < m; t++) for (num n = 0; n < s->n; n++) {
            q->B[(row + i + step*t)*q->row + n] = collected(g.B, t*N + n);
            q->C[(row + i + step*t)*q->row + n] = collected(g.C, t*N + n);
        }
        for (int t = 0; t < m; t++) for (num r = 0; r < d->r; r++)
            q->low[(row + i + step*t)*q->low_row + r] = collected(g.low, r/P*P*T + t*P + r % P);
    }
    write_sums(s, G, way, w, &g);
}

API int scan_backward_task(const Scan *s, const ScanGrads *G, num task) {
    Work w;
    const num N = padded(s->n), vecs = (s->block + W-1)/W, R = rank_of(s);
    void *memory = malloc((scratch(s) + vecs*(2*N + 2 + R)*W + T*(2*N + padded(R))*STRANDS + 32)*sizeof(float));
    if (!memory) return 1;
    float *rest = place(&w, s, task, aligned(memory));
    for (w.turn = 0; w.turn < s->directions; w.turn++) sweep_back(s, G, way_of(s, &w, task), task, &w, rest);
    free(memory);
    return 0;
}

API int scan_backward(const Scan *s, const ScanGrads *G, int threads)
    FOR_ALL(ON_DEMAND, scan_tasks(s), scan_backward_task(s, G, i))

API int uses_openmp(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

API int probe(void) {
    enum { L = 20, E = 2*W + 1, STATES = 5 };
    float *x = malloc((3*L*E + L*STATES + E*STATES)*sizeof(float));
    float *rows = x + L*E, *a = rows + L*STATES, *y = a + E*STATES;
    Scan s = {.b = 1, .l = L, .e = E, .n = STATES, .groups = 1, .block = E, .directions = 2};
    if (!x) return 1;
    for (num i = 0; i < L*E + L*STATES + E*STATES; i++) x[i] = i < L*E + L*STATES ? .5f : -.5f;
    s.z = (Signal){x, 0, 1, E, 0};
    s.y = (Signal){y, 0, 1, E, 0};
    s.raw = (Signal){y + L*E, 0, 1, E, 0};
    for (int way = 0; way < 2; way++) {
        Direction *d = &s.d[way];
        d->u = d->delta = s.z;
        d->B = d->C = (Signal){rows, 0, 1, STATES, 0};
        d->A = a;
        d->Ae = STATES;
        d->An = d->softplus = 1;
    }
    int failed = scan_forward_task(&s, 0);
    for (num i = 0; i < L*E; i++) failed |= !(y[i] > 0.f && y[i] < 100.f);
    free(x);
    return failed;
}

/* 9. products */
#if W > 8
#  define TALL 8
#else
#  define TALL 4
#endif
#define WIDE 3

typedef struct { const float *p; num hop, run, runs, next; } Rows;

INLINE int lanes_at(num c, num e) { return e - c >= W ? W : e > c ? (int)(e - c) : 0; }

INLINE void product_tile(const Rows *x, num t, const float *panel, num left, const float *bias, float *y, num hop,
                         int tall, int wide) {
    const float *from = x->p + t*x->hop;
    vf sum[TALL][WIDE], a[WIDE];
    y += t*hop;
    for (int j = 0; j < wide; j++) a[j] = bias ? load(bias + j*W, 1, lanes_at(j*W, left)) : every(0.f);
    for (int i = 0; i < tall; i++) for (int j = 0; j < wide; j++) {
        sum[i][j] = a[j];
        OWN(y + i*hop + j*W);
    }
    for (num r = 0; r < x->runs; r++, from += x->next) for (num k = 0; k < x->run; k++, panel += wide*W) {
        for (int j = 0; j < wide; j++) a[j] = load(panel + j*W, 1, W);
        for (int i = 0; i < tall; i++) for (int j = 0; j < wide; j++) sum[i][j] += from[i*x->hop + k]*a[j];
    }
    for (int i = 0; i < tall; i++) for (int j = 0; j < wide; j++)
        save(y + i*hop + j*W, 1, lanes_at(j*W, left), sum[i][j]);
}

INLINE void product_panel(const Rows *x, num rows, const float *panel, num left, const float *bias, float *y,
                          num hop, int wide) {
    num t = 0;
    for (; t + TALL <= rows; t += TALL) product_tile(x, t, panel, left, bias, y, hop, TALL, wide);
    if (t < rows && t > 0) product_tile(x, rows - TALL, panel, left, bias, y, hop, TALL, wide);
    else for (; t < rows; t++) product_tile(x, t, panel, left, bias, y, hop, 1, wide);
}

INLINE num panel_of(num left) {
    const num n = (left + W-1)/W;
    return (n == 4 ? 2 : n < WIDE ? n : WIDE)*W;
}

static void product_rows(const Rows *x, num rows, const float *panels, num outs, const float *bias, float *y,
                         num hop) {
    for (num c = 0, wide; c < outs; c += wide) {
        const float *panel = panels + c*x->run*x->runs, *start = bias ? bias + c : 0;
        wide = panel_of(outs - c);
        if (wide == 3*W) product_panel(x, rows, panel, outs - c, start, y + c, hop, 3);
        else if (wide == 2*W) product_panel(x, rows, panel, outs - c, start, y + c, hop, 2);
        else product_panel(x, rows, panel, outs - c, start, y + c, hop, 1);
    }
}

API int vector_width(void) { return W; }

#define QUAD (W > 1 ? 4 : 1)

INLINE void pack_some(const float *w, num hop, num from, num to, num rows, float *panel, num wide) {
    num k = from;
    if (W > 1 && rows >= QUAD) for (; k + QUAD <= to; k += QUAD) {
        PREFETCH(w + QUAD*hop + QUAD*k);
        turn_quads(w + k, hop, panel + k*wide, wide);
    }
    for (; k < to; k++) for (int i = 0; i < QUAD; i++) panel[k*wide + i] = i < rows ? w[i*hop + k] : 0.f;
}

static void pack(const float *w, num hop, num from, num to, num depth, num outs, float *panels) {
    for (num c = 0, wide; c < outs; c += wide, panels += wide*depth) {
        wide = panel_of(outs - c);
        for (num i = 0; i < wide; i += QUAD)
            pack_some(w + (c + i)*hop, hop, from, to, outs - c - i, panels + i, wide);
    }
}

#define STRIP 32

typedef struct {
    num b, l, outs, shares, apart;
    Rows x;
    const float *weight, *bias;
    float *y;
} Product;

static num packed(num outs, num depth) { return (outs + W-1)/W*W*depth; }

API num product_tasks(const Product *s) { return s->shares; }

API int product_forward_task(const Product *s, num task) {
    const num strips = (s->l + STRIP-1)/STRIP, all = s->b*strips, depth = s->x.run*s->x.runs;
    void *memory = malloc((packed(s->outs, depth) + 16)*sizeof(float));
    if (!memory) return 1;
    float *panels = aligned(memory);
    pack(s->weight, depth, 0, depth, depth, s->outs, panels);
    for (num n = all*task/s->shares; n < all*(task + 1)/s->shares; n++) {
        const num b = n/strips, t = n % strips*STRIP, rows = t + STRIP < s->l ? STRIP : s->l - t;
        Rows x = s->x;
        x.p += b*s->apart + t*x.hop;
        product_rows(&x, rows, panels, s->outs, s->bias, s->y + (b*s->l + t)*s->outs, s->outs);
    }
    free(memory);
    return 0;
}

API int product_forward(const Product *s, int threads) FOR_ALL(IN_SHARES, s->shares, product_forward_task(s, i))

/* 10. convolution */
#define K 8
#define ROWS 64

typedef struct {
    num b, l, e, k, directions, outs;
    Signal x, u[2];
    const float *w[2], *bias[2], *project[2];
    float *projected[2];
} Conv;
typedef struct { Signal x, u[2]; float *w[2], *bias[2]; } ConvGrads;

INLINE void get(const float *p, num step, num c, num e, int whole, vf *x) {
    if (whole) EACH x[k] = load(p + k*W, 1, W);
    else EACH x[k] = load(p + k*W*step, step, lanes_at(c + k*W, e));
}

INLINE void set(float *p, num step, num c, num e, int whole, const vf *x) {
    if (whole) EACH save(p + k*W, 1, W, x[k]);
    else EACH save(p + k*W*step, step, lanes_at(c + k*W, e), x[k]);
}

INLINE void taps(const Conv *s, int way, num b, num t, num c, int whole, num n, vf *v) {
    vf x[P], w[P];
    if (s->bias[way]) get(s->bias[way] + c, 1, c, s->e, whole, v);
    else EACH v[k] = every(0.f);
    const int inside = t >= n-1 && t + n-1 < s->l;
    for (num j = 0; j < n; j++) {
        const num i = way ? t + n-1 - j : t - n+1 + j;
        if (!inside && (i < 0 || i >= s->l)) continue;
        get(s->x.p + b*s->x.b + i*s->x.l + c*s->x.c, s->x.c, c, s->e, whole, x);
        get(s->w[way] + j*s->e + c, 1, c, s->e, whole, w);
        EACH v[k] += w[k]*x[k];
    }
}

static void project(const Conv *s, int way, num b, num t, num end) {
    const Signal *u = &s->u[way];
    const Rows x = {u->p + b*u->b + t*u->l, u->l, s->e, 1, 0};
    product_rows(&x, end - t, s->project[way], s->outs, 0, s->projected[way] + (b*s->l + t)*s->outs, s->outs);
}

INLINE void conv_token(const Conv *s, int way, num b, num t, num c, int whole, num n) {
    vf v[P], g[P];
    taps(s, way, b, t, c, whole, n, v);
    EACH g[k] = v[k];
    sigmoid_each(g);
    EACH v[k] *= g[k];
    if (whole && way == 0) EACH PREFETCH(s->x.p + b*s->x.b + (t + 4)*s->x.l + c + k*W);
    set(s->u[way].p + b*s->u[way].b + t*s->u[way].l + c*s->u[way].c, s->u[way].c, c, s->e, whole, v);
}

INLINE int conv_whole(const Conv *s, const Signal *u, num c) {
    return s->x.c == 1 && u->c == 1 && c + P*W <= s->e;
}

INLINE void conv_four(const Conv *s, int way, num b, num t, num c) {
    const Signal *u = &s->u[way];
    const float *x = s->x.p + b*s->x.b + (way ? t : t - 3)*s->x.l + c, *w = s->w[way] + c;
    vf v[P], g[P], bias = s->bias[way] ? load(s->bias[way] + c, 1, W) : every(0.f);
    EACH v[k] = bias;
    for (int n = 0; n < P+3; n++) {
        const int i = way ? P+2 - n : n;
        const vf at = load(x + i*s->x.l, 1, W);
        EACH {
            const int j = way ? 3 - i + k : i - k;
            if (j >= 0 && j < 4) v[k] += load(w + j*s->e, 1, W)*at;
        }
    }
    EACH g[k] = v[k];
    sigmoid_each(g);
    EACH save(u->p + b*u->b + (t + k)*u->l + c, 1, W, v[k]*g[k]);
}

INLINE void conv_tokens(const Conv *s, int way, num b, num t, int count) {
    num c = 0;
    if (count == P) for (; c + W <= s->e; c += W) conv_four(s, way, b, t, c);
    for (; c < s->e; c += P*W) for (int i = 0; i < count; i++)
        if (s->k == 4 && conv_whole(s, &s->u[way], c)) conv_token(s, way, b, t + i, c, 1, 4);
        else conv_token(s, way, b, t + i, c, 0, s->k);
}

static void conv_span(const Conv *s, num b, num start, num end) {
    const int fast = s->k == 4 && s->x.c == 1 && s->u[0].c == 1 && s->u[1].c == 1;
    for (num t = start, count; t < end; t += count) {
        count = fast && t >= 3 && t + P <= end && t + P+2 < s->l ? P : 1;
        for (int way = 0; way < s->directions; way++)
            if (count == P) conv_tokens(s, way, b, t, P);
            else conv_tokens(s, way, b, t, 1);
    }
}

API num conv_tasks(const Conv *s) { return s->b*((s->l + ROWS-1)/ROWS); }

API int conv_forward_task(const Conv *s, num task) {
    const num blocks = (s->l + ROWS-1)/ROWS, b = task/blocks, start = task % blocks*ROWS;
    const num end = start + ROWS < s->l ? start + ROWS : s->l;
    conv_span(s, b, start, end);
    if (s->outs) for (int way = 0; way < s->directions; way++) project(s, way, b, start, end);
    return 0;
}

API int conv_forward(const Conv *s, int threads) FOR_ALL(IN_SHARES, conv_tasks(s), conv_forward_task(s, i))

typedef struct { num rows, cols, panels; const float *before; float *after; } Turn;
typedef struct { num count; Turn job[4]; } Turns;

API num turn_tasks(const Turns *s) {
    num cols = 0;
    for (num k = 0; k < s->count; k++) if (s->job[k].cols > cols) cols = s->job[k].cols;
    return s->count*((cols + ROWS-1)/ROWS);
}

API int turn_task(const Turns *s, num task) {
    const Turn *o = &s->job[task % s->count];
    const num start = task/s->count*ROWS, end = start + ROWS < o->cols ? start + ROWS : o->cols;
    if (o->panels) pack(o->before, o->cols, start, end, o->cols, o->rows, o->after);
    else for (num r = 0; r < o->rows; r++) for (num c = start; c < end; c++)
        o->after[c*o->rows + r] = o->before[r*o->cols + c];
    return 0;
}

API int turn(const Turns *s, int threads) FOR_ALL(IN_SHARES, turn_tasks(s), turn_task(s, i))

INLINE void slope(const Conv *s, const Signal *gu, int way, num b, num t, num c, int whole, num n,
                  vf *gv) {
    vf v[P], g[P];
    taps(s, way, b, t, c, whole, n, v);
    EACH g[k] = v[k];
    sigmoid_each(g);
    get(gu->p + b*gu->b + t*gu->l + c*gu->c, gu->c, c, s->e, whole, gv);
    EACH gv[k] *= g[k]*(1.f + v[k]*(1.f - g[k]));
}

INLINE void conv_walk(const Conv *s, const ConvGrads *G, int way, num b, num c, int whole, num n) {
    vf window[K][P], gw[K][P], gb[P], x[P], w[P], sum[P];
    memset(window, 0, sizeof window);
    memset(gw, 0, sizeof gw);
    memset(gb, 0, sizeof gb);
    for (num m = 0; m < s->l; m++) {
        const num t = way ? m : s->l-1 - m;
        float *gx = G->x.p + b*G->x.b + t*G->x.l + c*G->x.c;
        for (num j = n-1; j > 0; j--) EACH window[j][k] = window[j-1][k];
        slope(s, &G->u[way], way, b, t, c, whole, n, window[0]);
        EACH gb[k] += window[0][k];
        if (way) get(gx, G->x.c, c, s->e, whole, sum);
        else EACH sum[k] = every(0.f);
        for (num j = 0; j < n; j++) {
            const num i = way ? t + j : t - j;
            get(s->w[way] + (n-1 - j)*s->e + c, 1, c, s->e, whole, w);
            EACH sum[k] += w[k]*window[j][k];
            if (i < 0 || i >= s->l) continue;
            get(s->x.p + b*s->x.b + i*s->x.l + c*s->x.c, s->x.c, c, s->e, whole, x);
            EACH gw[j][k] += window[0][k]*x[k];
        }
        set(gx, G->x.c, c, s->e, whole, sum);
    }
    for (num j = 0; j < n; j++) set(G->w[way] + (b*n + n-1 - j)*s->e + c, 1, c, s->e, whole, gw[j]);
    set(G->bias[way] + b*s->e + c, 1, c, s->e, whole, gb);
}

static void conv_back(const Conv *s, const ConvGrads *G, int way, num b, num c) {
    const int whole = conv_whole(s, &G->u[way], c) && G->x.c == 1;
    if (whole && s->k == 4) conv_walk(s, G, way, b, c, 1, 4);
    else conv_walk(s, G, way, b, c, 0, s->k);
}

API num conv_back_tasks(const Conv *s) { return s->b*((s->e + P*W-1)/(P*W)); }

API int conv_backward_task(const Conv *s, const ConvGrads *G, num task) {
    const num parts = (s->e + P*W-1)/(P*W);
    for (int way = 0; way < s->directions; way++) conv_back(s, G, way, task/parts, task % parts*P*W);
    return 0;
}

API int conv_backward(const Conv *s, const ConvGrads *G, int threads)
    FOR_ALL(IN_SHARES, conv_back_tasks(s), conv_backward_task(s, G, i))

/* 10. residual and norm */
typedef struct { num rows, d; const float *x, *before, *weight; float *sum, *y, *scale; float eps; } Norm;
typedef struct { const float *y, *sum; float *x, *weight; } NormGrads;

API num norm_tasks(const Norm *s) { return (s->rows + ROWS-1)/ROWS; }

API int norm_forward_task(const Norm *s, num task) {
    const num end = (task + 1)*ROWS < s->rows ? (task + 1)*ROWS : s->rows, d = s->d;
    for (num r = task*ROWS; r < end; r++) {
        vf square = every(0.f);
        for (num c = 0; c < d; c += W) {
            const int m = lanes_at(c, d);
            vf x = load(s->x + r*d + c, 1, m);
            if (s->before) x += load(s->before + r*d + c, 1, m);
            save(s->sum + r*d + c, 1, m, x);
            square += x*x;
        }
        const float scale = 1.f/sqrtf(total(square)/d + s->eps);
        if (s->scale) s->scale[r] = scale;
        for (num c = 0; c < d; c += W) {
            const int m = lanes_at(c, d);
            save(s->y + r*d + c, 1, m, load(s->sum + r*d + c, 1, m)*scale*load(s->weight + c, 1, m));
        }
    }
    return 0;
}

API int norm_forward(const Norm *s, int threads) FOR_ALL(IN_SHARES, norm_tasks(s), norm_forward_task(s, i))

API int norm_backward_task(const Norm *s, const NormGrads *G, num task) {
    const num end = (task + 1)*ROWS < s->rows ? (task + 1)*ROWS : s->rows, d = s->d;
    float *gw = G->weight + task*d;
    memset(gw, 0, d*sizeof(float));
    for (num r = task*ROWS; r < end; r++) {
        const float scale = s->scale[r];
        vf dot = every(0.f);
        for (num c = 0; c < d; c += W) {
            const int m = lanes_at(c, d);
            vf gy = load(G->y + r*d + c, 1, m), x = load(s->sum + r*d + c, 1, m)*scale;
            save(gw + c, 1, m, load(gw + c, 1, m) + gy*x);
            dot += gy*x*load(s->weight + c, 1, m);
        }
        const float mean = total(dot)/d;
        for (num c = 0; c < d; c += W) {
            const int m = lanes_at(c, d);
            vf g = load(G->y + r*d + c, 1, m)*load(s->weight + c, 1, m) - load(s->sum + r*d + c, 1, m)*(scale*mean);
            g = g*scale;
            if (G->sum) g += load(G->sum + r*d + c, 1, m);
            save(G->x + r*d + c, 1, m, g);
        }
    }
    return 0;
}

API int norm_backward(const Norm *s, const NormGrads *G, int threads)
    FOR_ALL(IN_SHARES, norm_tasks(s), norm_backward_task(s, G, i))

/* 12. all before the scan */
typedef struct {
    Conv conv;
    num d, parts;
    const float *hidden, *in, *filter[2], *project[2];
    float *sums[2], *more[2];
    Signal z, x;
} Entry;
typedef struct { Conv conv; num b, part; float *panels[4], *x; } Part;

static num entry_room(const Entry *s) {
    const num e = s->conv.e/s->parts;
    return 2*packed(e, s->d) + 2*packed(s->conv.outs, e) + 2*K*e + (ROWS + 2*K)*e + 16;
}

static void open_part(const Entry *s, num task, Part *o, float *memory) {
    const num all = s->conv.e, e = all/s->parts, part = task % s->parts, c = part*e;
    Conv *v = &o->conv;
    *v = s->conv;
    v->e = e; o->b = task/s->parts; o->part = part;
    for (int j = 0; j < 2; j++, memory += packed(e, s->d))
        pack(s->in + (j*all + c)*s->d, s->d, 0, s->d, s->d, e, o->panels[j] = memory);
    for (int way = 0; way < 2; way++, memory += packed(v->outs, e))
        pack(s->project[way] + c, all, 0, e, e, v->outs, o->panels[2+way] = memory);
    for (int way = 0; way < 2; way++, memory += K*e) {
        v->w[way] = memory;
        for (num k = 0; k < v->k; k++) for (num i = 0; i < e; i++)
            memory[k*e + i] = s->filter[way][(c + i)*v->k + k];
        if (v->bias[way]) v->bias[way] += c;
        v->u[way].p += c*v->u[way].c + part*v->u[way].gap;
    }
    o->x = memory;
    v->x = (Signal){.c = 1, .l = e};
}

static void entry_rows(const Entry *s, Part *o, num t) {
    Conv *v = &o->conv;
    const num l = v->l, e = v->e, halo = v->k-1, end = t + ROWS < l ? t + ROWS : l;
    const num need = end + halo < l ? end + halo : l, made = !t ? 0 : t + halo < l ? t + halo : l;
    const Signal *z = &s->z;
    const Rows fresh = {s->hidden + (o->b*l + made)*s->d, s->d, s->d, 1, 0};
    const Rows gate = {s->hidden + (o->b*l + t)*s->d, s->d, s->d, 1, 0};
    if (t) memmove(o->x, o->x + ROWS*e, 2*halo*e*sizeof(float));
    v->x.p = o->x - (t - halo)*e;
    product_rows(&fresh, need - made, o->panels[0], e, 0, v->x.p + made*e, e);
    if (s->x.p) for (num i = made; i < need; i++)
        memcpy(s->x.p + o->b*s->x.b + i*s->x.l + o->part*e, v->x.p + i*e, e*sizeof(float));
    product_rows(&gate, end - t, o->panels[1], e, 0, z->p + o->b*z->b + t*z->l + o->part*(e*z->c + z->gap), z->l);
    conv_span(v, o->b, t, end);
    for (int way = 0; way < 2; way++) {
        const Signal *u = &v->u[way];
        const Rows x = {u->p + o->b*u->b + t*u->l, u->l, e, 1, 0};
        float *sum = o->part ? s->more[way] + (o->part-1)*v->b*l*v->outs : s->sums[way];
        product_rows(&x, end - t, o->panels[2+way], v->outs, 0, sum + (o->b*l + t)*v->outs, v->outs);
    }
}

API num entry_tasks(const Entry *s) { return s->conv.b*s->parts; }

API int entry_forward_task(const Entry *s, num task) {
    Part o;
    void *memory = malloc(entry_room(s)*sizeof(float));
    if (!memory) return 1;
    open_part(s, task, &o, aligned(memory));
    for (num t = 0; t < s->conv.l; t += ROWS) entry_rows(s, &o, t);
    free(memory);
    return 0;
}

API int entry_forward(const Entry *s, int threads) FOR_ALL(IN_SHARES, entry_tasks(s), entry_forward_task(s, i))

API num gather_tasks(const Entry *s) { return (s->conv.b*s->conv.l + ROWS-1)/ROWS; }

API int gather_forward_task(const Entry *s, num task) {
    const num rows = s->conv.b*s->conv.l, start = task*ROWS, end = start + ROWS < rows ? start + ROWS : rows;
    for (int way = 0; way < 2; way++) for (num part = 1; part < s->parts; part++) {
        const float *more = s->more[way] + (part-1)*rows*s->conv.outs;
        for (num i = start*s->conv.outs; i < end*s->conv.outs; i++) s->sums[way][i] += more[i];
    }
    return 0;
}

API int gather_forward(const Entry *s, int threads)
    FOR_ALL(IN_SHARES, gather_tasks(s), gather_forward_task(s, i))
