/* What is opened by a path is opened not to wait. Standard error is shared with whoever else holds it, a shell for one,
 * and the flag would be theirs, too: there poll(2) is asked first, and a pipe that is ready has room for a whole line. */
#include "base/sink.h"

#include "base/text.h"
#include "weir/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int open_path(const char *path, char *why)
{
    int fd;
    do {
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    } while (fd < 0 && errno == EINTR);
    if (fd >= 0) return fd;
    const char *reason = errno == ENXIO ? "nobody reads there" : strerror(errno);
    wr_text_format(why, WEIR_WHY_MAX, "cannot open the log %.120s: %s", path, reason);
    return -1;
}

int wr_sink_open(struct wr_sink *sink, const char *to, char *why)
{
    struct stat status;
    bool standard = strcmp(to, "stderr") == 0;
    *sink = (struct wr_sink){.fd = STDERR_FILENO, .path = standard ? NULL : to, .waits = standard};
    if (!standard) sink->fd = open_path(to, why);
    if (sink->fd < 0) return WEIR_ESYS;
    sink->socket = fstat(sink->fd, &status) == 0 && S_ISSOCK(status.st_mode);
    return WEIR_OK;
}

int wr_sink_reopen(struct wr_sink *sink, char *why)
{
    if (sink->path == NULL || sink->fd < 0) return WEIR_OK;
    int fd = open_path(sink->path, why);
    if (fd < 0) return WEIR_ESYS;
    close(sink->fd);
    sink->fd = fd;
    sink->torn = false;
    return WEIR_OK;
}

void wr_sink_close(struct wr_sink *sink)
{
    if (sink->fd >= 0 && sink->path != NULL) close(sink->fd);
    sink->fd = -1;
}

/* ---- writing ---- */

static bool takes_a_line(const struct wr_sink *sink)
{
    struct pollfd ask = {.fd = sink->fd, .events = POLLOUT};
    return !sink->waits || (poll(&ask, 1, 0) == 1 && ask.revents == POLLOUT);
}

static ssize_t write_once(const struct wr_sink *sink, const char *data, size_t length)
{
    ssize_t written;
    do {
        written = sink->socket ? send(sink->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                               : write(sink->fd, data, length);
    } while (written < 0 && errno == EINTR);
    return written;
}

/* A pipe without a reader sends SIGPIPE, of which the program may die; it is none of its doing. One that was pending
 * before is the program's own. */
static ssize_t write_quietly(const struct wr_sink *sink, const char *data, size_t length)
{
    static const struct timespec at_once = {0, 0};
    sigset_t pipe, before, pending;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    sigpending(&pending);
    bool ours = sigismember(&pending, SIGPIPE) == 0;
    if (pthread_sigmask(SIG_BLOCK, &pipe, &before) != 0) return -1;
    ssize_t written = write_once(sink, data, length);
    int error = errno;
    if (written < 0 && error == EPIPE && ours) {
        while (sigtimedwait(&pipe, NULL, &at_once) < 0 && errno == EINTR) continue;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return written;
}

/* A line of which only a part got there (a full disk, a socket) is ended before the next one begins. */
bool wr_sink_write(struct wr_sink *sink, const char *line, size_t length)
{
    if (sink->fd < 0 || !takes_a_line(sink)) return false;
    if (sink->torn) {
        if (write_quietly(sink, "\n", 1) != 1) return false;
        sink->torn = false;
    }
    ssize_t written = write_quietly(sink, line, length);
    sink->torn = written > 0 && (size_t)written < length;
    return written == (ssize_t)length;
}
