/* A private PgBouncer in front of a struct server, with its files in a directory of its own under /tmp and on a Unix
 * socket there. It runs as the user postgres when the test runs as root, and goes down with the test process.
 *
 * The configuration is PgBouncer's default: in particular no startup parameter is ignored, so whatever it does not know
 * it refuses. Only that a server whose login failed is tried again after 0.1 s rather than 15. Passwords by SCRAM. Helpers that cannot do their work end the
 * test process with a sentence on stderr. */
#ifndef WR_TEST_POOLER_H
#define WR_TEST_POOLER_H

#include <stddef.h>

struct pooler;
struct server;

enum pooler_mode { POOLER_TRANSACTION = 0, POOLER_SESSION, POOLER_STATEMENT };

struct pooler_options {
    enum pooler_mode mode;
    int size;             /* server connections per login; 0: 4 */
    const char *upstream; /* "host=... port=..." of the server; NULL: straight to its socket */
};

struct pooler *pooler_start(struct server *server,
                            const struct pooler_options *options); /* NULL: the defaults */
void pooler_free(struct pooler *pooler); /* stops it, removes everything; accepts NULL */

/* At once, with all its connections, as a crash would; pooler_run starts it again. */
void pooler_stop(struct pooler *pooler);
void pooler_run(struct pooler *pooler);

/* Returns when no statement runs any more: from then on whatever comes waits until pooler_resume. */
void pooler_pause(struct pooler *pooler);
void pooler_resume(struct pooler *pooler);
/* From now on its server connections, those in use once they are free, are made to this upstream. */
void pooler_upstream(struct pooler *pooler, const char *upstream);

/* "host=... port=... dbname=postgres"; `more` is appended, NULL for none. The harness's logins and passwords are good.
 * Belongs to the pooler. */
const char *pooler_conninfo(struct pooler *pooler, const char *more);

/* As a client of its own, `more` as above: first value of the first row, "" for NULL or no row. Until the next call. */
const char *pooler_ask(struct pooler *pooler, const char *more, const char *sql);

/* Clients' connections, the fixture's own left out. */
size_t pooler_clients(struct pooler *pooler);
/* Server connections of this login. */
size_t pooler_servers(struct pooler *pooler, const char *login);

#endif
