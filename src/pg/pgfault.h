/* Faults as the engine wants them, out of what libpq has to say: one line, unlocalised severity, no
 * secrets. */
#ifndef WR_PGFAULT_H
#define WR_PGFAULT_H

#include "engine/driver.h"

#include <libpq-fe.h>

enum { WR_SECRETS = 4 };

/* What must not be seen in any message; NULL and very short entries are passed over. Borrowed from the target
 * and, for what came out of a password file or the environment, from the PGconn. */
struct wr_secrets {
    const char *list[WR_SECRETS];
};

/* Copies as one line, each secret replaced by ***. */
void wr_redact(char *to, size_t size, const char *from, const struct wr_secrets *secrets);

/* Our own sentence; the other fields of the fault are cleared. */
void wr_pgfault_say(struct wr_fault *fault, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* From an error result, with `lost` set if it means the end of the connection: FATAL, PANIC, or no SQLSTATE
 * at all. The SQLSTATE alone says nothing of the kind: RAISE ... USING ERRCODE = '57P01' is an error like any
 * other. */
void wr_pgfault_from_result(struct wr_fault *fault, const PGresult *result, const struct wr_secrets *secrets);

/* From PQerrorMessage of an established connection that broke. */
void wr_pgfault_from_conn(struct wr_fault *fault, const PGconn *conn, const struct wr_secrets *secrets);

/* From PQerrorMessage of a connect under PQERRORS_VERBOSE, where alone libpq 15 lets the SQLSTATE be seen.
 * The message is made plain again. */
void wr_pgfault_from_connect(struct wr_fault *fault, const char *message, const struct wr_secrets *secrets);

/* The SQLSTATE of the last error in such a message, 5 characters, or NULL. */
const char *wr_pgfault_connect_sqlstate(const char *message);

#endif
