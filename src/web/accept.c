/* Accept headers, see accept.h. One pass, no copies, no memory: what does not parse does not match. */
#include "web/accept.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

enum specificity { NO_MATCH = 0, ANYTHING, ANY_SUBTYPE, BY_NAME, BY_VERSION };

struct match {
    enum specificity how;
    int thousandths; /* of q */
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(const char **from, const char **to)
{
    while (*from < *to && is_space(**from)) ++*from;
    while (*from < *to && is_space((*to)[-1])) --*to;
}

static bool is_word(const char *from, const char *to, const char *word)
{
    return (size_t)(to - from) == strlen(word) && strncasecmp(from, word, strlen(word)) == 0;
}

/* End of the part that begins at `from` and is closed by `mark`, which does not count inside quotes. */
static const char *part_end(const char *from, const char *to, char mark)
{
    bool quoted = false;
    for (; from < to && (quoted || *from != mark); from++) {
        if (*from == '"') quoted = !quoted;
        if (quoted && *from == '\\' && from + 1 < to) from++;
    }
    return from;
}

/* "0.123" in thousandths; what is no such number counts as 1. */
static int quality(const char *from, const char *to)
{
    int value = 0, unit = 1000;
    if (from == to || (*from != '0' && *from != '1')) return 1000;
    value = (*from++ - '0') * 1000;
    if (from < to && *from++ != '.') return 1000;
    for (; from < to && *from >= '0' && *from <= '9' && unit > 1; from++) {
        unit /= 10;
        value += (*from - '0') * unit;
    }
    return value > 1000 ? 1000 : value;
}

static enum specificity compare_types(const char *from, const char *to, const char *type)
{
    const char *slash = memchr(from, '/', (size_t)(to - from));
    size_t family = (size_t)(strchr(type, '/') - type);
    if (is_word(from, to, type)) return BY_NAME;
    if (is_word(from, to, "*/*")) return ANYTHING;
    bool same_family =
        slash != NULL && (size_t)(slash - from) == family && strncasecmp(from, type, family) == 0;
    return same_family && is_word(slash, to, "/*") ? ANY_SUBTYPE : NO_MATCH;
}

static void apply_parameter(struct match *match, const char *from, const char *to, struct wr_form form)
{
    trim(&from, &to);
    const char *equals = memchr(from, '=', (size_t)(to - from));
    if (equals == NULL) return;
    const char *value = equals + 1;
    if (to - value >= 2 && *value == '"' && to[-1] == '"') {
        value++;
        to--;
    }
    if (is_word(from, equals, "q")) {
        match->thousandths = quality(value, to);
    } else if (is_word(from, equals, "version") && match->how >= BY_NAME && form.version != NULL) {
        match->how = is_word(value, to, form.version) ? BY_VERSION : NO_MATCH;
    }
}

static struct match match_range(const char *from, const char *to, struct wr_form form)
{
    const char *end = part_end(from, to, ';'), *type_end = end;
    trim(&from, &type_end);
    struct match match = {compare_types(from, type_end, form.type), 1000};
    while (end < to && match.how != NO_MATCH) {
        const char *next = part_end(end + 1, to, ';');
        apply_parameter(&match, end + 1, next, form);
        end = next;
    }
    return match;
}

static struct match best_match(const char *accept, struct wr_form form)
{
    const char *to = accept + strlen(accept);
    struct match best = {NO_MATCH, 0};
    for (;;) {
        const char *end = part_end(accept, to, ',');
        struct match match = match_range(accept, end, form);
        if (match.how > best.how) best = match;
        if (end == to) return best;
        accept = end + 1;
    }
}

bool wr_accept_special(const char *accept, struct wr_form special, struct wr_form plain)
{
    if (accept == NULL) return false;
    struct match wanted = best_match(accept, special), other = best_match(accept, plain);
    if (wanted.how == NO_MATCH || wanted.thousandths == 0) return false;
    if (other.how == NO_MATCH || wanted.thousandths > other.thousandths) return true;
    return wanted.thousandths == other.thousandths && wanted.how >= BY_NAME;
}
