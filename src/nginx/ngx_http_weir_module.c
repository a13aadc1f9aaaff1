/* The module as nginx sees it: its directives, and when which part of it runs. */
#include "ngxworker.h"

#include <stdio.h>

enum { DRAIN_TIMEOUT_MS = 10000 };

static void note_place(struct wn_place *place, ngx_conf_t *cf)
{
    place->file = cf->conf_file->file.name;
    place->line = cf->conf_file->line;
}

/* ---- directives ------------------------------------------------------------------------------------------ */

static char *set_area(ngx_conf_t *cf, ngx_command_t *cmd, void *of)
{
    struct wn_conf *conf = of;
    ngx_str_t *values = cf->args->elts;
    (void)cmd;
    if (conf->area.len > 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"weir_area\" is given twice: \"%V\" in %V:%ui; one area serves all workers",
                           &conf->area, &conf->area_place.file, conf->area_place.line);
        return NGX_CONF_ERROR;
    }
    conf->area = values[1];
    if (conf->area.len == 0 || ngx_conf_full_name(cf->cycle, &conf->area, 0) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"weir_area\" needs the path of a file");
        return NGX_CONF_ERROR;
    }
    ssize_t size = ngx_parse_size(&values[2]);
    if (size == NGX_ERROR || size <= 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of \"weir_area\": bytes are needed, like 16m", &values[2]);
        return NGX_CONF_ERROR;
    }
    conf->area_size = (size_t)size;
    note_place(&conf->area_place, cf);
    return NGX_CONF_OK;
}

static ngx_int_t read_policy(ngx_conf_t *cf, struct wn_conf *conf, ngx_file_t *file)
{
    ngx_file_info_t info;
    if (ngx_fd_info(file->fd, &info) == NGX_FILE_ERROR || !ngx_is_file(&info)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "the policy \"%V\" is no file", &conf->policy);
        return NGX_ERROR;
    }
    size_t size = (size_t)ngx_file_size(&info);
    if (size == 0 || size > WN_POLICY_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "the policy \"%V\" has %uz bytes; 1 to %d are allowed",
                           &conf->policy, size, WN_POLICY_MAX);
        return NGX_ERROR;
    }
    conf->policy_text.data = ngx_pnalloc(cf->pool, size);
    if (conf->policy_text.data == NULL) return NGX_ERROR;
    ssize_t got = ngx_read_file(file, conf->policy_text.data, size, 0);
    if (got == NGX_ERROR) return NGX_ERROR; /* logged */
    conf->policy_text.len = (size_t)got;
    struct timeval now;
    ngx_gettimeofday(&now);
    conf->read_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_usec;
    return NGX_OK;
}

static char *set_policy(ngx_conf_t *cf, ngx_command_t *cmd, void *of)
{
    struct wn_conf *conf = of;
    ngx_str_t *values = cf->args->elts;
    (void)cmd;
    if (conf->policy.len > 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"weir_policy\" is given twice: \"%V\" in %V:%ui",
                           &conf->policy, &conf->policy_place.file, conf->policy_place.line);
        return NGX_CONF_ERROR;
    }
    conf->policy = values[1];
    if (ngx_conf_full_name(cf->cycle, &conf->policy, 1) != NGX_OK) return NGX_CONF_ERROR;
    note_place(&conf->policy_place, cf);
    ngx_file_t file = {.name = conf->policy, .log = cf->log};
    file.fd = ngx_open_file(conf->policy.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (file.fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "the policy \"%V\" cannot be read", &conf->policy);
        return NGX_CONF_ERROR;
    }
    ngx_int_t code = read_policy(cf, conf, &file);
    (void)ngx_close_file(file.fd);
    return code == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}

static ngx_command_t commands[] = {
    {ngx_string("weir_area"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE2, set_area, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     NULL},
    {ngx_string("weir_policy"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_policy, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     NULL},
    {ngx_string("weir_drain_timeout"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, ngx_conf_set_msec_slot,
     NGX_HTTP_MAIN_CONF_OFFSET, offsetof(struct wn_conf, drain_timeout), NULL},
    {ngx_string("weir_status"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1, wn_status_directive,
     NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    ngx_null_command,
};

/* ---- the configuration as a whole ------------------------------------------------------------------------- */

static void *create_conf(ngx_conf_t *cf)
{
    struct wn_conf *conf = ngx_pcalloc(cf->pool, sizeof *conf);
    if (conf != NULL) conf->drain_timeout = NGX_CONF_UNSET_MSEC;
    return conf;
}

static char *init_conf(ngx_conf_t *cf, void *of)
{
    struct wn_conf *conf = of;
    (void)cf;
    ngx_conf_init_msec_value(conf->drain_timeout, DRAIN_TIMEOUT_MS);
    return NGX_CONF_OK;
}

static ngx_int_t complain(ngx_conf_t *cf, const struct wn_place *place, const char *directive,
                          const char *why)
{
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "\"%s\": %s in %V:%ui", directive, why, &place->file,
                  place->line);
    return NGX_ERROR;
}

/* nginx then reads the configuration and starts no module on it: it has not even connections any more. Refused, the one
 * process goes on as it was. */
static bool reloads_alone(ngx_conf_t *cf)
{
    return ngx_process == NGX_PROCESS_SINGLE && !ngx_is_init_cycle(cf->cycle->old_cycle);
}

/* Before ngx_lua makes its Lua state, which must find the binding. */
static ngx_int_t before_configuration(ngx_conf_t *cf)
{
    if (reloads_alone(cf)) {
        ngx_log_error(
            NGX_LOG_EMERG, cf->log, 0,
            "weir: without a master (\"master_process off\") nginx cannot reload what it serves: it must be "
            "restarted; the old configuration stays in force");
        return NGX_ERROR;
    }
    const char *objection = wn_lua_objection();
    if (objection != NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "weir " WEIR_VERSION " (for nginx " NGINX_VERSION "): %s",
                      objection);
        return NGX_ERROR;
    }
    return wn_lua_preload(cf) == NGX_OK ? wn_route_variable(cf) : NGX_ERROR;
}

static ngx_int_t after_configuration(ngx_conf_t *cf)
{
    char why[WEIR_WHY_MAX] = "";
    struct wn_conf *conf = ngx_http_conf_get_module_main_conf(cf, ngx_http_weir_module);
    if (conf->policy.len > 0 && conf->area.len == 0)
        return complain(cf, &conf->policy_place, "weir_policy",
                        "there is no \"weir_area\" for the workers to share");
    if (conf->area.len > 0 && conf->policy.len == 0)
        return complain(cf, &conf->area_place, "weir_area",
                        "there is no \"weir_policy\" whose engine would use it");
    if (conf->area.len > 0 && wn_check_area(cf, conf, why) != NGX_OK)
        return complain(cf, &conf->area_place, "weir_area", why);
    if (wn_lua_check(cf, conf, why) != NGX_OK) {
        if (conf->policy.len > 0) return complain(cf, &conf->policy_place, "weir_policy", why);
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "weir " WEIR_VERSION ": %s", why);
        return NGX_ERROR;
    }
    return NGX_OK;
}

static ngx_http_module_t module = {
    .preconfiguration = before_configuration,
    .postconfiguration = after_configuration,
    .create_main_conf = create_conf,
    .init_main_conf = init_conf,
    .create_loc_conf = wn_status_create,
};

ngx_module_t ngx_http_weir_module = {
    NGX_MODULE_V1,
    &module,
    commands,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    wn_worker_start,
    NULL,
    NULL,
    wn_worker_stop,
    NULL /* master's */,
    NGX_MODULE_V1_PADDING,
};
