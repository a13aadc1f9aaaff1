/* A C program on Weir with the console: its engine works on a libuv loop, and the prompt turns that loop while it waits.
 *
 *     ./weir_example_console 'host=/tmp dbname=app user=app'
 *     service@primary● embedded> \pools
 *     service@primary● embedded> db:resize("service@primary", 2)
 *
 * Ctrl-D ends it. */
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "weir/repl.h"
#include "weir/uv.h"

static void close_engine(weir_uv *uv, weir_engine *engine)
{
    bool never = false;

    weir_drain(engine, 1000000000);
    while (!weir_drained(engine)) weir_uv_run_until(uv, &never, 10000000);
    weir_free(engine);
}

static weir_engine *open_engine(weir_uv *uv, const char *conninfo)
{
    char why[WEIR_WHY_MAX];
    weir_engine *engine = NULL;
    weir_options options;
    weir_backend backend = {.name = "primary", .conninfo = conninfo};
    weir_client client = {.name = "service", .kind = WEIR_SERVICE, .bypass_rls = true, .max = 4};

    weir_options_defaults(&options);
    options.name = "embedded";
    options.backends = &backend;
    options.backend_count = 1;
    options.clients = &client;
    options.client_count = 1;
    if (weir_open(&engine, &options, weir_uv_hooks(uv), weir_driver_pg(), why) != WEIR_OK)
        fprintf(stderr, "open: %s\n", why);
    else
        weir_uv_bind(uv, engine);
    return engine;
}

int main(int argc, char **argv)
{
    char why[WEIR_WHY_MAX];
    int code = EXIT_FAILURE;
    weir_uv *uv = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: %s CONNINFO\n", argv[0]);
        return 2;
    }
    if (weir_uv_new(&uv, uv_default_loop(), uv_hrtime()) != WEIR_OK) {
        fprintf(stderr, "no event loop\n");
        return code;
    }
    weir_engine *engine = open_engine(uv, argv[1]);
    if (engine != NULL) {
        weir_repl_options options = {.engine = engine, .loop = uv_default_loop()};
        if (weir_repl_run(&options, &code, why) != WEIR_OK) fprintf(stderr, "console: %s\n", why);
        close_engine(uv, engine);
    }
    weir_uv_free(uv);
    uv_loop_close(uv_default_loop());
    return code;
}
