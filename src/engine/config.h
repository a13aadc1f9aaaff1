/* The engine's own copy of the options: one block of text, checked once. Owner: the engine; fixed while it lives. */
#ifndef WR_CONFIG_H
#define WR_CONFIG_H

#include "area/sharedarea.h"
#include "base/text.h"
#include "engine/driver.h"
#include "weir/weir.h"

enum {
    WR_BACKENDS_MAX = 16,
    WR_CLIENTS_MAX = 16,
    WR_CHECKS_MAX = 32,
    WR_POOL_MAX = 10000,
    WR_MULTIPLEX_MAX = 64,
    WR_ENGINE_NAME_MAX = 31,
    WR_CONTEXT_MAX = 4096,
    WR_CLAIMS_MAX = 1 << 16
};

struct wr_config {
    weir_options options; /* its pointers point into `text` and the arrays below */
    weir_backend backends[WR_BACKENDS_MAX];
    weir_client clients[WR_CLIENTS_MAX];
    weir_check checks[WR_CHECKS_MAX];
    char *text;
    size_t text_size;
};

/* Checks every knob and copies. On failure nothing is held and why names the first knob that is wrong. */
int wr_config_copy(struct wr_config *config, const weir_options *from, const struct wr_memory *memory,
                   char *why);
/* What a driver is asked for one client on one backend. Points into the options and `pool`. */
void wr_config_login(struct wr_login *login, const weir_options *options, const weir_client *client,
                     const weir_backend *backend, const char *pool);
/* shape.c: how the area is laid out. WEIR_OK, or WEIR_EINVAL and a sentence. */
int wr_engine_shape(const weir_options *options, struct wr_area_shape *shape, char *why);
/* Whether an engine of this build makes areas of that shape: another one's sizes would say nothing of what lies in them. */
bool wr_engine_makes(const struct wr_area_shape *shape);
/* Passwords are wiped before the memory goes back. */
void wr_config_release(struct wr_config *config, const struct wr_memory *memory);

#endif
