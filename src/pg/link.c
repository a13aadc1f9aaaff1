/* The socket's side of a link: readiness, interest, cancel, peek, close. */
#include "pg/link.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CANCEL_AGAIN = 6, CANCEL_AGAIN_NS = 5000000 };

/* Of OpenSSL, which libpq brings along if it can do TLS; without it there is nothing pending to ask for. */
extern int SSL_pending(const void *ssl) __attribute__((weak));

/* ---- notices ---- */

/* A FATAL while nothing is under way comes as a notice; so does the 57P02 by which a crash of the server is
 * told. */
static void keep_last_words(struct wr_link *link, const PGresult *notice)
{
    struct wr_fault said;
    struct wr_secrets secrets = wr_link_secrets(link);
    wr_pgfault_from_result(&said, notice, &secrets);
    bool fatal = strcmp(said.severity, "FATAL") == 0 || strcmp(said.severity, "PANIC") == 0;
    if (link->fatal_heard || (!fatal && strcmp(said.sqlstate, "57P02") != 0)) return;
    link->last_words = said;
    link->fatal_heard = fatal;
}

/* Called from inside libpq: it copies and returns. */
static void on_notice(void *arg, const PGresult *notice)
{
    struct wr_link *link = arg;
    keep_last_words(link, notice);
    if (link->state != WR_LINK_RUNNING) return;
    struct wr_flight *flight = wr_link_oldest(link);
    if (flight->notices == NULL) flight->notices = wr_notices_make(link->pg->env->memory);
    if (flight->notices != NULL) wr_notices_add(flight->notices, notice);
}

/* ---- interest ---- */

static bool want(struct wr_link *link, unsigned events)
{
    const struct wr_driver_env *env = link->pg->env;
    if (link->watched == events) return true;
    if (env->watch(env->engine, link->fd, events, wr_link_ready, link) != 0) return false;
    link->watched = events;
    return true;
}

/* A full socket makes libpq read while it writes. What it has then taken in of earlier flights' answers the socket does
 * not tell of any more. */
static void mind_unread(struct wr_link *link)
{
    if (link->flights.next == link->flights.prev || link->delivering || PQisBusy(link->conn)) return;
    if (!wr_list_empty(&link->unread)) return;
    wr_list_append(&link->pg->unread, &link->unread);
    wr_crew_ring(link->pg->crew);
}

bool wr_link_push(struct wr_link *link)
{
    int left = PQflush(link->conn);
    mind_unread(link);
    return left >= 0 && want(link, left == 1 ? WEIR_READ | WEIR_WRITE : WEIR_READ);
}

/* False: the link is over, or gone. */
static bool catch_up(struct wr_link *link)
{
    wr_list_remove(&link->unread);
    link->catching_up = true;
    if (!wr_link_read(link)) return false;
    link->catching_up = false;
    return true;
}

void wr_link_read_on(struct wr_link *link)
{
    (void)catch_up(link);
}

void wr_link_doom(struct wr_link *link)
{
    if (!wr_list_empty(&link->doomed)) return;
    wr_list_append(&link->pg->doomed, &link->doomed);
    wr_crew_ring(link->pg->crew);
}

void wr_link_report_doomed(struct wr_link *link)
{
    wr_list_remove(&link->doomed);
    PQconsumeInput(link->conn); /* the server may have said why */
    if (wr_link_read(link)) wr_link_lose(link);
}

void wr_link_abandon(struct wr_link *link)
{
    want(link, 0);
    wr_list_remove(&link->doomed);
    wr_list_remove(&link->unread);
    link->state = WR_LINK_OVER;
}

/* ---- readiness ---- */

/* A TLS record larger than libpq's free buffer leaves bytes inside OpenSSL, of which the socket says
 * nothing. */
static bool consume(PGconn *conn)
{
    bool ok = PQconsumeInput(conn) == 1;
    const void *tls = SSL_pending == NULL ? NULL : PQsslStruct(conn, "OpenSSL");
    while (ok && tls != NULL && PQisBusy(conn) && SSL_pending(tls) > 0) ok = PQconsumeInput(conn) == 1;
    return ok && PQstatus(conn) == CONNECTION_OK;
}

void wr_link_tell_notifications(struct wr_link *link)
{
    const struct wr_driver_env *env = link->pg->env;
    for (PGnotify *note; (note = PQnotifies(link->conn)) != NULL;) {
        if (env->notified != NULL)
            env->notified(link->owner, note->relname, note->extra, (uint32_t)note->be_pid);
        PQfreemem(note);
    }
}

/* With nothing under way only notices, notifications and parameter reports may come. */
static bool hear_idle(struct wr_link *link)
{
    bool ok = consume(link->conn);
    PQisBusy(link->conn); /* parses what has come */
    wr_link_tell_notifications(link);
    return ok && !link->fatal_heard;
}

void wr_link_ready(void *arg, unsigned events)
{
    struct wr_link *link = arg;
    bool ok = true;
    if (link->state == WR_LINK_OVER) return;
    if (link->state == WR_LINK_IDLE || link->state == WR_LINK_HELD) {
        ok = hear_idle(link);
        if (!ok && link->state == WR_LINK_HELD) want(link, 0);
        if (!ok && link->state == WR_LINK_IDLE) wr_link_lose(link);
        return;
    }
    if (!wr_list_empty(&link->unread) && !catch_up(link))
        return; /* libpq drops them if it now finds the end */
    if ((events & WEIR_READ) != 0) ok = consume(link->conn);
    if (!wr_link_read(link)) return;
    if (!ok || (link->watched & WEIR_WRITE) != 0) {
        if (!ok || !wr_link_push(link)) wr_link_lose(link);
    }
}

bool wr_link_peek(struct wr_link *link)
{
    char byte;
    if (link->state != WR_LINK_IDLE || link->moved) return false;
    ssize_t got = recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    return got > 0 && hear_idle(link);
}

/* ---- cancelling ---- */

/* A request that arrives before the backend has begun the statement finds nothing to end and is lost, which
 * on a quick network is not rare at all. So it is repeated, each time later, while the statement has not
 * ended. */
static void request_cancel(struct wr_link *link)
{
    uint64_t delay_ns = link->cancel_tries == 0 ? 0 : (uint64_t)CANCEL_AGAIN_NS << link->cancel_tries;
    link->cancel_tries++;
    link->canceling = wr_crew_cancel(link->pg->crew, link->cancel, delay_ns) == WEIR_OK;
}

void wr_link_cancel(struct wr_link *link)
{
    if (link->state != WR_LINK_RUNNING || link->canceling) return;
    link->cancel_tries = 0;
    request_cancel(link);
}

/* True when no cancel can hit the link any more. */
bool wr_link_uncancelled(struct wr_link *link)
{
    if (link->canceling && wr_crew_withdraw(link->pg->crew, link->cancel)) link->canceling = false;
    return !link->canceling;
}

void wr_link_cancelled(struct wr_link *link)
{
    link->canceling = false;
    if (link->state == WR_LINK_HELD) {
        if (!want(link, WEIR_READ)) wr_link_doom(link);
        if (wr_link_settle(link)) wr_link_read(link);
    } else if (link->state == WR_LINK_RUNNING && link->cancel_tries <= CANCEL_AGAIN) {
        request_cancel(link);
    }
}

/* ---- making and closing ---- */

struct wr_secrets wr_link_secrets(const struct wr_link *link)
{
    struct wr_secrets secrets = link->target->secrets;
    secrets.list[WR_SECRETS - 1] = PQpass(link->conn);
    return secrets;
}

static bool sets(const struct wr_settings *settings, const char *name)
{
    const char *at = settings->text;
    for (size_t i = 0; i < settings->count * 2; i++, at += strlen(at) + 1) {
        if (i % 2 == 0 && strcasecmp(at, name) == 0) return true;
    }
    return false;
}

static void note_baseline(struct wr_link *link)
{
    link->baseline.timeout_ms = link->timeout_cap_ms;
    link->baseline.named = !sets(&link->settings, "application_name");
    wr_text_copy(link->baseline.application, sizeof link->baseline.application, link->target->pool);
    link->session = link->wanted = link->baseline;
}

static void take_arrival(struct wr_link *link, struct wr_arrival *arrival)
{
    link->conn = arrival->conn;
    link->pooler = arrival->pooler;
    wr_text_format(link->life, sizeof link->life, "%" PRId64, (int64_t)arrival->greeting.life);
    link->settings = arrival->settings;
    link->timeout_cap_ms = arrival->timeout_cap_ms;
    link->cancel->handle = arrival->cancel;
    link->cancel->link = link;
    *arrival = (struct wr_arrival){.conn = NULL};
}

struct wr_link *wr_link_make(struct wr_pg *pg, struct wr_errand *errand, struct wr_fault *fault)
{
    struct wr_link *link = wr_alloc(pg->env->memory, sizeof *link);
    wr_pgfault_say(fault, "out of memory or descriptors");
    fault->lost = fault->ours = true;
    if (link == NULL) return NULL;
    link->cancel = calloc(1, sizeof *link->cancel);
    link->fd = link->cancel == NULL ? -1 : fcntl(PQsocket(errand->arrival.conn), F_DUPFD_CLOEXEC, 3);
    if (link->fd < 0) {
        free(link->cancel);
        wr_free(pg->env->memory, link);
        return NULL;
    }
    wr_list_init(&link->doomed);
    wr_list_init(&link->unread);
    wr_list_init(&link->flights);
    wr_list_init(&link->spare_flights);
    wr_list_init(&link->cancel->place);
    link->cancel->site = errand->site;
    link->pg = pg;
    link->owner = errand->owner;
    link->target = wr_target_keep(errand->target);
    wr_buffer_init(&link->text, pg->env->memory);
    wr_statements_init(&link->statements, pg->env->memory,
                       errand->arrival.pooler ? 0 : link->target->prepared_max);
    take_arrival(link, &errand->arrival);
    note_baseline(link);
    PQsetNoticeReceiver(link->conn, on_notice, link);
    if (want(link, WEIR_READ)) return link;
    wr_pgfault_say(fault, "the connection cannot be used: this process has no %s left", pg->env->scarce);
    fault->lost = fault->ours = true;
    wr_link_close(link);
    return NULL;
}

static void free_statements(struct wr_link *link)
{
    for (size_t i = 0; i < WR_PREAMBLES; i++) wr_statement_free(&link->statements, link->preambles[i]);
    wr_statement_free(&link->statements, link->xid_question);
    wr_statement_free(&link->statements, link->probe);
    wr_statements_release(&link->statements);
}

static void free_flights(struct wr_link *link, struct wr_list *list)
{
    const struct wr_memory *memory = link->pg->env->memory;
    for (struct wr_list *first; (first = wr_list_first(list)) != NULL;) {
        struct wr_flight *flight = WR_CONTAINER(first, struct wr_flight, place);
        wr_list_remove(first);
        for (size_t i = 0; i < flight->reply.count; i++) wr_result_release(&flight->results[i]);
        wr_notices_drop(flight->notices);
        wr_free(memory, flight->steps);
        wr_free(memory, flight->results);
        wr_free(memory, flight);
    }
}

void wr_link_close(struct wr_link *link)
{
    const struct wr_memory *memory = link->pg->env->memory;
    link->closed = true;
    if (link->delivering) return;
    wr_link_abandon(link);
    free_flights(link, &link->flights);
    free_flights(link, &link->spare_flights);
    wr_crew_abandon(link->pg->crew, link->cancel);
    PQfinish(link->conn);
    close(link->fd);
    free_statements(link);
    wr_target_drop(link->target);
    free(link->settings.text);
    wr_buffer_release(&link->text);
    wr_free(memory, link);
}
