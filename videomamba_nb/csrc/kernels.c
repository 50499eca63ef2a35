/* Written from nbs/14_scan_cpu.ipynb, nbs/15_block_cpu.ipynb by dev/export_c.py: edit there, not here. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
typedef float uf __attribute__((vector_size(4*W), aligned(4), may_alias));
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
#else
#  define INLINE static inline
#  define PREFETCH(p) (void)(p)
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
INLINE vf largest(vf top, vf x) { return pick(LESS(top, absolute(x)), absolute(x), top) + (x - x); }
INLINE vf at_least(float low, vf x) { return pick(LESS(x, every(low)), every(low), x); }
INLINE vf at_most(float high, vf x) { return pick(LESS(every(high), x), every(high), x); }

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
    float x[W], sum = 0;
    *(uf *)x = v;
    for (int j = 0; j < W; j++) sum += x[j];
    return sum;
}

#define P 4
#define EACH for (int k = 0; k < P; k++)
#define MAGIC 12582912.f
#define LOG2E 1.44269504f
#define LN2 .693147181f

INLINE void exp2_each(vf *x) {
    vf t[P], f[P], q[P];
    EACH t[k] = x[k] + MAGIC;
    EACH f[k] = x[k] - (t[k] - MAGIC);
    EACH q[k] = 1.326472712e-3f*f[k] + 9.671512645e-3f;
    EACH q[k] = q[k]*f[k] + 5.550733743e-2f;
    EACH q[k] = q[k]*f[k] + 2.402224209e-1f;
    EACH q[k] = q[k]*f[k] + 6.931469776e-1f;
    EACH q[k] = q[k]*f[k] + 1.f;
    EACH x[k] = unbits(bits(q[k]) + (bits(t[k]) << 23));
}

INLINE void exp2_careful(vf *x) {
    vf y[P];
    EACH y[k] = at_least(-126.f, at_most(128.f, x[k]));
    exp2_each(y);
    EACH y[k] = pick(LESS(x[k], every(-126.f)), every(0.f), y[k]);
    EACH x[k] = pick(SAME(x[k], x[k]), y[k], x[k]);
}

INLINE void softplus_each(vf *x) {
    static const float c[] = {
        5.364825440e-3f, -3.006579673e-2f, 7.920454278e-2f, -1.375380295e-1f, 1.915365522e-1f,
        -2.485716374e-1f, 3.332132263e-1f, -4.999964796e-1f, 1.f};
    vf w[P], r[P];
    EACH w[k] = at_least(-126.f, absolute(x[k])*-LOG2E);
    exp2_each(w);
    EACH r[k] = every(c[0]);
    for (int i = 1; i < 9; i++) EACH r[k] = r[k]*w[k] + c[i];
    EACH x[k] = .5f*(x[k] + absolute(x[k])) + r[k]*w[k];
}

INLINE void sigmoid_each(vf *x) {
    vf w[P];
    EACH w[k] = at_least(-126.f, at_most(126.f, x[k]*-LOG2E));
    exp2_each(w);
    EACH x[k] = 1.f/(1.f + w[k]);
}

#define T 16

typedef struct { float *p; num b, c, l; } Signal;

typedef struct {
    Signal u, delta, B, C;
    const float *A, *D, *bias, *weight, *h0;
    float *last, *starts;
    num Ae, An, We, Wr, Bg, Cg, r, softplus;
} Direction;

typedef struct {
    num b, l, e, n, groups, block, directions;
    Signal z, y, raw;
    Direction d[2];
} Scan;

typedef struct {
    num b, from, to, vecs, N, on, far;
    vf *A, *H, *bias, *skip, *most, *weight;
    float *B, *C;
} Work;

INLINE num padded(num n) { return (n + P-1)/P*P; }
INLINE int lanes_from(const Work *w, num v) { num left = w->to - w->from - v*W; return left < W ? (int)left : W; }

INLINE int lanes_of(const Work *w, num v, int whole) { return whole ? W : lanes_from(w, v); }
INLINE num gap(num c, int whole) { return whole ? 1 : c; }
INLINE int dense(const Signal *x) { return !x->p || x->c == 1; }
INLINE int is_whole(const Work *w, num v, int m) { return m == T && lanes_from(w, v) == W; }

INLINE void look_ahead(Work *w, num v, num step) {
    const int last = v + 2 >= w->vecs;
    w->on = last ? (2 - w->vecs)*W : 2*W;
    w->far = last ? T*step : 0;
}

static void prepare(Work *w, const Scan *s, const Direction *d) {
    memset(w->B, 0, 2*T*w->N*sizeof(float));
    for (num v = 0; v < w->vecs; v++) {
        const num c = w->from + v*W;
        const int m = lanes_from(w, v);
        vf most = every(0.f);
        for (num n = 0; n < w->N; n++) {
            vf a = n < s->n ? load(d->A + c*d->Ae + n*d->An, d->Ae, m)*LOG2E : every(0.f);
            w->A[v*w->N + n] = a;
            vf h = d->h0 && n < s->n ? load(d->h0 + (w->b*s->e + c)*s->n + n, s->n, m) : every(0.f);
            w->H[v*w->N + n] = h;
            most = largest(most, a);
        }
        w->most[v] = most;
        w->bias[v] = d->bias ? load(d->bias + c, 1, m) : every(0.f);
        w->skip[v] = d->D ? load(d->D + c, 1, m) : every(0.f);
        for (num r = 0; r < d->r; r++) w->weight[v*d->r + r] = load(d->weight + c*d->We + r*d->Wr, d->We, m);
    }
}

static void read_rows(float *rows, const Signal *x, const float *p, const Scan *s, num N, num i, num step, int m) {
    for (int t = 0; t < T; t++, i += step)
        if (t >= m) memset(rows + t*N, 0, N*sizeof(float));
        else if (x->c == 1) memcpy(rows + t*N, p + i*x->l, s->n*sizeof(float));
        else for (num n = 0; n < s->n; n++) rows[t*N + n] = p[i*x->l + n*x->c];
}

INLINE void read_steps(const Work *w, const Direction *d, num v, num i, num step, int m, int whole, vf *x, vf *u) {
    const int lanes = lanes_of(w, v, whole);
    const num uc = gap(d->u.c, whole), dc = gap(d->delta.c, whole);
    const float *pu = d->u.p + w->b*d->u.b + (w->from + v*W)*d->u.c;
    const float *pd = d->delta.p + w->b*d->delta.b + (d->r ? 0 : (w->from + v*W)*d->delta.c);
    for (int t = 0; t < T; t++, i += step) {
        if (t >= m) { x[t] = u[t] = every(0.f); continue; }
        u[t] = load(pu + i*d->u.l, uc, lanes);
        x[t] = w->bias[v];
        PREFETCH(pu + (i + w->far)*d->u.l + w->on);
        if (d->r) for (num r = 0; r < d->r; r++) x[t] += pd[i*d->delta.l + r*d->delta.c]*w->weight[v*d->r + r];
        else {
            x[t] += load(pd + i*d->delta.l, dc, lanes);
            PREFETCH(pd + (i + w->far)*d->delta.l + w->on);
        }
    }
}

INLINE void read_rows_of(const Signal *x, const Work *w, num v, num i, num step, int m, int whole, vf *y) {
    const int lanes = lanes_of(w, v, whole);
    const num c = gap(x->c, whole);
    const float *p = x->p + w->b*x->b + (w->from + v*W)*x->c;
    for (int t = 0; t < m; t++, i += step) {
        y[t] = load(p + i*x->l, c, lanes);
        PREFETCH(p + (i + w->far)*x->l + w->on);
    }
    for (int t = m; t < T; t++) y[t] = every(0.f);
}

INLINE void write_rows(const Signal *x, const Work *w, num v, num i, num step, int m, int whole, const vf *y) {
    const int lanes = lanes_of(w, v, whole);
    const num c = gap(x->c, whole);
    float *p = x->p + w->b*x->b + (w->from + v*W)*x->c;
    for (int t = 0; t < m; t++, i += step) {
        save(p + i*x->l, c, lanes, y[t]);
        PREFETCH(p + (i + w->far)*x->l + w->on);
    }
}

INLINE int reaches(vf x, float limit) {
    float v[W];
    int found = 0;
    *(uf *)v = x;
    for (int j = 0; j < W; j++) found |= !(v[j] < limit);
    return found;
}

INLINE int too_steep(const Work *w, num v, const vf *dt) {
    vf top = every(0.f);
    for (int t = 0; t < T; t++) top = largest(top, dt[t]);
    return reaches(top*w->most[v], 126.f);
}

INLINE void decays(vf (*a)[P], const vf *dt, const vf *A, int careful) {
    for (int t = 0; t < T; t++) {
        EACH a[t][k] = dt[t]*A[k];
        if (careful) exp2_careful(a[t]);
        else exp2_each(a[t]);
    }
}

INLINE void advance(vf *h, const vf (*a)[P], const vf *du, vf *y, const float *B, const float *C, num N) {
    vf s[P];
    EACH s[k] = h[k];
    for (int t = 0; t < T; t++, B += N, C += N) {
        EACH s[k] = a[t][k]*s[k] + du[t]*B[k];
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

INLINE void finish(const Scan *s, const Work *w, num v, num i, num step, int m, int whole, int add, int gate, vf *y) {
    vf z[T], g[T];
    if (add) {
        read_rows_of(&s->y, w, v, i, step, m, whole, z);
        for (int t = 0; t < T; t++) y[t] += z[t];
    }
    if (gate) {
        if (s->raw.p) write_rows(&s->raw, w, v, i, step, m, whole, y);
        read_rows_of(&s->z, w, v, i, step, m, whole, z);
        for (int t = 0; t < T; t++) g[t] = z[t];
        for (int t = 0; t < T; t += P) sigmoid_each(g + t);
        for (int t = 0; t < T; t++) y[t] *= z[t]*g[t];
    }
    write_rows(&s->y, w, v, i, step, m, whole, y);
}

INLINE void tile(const Scan *s, const Direction *d, const Work *w, num v, num i, num step, int m,
                 int whole, int add, int gate, num chunk) {
    vf dt[T], u[T], du[T], y[T], a[T][P];
    vf *h = w->H + v*w->N, *A = w->A + v*w->N;
    read_steps(w, d, v, i, step, m, whole, dt, u);
    if (d->softplus) for (int t = 0; t < T; t += P) softplus_each(dt + t);
    for (int t = m; t < T; t++) dt[t] = every(0.f);
    for (int t = 0; t < T; t++) { du[t] = dt[t]*u[t]; y[t] = w->skip[v]*u[t]; }
    if (d->starts) {
        const int lanes = lanes_from(w, v);
        float *q = start_of(s, d, w, v, chunk);
        for (num n = 0; n < w->N; n++) save(q + n*lanes, 1, lanes, h[n]);
    }
    const int careful = too_steep(w, v, dt);
    for (num n = 0; n < w->N; n += P) {
        if (careful) decays(a, dt, A + n, 1);
        else decays(a, dt, A + n, 0);
        advance(h + n, (const vf (*)[P])a, du, y, w->B + n, w->C + n, w->N);
    }
    finish(s, w, v, i, step, m, whole, add, gate, y);
}

static void sweep(const Scan *s, int way, Work *w) {
    const Direction *d = &s->d[way];
    const num L = s->l, step = way ? -1 : 1, group = w->from/(s->e/s->groups);
    const int gate = s->z.p && way == s->directions-1;
    const int whole = dense(&d->u) && (d->r || dense(&d->delta)) && dense(&s->y) && dense(&s->z) && dense(&s->raw);
    prepare(w, s, d);
    for (num t0 = 0; t0 < L; t0 += T) {
        const num i = way ? L-1-t0 : t0;
        const int m = L - t0 < T ? (int)(L - t0) : T;
        read_rows(w->B, &d->B, d->B.p + w->b*d->B.b + group*d->Bg, s, w->N, i, step, m);
        read_rows(w->C, &d->C, d->C.p + w->b*d->C.b + group*d->Cg, s, w->N, i, step, m);
        for (num v = 0; v < w->vecs; v++) {
            look_ahead(w, v, step);
            if (whole && is_whole(w, v, m)) tile(s, d, w, v, i, step, T, 1, way, gate, t0/T);
            else tile(s, d, w, v, i, step, m, 0, way, gate, t0/T);
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
    w->from = start + task % parts*s->block;
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
    return aligned(w->C + T*w->N);
}

static num scratch(const Scan *s) {
    const num N = padded(s->n), vecs = (s->block + W-1)/W;
    return vecs*(2*N + 3 + rank_of(s))*W + 2*T*N + 32;
}

API num scan_tasks(const Scan *s) { return s->b*s->groups*parts_of(s); }

API int scan_forward_task(const Scan *s, num task) {
    Work w;
    void *memory = malloc(scratch(s)*sizeof(float));
    if (!memory) return 1;
    place(&w, s, task, aligned(memory));
    for (int way = 0; way < s->directions; way++) sweep(s, way, &w);
    free(memory);
    return 0;
}

#define FOR_ALL(count, call) { \
    const num n_ = count; \
    int failed = 0; \
    _Pragma("omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(|:failed)") \
    for (num i = 0; i < n_; i++) failed |= call; \
    return failed; }

API int scan_forward(const Scan *s, int threads) FOR_ALL(scan_tasks(s), scan_forward_task(s, i))

typedef struct { Signal u, delta; float *B, *C, *A, *D, *bias, *h0; const float *last; } Grads;
typedef struct { Signal out, z; Grads d[2]; } ScanGrads;
typedef struct { vf *H, *A, *D, *bias, *B, *C; } Sums;

INLINE void retrace(vf (*h)[P], const vf *start, const vf (*a)[P], const vf *du, const float *B, num N) {
    EACH h[0][k] = start[k];
    for (int t = 0; t < T; t++, B += N) EACH h[t+1][k] = a[t][k]*h[t][k] + du[t]*B[k];
}

INLINE void retreat(const Sums *g, num v, num n, num N, const vf (*h)[P], const vf (*a)[P], const vf *A, const vf *dt,
                    const vf *du, const vf *gy, const float *B, const float *C, vf *gdu, vf *gx) {
    vf gh[P], gA[P];
    EACH gh[k] = g->H[v*N + n + k];
    EACH gA[k] = g->A[v*N + n + k];
    for (int t = T-1; t >= 0; t--) {
        vf *gB = g->B + t*N + n, *gC = g->C + t*N + n, q[P];
        EACH gh[k] += gy[t]*C[t*N + k];
        EACH gB[k] += gh[k]*du[t];
        EACH gC[k] += gy[t]*h[t+1][k];
        EACH gdu[t] += gh[k]*B[t*N + k];
        EACH gh[k] *= a[t][k];
        EACH q[k] = gh[k]*h[t][k];
        EACH gx[t] += q[k]*A[k];
        EACH gA[k] += q[k]*dt[t];
    }
    EACH g->H[v*N + n + k] = gh[k];
    EACH g->A[v*N + n + k] = gA[k];
}

INLINE void gate_back(const Scan *s, const ScanGrads *G, const Work *w, num v, num i, num step, int m,
                      int whole, int first, vf *gy) {
    vf z[T], g[T], raw[T];
    read_rows_of(&G->out, w, v, i, step, m, whole, gy);
    if (!s->z.p) return;
    read_rows_of(&s->z, w, v, i, step, m, whole, z);
    for (int t = 0; t < T; t++) g[t] = z[t];
    for (int t = 0; t < T; t += P) sigmoid_each(g + t);
    if (first) {
        read_rows_of(&s->raw, w, v, i, step, m, whole, raw);
        for (int t = 0; t < T; t++) raw[t] *= gy[t]*g[t]*(1.f + z[t]*(1.f - g[t]));
        write_rows(&G->z, w, v, i, step, m, whole, raw);
    }
    for (int t = 0; t < T; t++) gy[t] *= z[t]*g[t];
}

INLINE void step_back(const Direction *d, const Work *w, const Sums *g, num v, int m, vf *x, const vf *dt,
                      const vf *u, const vf *gy, vf *gdu, vf *gx) {
    for (int t = 0; t < T; t++) { gx[t] = gx[t]*LN2 + gdu[t]*u[t]; g->D[v] += gy[t]*u[t]; }
    if (d->softplus) {
        for (int t = 0; t < T; t += P) sigmoid_each(x + t);
        for (int t = 0; t < T; t++) gx[t] *= x[t];
    }
    for (int t = 0; t < m; t++) g->bias[v] += gx[t];
    for (int t = 0; t < T; t++) gdu[t] = gdu[t]*dt[t] + gy[t]*w->skip[v];
}

INLINE void tile_back(const Scan *s, const ScanGrads *G, int way, const Work *w, const Sums *g,
                      num v, num i, num step, int m, int whole, num chunk) {
    vf x[T], dt[T], u[T], du[T], gy[T], gdu[T], gx[T], a[T][P], h[T+1][P];
    const Direction *d = &s->d[way];
    const vf *A = w->A + v*w->N;
    const int lanes = lanes_from(w, v);
    read_steps(w, d, v, i, step, m, whole, x, u);
    for (int t = 0; t < T; t++) dt[t] = x[t];
    if (d->softplus) for (int t = 0; t < T; t += P) softplus_each(dt + t);
    for (int t = m; t < T; t++) dt[t] = every(0.f);
    gate_back(s, G, w, v, i, step, m, whole, way == 0, gy);
    for (int t = 0; t < T; t++) { du[t] = dt[t]*u[t]; gdu[t] = gx[t] = every(0.f); }
    const float *starts = start_of(s, d, w, v, chunk);
    const int careful = too_steep(w, v, dt);
    for (num n = 0; n < w->N; n += P) {
        vf start[P];
        EACH start[k] = load(starts + (n + k)*lanes, 1, lanes);
        if (careful) decays(a, dt, A + n, 1);
        else decays(a, dt, A + n, 0);
        retrace(h, start, (const vf (*)[P])a, du, w->B + n, w->N);
        retreat(g, v, n, w->N, (const vf (*)[P])h, (const vf (*)[P])a, A + n, dt, du, gy,
                w->B + n, w->C + n, gdu, gx);
    }
    step_back(d, w, g, v, m, x, dt, u, gy, gdu, gx);
    write_rows(&G->d[way].u, w, v, i, step, m, whole, gdu);
    write_rows(&G->d[way].delta, w, v, i, step, m, whole, gx);
}

static void write_sums(const Scan *s, const ScanGrads *G, int way, const Work *w, const Sums *g) {
    const Grads *q = &G->d[way];
    for (num v = 0; v < w->vecs; v++) {
        const num c = w->b*s->e + w->from + v*W;
        const int m = lanes_from(w, v);
        for (num n = 0; n < s->n; n++) {
            save(q->A + c*s->n + n, s->n, m, g->A[v*w->N + n]);
            save(q->h0 + c*s->n + n, s->n, m, g->H[v*w->N + n]);
        }
        save(q->D + c, 1, m, g->D[v]);
        save(q->bias + c, 1, m, g->bias[v]);
    }
}

static void sweep_back(const Scan *s, const ScanGrads *G, int way, num task, Work *w, float *memory) {
    const Direction *d = &s->d[way];
    const Grads *q = &G->d[way];
    const num L = s->l, N = w->N, vecs = w->vecs, step = way ? -1 : 1;
    const num parts = parts_of(s), group = task/parts % s->groups;
    Sums g;
    g.H = (vf *)memory; g.A = g.H + vecs*N;
    g.D = g.A + vecs*N; g.bias = g.D + vecs;
    g.B = g.bias + vecs; g.C = g.B + T*N;
    memset(memory, 0, (2*vecs*N + 2*vecs)*sizeof(vf));
    const int whole = dense(&d->u) && (d->r || dense(&d->delta)) && dense(&s->z) && dense(&s->raw)
                      && dense(&G->out) && dense(&G->z) && dense(&q->u) && dense(&q->delta);
    prepare(w, s, d);
    if (q->last) for (num v = 0; v < vecs; v++) for (num n = 0; n < s->n; n++)
        g.H[v*N + n] = load(q->last + (w->b*s->e + w->from + v*W)*s->n + n, s->n, lanes_from(w, v));
    for (num chunk = (L-1)/T; chunk >= 0; chunk--) {
        const num t0 = chunk*T, i = way ? L-1-t0 : t0;
        const num row = ((task % parts*s->b + w->b)*s->groups + group)*L;
        const int m = L - t0 < T ? (int)(L - t0) : T;
        read_rows(w->B, &d->B, d->B.p + w->b*d->B.b + group*d->Bg, s, N, i, step, m);
        read_rows(w->C, &d->C, d->C.p + w->b*d->C.b + group*d->Cg, s, N, i, step, m);
        memset(g.B, 0, 2*T*N*sizeof(vf));
        for (num v = 0; v < vecs; v++) {
            look_ahead(w, v, -step);
            if (whole && is_whole(w, v, m)) tile_back(s, G, way, w, &g, v, i, step, T, 1, chunk);
            else tile_back(s, G, way, w, &g, v, i, step, m, 0, chunk);
        }
        for (int t = 0; t < m; t++) for (num n = 0; n < s->n; n++) {
            q->B[(row + i + step*t)*s->n + n] = total(g.B[t*N + n]);
            q->C[(row + i + step*t)*s->n + n] = total(g.C[t*N + n]);
        }
    }
    write_sums(s, G, way, w, &g);
}

API int scan_backward_task(const Scan *s, const ScanGrads *G, num task) {
    Work w;
    const num N = padded(s->n), vecs = (s->block + W-1)/W;
    void *memory = malloc((scratch(s) + (2*vecs*N + 2*vecs + 2*T*N)*W + 32)*sizeof(float));
    if (!memory) return 1;
    float *rest = place(&w, s, task, aligned(memory));
    for (int way = 0; way < s->directions; way++) sweep_back(s, G, way, task, &w, rest);
    free(memory);
    return 0;
}

API int scan_backward(const Scan *s, const ScanGrads *G, int threads)
    FOR_ALL(scan_tasks(s), scan_backward_task(s, G, i))

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
    s.z = (Signal){x, 0, 1, E};
    s.y = (Signal){y, 0, 1, E};
    s.raw = (Signal){y + L*E, 0, 1, E};
    for (int way = 0; way < 2; way++) {
        Direction *d = &s.d[way];
        d->u = d->delta = s.z;
        d->B = d->C = (Signal){rows, 0, 1, STATES};
        d->A = a;
        d->Ae = STATES;
        d->An = d->softplus = 1;
    }
    int failed = scan_forward_task(&s, 0);
    for (num i = 0; i < L*E; i++) failed |= !(y[i] > 0.f && y[i] < 100.f);
    free(x);
    return failed;
}

/* 9. convolution */
#define K 8
#define ROWS 64

typedef struct { num b, l, e, k, directions; Signal x, u[2]; const float *w[2], *bias[2]; } Conv;
typedef struct { Signal x, u[2]; float *w[2], *bias[2]; } ConvGrads;

INLINE int lanes_at(num c, num e) { return e - c >= W ? W : e > c ? (int)(e - c) : 0; }

INLINE void get(const float *p, num step, num c, num e, int whole, vf *x) {
    if (whole) EACH x[k] = load(p + k*W, 1, W);
    else EACH x[k] = load(p + k*W*step, step, lanes_at(c + k*W, e));
}

INLINE void set(float *p, num step, num c, num e, int whole, const vf *x) {
    if (whole) EACH save(p + k*W, 1, W, x[k]);
    else EACH save(p + k*W*step, step, lanes_at(c + k*W, e), x[k]);
}

INLINE void taps(const Conv *s, int way, num b, num t, num c, int whole, vf *v) {
    vf x[P], w[P];
    if (s->bias[way]) get(s->bias[way] + c, 1, c, s->e, whole, v);
    else EACH v[k] = every(0.f);
    for (num j = 0; j < s->k; j++) {
        const num i = way ? t + s->k-1 - j : t - s->k+1 + j;
        if (i < 0 || i >= s->l) continue;
        get(s->x.p + b*s->x.b + i*s->x.l + c*s->x.c, s->x.c, c, s->e, whole, x);
        get(s->w[way] + j*s->e + c, 1, c, s->e, whole, w);
        EACH v[k] += w[k]*x[k];
    }
}

API num conv_tasks(const Conv *s) { return s->b*((s->l + ROWS-1)/ROWS); }

INLINE void conv_token(const Conv *s, int way, num b, num t, num c, int whole) {
    vf v[P], g[P];
    taps(s, way, b, t, c, whole, v);
    EACH g[k] = v[k];
    sigmoid_each(g);
    EACH v[k] *= g[k];
    set(s->u[way].p + b*s->u[way].b + t*s->u[way].l + c*s->u[way].c, s->u[way].c, c, s->e, whole, v);
}

INLINE int conv_whole(const Conv *s, const Signal *u, num c) {
    return s->x.c == 1 && u->c == 1 && c + P*W <= s->e;
}

API int conv_forward_task(const Conv *s, num task) {
    const num blocks = (s->l + ROWS-1)/ROWS, b = task/blocks, start = task % blocks*ROWS;
    const num end = start + ROWS < s->l ? start + ROWS : s->l;
    for (num t = start; t < end; t++) for (int way = 0; way < s->directions; way++)
        for (num c = 0; c < s->e; c += P*W)
            if (conv_whole(s, &s->u[way], c)) conv_token(s, way, b, t, c, 1);
            else conv_token(s, way, b, t, c, 0);
    return 0;
}

API int conv_forward(const Conv *s, int threads) FOR_ALL(conv_tasks(s), conv_forward_task(s, i))

INLINE void slope(const Conv *s, const Signal *gu, int way, num b, num t, num c, int whole, vf *gv) {
    vf v[P], g[P];
    taps(s, way, b, t, c, whole, v);
    EACH g[k] = v[k];
    sigmoid_each(g);
    get(gu->p + b*gu->b + t*gu->l + c*gu->c, gu->c, c, s->e, whole, gv);
    EACH gv[k] *= g[k]*(1.f + v[k]*(1.f - g[k]));
}

INLINE void conv_walk(const Conv *s, const ConvGrads *G, int way, num b, num c, int whole) {
    vf window[K][P], gw[K][P], gb[P], x[P], w[P], sum[P];
    memset(window, 0, sizeof window);
    memset(gw, 0, sizeof gw);
    memset(gb, 0, sizeof gb);
    for (num n = 0; n < s->l; n++) {
        const num t = way ? n : s->l-1 - n;
        float *gx = G->x.p + b*G->x.b + t*G->x.l + c*G->x.c;
        for (num j = s->k-1; j > 0; j--) EACH window[j][k] = window[j-1][k];
        slope(s, &G->u[way], way, b, t, c, whole, window[0]);
        EACH gb[k] += window[0][k];
        if (way) get(gx, G->x.c, c, s->e, whole, sum);
        else EACH sum[k] = every(0.f);
        for (num j = 0; j < s->k; j++) {
            const num i = way ? t + j : t - j;
            get(s->w[way] + (s->k-1 - j)*s->e + c, 1, c, s->e, whole, w);
            EACH sum[k] += w[k]*window[j][k];
            if (i < 0 || i >= s->l) continue;
            get(s->x.p + b*s->x.b + i*s->x.l + c*s->x.c, s->x.c, c, s->e, whole, x);
            EACH gw[j][k] += window[0][k]*x[k];
        }
        set(gx, G->x.c, c, s->e, whole, sum);
    }
    for (num j = 0; j < s->k; j++) set(G->w[way] + (b*s->k + s->k-1 - j)*s->e + c, 1, c, s->e, whole, gw[j]);
    set(G->bias[way] + b*s->e + c, 1, c, s->e, whole, gb);
}

static void conv_back(const Conv *s, const ConvGrads *G, int way, num b, num c) {
    const int whole = conv_whole(s, &G->u[way], c) && G->x.c == 1;
    if (whole) conv_walk(s, G, way, b, c, 1);
    else conv_walk(s, G, way, b, c, 0);
}

API num conv_back_tasks(const Conv *s) { return s->b*((s->e + P*W-1)/(P*W)); }

API int conv_backward_task(const Conv *s, const ConvGrads *G, num task) {
    const num parts = (s->e + P*W-1)/(P*W);
    for (int way = 0; way < s->directions; way++) conv_back(s, G, way, task/parts, task % parts*P*W);
    return 0;
}

API int conv_backward(const Conv *s, const ConvGrads *G, int threads)
    FOR_ALL(conv_back_tasks(s), conv_backward_task(s, G, i))

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

API int norm_forward(const Norm *s, int threads) FOR_ALL(norm_tasks(s), norm_forward_task(s, i))

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
    FOR_ALL(norm_tasks(s), norm_backward_task(s, G, i))
