/* Throw-away PostgreSQL servers. The cluster of a test is a copy of a template that initdb made once; the
 * postmaster is started directly (pg_ctl polls every 100 ms) through setpriv, which drops root and ties its
 * life to ours. */
#include "server.h"

#include <libpq-fe.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* WEIR_PG_MAJOR comes from tests/CMakeLists.txt. */
#define WEIR_PG_BIN "/usr/lib/postgresql/" WEIR_PG_MAJOR "/bin"
#define TEMPLATE    "/tmp/weir-pg-template-" WEIR_PG_MAJOR

enum { START_MS = 30000, STOP_MS = 30000, PATH_SIZE = 160 };

struct server {
    char dir[PATH_SIZE], data[PATH_SIZE + 8], log[PATH_SIZE + 8];
    char conninfo[512], conninfo_tcp[512];
    char *answer;
    int port;
    pid_t pid;
    PGconn *admin;
};

/* ---- small things ---- */

__attribute__((format(printf, 1, 2))) _Noreturn static void give_up(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("test server: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

static void nap(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

__attribute__((format(printf, 3, 4))) static void print_to(char *out, size_t size, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(out, size, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= size) give_up("text too long: %s", format);
}

/* ---- programs ---- */

/* As the user postgres if we are root. Between fork and exec only system calls: the test may have threads. */
static pid_t spawn(const char *log, bool dies_with_us, const char *const *program)
{
    const char *argv[48];
    size_t count = 0;
    argv[count++] = "setpriv";
    if (geteuid() == 0) {
        argv[count++] = "--reuid=postgres";
        argv[count++] = "--regid=postgres";
        argv[count++] = "--init-groups";
        argv[count++] = "--reset-env";
    }
    if (dies_with_us) {
        argv[count++] = "--pdeathsig";
        argv[count++] = "QUIT";
    }
    for (; *program != NULL && count < 47; program++) argv[count++] = *program;
    argv[count] = NULL;
    pid_t pid = fork();
    if (pid < 0) give_up("fork: %s", strerror(errno));
    if (pid != 0) return pid;
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int in = open("/dev/null", O_RDONLY);
    if (out < 0 || in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(126);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0); /* a Ctrl-C at the terminal is for the test alone */
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void run(const char *log, const char *const *program)
{
    pid_t pid = spawn(log, false, program);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    if (status != 0) give_up("%s failed (status %d), see %s", program[0], status, log);
}

static void own_by_postgres(const char *path)
{
    if (geteuid() != 0) return;
    const struct passwd *user = getpwnam("postgres");
    if (user == NULL || chown(path, user->pw_uid, user->pw_gid) != 0)
        give_up("cannot give %s to postgres", path);
}

static void remove_tree(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", path, (char *)NULL);
        _exit(127);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
}

static void write_file(const char *path, const char *text, bool append)
{
    FILE *file = fopen(path, append ? "a" : "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0) give_up("cannot write %s", path);
}

/* ---- the template ---- */

static void make_template(void)
{
    static const char *const initdb[] = {WEIR_PG_BIN "/initdb",
                                         "-N",
                                         "--no-instructions",
                                         "-D",
                                         TEMPLATE ".new/data",
                                         "-A",
                                         "trust",
                                         "-U",
                                         "postgres",
                                         "-E",
                                         "UTF8",
                                         "--locale=C",
                                         "--wal-segsize=1",
                                         NULL};
    remove_tree(TEMPLATE ".new");
    if (mkdir(TEMPLATE ".new", 0700) != 0) give_up("mkdir: %s", strerror(errno));
    own_by_postgres(TEMPLATE ".new");
    run("/dev/null", initdb);
    if (rename(TEMPLATE ".new", TEMPLATE) != 0) give_up("rename: %s", strerror(errno));
}

/* Tests run at once: one of them makes the template, the others wait for it. */
static void want_template(void)
{
    int lock = open(TEMPLATE ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock < 0 || flock(lock, LOCK_EX) != 0) give_up("cannot lock %s.lock", TEMPLATE);
    if (access(TEMPLATE "/data/PG_VERSION", F_OK) != 0) make_template();
    close(lock);
}

/* Directories of tests that were killed: their servers went down with them, the files stayed. */
static void sweep(void)
{
    DIR *tmp = opendir("/tmp");
    if (tmp == NULL) return;
    for (const struct dirent *entry; (entry = readdir(tmp)) != NULL;) {
        int pid = 0;
        if (sscanf(entry->d_name, "weir-pg-%d-", &pid) != 1 || pid <= 1) continue;
        char path[PATH_SIZE * 2];
        print_to(path, sizeof path, "/tmp/%s", entry->d_name);
        if (kill(pid, 0) != 0 && errno == ESRCH) remove_tree(path);
    }
    closedir(tmp);
}

/* ---- making one ---- */

static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        give_up("no free port: %s", strerror(errno));
    }
    close(fd);
    return ntohs(address.sin_port);
}

static struct server *new_server(const struct server_options *options)
{
    struct server *server = calloc(1, sizeof *server);
    if (server == NULL) give_up("out of memory");
    print_to(server->dir, sizeof server->dir, "/tmp/weir-pg-%d-XXXXXX", (int)getpid());
    if (mkdtemp(server->dir) == NULL) give_up("mkdtemp: %s", strerror(errno));
    if (chmod(server->dir, options->open_socket ? 0755 : 0700) != 0) give_up("chmod: %s", strerror(errno));
    own_by_postgres(server->dir);
    print_to(server->data, sizeof server->data, "%s/data", server->dir);
    print_to(server->log, sizeof server->log, "%s/log", server->dir);
    server->port = options->tcp ? free_port() : 5432;
    return server;
}

static void make_certificate(const struct server *server)
{
    char key[PATH_SIZE * 2], certificate[PATH_SIZE * 2];
    print_to(key, sizeof key, "%s/server.key", server->data);
    print_to(certificate, sizeof certificate, "%s/server.crt", server->data);
    const char *const openssl[] = {"openssl", "req",   "-new",          "-x509",   "-nodes",   "-days",
                                   "2",       "-subj", "/CN=localhost", "-newkey", "rsa:2048", "-keyout",
                                   key,       "-out",  certificate,     NULL};
    run(server->log, openssl);
    if (chmod(key, 0600) != 0) give_up("chmod: %s", strerror(errno));
}

static void configure(const struct server *server, const struct server_options *options)
{
    char path[PATH_SIZE * 2], text[2048];
    const char *sync = options->durable ? "on" : "off";
    print_to(path, sizeof path, "%s/postgresql.conf", server->data);
    print_to(text, sizeof text,
             "\nlisten_addresses = '%s'\nport = %d\nunix_socket_directories = '%s'\nfsync = %s\n"
             "synchronous_commit = %s\nfull_page_writes = %s\nshared_buffers = 16MB\nmax_connections = 100\n"
             "wal_level = replica\nmax_wal_senders = 4\nwal_keep_size = 16\nlogging_collector = off\n"
             "max_prepared_transactions = 10\nautovacuum = off\nssl = %s\n",
             options->tcp ? "127.0.0.1" : "", server->port, server->dir, sync, sync, sync,
             options->tls ? "on" : "off");
    write_file(path, text, true);
    if (options->config != NULL) write_file(path, options->config, true);
    print_to(path, sizeof path, "%s/pg_hba.conf", server->data);
    write_file(path,
               options->hba != NULL ? options->hba
                                    : "local all all trust\nlocal replication all trust\n"
                                      "host all all 127.0.0.1/32 trust\n",
               false);
}

static bool says_ready(const struct server *server)
{
    char path[PATH_SIZE * 2], line[128] = "";
    print_to(path, sizeof path, "%s/postmaster.pid", server->data);
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    bool ours = fgets(line, sizeof line, file) != NULL && atoi(line) == (int)server->pid;
    for (int i = 1; i < 8; i++) {
        if (fgets(line, sizeof line, file) == NULL) ours = false;
    }
    fclose(file);
    return ours && strncmp(line, "ready", 5) == 0;
}

void server_run(struct server *server)
{
    if (server->pid != 0) give_up("the server is running already");
    const char *const postgres[] = {WEIR_PG_BIN "/postgres", "-D", server->data, NULL};
    server->pid = spawn(server->log, true, postgres);
    for (long until = now_ms() + START_MS; !says_ready(server); nap(2)) {
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid || now_ms() > until) {
            give_up("PostgreSQL did not start, see %s", server->log);
        }
    }
}

struct server *server_start(const struct server_options *options)
{
    static const struct server_options defaults;
    if (options == NULL) options = &defaults;
    sweep();
    want_template();
    struct server *server = new_server(options);
    const char *const copy[] = {"cp", "-a", TEMPLATE "/data", server->data, NULL};
    run(server->log, copy);
    if (options->tls) make_certificate(server);
    configure(server, options);
    server_run(server);
    return server;
}

struct server *server_standby(struct server *primary, const struct server_options *options)
{
    static const struct server_options defaults;
    if (options == NULL) options = &defaults;
    struct server *server = new_server(options);
    char port[16];
    print_to(port, sizeof port, "%d", primary->port);
    const char *const backup[] = {WEIR_PG_BIN "/pg_basebackup",
                                  "-h",
                                  primary->dir,
                                  "-p",
                                  port,
                                  "-U",
                                  "postgres",
                                  "-D",
                                  server->data,
                                  "-R",
                                  "-X",
                                  "stream",
                                  "-c",
                                  "fast",
                                  "-N",
                                  NULL};
    run(server->log, backup);
    configure(server, options);
    server_run(server);
    if (!server_wait(server, "select exists (select from pg_stat_wal_receiver where status = 'streaming')",
                     START_MS)) {
        give_up("the standby does not stream, see %s", server->log);
    }
    return server;
}

void server_promote(struct server *server)
{
    if (strcmp(server_ask(server, "select pg_promote(true, 30)"), "t") != 0) give_up("promotion failed");
}

/* ---- stopping ---- */

static void forget_admin(struct server *server)
{
    PQfinish(server->admin);
    server->admin = NULL;
}

void server_stop_begin(struct server *server, enum server_stop how)
{
    static const int signals[] = {
        [SERVER_FAST] = SIGINT, [SERVER_IMMEDIATE] = SIGQUIT, [SERVER_SMART] = SIGTERM};
    if (server->pid == 0) return;
    forget_admin(server);
    kill(server->pid, SIGCONT);
    kill(server->pid, signals[how]);
}

/* Reaps it, if it has gone. */
bool server_running(struct server *server)
{
    if (server->pid == 0) return false;
    if (waitpid(server->pid, NULL, WNOHANG) == 0) return true;
    server->pid = 0;
    forget_admin(server);
    return false;
}

void server_stop(struct server *server, enum server_stop how)
{
    server_stop_begin(server, how);
    for (long until = now_ms() + STOP_MS; server_running(server); nap(1)) {
        if (now_ms() > until) give_up("PostgreSQL did not stop, see %s", server->log);
    }
}

void server_restart(struct server *server, enum server_stop how)
{
    server_stop(server, how);
    server_run(server);
}

void server_free(struct server *server)
{
    if (server == NULL) return;
    server_stop(server, SERVER_IMMEDIATE);
    forget_admin(server);
    remove_tree(server->dir);
    free(server->answer);
    free(server);
}

void server_freeze(struct server *server)
{
    kill(server->pid, SIGSTOP);
}

void server_thaw(struct server *server)
{
    kill(server->pid, SIGCONT);
}

void server_signal(struct server *server, pid_t backend, int signal)
{
    (void)server;
    if (kill(backend, signal) != 0) give_up("cannot signal backend %d: %s", (int)backend, strerror(errno));
}

/* ---- where it is ---- */

pid_t server_pid(const struct server *server)
{
    return server->pid;
}

const char *server_socket_dir(const struct server *server)
{
    return server->dir;
}

int server_port(const struct server *server)
{
    return server->port;
}

const char *server_conninfo(struct server *server, const char *more)
{
    print_to(server->conninfo, sizeof server->conninfo, "host=%s port=%d dbname=postgres user=postgres %s",
             server->dir, server->port, more == NULL ? "" : more);
    return server->conninfo;
}

const char *server_conninfo_tcp(struct server *server, const char *more)
{
    print_to(server->conninfo_tcp, sizeof server->conninfo_tcp,
             "host=127.0.0.1 port=%d dbname=postgres user=postgres %s", server->port,
             more == NULL ? "" : more);
    return server->conninfo_tcp;
}

/* ---- SQL ---- */

static void silent(void *arg, const PGresult *notice)
{
    (void)arg;
    (void)notice;
}

static PGconn *admin(struct server *server)
{
    if (server->admin != NULL && PQstatus(server->admin) == CONNECTION_OK) return server->admin;
    forget_admin(server);
    char conninfo[512];
    print_to(conninfo, sizeof conninfo,
             "host=%s port=%d dbname=postgres user=postgres application_name=fixture connect_timeout=10",
             server->dir, server->port);
    server->admin = PQconnectdb(conninfo);
    PQsetNoticeReceiver(server->admin, silent, NULL);
    return server->admin;
}

/* A connection that died since the last use is tried anew, once: the server may have been restarted by other
 * means. */
static PGresult *attempt(struct server *server, const char *sql)
{
    PGresult *result = PQexec(admin(server), sql);
    if (PQstatus(server->admin) == CONNECTION_OK) return result;
    PQclear(result);
    return PQexec(admin(server), sql);
}

static bool went_well(const PGresult *result)
{
    return PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK;
}

static PGresult *must(struct server *server, const char *sql)
{
    PGresult *result = attempt(server, sql);
    if (!went_well(result)) give_up("%s\n  in: %s", PQerrorMessage(server->admin), sql);
    return result;
}

void server_exec(struct server *server, const char *sql)
{
    PQclear(must(server, sql));
}

bool server_try(struct server *server, const char *sql)
{
    PGresult *result = attempt(server, sql);
    bool ok = went_well(result);
    PQclear(result);
    return ok;
}

const char *server_ask(struct server *server, const char *sql)
{
    PGresult *result = must(server, sql);
    free(server->answer);
    server->answer = strdup(PQntuples(result) > 0 ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return server->answer;
}

long server_ask_number(struct server *server, const char *sql)
{
    return strtol(server_ask(server, sql), NULL, 10);
}

bool server_wait(struct server *server, const char *sql, int ms)
{
    for (long until = now_ms() + ms;; nap(5)) {
        if (strcmp(server_ask(server, sql), "t") == 0) return true;
        if (now_ms() > until) return false;
    }
}

size_t server_sessions(struct server *server, const char *application)
{
    char sql[512];
    print_to(sql, sizeof sql,
             "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> "
             "pg_backend_pid() "
             "and ('%s' = '' or application_name = '%s')",
             application == NULL ? "" : application, application == NULL ? "" : application);
    return (size_t)server_ask_number(server, sql);
}

/* ---- files ---- */

static void reload(struct server *server)
{
    server_exec(server, "select pg_reload_conf()");
    nap(30); /* the postmaster takes the signal in its own time, and tells nobody when it has */
}

void server_hba(struct server *server, const char *lines)
{
    char path[PATH_SIZE * 2];
    admin(server); /* its connection outlives whatever the new rules say */
    print_to(path, sizeof path, "%s/pg_hba.conf", server->data);
    write_file(path, lines, false);
    reload(server);
}

void server_config(struct server *server, const char *lines)
{
    char path[PATH_SIZE * 2];
    print_to(path, sizeof path, "%s/postgresql.conf", server->data);
    write_file(path, lines, true);
    reload(server);
}

size_t server_log_count(struct server *server, const char *text)
{
    FILE *file = fopen(server->log, "r");
    if (file == NULL) give_up("cannot read %s", server->log);
    char *line = NULL;
    size_t room = 0, count = 0;
    while (getline(&line, &room, file) >= 0) {
        if (strstr(line, text) != NULL) count++;
    }
    free(line);
    fclose(file);
    return count;
}
