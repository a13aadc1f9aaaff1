/* Evidence: stored so that no reader accepts a torn copy, and told in one sentence. */
#include "guard/evidence.h"

#include "base/text.h"

#include <string.h>

#define CODE_BYTES 7

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t wr_seal(const uint64_t *words, unsigned count)
{
    uint64_t seal = UINT64_C(0x9e3779b97f4a7c15);
    for (unsigned i = 0; i < count; i++) seal = mix(seal ^ words[i]) + UINT64_C(0x9e3779b97f4a7c15);
    return seal;
}

/* ---- failure codes ---- */

void wr_codes_add(struct wr_codes *codes, uint32_t generation, const char *code)
{
    if (code == NULL || code[0] == '\0') return;
    unsigned char bytes[8] = {0};
    memcpy(bytes, code, strnlen(code, CODE_BYTES));
    bytes[CODE_BYTES] = (unsigned char)generation;
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    uint32_t place = atomic_fetch_add_explicit(&codes->next, 1, memory_order_relaxed);
    atomic_store_explicit(&codes->code[place % WR_CODES], word, memory_order_relaxed);
}

/* What another process left in the memory goes to terminals and logs, so only printable ASCII passes. */
static void copy_printable(char out[8], const unsigned char bytes[8])
{
    for (int i = 0; i < CODE_BYTES; i++) {
        bool printable = bytes[i] >= 0x20 && bytes[i] < 0x7f;
        out[i] = (char)(printable || bytes[i] == '\0' ? bytes[i] : '?');
    }
    out[CODE_BYTES] = '\0';
}

void wr_codes_read(const struct wr_codes *codes, uint32_t generation, char out[WR_CODES][8])
{
    memset(out, 0, WR_CODES * sizeof out[0]);
    uint32_t next = atomic_load_explicit(&codes->next, memory_order_relaxed);
    unsigned found = 0;
    for (uint32_t back = 1; back <= WR_CODES; back++) {
        uint64_t word = atomic_load_explicit(&codes->code[(next - back) % WR_CODES], memory_order_relaxed);
        unsigned char bytes[8];
        memcpy(bytes, &word, sizeof bytes);
        if (bytes[0] == '\0' || bytes[CODE_BYTES] != (unsigned char)generation) continue;
        copy_printable(out[found++], bytes);
    }
}

/* ---- the record of a move ---- */

static uint64_t bits_of(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

static void pack(const weir_evidence *evidence, uint64_t words[WR_EVIDENCE_WORDS])
{
    words[0] = (uint64_t)evidence->from | (uint64_t)evidence->to << 8 | (uint64_t)evidence->rule << 16 |
               (uint64_t)evidence->generation << 32;
    words[1] = (uint64_t)evidence->calls | (uint64_t)evidence->failures << 32;
    words[2] = evidence->slow;
    words[3] = bits_of(evidence->rate);
    words[4] = bits_of(evidence->threshold);
    words[5] = evidence->at_ns;
    memcpy(&words[6], evidence->codes, sizeof evidence->codes);
}

static void unpack(const uint64_t words[WR_EVIDENCE_WORDS], weir_evidence *out)
{
    *out = (weir_evidence){
        .from = (weir_breaker_state)(words[0] & 0xff),
        .to = (weir_breaker_state)(words[0] >> 8 & 0xff),
        .rule = (weir_rule)(words[0] >> 16 & 0xff),
        .generation = (uint32_t)(words[0] >> 32),
        .calls = (uint32_t)words[1],
        .failures = (uint32_t)(words[1] >> 32),
        .slow = (uint32_t)words[2],
        .rate = double_of(words[3]),
        .threshold = double_of(words[4]),
        .at_ns = words[5],
    };
    for (unsigned i = 0; i < WR_CODES; i++) {
        unsigned char bytes[8];
        memcpy(bytes, &words[6 + i], sizeof bytes);
        copy_printable(out->codes[i], bytes);
    }
}

void wr_evidence_put(struct wr_evidence_log *log, const weir_evidence *evidence)
{
    uint64_t words[WR_EVIDENCE_WORDS];
    pack(evidence, words);
    struct wr_evidence_slot *slot = &log->slot[evidence->generation % WR_EVIDENCE_SLOTS];
    for (unsigned i = 0; i < WR_EVIDENCE_WORDS; i++) {
        atomic_store_explicit(&slot->word[i], words[i], memory_order_relaxed);
    }
    atomic_store_explicit(&slot->seal, wr_seal(words, WR_EVIDENCE_WORDS), memory_order_release);
}

static bool read_slot(const struct wr_evidence_slot *slot, weir_evidence *out)
{
    uint64_t seal = atomic_load_explicit(&slot->seal, memory_order_acquire);
    uint64_t words[WR_EVIDENCE_WORDS];
    for (unsigned i = 0; i < WR_EVIDENCE_WORDS; i++) {
        words[i] = atomic_load_explicit(&slot->word[i], memory_order_relaxed);
    }
    if (seal != wr_seal(words, WR_EVIDENCE_WORDS)) return false;
    unpack(words, out);
    return true;
}

bool wr_evidence_get(const struct wr_evidence_log *log, uint32_t generation, weir_evidence *out)
{
    for (uint32_t back = 0; back < WR_EVIDENCE_SLOTS; back++) {
        uint32_t wanted = generation - back;
        if (read_slot(&log->slot[wanted % WR_EVIDENCE_SLOTS], out) && out->generation == wanted) return true;
    }
    *out = (weir_evidence){0};
    return false;
}

/* ---- in words ---- */

static const char *const state_names[] = {
    [WEIR_CLOSED] = "CLOSED",
    [WEIR_OPEN] = "OPEN",
    [WEIR_HALF_OPEN] = "HALF_OPEN",
    [WEIR_FORCED_OPEN] = "FORCED_OPEN",
    [WEIR_FORCED_CLOSED] = "FORCED_CLOSED",
    [WEIR_DISABLED] = "DISABLED",
    [WEIR_METRICS_ONLY] = "METRICS_ONLY",
};

const char *weir_breaker_state_name(weir_breaker_state state)
{
    unsigned index = (unsigned)state;
    return index < sizeof state_names / sizeof state_names[0] ? state_names[index] : "?";
}

static const char *plural(uint32_t n)
{
    return n == 1 ? "" : "s";
}

static void tell_rule(const weir_evidence *e, char *out, size_t size)
{
    switch (e->rule) {
    case WEIR_RULE_FAILURE_RATE:
    case WEIR_RULE_SLOW_RATE:
        wr_text_format(out, size, "%s rate %.2f >= %.2f over %u call%s",
                       e->rule == WEIR_RULE_SLOW_RATE ? "slow" : "failure", e->rate, e->threshold, e->calls,
                       plural(e->calls));
        break;
    case WEIR_RULE_CONSECUTIVE:
        wr_text_format(out, size, "%.0f failures in a row, limit %.0f", e->rate, e->threshold);
        break;
    case WEIR_RULE_OPEN_ENDED:
        wr_text_copy(out, size, "its open time has passed");
        break;
    case WEIR_RULE_PROBE:
        wr_text_copy(out, size, "a background probe succeeded");
        break;
    case WEIR_RULE_HALF_OPEN_PASSED:
        wr_text_format(out, size, "probes passed: %u of %u failed, %u slow", e->failures, e->calls, e->slow);
        break;
    case WEIR_RULE_HALF_OPEN_FAILED:
        wr_text_format(out, size, "probes failed: %u of %u failed, %u slow, rate %.2f >= %.2f", e->failures,
                       e->calls, e->slow, e->rate, e->threshold);
        break;
    case WEIR_RULE_HALF_OPEN_WAIT:
        wr_text_format(out, size, "half-open without judgement in time, %u verdict%s", e->calls,
                       plural(e->calls));
        break;
    case WEIR_RULE_OPERATOR:
        wr_text_format(out, size, "an operator moved it to %s", weir_breaker_state_name(e->to));
        break;
    case WEIR_RULE_RESET:
        wr_text_copy(out, size, "it was reset");
        break;
    case WEIR_RULE_FORCE_ENDED:
        wr_text_copy(out, size, "the time is over for which it was forced");
        break;
    case WEIR_RULE_NONE:
    default:
        wr_text_copy(out, size, "it has not moved");
        break;
    }
}

/* ", last 53300, 57P03 x3": newest first, the same in a row told once. */
static void tell_codes(const weir_evidence *evidence, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0, next; i < WR_CODES; i = next) {
        const char *code = evidence->codes[i];
        for (next = i + 1; next < WR_CODES && strcmp(evidence->codes[next], code) == 0;) next++;
        if (code[0] == '\0') continue;
        used += wr_text_format(out + used, size - used, "%s%.7s", used == 0 ? ", last " : ", ", code);
        if (next - i > 1) used += wr_text_format(out + used, size - used, " x%u", next - i);
    }
}

const char *weir_evidence_text(const weir_evidence *evidence, char *out, size_t size)
{
    char codes[WR_CODES * 12 + 8];
    tell_codes(evidence, codes, sizeof codes);
    char rule[WEIR_WHY_MAX];
    tell_rule(evidence, rule, sizeof rule);
    wr_text_format(out, size, "%s%s", rule, codes);
    return out;
}
