#include "exposition.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 4096, SERIES = 40000, NAME = 128 };

struct checker {
    bool open_metrics, ended;
    int number;
    char fault[LINE + 256];
    char family[NAME], type[16], unit[16];
    bool has_help, has_type, has_samples;
    char bucket_of[LINE]; /* the labels of the histogram whose buckets are being read */
    double below, infinite;
    char set_of[LINE]; /* the labels of the state set that is being read */
    int ones;
    char **series;
    size_t count;
};

static bool wrong(struct checker *c, const char *format, ...)
{
    char text[LINE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(c->fault, sizeof c->fault, "line %d: %s", c->number, text);
    return false;
}

static bool ends_in(const char *text, const char *end)
{
    size_t length = strlen(text), of_end = strlen(end);
    return length >= of_end && strcmp(text + length - of_end, end) == 0;
}

/* ---- comments ---- */

static bool end_family(struct checker *c)
{
    if (c->family[0] == '\0') return true;
    if (!c->has_type || !c->has_help) return wrong(c, "%s has no TYPE or no HELP", c->family);
    bool seconds = ends_in(c->family, "_seconds");
    if (c->open_metrics && seconds != (strcmp(c->unit, "seconds") == 0))
        return wrong(c, "%s has unit '%s'", c->family, c->unit);
    if (c->set_of[0] != '\0' && c->ones != 1) return wrong(c, "%s has %d states", c->family, c->ones);
    c->set_of[0] = c->bucket_of[0] = '\0';
    return true;
}

static bool begin_family(struct checker *c, const char *name)
{
    if (!end_family(c)) return false;
    char last[NAME];
    snprintf(last, sizeof last, "%s", c->family);
    if (!c->open_metrics && ends_in(last, "_total")) last[strlen(last) - 6] = '\0';
    snprintf(c->family, sizeof c->family, "%s", name);
    char next[NAME];
    snprintf(next, sizeof next, "%s", name);
    if (!c->open_metrics && ends_in(next, "_total")) next[strlen(next) - 6] = '\0';
    if (!c->open_metrics && ends_in(next, "_info")) next[strlen(next) - 5] = '\0';
    if (!c->open_metrics && ends_in(last, "_info")) last[strlen(last) - 5] = '\0';
    if (last[0] != '\0' && strcmp(last, next) >= 0) return wrong(c, "%s comes after %s", next, last);
    c->has_help = c->has_type = c->has_samples = false;
    c->unit[0] = c->type[0] = '\0';
    return true;
}

static bool check_type(struct checker *c, const char *type)
{
    static const char *const known[] = {"counter", "gauge", "histogram", "info", "stateset"};
    size_t count = c->open_metrics ? 5 : 3;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(type, known[i]) != 0) continue;
        snprintf(c->type, sizeof c->type, "%s", type);
        c->has_type = true;
        return true;
    }
    return wrong(c, "no such type: %s", type);
}

static bool check_comment(struct checker *c, const char *line)
{
    char word[8], name[NAME];
    int behind = 0;
    if (strcmp(line, "# EOF") == 0) {
        c->ended = true;
        return c->open_metrics ? end_family(c) : wrong(c, "EOF");
    }
    if (sscanf(line, "# %7s %127s %n", word, name, &behind) < 2 || behind == 0) return wrong(c, "%s", line);
    const char *rest = line + behind;
    if (strcmp(c->family, name) != 0 && !begin_family(c, name)) return false;
    if (c->has_samples) return wrong(c, "%s of %s after its samples", word, name);
    if (strcmp(word, "TYPE") == 0) return check_type(c, rest);
    if (strcmp(word, "UNIT") == 0) {
        snprintf(c->unit, sizeof c->unit, "%s", rest);
        return c->open_metrics || wrong(c, "UNIT");
    }
    if (strcmp(word, "HELP") != 0 || rest[0] == '\0') return wrong(c, "%s", line);
    c->has_help = true;
    return true;
}

/* ---- samples ---- */

/* Behind the label set, or NULL. */
static const char *skip_labels(struct checker *c, const char *at)
{
    if (*at != '{') return at;
    for (at++; *at != '}'; at++) {
        if (!islower((unsigned char)*at)) return wrong(c, "label name at '%s'", at), NULL;
        while (islower((unsigned char)*at) || *at == '_') at++;
        if (strncmp(at, "=\"", 2) != 0) return wrong(c, "label value at '%s'", at), NULL;
        for (at += 2; *at != '"'; at++) {
            if (*at == '\\' && strchr("\\\"n", *++at) == NULL) return wrong(c, "escape"), NULL;
            if ((unsigned char)*at < 0x20 || *at == 0x7f) return wrong(c, "control character"), NULL;
        }
        if (at[1] == '}') return at + 2;
        if (at[1] != ',') return wrong(c, "separator at '%s'", at), NULL;
        at++;
    }
    return wrong(c, "empty label set"), NULL;
}

static bool suffix_fits(const struct checker *c, const char *suffix)
{
    if (strcmp(c->type, "counter") == 0) {
        return c->open_metrics ? strcmp(suffix, "_total") == 0 || strcmp(suffix, "_created") == 0
                               : suffix[0] == '\0';
    }
    if (strcmp(c->type, "info") == 0) return strcmp(suffix, "_info") == 0;
    if (strcmp(c->type, "histogram") != 0) return suffix[0] == '\0';
    return strcmp(suffix, "_bucket") == 0 || strcmp(suffix, "_sum") == 0 || strcmp(suffix, "_count") == 0 ||
           (c->open_metrics && strcmp(suffix, "_created") == 0);
}

static bool check_bucket(struct checker *c, const char *labels, size_t length, double value)
{
    char own[LINE];
    snprintf(own, sizeof own, "%.*s", (int)length, labels);
    char *le = strstr(own, "le=\"");
    if (le == NULL) return wrong(c, "a bucket without le");
    bool last = strcmp(le, "le=\"+Inf\"}") == 0;
    *le = '\0';
    if (strcmp(own, c->bucket_of) != 0) c->below = 0;
    if (value < c->below) return wrong(c, "a bucket below the one before");
    c->below = value;
    c->infinite = last ? value : -1;
    snprintf(c->bucket_of, sizeof c->bucket_of, "%s", own);
    return true;
}

/* `behind` is what follows the count: ` # {trace_id="..."} value moment`, with a value that belongs into the bucket. */
static bool check_exemplar(struct checker *c, const char *labels, size_t length, const char *behind)
{
    static const char start[] = " # {trace_id=\"";
    char own[LINE], *end;
    snprintf(own, sizeof own, "%.*s", (int)length, labels);
    const char *id = behind + sizeof start - 1, *le = strstr(own, "le=\"");
    if (!c->open_metrics || le == NULL || strncmp(behind, start, sizeof start - 1) != 0)
        return wrong(c, "behind the value: %s", behind);
    if (strspn(id, "0123456789abcdef") != 32 || strncmp(id + 32, "\"} ", 3) != 0)
        return wrong(c, "a trace's id: %s", behind);
    double value = strtod(id + 35, &end);
    if (*end != ' ' || value > strtod(le + 4, NULL))
        return wrong(c, "in the wrong bucket: %s%s", own, behind);
    double moment = strtod(end + 1, &end);
    return (*end == '\0' && moment > 0) || wrong(c, "an exemplar's moment: %s", behind);
}

static bool check_state(struct checker *c, const char *labels, size_t length, double value)
{
    char own[LINE], needle[NAME + 4];
    snprintf(own, sizeof own, "%.*s", (int)length, labels);
    snprintf(needle, sizeof needle, "%s=\"", c->family);
    if (strstr(own, needle) == NULL) return wrong(c, "a state set without its label");
    *strstr(own, "state=\"") = '\0';
    if (c->set_of[0] != '\0' && strcmp(own, c->set_of) != 0) {
        if (c->ones != 1) return wrong(c, "%d states in %s", c->ones, c->set_of);
        c->set_of[0] = '\0';
    }
    if (c->set_of[0] == '\0') c->ones = 0;
    c->ones += value == 1;
    snprintf(c->set_of, sizeof c->set_of, "%s", own);
    return true;
}

static bool keep_series(struct checker *c, const char *line, size_t length)
{
    if (c->count == SERIES) return wrong(c, "too many series");
    c->series[c->count++] = strndup(line, length);
    return true;
}

static bool check_sample(struct checker *c, const char *line)
{
    size_t of_family = strlen(c->family), of_name = 0;
    char *end, suffix[NAME];
    while (islower((unsigned char)line[of_name]) || line[of_name] == '_') of_name++;
    if (of_family == 0 || of_name < of_family || strncmp(line, c->family, of_family) != 0)
        return wrong(c, "not of %s: %s", c->family, line);
    snprintf(suffix, sizeof suffix, "%.*s", (int)(of_name - of_family), line + of_family);
    if (!suffix_fits(c, suffix)) return wrong(c, "suffix of a %s: %s", c->type, line);
    const char *value_at = skip_labels(c, line + of_name);
    if (value_at == NULL) return false;
    size_t labels = (size_t)(value_at - line) - of_name;
    if (*value_at++ != ' ' || !isdigit((unsigned char)*value_at)) return wrong(c, "value: %s", line);
    double value = strtod(value_at, &end);
    if (*end != '\0' && !check_exemplar(c, line + of_name, labels, end)) return false;
    c->has_samples = true;
    if (strcmp(suffix, "_bucket") == 0 && !check_bucket(c, line + of_name, labels, value)) return false;
    if (strcmp(suffix, "_count") == 0 && value != c->infinite) return wrong(c, "count is not +Inf: %s", line);
    if (strcmp(c->type, "stateset") == 0 && !check_state(c, line + of_name, labels, value)) return false;
    return keep_series(c, line, (size_t)(value_at - line));
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool no_series_twice(struct checker *c)
{
    qsort(c->series, c->count, sizeof *c->series, compare);
    for (size_t i = 1; i < c->count; i++) {
        if (strcmp(c->series[i - 1], c->series[i]) == 0) return wrong(c, "twice: %s", c->series[i]);
    }
    return true;
}

static bool check_all(struct checker *c, const char *text)
{
    for (const char *end; *text != '\0'; text = end + 1) {
        char line[LINE];
        c->number++;
        end = strchr(text, '\n');
        if (end == NULL) return wrong(c, "does not end in a line feed");
        if (c->ended) return wrong(c, "something behind EOF");
        if ((size_t)(end - text) >= sizeof line) return wrong(c, "too long");
        snprintf(line, sizeof line, "%.*s", (int)(end - text), text);
        if (!(line[0] == '#' ? check_comment(c, line) : check_sample(c, line))) return false;
    }
    if (c->open_metrics && !c->ended) return wrong(c, "no EOF");
    return end_family(c) && no_series_twice(c);
}

const char *exposition_fault(const char *text, bool open_metrics)
{
    static struct checker checker;
    struct checker *c = &checker;
    memset(c, 0, sizeof *c);
    c->open_metrics = open_metrics;
    c->series = malloc(SERIES * sizeof *c->series);
    bool well = c->series != NULL && check_all(c, text);
    for (size_t i = 0; i < c->count; i++) free(c->series[i]);
    free(c->series);
    return well ? NULL : c->fault;
}

/* ---- sums ---- */

static size_t each_sample(const char *text, const char *start, const char *part, double *sum)
{
    size_t found = 0;
    for (const char *end; *text != '\0' && (end = strchr(text, '\n')) != NULL; text = end + 1) {
        char line[LINE];
        snprintf(line, sizeof line, "%.*s", (int)(end - text), text);
        if (strncmp(line, start, strlen(start)) != 0 || strstr(line, part) == NULL) continue;
        *sum += strtod(strrchr(line, ' ') + 1, NULL);
        found++;
    }
    return found;
}

double exposition_sum(const char *text, const char *start, const char *part)
{
    double sum = 0;
    return each_sample(text, start, part, &sum) > 0 ? sum : -1;
}

size_t exposition_lines(const char *text, const char *start, const char *part)
{
    double sum = 0;
    return each_sample(text, start, part, &sum);
}

static bool only_rises(const char *line, size_t name)
{
    static const char *const suffixes[] = {"_total", "_bucket", "_sum", "_count"};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t length = strlen(suffixes[i]);
        if (name > length && strncmp(line + name - length, suffixes[i], length) == 0) return true;
    }
    return false;
}

const char *exposition_fell(const char *before, const char *after)
{
    static char fallen[LINE];
    for (const char *end; *before != '\0' && (end = strchr(before, '\n')) != NULL; before = end + 1) {
        snprintf(fallen, sizeof fallen, "\n%.*s", (int)(end - before), before);
        if (*before == '#' || !only_rises(before, strcspn(before, "{ "))) continue;
        char *value = strrchr(fallen, ' ') + 1, series[LINE];
        snprintf(series, sizeof series, "%.*s", (int)(value - fallen), fallen);
        const char *now = strstr(after, series);
        if (now == NULL || strtod(now + strlen(series), NULL) < strtod(value, NULL)) return fallen;
    }
    return NULL;
}
