/* One thread, one poll() loop. A session is a pair of sockets; what the client sends is cut into messages,
 * what the server answers is passed on as it comes. */
#include "proxy.h"

#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { SESSIONS = 128, CHUNK = 16384, CANCEL_CODE = 80877102, NOT_YET = -1 };

struct burst { /* what is under way in one direction */
    char *data;
    size_t length, room;
    uint64_t due_ms;
};

struct session {
    bool used, mute;
    int client, server;    /* -1: closed */
    bool started;          /* the startup message has passed */
    bool is_cancel, ready; /* a CancelRequest; the first ReadyForQuery has come */
    bool drop_answer;      /* whatever the server says next is lost, and the client with it */
    bool orphan;           /* the client has gone, the server is heard to its end */
    struct burst way[PROXY_WAYS];
    long left[PROXY_WAYS];     /* bytes until the cut; NOT_YET: none */
    size_t passed[PROXY_WAYS]; /* since the last BEGIN */
};

struct proxy {
    pthread_t thread;
    pthread_mutex_t lock;
    int listener, wake;
    bool stopping, silent;
    char conninfo[512], upstream[sizeof(((struct sockaddr_un *)0)->sun_path)];
    int port, delay_ms;
    enum proxy_door door;
    enum proxy_loss loss;
    size_t loss_times, losses;
    struct {
        enum proxy_way way;
        size_t at, end, step;
    } cut;
    long cut_connect[PROXY_WAYS];
    char lose_answer_to[128];
    size_t accepted, most_connecting;
    struct session *last_unit;
    struct session sessions[SESSIONS];
};

_Noreturn static void give_up(const char *what)
{
    fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
    abort();
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- ending sessions ------------------------------------------------------------------------- */

static void end_socket(int *fd, bool hard)
{
    struct linger now = {.l_onoff = 1};
    if (*fd < 0) return;
    if (hard) setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(*fd);
    *fd = -1;
}

static void end_session(struct proxy *proxy, struct session *session, bool hard)
{
    end_socket(&session->client, hard);
    end_socket(&session->server, hard);
    for (int w = 0; w < PROXY_WAYS; w++) free(session->way[w].data);
    if (proxy->last_unit == session) proxy->last_unit = NULL;
    *session = (struct session){.client = -1, .server = -1};
}

static void strike(struct proxy *proxy, struct session *session, bool hard)
{
    proxy->losses++;
    end_session(proxy, session, hard);
}

/* ---- passing on ------------------------------------------------------------------------------ */

static bool write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            struct pollfd room = {.fd = fd, .events = POLLOUT};
            if (poll(&room, 1, 1000) <= 0) return false;
            continue;
        }
        if (sent <= 0) return false;
        data += sent;
        length -= (size_t)sent;
    }
    return true;
}

/* False: the session has ended. */
static bool pass(struct proxy *proxy, struct session *session, enum proxy_way way, const char *data,
                 size_t length)
{
    long left = session->left[way];
    bool cut = left != NOT_YET && (size_t)left <= length;
    int to = way == PROXY_TO_SERVER ? session->server : session->client;
    if (cut) length = (size_t)left;
    session->passed[way] += length;
    if (to >= 0 && !write_all(to, data, length) && !cut) {
        end_session(proxy, session, false);
        return false;
    }
    if (left != NOT_YET) session->left[way] = left - (long)length;
    if (cut) strike(proxy, session, left % 2 == 0);
    return !cut;
}

static bool hold_or_pass(struct proxy *proxy, struct session *session, enum proxy_way way, const char *data,
                         size_t length)
{
    struct burst *burst = &session->way[way];
    if (way == PROXY_TO_CLIENT && proxy->delay_ms == 0 && burst->length == 0)
        return pass(proxy, session, way, data, length);
    if (burst->length + length > burst->room) {
        burst->room = (burst->length + length) * 2;
        burst->data = realloc(burst->data, burst->room);
        if (burst->data == NULL) give_up("no memory");
    }
    if (burst->length == 0) burst->due_ms = now_ms() + (uint64_t)proxy->delay_ms;
    memcpy(burst->data + burst->length, data, length);
    burst->length += length;
    return true;
}

/* ---- what the client says -------------------------------------------------------------------- */

static uint32_t read_number(const char *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return ntohl(number);
}

/* The SQL of a Parse or a Query; it ends with the message. */
static const char *sql_of(const char *message, size_t length)
{
    if (message[0] == 'Q') return message + 5;
    if (message[0] != 'P') return "";
    size_t name = strnlen(message + 5, length - 5);
    return name + 6 < length ? message + 6 + name : "";
}

static void note_unit(struct proxy *proxy, struct session *session)
{
    proxy->last_unit = session;
    session->passed[PROXY_TO_SERVER] = session->passed[PROXY_TO_CLIENT] = 0;
    if (proxy->cut.at >= proxy->cut.end) return;
    session->left[proxy->cut.way] = (long)proxy->cut.at;
    proxy->cut.at += proxy->cut.step;
}

/* False: the session has ended. */
static bool note_commit(struct proxy *proxy, struct session *session)
{
    if (proxy->loss_times == 0) return true;
    proxy->loss_times--;
    switch (proxy->loss) {
    case PROXY_LOSE_COMMIT:
        strike(proxy, session, true);
        return false;
    case PROXY_LOSE_ANSWER:
        session->drop_answer = true;
        return true;
    case PROXY_LOSE_CLIENT:
        session->orphan = true;
        return true;
    }
    return true;
}

static bool note_sql(struct proxy *proxy, struct session *session, const char *sql)
{
    size_t length = strlen(proxy->lose_answer_to);
    if (length > 0 && strncasecmp(sql, proxy->lose_answer_to, length) == 0) {
        session->drop_answer = true;
        proxy->lose_answer_to[0] = '\0';
    }
    if (strncasecmp(sql, "BEGIN", 5) == 0) note_unit(proxy, session);
    return strcasecmp(sql, "COMMIT") != 0 || note_commit(proxy, session);
}

/* Length of the whole message at the start of the burst, 0 if it is not all there. */
static size_t whole_message(const struct session *session)
{
    const struct burst *burst = &session->way[PROXY_TO_SERVER];
    size_t head = session->started ? 1 : 0;
    if (burst->length < head + 4) return 0;
    size_t length = head + read_number(burst->data + head);
    return length <= burst->length ? length : 0;
}

static bool one_message(struct proxy *proxy, struct session *session, size_t length)
{
    struct burst *burst = &session->way[PROXY_TO_SERVER];
    bool last = session->started && burst->data[0] == 'S';
    if (!session->started) {
        session->started = true;
        session->is_cancel = length == 16 && read_number(burst->data + 4) == CANCEL_CODE;
        if (!session->is_cancel) proxy->accepted++;
    } else if (!note_sql(proxy, session, sql_of(burst->data, length))) {
        return false;
    }
    if (!pass(proxy, session, PROXY_TO_SERVER, burst->data, length)) return false;
    burst->length -= length;
    memmove(burst->data, burst->data + length, burst->length);
    if (last && session->orphan && session->client >= 0) {
        proxy->losses++;
        end_socket(&session->client, true);
    }
    return true;
}

static void flush(struct proxy *proxy, struct session *session)
{
    struct burst *down = &session->way[PROXY_TO_CLIENT];
    uint64_t now = now_ms();
    if (session->way[PROXY_TO_SERVER].length > 0 && now >= session->way[PROXY_TO_SERVER].due_ms) {
        for (size_t length; (length = whole_message(session)) > 0;) {
            if (!one_message(proxy, session, length)) return;
        }
    }
    if (down->length == 0 || now < down->due_ms) return;
    size_t length = down->length;
    down->length = 0;
    pass(proxy, session, PROXY_TO_CLIENT, down->data, length);
}

/* ---- what the server says -------------------------------------------------------------------- */

static void heard_server(struct proxy *proxy, struct session *session, const char *data, size_t length)
{
    if (session->drop_answer) {
        strike(proxy, session, true);
        return;
    }
    /* Six bytes from the end of what a server says before it waits: Z, its length, the state. */
    bool ready = length >= 6 && data[length - 6] == 'Z' && read_number(data + length - 5) == 5;
    session->ready = session->ready || ready;
    if (session->orphan && session->client < 0 && ready) {
        end_session(proxy, session, false);
        return;
    }
    hold_or_pass(proxy, session, PROXY_TO_CLIENT, data, length);
}

static void drain(struct proxy *proxy, struct session *session, enum proxy_way way)
{
    char data[CHUNK];
    int from = way == PROXY_TO_SERVER ? session->client : session->server;
    ssize_t got = recv(from, data, sizeof data, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
    if (got <= 0) {
        flush(proxy, session);
        if (session->used) end_session(proxy, session, false);
    } else if (way == PROXY_TO_SERVER) {
        hold_or_pass(proxy, session, way, data, (size_t)got);
        flush(proxy, session);
    } else {
        heard_server(proxy, session, data, (size_t)got);
    }
}

/* ---- coming in ------------------------------------------------------------------------------- */

static int connect_upstream(const struct proxy *proxy)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) give_up("socket");
    memcpy(address.sun_path, proxy->upstream, sizeof address.sun_path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
    close(fd);
    return -1;
}

static struct session *spare_session(struct proxy *proxy)
{
    for (size_t i = 0; i < SESSIONS; i++) {
        if (!proxy->sessions[i].used) return &proxy->sessions[i];
    }
    give_up("too many sessions");
}

static void count_connecting(struct proxy *proxy)
{
    size_t count = 0;
    for (size_t i = 0; i < SESSIONS; i++) {
        const struct session *s = &proxy->sessions[i];
        if (s->used && s->started && !s->is_cancel && !s->ready) count++;
    }
    if (count > proxy->most_connecting) proxy->most_connecting = count;
}

static void let_in(struct proxy *proxy)
{
    int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC), yes = 1;
    if (client < 0) return;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    int server = proxy->door == PROXY_OPEN ? connect_upstream(proxy) : -1;
    if (server < 0 && proxy->door != PROXY_MUTE) {
        end_socket(&client, true);
        return;
    }
    struct session *session = spare_session(proxy);
    *session = (struct session){
        .used = true, .client = client, .server = server, .mute = server < 0, .left = {NOT_YET, NOT_YET}};
    for (int w = 0; w < PROXY_WAYS; w++) {
        session->left[w] = proxy->cut_connect[w];
        proxy->cut_connect[w] = NOT_YET;
    }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static int turn_ms(const struct proxy *proxy)
{
    uint64_t now = now_ms(), due = now + 1000;
    for (size_t i = 0; i < SESSIONS; i++) {
        for (int w = 0; w < PROXY_WAYS; w++) {
            const struct burst *burst = &proxy->sessions[i].way[w];
            if (burst->length > 0 && burst->due_ms > now && burst->due_ms < due) due = burst->due_ms;
        }
    }
    return (int)(due - now) + (due < now + 1000);
}

static int add_poll(struct pollfd *polls, int fd)
{
    *polls = (struct pollfd){.fd = fd, .events = POLLIN};
    return fd < 0 ? 0 : 1;
}

/* The lock is given up while it sleeps, so a session may be another by the time its descriptor is ready;
 * the numbers are compared, and reading does not wait. */
static void turn(struct proxy *proxy)
{
    struct pollfd polls[2 + SESSIONS * 2];
    nfds_t count = 0;
    polls[count++] = (struct pollfd){.fd = proxy->wake, .events = POLLIN};
    polls[count++] = (struct pollfd){.fd = proxy->listener, .events = POLLIN};
    for (size_t i = 0; i < SESSIONS && !proxy->silent; i++) {
        const struct session *s = &proxy->sessions[i];
        if (!s->used) continue;
        count += (nfds_t)add_poll(&polls[count], s->client);
        if (!s->mute) count += (nfds_t)add_poll(&polls[count], s->server);
    }
    int ms = turn_ms(proxy);
    pthread_mutex_unlock(&proxy->lock);
    poll(polls, count, ms);
    pthread_mutex_lock(&proxy->lock);
    uint64_t rings;
    if (polls[0].revents != 0) (void)!read(proxy->wake, &rings, sizeof rings);
    for (nfds_t p = 2; p < count && !proxy->silent; p++) {
        for (size_t i = 0; i < SESSIONS && polls[p].revents != 0; i++) {
            struct session *s = &proxy->sessions[i];
            if (s->used && s->client == polls[p].fd)
                drain(proxy, s, PROXY_TO_SERVER);
            else if (s->used && s->server == polls[p].fd)
                drain(proxy, s, PROXY_TO_CLIENT);
        }
    }
    for (size_t i = 0; i < SESSIONS && !proxy->silent; i++) {
        if (proxy->sessions[i].used && !proxy->sessions[i].mute) flush(proxy, &proxy->sessions[i]);
    }
    count_connecting(proxy);
    if (polls[1].revents != 0) let_in(proxy);
}

static void *serve(void *arg)
{
    struct proxy *proxy = arg;
    pthread_mutex_lock(&proxy->lock);
    while (!proxy->stopping) turn(proxy);
    for (size_t i = 0; i < SESSIONS; i++) {
        if (proxy->sessions[i].used) end_session(proxy, &proxy->sessions[i], true);
    }
    pthread_mutex_unlock(&proxy->lock);
    return NULL;
}

/* ---- starting, stopping ---------------------------------------------------------------------- */

static int listen_somewhere(int *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        give_up("listen");
    }
    *port = ntohs(address.sin_port);
    return fd;
}

struct proxy *proxy_start(struct server *server)
{
    struct proxy *proxy = calloc(1, sizeof *proxy);
    if (proxy == NULL) give_up("calloc");
    pthread_mutex_init(&proxy->lock, NULL);
    for (size_t i = 0; i < SESSIONS; i++) proxy->sessions[i] = (struct session){.client = -1, .server = -1};
    proxy->cut_connect[PROXY_TO_SERVER] = proxy->cut_connect[PROXY_TO_CLIENT] = NOT_YET;
    proxy->listener = listen_somewhere(&proxy->port);
    proxy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (proxy->wake < 0) give_up("eventfd");
    snprintf(proxy->upstream, sizeof proxy->upstream, "%s/.s.PGSQL.%d", server_socket_dir(server),
             server_port(server));
    if (pthread_create(&proxy->thread, NULL, serve, proxy) != 0) give_up("pthread_create");
    return proxy;
}

static void lock(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
}

static void unlock_and_wake(struct proxy *proxy)
{
    uint64_t one = 1;
    (void)!write(proxy->wake, &one, sizeof one);
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_stop(struct proxy *proxy)
{
    if (proxy == NULL) return;
    lock(proxy);
    proxy->stopping = true;
    unlock_and_wake(proxy);
    pthread_join(proxy->thread, NULL);
    close(proxy->listener);
    close(proxy->wake);
    pthread_mutex_destroy(&proxy->lock);
    free(proxy);
}

/* ---- what a test asks for -------------------------------------------------------------------- */

const char *proxy_conninfo(struct proxy *proxy, const char *more)
{
    snprintf(proxy->conninfo, sizeof proxy->conninfo,
             "host=127.0.0.1 port=%d dbname=postgres sslmode=disable gssencmode=disable %s", proxy->port,
             more == NULL ? "" : more);
    return proxy->conninfo;
}

void proxy_upstream(struct proxy *proxy, struct server *server)
{
    lock(proxy);
    snprintf(proxy->upstream, sizeof proxy->upstream, "%s/.s.PGSQL.%d", server_socket_dir(server),
             server_port(server));
    unlock_and_wake(proxy);
}

void proxy_door(struct proxy *proxy, enum proxy_door door)
{
    lock(proxy);
    proxy->door = door;
    unlock_and_wake(proxy);
}

void proxy_silence(struct proxy *proxy, bool silent)
{
    lock(proxy);
    proxy->silent = silent;
    unlock_and_wake(proxy);
}

void proxy_delay(struct proxy *proxy, int ms)
{
    lock(proxy);
    proxy->delay_ms = ms;
    unlock_and_wake(proxy);
}

void proxy_reset_all(struct proxy *proxy)
{
    lock(proxy);
    for (size_t i = 0; i < SESSIONS; i++) {
        if (proxy->sessions[i].used) end_session(proxy, &proxy->sessions[i], true);
    }
    unlock_and_wake(proxy);
}

void proxy_at_commit(struct proxy *proxy, enum proxy_loss loss, size_t times)
{
    lock(proxy);
    proxy->loss = loss;
    proxy->loss_times = times;
    unlock_and_wake(proxy);
}

void proxy_cut_units(struct proxy *proxy, enum proxy_way way, size_t at, size_t end, size_t step)
{
    lock(proxy);
    proxy->cut.way = way;
    proxy->cut.at = at;
    proxy->cut.end = end;
    proxy->cut.step = step;
    unlock_and_wake(proxy);
}

bool proxy_cuts_left(struct proxy *proxy)
{
    lock(proxy);
    bool left = proxy->cut.at < proxy->cut.end;
    unlock_and_wake(proxy);
    return left;
}

void proxy_cut_connect(struct proxy *proxy, enum proxy_way way, size_t at)
{
    lock(proxy);
    proxy->cut_connect[way] = (long)at;
    unlock_and_wake(proxy);
}

void proxy_lose_answer_to(struct proxy *proxy, const char *sql)
{
    lock(proxy);
    snprintf(proxy->lose_answer_to, sizeof proxy->lose_answer_to, "%s", sql == NULL ? "" : sql);
    unlock_and_wake(proxy);
}

/* ---- what it has seen ------------------------------------------------------------------------ */

size_t proxy_losses(struct proxy *proxy)
{
    lock(proxy);
    size_t losses = proxy->losses;
    unlock_and_wake(proxy);
    return losses;
}

size_t proxy_unit_bytes(struct proxy *proxy, enum proxy_way way)
{
    lock(proxy);
    size_t bytes = proxy->last_unit == NULL ? 0 : proxy->last_unit->passed[way];
    unlock_and_wake(proxy);
    return bytes;
}

size_t proxy_sessions(struct proxy *proxy)
{
    size_t count = 0;
    lock(proxy);
    for (size_t i = 0; i < SESSIONS; i++) count += proxy->sessions[i].used ? 1 : 0;
    unlock_and_wake(proxy);
    return count;
}

size_t proxy_accepted(struct proxy *proxy)
{
    lock(proxy);
    size_t accepted = proxy->accepted;
    unlock_and_wake(proxy);
    return accepted;
}

size_t proxy_most_connecting(struct proxy *proxy)
{
    lock(proxy);
    size_t most = proxy->most_connecting;
    unlock_and_wake(proxy);
    return most;
}
