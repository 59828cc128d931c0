/* Compiled inner loops of genotypes.py, sources/vcf.py and genome/shuffles.py, loaded through ctypes by kernels.py,
 * which documents every function.
 *
 * The text functions accept what is surely right and flag the rest: a flagged record is read again by the record rules
 * in sources/vcf.py, which know every version of the specification and say what is wrong.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* A named processor, such as arch=haswell, would be met by that processor alone;
 * a level is met by all that have its instructions. */
#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

typedef uint8_t u8;

/* ---- packed genotypes: the layout stands in genotypes.py ---- */

enum { SPARSE = 0, RAW = 15, MAX_PLOIDY = 4, MAX_CALLS = 255, STRIDE = 11 };
enum { END_OF_VECTOR = -32767, HIGHEST_DOSAGE = 127 };
/* a few bytes may claim any number of samples; all sizes below stay far from overflow */
#define MOST_SAMPLES ((int64_t)1 << 27)
/* What is wrong with a packed column; genotypes.py has the words. */
enum {
    WHOLE = 0,
    NO_HEAD,
    OTHER_SIZE,
    NO_CALL,
    NO_SAMPLE,
    NO_VALUE,
    HIGH_DOSAGE,
    HIGH_PLOIDY,
    NO_MEMORY,
    TOO_MANY_SAMPLES
};
#define ABSENT 0xFFFFu /* a place of a call beyond its ploidy, while it is taken apart */

static const uint16_t STANDARD[4][4][2] = {
    {{0}},
    {{2, 3}, {4, 3}, {2, 5}, {4, 5}}, /* 0|0 1|0 0|1 1|1 */
    {{3, 3}, {5, 3}, {3, 5}, {5, 5}}, /* the same from VCF 4.4 on, where the first allele has a phase */
    {{2, 2}, {2, 4}, {4, 4}, {0, 0}}, /* 0/0 0/1 1/1 ./. */
};

typedef struct {
    int form, ploidy, width, calls, base; /* base: code of the samples that a sparse body leaves out */
    int16_t value[256][MAX_PLOIDY];       /* BCF2 values of each call, END_OF_VECTOR past its end */
    const u8 *body, *end;
} Packed;

static int16_t stored_value(const u8 *at, int width) {
    if (width == 1) {
        int8_t v = (int8_t)*at;
        return v == -127 ? -32767 : v;
    }
    return (int16_t)(at[0] | at[1] << 8);
}

/* Whether BCF2 values are those of a call: alleles, then nothing but the end. */
static int is_call(const int16_t *value, int ploidy) {
    int i = 0;
    while (i < ploidy && value[i] >= 0) i++;
    while (i < ploidy && value[i] == END_OF_VECTOR) i++;
    return i == ploidy;
}

/* Reads the head of a packed column: what is wrong with it. Codes of a body are judged where they are read. */
static int open_packed(const u8 *at, int64_t size, int64_t samples, Packed *p) {
    if (samples < 0 || samples > MOST_SAMPLES) return TOO_MANY_SAMPLES;
    if (size < 1) return NO_HEAD;
    p->end = at + size;
    p->form = at[0] & 15;
    p->base = 0;
    int palette = at[0] >> 4;
    if (palette) {
        if (palette > 3 || p->form == RAW) return NO_HEAD;
        p->ploidy = 2, p->width = 1, p->calls = 4;
        for (int c = 0; c < 4; c++)
            for (int i = 0; i < 2; i++) p->value[c][i] = (int16_t)STANDARD[palette][c][i];
        at += 1;
    } else {
        if (size < 4) return NO_HEAD;
        p->ploidy = at[1], p->width = at[2], p->calls = at[3];
        if (!p->ploidy || (p->width != 1 && p->width != 2)) return NO_HEAD;
        at += 4;
        if (p->form == RAW) {
            if (p->calls) return NO_HEAD;
            p->body = at;
            return p->end - at == samples * p->ploidy * p->width ? WHOLE : OTHER_SIZE;
        }
        int length = p->calls * p->ploidy * p->width;
        if (!p->calls || p->ploidy > MAX_PLOIDY) return NO_HEAD;
        if (p->end - at < length) return OTHER_SIZE;
        for (int c = 0; c < p->calls; c++) {
            for (int i = 0; i < p->ploidy; i++)
                p->value[c][i] = stored_value(at + (c * p->ploidy + i) * p->width, p->width);
            if (!is_call(p->value[c], p->ploidy)) return NO_VALUE;
        }
        at += length;
    }
    if (p->form == SPARSE) {
        if (at >= p->end) return OTHER_SIZE;
        p->base = *at++;
        p->body = at;
        return p->base < p->calls ? WHOLE : NO_CALL;
    }
    if (p->form != 1 && p->form != 2 && p->form != 4 && p->form != 8) return NO_HEAD;
    p->body = at;
    if (p->end - at != (samples * p->form + 7) / 8) return OTHER_SIZE;
    int used = (int)(samples * p->form % 8); /* bits of the last byte: the others count for nobody */
    return used && p->end[-1] >> used ? OTHER_SIZE : WHOLE;
}

/* What follows a LEB128 number; NULL where it has no end. */
static inline const u8 *read_varint(const u8 *at, const u8 *end, uint64_t *value) {
    uint64_t v = 0;
    for (int shift = 0; at < end && shift <= 56; shift += 7) {
        v |= (uint64_t)(*at & 127) << shift;
        if (!(*at++ & 128)) {
            *value = v;
            return at;
        }
    }
    return NULL;
}

/* The next sample that a sparse body lists, `*next` being the first one not passed yet, and its code:
 * what is wrong, with `*at` behind it. */
static inline int read_listed(const Packed *p, const u8 **at, int64_t samples, int64_t *next, int *code) {
    uint64_t v, others = (uint64_t)p->calls - 1;
    if (!others) return NO_CALL; /* nobody can differ */
    if (!(*at = read_varint(*at, p->end, &v))) return OTHER_SIZE;
    uint64_t passed = v / others;
    if (passed >= (uint64_t)(samples - *next)) return NO_SAMPLE;
    *next += (int64_t)passed + 1;
    *code = (int)(v % others);
    *code += *code >= p->base;
    return WHOLE;
}

/* Code of every sample, each below `calls`: what is wrong. Not for RAW. */
WIDE static int expand(const Packed *p, int64_t samples, u8 *codes) {
    const u8 *b = p->body;
    if (p->form == SPARSE) {
        memset(codes, p->base, (size_t)samples);
        int64_t next = 0;
        while (b < p->end) {
            int code, wrong = read_listed(p, &b, samples, &next, &code);
            if (wrong) return wrong;
            codes[next - 1] = (u8)code;
        }
        return WHOLE;
    }
    if (p->form == 8) {
        memcpy(codes, b, (size_t)samples);
    } else if (p->form == 4) {
        for (int64_t s = 0; s < samples; s++) codes[s] = b[s >> 1] >> ((s & 1) * 4) & 15;
    } else if (p->form == 2) {
        int64_t whole = samples & ~(int64_t)3;
        for (int64_t s = 0; s < whole; s += 4) {
            uint32_t x = b[s >> 2];
            x = (x | x << 6 | x << 12 | x << 18) & 0x03030303u;
            memcpy(codes + s, &x, 4);
        }
        for (int64_t s = whole; s < samples; s++) codes[s] = b[s >> 2] >> ((s & 3) * 2) & 3;
    } else {
        for (int64_t s = 0; s < samples; s++) codes[s] = b[s >> 3] >> (s & 7) & 1;
    }
    if (p->calls < 1 << p->form) {
        u8 highest = 0;
        for (int64_t s = 0; s < samples; s++) highest = codes[s] > highest ? codes[s] : highest;
        if (highest >= p->calls) return NO_CALL;
    }
    return WHOLE;
}

/* How many samples have each code, none of them `calls` or more: what is wrong. */
WIDE static int tally(const Packed *p, int64_t samples, int64_t *counts, u8 *codes) {
    memset(counts, 0, 256 * sizeof *counts);
    if (p->form == SPARSE) {
        const u8 *b = p->body;
        int64_t listed = 0, next = 0;
        while (b < p->end) {
            int code, wrong = read_listed(p, &b, samples, &next, &code);
            if (wrong) return wrong;
            counts[code]++;
            listed++;
        }
        counts[p->base] += samples - listed;
        return WHOLE;
    }
    if (p->form == 2) {
        const uint64_t low = 0x5555555555555555u;
        int64_t bytes = (samples + 3) / 4, at = 0, one = 0, two = 0, three = 0;
        for (; at + 8 <= bytes; at += 8) {
            uint64_t x;
            memcpy(&x, p->body + at, 8);
            uint64_t l = x & low, h = x >> 1 & low;
            three += __builtin_popcountll(l & h);
            one += __builtin_popcountll(l & ~h);
            two += __builtin_popcountll(h & ~l);
        }
        for (; at < bytes; at++)
            for (int i = 0; i < 8; i += 2) { /* the padding of the last byte is code 0 */
                int c = p->body[at] >> i & 3;
                one += c == 1, two += c == 2, three += c == 3;
            }
        counts[1] = one, counts[2] = two, counts[3] = three, counts[0] = samples - one - two - three;
        for (int c = p->calls; c < 4; c++)
            if (counts[c]) return NO_CALL;
        return WHOLE;
    }
    int wrong = expand(p, samples, codes);
    if (wrong) return wrong;
    for (int64_t s = 0; s < samples; s++) counts[codes[s]]++;
    return WHOLE;
}

typedef struct {
    int copies, present, missing, het, alternate;
} Call;

/* What a call of `ploidy` BCF2 values is, with the copies of one allele. */
static Call judged(const int16_t *value, int ploidy, int allele) {
    Call call = {0, 0, 0, 0, 0};
    int first = -1;
    for (int i = 0; i < ploidy; i++) {
        if (value[i] < 0) break;
        int index = (value[i] >> 1) - 1;
        if (index < 0) {
            call.missing = 1;
            continue;
        }
        call.present++;
        call.copies += index == allele;
        call.alternate |= index > 0;
        if (first >= 0 && index != first) call.het = 1;
        first = index;
    }
    return call;
}

/* BCF2 values of a sample of a RAW column: what is wrong. */
static int raw_values(const Packed *p, int64_t sample, int16_t *value) {
    for (int i = 0; i < p->ploidy; i++)
        value[i] = stored_value(p->body + (sample * p->ploidy + i) * p->width, p->width);
    return is_call(value, p->ploidy) ? WHOLE : NO_VALUE;
}

/* A result of the functions below: 0, or the record at fault and what is wrong with it. */
static int64_t fault(int64_t record, int wrong) { return wrong ? record << 8 | wrong : 0; }

static u8 *room_for_codes(int64_t samples) {
    return samples < 0 || samples > MOST_SAMPLES ? NULL : malloc((size_t)samples + 8);
}

/* What is wrong with having no room for the codes of so many samples. */
static int no_room(int64_t samples) { return samples < 0 || samples > MOST_SAMPLES ? TOO_MANY_SAMPLES : NO_MEMORY; }

int64_t genodl_counts(
    const u8 *data, const int32_t *offsets, int64_t records, int64_t samples, const int32_t *allele, const u8 *mask,
    int64_t *out) {
    u8 *codes = room_for_codes(samples);
    if (!codes) return records ? fault(0, no_room(samples)) : 0;
    int64_t counts[256] = {0}, result = 0;
    int16_t value[256] = {0};
    for (int64_t r = 0; r < records && !result; r++) {
        Packed p;
        int64_t *to = out + r * 7;
        memset(to, 0, 7 * sizeof *to);
        int wrong = open_packed(data + offsets[r], (int64_t)offsets[r + 1] - offsets[r], samples, &p),
            raw = p.form == RAW;
        if (!wrong && !raw) {
            if (mask == NULL) wrong = tally(&p, samples, counts, codes);
            else {
                memset(counts, 0, sizeof counts);
                wrong = expand(&p, samples, codes);
                for (int64_t s = 0; s < samples && !wrong; s++) counts[codes[s]] += mask[s];
            }
        }
        int64_t steps = raw ? samples : p.calls;
        for (int64_t i = 0; i < steps && !wrong; i++) {
            int64_t n = raw ? (mask == NULL || mask[i]) : counts[i];
            if (raw) wrong = raw_values(&p, i, value);
            if (!n) continue;
            Call call = judged(raw ? value : p.value[i], p.ploidy, allele[r]);
            to[0] += n * call.copies;
            to[1] += n * call.present;
            if (call.missing || !call.present) to[6] += n;
            else {
                to[2] += n;
                to[call.het ? 4 : call.alternate ? 5 : 3] += n;
            }
        }
        result = fault(r, wrong);
    }
    free(codes);
    return result;
}

int64_t genodl_copies(
    const u8 *data, const int32_t *offsets, int64_t records, int64_t samples, const int32_t *allele,
    const u8 *exchanged, const int32_t *chosen, int64_t n, int8_t *out) {
    u8 *codes = room_for_codes(samples);
    if (!codes) return records ? fault(0, no_room(samples)) : 0;
    int64_t result = 0;
    int16_t value[256] = {0};
    int8_t copies[256] = {0};
    for (int64_t r = 0; r < records && !result; r++) {
        Packed p;
        int8_t *to = out + r * n;
        int wrong = open_packed(data + offsets[r], (int64_t)offsets[r + 1] - offsets[r], samples, &p),
            raw = p.form == RAW;
        if (!wrong && !raw) wrong = expand(&p, samples, codes);
        int64_t steps = raw ? n : p.calls;
        for (int64_t i = 0; i < steps && !wrong; i++) {
            if (raw) wrong = raw_values(&p, chosen ? chosen[i] : i, value);
            Call call = judged(raw ? value : p.value[i], p.ploidy, allele[r]);
            int dosage = call.missing || !call.present ? -1
                         : exchanged && exchanged[r]   ? call.present - call.copies
                                                       : call.copies;
            if (dosage > HIGHEST_DOSAGE) wrong = wrong ? wrong : HIGH_DOSAGE;
            if (raw) to[i] = (int8_t)dosage;
            else copies[i] = (int8_t)dosage;
        }
        result = fault(r, wrong);
        if (raw || wrong) continue;
        if (chosen)
            for (int64_t i = 0; i < n; i++) to[i] = copies[codes[chosen[i]]];
        else
            for (int64_t i = 0; i < n; i++) to[i] = copies[codes[i]];
    }
    free(codes);
    return result;
}

/* BCF2 values int16 (records, n, ploidy), END_OF_VECTOR past the end of a call. */
int64_t genodl_values(
    const u8 *data, const int32_t *offsets, int64_t records, int64_t samples, const int32_t *chosen, int64_t n,
    int64_t ploidy, int16_t *out) {
    u8 *codes = room_for_codes(samples);
    if (!codes) return records ? fault(0, no_room(samples)) : 0;
    int16_t value[256] = {0};
    int64_t result = 0;
    for (int64_t r = 0; r < records && !result; r++) {
        Packed p;
        int16_t *to = out + r * n * ploidy;
        int wrong = open_packed(data + offsets[r], (int64_t)offsets[r + 1] - offsets[r], samples, &p),
            raw = p.form == RAW;
        if (!wrong && p.ploidy > ploidy) wrong = HIGH_PLOIDY;
        if (!wrong && !raw) wrong = expand(&p, samples, codes);
        for (int64_t i = 0; i < n && !wrong; i++) {
            int64_t s = chosen ? chosen[i] : i;
            if (raw) wrong = raw_values(&p, s, value);
            const int16_t *from = raw ? value : p.value[codes[s]];
            for (int64_t j = 0; j < ploidy; j++) to[i * ploidy + j] = j < p.ploidy ? from[j] : END_OF_VECTOR;
        }
        result = fault(r, wrong);
    }
    free(codes);
    return result;
}

/* Highest ploidy of each record. */
int64_t genodl_ploidy(const u8 *data, const int32_t *offsets, int64_t records, int64_t samples, int32_t *out) {
    for (int64_t r = 0; r < records; r++) {
        Packed p;
        int wrong = open_packed(data + offsets[r], (int64_t)offsets[r + 1] - offsets[r], samples, &p);
        if (wrong) return fault(r, wrong);
        out[r] = p.ploidy;
    }
    return 0;
}

static char *put_number(char *to, int value) {
    char digits[8];
    int n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) *to++ = digits[--n];
    return to;
}

static char *put_call(char *to, const int16_t *value, int ploidy, int first_phased) {
    int implied = 1;
    for (int i = 1; i < ploidy && value[i] >= 0; i++) implied &= value[i] & 1;
    for (int i = 0; i < ploidy && value[i] >= 0; i++) {
        int phased = value[i] & 1;
        if (i > 0) *to++ = phased ? '|' : '/';
        else if (first_phased && phased != implied) *to++ = phased ? '|' : '/';
        if (value[i] >> 1) to = put_number(to, (value[i] >> 1) - 1);
        else *to++ = '.';
    }
    return to;
}

/* Text of the sample columns of one record, tab separated; its length, -1 where there is no room,
 * or -256 - what is wrong. `fields` may be NULL. `room`: 4096 at least. */
int64_t genodl_sample_text(
    const u8 *gt, int64_t gt_size, const u8 *fields, int64_t fields_size, int64_t samples, const int32_t *chosen,
    int64_t n, int first_phased, char *out, int64_t room) {
    /* 255 alleles of 5 digits and what separates them; the same of MAX_PLOIDY alleles */
    enum { CALL_ROOM = 2048, SHORT = 32 };
    Packed p;
    int16_t value[256] = {0};
    char *to = out, *limit = out + room - CALL_ROOM;
    u8 *codes = NULL;
    const u8 **starts = NULL;
    char(*texts)[SHORT] = NULL;
    int lengths[256] = {0}, wrong = samples < 0 || samples > MOST_SAMPLES ? TOO_MANY_SAMPLES : WHOLE, full = 0;
    if (!wrong && gt) wrong = open_packed(gt, gt_size, samples, &p);
    if (!wrong && gt && p.form != RAW) {
        codes = room_for_codes(samples);
        texts = calloc(256, sizeof *texts);
        wrong = codes && texts ? expand(&p, samples, codes) : NO_MEMORY;
        for (int c = 0; c < p.calls && !wrong; c++)
            lengths[c] = (int)(put_call(texts[c], p.value[c], p.ploidy, first_phased) - texts[c]);
    }
    if (!wrong && fields) {
        starts = malloc((size_t)(samples + 1) * sizeof *starts);
        if (!starts) wrong = NO_MEMORY;
        const u8 *at = fields, *end = fields + fields_size;
        for (int64_t s = 0; s < samples && !wrong; s++) {
            starts[s] = at;
            const u8 *tab = memchr(at, '\t', (size_t)(end - at));
            if (!tab != (s + 1 == samples)) wrong = OTHER_SIZE;
            else if (tab) at = tab + 1;
        }
        if (!wrong) starts[samples] = end + 1;
    }
    for (int64_t i = 0; i < n && !wrong && !full; i++) {
        int64_t s = chosen ? chosen[i] : i;
        if (to > limit) {
            full = 1;
            break;
        }
        if (i) *to++ = '\t';
        if (gt && texts) {
            memcpy(to, texts[codes[s]], SHORT);
            to += lengths[codes[s]];
        } else if (gt) {
            wrong = raw_values(&p, s, value);
            if (!wrong) to = put_call(to, value, p.ploidy, first_phased);
        }
        if (fields && !wrong) {
            int64_t size = starts[s + 1] - 1 - starts[s];
            if (size > limit - to) full = 1;
            else if (size > 0) {
                if (gt) *to++ = ':';
                memcpy(to, starts[s], (size_t)size);
                to += size;
            }
        }
    }
    free(codes);
    free(starts);
    free(texts);
    return wrong ? -256 - wrong : full ? -1 : to - out;
}

static u8 *put_varint(u8 *to, uint64_t v) {
    while (v > 127) *to++ = (u8)(v | 128), v >>= 7;
    *to++ = (u8)v;
    return to;
}

/* Body of codes below `calls`, in the form that suits them: listed exceptions when few samples differ,
 * else 1 to 8 bits each. */
WIDE static u8 *put_codes(u8 *head, u8 *to, u8 *codes, int64_t samples, int calls, int base, int64_t exceptions) {
    int bits = calls <= 2 ? 1 : calls <= 4 ? 2 : calls <= 16 ? 4 : 8;
    int64_t dense = (samples * bits + 7) / 8;
    if (exceptions * 4 <= dense) { /* a dense row of mostly one code compresses as well, but takes longer to count */
        uint64_t others = calls > 1 ? (uint64_t)calls - 1 : 1;
        *head |= SPARSE;
        *to++ = (u8)base;
        int64_t last = -1, s = 0;
        uint64_t all = 0x0101010101010101u * (u8)base;
        for (; s + 8 <= samples; s += 8) {
            uint64_t x;
            memcpy(&x, codes + s, 8);
            if (x == all) continue;
            for (int64_t i = s; i < s + 8; i++)
                if (codes[i] != base)
                    to = put_varint(to, (uint64_t)(i - last - 1) * others + codes[i] - (codes[i] > base)), last = i;
        }
        for (; s < samples; s++)
            if (codes[s] != base)
                to = put_varint(to, (uint64_t)(s - last - 1) * others + codes[s] - (codes[s] > base)), last = s;
        return to;
    }
    *head |= (u8)bits;
    if (bits == 8) {
        memcpy(to, codes, (size_t)samples);
    } else if (bits == 2) {
        memset(codes + samples, 0, 3);
        for (int64_t i = 0; i < dense; i++) {
            uint32_t x;
            memcpy(&x, codes + 4 * i, 4);
            to[i] = (u8)(x | x >> 6 | x >> 12 | x >> 18);
        }
    } else {
        memset(to, 0, (size_t)dense);
        for (int64_t s = 0; s < samples; s++) to[s * bits / 8] |= (u8)(codes[s] << (s * bits & 7));
    }
    return to + dense;
}

/* Calls as keys of four 16-bit BCF2 values; the palette found so far. */
typedef struct {
    uint64_t key[256];
    int64_t count[256];
    int n, last;
} Palette;

static int code_of(Palette *palette, uint64_t key) {
    if (palette->n && palette->key[palette->last] == key) return palette->last;
    for (int i = 0; i < palette->n; i++)
        if (palette->key[i] == key) return palette->last = i;
    if (palette->n == MAX_CALLS) return -1;
    palette->key[palette->n] = key;
    palette->count[palette->n] = 0;
    return palette->last = palette->n++;
}

static int place_of(uint64_t key, int i) { return (int)(key >> (16 * i) & 0xFFFF); }

/* Packs the calls of a record; where `codes` index `palette`. Room: 16 bytes a sample and 64. */
static u8 *put_palette(u8 *to, Palette *palette, u8 *codes, int64_t samples) {
    int ploidy = 1, wide = 0;
    for (int c = 0; c < palette->n; c++)
        for (int i = 0; i < MAX_PLOIDY; i++) {
            int v = place_of(palette->key[c], i);
            if (v == ABSENT) continue;
            if (i + 1 > ploidy) ploidy = i + 1;
            wide |= (v >> 1) - 1 > 62;
        }
    u8 *head = to;
    int order[256] = {0}, calls = palette->n;
    for (int id = 1; id < 4 && (ploidy == 2 || !palette->n); id++) { /* of no samples any palette holds */
        int fits = 1;
        for (int c = 0; c < palette->n && fits; c++) {
            fits = 0;
            for (int k = 0; k < 4 && !fits; k++)
                if (palette->key[c] == (STANDARD[id][k][0] | (uint64_t)STANDARD[id][k][1] << 16 |
                                        (uint64_t)ABSENT << 32 | (uint64_t)ABSENT << 48))
                    order[c] = k, fits = 1;
        }
        if (fits) {
            *to++ = (u8)(id << 4);
            calls = 4;
            goto body;
        }
    }
    for (int c = 0; c < calls; c++) { /* by their values, so that alike records look alike */
        order[c] = 0;
        for (int d = 0; d < calls; d++) order[c] += palette->key[d] < palette->key[c];
    }
    int width = wide ? 2 : 1;
    *to++ = 0, *to++ = (u8)ploidy, *to++ = (u8)width, *to++ = (u8)calls;
    for (int c = 0; c < calls; c++)
        for (int i = 0; i < ploidy; i++) {
            int v = place_of(palette->key[c], i);
            u8 *at = to + (order[c] * ploidy + i) * width;
            if (v == ABSENT) v = width == 1 ? 0x81 : 0x8001;
            at[0] = (u8)v;
            if (width == 2) at[1] = (u8)(v >> 8);
        }
    to += calls * ploidy * width;
body:;
    int base = 0, moved = 0;
    for (int c = 1; c < palette->n; c++)
        if (palette->count[c] > palette->count[base]) base = c;
    int64_t exceptions = palette->n ? samples - palette->count[base] : 0;
    for (int c = 0; c < palette->n; c++) moved |= order[c] != c;
    if (moved) {
        u8 map[256];
        for (int c = 0; c < palette->n; c++) map[c] = (u8)order[c];
        for (int64_t s = 0; s < samples; s++) codes[s] = map[codes[s]];
    }
    return put_codes(head, to, codes, samples, calls, order[base], exceptions);
}

/* Packs calls given as int16 alleles (-1 missing, -2 absent) and phases, (records, samples, ploidy <= 4):
 * for tests and other sources. */
int64_t genodl_pack(
    const int16_t *alleles, const u8 *phased, int64_t records, int64_t samples, int64_t ploidy, u8 *out,
    int64_t *offsets) {
    u8 *codes = room_for_codes(samples), *to = out;
    if (!codes) return fault(0, no_room(samples));
    Palette palette;
    int64_t result = 0;
    offsets[0] = 0;
    for (int64_t r = 0; r < records && !result; r++) {
        palette.n = palette.last = 0;
        for (int64_t s = 0; s < samples && !result; s++) {
            uint64_t key = 0;
            for (int64_t i = 0; i < MAX_PLOIDY; i++) {
                int64_t at = (r * samples + s) * ploidy + i;
                uint64_t v = i >= ploidy || alleles[at] == -2
                                 ? ABSENT
                                 : (uint64_t)((alleles[at] + 1) << 1 | (phased[at] & 1)) & 0x7FFF;
                key |= v << (16 * i);
            }
            int code = code_of(&palette, key);
            if (code < 0) result = fault(r, NO_CALL);
            else {
                codes[s] = (u8)code;
                palette.count[code]++;
            }
        }
        if (!result) to = put_palette(to, &palette, codes, samples);
        offsets[r + 1] = to - out;
    }
    free(codes);
    return result;
}

/* Packs rows of a PLINK .bed, each (samples + 3) / 4 bytes of 2 bits a sample, as 0/0 0/1 1/1 ./. of REF and ALT, byte
 * for byte as genodl_pack does: REF is the second allele of the .bim, where `exchanged` the first. Two bits of a .bed:
 * 0 both are the first allele, 1 missing, 2 one of each, 3 both the second. What stands behind the last sample counts
 * for nobody. Room: 16 bytes and twice the row. */
WIDE static u8 *put_bed(u8 *to, const u8 *row, uint64_t *codes, int64_t samples, int exchanged) {
    const uint64_t low = 0x5555555555555555u;
    int64_t bytes = (samples + 3) / 4, words = (bytes + 7) / 8, counts[4] = {0};
    uint64_t turned = exchanged ? low : 0, last = samples % 32 ? ((uint64_t)1 << samples % 32 * 2) - 1 : ~(uint64_t)0;
    codes[words - 1] = 0;
    memcpy(codes, row, (size_t)bytes);
    for (int64_t w = 0; w < words; w++) {
        uint64_t high = codes[w] >> 1 & low, l = (codes[w] & low) ^ high, h = (~high ^ (turned & ~l)) & low;
        uint64_t own = w == words - 1 ? last : ~(uint64_t)0;
        l &= own, h &= own;
        codes[w] = l | h << 1;
        counts[1] += __builtin_popcountll(l & ~h);
        counts[2] += __builtin_popcountll(h & ~l);
        counts[3] += __builtin_popcountll(l & h);
    }
    counts[0] = samples - counts[1] - counts[2] - counts[3];
    int base = 0;
    for (int c = 1; c < 4; c++)
        if (counts[c] > counts[base]) base = c;
    if ((samples - counts[base]) * 4 > bytes) {
        *to++ = 3 << 4 | 2;
        memcpy(to, codes, (size_t)bytes);
        return to + bytes;
    }
    *to++ = 3 << 4 | SPARSE;
    *to++ = (u8)base;
    int64_t passed = -1;
    for (int64_t w = 0; w < words; w++) {
        uint64_t x = codes[w] ^ low * (uint64_t)base, other = (x | x >> 1) & low & (w == words - 1 ? last : low);
        for (; other; other &= other - 1) {
            int at = __builtin_ctzll(other), code = (int)(codes[w] >> at & 3);
            int64_t s = w * 32 + at / 2;
            to = put_varint(to, (uint64_t)(s - passed - 1) * 3 + (uint64_t)(code - (code > base)));
            passed = s;
        }
    }
    return to;
}

int64_t genodl_bed(
    const u8 *rows, int64_t records, int64_t samples, const u8 *exchanged, u8 *out, int32_t *offsets) {
    offsets[0] = 0;
    if (samples < 1 || samples > MOST_SAMPLES) return records ? fault(0, TOO_MANY_SAMPLES) : 0;
    int64_t bytes = (samples + 3) / 4;
    uint64_t *codes = malloc((size_t)bytes + 8);
    if (!codes) return fault(0, NO_MEMORY);
    u8 *to = out;
    for (int64_t r = 0; r < records; r++) {
        to = put_bed(to, rows + r * bytes, codes, samples, exchanged[r]);
        offsets[r + 1] = (int32_t)(to - out);
    }
    free(codes);
    return 0;
}

/* ---- VCF text ---- */

enum { SLOW = 1, BLANK = 2 };
enum { T_TEXT = 0, T_INTEGER = 1, T_FLOAT = 2, T_CHARACTER = 3, T_FLAG = 4, T_JUDGE = 5 };
enum { ANY = -1, PER_ALT = -2, PER_ALLELE = -3, PER_GENOTYPE = -4 };

int64_t genodl_count_lines(const u8 *text, int64_t n) {
    int64_t lines = 0;
    for (const u8 *at = text, *end = text + n; at < end && (at = memchr(at, '\n', (size_t)(end - at))); at++) lines++;
    return lines;
}

/* Starts of the columns of each line: 8 fixed ones, FORMAT, the first sample, the line's end.
 * -1 for 2 GiB of text, whose places int32 lacks. */
int64_t genodl_lines(const u8 *text, int64_t n, int columns, int64_t room, int32_t *starts, u8 *flags) {
    int64_t r = 0;
    if (n >= INT32_MAX) return -1;
    const u8 *at = text, *end = text + n;
    int tabs = columns > 9 ? 9 : columns - 1;
    while (at < end && r < room) {
        const u8 *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) stop = end;
        int32_t *to = starts + r * STRIDE;
        /* a header's line among the records */
        flags[r] = stop == at || (stop == at + 1 && *at == '\r') ? BLANK : *at == '#' ? SLOW : 0;
        to[0] = (int32_t)(at - text);
        int k = 1;
        const u8 *c = at;
        for (; c < stop && k <= tabs; c++)
            if (*c == '\t') to[k++] = (int32_t)(c + 1 - text);
        if (!flags[r] && k <= tabs) flags[r] = SLOW;
        if (!flags[r] && columns < 10 && memchr(c, '\t', (size_t)(stop - c))) flags[r] = SLOW;
        for (; k < STRIDE; k++) to[k] = (int32_t)(stop + 1 - text);
        to[STRIDE - 1] = (int32_t)(stop - text);
        at = stop + 1;
        r++;
    }
    return r;
}

static int is_digit(u8 c) { return c >= '0' && c <= '9'; }

static int is_base(u8 c) {
    c |= 32;
    return c == 'a' || c == 'c' || c == 'g' || c == 't' || c == 'n';
}

/* A plain decimal; nan, inf and what is odd are for the record rules. */
static int is_float(const u8 *at, const u8 *end) {
    if (end - at == 1 && *at == '.') return 1;
    if (at < end && (*at == '-' || *at == '+')) at++;
    int before = 0, after = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) before++;
    if (at < end && *at == '.')
        for (at++; at < end && *at >= '0' && *at <= '9'; at++) after++;
    if (!before && !after) return 0;
    if (at < end && (*at | 32) == 'e') {
        at++;
        if (at < end && (*at == '-' || *at == '+')) at++;
        if (at == end) return 0;
        for (; at < end; at++)
            if (*at < '0' || *at > '9') return 0;
    }
    return at == end;
}

/* Whether a decimal of some sixty characters may be too large for a double: its exponent has three digits or more. */
static int is_large(const u8 *at, const u8 *end) {
    while (at < end && (*at | 32) != 'e') at++;
    if (at < end) at++;
    if (at < end && !is_digit(*at)) at++;
    return end - at > 2;
}

/* Values between commas: right type, right number. `needed` < 0: any number. */
static int values_hold(const u8 *at, const u8 *end, int type, int64_t needed, int natural) {
    int64_t found = 1;
    if (type == T_JUDGE) return 0;
    if (type == T_INTEGER) { /* by far the most bytes of a rich file: one pass */
        int digits = 0;
        for (; at <= end; at++) {
            u8 c = at < end ? *at : ',';
            if (is_digit(c)) digits = digits < 0 ? -9 : 1;
            else if (c == ',') {
                if (digits == 0 || digits == -9) return 0;
                if (at < end) found++;
                digits = 0;
            } else if (c == '.' && digits == 0) digits = -1;
            else if (c == '-' && !natural && digits == 0 && at + 1 < end && is_digit(at[1])) continue;
            else return 0;
        }
        return needed < 0 || found == needed;
    }
    if (type == T_TEXT) {
        if (at == end && needed == 1) return 0;
        for (; at < end; at++) {
            if (*at >= 128 || *at < 32) return 0;
            found += *at == ',';
        }
        return needed < 0 || found == needed;
    }
    while (1) {
        const u8 *stop = memchr(at, ',', (size_t)(end - at));
        if (!stop) stop = end;
        if (type == T_FLOAT && (!is_float(at, stop) || (natural && *at == '-'))) return 0;
        if (type == T_CHARACTER && (stop - at != 1 || *at <= 32 || *at >= 127)) return 0;
        if (stop == end) break;
        found++;
        at = stop + 1;
    }
    return needed < 0 || found == needed;
}

/* Plain whole numbers between commas, each perhaps a lone dot, up to a colon, tab or the end; how many.
 * NULL for what else there is. */
static inline const u8 *integers(const u8 *at, const u8 *end, int64_t *found) {
    int64_t n = 1;
    while (1) {
        const u8 *item = at;
        if (at < end && *at == '-') at++;
        const u8 *start = at;
        while (at < end && is_digit(*at)) at++;
        if (at == start) {
            if (at < end && *at == '.' && (start == item)) at++; /* no sign before it */
            else return NULL;
        }
        if (at >= end || *at == ':' || *at == '\t') break;
        if (*at != ',') return NULL;
        n++, at++;
    }
    *found = n;
    return at;
}

static int64_t needed_of(int count, int64_t alts, int64_t ploidy) {
    if (count == PER_ALT) return alts ? alts : -1;
    if (count == PER_ALLELE) return alts ? alts + 1 : -1;
    if (count == PER_GENOTYPE) { /* choices of `ploidy` from alts + 1 alleles with repetition */
        if (!alts || ploidy < 1) return -1;
        int64_t n = 1;
        for (int64_t i = 1; i <= ploidy; i++) {
            n = n * (alts + i) / i;
            if (n > 1 << 30) return -2; /* never equal */
        }
        return n;
    }
    return count;
}

typedef struct {
    const u8 *names;
    const int32_t *offsets;
    const u8 *type, *natural;
    const int32_t *count;
    int n;
} Keys;

static int key_index(const Keys *keys, const u8 *at, int64_t size, int guess) {
    for (int step = 0; step < keys->n; step++) { /* the keys of a file come in much the same order in every record */
        int k = guess + step;
        if (k >= keys->n) k -= keys->n;
        if (keys->offsets[k + 1] - keys->offsets[k] == size &&
            !memcmp(keys->names + keys->offsets[k], at, (size_t)size))
            return k;
    }
    return -1;
}

static int info_holds(const u8 *at, const u8 *end, const Keys *keys, int minor, int64_t alts, int64_t *stated_end) {
    uint64_t seen = 0;
    int guess = 0;
    if (end - at == 1 && *at == '.') return 1;
    if (at < end && end[-1] == ';') end--;
    while (1) {
        const u8 *stop = memchr(at, ';', (size_t)(end - at));
        if (!stop) stop = end;
        const u8 *equals = memchr(at, '=', (size_t)(stop - at));
        const u8 *name_end = equals ? equals : stop;
        int64_t size = name_end - at;
        if (!size) return 0;
        if ((size == 5 && !memcmp(at, "SVLEN", 5)) || (size == 6 && !memcmp(at, "SVTYPE", 6))) return 0;
        int k = key_index(keys, at, size, guess);
        if (k < 0) {
            if (minor >= 3) return 0; /* syntax and repeats of keys that nobody declared */
            for (const u8 *c = at; c < stop; c++)
                if (*c <= 32 || *c >= 127) return 0;
        } else {
            guess = k + 1 < keys->n ? k + 1 : 0;
            if (minor >= 3) {
                if (k > 63 || seen >> k & 1) return 0;
                seen |= 1ull << k;
            }
            int type = keys->type[k];
            const u8 *value = equals ? equals + 1 : stop;
            int64_t length = stop - value;
            if (type == T_FLAG) {
                if (length > 1 || (length == 1 && *value != '0' && *value != '1')) return 0;
            } else {
                if (!equals) return 0;
                if (!(length == 1 && *value == '.') &&
                    !values_hold(value, stop, type, needed_of(keys->count[k], alts, 0), keys->natural[k]))
                    return 0;
            }
            if (size == 3 && !memcmp(at, "END", 3)) {
                int64_t v = 0;
                if (minor >= 5 || length < 1 || length > 18) return 0;
                for (const u8 *c = value; c < stop; c++) {
                    if (*c < '0' || *c > '9') return 0;
                    v = v * 10 + *c - '0';
                }
                *stated_end = v;
            }
        }
        if (stop == end) return 1;
        at = stop + 1;
    }
}

/* Number of ALT alleles, 0 for ".", -1 for what the record rules have to judge. */
static int alts_of(const u8 *at, const u8 *end, int minor) {
    if (end - at == 1 && *at == '.') return 0;
    int n = 0;
    while (1) {
        const u8 *stop = memchr(at, ',', (size_t)(end - at));
        if (!stop) stop = end;
        if (stop == at) return -1;
        if (*at == '<') {
            if (minor >= 5 || stop - at < 3 || stop[-1] != '>') return -1;
            for (const u8 *c = at + 1; c < stop - 1; c++)
                if (*c <= 32 || *c >= 127 || *c == '<' || *c == '>') return -1;
        } else if (!(stop - at == 1 && *at == '*')) {
            for (const u8 *c = at; c < stop; c++)
                if (!is_base(*c)) return -1;
        }
        n++;
        if (stop == end) return n;
        at = stop + 1;
    }
}

static int codes_hold(const u8 *at, const u8 *end, int filter) {
    const u8 *start = at;
    for (; at <= end; at++) {
        if (at == end || *at == ';') {
            if (at == start) return 0;
            if (filter && at - start == 1 && (*start == '0' || *start == '.')) return 0;
            start = at + 1;
        } else if (*at <= 32 || *at >= 127 || (filter && *at == ',')) return 0;
    }
    return 1;
}

void genodl_fixed(
    const u8 *text, int64_t records, const int32_t *starts, u8 *flags, int minor, const u8 *names,
    const int32_t *offsets, const u8 *type, const u8 *natural, const int32_t *count, int n_keys, int has_format,
    int64_t *pos, int64_t *end, int32_t *alts, u8 *contig_changes, u8 *format_changes) {
    Keys keys = {names, offsets, type, natural, count, n_keys};
    int64_t before = -1;
    for (int64_t r = 0; r < records; r++) {
        if (flags[r]) continue;
        const int32_t *s = starts + r * STRIDE;
        const u8 *column[10];
        const u8 *stop[10];
        int n = has_format ? 9 : 8;
        for (int k = 0; k < n; k++) {
            column[k] = text + s[k];
            stop[k] = text + s[k + 1] - 1;
        }
        if (!has_format) stop[7] = text + s[10];
        const u8 *c = column[1];
        int64_t p = 0;
        int holds = stop[1] > c && stop[1] - c <= 18;
        for (; c < stop[1] && holds; c++) {
            holds = *c >= '0' && *c <= '9';
            p = p * 10 + *c - '0';
        }
        holds = holds && codes_hold(column[2], stop[2], 0) && stop[3] > column[3];
        for (c = column[3]; c < stop[3] && holds; c++) holds = is_base(*c);
        int a = holds ? alts_of(column[4], stop[4], minor) : -1;
        int64_t last = p + (stop[3] - column[3]) - 1, stated = 0;
        holds = holds && a >= 0 && is_float(column[5], stop[5]) && *column[5] != '-' && *column[5] != '+' &&
                stop[5] - column[5] < 64 && !is_large(column[5], stop[5]);
        holds = holds && ((stop[6] - column[6] == 1 && *column[6] == '.') || codes_hold(column[6], stop[6], 1));
        holds = holds && info_holds(column[7], stop[7], &keys, minor, a, &stated);
        if (stated > last) last = stated;
        if (!holds || last > INT32_MAX) {
            flags[r] = SLOW;
            continue;
        }
        pos[r] = p;
        end[r] = last;
        alts[r] = a;
        const int32_t *b = before < 0 ? NULL : starts + before * STRIDE;
        int64_t size = s[1] - s[0];
        contig_changes[r] = !b || b[1] - b[0] != size || memcmp(text + b[0], column[0], (size_t)size);
        if (has_format) {
            size = stop[8] - column[8];
            int64_t size_before = b ? (b[9] - 1 < b[10] ? b[9] - 1 : b[10]) - b[8] : -1;
            format_changes[r] = size != size_before || memcmp(text + b[8], column[8], (size_t)size);
        }
        before = r;
    }
}

/* GT as text to a key; its end, or NULL for what the record rules have to judge. */
static const u8 *read_call(const u8 *at, const u8 *end, int first_phased, int alts, uint64_t *key, int *ploidy) {
    uint64_t k = 0;
    int n = 0, all = 1;
    u8 separator = 0;
    if (end - at > 3 && (at[3] == ':' || at[3] == '\t') && is_digit(at[0]) && is_digit(at[2]) &&
        (at[1] == '/' || at[1] == '|')) {
        int a = at[0] - '0', b = at[2] - '0', phased = at[1] == '|';
        if (a > alts || b > alts) return NULL;
        *key = (uint64_t)((a + 1) << 1 | (first_phased && phased)) | (uint64_t)((b + 1) << 1 | phased) << 16 |
               (uint64_t)0xFFFFFFFFu << 32;
        *ploidy = 2;
        return at + 3;
    }
    while (1) {
        int v;
        if (n == MAX_PLOIDY || at >= end) return NULL;
        if (*at == '.') v = 0, at++;
        else {
            const u8 *start = at;
            int a = 0;
            for (; at < end && is_digit(*at) && at - start < 5; at++) a = a * 10 + *at - '0';
            if (at == start || a > alts || a > 16382) return NULL;
            v = (a + 1) << 1;
        }
        if (n) {
            v |= separator == '|';
            all &= separator == '|';
        }
        k |= (uint64_t)v << (16 * n++);
        if (at < end && (*at == '|' || *at == '/')) separator = *at++;
        else break;
    }
    if (first_phased) k |= (uint64_t)all;
    for (int i = n; i < MAX_PLOIDY; i++) k |= (uint64_t)ABSENT << (16 * i);
    *key = k;
    *ploidy = n;
    return at;
}

/* Sample columns that are all `0|0` to `1|1`, four bytes each: their codes of standard palette 1 or 2;
 * how many are not 0|0, or -1. */
WIDE static int64_t phased_pairs(const u8 *text, int64_t samples, u8 *codes) {
    const uint32_t zero = '0' | '|' << 8 | '0' << 16 | (uint32_t)'\t' << 24;
    uint32_t odd = 0;
    int64_t carriers = 0;
    for (int64_t s = 0; s < samples - 1; s++) {
        uint32_t x;
        memcpy(&x, text + 4 * s, 4);
        x ^= zero;
        odd |= x & ~0x00010001u;
        u8 code = (u8)((x | x >> 15) & 3);
        codes[s] = code;
        carriers += code != 0;
    }
    const u8 *last = text + 4 * (samples - 1);
    uint32_t x = (last[0] | last[1] << 8 | last[2] << 16 | (uint32_t)'\t' << 24) ^ zero;
    odd |= x & ~0x00010001u;
    codes[samples - 1] = (u8)((x | x >> 15) & 3);
    carriers += codes[samples - 1] != 0;
    return odd ? -1 : carriers;
}

typedef struct {
    int n, has_gt;
    const u8 *type;
    const int32_t *count;
} Format;

/* One record's sample columns: packed genotypes to *gt, other subfields to *fields (sample columns without GT);
 * 0 where it is not surely right. */
static int read_samples(
    const u8 *at, const u8 *end, int64_t samples, const Format *format, int alts, int first_phased, u8 *codes, u8 **gt,
    u8 **fields) {
    u8 *rest = *fields;
    Palette palette;
    palette.n = palette.last = 0;
    if (format->n == 1 && format->has_gt && alts > 0 && end - at == 4 * samples - 1) {
        int64_t carriers = phased_pairs(at, samples, codes);
        if (carriers >= 0) {
            u8 *head = *gt, *to = head + 1;
            *head = (u8)((first_phased ? 2 : 1) << 4);
            int base = 0;
            if (carriers * 2 > samples) { /* another call may be the common one */
                int64_t held[4] = {samples - carriers};
                for (int c = 1; c < 4; c++) {
                    for (int64_t s = 0; s < samples; s++) held[c] += codes[s] == c;
                    if (held[c] > held[base]) base = c;
                }
                carriers = samples - held[base];
            }
            *gt = put_codes(head, to, codes, samples, 4, base, carriers);
            return 1;
        }
    }
    int64_t s = 0;
    for (; s < samples; s++) {
        int ploidy = 0, key = 0;
        if (format->has_gt) {
            uint64_t call;
            at = read_call(at, end, first_phased, alts, &call, &ploidy);
            if (!at) return 0;
            if (ploidy == 1 && !(call & 0xFFFE)) ploidy = 0; /* a lone dot is a call of unknown ploidy */
            int code = code_of(&palette, call);
            if (code < 0) return 0;
            codes[s] = (u8)code;
            palette.count[code]++;
            key = 1;
            if (at < end && *at == ':') at++;
            else if (at < end && *at != '\t') return 0;
            else key = -1;
        }
        if (key >= 0) {
            const u8 *start = at;
            while (1) {
                const u8 *stop = at;
                if (key >= format->n) return 0;
                int type = format->type[key];
                if (type == T_INTEGER) {
                    int64_t found, needed = format->count[key];
                    if (needed < ANY) needed = needed_of((int)needed, alts, format->has_gt ? ploidy : 0);
                    if (at < end && *at == '.' && (at + 1 == end || at[1] == ':' || at[1] == '\t')) stop = at + 1;
                    else if (!(stop = integers(at, end, &found)) || (needed != ANY && found != needed)) return 0;
                    key++;
                    at = stop;
                    if (at >= end || *at == '\t') break;
                    at++;
                    continue;
                }
                while (stop < end && *stop != ':' && *stop != '\t') stop++;
                if (!(stop - at == 1 && *at == '.') &&
                    !values_hold(at, stop, type, needed_of(format->count[key], alts, format->has_gt ? ploidy : 0), 0))
                    return 0;
                key++;
                at = stop;
                if (at >= end || *at == '\t') break;
                at++;
            }
            memcpy(rest, start, (size_t)(at - start));
            rest += at - start;
        }
        *rest++ = '\t';
        if (at >= end) break;
        at++; /* the tab */
    }
    if (s != samples - 1) return 0;
    if (format->has_gt) *gt = put_palette(*gt, &palette, codes, samples);
    if (!format->has_gt || format->n > 1) *fields = rest - 1;
    return 1;
}

void genodl_samples(
    const u8 *text, int64_t records, const int32_t *starts, u8 *flags, int64_t samples, int first_phased,
    const int32_t *alts, const int32_t *format_of, const int32_t *format_offsets, const u8 *type, const int32_t *count,
    const u8 *has_gt, u8 *gt, int32_t *gt_offsets, u8 *fields, int32_t *field_offsets) {
    u8 *codes = room_for_codes(samples), *gt_to = gt, *fields_to = fields;
    gt_offsets[0] = field_offsets[0] = 0;
    for (int64_t r = 0; r < records; r++) {
        if (!codes) flags[r] |= SLOW * !flags[r];
        if (!flags[r]) {
            int f = format_of[r];
            if (f < 0) flags[r] = SLOW;
            else {
                Format format = {
                    format_offsets[f + 1] - format_offsets[f], has_gt[f], type + format_offsets[f],
                    count + format_offsets[f]};
                u8 *gt_before = gt_to, *fields_before = fields_to;
                if (!read_samples(
                        text + starts[r * STRIDE + 9], text + starts[r * STRIDE + 10], samples, &format, alts[r],
                        first_phased, codes, &gt_to, &fields_to))
                    flags[r] = SLOW, gt_to = gt_before, fields_to = fields_before;
            }
        }
        gt_offsets[r + 1] = (int32_t)(gt_to - gt);
        field_offsets[r + 1] = (int32_t)(fields_to - fields);
    }
    free(codes);
}

/* Text between starts[r * stride] and stops[r * stride] of the chosen rows, one after the other. */
void genodl_gather(
    const u8 *text, int64_t n, const int32_t *starts, const int32_t *stops, int64_t stride, u8 *out, int32_t *offsets) {
    int32_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t size = stops[i * stride] - starts[i * stride];
        memcpy(out + at, text + starts[i * stride], (size_t)size);
        offsets[i] = at;
        at += size;
    }
    offsets[n] = at;
}

/* The same, each text divided at `separator`; "." is an empty list. Returns the number of pieces. */
int64_t genodl_gather_lists(
    const u8 *text, int64_t n, const int32_t *starts, const int32_t *stops, int64_t stride, int separator, u8 *out,
    int32_t *offsets, int32_t *lists) {
    int32_t at = 0;
    int64_t pieces = 0;
    for (int64_t i = 0; i < n; i++) {
        const u8 *c = text + starts[i * stride], *end = text + stops[i * stride];
        lists[i] = (int32_t)pieces;
        if (end - c == 1 && *c == '.') continue;
        offsets[pieces++] = at;
        for (; c < end; c++)
            if (*c == separator) offsets[pieces++] = at;
            else out[at++] = *c;
    }
    lists[n] = (int32_t)pieces;
    offsets[pieces] = at;
    return pieces;
}

/* ---- tables of text ---- */

static inline const u8 *next_stop(const u8 *at, const u8 *end) {
#ifdef __SSE2__
    const __m128i tab = _mm_set1_epi8('\t'), feed = _mm_set1_epi8('\n');
    for (; end - at >= 16; at += 16) {
        __m128i some = _mm_loadu_si128((const __m128i *)at);
        int found = _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(some, tab), _mm_cmpeq_epi8(some, feed)));
        if (found) return at + __builtin_ctz((unsigned)found);
    }
#endif
    while (at < end && *at != '\t' && *at != '\n') at++;
    return at;
}

/* ASCII without quotes and CR, which text readers take in ways of their own. */
WIDE static int is_plain(const u8 *text, int64_t n) {
    u8 odd = 0;
    for (int64_t i = 0; i < n; i++) odd |= (text[i] & 0x80) | (text[i] == '"') | (text[i] == '\r');
    return !odd;
}

/* Columns of lines of `width` cells between tabs, by what `role` says of each: 0 none; k > 0, text k - 1, whose bytes
 * come to `texts` + (k - 1) n and ends to `ends` + (k - 1) (room + 1); k < 0, whole number -k - 1, to `numbers` +
 * (-k - 1) room. Every line ends in LF. Returns the lines; -1 for one of other cells, a number that is not 1 to 15
 * digits, more lines than `room`, and text that is not plain. */
int64_t genodl_columns(
    const u8 *text, int64_t n, int width, const int8_t *role, int64_t room, u8 *texts, int32_t *ends, float *numbers) {
    if (n >= INT32_MAX || !is_plain(text, n)) return -1;
    const u8 *at = text, *end = text + n;
    int64_t r = 0;
    for (int c = 0; c < width; c++)
        if (role[c] > 0) ends[(role[c] - 1) * (room + 1)] = 0;
    for (; at < end; r++) {
        if (r >= room) return -1;
        for (int c = 0; c < width; c++) {
            const u8 *stop = next_stop(at, end);
            if (stop >= end || *stop != (c + 1 < width ? '\t' : '\n')) return -1;
            int64_t size = stop - at;
            if (role[c] > 0) {
                int32_t *last = ends + (role[c] - 1) * (room + 1) + r;
                memcpy(texts + (role[c] - 1) * n + *last, at, (size_t)size);
                last[1] = *last + (int32_t)size;
            } else if (role[c] < 0) {
                int64_t value = 0;
                if (size < 1 || size > 15) return -1;
                for (; at < stop; at++) {
                    if (!is_digit(*at)) return -1;
                    value = 10 * value + (*at - '0');
                }
                numbers[(-role[c] - 1) * room + r] = (float)value;
            }
            at = stop + 1;
        }
    }
    return r;
}

/* ---- shuffles: how they are drawn stands in genome/shuffles.py ---- */

/* The finalizer of SplitMix64. */
static inline uint64_t mixed(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* A whole number below `n`, each as often: Lemire 2019. Few draws are made again, so the division is rare. */
static inline uint64_t drawn(uint64_t *state, uint64_t n) {
    unsigned __int128 product = (unsigned __int128)mixed(*state += 0x9E3779B97F4A7C15u) * n;
    if ((uint64_t)product < n) {
        uint64_t uneven = -n % n;
        while ((uint64_t)product < uneven) product = (unsigned __int128)mixed(*state += 0x9E3779B97F4A7C15u) * n;
    }
    return (uint64_t)(product >> 64);
}

/* The base that edge `edge` of a base leads to, its edges counted in the order of the bases that they lead to. */
static inline int reached(const int64_t *count, int64_t edge) {
    int64_t two = count[0] + count[1];
    return (edge >= count[0]) + (edge >= two) + (edge >= two + count[2]);
}

/* The tree by loop-erased walks to the last base, then the path: an edge of the tree where no other is left. */
static void shuffle_run(int8_t *run, int64_t n, uint64_t *state) {
    int64_t count[4][4] = {{0}}, left[4] = {0}, away[4]; /* edges; those that leave a base; these without loops */
    int last[4] = {0}, root = run[n - 1], joined = 1 << root;
    for (int64_t i = 1; i < n; i++) count[run[i - 1]][run[i]]++;
    for (int u = 0; u < 4; u++) {
        int64_t same = count[u][u];
        for (int v = 0; v < 4; v++) left[u] += count[u][v];
        away[u] = left[u] - same;
    }
    for (int u = 0; u < 4; u++) {
        if (!left[u]) continue;
        for (int w = u; !(joined >> w & 1); w = last[w]) {
            int64_t same = count[w][w];
            count[w][w] = 0; /* a loop would be erased from the walk */
            last[w] = reached(count[w], (int64_t)drawn(state, (uint64_t)away[w]));
            count[w][w] = same;
        }
        for (int w = u; !(joined >> w & 1); w = last[w]) joined |= 1 << w;
    }
    for (int u = 0; u < 4; u++)
        if (u != root && left[u]) count[u][last[u]]--, left[u]--;
    for (int64_t i = 1, u = run[0]; i < n; i++) {
        if (left[u]) {
            int v = reached(count[u], (int64_t)drawn(state, (uint64_t)left[u]));
            count[u][v]--, left[u]--;
            run[i] = (int8_t)v;
        } else run[i] = (int8_t)last[u];
        u = run[i];
    }
}

/* Rows of base codes, each run of known bases shuffled by the key of its row. */
void genodl_shuffled(const int8_t *codes, int64_t rows, int64_t length, const uint64_t *keys, int8_t *out) {
    memcpy(out, codes, (size_t)(rows * length));
    for (int64_t r = 0; r < rows; r++) {
        uint64_t state = mixed(keys[r]);
        int8_t *row = out + r * length;
        for (int64_t at = 0, stop; at < length; at = stop + 1) {
            for (stop = at; stop < length && row[stop] >= 0 && row[stop] < 4;) stop++;
            if (stop - at > 3) shuffle_run(row + at, stop - at, &state); /* shorter ones have one path */
        }
    }
}
