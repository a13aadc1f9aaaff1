/* weir_status: what monitoring asks for, answered in C from the area; no Lua runs and no connection is used. Any worker
 * tells of all of them. */
#include "ngxweir.h"

#include "weir/web.h"

#include <stdio.h>
#include <string.h>

weir_engine *wn_status_engine;

enum { PATH_MAX_LENGTH = 256, ACCEPT_MAX = 512 };

static const char *const documents[] = {"health",     "livez",      "readyz",      "metrics",
                                        "stats.json", "calls.json", "events.json", "page"};

/* ---- the directive --------------------------------------------------------------------------------------- */

/* weir_status [document]: without one, what follows the location's own prefix in the URI names it. */
char *wn_status_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *of)
{
    struct wn_location *conf = of;
    ngx_str_t *values = cf->args->elts;
    (void)cmd;
    ngx_http_core_loc_conf_t *location = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (location->handler == wn_status_handler) return "is duplicate";
    location->handler = wn_status_handler;
    if (cf->args->nelts == 1) return NGX_CONF_OK;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        if (ngx_strcmp(values[1].data, documents[i]) != 0) continue;
        conf->document = values[1];
        return NGX_CONF_OK;
    }
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "invalid document \"%V\" of \"weir_status\": it must be health, livez, readyz, metrics, stats.json, "
        "calls.json, events.json or page",
        &values[1]);
    return NGX_CONF_ERROR;
}

void *wn_status_create(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(struct wn_location));
}

/* ---- a request ------------------------------------------------------------------------------------------- */

/* The document's path, with the query it may carry. False: the URI is longer than any. */
static bool path_of(ngx_http_request_t *r, char *path, size_t size)
{
    const struct wn_location *conf = ngx_http_get_module_loc_conf(r, ngx_http_weir_module);
    const ngx_http_core_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    ngx_str_t rest = conf->document;
    if (rest.len == 0) {
        size_t prefix = location->name.len < r->uri.len ? location->name.len : r->uri.len;
        rest = (ngx_str_t){r->uri.len - prefix, r->uri.data + prefix};
    } else if (ngx_strcmp(rest.data, "page") == 0) {
        rest.len = 0;
    }
    if (rest.len > 0 && rest.data[0] == '/') {
        rest.data++;
        rest.len--;
    }
    int length = snprintf(path, size, "/%.*s%s%.*s", (int)rest.len, (const char *)rest.data,
                          r->args.len > 0 ? "?" : "", (int)r->args.len, (const char *)r->args.data);
    return length > 0 && (size_t)length < size;
}

static void copy_accept(ngx_http_request_t *r, char *accept, size_t size)
{
    static const char name[] = "accept";
    accept[0] = '\0';
    for (ngx_list_part_t *part = &r->headers_in.headers.part; part != NULL; part = part->next) {
        const ngx_table_elt_t *headers = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (headers[i].key.len != sizeof name - 1 ||
                ngx_strncasecmp(headers[i].key.data, (u_char *)name, sizeof name - 1) != 0)
                continue;
            (void)snprintf(accept, size, "%.*s", (int)headers[i].value.len,
                           (const char *)headers[i].value.data);
        }
    }
}

static ngx_int_t add_header(ngx_http_request_t *r, const char *name, const char *value)
{
    ngx_table_elt_t *header = ngx_list_push(&r->headers_out.headers);
    if (header == NULL) return NGX_ERROR;
    ngx_memzero(header, sizeof *header);
    header->hash = 1;
    header->key = (ngx_str_t){strlen(name), (u_char *)(uintptr_t)name};
    header->value = (ngx_str_t){strlen(value), (u_char *)(uintptr_t)value};
    return NGX_OK;
}

static ngx_int_t send_page(ngx_http_request_t *r, const weir_page *page)
{
    r->headers_out.status = page->http;
    r->headers_out.content_length_n = (off_t)page->length;
    r->headers_out.content_type = (ngx_str_t){strlen(page->type), (u_char *)(uintptr_t)page->type};
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    if (add_header(r, "Cache-Control", "no-store") != NGX_OK ||
        add_header(r, "X-Content-Type-Options", "nosniff") != NGX_OK ||
        add_header(r, "Content-Security-Policy", weir_page_csp()) != NGX_OK)
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    ngx_int_t code = ngx_http_send_header(r);
    if (code == NGX_ERROR || code > NGX_OK || r->header_only) return code;
    /* A copy: the engine writes the next document over this one. */
    ngx_buf_t *buffer = ngx_create_temp_buf(r->pool, page->length > 0 ? page->length : 1);
    if (buffer == NULL) return NGX_HTTP_INTERNAL_SERVER_ERROR;
    buffer->last = ngx_cpymem(buffer->pos, page->body, page->length);
    buffer->last_buf = r == r->main;
    buffer->last_in_chain = 1;
    ngx_chain_t chain = {.buf = buffer};
    return ngx_http_output_filter(r, &chain);
}

static ngx_int_t answer(ngx_http_request_t *r)
{
    static const char none[] =
        "{\"status\":\"unhealthy\",\"reason\":\"the engine of weir_policy is not open; see the "
        "error log\"}\n";
    char path[PATH_MAX_LENGTH], accept[ACCEPT_MAX];
    weir_page page = {.http = 503, .type = "application/json", .body = none, .length = sizeof none - 1};
    if (!path_of(r, path, sizeof path)) return NGX_HTTP_NOT_FOUND;
    copy_accept(r, accept, sizeof accept);
    if (wn_status_engine != NULL &&
        !weir_page_get(weir_engine_area(wn_status_engine), path, accept[0] != '\0' ? accept : NULL, &page))
        return NGX_HTTP_NOT_FOUND;
    return send_page(r, &page);
}

ngx_int_t wn_status_handler(ngx_http_request_t *r)
{
    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD))) return NGX_HTTP_NOT_ALLOWED;
    ngx_int_t code = ngx_http_discard_request_body(r);
    return code == NGX_OK ? answer(r) : code;
}
