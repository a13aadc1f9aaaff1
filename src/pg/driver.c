/* The table of functions the engine is given, and the one descriptor on which the crew's work comes in. */
#include "pg/link.h"

#include "base/text.h"

#include <string.h>

/* ---- what the crew has done ---- */

static void deliver(struct wr_pg *pg, struct wr_errand *errand)
{
    const struct wr_driver_env *env = pg->env;
    struct wr_greeting greeting = errand->arrival.greeting;
    struct wr_fault fault = errand->arrival.fault;
    struct wr_link *link = NULL;
    void *owner = errand->owner;
    if (errand->arrival.conn != NULL) {
        link = wr_link_make(pg, errand, &fault);
    }
    wr_errand_free(errand);
    env->connected(owner, link, link == NULL ? NULL : &greeting, link == NULL ? &fault : NULL);
}

/* Whatever a callback does, the next item is looked up afresh. */
static void on_bell(void *arg, unsigned events)
{
    struct wr_pg *pg = arg;
    (void)events;
    wr_crew_heard(pg->crew);
    for (struct wr_errand *errand; (errand = wr_crew_next_arrival(pg->crew)) != NULL;) deliver(pg, errand);
    for (struct wr_cancel *cancel; (cancel = wr_crew_next_cancelled(pg->crew)) != NULL;)
        wr_link_cancelled(cancel->link);
    for (struct wr_list *first; (first = wr_list_first(&pg->unread)) != NULL;) {
        wr_link_read_on(WR_CONTAINER(first, struct wr_link, unread));
    }
    for (struct wr_list *first; (first = wr_list_first(&pg->doomed)) != NULL;) {
        wr_link_report_doomed(WR_CONTAINER(first, struct wr_link, doomed));
    }
}

/* ---- the table ---- */

static int start(const weir_driver *self, void **instance, const struct wr_driver_env *env,
                 uint32_t connect_at_once, char *why)
{
    (void)self;
    *instance = NULL;
    struct wr_pg *pg = wr_alloc(env->memory, sizeof *pg);
    if (pg == NULL) return WEIR_ENOMEM;
    pg->env = env;
    wr_list_init(&pg->doomed);
    wr_list_init(&pg->unread);
    int code = PQisthreadsafe() ? wr_crew_make(&pg->crew, connect_at_once) : WEIR_ESYS;
    bool made = code == WEIR_OK;
    if (made && env->watch(env->engine, wr_crew_fd(pg->crew), WEIR_READ, on_bell, pg) != 0) code = WEIR_ESYS;
    if (code != WEIR_OK) {
        const char *missing = made ? env->scarce : "threads or descriptors";
        if (why != NULL)
            wr_text_format(why, WEIR_WHY_MAX, "the connector crew could not be made: no %s left", missing);
        wr_crew_free(pg->crew);
        wr_free(env->memory, pg);
        return code;
    }
    *instance = pg;
    return WEIR_OK;
}

static void stop(void *instance)
{
    struct wr_pg *pg = instance;
    if (pg == NULL) return;
    pg->env->watch(pg->env->engine, wr_crew_fd(pg->crew), 0, on_bell, pg);
    wr_crew_free(pg->crew);
    wr_free(pg->env->memory, pg);
}

static int target(void *instance, const struct wr_login *login, struct wr_target **out, char *why)
{
    (void)instance;
    return wr_target_make(out, login, why);
}

static int start_connect(void *instance, struct wr_target *to, uint64_t timeout_ns, void *owner)
{
    return wr_crew_connect(((struct wr_pg *)instance)->crew, to, timeout_ns, owner);
}

static void forget(void *instance, void *owner)
{
    wr_crew_forget(((struct wr_pg *)instance)->crew, owner);
}

static uint32_t pid(const struct wr_link *link)
{
    return (uint32_t)PQbackendPID(link->conn);
}

/* What tells one server from another; everything else in a conninfo may hold a secret. */
static void describe(const struct wr_target *to, char *out, size_t size)
{
    static const char *const told[] = {"host", "hostaddr", "port", "dbname", "service", "sslmode"};
    size_t used = 0;
    out[0] = '\0';
    for (size_t t = 0; t < sizeof told / sizeof *told; t++) {
        for (size_t i = 0; i < to->count; i++) {
            if (strcmp(to->keys[i], told[t]) != 0 || to->values[i] == NULL) continue;
            used += wr_text_format(out + used, size - used, "%s%s=%s", used == 0 ? "" : " ", told[t],
                                   to->values[i]);
        }
    }
}

const weir_driver *weir_driver_pg(void)
{
    static const struct weir_driver driver = {
        .name = "pg",
        .start = start,
        .stop = stop,
        .target = target,
        .target_free = wr_target_drop,
        .connect = start_connect,
        .forget = forget,
        .send = wr_link_send,
        .has_room = wr_link_has_room,
        .cancel = wr_link_cancel,
        .peek = wr_link_peek,
        .close = wr_link_close,
        .pid = pid,
        .describe = describe,
    };
    return &driver;
}
