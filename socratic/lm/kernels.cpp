// What torch has no fused CPU operation for: norms with their residual, rotary embedding into a paged KV cache, attention
// of a flat batch of tokens over that cache, and gated activations. Plain C++ with GCC/Clang vector types, no headers of
// torch; `kernels.py` compiles it for the machine it runs on and calls it through ctypes.
//
// T is the stored type (float or bf16); all arithmetic is in fp32. A KV page holds 16 positions of one sequence, in each
// layer keys [groups][head size][16], so that 16 positions are scored at once, and then values [groups][16][head size].

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#if defined(__AVX512BF16__) && defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES
#endif

namespace {

constexpr int64_t W = 16;  // positions of a page
// V: lanes of a vector, as many as the machine's have: GCC keeps wider ones in memory. SUMS: vectors that the registers
// hold beside what is added to them.
#if defined(__AVX512F__)
constexpr int64_t V = 16, SUMS = 24;
#elif defined(__AVX2__)
constexpr int64_t V = 8, SUMS = 12;
#elif defined(__aarch64__)
constexpr int64_t V = 4, SUMS = 24;
#else
constexpr int64_t V = 4, SUMS = 12;
#endif
typedef float vf __attribute__((vector_size(4 * V)));
typedef int32_t vi __attribute__((vector_size(4 * V)));
typedef uint32_t vu __attribute__((vector_size(4 * V)));
typedef uint16_t vh __attribute__((vector_size(2 * V)));

struct bf16 {
    uint16_t bits;
};

inline vf load(const float* p) {
    vf v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
inline void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
inline vf load(const bf16* p) {
    vh h;
    std::memcpy(&h, p, sizeof h);
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
inline void store(bf16* p, vf v) {  // round to nearest even
    vu u = (vu)v;
    u += 0x7fff + ((u >> 16) & 1);
    vh h = __builtin_convertvector(u >> 16, vh);
    std::memcpy(p, &h, sizeof h);
}
inline float get(const float* p) { return *p; }
inline void put(float* p, float x) { *p = x; }
inline float get(const bf16* p) {
    uint32_t u = (uint32_t)p->bits << 16;
    float x;
    std::memcpy(&x, &u, 4);
    return x;
}
inline void put(bf16* p, float x) {
    uint32_t u;
    std::memcpy(&u, &x, 4);
    p->bits = (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
inline vf splat(float x) { return x - (vf){}; }
inline float sum(vf v) {
    float s = 0;
    for (int i = 0; i < V; i++) s += v[i];
    return s;
}
inline vf max(vf a, vf b) { return a > b ? a : b; }
inline float highest(vf v) {
    float top = -INFINITY;
    for (int i = 0; i < V; i++) top = v[i] > top ? v[i] : top;
    return top;
}

inline vf exp(vf x) {  // relative error below 2e-7 where the result is a normal number
    x = max(x, splat(-87.0f));
    x = -max(-x, splat(-88.0f));
    vf shifted = x * 1.44269504f + 12582912.0f;
    vi n = (vi)shifted - 0x4b400000;
    vf whole = shifted - 12582912.0f;
    vf r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vf)((vi)p + (n << 23));
}

// x += y (y may be null), out = norm(x) * weight + bias; centred is LayerNorm, otherwise RMSNorm.
template <class T>
void norm_row(T* x, const T* y, const T* weight, const T* bias, T* out, int64_t width, float eps, bool centred) {
    vf total{}, squares{};
    float tail = 0, tail_squares = 0;
    int64_t i = 0;
    for (; i + V <= width; i += V) {
        vf v = load(x + i);
        if (y) {
            v += load(y + i);
            store(x + i, v);
            v = load(x + i);
        }
        total += v;
        squares += v * v;
    }
    for (; i < width; i++) {
        if (y) put(x + i, get(x + i) + get(y + i));
        float v = get(x + i);
        tail += v;
        tail_squares += v * v;
    }
    float mean = centred ? (sum(total) + tail) / width : 0;
    if (centred) {  // in two passes: the difference of large squares would lose the variance
        vf away{};
        tail_squares = 0;
        for (i = 0; i + V <= width; i += V) {
            vf v = load(x + i) - mean;
            away += v * v;
        }
        for (; i < width; i++) tail_squares += (get(x + i) - mean) * (get(x + i) - mean);
        squares = away;
    }
    float scale = 1.0f / std::sqrt((sum(squares) + tail_squares) / width + eps);
    for (i = 0; i + V <= width; i += V) {
        vf v = (load(x + i) - mean) * scale * load(weight + i);
        store(out + i, bias ? v + load(bias + i) : v);
    }
    for (; i < width; i++) {
        float v = (get(x + i) - mean) * scale * get(weight + i);
        put(out + i, bias ? v + get(bias + i) : v);
    }
}

template <class T>
void norm(T* x, const T* y, const T* weight, const T* bias, T* out, int64_t rows, int64_t width, float eps, bool centred) {
#pragma omp parallel for if (rows * width > 16384)
    for (int64_t r = 0; r < rows; r++)
        norm_row(x + r * width, y ? y + r * width : nullptr, weight, bias, out + r * width, width, eps, centred);
}

template <class T>
void gate(const T* in, T* out, int64_t rows, int64_t width, bool silu) {
    // silu: out = silu(in[:width]) * in[width:]; otherwise out = gelu(in), the tanh approximation
#pragma omp parallel for if (rows * width > 8192)
    for (int64_t r = 0; r < rows; r++) {
        const T* a = in + r * width * (silu ? 2 : 1);
        T* o = out + r * width;
        for (int64_t i = 0; i < width; i += V) {
            float buffer[2 * V] = {};
            int64_t n = width - i < V ? width - i : V;
            vf x, up{};
            if (n == V) {
                x = load(a + i);
                if (silu) up = load(a + width + i);
            } else {
                for (int64_t j = 0; j < n; j++) buffer[j] = get(a + i + j), buffer[V + j] = silu ? get(a + width + i + j) : 0;
                x = load(buffer), up = load(buffer + V);
            }
            vf t = silu ? x : 1.5957691216f * (x + 0.044715f * x * x * x);  // gelu_tanh(x) = x * sigmoid(2 z)
            vf y = x / (1.0f + exp(-t));
            if (silu) y *= up;
            if (n == V) {
                store(o + i, y);
            } else {
                for (int64_t j = 0; j < n; j++) put(o + i + j, y[j]);
            }
        }
    }
}

template <class T>
void argmax(const T* in, int64_t* out, int64_t rows, int64_t width) {  // the first of equal ones
#pragma omp parallel for
    for (int64_t r = 0; r < rows; r++) {
        const T* x = in + r * width;
        float best = -INFINITY;
        int64_t place = 0, i = 0;
        for (int64_t block; i < width; i += block) {  // which block holds the highest, and then where in it
            block = width - i < 1024 ? width - i : 1024;
            vf high = splat(-INFINITY);
            int64_t j = 0;
            for (; j + V <= block; j += V) high = max(high, load(x + i + j));
            float top = highest(high);
            for (; j < block; j++) top = get(x + i + j) > top ? get(x + i + j) : top;
            if (top > best) best = top, place = i;
        }
        while (place < width - 1 && !(get(x + place) >= best)) place++;
        out[r] = place;
    }
}

struct Shape {
    int64_t tokens, runs, heads, groups, size, table_width;
    float scale, eps;
};

// Queries and keys of one token: their own RMSNorm (may be absent), rotary embedding, and the key and value into the cache.
template <class T>
void place(T* qkv, const T* q_norm, const T* k_norm, const float* cosine, const float* sine, T* page, const Shape& s,
           int64_t position) {
    int64_t half = s.size / 2, slot = position % W;
    for (int64_t h = 0; h < s.heads + s.groups; h++) {
        T* x = qkv + h * s.size;
        const T* weight = h < s.heads ? q_norm : k_norm;
        if (weight) norm_row<T>(x, nullptr, weight, nullptr, x, s.size, s.eps, false);
        if (cosine) {
            const float *c = cosine + position * half, *z = sine + position * half;
            int64_t i = 0;
            for (; i + V <= half; i += V) {
                vf a = load(x + i), b = load(x + half + i), cos = load(c + i), sin = load(z + i);
                store(x + i, a * cos - b * sin);
                store(x + half + i, b * cos + a * sin);
            }
            for (; i < half; i++) {
                float a = get(x + i), b = get(x + half + i);
                put(x + i, a * c[i] - b * z[i]);
                put(x + half + i, b * c[i] + a * z[i]);
            }
        }
    }
    const T *k = qkv + s.heads * s.size, *v = k + s.groups * s.size;
    for (int64_t g = 0; g < s.groups; g++) {
        for (int64_t i = 0; i < s.size; i++) page[(g * s.size + i) * W + slot] = k[g * s.size + i];
        std::memcpy(page + ((s.groups + g) * W + slot) * s.size, v + g * s.size, s.size * sizeof(T));
    }
}

// Scores of N query heads over P pages from ``block`` on, 16 a page. Pages lie anywhere in memory, which the processor does
// not foresee: the keys of the pages after these and the values of these, which are read next, are fetched meanwhile.
template <int N, int P, class T>
inline void score_pages(const float* query, const T* kv, const int32_t* pages, int64_t blocks, int64_t step, int64_t block,
                        int64_t size, float* score, int64_t stride) {
    constexpr int PARTS = W / V;
    const T *k[P], *next[P];
    for (int p = 0; p < P; p++) {
        k[p] = kv + pages[block + p] * step;
        next[p] = kv + pages[block + P + p < blocks ? block + P + p : blocks - 1] * step;
    }
    vf a[N][P][PARTS] = {};
    for (int64_t i = 0; i < size; i++)
        for (int p = 0; p < P; p++) {
            if (i * W * sizeof(T) % 64 == 0) {
                __builtin_prefetch(next[p] + i * W);
                __builtin_prefetch(k[p] + step / 2 + i * W);
            }
            for (int part = 0; part < PARTS; part++) {
                vf x = load(k[p] + i * W + part * V);
                for (int n = 0; n < N; n++) a[n][p][part] += query[n * size + i] * x;
            }
        }
    for (int n = 0; n < N; n++)
        for (int p = 0; p < P; p++)
            for (int part = 0; part < PARTS; part++) store(score + n * stride + (block + p) * W + part * V, a[n][p][part]);
}

// Into out: M vectors, from the i-th number on, of the values weighed by the scores of N heads.
template <int N, int M, class T>
inline void weigh_values(const float* score, int64_t stride, const T* values, const int32_t* pages, int64_t step,
                         int64_t position, int64_t size, int64_t i, const float* inverse, T* out) {
    vf a[N][M] = {};
    for (int64_t from = 0; from <= position; from += W) {
        const T* v = values + pages[from / W] * step + i;
        for (int64_t j = from; j <= position && j < from + W; j++, v += size)
            for (int m = 0; m < M; m++) {
                vf x = load(v + m * V);
                for (int n = 0; n < N; n++) a[n][m] += score[n * stride + j] * x;
            }
    }
    for (int n = 0; n < N; n++)
        for (int m = 0; m < M; m++) store(out + n * size + i + m * V, a[n][m] * inverse[n]);
}

// N query heads that share keys and values, of one token, over positions 0..position of the group's KV.
template <int N, class T>
void attend(const T* q, const T* kv, T* out, const Shape& s, const int32_t* pages, int64_t group, int64_t position,
            std::vector<float>& room) {
    constexpr int64_t FIT = SUMS / N, P = std::clamp<int64_t>(FIT * V / W, 1, 4), M = std::min<int64_t>(FIT, 4);
    int64_t blocks = position / W + 1, stride = blocks * W, step = 2 * s.groups * s.size * W;
    room.resize(N * stride + N * s.size);
    float *score = room.data(), *query = score + N * stride;
    for (int64_t i = 0; i < N * s.size; i++) query[i] = get(q + i) * s.scale;
    const T* keys = kv + group * s.size * W;
    int64_t b = 0;
    for (; b + P <= blocks; b += P) score_pages<N, P>(query, keys, pages, blocks, step, b, s.size, score, stride);
    for (; b < blocks; b++) score_pages<N, 1>(query, keys, pages, blocks, step, b, s.size, score, stride);
    if (group + 1 < s.groups)  // the next to be read, as a rule
        for (int64_t b = 0; b < P && b < blocks; b++)
            for (int64_t i = 0; i < s.size * W; i += 64 / sizeof(T))
                __builtin_prefetch(keys + s.size * W + pages[b] * step + i);
    float inverse[N];
    for (int n = 0; n < N; n++) {
        float* line = score + n * stride;
        for (int64_t j = position + 1; j < stride; j++) line[j] = -INFINITY;
        vf high = splat(-INFINITY), total{};
        for (int64_t j = 0; j < stride; j += V) high = max(high, load(line + j));
        float top = highest(high);
        for (int64_t j = 0; j < stride; j += V) {  // those behind position come to less than the sum can show
            vf e = exp(load(line + j) - top);
            store(line + j, e);
            total += e;
        }
        inverse[n] = 1.0f / sum(total);
    }
    const T* values = kv + (s.groups + group) * s.size * W;
    int64_t i = 0;
    for (; i + M * V <= s.size; i += M * V)
        weigh_values<N, M>(score, stride, values, pages, step, position, s.size, i, inverse, out);
    for (; i + V <= s.size; i += V)
        weigh_values<N, 1>(score, stride, values, pages, step, position, s.size, i, inverse, out);
    for (; i < s.size; i++)
        for (int n = 0; n < N; n++) {
            float a = 0;
            for (int64_t t = 0; t <= position; t++)
                a += score[n * stride + t] * get(values + pages[t / W] * step + t % W * s.size + i);
            put(out + n * s.size + i, a * inverse[n]);
        }
}

template <class T>
void attention(T* qkv, const T* q_norm, const T* k_norm, const float* cosine, const float* sine, T* kv, T* out,
               const int32_t* table, const int32_t* row, const int32_t* position, const int32_t* run,
               const Shape& s) {
    int64_t chunk = s.runs < 8 ? 1 : s.groups;  // a sequence's groups lie side by side: best read by one thread
    int64_t width = (s.heads + 2 * s.groups) * s.size, share = s.heads / s.groups, page = 2 * s.groups * s.size * W;
#pragma omp parallel if (s.tokens > 1 || position[0] > 128)
    {
        std::vector<float> room;
#pragma omp for
        for (int64_t t = 0; t < s.tokens; t++)
            place<T>(qkv + t * width, q_norm, k_norm, cosine, sine,
                     kv + table[row[t] * s.table_width + position[t] / W] * page, s, position[t]);
#pragma omp for schedule(dynamic, chunk)
        for (int64_t task = 0; task < s.runs * s.groups; task++) {  // a run is a sequence's stretch of tokens
            int64_t group = task % s.groups;
            for (int64_t t = run[task / s.groups]; t < run[task / s.groups + 1]; t++) {
                const int32_t* pages = table + row[t] * s.table_width;
                for (int64_t h = group * share, left = share, n; left > 0; h += n, left -= n) {
                    const T* q = qkv + t * width + h * s.size;
                    T* o = out + (t * s.heads + h) * s.size;
                    n = left < 4 ? left : 4;
                    auto f = n == 1 ? attend<1, T> : n == 2 ? attend<2, T> : n == 3 ? attend<3, T> : attend<4, T>;
                    f(q, kv, o, s, pages, group, position[t], room);
                }
            }
        }
    }
}

constexpr int64_t ROWS = SUMS / 2, BLOCK = 2 * V;  // of a tile: rows, and two vectors of outputs of each
constexpr int64_t CHUNK = 96;                      // rows that one thread takes through a block

// Sums of V outputs, of which the first ``left`` stand in y, with their bias.
inline void put_sums(vf v, const float* bias, float* y, int64_t left) {
    if (left >= V) return store(y, bias ? v + load(bias) : v);
    for (int64_t j = 0; j < left; j++) y[j] = v[j] + (bias ? bias[j] : 0);
}

// M rows of x [rows, depth] times one packed block of outputs, [depth][BLOCK]; y takes the first ``left`` of them.
template <int M>
inline void multiply_tile(const float* x, const float* block, const float* bias, float* y, int64_t depth, int64_t outputs,
                          int64_t left) {
    vf a[M][2] = {};
    for (int64_t i = 0; i < depth; i++) {
        vf w0 = load(block + i * BLOCK), w1 = load(block + i * BLOCK + V);
        __builtin_prefetch(block + i * BLOCK + 256);
        for (int m = 0; m < M; m++) {
            a[m][0] += x[m * depth + i] * w0;
            a[m][1] += x[m * depth + i] * w1;
        }
    }
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++)
            put_sums(a[m][half], bias ? bias + half * V : nullptr, y + m * outputs + half * V, left - half * V);
}

#ifdef __AVX512BF16__
static_assert(V == W && BLOCK == 32 && ROWS == 12);

// Up to 16 sums, of which the first ``left`` stand in y, with their bias.
inline void put_sums(__m512 v, const bf16* bias, bf16* y, int64_t left) {
    if (left <= 0) return;
    __mmask16 mask = left >= W ? 0xffff : (1 << left) - 1;
    if (bias) {
        __m256i h = _mm256_maskz_loadu_epi16(mask, bias);
        v = _mm512_add_ps(v, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
    _mm256_mask_storeu_epi16(y, mask, (__m256i)_mm512_cvtneps_pbh(v));
}

// M rows of x [rows, depth] times one packed block of 32 outputs, [depth / 2][32][2].
template <int M>
inline void multiply_tile(const bf16* x, const bf16* block, const bf16* bias, bf16* y, int64_t depth, int64_t outputs,
                          int64_t left) {
    __m512 a[M][2];
    for (int m = 0; m < M; m++) a[m][0] = a[m][1] = _mm512_setzero_ps();
    for (int64_t i = 0; i < depth; i += 2) {
        __m512bh w0 = (__m512bh)_mm512_loadu_si512(block + i * 32), w1 = (__m512bh)_mm512_loadu_si512(block + i * 32 + 32);
        _mm_prefetch(block + i * 32 + 2048, _MM_HINT_T0);  // across the end of a memory page, where the processor stops
        _mm_prefetch(block + i * 32 + 2080, _MM_HINT_T0);
        for (int m = 0; m < M; m++) {
            int32_t pair;
            std::memcpy(&pair, x + m * depth + i, 4);
            __m512bh b = (__m512bh)_mm512_set1_epi32(pair);
            a[m][0] = _mm512_dpbf16_ps(a[m][0], w0, b);
            a[m][1] = _mm512_dpbf16_ps(a[m][1], w1, b);
        }
    }
    for (int m = 0; m < M; m++)
        for (int half = 0; half < 2; half++)
            put_sums(a[m][half], bias ? bias + half * W : nullptr, y + m * outputs + half * W, left - half * W);
}

#ifdef TILES
// Whether this process may use the processor's matrix unit (AMX), which Linux grants where it is asked.
bool has_tiles() {
    static const bool granted = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, XTILEDATA
    return granted;
}

// Tiles for up to 32 rows of x and 32 outputs: 0 to 3 hold sums, 4 and 5 two times 16 rows, 6 and 7 the weight.
void shape_tiles(int64_t n) {
    struct alignas(64) {
        uint8_t palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {}};
    uint8_t first = n < W ? n : W, second = n - first;
    for (int tile : {0, 1, 4}) shape.rows[tile] = first;
    for (int tile : {2, 3, 5}) shape.rows[tile] = second;
    for (int tile : {6, 7}) shape.rows[tile] = W;
    if (!second)
        for (int tile : {2, 3, 5}) shape.bytes[tile] = 0;
    asm volatile("" ::"r"(&shape) : "memory");  // for GCC the next line reads no more than its first bytes
    _tile_loadconfig(&shape);
}

// As multiply_tile, of n rows for which tiles are shaped; depth is a multiple of 32. fetch: the block is read first now.
void multiply_tiles(const bf16* x, const bf16* block, const bf16* bias, bf16* y, int64_t n, int64_t depth,
                    int64_t outputs, int64_t left, bool fetch) {
    alignas(64) float sums[2 * W][2 * W];
    bool both = n > W;
    _tile_zero(0);
    _tile_zero(1);
    if (both) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t i = 0; i < depth; i += 32) {
        for (int line = 0; fetch && line < 32; line++) _mm_prefetch(block + i * 32 + 2048 + line * 32, _MM_HINT_T0);
        _tile_loadd(6, block + i * 32, 128);
        _tile_loadd(7, block + i * 32 + 32, 128);
        _tile_loadd(4, x + i, depth * 2);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, x + W * depth + i, depth * 2);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums[0], sizeof sums[0]);
    _tile_stored(1, sums[0] + W, sizeof sums[0]);
    if (both) {
        _tile_stored(2, sums[W], sizeof sums[0]);
        _tile_stored(3, sums[W] + W, sizeof sums[0]);
    }
    for (int64_t m = 0; m < n; m++)
        for (int half = 0; half < 2; half++)
            put_sums(_mm512_load_ps(sums[m] + half * W), bias ? bias + half * W : nullptr, y + m * outputs + half * W,
                     left - half * W);
}

// As multiply, for a single row too: what comes out for it does not depend on how many stand beside it.
void multiply_in_tiles(const bf16* x, const bf16* weight, const bf16* bias, bf16* y, int64_t rows, int64_t depth,
                       int64_t outputs) {
    int64_t blocks = (outputs + BLOCK - 1) / BLOCK, chunks = (rows + CHUNK - 1) / CHUNK;
#pragma omp parallel
    {
        int64_t shaped = 0;
#pragma omp for collapse(2)
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t c = 0; c < chunks; c++) {
                int64_t end = (c + 1) * CHUNK < rows ? (c + 1) * CHUNK : rows;
                for (int64_t r = c * CHUNK, n; r < end; r += n) {
                    n = end - r < 2 * W ? end - r : 2 * W;
                    if (n != shaped) shape_tiles(shaped = n);
                    multiply_tiles(x + r * depth, weight + b * BLOCK * depth, bias ? bias + b * BLOCK : nullptr,
                                   y + r * outputs + b * BLOCK, n, depth, outputs, outputs - b * BLOCK, r == c * CHUNK);
                }
            }
        if (shaped) _tile_release();
    }
}
#endif
#endif

// y [rows, outputs] = x [rows, depth] @ weight.T + bias, the weight in packed blocks of outputs.
template <class T>
void multiply(const T* x, const T* weight, const T* bias, T* y, int64_t rows, int64_t depth, int64_t outputs) {
    int64_t blocks = (outputs + BLOCK - 1) / BLOCK, chunks = (rows + CHUNK - 1) / CHUNK;
#pragma omp parallel for collapse(2)
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t c = 0; c < chunks; c++) {
            int64_t end = (c + 1) * CHUNK < rows ? (c + 1) * CHUNK : rows, tiles = (end - c * CHUNK + ROWS - 1) / ROWS;
            const T *w = weight + b * BLOCK * depth, *add = bias ? bias + b * BLOCK : nullptr;
            for (int64_t r = c * CHUNK, n; r < end; r += n, tiles--) {
                n = (end - r + tiles - 1) / tiles;
                switch (n) {
#define TILE(N)                                                                                                        \
    case N:                                                                                                            \
        if constexpr (N <= ROWS)                                                                                       \
            multiply_tile<N>(x + r * depth, w, add, y + r * outputs + b * BLOCK, depth, outputs, outputs - b * BLOCK); \
        break;
                    TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8) TILE(9) TILE(10) TILE(11) TILE(12)
                }
            }
        }
}

}  // namespace

extern "C" int64_t block() { return BLOCK; }

#if defined(__AVX2__) && !defined(__AVX512F__)  // elsewhere it was not measured against torch's
extern "C" void multiply_fp32(void* x, void* weight, void* bias, void* y, int64_t rows, int64_t depth, int64_t outputs) {
    multiply((const float*)x, (const float*)weight, (const float*)bias, (float*)y, rows, depth, outputs);
}
#endif

#ifdef __AVX512BF16__
extern "C" void multiply_bf16(void* x, void* weight, void* bias, void* y, int64_t rows, int64_t depth, int64_t outputs) {
    auto product = multiply<bf16>;
#ifdef TILES
    if (depth % 32 == 0 && has_tiles()) product = multiply_in_tiles;
#endif
    product((const bf16*)x, (const bf16*)weight, (const bf16*)bias, (bf16*)y, rows, depth, outputs);
}
#endif

#define EXPORT(T, suffix)                                                                                              \
    extern "C" void norm_##suffix(void* x, void* y, void* weight, void* bias, void* out, int64_t rows, int64_t width,  \
                                  float eps, int centred) {                                                            \
        norm<T>((T*)x, (const T*)y, (const T*)weight, (const T*)bias, (T*)out, rows, width, eps, centred);             \
    }                                                                                                                  \
    extern "C" void gate_##suffix(void* in, void* out, int64_t rows, int64_t width, int silu) {                        \
        gate<T>((const T*)in, (T*)out, rows, width, silu);                                                             \
    }                                                                                                                  \
    extern "C" void argmax_##suffix(void* in, void* out, int64_t rows, int64_t width) {                                \
        argmax<T>((const T*)in, (int64_t*)out, rows, width);                                                           \
    }                                                                                                                  \
    extern "C" void attention_##suffix(void* qkv, void* q_norm, void* k_norm, void* cosine, void* sine, void* kv,      \
                                       void* out, void* table, void* row, void* position, void* run, int64_t tokens,   \
                                       int64_t runs, int64_t heads, int64_t groups, int64_t size,      \
                                       int64_t table_width, float scale, float eps) {                                  \
        attention<T>((T*)qkv, (const T*)q_norm, (const T*)k_norm, (const float*)cosine, (const float*)sine, (T*)kv,    \
                     (T*)out, (const int32_t*)table, (const int32_t*)row, (const int32_t*)position,        \
                     (const int32_t*)run, Shape{tokens, runs, heads, groups, size, table_width, scale, eps});          \
    }

EXPORT(float, fp32)
EXPORT(bf16, bf16)
