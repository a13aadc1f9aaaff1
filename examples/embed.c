/* The smallest C program on Weir: one engine on a libuv loop, one statement, its rows.
 *
 *     ./weir_example_embed 'host=/tmp dbname=app user=app'
 *
 * The engine never blocks and owns no loop: it asks the host to watch descriptors and to set one timer, and ends
 * calls from inside the loop. Here the loop is libuv's; weir/weir.h tells what another one has to lend. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "weir/uv.h"

static void on_call(void *user, weir_call *call)
{
    bool *ended = user;

    *ended = weir_call_status(call) == WEIR_ENDED;
}

static void print_rows(const weir_result *result)
{
    for (size_t row = 0; row < weir_result_rows(result); row++) {
        for (size_t column = 0; column < weir_result_columns(result); column++) {
            const char *value = weir_result_value(result, row, column, NULL);

            printf("%s%s", column > 0 ? "\t" : "", value != NULL ? value : "NULL");
        }
        putchar('\n');
    }
}

/* Runs one statement and prints its rows, or what became of it. */
static int run_statement(weir_uv *uv, weir_engine *engine, const char *sql)
{
    bool ended = false;
    char why[WEIR_WHY_MAX];
    weir_call *call;
    weir_statement statement = {.sql = sql};
    weir_request request = {.client = "service",
                            .context = "example: embed",
                            .readonly = true,
                            .notify = on_call,
                            .user = &ended};

    if (weir_submit(engine, &request, &statement, 1, &call, why) != WEIR_OK) {
        fprintf(stderr, "submit: %s\n", why);
        return EXIT_FAILURE;
    }
    weir_uv_run_until(uv, &ended, 0); /* the call has a deadline of its own */

    const weir_error *error = weir_call_error(call);
    int status = error == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
    if (error == NULL)
        print_rows(weir_call_result(call, 0));
    else
        fprintf(stderr, "%s after %u attempts: %s\n", weir_code_name(error->code), error->attempts,
                error->message);
    weir_call_free(call);
    return status;
}

static void close_engine(weir_uv *uv, weir_engine *engine)
{
    bool never = false;

    weir_drain(engine, 1000000000);
    while (!weir_drained(engine)) weir_uv_run_until(uv, &never, 10000000);
    weir_free(engine);
}

int main(int argc, char **argv)
{
    char why[WEIR_WHY_MAX];
    int status = EXIT_FAILURE;
    weir_uv *uv = NULL;
    weir_engine *engine = NULL;
    weir_options options;
    weir_backend backend = {.name = "primary", .conninfo = argc > 1 ? argv[1] : getenv("DATABASE_URL")};
    weir_client client = {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 4};

    if (backend.conninfo == NULL) {
        fprintf(stderr, "usage: %s CONNINFO, or DATABASE_URL in the environment\n", argv[0]);
        return 2;
    }
    weir_options_defaults(&options);
    options.name = "embed";
    options.backends = &backend;
    options.backend_count = 1;
    options.clients = &client;
    options.client_count = 1;

    if (weir_uv_new(&uv, uv_default_loop(), uv_hrtime()) != WEIR_OK) {
        fprintf(stderr, "no event loop\n");
        return status;
    }
    if (weir_open(&engine, &options, weir_uv_hooks(uv), weir_driver_pg(), why) != WEIR_OK) {
        fprintf(stderr, "open: %s\n", why);
        goto done;
    }
    weir_uv_bind(uv, engine);
    status = run_statement(uv, engine, argc > 2 ? argv[2] : "select version()");
    close_engine(uv, engine);
done:
    weir_uv_free(uv);
    uv_loop_close(uv_default_loop());
    return status;
}
