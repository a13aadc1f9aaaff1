/* A server: its options, what it has seen, how it goes down, comes up and is promoted. */
#include "sim/world.h"

#include "base/text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ------------------------------------------------------------------------------------------------------- */

void weir_sim_options_defaults(weir_sim_options *options)
{
    *options = (weir_sim_options){
        .workers = 8,
        .service = {.kind = WEIR_DIST_EXPONENTIAL, .a = 0.002},
        .commit = {.kind = WEIR_DIST_CONSTANT, .a = 0.0005},
        .connect = {.kind = WEIR_DIST_CONSTANT, .a = 0.003},
        .network = {.kind = WEIR_DIST_CONSTANT, .a = 0.0002},
        .connections_max = 100,
        .lag = {.kind = WEIR_DIST_CONSTANT, .a = 0},
    };
}

bool wr_sim_keep_bins(weir_dist *dist, double **bins)
{
    free(*bins);
    *bins = NULL;
    if (dist->kind != WEIR_DIST_HISTOGRAM) return true;
    *bins = calloc(2 * dist->count + 1, sizeof **bins);
    if (*bins == NULL) return false;
    memcpy(*bins, dist->edges, (dist->count + 1) * sizeof **bins);
    memcpy(*bins + dist->count + 1, dist->weights, dist->count * sizeof **bins);
    dist->edges = *bins;
    dist->weights = *bins + dist->count + 1;
    return true;
}

static int bad(char *why, const char *format, double value)
{
    if (why != NULL) wr_text_format(why, WEIR_WHY_MAX, format, value);
    return WEIR_EINVAL;
}

static int check_options(const weir_sim_server *server, const weir_sim_options *o, char *why)
{
    if (o->workers < 1 || o->workers > 100000)
        return bad(why, "workers is %g; it must be 1 to 100 000", (double)o->workers);
    if (o->connections_max < 1 || o->connections_max > 1000000)
        return bad(why, "connections is %g; it must be 1 to 1 000 000", (double)o->connections_max);
    if ((unsigned)o->queue > WEIR_SIM_SHARED)
        return bad(why, "queue is %g; it must be fifo or shared", o->queue);
    if (o->queue != server->options.queue && server->running_count > 0)
        return bad(why, "queue cannot change while %g statements run", (double)server->running_count);
    if (o->follows != NULL && strcmp(o->follows, server->name) == 0)
        return bad(why, "follows names the server itself", 0);
    int code = weir_dist_check(&o->service, "service", why);
    if (code == WEIR_OK) code = weir_dist_check(&o->commit, "commit", why);
    if (code == WEIR_OK) code = weir_dist_check(&o->connect, "connect", why);
    if (code == WEIR_OK) code = weir_dist_check(&o->network, "network", why);
    if (code == WEIR_OK) code = weir_dist_check(&o->lag, "lag", why);
    return code;
}

static int follow(weir_sim_server *server, const char *primary, char *why)
{
    if (primary == NULL) {
        if (server->follows != NULL) server->read_only = server->demoted = false;
        server->follows = NULL;
        return WEIR_OK;
    }
    weir_sim_server *leader = weir_sim_server_named(server->sim, primary);
    if (leader == NULL) return bad(why, "follows is no name of a server", 0);
    if (leader->follows != NULL) return bad(why, "follows names a server that is itself a replica", 0);
    leader->followed = true;
    server->follows = leader;
    server->read_only = true;
    server->system_id = leader->system_id;
    server->timeline = leader->timeline;
    return WEIR_OK;
}

int weir_sim_server_set(weir_sim_server *server, const weir_sim_options *options, char *why)
{
    int code = check_options(server, options, why);
    if (code == WEIR_OK) code = follow(server, options->follows, why);
    if (code != WEIR_OK) return code;
    weir_sim_options kept = *options;
    kept.follows = server->follows == NULL ? NULL : server->follows->name;
    weir_dist *dists[] = {&kept.service, &kept.commit, &kept.connect, &kept.network, &kept.lag};
    double *fresh[WR_SIM_DISTS] = {NULL};
    for (size_t i = 0; i < WR_SIM_DISTS; i++) {
        if (wr_sim_keep_bins(dists[i], &fresh[i])) continue;
        for (size_t k = 0; k < i; k++) free(fresh[k]);
        return WEIR_ENOMEM;
    }
    wr_sim_work_set(server, &kept);
    for (size_t i = 0; i < WR_SIM_DISTS; i++) {
        free(server->bins[i]);
        server->bins[i] = fresh[i];
    }
    return WEIR_OK;
}

void weir_sim_server_get(const weir_sim_server *server, weir_sim_options *out)
{
    *out = server->options;
}

/* ---- making and freeing ---------------------------------------------------------------------------------------------- */

static bool is_name(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_') return false;
    }
    return length >= 1 && length < WR_SIM_NAME;
}

static uint64_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(1469598103934665603);
    for (; *text != '\0'; text++) hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash;
}

static void boot_fired(struct wr_timer *timer);
static void move_fired(struct wr_timer *timer);

static weir_sim_server *server_new(weir_sim *sim, const char *name)
{
    weir_sim_server *server = calloc(1, sizeof *server);
    if (server == NULL || wr_sim_reserve(sim, 4 + WEIR_SIM_FAULTS) != WEIR_OK) {
        free(server);
        return NULL;
    }
    server->sim = sim;
    wr_text_copy(server->name, sizeof server->name, name);
    server->index = sim->server_count++;
    weir_sim_options_defaults(&server->options);
    /* Its own randomness, so that one server more does not change what happens on the others. */
    wr_rng_seed(&server->rng, sim->seed ^ hash_of(name));
    server->leads_to = server;
    server->timeline = 1;
    server->system_id = hash_of(name) | 1;
    server->life = (uint64_t)(server->index + 1) << 32 | 1;
    server->next_xid = server->first_xid = 1000;
    server->boot.fire = boot_fired;
    server->move.fire = move_fired;
    wr_list_init(&server->links);
    wr_list_init(&server->sessions);
    wr_list_init(&server->limbo);
    wr_list_init(&server->inbox);
    wr_list_init(&server->rules);
    wr_list_init(&server->old_rules);
    wr_sim_work_init(server);
    wr_sim_faults_init(server);
    wr_list_init(&server->node);
    wr_list_append(&sim->servers, &server->node);
    return server;
}

weir_sim_server *weir_sim_server_named(weir_sim *sim, const char *name)
{
    if (!is_name(name)) return NULL;
    for (struct wr_list *n = sim->servers.next; n != &sim->servers; n = n->next) {
        weir_sim_server *server = WR_CONTAINER(n, struct weir_sim_server, node);
        if (strcmp(server->name, name) == 0) return server;
    }
    return server_new(sim, name);
}

static void free_jobs(struct wr_list *list)
{
    struct wr_list *node;
    while ((node = wr_list_first(list)) != NULL) {
        struct wr_sim_job *job = WR_CONTAINER(node, struct wr_sim_job, node);
        if (job->stage == WR_SIM_WAITING || job->stage == WR_SIM_RUNNING) wr_sim_work_leave(job);
        wr_sim_job_free(job);
    }
}

/* Engines are gone, so nobody is left to be told. Jobs on their way are found through the heap. */
static void free_travellers(weir_sim_server *server)
{
    struct wr_heap *heap = &server->sim->heap;
    for (size_t i = 0; i < heap->count;) {
        struct wr_sim_job *job = wr_sim_travelling(heap->slots[i]);
        if (job != NULL && job->server == server) {
            wr_sim_job_free(job);
            i = 0;
        } else {
            i++;
        }
    }
}

void wr_sim_server_free(weir_sim_server *server)
{
    weir_sim *sim = server->sim;
    struct wr_list *node;
    while ((node = wr_list_first(&server->sessions)) != NULL) {
        wr_sim_session_end(WR_CONTAINER(node, struct wr_sim_session, node), "");
    }
    while ((node = wr_list_first(&server->links)) != NULL)
        wr_sim_link_free(WR_CONTAINER(node, struct wr_link, node)); /* a cancel of theirs is on its way */
    free_jobs(&server->limbo);
    free_jobs(&server->inbox);
    free_jobs(&server->waiting);
    free_jobs(&server->running);
    wr_heap_release(&server->shared);
    free_travellers(server);
    wr_sim_disarm(sim, &server->boot);
    wr_sim_disarm(sim, &server->move);
    wr_sim_disarm(sim, &server->fall);
    wr_sim_disarm(sim, &server->shared_next);
    for (size_t i = 0; i < WEIR_SIM_FAULTS; i++) wr_sim_disarm(sim, &server->trouble[i].end);
    wr_sim_rules_free(server);
    for (size_t i = 0; i < WR_SIM_DISTS; i++) free(server->bins[i]);
    free(server->commits);
    wr_list_remove(&server->node);
    free(server);
}

/* ---- what was seen ---------------------------------------------------------------------------------------------------- */

void weir_sim_server_stats(const weir_sim_server *server, weir_sim_stats *out)
{
    *out = server->stats;
    out->sessions = server->session_count;
    out->running = server->running_count;
    out->waiting = server->waiting_count;
}

void wr_sim_server_count_connect(weir_sim_server *server)
{
    uint64_t second = server->sim->now / 1000000000;
    if (second != server->connect_second) server->connects_in_it = 0;
    server->connect_second = second;
    server->connects_in_it++;
    if (server->connects_in_it > server->stats.connects_in_a_second_max)
        server->stats.connects_in_a_second_max = server->connects_in_it;
}

/* ---- replication -------------------------------------------------------------------------------------------------------- */

enum { COMMITS_MOST = 1 << 20 }; /* a longer lag forgets the oldest */

void wr_sim_log_commit(weir_sim_server *server, uint64_t number)
{
    if (server->demoted) wr_ledger_lost_effect(&server->sim->ledger, number);
    if (!server->followed || server->demoted) return;
    if (server->commit_count == server->commit_room && server->commit_room < COMMITS_MOST) {
        size_t room = server->commit_room == 0 ? 1024 : server->commit_room * 2;
        struct wr_sim_commit *grown = calloc(room, sizeof *grown);
        if (grown == NULL) return;
        for (size_t i = 0; i < server->commit_count; i++)
            grown[i] = server->commits[(server->commit_first + i) % server->commit_room];
        free(server->commits);
        server->commits = grown;
        server->commit_room = room;
        server->commit_first = 0;
    }
    if (server->commit_count == server->commit_room) {
        server->commit_first = (server->commit_first + 1) % server->commit_room;
        server->commit_count--;
    }
    size_t at = (server->commit_first + server->commit_count++) % server->commit_room;
    server->commits[at] = (struct wr_sim_commit){number, server->sim->now};
}

uint64_t wr_sim_seen_until(weir_sim_server *server)
{
    if (server->follows == NULL) return server->sim->now;
    uint64_t lag = wr_dist_draw(&server->options.lag, &server->rng);
    uint64_t until = server->sim->now - (lag < server->sim->now ? lag : server->sim->now);
    if (until > server->seen_until) server->seen_until = until; /* what it has seen it does not unsee */
    return server->seen_until;
}

static void lose_commits_after(weir_sim_server *server, uint64_t seen_until)
{
    while (server->commit_count > 0) {
        size_t last = (server->commit_first + server->commit_count - 1) % server->commit_room;
        if (server->commits[last].at_ns <= seen_until) return;
        wr_ledger_lost_effect(&server->sim->ledger, server->commits[last].number);
        server->commit_count--;
    }
}

void wr_sim_promote(weir_sim_server *server)
{
    weir_sim_server *old = server->follows;
    if (old == NULL) return;
    lose_commits_after(old, wr_sim_seen_until(server));
    server->follows = NULL;
    server->read_only = server->demoted = false;
    server->timeline = old->timeline + 1;
    server->next_xid = server->first_xid = old->next_xid;
    server->followed = false;
    server->options.follows = NULL;
    wr_sim_trace(server->sim, WR_SIM_UP, server, server->timeline, 0);
}

/* All addresses that led here, by this failover or an earlier one; it may be back to where it began. */
static void move_fired(struct wr_timer *timer)
{
    weir_sim_server *server = WR_CONTAINER(timer, struct weir_sim_server, move);
    weir_sim *sim = server->sim;
    for (struct wr_list *n = sim->servers.next; n != &sim->servers; n = n->next) {
        weir_sim_server *address = WR_CONTAINER(n, struct weir_sim_server, node);
        if (address->leads_to == server) address->leads_to = server->trouble[WEIR_SIM_FAILOVER].to;
    }
}

/* ---- down and up -------------------------------------------------------------------------------------------------------- */

static void refuse_connects(weir_sim_server *server, struct wr_list *list)
{
    for (struct wr_list *n = list->next, *next = n->next; n != list; n = next, next = n->next) {
        struct wr_sim_job *job = WR_CONTAINER(n, struct wr_sim_job, node);
        if (!job->connect) continue;
        if (list == &server->inbox) {
            wr_list_remove(&job->node);
        } else {
            wr_sim_work_leave(job);
            server->session_count--;
        }
        job->failed = true;
        wr_text_copy(job->message, sizeof job->message, "server closed the connection unexpectedly");
        wr_sim_return(job, false);
    }
}

void wr_sim_server_down(weir_sim_server *server, const char *farewell)
{
    struct wr_list *node;
    server->down = true;
    server->recovering = false;
    while ((node = wr_list_first(&server->sessions)) != NULL) {
        wr_sim_session_end(WR_CONTAINER(node, struct wr_sim_session, node), farewell);
    }
    refuse_connects(server, &server->waiting);
    refuse_connects(server, &server->running);
    refuse_connects(server, &server->inbox);
    wr_sim_disarm(server->sim, &server->boot);
}

void wr_sim_server_boot(weir_sim_server *server, uint64_t after_ns, uint64_t recovery_ns)
{
    server->recovery_ns = recovery_ns;
    wr_sim_arm(server->sim, &server->boot, server->sim->now + after_ns);
}

static void boot_fired(struct wr_timer *timer)
{
    weir_sim_server *server = WR_CONTAINER(timer, struct weir_sim_server, boot);
    if (server->down && server->recovery_ns > 0) {
        server->down = false;
        server->recovering = true;
        wr_sim_arm(server->sim, timer, server->sim->now + server->recovery_ns);
        return;
    }
    server->down = server->recovering = false;
    server->life++;
    server->trouble[WEIR_SIM_CRASH].active = server->trouble[WEIR_SIM_RESTART].active = false;
    wr_sim_trace(server->sim, WR_SIM_UP, server, server->life & 0xffffffff, 0);
}
