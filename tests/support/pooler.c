/* PgBouncer, started directly and spoken to over its admin console. */
#include "pooler.h"

#include "server.h"

#include <libpq-fe.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 10000, PATH_SIZE = 160, DEFAULT_SIZE = 4 };

/* Of the logins that harness_schema makes, and of the fixture's own at the console. */
#define USERS                                                                                                \
    "\"app_service\" \"service-secret\"\n\"app_anon\" \"anon-secret\"\n\"console\" \"console-secret\"\n"

struct pooler {
    char dir[PATH_SIZE], ini[PATH_SIZE + 16], log[PATH_SIZE + 16], users[PATH_SIZE + 16];
    char conninfo[512], settings[128], answer[1024];
    pid_t pid;
    PGconn *console;
};

/* ---- small things ---- */

__attribute__((format(printf, 1, 2))) _Noreturn static void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("test pooler: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

__attribute__((format(printf, 3, 4))) static void print_to(char *out, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out, size, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= size) give_up("text too long: %s", format);
}

static void nap(int ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0) give_up("cannot write %s", path);
}

static void own_by_postgres(const char *path)
{
    const struct passwd *user = geteuid() == 0 ? getpwnam("postgres") : NULL;
    if (geteuid() == 0 && (user == NULL || chown(path, user->pw_uid, user->pw_gid) != 0)) {
        give_up("cannot give %s to postgres", path);
    }
}

/* ---- making one ---- */

static void configure(const struct pooler *pooler, const char *upstream)
{
    char text[4096];
    print_to(
        text, sizeof text,
        "[databases]\npostgres = %s dbname=postgres\n[pgbouncer]\n"
        "listen_addr =\nlisten_port = 6432\nunix_socket_dir = %s\nauth_type = scram-sha-256\nauth_file = %s\n"
        "admin_users = console\nserver_login_retry = 0.1\nserver_tls_sslmode = disable\n%s",
        upstream, pooler->dir, pooler->users, pooler->settings);
    write_file(pooler->ini, text);
}

static struct pooler *new_pooler(struct server *server, const struct pooler_options *options)
{
    static const char *const modes[] = {"transaction", "session", "statement"};
    char socket[PATH_SIZE];
    struct pooler *pooler = calloc(1, sizeof *pooler);
    if (pooler == NULL) give_up("out of memory");
    /* server_start sweeps away what a killed test leaves behind under such a name. */
    print_to(pooler->dir, sizeof pooler->dir, "/tmp/weir-pg-%d-pooler-XXXXXX", (int)getpid());
    if (mkdtemp(pooler->dir) == NULL) give_up("mkdtemp: %s", strerror(errno));
    own_by_postgres(pooler->dir);
    print_to(pooler->ini, sizeof pooler->ini, "%s/pgbouncer.ini", pooler->dir);
    print_to(pooler->log, sizeof pooler->log, "%s/log", pooler->dir);
    print_to(pooler->users, sizeof pooler->users, "%s/users", pooler->dir);
    print_to(pooler->settings, sizeof pooler->settings, "pool_mode = %s\ndefault_pool_size = %d\n",
             modes[options->mode], options->size == 0 ? DEFAULT_SIZE : options->size);
    print_to(socket, sizeof socket, "host=%s port=%d", server_socket_dir(server), server_port(server));
    write_file(pooler->users, USERS);
    configure(pooler, options->upstream == NULL ? socket : options->upstream);
    return pooler;
}

/* Between fork and exec only system calls: the test may have threads. */
static pid_t spawn(const struct pooler *pooler)
{
    const char *const as_root[] = {"setpriv",
                                   "--reuid=postgres",
                                   "--regid=postgres",
                                   "--init-groups",
                                   "--reset-env",
                                   "--pdeathsig",
                                   "KILL",
                                   "/usr/sbin/pgbouncer",
                                   pooler->ini,
                                   NULL};
    const char *const as_we_are[] = {"setpriv",   "--pdeathsig", "KILL", "/usr/sbin/pgbouncer",
                                     pooler->ini, NULL};
    const char *const *argv = geteuid() == 0 ? as_root : as_we_are;
    pid_t pid = fork();
    if (pid < 0) give_up("fork: %s", strerror(errno));
    if (pid != 0) return pid;
    int out = open(pooler->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int in = open("/dev/null", O_RDONLY);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* a Ctrl-C at the terminal is for the test alone */
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void forget_console(struct pooler *pooler)
{
    PQfinish(pooler->console);
    pooler->console = NULL;
}

static bool console_opens(struct pooler *pooler)
{
    char conninfo[512];
    print_to(conninfo, sizeof conninfo,
             "host=%s port=6432 dbname=pgbouncer user=console password=console-secret connect_timeout=10",
             pooler->dir);
    forget_console(pooler);
    pooler->console = PQconnectdb(conninfo);
    return PQstatus(pooler->console) == CONNECTION_OK;
}

void pooler_run(struct pooler *pooler)
{
    if (pooler->pid != 0) give_up("the pooler is running already");
    pooler->pid = spawn(pooler);
    for (long until = now_ms() + START_MS; !console_opens(pooler); nap(2)) {
        if (waitpid(pooler->pid, NULL, WNOHANG) == pooler->pid || now_ms() > until) {
            give_up("PgBouncer did not start (is it installed?), see %s", pooler->log);
        }
    }
}

struct pooler *pooler_start(struct server *server, const struct pooler_options *options)
{
    static const struct pooler_options defaults;
    struct pooler *pooler = new_pooler(server, options == NULL ? &defaults : options);
    pooler_run(pooler);
    return pooler;
}

/* ---- stopping ---- */

void pooler_stop(struct pooler *pooler)
{
    if (pooler->pid == 0) return;
    do { /* since 1.23 the first one asks it to wait for its clients, the second one not to */
        kill(pooler->pid, SIGTERM);
        nap(2);
    } while (waitpid(pooler->pid, NULL, WNOHANG) == 0);
    pooler->pid = 0;
    forget_console(pooler);
}

void pooler_free(struct pooler *pooler)
{
    if (pooler == NULL) return;
    pooler_stop(pooler);
    unlink(pooler->ini);
    unlink(pooler->log);
    unlink(pooler->users);
    if (rmdir(pooler->dir) != 0) give_up("cannot remove %s: %s", pooler->dir, strerror(errno));
    free(pooler);
}

/* ---- the console ---- */

static PGresult *tell(struct pooler *pooler, const char *command)
{
    PGresult *result = PQexec(pooler->console, command);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        give_up("%s: %s", command, PQerrorMessage(pooler->console));
    }
    return result;
}

void pooler_pause(struct pooler *pooler)
{
    PQclear(tell(pooler, "PAUSE"));
}

void pooler_resume(struct pooler *pooler)
{
    PQclear(tell(pooler, "RESUME"));
}

void pooler_upstream(struct pooler *pooler, const char *upstream)
{
    configure(pooler, upstream);
    PQclear(tell(pooler, "RELOAD"));
}

/* Rows of SHOW `what` where the column is, or is not, the text. */
static size_t count_rows(struct pooler *pooler, const char *what, const char *column, bool is,
                         const char *text)
{
    size_t count = 0;
    PGresult *result = tell(pooler, what);
    int at = PQfnumber(result, column);
    if (at < 0) give_up("%s has no column %s", what, column);
    for (int row = 0; row < PQntuples(result); row++) {
        if ((strcmp(PQgetvalue(result, row, at), text) == 0) == is) count++;
    }
    PQclear(result);
    return count;
}

size_t pooler_clients(struct pooler *pooler)
{
    return count_rows(pooler, "SHOW CLIENTS", "database", false, "pgbouncer");
}

size_t pooler_servers(struct pooler *pooler, const char *login)
{
    return count_rows(pooler, "SHOW SERVERS", "user", true, login);
}

const char *pooler_conninfo(struct pooler *pooler, const char *more)
{
    print_to(pooler->conninfo, sizeof pooler->conninfo, "host=%s port=6432 dbname=postgres %s", pooler->dir,
             more == NULL ? "" : more);
    return pooler->conninfo;
}

const char *pooler_ask(struct pooler *pooler, const char *more, const char *sql)
{
    PGconn *client = PQconnectdb(pooler_conninfo(pooler, more));
    PGresult *result = PQexec(client, sql);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) give_up("%s\n  in: %s", PQerrorMessage(client), sql);
    print_to(pooler->answer, sizeof pooler->answer, "%s",
             PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    PQfinish(client);
    return pooler->answer;
}
