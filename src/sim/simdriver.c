/* The driver over a simulated server: what the engine is handed instead of src/pg. */
#include "sim/world.h"

#include "base/check.h"
#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum { BELL = 0 }; /* the one descriptor of an instance; it is never opened */

/* ---- delivery ----------------------------------------------------------------------------------------------------- */

static void ring(void *arg, unsigned events)
{
    struct wr_sim_instance *instance = arg;
    (void)events;
    instance->ready(instance->ready_arg);
}

bool wr_sim_deliver(struct wr_sim_instance *instance, struct wr_timer *timer, void (*ready)(void *arg),
                    void *arg)
{
    weir_sim *sim = instance->sim;
    if (instance->host == NULL) instance->host = wr_sim_host_of(sim, instance->env.engine);
    if (instance->host != NULL && sim->now < instance->host->stalled_until) {
        wr_sim_arm(sim, timer, instance->host->stalled_until);
        return false;
    }
    instance->ready = ready;
    instance->ready_arg = arg;
    int code = weir_on_ready(instance->env.engine, BELL, WEIR_READ);
    WR_CHECK(code == WEIR_OK);
    return true;
}

/* ---- instances ------------------------------------------------------------------------------------------------------ */

static int driver_start(const weir_driver *self, void **out, const struct wr_driver_env *env,
                        uint32_t connect_at_once, char *why)
{
    (void)why;
    struct wr_sim_instance *instance = calloc(1, sizeof *instance);
    if (instance == NULL) return WEIR_ENOMEM;
    instance->sim = self->world;
    instance->env = *env;
    instance->connect_at_once = connect_at_once;
    wr_list_init(&instance->gates);
    int code = env->watch(env->engine, BELL, WEIR_READ, ring, instance);
    if (code != WEIR_OK) {
        free(instance);
        return code;
    }
    *out = instance;
    return WEIR_OK;
}

static void driver_stop(void *of)
{
    struct wr_sim_instance *instance = of;
    (void)instance->env.watch(instance->env.engine, BELL, 0, NULL, NULL);
    WR_CHECK(wr_list_empty(&instance->gates)); /* targets are freed first */
    free(instance);
}

/* ---- targets -------------------------------------------------------------------------------------------------------- */

static struct wr_sim_gate *gate_to(struct wr_sim_instance *instance, weir_sim_server *address)
{
    for (struct wr_list *n = instance->gates.next; n != &instance->gates; n = n->next) {
        struct wr_sim_gate *gate = WR_CONTAINER(n, struct wr_sim_gate, node);
        if (gate->address == address) return gate;
    }
    struct wr_sim_gate *gate = calloc(1, sizeof *gate);
    if (gate == NULL) return NULL;
    gate->instance = instance;
    gate->address = address;
    wr_list_init(&gate->node);
    wr_list_init(&gate->waiting);
    wr_list_append(&instance->gates, &gate->node);
    return gate;
}

/* The pool is client@backend; the backend's name is the server's. */
static int driver_target(void *of, const struct wr_login *login, struct wr_target **out, char *why)
{
    struct wr_sim_instance *instance = of;
    const char *at = strchr(login->pool, '@');
    weir_sim_server *address = weir_sim_server_named(instance->sim, at == NULL ? login->pool : at + 1);
    if (address == NULL) {
        wr_text_format(why, WEIR_WHY_MAX, "no simulated server can be named '%.40s'",
                       at == NULL ? "" : at + 1);
        return WEIR_EINVAL;
    }
    struct wr_target *target = calloc(1, sizeof *target);
    if (target == NULL) return WEIR_ENOMEM;
    target->gate = gate_to(instance, address);
    if (target->gate == NULL) {
        free(target);
        return WEIR_ENOMEM;
    }
    target->gate->targets++;
    wr_text_copy(target->user, sizeof target->user, login->user != NULL ? login->user : "");
    *out = target;
    return WEIR_OK;
}

static void driver_target_free(struct wr_target *target)
{
    struct wr_sim_gate *gate = target->gate;
    if (--gate->targets == 0) {
        wr_list_remove(&gate->node);
        free(gate);
    }
    free(target);
}

static int driver_connect(void *of, struct wr_target *target, uint64_t timeout_ns, void *owner)
{
    return wr_sim_connect(of, target, timeout_ns, owner);
}

static void driver_forget(void *of, void *owner)
{
    wr_sim_connect_forget(of, owner);
}

/* A dead client end shows; one whose server is frozen or out of reach does not. */
static bool driver_peek(struct wr_link *link)
{
    return !link->broken && !link->rung;
}

static uint32_t driver_pid(const struct wr_link *link)
{
    return link->pid;
}

void wr_sim_driver_fill(weir_sim *sim)
{
    sim->driver = (struct weir_driver){.name = "sim",
                                       .start = driver_start,
                                       .stop = driver_stop,
                                       .target = driver_target,
                                       .target_free = driver_target_free,
                                       .connect = driver_connect,
                                       .forget = driver_forget,
                                       .send = wr_sim_link_send,
                                       .cancel = wr_sim_link_cancel,
                                       .peek = driver_peek,
                                       .close = wr_sim_link_close,
                                       .pid = driver_pid,
                                       .world = sim};
}

const weir_driver *weir_sim_driver(weir_sim *sim)
{
    return &sim->driver;
}
