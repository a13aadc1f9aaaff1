/* One login on one backend: the checked conninfo as keyword arrays. A conninfo is never handed to libpq as
 * text after it has been parsed here, because libpq's own complaints quote it, password and all. */
#ifndef WR_TARGET_H
#define WR_TARGET_H

#include "engine/driver.h"
#include "pg/pgfault.h"

struct wr_target {
    _Atomic unsigned references; /* the engine's, one per connect under way, one per link */
    char *pool, *login, *role;   /* login NULL: what libpq falls back on; role NULL: SERVICE */
    weir_kind kind;
    bool pooler;
    uint32_t prepared_max;
    char **keys, **values; /* NULL-terminated, for PQconnectStartParams without expand_dbname */
    size_t count;
    struct wr_secrets secrets; /* point into values */
};

/* WEIR_OK, WEIR_ENOMEM, or WEIR_EINVAL with a sentence that names the knob and holds no secret. Memory is
 * libc's: crew threads read targets, and the engine's memory belongs to the loop. */
int wr_target_make(struct wr_target **out, const struct wr_login *login, char *why);
struct wr_target *wr_target_keep(struct wr_target *target);
void wr_target_drop(struct wr_target *target); /* the last one zeroes the secrets */

#endif
