/* What tests ask of an engine on the scripted server; see fake_server.h. */
#include "support/fake_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static weir_request filled(weir_request request)
{
    if (request.client == NULL) request.client = "service";
    if (request.context == NULL) request.context = "a test";
    return request;
}

static void must(int code, const char *why)
{
    if (code == WEIR_OK) return;
    fprintf(stderr, "refused: %s\n", why);
    abort();
}

weir_call *fake_submit(struct fake *fake, weir_request request, const char *sql)
{
    weir_statement statement = {.sql = sql};
    weir_call *call = NULL;
    char why[WEIR_WHY_MAX] = "";
    request = filled(request);
    must(weir_submit(fake->engine, &request, &statement, 1, &call, why), why);
    return call;
}

weir_call *fake_begin(struct fake *fake, weir_request request)
{
    weir_call *call = NULL;
    char why[WEIR_WHY_MAX] = "";
    request = filled(request);
    must(weir_begin(fake->engine, &request, &call, why), why);
    return call;
}

void fake_send(weir_call *call, const char *sql)
{
    weir_statement statement = {.sql = sql};
    char why[WEIR_WHY_MAX] = "";
    must(weir_unit_send(call, &statement, 1, why), why);
}

void fake_finish(weir_call *call, weir_finish how)
{
    must(weir_unit_finish(call, how), "finish");
}

static const weir_error *ended(const weir_call *call)
{
    if (weir_call_status(call) == WEIR_ENDED) return weir_call_error(call);
    fprintf(stderr, "the call has not ended, its status is %d\n", (int)weir_call_status(call));
    abort();
}

weir_code fake_code(const weir_call *call)
{
    return ended(call) == NULL ? WEIR_CALL_OK : ended(call)->code;
}

weir_outcome fake_outcome(const weir_call *call)
{
    return ended(call) == NULL ? WEIR_OUTCOME_COMMITTED : ended(call)->outcome;
}

long fake_counter(struct fake *fake, const char *group, const char *name)
{
    static char json[1 << 20];
    char wanted_group[40], wanted_name[40];
    snprintf(wanted_group, sizeof wanted_group, "\"%s\":{", group);
    snprintf(wanted_name, sizeof wanted_name, "\"%s\":", name);
    if (weir_stats_json(fake->engine, json, sizeof json) >= sizeof json) abort();
    long sum = 0;
    for (const char *at = json; (at = strstr(at, wanted_group)) != NULL; at++) {
        const char *found = strstr(at, wanted_name);
        if (found == NULL || found > strchr(at, '}')) abort(); /* there is no such counter */
        sum += atol(found + strlen(wanted_name));
    }
    return sum;
}
