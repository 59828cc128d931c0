/* Compiled inner loops of genetics/calling, loaded through ctypes by kernels.py: records of a BAM, what they say base by
 * base of a stretch of reference, and how likely haplotypes make them.
 *
 * Records stay the bytes that htslib wrote (SAM specification, section 4.2); an array says where each begins. Positions
 * are 0-based, intervals half-open. `records` checks every length that the others rely on.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__)
#define WIDE __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

typedef uint8_t u8;

enum { MATCH, INSERTION, DELETION, SKIP, SOFT, HARD, PADDING, EQUAL, DIFFERENT };
enum { FIXED = 32, REVERSE = 16, UNKNOWN_QUALITY = 0xff, ASSUMED_QUALITY = 25 };

static const u8 CODE[16] = {4, 0, 1, 4, 2, 4, 4, 4, 3, 4, 4, 4, 4, 4, 4, 4}; /* =ACMGRSVTWYHKDBN: A, C, G, T, or none */

typedef struct {
    const u8 *cigar, *bases;
    u8 *qualities;
    int64_t pos;
    int operations, length, reverse;
} Read;

static uint32_t word(const u8 *at) {
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}

static Read read_at(u8 *data, int64_t at) {
    const u8 *r = data + at;
    Read read;
    uint16_t operations, flag;
    memcpy(&operations, r + 16, 2);
    memcpy(&flag, r + 18, 2);
    read.pos = (int32_t)word(r + 8);
    read.operations = operations;
    read.length = (int)word(r + 20);
    read.reverse = !!(flag & REVERSE);
    read.cigar = r + FIXED + 4 + r[12];
    read.bases = read.cigar + 4 * (int64_t)operations;
    read.qualities = (u8 *)read.bases + (read.length + 1) / 2;
    return read;
}

static inline int base_of(const Read *read, int i) {
    return CODE[i & 1 ? read->bases[i >> 1] & 15 : read->bases[i >> 1] >> 4];
}

static inline int quality_of(const Read *read, int i) {
    int q = read->qualities[i];
    return q == UNKNOWN_QUALITY ? ASSUMED_QUALITY : q;
}

static const u8 ON_READ[9] = {1, 1, 0, 0, 1, 0, 0, 1, 1}, ON_REFERENCE[9] = {1, 0, 1, 1, 0, 0, 0, 1, 1};

/* Records from `from` on: where each begins, its position and end on the reference, flags, mapping quality, a hash of
 * its name. How many; -1 for one that is no whole record, -2 for more than `room`. */
int64_t genodl_records(const u8 *data, int64_t size, int64_t from, int64_t room, int64_t *at, int32_t *pos, int32_t *end,
                       uint16_t *flag, u8 *quality, uint64_t *name) {
    int64_t n = 0;
    while (from < size) {
        if (size - from < FIXED + 4) return -1;
        const u8 *r = data + from;
        int64_t length = (int32_t)word(r), names = r[12], bases = (int32_t)word(r + 20);
        uint16_t operations;
        memcpy(&operations, r + 16, 2);
        if (length < FIXED || length > size - from - 4 || bases < 0 || names < 1) return -1;
        if (FIXED + names + 4 * (int64_t)operations + (bases + 1) / 2 + bases > length) return -1;
        if (n == room) return -2;
        const u8 *cigar = r + FIXED + 4 + names;
        int64_t on_read = 0, on_reference = 0;
        for (int k = 0; k < operations; k++) {
            uint32_t op = word(cigar + 4 * k), kind = op & 15, count = op >> 4;
            if (kind > DIFFERENT) return -1;
            on_read += ON_READ[kind] * (int64_t)count;
            on_reference += ON_REFERENCE[kind] * (int64_t)count;
        }
        int64_t start = (int32_t)word(r + 8);
        if (start < -1 || (bases && operations && on_read != bases) || start + on_reference > INT32_MAX) return -1;
        if (start < 0) on_reference = 0; /* it has no place, whatever its CIGAR says */
        uint64_t hash = 0xcbf29ce484222325u;
        for (int k = 0; k + 1 < names; k++) hash = (hash ^ r[FIXED + 4 + k]) * 0x100000001b3u;
        hash ^= hash >> 31;
        hash *= 0x9e3779b97f4a7c15u;
        at[n] = from;
        pos[n] = (int32_t)start;
        end[n] = (int32_t)(start + on_reference);
        memcpy(flag + n, r + 18, 2);
        quality[n] = r[13];
        name[n++] = hash ^ hash >> 29;
        from += length + 4;
    }
    return n;
}

/* The index on the read of the base aligned to each of [from, to) of the reference, -1 where there is none. */
static void aligned(const Read *read, int64_t from, int64_t to, int32_t *index) {
    for (int64_t p = from; p < to; p++) index[p - from] = -1;
    int64_t p = read->pos;
    int i = 0;
    for (int k = 0; k < read->operations && p < to; k++) {
        uint32_t op = word(read->cigar + 4 * k), kind = op & 15;
        int count = (int)(op >> 4);
        if (kind == MATCH || kind == EQUAL || kind == DIFFERENT)
            for (int64_t x = p < from ? from : p; x < p + count && x < to; x++) index[x - from] = i + (int32_t)(x - p);
        if (ON_READ[kind]) i += count;
        if (ON_REFERENCE[kind]) p += count;
    }
}

/* Mates that overlap were read off one molecule: where both show the same base the better one keeps its quality and the
 * other gets 0, where they differ the better one keeps what it has more. -1 without memory. */
int64_t genodl_mates(u8 *data, const int64_t *first, const int64_t *second, const int32_t *from, const int32_t *to,
                     int64_t n) {
    int64_t longest = 0;
    for (int64_t k = 0; k < n; k++)
        if (to[k] - from[k] > longest) longest = to[k] - from[k];
    int32_t *a = malloc((size_t)(longest + 1) * 2 * sizeof *a), *b = a + longest + 1;
    if (!a) return -1;
    for (int64_t k = 0; k < n; k++) {
        Read one = read_at(data, first[k]), other = read_at(data, second[k]);
        if (!one.length || !other.length) continue;
        aligned(&one, from[k], to[k], a);
        aligned(&other, from[k], to[k], b);
        for (int64_t x = 0; x < to[k] - from[k]; x++) {
            if (a[x] < 0 || b[x] < 0) continue;
            int p = quality_of(&one, a[x]), q = quality_of(&other, b[x]);
            int same = base_of(&one, a[x]) == base_of(&other, b[x]);
            int high = p >= q ? p : q, low = p >= q ? q : p;
            u8 left = (u8)(same ? high : high - low);
            one.qualities[a[x]] = p >= q ? left : 0;
            other.qualities[b[x]] = p >= q ? 0 : left;
        }
    }
    free(a);
    return 0;
}

/* What reads say of [start, start + length) of the reference. `counts` uint16 (length, 2 strands, 8): A, C, G, T of at
 * least `least` quality; bases of less, or none; deleted; an insertion follows; a clip of 5 or more begins or ends here.
 * Insertions and deletions, moved as far left as they go, as events: `where` (anchor base), `size` (> 0 bases inserted,
 * < 0 deleted), `text` (where the inserted bases stand in `pool`), `of` (which read). How many events; -1 where they do
 * not fit, -2 where the pool is full. */
int64_t genodl_pileup(u8 *data, const int64_t *at, int64_t n, const u8 *reference, int64_t start, int64_t length,
                      int least, uint16_t *counts, int64_t room, int32_t *where, int32_t *size, int32_t *of,
                      int64_t *text, int64_t pool_room, u8 *pool) {
    static const char letters[6] = "ACGTN";
    int64_t found = 0, pooled = 0, stop = start + length;
#define COUNT(p, what) \
    do { \
        if ((p) >= start && (p) < stop) { \
            uint16_t *c = counts + ((p) - start) * 16 + read.reverse * 8 + (what); \
            *c += *c < UINT16_MAX; \
        } \
    } while (0)
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        if (!read.length) continue;
        int64_t p = read.pos;
        int i = 0;
        for (int k = 0; k < read.operations; k++) {
            uint32_t op = word(read.cigar + 4 * k), kind = op & 15;
            int count = (int)(op >> 4);
            if (kind == MATCH || kind == EQUAL || kind == DIFFERENT) {
                for (int x = 0; x < count; x++) {
                    int base = base_of(&read, i + x), quality = quality_of(&read, i + x);
                    if (quality > 0) COUNT(p + x, quality < least ? 4 : base);
                }
            } else if (kind == SOFT && count >= 5) {
                COUNT(i ? p - 1 : p, 7);
            } else if (count && (kind == INSERTION || kind == DELETION)) {
                int inner = i > 0 && i < read.length && p - 1 >= start && p + count < stop;
                if (kind == DELETION)
                    for (int64_t x = p < start ? start : p; x < p + count && x < stop; x++) COUNT(x, 5);
                if (inner) { /* at an end of a read it says nothing of how long it is */
                    int64_t anchor = p - 1;
                    if (found == room) return -1;
                    if (kind == INSERTION) {
                        int64_t sum = 0;
                        if (pooled + count > pool_room) return -2;
                        for (int x = 0; x < count; x++) {
                            pool[pooled + x] = (u8)letters[base_of(&read, i + x)];
                            sum += quality_of(&read, i + x);
                        }
                        if (sum < (int64_t)least * count) inner = 0;
                        int turned = 0; /* the last base goes first as long as it is that of the anchor, too */
                        while (inner && anchor > start && pool[pooled + (count - 1 - turned % count)] == reference[anchor - start] && turned < 1000) {
                            turned++;
                            anchor--;
                        }
                        if (inner && (turned %= count)) {
                            u8 kept[1000];
                            memcpy(kept, pool + pooled + count - turned, (size_t)turned);
                            memmove(pool + pooled + turned, pool + pooled, (size_t)(count - turned));
                            memcpy(pool + pooled, kept, (size_t)turned);
                        }
                        if (inner) {
                            text[found] = pooled;
                            pooled += count;
                        }
                    } else {
                        while (anchor > start && reference[anchor - start] == reference[anchor + count - start]) anchor--;
                        text[found] = 0;
                    }
                    if (inner) {
                        COUNT(anchor, 6);
                        where[found] = (int32_t)anchor;
                        size[found] = kind == INSERTION ? count : -count;
                        of[found++] = (int32_t)r;
                    }
                }
            }
            if (ON_READ[kind]) i += count;
            if (ON_REFERENCE[kind]) p += count;
        }
    }
#undef COUNT
    return found;
}

/* How often each read differs from [start, start + length) of the reference: bases of at least `least` quality, and
 * gaps, however long. `of`: its bases that lie there. */
void genodl_differences(u8 *data, const int64_t *at, int64_t n, const u8 *reference, int64_t start, int64_t length,
                        int least, int32_t *differences, int32_t *of) {
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        int64_t p = read.pos;
        int i = 0, differ = 0, over = 0;
        for (int k = 0; k < read.operations && read.length; k++) {
            uint32_t op = word(read.cigar + 4 * k), kind = op & 15;
            int count = (int)(op >> 4);
            if (kind == MATCH || kind == EQUAL || kind == DIFFERENT) {
                for (int x = 0; x < count; x++) {
                    int64_t at_reference = p + x - start;
                    if (at_reference < 0 || at_reference >= length) continue;
                    over++;
                    differ += "ACGTN"[base_of(&read, i + x)] != reference[at_reference]
                              && quality_of(&read, i + x) >= least;
                }
            } else differ += kind == INSERTION || kind == DELETION;
            if (ON_READ[kind]) i += count;
            if (ON_REFERENCE[kind]) p += count;
        }
        differences[r] = differ;
        of[r] = over;
    }
}

/* ---- reads given haplotypes ---- */

enum { PERIODS = 6, UNITS = 32, SLACK = 6 };

/* Phred-scaled chance that a gap opens at each base: `table` (PERIODS, UNITS) has it for a whole short repeat, by its
 * period and number of units; its bases share it. Of several repeats the likeliest counts. */
static void gaps(const u8 *hap, int n, const u8 *table, const u8 *shared, u8 *open) {
    for (int j = 0; j < n; j++) open[j] = table[0 * UNITS + 1];
    for (int p = 1; p <= PERIODS; p++)
        for (int j = 0; j + p < n;) {
            int k = j;
            while (k + p < n && hap[k] == hap[k + p]) k++;
            int run = k - j + p, units = run / p;
            if (units > 1) {
                u8 q = (u8)(table[(p - 1) * UNITS + (units < UNITS ? units : UNITS - 1)] + shared[run < 255 ? run : 255]);
                for (int x = j; x < j + run; x++)
                    if (q < open[x]) open[x] = q;
            }
            j = k > j ? k : j + 1;
        }
}

/* The chance of bases b[0..m) given a haplotype, summed over all alignments that start and end anywhere on diagonals
 * [low, high] (Durbin et al. 1998, section 4.1, without ends): `error` by quality, `opens` by quality of the gap. */
WIDE static double forward(const u8 *b, const u8 *q, int m, const u8 *hap, const u8 *open, int n, int low, int high,
                           const double *error, double extend, double *work) {
    int width = high - low + 1;
    double *pm = work, *pi = pm + width + 2, *pd = pi + width + 2;
    double *cm = pd + width + 2, *ci = cm + width + 2, *cd = ci + width + 2;
    double total = 0;
    for (int x = 0; x < width + 2; x++) pm[x] = pi[x] = pd[x] = cm[x] = ci[x] = cd[x] = 0;
    for (int i = 0; i < m; i++) {
        double e = error[q[i]], hit = 1 - e, miss = e / 3, none = .25;
        /* cell x + 1 of a row is column i + low + x; one row up, the same diagonal is the same cell */
        for (int x = 0; x < width; x++) {
            int j = i + low + x;
            if (j < 0 || j >= n) {
                cm[x + 1] = ci[x + 1] = cd[x + 1] = 0;
                continue;
            }
            double gap = error[open[j]];
            double emit = b[i] > 3 ? none : hap[j] == "ACGT"[b[i]] ? hit : miss;
            double into = i == 0 ? 1. : pm[x + 1] * (1 - 2 * gap) + (pi[x + 1] + pd[x + 1]) * (1 - extend);
            cm[x + 1] = emit * into;
            /* as likely as a deletion: else reads of the shorter allele would count for the longer one */
            ci[x + 1] = i == 0 ? 0. : pm[x + 2] * gap + pi[x + 2] * extend;
            cd[x + 1] = x == 0 || j == 0 ? 0. : cm[x] * gap + cd[x] * extend;
        }
        double *t = pm;
        pm = cm, cm = t, t = pi, pi = ci, ci = t, t = pd, pd = cd, cd = t;
    }
    for (int x = 1; x <= width; x++) total += pm[x] + pi[x];
    return total;
}

/* How likely each of `k` haplotypes makes each of `n` reads: `likely` float64 (n, k), relative to one another in a row.
 * Haplotypes stand for [start, stop) of the reference, altered only within its [from, to), and of haplotype h the bytes
 * are text[starts[h] .. starts[h + 1]); the first is the reference. Of a read counts what lies within `flank` of the
 * altered part. `shared` uint8 (256): ten times the logarithm of a number of bases. -1 without memory. */
int64_t genodl_likely(u8 *data, const int64_t *at, int64_t n, const u8 *text, const int64_t *starts, int64_t k,
                      int64_t start, int64_t stop, int64_t from, int64_t to, int64_t flank, const u8 *table, const u8 *shared,
                      const double *error, double extend, double *likely) {
    int64_t most = 0;
    int gapped = 0;
    for (int64_t h = 0; h < k; h++) {
        int64_t size = starts[h + 1] - starts[h];
        if (size > most) most = size;
        gapped |= size != starts[1] - starts[0];
    }
    int64_t longest = 0;
    for (int64_t r = 0; r < n; r++) {
        int length = (int)word(data + at[r] + 20);
        if (length > longest) longest = length;
    }
    u8 *open = malloc((size_t)(starts[k] + 1)), *b = malloc((size_t)(2 * longest + 2)), *q = b + longest + 1;
    double *work = malloc(sizeof *work * 6 * (size_t)(most + longest + 64));
    if (!open || !b || !work) {
        free(open), free(b), free(work);
        return -1;
    }
    for (int64_t h = 0; h < k; h++) gaps(text + starts[h], (int)(starts[h + 1] - starts[h]), table, shared, open + starts[h]);
    int64_t lo = from - flank, hi = to + flank;
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        /* bases [first, last) of the read, aligned to [a, z) of the reference; clipped ones beside where there are gaps */
        int first = -1, last = -1, own = 0, i = 0, before = 0, after = 0;
        int64_t a = 0, z = 0, p = read.pos;
        for (int x = 0; x < read.operations; x++) {
            uint32_t op = word(read.cigar + 4 * x), kind = op & 15;
            int count = (int)(op >> 4);
            if (kind == MATCH || kind == EQUAL || kind == DIFFERENT) {
                int64_t l = p < lo ? lo : p, u = p + count > hi ? hi : p + count;
                if (l < u) {
                    if (first < 0) first = i + (int)(l - p), a = l;
                    last = i + (int)(u - p), z = u;
                }
            } else if (kind == SOFT) {
                if (first < 0) {
                    if (p >= lo) before = count;
                } else if (p <= hi) after = count;
            } else if ((kind == INSERTION || kind == DELETION) && p >= lo && p <= hi) own = 1;
            if (ON_READ[kind]) i += count;
            if (ON_REFERENCE[kind]) p += count;
        }
        double *row = likely + r * k;
        if (first < 0 || !read.length) { /* nothing of it is here, or its bases are not told */
            for (int64_t h = 0; h < k; h++) row[h] = 1;
            continue;
        }
        int aligned_left = a < from, aligned_right = z > to;
        if (gapped || own) {
            if (before > flank) before = (int)flank;
            if (after > flank) after = (int)flank;
            if (first - before < 0 || a != read.pos) before = 0;
            if (last + after > read.length || z != p) after = 0;
            first -= before, a -= before, last += after, z += after;
        }
        int m = last - first;
        for (int x = 0; x < m; x++) {
            int quality = quality_of(&read, first + x);
            b[x] = quality < 6 ? 4 : (u8)base_of(&read, first + x);
            q[x] = (u8)(quality > 93 ? 93 : quality);
        }
        for (int64_t h = 0; h < k; h++) {
            const u8 *hap = text + starts[h];
            int length = (int)(starts[h + 1] - starts[h]);
            if (!gapped && !own) { /* the aligner's word is taken where nothing says otherwise */
                double product = 1;
                int d = (int)(a - start);
                for (int x = 0; x < m; x++) {
                    int j = d + x;
                    if (j < 0 || j >= length) continue;
                    double e = error[q[x]];
                    product *= b[x] > 3 ? .25 : hap[j] == "ACGT"[b[x]] ? 1 - e : e / 3;
                }
                row[h] = product;
                continue;
            }
            int change = length - (int)(starts[1] - starts[0]), widest = change < 0 ? -change : change;
            int d0 = (int)(a - start), d1 = length - (int)(stop - z) - m;
            int low, high;
            if (aligned_left && aligned_right) {
                low = d0 < d1 ? d0 : d1, high = d0 < d1 ? d1 : d0;
            } else if (aligned_right) {
                low = d1 - widest, high = d1 + widest;
            } else {
                low = d0 - widest, high = d0 + widest;
            }
            if (own && !(aligned_left && aligned_right)) low -= SLACK, high += SLACK;
            low = low - SLACK < -m ? -m : low - SLACK;
            high = high + SLACK > length ? length : high + SLACK;
            row[h] = low > high ? 0 : forward(b, q, m, hap, open + starts[h], length, low, high, error, extend, work);
        }
    }
    free(open), free(b), free(work);
    return 0;
}

/* ---- reads as an image around a candidate ---- */

enum { BASE, QUALITY, MAPPING, STRAND, SUPPORT, DIFFERS, CHANNELS };
enum { IMAGE_UNKNOWN = 5, IMAGE_DELETED = 6, SEEN = 4, BESIDE = 50 };

static int letter_code(u8 letter) {
    switch (letter) {
    case 'A': return 1;
    case 'C': return 2;
    case 'G': return 3;
    case 'T': return 4;
    default: return IMAGE_UNKNOWN;
    }
}

/* Reads around base `centre` of the reference. `image` uint8 (6, rows, width), zeros before: of read r, in row row[r]
 * if that is not negative: the base (1 to 4: A, C, G, T; 5 another; 6 deleted; 0 none), its quality, the read's mapping
 * quality, its strand (1 forward, 2 reverse), `support`, and how it differs from the reference (1 the base does; 2 an
 * insertion follows; 3 both). Row 0 has the bases of the reference. `seen` uint8 (n, 4): quality of the base at the
 * centre, or of the one before it; bases from there to the nearer end of the read; bases within 50 of the centre that
 * differ, gaps as one; whether the read is clipped there. */
int64_t genodl_image(u8 *data, const int64_t *at, int64_t n, const u8 *mapping, const u8 *support, const int32_t *row,
                     const u8 *reference, int64_t start, int64_t length, int64_t centre, int64_t rows, int64_t width,
                     u8 *image, u8 *seen) {
    int64_t left = centre - width / 2, plane = rows * width;
    for (int64_t x = 0; x < width; x++)
        if (left + x >= start && left + x < start + length) image[x] = (u8)letter_code(reference[left + x - start]);
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        u8 *own = row[r] < 0 ? NULL : image + row[r] * width;
        u8 *told = seen + r * SEEN;
        int64_t p = read.pos, near = 0, different = 0, clipped = 0;
        int i = 0;
        memset(told, 0, SEEN);
        if (!read.length) continue;
#define CELL(p, base, quality, change) \
    do { \
        int64_t c_ = (p) - left; \
        if (own && c_ >= 0 && c_ < width) { \
            own[c_ + BASE * plane] = (u8)(base), own[c_ + QUALITY * plane] = (u8)(quality); \
            own[c_ + MAPPING * plane] = mapping[r], own[c_ + STRAND * plane] = (u8)(1 + read.reverse); \
            own[c_ + SUPPORT * plane] = support[r], own[c_ + DIFFERS * plane] |= (u8)(change); \
        } \
    } while (0)
        for (int k = 0; k < read.operations; k++) {
            uint32_t op = word(read.cigar + 4 * k), kind = op & 15;
            int count = (int)(op >> 4);
            int beside = p >= centre - BESIDE && p <= centre + BESIDE;
            if (kind == MATCH || kind == EQUAL || kind == DIFFERENT) {
                for (int x = 0; x < count; x++) {
                    int64_t place = p + x - start;
                    int base = base_of(&read, i + x), quality = quality_of(&read, i + x), known = base < 4 ? base + 1 : IMAGE_UNKNOWN;
                    int other = place >= 0 && place < length && known < IMAGE_UNKNOWN && letter_code(reference[place]) != known;
                    CELL(p + x, known, quality, other);
                    if (other && p + x >= centre - BESIDE && p + x <= centre + BESIDE) different++;
                    if (p + x <= centre) near = i + x;
                }
            } else if (kind == DELETION) {
                int quality = i > 0 ? quality_of(&read, i - 1) : 0;
                for (int x = 0; x < count; x++) CELL(p + x, IMAGE_DELETED, quality, 1);
                different += beside;
            } else if (kind == INSERTION) {
                if (p > read.pos) CELL(p - 1, own && p - 1 >= left && p - 1 < left + width ? own[p - 1 - left] : 0, i > 0 ? quality_of(&read, i - 1) : 0, 2);
                different += beside;
            } else if (kind == SOFT) clipped |= beside;
            if (ON_READ[kind]) i += count;
            if (ON_REFERENCE[kind]) p += count;
        }
#undef CELL
        int64_t end = near < read.length - 1 - near ? near : read.length - 1 - near;
        told[0] = (u8)quality_of(&read, (int)near);
        told[1] = (u8)(end < 255 ? end : 255);
        told[2] = (u8)(different < 255 ? different : 255);
        told[3] = (u8)clipped;
    }
    return 0;
}

/* How often short units stand one after the other around the boundary before base `at` of letters (n): `units` uint8
 * (6) by period; 1 where a unit stands alone. */
void genodl_units(const u8 *letters, int64_t n, int64_t at, u8 *units) {
    for (int p = 1; p <= PERIODS; p++) {
        int64_t most = p;
        for (int64_t from = at - p; from <= at; from++) { /* runs that touch the boundary */
            if (from < 0 || from + p > n) continue;
            int64_t k = from, b = from;
            while (k + p < n && letters[k] == letters[k + p]) k++;
            while (b > 0 && letters[b - 1] == letters[b - 1 + p]) b--;
            if (k + p - b > most) most = k + p - b;
        }
        units[p - 1] = (u8)(most / p < 255 ? most / p : 255);
    }
}

/* ---- errors of reads: counted, and added ---- */

enum { QUALITIES = 94, RUNS = 32 };

/* Lengths of the runs of one base that begin at each of letters (n), 0 where none begins; RUNS - 1 at most. */
static void runs_of(const u8 *letters, int64_t n, u8 *length) {
    for (int64_t j = 0; j < n;) {
        int64_t k = j;
        while (k < n && letters[k] == letters[j]) k++;
        memset(length + j, 0, (size_t)(k - j));
        length[j] = (u8)(k - j < RUNS ? k - j : RUNS - 1);
        j = k;
    }
}

/* Errors of reads where `sure` uint8 (length) says that the genome is the reference: `bases` int64 (94, 2) by quality,
 * all and those that differ; `slips` int64 (32, 2) by the length of a run of one base with a base of the read on either
 * side of it, all and those with an insertion or deletion in them. -1 without memory. */
int64_t genodl_errors(u8 *data, const int64_t *at, int64_t n, const u8 *reference, int64_t start, int64_t length,
                      const u8 *sure, int64_t *bases, int64_t *slips) {
    u8 *run = malloc((size_t)length + 1), *changed = malloc((size_t)length + 1);
    if (!run || !changed) {
        free(run), free(changed);
        return -1;
    }
    runs_of(reference, length, run);
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        if (!read.length) continue;
        int64_t p = read.pos - start, first = p;
        int i = 0;
        for (int k = 0; k < read.operations; k++) { /* clear what this read covers */
            uint32_t op = word(read.cigar + 4 * k);
            if (ON_REFERENCE[op & 15]) p += op >> 4;
        }
        int64_t from = first < 0 ? 0 : first, to = p < length ? p : length;
        if (from < to) memset(changed + from, 0, (size_t)(to - from));
        p = first;
        for (int k = 0; k < read.operations; k++) {
            uint32_t op = word(read.cigar + 4 * k), kind = op & 15;
            int count = (int)(op >> 4);
            if (kind == MATCH || kind == EQUAL || kind == DIFFERENT) {
                for (int x = 0; x < count; x++) {
                    int64_t j = p + x;
                    if (j < 0 || j >= length || !sure[j]) continue;
                    int base = base_of(&read, i + x), code = letter_code(reference[j]);
                    if (base > 3 || code > 4) continue;
                    int64_t *cell = bases + 2 * (quality_of(&read, i + x) < QUALITIES ? quality_of(&read, i + x) : QUALITIES - 1);
                    cell[0]++, cell[1] += base + 1 != code;
                }
            } else if ((kind == INSERTION || kind == DELETION) && p >= from && p < to) changed[p] = 1;
            if (ON_READ[kind]) i += count;
            if (ON_REFERENCE[kind]) p += count;
        }
        for (int64_t j = from + 1; j < to; j++) {
            int size = run[j];
            if (!size || !sure[j] || j + size >= to) continue;
            int slipped = 0;
            for (int x = 0; x < size; x++) slipped |= changed[j + x];
            slips[2 * size]++, slips[2 * size + 1] += slipped;
        }
    }
    free(run), free(changed);
    return 0;
}

static uint64_t mixed(uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double chance(uint64_t state) { return (double)(mixed(state) >> 11) * 0x1p-53; }

/* Reads with errors added: a base of quality q is another one with a chance of `rates`[q], and a run of one base of the
 * reference, within an aligned stretch and 3 bases or more off its ends, loses or gains a base with a chance of
 * `slips`[length of the run]. What happens to a read depends on the hash of its name, its flag and `seed` alone. Records
 * without tags go to `out` (room bytes), where they begin to out_at. Bytes written; -1 where they do not fit or without
 * memory. */
int64_t genodl_misread(u8 *data, const int64_t *at, int64_t n, const uint64_t *name, const u8 *reference, int64_t start,
                       int64_t length, const double *rates, const double *slips, uint64_t seed, int64_t room, u8 *out,
                       int64_t *out_at) {
    static const u8 NIBBLE[4] = {1, 2, 4, 8};
    int64_t used = 0, result = -1;
    int longest = 0, most = 0;
    for (int64_t r = 0; r < n; r++) {
        Read read = read_at(data, at[r]);
        if (read.length > longest) longest = read.length;
        if (read.operations > most) most = read.operations;
    }
    u8 *run = malloc((size_t)length + 1), *bases = malloc((size_t)(4 * longest + 4)), *qualities = bases + 2 * longest + 2;
    uint32_t *ops = malloc(sizeof *ops * (size_t)(most + 4 * longest + 8));
    if (!run || !bases || !ops) goto end;
    runs_of(reference, length, run);
    for (int64_t r = 0; r < n; r++) {
        const u8 *record = data + at[r];
        Read read = read_at(data, at[r]);
        uint16_t flag;
        memcpy(&flag, record + 18, 2);
        uint64_t state = mixed(name[r] ^ seed) + (uint64_t)flag * 0x9e3779b97f4a7c15u;
        int64_t p = read.pos;
        int i = 0, m = 0, total = 0;
#define PUT(kind, size) \
    do { \
        if (total && (ops[total - 1] & 15) == (uint32_t)(kind)) ops[total - 1] += (uint32_t)(size) << 4; \
        else ops[total++] = (uint32_t)(size) << 4 | (uint32_t)(kind); \
    } while (0)
        for (int k = 0; k < read.operations; k++) {
            uint32_t op = word(read.cigar + 4 * k), kind = op & 15;
            int count = (int)(op >> 4);
            if ((kind == MATCH || kind == EQUAL || kind == DIFFERENT) && read.length) {
                for (int x = 0; x < count; x++, i++) {
                    int64_t j = p + x - start;
                    int size = j > 0 && j < length ? run[j] : 0, skip = 0;
                    state += 0x9e3779b97f4a7c15u;
                    int base = base_of(&read, i), quality = read.qualities[i];
                    if (size && x >= 3 && x + size + 3 <= count && chance(state ^ 0x5bd1e995u) < slips[size]) {
                        if (mixed(state ^ 0x1b873593u) & 1) {
                            PUT(DELETION, 1);
                            skip = 1;
                        } else {
                            bases[m] = base > 3 ? 15 : NIBBLE[base], qualities[m++] = (u8)quality;
                            PUT(INSERTION, 1);
                        }
                    }
                    if (skip) continue;
                    int known = quality_of(&read, i) < QUALITIES ? quality_of(&read, i) : QUALITIES - 1;
                    if (base < 4 && chance(state) < rates[known]) base = (base + 1 + (int)(mixed(state ^ 0xcc9e2d51u) % 3)) & 3;
                    bases[m] = base > 3 ? 15 : NIBBLE[base], qualities[m++] = (u8)quality;
                    PUT(MATCH, 1);
                }
            } else {
                if (ON_READ[kind] && read.length)
                    for (int x = 0; x < count; x++, i++) {
                        int base = base_of(&read, i);
                        bases[m] = base > 3 ? 15 : NIBBLE[base], qualities[m++] = read.qualities[i];
                    }
                PUT(kind, count);
            }
            if (ON_REFERENCE[kind]) p += count;
        }
#undef PUT
        int64_t named = FIXED + 4 + record[12], size = named + 4 * (int64_t)total + (m + 1) / 2 + m;
        if (used + size > room || total > UINT16_MAX) goto end;
        u8 *to = out + used;
        memcpy(to, record, (size_t)named);
        uint32_t block = (uint32_t)(size - 4), letters = (uint32_t)m;
        uint16_t operations = (uint16_t)total;
        memcpy(to, &block, 4), memcpy(to + 16, &operations, 2), memcpy(to + 20, &letters, 4);
        memcpy(to + named, ops, 4 * (size_t)total);
        u8 *packed = to + named + 4 * total;
        memset(packed, 0, (size_t)(m + 1) / 2);
        for (int x = 0; x < m; x++) packed[x >> 1] |= (u8)(x & 1 ? bases[x] : bases[x] << 4);
        memcpy(packed + (m + 1) / 2, qualities, (size_t)m);
        out_at[r] = used;
        used += size;
    }
    result = used;
end:
    free(run), free(bases), free(ops);
    return result;
}
