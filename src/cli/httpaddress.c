/* Where `weir serve` listens; see httpd.h. */
#include "httpd.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

static bool fail(char *why, const char *text, const char *what)
{
    (void)snprintf(why, CLI_WHY_MAX, "cannot listen on %s: %s", text, what);
    return false;
}

/* ---- Unix sockets ------------------------------------------------------------------------------------------ */

/* A socket file stays behind when its process is killed. Connecting tells whether anybody listens on it. */
static bool is_stale(const struct sockaddr_un *name)
{
    struct stat status;
    if (lstat(name->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool refused = connect(fd, (const struct sockaddr *)name, sizeof *name) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static bool bind_path(int fd, const struct sockaddr_un *name)
{
    if (bind(fd, (const struct sockaddr *)name, sizeof *name) == 0) return true;
    if (errno != EADDRINUSE || !is_stale(name)) return false;
    return unlink(name->sun_path) == 0 && bind(fd, (const struct sockaddr *)name, sizeof *name) == 0;
}

static bool listen_at_path(struct cli_address *address, const char *path, char *why)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct stat status;
    if (path[0] == '\0' || strlen(path) >= sizeof name.sun_path)
        return fail(why, "the Unix socket", "its path must have 1 to 107 bytes");
    memcpy(name.sun_path, path, strlen(path) + 1);
    address->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (address->fd < 0) return fail(why, path, strerror(errno));
    /* The file never is wider open than it will be: Linux takes its mode from the socket's. */
    (void)fchmod(address->fd, 0600);
    if (!bind_path(address->fd, &name))
        return fail(why, path,
                    errno == EADDRINUSE ? "somebody listens there, or it is no socket" : strerror(errno));
    (void)snprintf(address->path, sizeof address->path, "%s", path);
    (void)snprintf(address->text, sizeof address->text, "unix:%s", path);
    if (chmod(path, 0660) != 0 || stat(path, &status) != 0) return fail(why, path, strerror(errno));
    address->device = status.st_dev;
    address->inode = status.st_ino;
    return listen(address->fd, BACKLOG) == 0 || fail(why, path, strerror(errno));
}

void cli_address_forget(struct cli_address *address)
{
    struct stat status;
    if (address->path[0] != '\0' && lstat(address->path, &status) == 0 && status.st_dev == address->device &&
        status.st_ino == address->inode)
        (void)unlink(address->path);
    address->path[0] = '\0';
}

/* ---- TCP ------------------------------------------------------------------------------------------------------ */

/* "HOST:PORT" in two; without a host, the loopback's. */
static bool split(const char *text, char *host, size_t size, const char **port)
{
    const char *colon = strrchr(text, ':');
    const char *from = text, *to = colon != NULL ? colon : text;
    *port = colon != NULL ? colon + 1 : text;
    if (to > from && *from == '[' && to[-1] == ']') {
        from++;
        to--;
    } else if (memchr(from, ':', (size_t)(to - from)) != NULL) {
        return false; /* an IPv6 address without brackets: which colon is the port's? */
    }
    if (**port == '\0' || strspn(*port, "0123456789") != strlen(*port) || strtoul(*port, NULL, 10) > 65535)
        return false;
    (void)snprintf(host, size, "%.*s", (int)(to - from), from);
    if (to == from) (void)snprintf(host, size, "127.0.0.1");
    return true;
}

static bool is_loopback(const struct sockaddr *name)
{
    if (name->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)name)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)name)->sin6_addr);
}

/* As it is now: the system may have chosen the port. */
static void tell_name(struct cli_address *address)
{
    struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof name;
    char host[64] = "?", port[8] = "?";
    (void)getsockname(address->fd, (struct sockaddr *)&name, &length);
    (void)getnameinfo((struct sockaddr *)&name, length, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV);
    const char *format = name.ss_family == AF_INET6 ? "http://[%s]:%s/" : "http://%s:%s/";
    (void)snprintf(address->text, sizeof address->text, format, host, port);
    address->open_to_all = !is_loopback((struct sockaddr *)&name);
}

static bool try_name(struct cli_address *address, const struct addrinfo *name)
{
    int yes = 1;
    int fd = socket(name->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, name->ai_addr, name->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        address->fd = fd;
        return true;
    }
    int kept = errno;
    close(fd);
    errno = kept;
    return false;
}

static bool listen_at_port(struct cli_address *address, const char *text, char *why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *names = NULL;
    char host[CLI_ADDRESS_MAX];
    const char *port;
    if (!split(text, host, sizeof host, &port))
        return fail(why, text, "it must be HOST:PORT, [IPv6]:PORT, :PORT, PORT or unix:PATH");
    int code = getaddrinfo(host, port, &hints, &names);
    if (code != 0) return fail(why, text, gai_strerror(code));
    for (const struct addrinfo *name = names; name != NULL && address->fd < 0; name = name->ai_next) {
        if (!try_name(address, name) && name->ai_next == NULL) (void)fail(why, text, strerror(errno));
    }
    freeaddrinfo(names);
    if (address->fd < 0) return false;
    tell_name(address);
    return true;
}

bool cli_address_listen(struct cli_address *address, const char *text, char *why)
{
    *address = (struct cli_address){.fd = -1};
    bool good = strncmp(text, "unix:", 5) == 0 ? listen_at_path(address, text + 5, why)
                                               : listen_at_port(address, text, why);
    if (good) return true;
    if (address->fd >= 0) close(address->fd);
    address->fd = -1;
    return false;
}
