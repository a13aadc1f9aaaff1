/* What a call made inside a request is for: method and route, unless the code says otherwise. The route is the location
 * that serves the request, whose number is bounded by the configuration; $weir_route can be set to something finer. */
#include "ngxweir.h"

#include <stdio.h>

enum { CONTEXT_MAX = 96, TRACEPARENT_MAX = 64 };

static ngx_int_t variable_index = NGX_ERROR;

static ngx_int_t route_of_location(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data)
{
    (void)data;
    ngx_http_core_loc_conf_t *location = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    value->valid = 1;
    value->no_cacheable = 1; /* a subrequest or an internal redirect is in another location */
    value->not_found = 0;
    value->data = location->name.len > 0 ? location->name.data : (u_char *)"/";
    value->len = (unsigned)(location->name.len > 0 ? location->name.len : 1) & 0xfffffff;
    return NGX_OK;
}

ngx_int_t wn_route_variable(ngx_conf_t *cf)
{
    ngx_str_t name = ngx_string("weir_route");
    ngx_http_variable_t *variable =
        ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_CHANGEABLE | NGX_HTTP_VAR_NOCACHEABLE);
    if (variable == NULL) return NGX_ERROR;
    variable->get_handler = route_of_location;
    variable_index = ngx_http_get_variable_index(cf, &name);
    return variable_index == NGX_ERROR ? NGX_ERROR : NGX_OK;
}

/* Clients may make methods up, and each would take one of the places that there are for labels. */
static ngx_str_t method_of(const ngx_http_request_t *r)
{
    static const ngx_str_t other = ngx_string("OTHER");
    return r->method == NGX_HTTP_UNKNOWN ? other : r->method_name;
}

static const char *context_of(ngx_http_request_t *r)
{
    static char context[CONTEXT_MAX];
    ngx_str_t method = method_of(r);
    if (r->method_name.len == 0 || r->variables == NULL) return NULL; /* a timer's, made up by ngx_lua */
    ngx_http_variable_value_t *route = ngx_http_get_flushed_variable(r, (ngx_uint_t)variable_index);
    if (route == NULL || route->not_found) return NULL;
    (void)snprintf(context, sizeof context, "%.*s %.*s", (int)method.len, (const char *)method.data,
                   (int)route->len, (const char *)route->data);
    return context;
}

/* Handed on as it came: who reads it judges it. Only its length is not trusted. */
static const char *traceparent_of(ngx_http_request_t *r)
{
    static char text[TRACEPARENT_MAX];
    static const char name[] = "traceparent";
    ngx_list_part_t *part = &r->main->headers_in.headers.part;
    for (; part != NULL; part = part->next) {
        const ngx_table_elt_t *headers = part->elts;
        for (ngx_uint_t i = 0; i < part->nelts; i++) {
            if (headers[i].key.len != sizeof name - 1 || headers[i].value.len >= sizeof text) continue;
            if (ngx_strncasecmp(headers[i].key.data, (u_char *)name, sizeof name - 1) != 0) continue;
            ngx_memcpy(text, headers[i].value.data, headers[i].value.len);
            text[headers[i].value.len] = '\0';
            return text;
        }
    }
    return NULL;
}

void wn_route_describe(void *ctx, struct lua_State *L, weir_request *request)
{
    (void)ctx;
    ngx_http_request_t *r = wn_lua_request(L);
    if (r == NULL) return;
    if (request->context == NULL) request->context = context_of(r);
    if (request->traceparent == NULL) request->traceparent = traceparent_of(r);
}
