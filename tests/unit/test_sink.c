/* Files and pipes that lines go to: shared, moved away, full, without a reader. */
#include "base/sink.h"
#include "weir/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[64], path[80], moved[80];
    char text[1 << 18]; /* what was read last */
};

static int set_up(void **state)
{
    static struct fixture f;
    memset(&f, 0, sizeof f);
    strcpy(f.folder, "/tmp/weir-sink.XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    snprintf(f.path, sizeof f.path, "%s/log", f.folder);
    snprintf(f.moved, sizeof f.moved, "%s/log.1", f.folder);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    unlink(f->path);
    unlink(f->moved);
    return rmdir(f->folder);
}

static void open_at(struct wr_sink *sink, const char *to)
{
    char why[WEIR_WHY_MAX] = "";
    if (wr_sink_open(sink, to, why) != WEIR_OK) fail_msg("%s", why);
}

static bool write_text(struct wr_sink *sink, const char *text)
{
    return wr_sink_write(sink, text, strlen(text));
}

static const char *read_fd(struct fixture *f, int fd)
{
    size_t length = 0;
    ssize_t got;
    while (length < sizeof f->text - 1 && (got = read(fd, f->text + length, sizeof f->text - 1 - length)) > 0)
        length += (size_t)got;
    f->text[length] = '\0';
    return f->text;
}

static const char *read_file(struct fixture *f, const char *path)
{
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    read_fd(f, fd);
    close(fd);
    return f->text;
}

static void a_file_is_made_for_its_owner_and_group_and_appended_to_by_all(void **state)
{
    struct fixture *f = *state;
    struct wr_sink one, other;
    struct stat status;
    mode_t before = umask(0);
    open_at(&one, f->path);
    umask(before);
    open_at(&other, f->path);
    assert_int_equal(stat(f->path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
    assert_true(write_text(&one, "a\n"));
    assert_true(write_text(&other, "b\n"));
    assert_true(write_text(&one, "c\n"));
    wr_sink_close(&one);
    wr_sink_close(&other);
    open_at(&one, f->path);
    assert_true(write_text(&one, "d\n"));
    wr_sink_close(&one);
    assert_string_equal(read_file(f, f->path), "a\nb\nc\nd\n");
    assert_false(write_text(&one, "closed\n"));
}

static void after_a_rotation_it_is_opened_anew(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    char why[WEIR_WHY_MAX] = "";
    open_at(&sink, f->path);
    assert_true(write_text(&sink, "before\n"));
    assert_int_equal(rename(f->path, f->moved), 0);
    assert_true(write_text(&sink, "meanwhile\n"));
    assert_int_equal(wr_sink_reopen(&sink, why), WEIR_OK);
    assert_true(write_text(&sink, "after\n"));
    assert_string_equal(read_file(f, f->moved), "before\nmeanwhile\n");
    assert_string_equal(read_file(f, f->path), "after\n");
    wr_sink_close(&sink);
}

static void one_that_cannot_be_opened_anew_goes_on_with_what_it_had(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    char why[WEIR_WHY_MAX] = "";
    open_at(&sink, f->path);
    assert_int_equal(rename(f->path, f->moved), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_int_equal(wr_sink_reopen(&sink, why), WEIR_ESYS);
    assert_non_null(strstr(why, f->path));
    assert_true(write_text(&sink, "still here\n"));
    assert_string_equal(read_file(f, f->moved), "still here\n");
    wr_sink_close(&sink);
    assert_int_equal(rmdir(f->path), 0);
}

static void what_cannot_be_opened_is_told(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    char why[WEIR_WHY_MAX] = "", nowhere[96];
    snprintf(nowhere, sizeof nowhere, "%s/no/log", f->folder);
    assert_int_equal(wr_sink_open(&sink, nowhere, why), WEIR_ESYS);
    assert_non_null(strstr(why, nowhere));
    assert_non_null(strstr(why, "No such file"));
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(wr_sink_open(&sink, f->path, why), WEIR_ESYS);
    assert_non_null(strstr(why, "nobody reads there"));
}

/* Until the pipe is full; a sink that waited would hang here. */
static int fill(struct wr_sink *sink)
{
    char line[2048];
    int written = 0;
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    while (wr_sink_write(sink, line, sizeof line)) written++;
    return written;
}

static void a_full_pipe_loses_lines_and_stops_nobody(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    assert_int_equal(mkfifo(f->path, 0600), 0);
    int reader = open(f->path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    open_at(&sink, f->path);
    assert_true(fill(&sink) > 0);
    size_t length = strlen(read_fd(f, reader));
    assert_int_equal(length % 2048, 0); /* whole lines only */
    assert_true(write_text(&sink, "goes on\n"));
    assert_string_equal(read_fd(f, reader), "goes on\n");
    close(reader);
    assert_false(write_text(&sink, "nobody reads\n")); /* and SIGPIPE has not ended us */
    reader = open(f->path, O_RDONLY | O_NONBLOCK);
    assert_true(write_text(&sink, "somebody does\n"));
    assert_string_equal(read_fd(f, reader), "somebody does\n");
    close(reader);
    wr_sink_close(&sink);
}

/* Runs with `fd` as standard error. */
static int stderr_before;

static void stderr_to(int fd)
{
    fflush(stderr);
    stderr_before = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void stderr_back(void)
{
    dup2(stderr_before, STDERR_FILENO);
    close(stderr_before);
}

static void standard_error_is_never_waited_for_nor_changed(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    int ends[2];
    char why[WEIR_WHY_MAX] = "";
    assert_int_equal(pipe(ends), 0);
    stderr_to(ends[1]);
    open_at(&sink, "stderr");
    int written = fill(&sink);
    bool waits = (fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK) == 0;
    int reopened = wr_sink_reopen(&sink, why);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    read_fd(f, ends[0]);
    bool goes_on = write_text(&sink, "goes on\n");
    close(ends[0]);
    bool unread = write_text(&sink, "nobody reads\n");
    wr_sink_close(&sink);
    bool still_open = fcntl(STDERR_FILENO, F_GETFD) >= 0;
    stderr_back();
    assert_true(written > 0);
    assert_true(waits);
    assert_int_equal(reopened, WEIR_OK);
    assert_true(goes_on);
    assert_false(unread);
    assert_true(still_open);
}

static void a_socket_takes_lines_as_well_and_a_torn_one_is_ended(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    int ends[2], small = 4608;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    stderr_to(ends[1]);
    open_at(&sink, "stderr");
    int written = fill(&sink);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    size_t first = strlen(read_fd(f, ends[0]));
    bool torn = sink.torn, goes_on = write_text(&sink, "goes on\n");
    read_fd(f, ends[0]);
    close(ends[0]);
    bool unread = write_text(&sink, "nobody reads\n");
    stderr_back();
    assert_true(written > 0);
    assert_true(goes_on);
    assert_int_equal(torn, first % 2048 != 0);
    assert_string_equal(f->text, torn ? "\ngoes on\n" : "goes on\n");
    assert_false(unread);
}

static void caught(int number)
{
    (void)number;
}

static void a_sigpipe_of_the_programs_own_is_left_to_it(void **state)
{
    struct fixture *f = *state;
    struct wr_sink sink;
    sigset_t pipe_only, pending;
    struct sigaction before, action = {.sa_handler = caught};
    assert_int_equal(mkfifo(f->path, 0600), 0);
    int reader = open(f->path, O_RDONLY | O_NONBLOCK);
    open_at(&sink, f->path);
    close(reader);
    sigaction(SIGPIPE, &action, &before);
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    sigprocmask(SIG_BLOCK, &pipe_only, NULL);
    assert_false(write_text(&sink, "a\n"));
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, SIGPIPE), 0); /* ours is taken away */
    raise(SIGPIPE);
    assert_false(write_text(&sink, "b\n"));
    sigpending(&pending);
    assert_int_equal(sigismember(&pending, SIGPIPE), 1); /* theirs is not */
    sigprocmask(SIG_UNBLOCK, &pipe_only, NULL);
    sigaction(SIGPIPE, &before, NULL);
    wr_sink_close(&sink);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_made_for_its_owner_and_group_and_appended_to_by_all),
        TEST(after_a_rotation_it_is_opened_anew),
        TEST(one_that_cannot_be_opened_anew_goes_on_with_what_it_had),
        TEST(what_cannot_be_opened_is_told),
        TEST(a_full_pipe_loses_lines_and_stops_nobody),
        TEST(standard_error_is_never_waited_for_nor_changed),
        TEST(a_socket_takes_lines_as_well_and_a_torn_one_is_ended),
        TEST(a_sigpipe_of_the_programs_own_is_left_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
