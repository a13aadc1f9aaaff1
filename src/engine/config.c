/* Options: defaults, checks, and the deep copy. */
#include "engine/config.h"

#include "guard/settings.h"

#include <ctype.h>
#include <string.h>

#define SECONDS(n)      ((uint64_t)(n)*1000000000u)
#define MILLISECONDS(n) ((uint64_t)(n)*1000000u)
static const uint64_t a_year = SECONDS(366 * 24 * 3600);

void weir_options_defaults(weir_options *options)
{
    *options = (weir_options){
        .name = "weir",
        .timeout_ns = SECONDS(10),
        .connect_timeout_ns = SECONDS(3),
        .idle_timeout_ns = SECONDS(600),
        .lifetime_ns = SECONDS(1800),
        .leak_after_ns = SECONDS(30),
        .cancel_wait_ns = SECONDS(10),
        .connect_at_once = 4,
        .prepared_max = 256,
        .queue = WEIR_QUEUE_ADAPTIVE,
        .queue_target_ns = MILLISECONDS(5),
        .queue_interval_ns = MILLISECONDS(100),
        .backoff = WEIR_BACKOFF_FULL,
        .backoff_base_ns = MILLISECONDS(50),
        .backoff_cap_ns = SECONDS(2),
        .backoff_factor = 2,
        .retries = 3,
        .retries_max = 20,
        .health_interval_ns = SECONDS(30),
        .probe_interval_ns = SECONDS(1),
        .policy_faults_max = 5,
    };
    weir_breaker_defaults(&options->breaker);
    weir_budget_defaults(&options->budget);
}

static bool is_name(const char *name, size_t most)
{
    size_t length = name == NULL ? 0 : strlen(name);
    if (length == 0 || length > most) return false;
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_') return false;
    }
    return true;
}

static int check_name(const char *knob, const char *name, char *why)
{
    if (is_name(name, WR_ENGINE_NAME_MAX)) return WEIR_OK;
    wr_text_format(why, WEIR_WHY_MAX, "%s is '%.40s': 1 to %d letters, digits, '-' or '_'", knob,
                   name == NULL ? "" : name, WR_ENGINE_NAME_MAX);
    return WEIR_EINVAL;
}

static int check_duration(const char *knob, uint64_t ns, bool zero_allowed, char *why)
{
    if (ns > a_year || (ns == 0 && !zero_allowed)) {
        wr_text_format(why, WEIR_WHY_MAX, "%s is %.3f s: more than 0 and at most a year", knob,
                       (double)ns / 1e9);
        return WEIR_EINVAL;
    }
    return WEIR_OK;
}

static int check_durations(const weir_options *o, char *why)
{
    const struct {
        const char *knob;
        uint64_t ns;
        bool zero_allowed;
    } all[] = {
        {"timeout", o->timeout_ns, false},
        {"connect_timeout", o->connect_timeout_ns, false},
        {"acquire_timeout", o->acquire_timeout_ns, true},
        {"idle_timeout", o->idle_timeout_ns, true},
        {"lifetime", o->lifetime_ns, true},
        {"leak_after", o->leak_after_ns, true},
        {"cancel_wait", o->cancel_wait_ns, false},
        {"queue.target", o->queue_target_ns, false},
        {"queue.interval", o->queue_interval_ns, false},
        {"slow_log", o->slow_log_ns, true},
        {"health.interval", o->health_interval_ns, true},
        {"health.probe_interval", o->probe_interval_ns, false},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int code = check_duration(all[i].knob, all[i].ns, all[i].zero_allowed, why);
        if (code != WEIR_OK) return code;
    }
    return WEIR_OK;
}

static int check_count(const char *knob, uint64_t value, uint64_t least, uint64_t most, char *why)
{
    if (value >= least && value <= most) return WEIR_OK;
    wr_text_format(why, WEIR_WHY_MAX, "%s is %llu: %llu to %llu", knob, (unsigned long long)value,
                   (unsigned long long)least, (unsigned long long)most);
    return WEIR_EINVAL;
}

static int check_client(const weir_client *c, char *why)
{
    char knob[80];
    wr_text_format(knob, sizeof knob, "clients.%.31s", c->name == NULL ? "" : c->name);
    int code = check_name("client name", c->name, why);
    if (code == WEIR_OK) code = check_count(knob, c->kind, WEIR_SERVICE, WEIR_ANON, why);
    if (code != WEIR_OK) return code;
    if (c->kind == WEIR_ANON && (c->role == NULL || c->role[0] == '\0')) {
        wr_text_format(why, WEIR_WHY_MAX, "%s has no role: an ANON client runs its statements under one",
                       knob);
        return WEIR_EINVAL;
    }
    if (c->kind == WEIR_ANON && c->bypass_rls) {
        wr_text_format(why, WEIR_WHY_MAX,
                       "%s has both role and bypass_rls: SERVICE and ANON are never one client", knob);
        return WEIR_EINVAL;
    }
    if (c->kind == WEIR_SERVICE && !c->bypass_rls) {
        wr_text_format(why, WEIR_WHY_MAX, "%s needs bypass_rls = true (SERVICE), or a role (ANON)", knob);
        return WEIR_EINVAL;
    }
    wr_text_format(knob, sizeof knob, "clients.%.31s.max", c->name);
    code = check_count(knob, c->max, 1, WR_POOL_MAX, why);
    if (code != WEIR_OK) return code;
    wr_text_format(knob, sizeof knob, "clients.%.31s.min", c->name);
    code = check_count(knob, c->min, 0, c->max, why);
    if (code != WEIR_OK) return code;
    wr_text_format(knob, sizeof knob, "clients.%.31s.queue_max", c->name);
    code = check_count(knob, c->queue_max, 0, 1000000, why);
    if (code != WEIR_OK) return code;
    wr_text_format(knob, sizeof knob, "clients.%.31s.multiplex", c->name);
    return check_count(knob, c->multiplex, 0, WR_MULTIPLEX_MAX, why);
}

static int check_members(const weir_options *o, char *why)
{
    int code = check_count("number of backends", o->backend_count, 1, WR_BACKENDS_MAX, why);
    if (code == WEIR_OK) code = check_count("number of clients", o->client_count, 1, WR_CLIENTS_MAX, why);
    if (code == WEIR_OK) code = check_count("number of health.checks", o->check_count, 0, WR_CHECKS_MAX, why);
    for (size_t i = 0; code == WEIR_OK && i < o->backend_count; i++) {
        code = check_name("backend name", o->backends[i].name, why);
        if (code == WEIR_OK && o->backends[i].conninfo == NULL) {
            wr_text_format(why, WEIR_WHY_MAX, "backends.%s has no connection string", o->backends[i].name);
            code = WEIR_EINVAL;
        }
        for (size_t k = 0; code == WEIR_OK && k < i; k++) {
            if (strcmp(o->backends[i].name, o->backends[k].name) != 0) continue;
            wr_text_format(why, WEIR_WHY_MAX, "backend name '%s' is given twice", o->backends[i].name);
            code = WEIR_EINVAL;
        }
    }
    for (size_t i = 0; code == WEIR_OK && i < o->client_count; i++) {
        code = check_client(&o->clients[i], why);
        for (size_t k = 0; code == WEIR_OK && k < i; k++) {
            if (strcmp(o->clients[i].name, o->clients[k].name) != 0) continue;
            wr_text_format(why, WEIR_WHY_MAX, "client name '%s' is given twice", o->clients[i].name);
            code = WEIR_EINVAL;
        }
    }
    for (size_t i = 0; code == WEIR_OK && i < o->check_count; i++) {
        code = check_name("health check name", o->checks[i].name, why);
    }
    return code;
}

/* One login may not serve both kinds: a SERVICE login reachable from ANON would end row-level security. */
static int check_logins(const weir_options *o, char *why)
{
    for (size_t i = 0; i < o->client_count; i++) {
        for (size_t k = 0; k < i; k++) {
            const weir_client *a = &o->clients[i], *b = &o->clients[k];
            if (a->kind == b->kind || a->user == NULL || b->user == NULL || strcmp(a->user, b->user) != 0)
                continue;
            wr_text_format(why, WEIR_WHY_MAX,
                           "clients.%s.user and clients.%s.user are both '%.60s': "
                           "SERVICE and ANON need different logins",
                           b->name, a->name, a->user);
            return WEIR_EINVAL;
        }
    }
    return WEIR_OK;
}

static int check_area(const weir_options *o, char *why)
{
    if (o->area_path == NULL) return WEIR_OK;
    size_t length = strlen(o->area_path);
    if (length > 0 && length < WR_AREA_PATH_MAX) return WEIR_OK;
    if (length == 0)
        wr_text_format(why, WEIR_WHY_MAX, "area is '': the path of a file, or nothing for private memory");
    else
        wr_text_format(why, WEIR_WHY_MAX, "area is a path of %zu bytes: at most %d", length,
                       WR_AREA_PATH_MAX - 1);
    return WEIR_EINVAL;
}

static int check_log(const weir_options *o, char *why)
{
    int code = check_count("log.level", o->log_level, WEIR_LOG_INFO, WEIR_LOG_OFF, why);
    if (code != WEIR_OK || o->log_to == NULL || strcmp(o->log_to, "stderr") == 0) return code;
    if (strchr(o->log_to, '/') != NULL && strlen(o->log_to) < WR_AREA_PATH_MAX) return WEIR_OK;
    wr_text_format(why, WEIR_WHY_MAX, "log.to is '%.60s': stderr, or a path with a '/' in it", o->log_to);
    return WEIR_EINVAL;
}

static int check_retries(const weir_options *o, char *why)
{
    weir_backoff backoff;
    int code = weir_backoff_init(&backoff, o->backoff, o->backoff_base_ns, o->backoff_cap_ns,
                                 o->backoff_factor, why);
    if (code == WEIR_OK) code = wr_settings_check(&o->breaker, why);
    if (code == WEIR_OK) code = weir_budget_check(&o->budget, why);
    if (code == WEIR_OK) code = check_count("retries", o->retries, 0, 1000, why);
    if (code == WEIR_OK) code = check_count("retries_max", o->retries_max, o->retries, 1000, why);
    if (code == WEIR_OK) code = check_count("connect_at_once", o->connect_at_once, 1, 16, why);
    if (code == WEIR_OK && !(o->connect_rate == 0 || (o->connect_rate >= 0.01 && o->connect_rate <= 1e6))) {
        wr_text_format(why, WEIR_WHY_MAX, "connect_rate is %g: 0 (off), or 0.01 to 1000000 per second",
                       o->connect_rate);
        return WEIR_EINVAL;
    }
    if (code == WEIR_OK) code = check_count("prepared", o->prepared_max, 0, 10000, why);
    if (code == WEIR_OK) code = check_count("queue", o->queue, WEIR_QUEUE_ADAPTIVE, WEIR_QUEUE_CODEL, why);
    if (code == WEIR_OK) code = check_count("trace", o->trace, WEIR_TRACE_OFF, WEIR_TRACE_COMMENT, why);
    if (code == WEIR_OK) code = check_count("reset", o->reset, WEIR_RESET_AUTO, WEIR_RESET_NEVER, why);
    if (code == WEIR_OK) code = check_count("policy_faults", o->policy_faults_max, 1, 1000000, why);
    return code;
}

/* The text block: every string once. With to == NULL only the size is counted. */
struct copier {
    char *to;
    size_t size;
};

static const char *copy_string(struct copier *copier, const char *from)
{
    if (from == NULL) return NULL;
    size_t length = strlen(from) + 1;
    char *place = copier->to == NULL ? NULL : memcpy(copier->to + copier->size, from, length);
    copier->size += length;
    return place;
}

static void copy_strings(struct wr_config *config, const weir_options *from, struct copier *copier)
{
    weir_options *o = &config->options;
    o->name = copy_string(copier, from->name);
    o->area_path = copy_string(copier, from->area_path);
    o->log_to = copy_string(copier, from->log_to);
    o->host_name = copy_string(copier, from->host_name);
    for (size_t i = 0; i < from->backend_count; i++) {
        config->backends[i] = from->backends[i];
        config->backends[i].name = copy_string(copier, from->backends[i].name);
        config->backends[i].conninfo = copy_string(copier, from->backends[i].conninfo);
    }
    for (size_t i = 0; i < from->client_count; i++) {
        weir_client *c = &config->clients[i];
        *c = from->clients[i];
        c->name = copy_string(copier, from->clients[i].name);
        c->user = copy_string(copier, from->clients[i].user);
        c->password = copy_string(copier, from->clients[i].password);
        c->role = copy_string(copier, from->clients[i].role);
        if (c->queue_max == 0) c->queue_max = 10 * c->max * (c->multiplex > 1 ? c->multiplex : 1);
    }
    for (size_t i = 0; i < from->check_count; i++) {
        config->checks[i] = from->checks[i];
        config->checks[i].name = copy_string(copier, from->checks[i].name);
    }
    o->backends = config->backends;
    o->clients = config->clients;
    o->checks = config->checks;
}

int wr_config_copy(struct wr_config *config, const weir_options *from, const struct wr_memory *memory,
                   char *why)
{
    int code = check_name("name", from->name, why);
    if (code == WEIR_OK) code = check_durations(from, why);
    if (code == WEIR_OK) code = check_members(from, why);
    if (code == WEIR_OK) code = check_logins(from, why);
    if (code == WEIR_OK) code = check_area(from, why);
    if (code == WEIR_OK) code = check_log(from, why);
    if (code == WEIR_OK) code = check_retries(from, why);
    if (code != WEIR_OK) return code;

    config->options = *from;
    struct copier copier = {NULL, 0};
    copy_strings(config, from, &copier);
    config->text_size = copier.size;
    config->text = wr_alloc(memory, copier.size);
    if (config->text == NULL) {
        wr_text_format(why, WEIR_WHY_MAX, "out of memory copying the options");
        return WEIR_ENOMEM;
    }
    copier = (struct copier){config->text, 0};
    copy_strings(config, from, &copier);
    return WEIR_OK;
}

void wr_config_release(struct wr_config *config, const struct wr_memory *memory)
{
    if (config->text == NULL) return;
    explicit_bzero(config->text, config->text_size);
    wr_free(memory, config->text);
    config->text = NULL;
}

void wr_config_login(struct wr_login *login, const weir_options *options, const weir_client *client,
                     const weir_backend *backend, const char *pool)
{
    *login = (struct wr_login){
        .pool = pool,
        .conninfo = backend->conninfo,
        .user = client->user,
        .password = client->password,
        .role = client->role,
        .kind = client->kind,
        .pooler = backend->pooler,
        .prepared_max = options->prepared_max,
    };
}

static int check_logins_of(const weir_options *options, const weir_driver *driver, char *why)
{
    char reason[WEIR_WHY_MAX] = "";
    for (size_t i = 0; i < options->client_count * options->backend_count; i++) {
        const weir_backend *backend = &options->backends[i % options->backend_count];
        struct wr_target *target = NULL;
        struct wr_login login;
        wr_config_login(&login, options, &options->clients[i / options->backend_count], backend, "");
        int code = driver->target(NULL, &login, &target, reason);
        if (target != NULL) driver->target_free(target);
        if (code == WEIR_OK) continue;
        wr_text_format(why, WEIR_WHY_MAX, "backends.%s: %s", backend->name, reason);
        return code;
    }
    return WEIR_OK;
}

int weir_options_check(const weir_options *options, const weir_driver *driver, char *why)
{
    char unused[WEIR_WHY_MAX];
    struct wr_area_shape shape;
    struct wr_config config = {0};
    if (why == NULL) why = unused;
    int code = wr_config_copy(&config, options, wr_memory_libc(), why);
    wr_config_release(&config, wr_memory_libc());
    if (code == WEIR_OK) code = wr_engine_shape(options, &shape, why);
    if (code == WEIR_OK && options->area_path != NULL)
        code = wr_area_check_name(options->area_path, options->name, why);
    return code != WEIR_OK || driver == NULL ? code : check_logins_of(options, driver, why);
}
