/* What is asked: the kinds of call of a load and how often each comes. Statements that carry the number of their request
 * are copied once, with values that point at the mix's digits; so a request costs no copy of its own. */
#include "load/traffic.h"

#include "base/text.h"

#include <string.h>

enum { CALLS_MAX = 64 };

const char weir_load_number[] = "$number";

/* ---- checks -------------------------------------------------------------------------------------------- */

static const char *problem_of_statement(const weir_statement *statement)
{
    if (statement->sql == NULL) return "has no SQL";
    for (size_t i = 0; i < statement->count; i++) {
        bool number = statement->values[i] == weir_load_number;
        if (number && statement->formats != NULL && statement->formats[i] != 0)
            return "asks for its number as a binary value; it is given as text";
    }
    return NULL;
}

static int bad_call(char *why, size_t index, const char *problem)
{
    wr_text_format(why, WEIR_WHY_MAX, "call %zu %s", index + 1, problem);
    return WEIR_EINVAL;
}

static int check_call(const weir_load_call *call, size_t index, char *why)
{
    if (!(call->weight > 0 && call->weight <= 1e9)) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "call %zu has the weight %g; it must be more than 0 and at most 1e9", index + 1,
                       call->weight);
        return WEIR_EINVAL;
    }
    if (call->custom) return WEIR_OK;
    if (call->statement_count == 0) return bad_call(why, index, "has no statements");
    for (size_t i = 0; i < call->statement_count; i++) {
        const char *problem = problem_of_statement(&call->statements[i]);
        if (problem == NULL) continue;
        wr_text_format(why, WEIR_WHY_MAX, "call %zu: statement %zu %s", index + 1, i + 1, problem);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

int wr_mix_check(const weir_load_options *options, char *why)
{
    if (options->call_count < 1 || options->call_count > CALLS_MAX) {
        wr_text_format(why, WEIR_WHY_MAX, "calls are %zu; there must be 1 to %d", options->call_count,
                       CALLS_MAX);
        return WEIR_EINVAL;
    }
    for (size_t i = 0; i < options->call_count; i++) {
        int code = check_call(&options->calls[i], i, why);
        if (code != WEIR_OK) return code;
        if (options->calls[i].custom && options->arrived == NULL)
            return bad_call(why, i, "is custom, and there is no `arrived` to tell of it");
    }
    return WEIR_OK;
}

/* ---- making -------------------------------------------------------------------------------------------- */

static size_t count_values(const weir_load_call *call, bool *numbered)
{
    size_t values = 0;
    for (size_t i = 0; i < call->statement_count; i++) {
        const weir_statement *statement = &call->statements[i];
        values += statement->count;
        for (size_t k = 0; k < statement->count; k++)
            if (statement->values[k] == weir_load_number) *numbered = true;
    }
    return values;
}

static void copy_statements(struct wr_mix *mix, struct wr_kind *kind, const weir_load_call *call)
{
    const char **values = kind->values;
    for (size_t i = 0; i < call->statement_count; i++) {
        kind->copies[i] = call->statements[i];
        kind->copies[i].values = values;
        for (size_t k = 0; k < call->statements[i].count; k++) {
            const char *value = call->statements[i].values[k];
            *values++ = value == weir_load_number ? mix->digits : value;
        }
    }
    kind->statements = kind->copies;
}

static int make_kind(struct wr_mix *mix, struct wr_kind *kind, const weir_load_call *call)
{
    *kind = (struct wr_kind){
        .request = call->request,
        .statements = call->statements,
        .count = call->statement_count,
        .unit = call->unit,
        .writes = call->writes,
        .custom = call->custom,
    };
    size_t values = count_values(call, &kind->numbered);
    if (!kind->numbered) return WEIR_OK;
    kind->copies = wr_alloc(mix->memory, call->statement_count * sizeof *kind->copies);
    kind->values = wr_alloc(mix->memory, values * sizeof *kind->values);
    if (kind->copies == NULL || kind->values == NULL) return WEIR_ENOMEM;
    copy_statements(mix, kind, call);
    return WEIR_OK;
}

int wr_mix_init(struct wr_mix *mix, const struct wr_memory *memory, const weir_load_options *options)
{
    double sum = 0;
    *mix = (struct wr_mix){.memory = memory};
    mix->kinds = wr_alloc(memory, options->call_count * sizeof *mix->kinds);
    if (mix->kinds == NULL) return WEIR_ENOMEM;
    for (size_t i = 0; i < options->call_count; i++) {
        mix->count = i + 1;
        if (make_kind(mix, &mix->kinds[i], &options->calls[i]) != WEIR_OK) return WEIR_ENOMEM;
        mix->kinds[i].up_to = sum += options->calls[i].weight;
    }
    return WEIR_OK;
}

void wr_mix_release(struct wr_mix *mix)
{
    for (size_t i = 0; i < mix->count; i++) {
        wr_free(mix->memory, mix->kinds[i].copies);
        wr_free(mix->memory, mix->kinds[i].values);
    }
    wr_free(mix->memory, mix->kinds);
    mix->kinds = NULL;
    mix->count = 0;
}

/* ---- drawing ------------------------------------------------------------------------------------------- */

struct wr_kind *wr_mix_draw(const struct wr_mix *mix, struct wr_rng *rng)
{
    if (mix->count == 1) return mix->kinds;
    double at = wr_rng_unit(rng) * mix->kinds[mix->count - 1].up_to;
    size_t i = 0;
    while (i + 1 < mix->count && at >= mix->kinds[i].up_to) i++;
    return &mix->kinds[i];
}

void wr_mix_number(struct wr_mix *mix, uint64_t number)
{
    char reversed[WR_DIGITS];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    for (size_t i = 0; i < count; i++) mix->digits[i] = reversed[count - 1 - i];
    mix->digits[count] = '\0';
}
