/* PQconnectStart and PQconnectPoll against a deadline. */
#include "pg/handshake.h"

#include "base/text.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

uint64_t wr_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- waiting ---- */

/* Rounded up, so that a wait never ends before its deadline and then spins the rest. */
static int left_ms(uint64_t deadline_ns)
{
    uint64_t now = wr_monotonic_ns();
    if (now >= deadline_ns) return 0;
    uint64_t ms = (deadline_ns - now + 999999) / 1000000;
    return ms > 60000 ? 60000 : (int)ms;
}

static void drain(int fd)
{
    uint64_t count;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR) continue;
}

enum wr_wait wr_wait_for(const PGconn *conn, short events, const struct wr_patience *patience)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = PQsocket(conn), .events = events},
                                {.fd = patience->poke_fd, .events = POLLIN}};
        int ready = poll(fds, 2, left_ms(patience->deadline_ns));
        if (ready > 0 && fds[1].revents != 0) drain(patience->poke_fd);
        if (patience->called_off(patience->arg)) return WR_WAIT_CALLED_OFF;
        if (ready > 0 && fds[0].revents != 0) return WR_WAIT_READY;
        if (wr_monotonic_ns() >= patience->deadline_ns) return WR_WAIT_TIMEOUT;
    }
}

/* ---- connecting ---- */

static void silent(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result; /* libpq's default receiver writes to stderr, which belongs to the program we live in */
}

/* Whether anything at all came back: a listen queue accepts for a server that never will. */
static bool has_spoken(const PGconn *conn)
{
    int waiting =
        0; /* asked without a recv, which would eat the "connection refused" that libpq is to find */
    return ioctl(PQsocket(conn), FIONREAD, &waiting) == 0 && waiting > 0;
}

/* With sslmode=prefer libpq answers a refusal by trying again without TLS. A refused password will not be
 * better there and would count twice with whoever counts; a missing pg_hba line (28000) or a starting server
 * (57P03) may. */
static bool is_final(const PGconn *conn)
{
    const char *code = wr_pgfault_connect_sqlstate(PQerrorMessage(conn));
    return code != NULL && strncmp(code, "28000", 5) != 0 && strncmp(code, "57P03", 5) != 0;
}

struct progress {
    bool spoken, timed_out, called_off;
};

static bool poll_until_connected(PGconn *conn, const struct wr_patience *patience, struct progress *progress)
{
    PostgresPollingStatusType wants = PGRES_POLLING_WRITING;
    while (wants == PGRES_POLLING_READING || wants == PGRES_POLLING_WRITING) {
        enum wr_wait wait = wr_wait_for(conn, wants == PGRES_POLLING_READING ? POLLIN : POLLOUT, patience);
        progress->timed_out = wait == WR_WAIT_TIMEOUT;
        progress->called_off = wait == WR_WAIT_CALLED_OFF;
        if (wait != WR_WAIT_READY) return false;
        if (has_spoken(conn)) progress->spoken = true;
        wants = PQconnectPoll(conn);
        if (wants != PGRES_POLLING_OK && is_final(conn)) return false;
    }
    return wants == PGRES_POLLING_OK;
}

/* libpq only says it in the system's words. */
static bool names_our_shortage(const char *message)
{
    return strstr(message, strerror(EMFILE)) != NULL || strstr(message, strerror(ENFILE)) != NULL;
}

static void explain(struct wr_fault *fault, const PGconn *conn, const struct progress *progress,
                    uint64_t timeout_ns, const struct wr_secrets *secrets)
{
    wr_pgfault_from_connect(fault, PQerrorMessage(conn), secrets);
    if (progress->timed_out) {
        char earlier[sizeof fault->message];
        wr_text_copy(earlier, sizeof earlier, *PQerrorMessage(conn) != '\0' ? fault->message : "");
        wr_text_format(fault->message, sizeof fault->message, "no connection within %.3g s%s%s",
                       (double)timeout_ns / 1e9, earlier[0] != '\0' ? ": " : "", earlier);
    }
    if (progress->called_off) wr_pgfault_say(fault, "the connect was called off");
    fault->unreachable = progress->timed_out || (!progress->spoken && fault->sqlstate[0] == '\0');
    fault->lost = true;
    fault->ours = fault->unreachable && names_our_shortage(fault->message);
    if (fault->ours) fault->unreachable = false;
}

/* A password from a file or the environment is not in the target, but PQpass knows it. */
static struct wr_secrets all_secrets(const struct wr_target *target, const PGconn *conn)
{
    struct wr_secrets secrets = target->secrets;
    secrets.list[WR_SECRETS - 1] = PQpass(conn);
    return secrets;
}

/* PgBouncer has one code, 08P01, for whatever befalls it. Once it has let us in, it is about servers it does
 * not reach, which passes: nothing that must come again, as a violation of the protocol would. */
static bool greet(struct wr_arrival *arrival, const struct wr_target *target,
                  const struct wr_patience *patience, const struct wr_secrets *secrets)
{
    if (wr_greet(arrival, target, patience, secrets)) return true;
    if (strcmp(arrival->fault.sqlstate, "08P01") == 0) arrival->fault.sqlstate[0] = '\0';
    return false;
}

static bool establish(struct wr_arrival *arrival, const struct wr_target *target, uint64_t timeout_ns,
                      const struct wr_patience *patience)
{
    PGconn *conn = arrival->conn;
    struct progress progress = {.spoken = false};
    struct wr_secrets secrets = all_secrets(target, conn);
    PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
    PQsetNoticeReceiver(conn, silent, NULL);
    bool ok = PQstatus(conn) != CONNECTION_BAD && poll_until_connected(conn, patience, &progress);
    secrets = all_secrets(target, conn); /* the password file is read per host */
    if (!ok) {
        explain(&arrival->fault, conn, &progress, timeout_ns, &secrets);
        return false;
    }
    PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
    if (PQsetnonblocking(conn, 1) != 0 || PQenterPipelineMode(conn) != 1) {
        wr_pgfault_from_conn(&arrival->fault, conn, &secrets);
        return false;
    }
    return greet(arrival, target, patience, &secrets);
}

void wr_handshake(struct wr_arrival *arrival, const struct wr_target *target, uint64_t timeout_ns,
                  struct wr_patience *patience)
{
    uint64_t started = wr_monotonic_ns();
    patience->deadline_ns = timeout_ns < UINT64_MAX - started ? started + timeout_ns : UINT64_MAX;
    *arrival = (struct wr_arrival){.conn = PQconnectStartParams((const char *const *)target->keys,
                                                                (const char *const *)target->values, 0)};
    bool ok = arrival->conn != NULL && establish(arrival, target, timeout_ns, patience);
    if (ok) arrival->cancel = PQgetCancel(arrival->conn);
    if (ok && arrival->cancel != NULL) {
        arrival->greeting.connect_ns = wr_monotonic_ns() - started;
        return;
    }
    if (arrival->conn == NULL || ok) wr_pgfault_say(&arrival->fault, "out of memory");
    struct wr_fault fault = arrival->fault;
    wr_arrival_discard(arrival);
    arrival->fault = fault;
    arrival->fault.lost = true;
}

void wr_arrival_discard(struct wr_arrival *arrival)
{
    PQfreeCancel(arrival->cancel);
    PQfinish(arrival->conn);
    free(arrival->settings.text);
    *arrival = (struct wr_arrival){.conn = NULL};
}
