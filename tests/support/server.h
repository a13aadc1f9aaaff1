/* Throw-away PostgreSQL servers for tests. A server lives in a private directory under /tmp, listens on a
 * Unix socket there, runs as the user postgres when the test runs as root, and goes down with the test
 * process however that ends. Starting one takes about 0.15 s: initdb runs once and its outcome is copied.
 *
 * Helpers that cannot do their work end the test process with a sentence on stderr, so a test needs no
 * checks. Strings returned belong to the server and live until the next call that returns one of the same
 * function. */
#ifndef WR_TEST_SERVER_H
#define WR_TEST_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct server;

struct server_options {
    bool durable;       /* fsync and full_page_writes on: for tests of what survives a crash */
    bool tcp;           /* also listen on 127.0.0.1, on a port nobody uses; see server_port */
    bool tls;           /* a self-signed certificate, ssl = on; needs tcp to be of use */
    bool open_socket;   /* let other users (an nginx worker) reach the socket */
    const char *config; /* lines for postgresql.conf, last word; NULL: none */
    const char *hba;    /* the whole pg_hba.conf; NULL: trust everybody */
};

enum server_stop { SERVER_FAST = 0, SERVER_IMMEDIATE, SERVER_SMART };

struct server *server_start(const struct server_options *options); /* NULL: the defaults. Ready to be used */
void server_free(struct server *server); /* stops it at once, removes everything; accepts NULL */

void server_stop(struct server *server, enum server_stop how); /* returns when the postmaster is gone */
/* only asks: smart waits for its clients */
void server_stop_begin(struct server *server, enum server_stop how);
void server_run(struct server *server); /* starts a stopped one again, same directory */
void server_restart(struct server *server, enum server_stop how);
bool server_running(struct server *server);
pid_t server_pid(const struct server *server); /* of the postmaster; 0 when stopped */

/* SIGSTOP and SIGCONT: of the postmaster, and of any backend. server_free thaws what it knows. */
void server_freeze(struct server *server);
void server_thaw(struct server *server);
void server_signal(struct server *server, pid_t backend, int signal);

/* A standby that follows `primary`, already streaming; server_promote makes it a primary of the next
 * timeline. */
struct server *server_standby(struct server *primary, const struct server_options *options);
void server_promote(struct server *server);

const char *server_socket_dir(const struct server *server);
int server_port(const struct server *server);
/* "host=... port=... dbname=postgres user=postgres"; `more` is appended and wins, NULL for none. */
const char *server_conninfo(struct server *server, const char *more);
/* The same by TCP. */
const char *server_conninfo_tcp(struct server *server, const char *more);

/* As superuser, over a connection of the fixture's own (application_name 'fixture'). */
void server_exec(struct server *server, const char *sql); /* any number of statements; must succeed */
/* first value of the first row; "" for NULL or no row */
const char *server_ask(struct server *server, const char *sql);
long server_ask_number(struct server *server, const char *sql);
bool server_try(struct server *server, const char *sql); /* false if it failed */

/* pg_stat_activity rows of clients, without the fixture's own; application NULL: any. */
size_t server_sessions(struct server *server, const char *application);
/* Waits up to ms for `sql` to give 't'; false if it never did. */
bool server_wait(struct server *server, const char *sql, int ms);

void server_hba(struct server *server, const char *lines);    /* replaces pg_hba.conf and reloads */
void server_config(struct server *server, const char *lines); /* appends to postgresql.conf and reloads */
/* lines of the server's log that hold text */
size_t server_log_count(struct server *server, const char *text);

#endif
