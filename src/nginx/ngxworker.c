/* A worker's life: started after the fork, told when it is to leave, stopped when the last request has gone. */
#include "ngxworker.h"

/* A connection that stands for nothing but the moment when a worker is asked to leave: nginx then closes its idle
 * connections, and this is one of them. */
static ngx_connection_t *herald;
static ngx_event_t drain;

static void on_drain(ngx_event_t *event)
{
    (void)event;
    wn_host_drain();
}

static void drop_herald(void)
{
    if (herald == NULL) return;
    ngx_free_connection(herald);
    herald->fd = (ngx_socket_t)-1;
    herald = NULL;
}

/* Requests in flight go on making calls until weir_drain_timeout; then what is left of them is ended, so that the worker can
 * go. If none is left before, it goes before: the timer does not hold it. */
static void on_exiting(ngx_event_t *event)
{
    (void)event;
    if (!ngx_exiting) return;
    ngx_msec_t patience = ((struct wn_conf *)herald->data)->drain_timeout;
    drop_herald();
    ngx_add_timer(&drain, patience);
    wn_lua_stir(NULL);
}

static ngx_int_t post_herald(ngx_cycle_t *cycle, struct wn_conf *conf)
{
    drain = (ngx_event_t){.handler = on_drain, .log = cycle->log, .cancelable = 1};
    herald = ngx_get_connection(0, cycle->log);
    if (herald == NULL) return NGX_ERROR;
    herald->fd = (ngx_socket_t)-2; /* no descriptor, and not the mark of a free one either */
    herald->idle = 1;
    herald->data = conf;
    herald->log = herald->read->log = herald->write->log = cycle->log;
    herald->read->handler = on_exiting;
    herald->read->channel = 1; /* or a fast exit would call it a leak */
    return NGX_OK;
}

bool wn_is_worker(void)
{
    return ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_SINGLE;
}

static struct wn_conf *conf_of(ngx_cycle_t *cycle)
{
    return cycle->conf_ctx[ngx_http_module.index] != NULL
               ? ngx_http_cycle_get_module_main_conf(cycle, ngx_http_weir_module)
               : NULL;
}

/* What goes wrong here must not end the worker: it would be started again and again. Calls then fail with the reason. */
ngx_int_t wn_worker_start(ngx_cycle_t *cycle)
{
    char why[WEIR_WHY_MAX] = "";
    struct wn_conf *conf = conf_of(cycle);
    if (!wn_is_worker() || conf == NULL || conf->L == NULL) return NGX_OK;
    wn_host_start(cycle->log);
    if (wn_gate_start(cycle->log) != NGX_OK || post_herald(cycle, conf) != NGX_OK) {
        ngx_log_error(NGX_LOG_ALERT, cycle->log, 0,
                      "weir: out of memory or of worker_connections at the start");
        return NGX_OK;
    }
    if (wn_lua_start(conf, why) != NGX_OK) ngx_log_error(NGX_LOG_ALERT, cycle->log, 0, "weir: %s", why);
    return NGX_OK;
}

/* Before nginx looks for connections that were left open, and before the Lua state goes. */
void wn_worker_stop(ngx_cycle_t *cycle)
{
    struct wn_conf *conf = conf_of(cycle);
    if (!wn_is_worker() || conf == NULL || conf->L == NULL) return;
    wn_lua_stop(conf);
    wn_gate_stop();
    drop_herald();
    if (drain.timer_set) ngx_del_timer(&drain);
}
