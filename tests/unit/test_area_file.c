#include "area_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { FUZZ_ROUNDS = 2000 };

static int open_code(struct area_fixture *f)
{
    struct wr_area *area = NULL;
    int code = wr_area_open(&area, f->path, "api", &f->shape, false, f->replaced, f->why);
    assert_true((code == WEIR_OK) == (area != NULL));
    wr_area_close(area);
    return code;
}

static ino_t inode_of(const char *path)
{
    struct stat found;
    assert_int_equal(stat(path, &found), 0);
    return found.st_ino;
}

static void poke(const struct area_fixture *f, off_t offset, const void *bytes, size_t count)
{
    int fd = open(f->path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, count, offset), (ssize_t)count);
    (void)close(fd);
}

static void peek(const struct area_fixture *f, off_t offset, void *bytes, size_t count)
{
    int fd = open(f->path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, count, offset), (ssize_t)count);
    (void)close(fd);
}

static void write_file(const struct area_fixture *f, const char *bytes, size_t count)
{
    int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), (ssize_t)count);
    (void)close(fd);
}

/* ---- unsound files ---- */

static void replaced_for(struct area_fixture *f, const char *reason)
{
    ino_t before = inode_of(f->path);
    int keep = open(f->path, O_RDONLY); /* or the new file may get the old one's inode number */
    assert_int_equal(open_code(f), WEIR_OK);
    if (strcmp(f->replaced, reason) != 0) print_error("%s\n", f->replaced);
    assert_string_equal(f->replaced, reason);
    assert_true(inode_of(f->path) != before);
    (void)close(keep);
    assert_int_equal(open_code(f), WEIR_OK);
    assert_string_equal(f->replaced, "");
    assert_int_equal(each_file(f, NULL), 1);
}

static void a_truncated_file_is_replaced(void **state)
{
    struct area_fixture *f = *state;
    struct wr_layout at;
    char reason[WEIR_WHY_MAX];
    wr_layout_compute(&at, &f->shape);
    const off_t size[] = {0, 1, 100, 151, 152, 4096, (off_t)at.size - 1, (off_t)at.size + 1};
    for (size_t i = 0; i < sizeof size / sizeof size[0]; i++) {
        assert_int_equal(open_code(f), WEIR_OK);
        assert_int_equal(truncate(f->path, size[i]), 0);
        (void)snprintf(reason, sizeof reason, "size %lld found, %llu expected", (long long)size[i],
                       (unsigned long long)at.size);
        replaced_for(f, reason);
    }
}

static void what_never_was_an_area_is_refused_and_left_alone(void **state)
{
    struct area_fixture *f = *state;
    static const size_t sizes[] = {1, 7, 8, 100, 5000};
    char content[5000], found[sizeof content];
    memset(content, '#', sizeof content);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        write_file(f, content, sizes[i]);
        assert_int_equal(open_code(f), WEIR_ESYS);
        assert_non_null(strstr(f->why, "is not an area"));
        peek(f, 0, found, sizes[i]);
        assert_memory_equal(found, content, sizes[i]);
        assert_int_equal(each_file(f, NULL), 1);
    }
}

static void a_file_of_another_layout_is_replaced(void **state)
{
    struct area_fixture *f = *state;
    uint32_t layout = WR_AREA_LAYOUT + 1;
    char reason[64];
    snprintf(reason, sizeof reason, "layout %u found, %u expected", layout, (unsigned)WR_AREA_LAYOUT);
    assert_int_equal(open_code(f), WEIR_OK);
    poke(f, offsetof(struct wr_header, layout), &layout, sizeof layout);
    replaced_for(f, reason);
}

static void a_file_of_another_shape_is_replaced(void **state)
{
    struct area_fixture *f = *state;
    assert_int_equal(open_code(f), WEIR_OK);
    f->shape.workers = 5;
    replaced_for(f, "workers 4 found, 5 expected");
    f->shape.object_bytes = 41; /* the same stride, so the same size */
    replaced_for(f, "object_bytes 40 found, 41 expected");
}

/* A header that is right in itself, checksum and all, but speaks of another world. */
static void rewrite_header(const struct area_fixture *f, void (*change)(struct wr_header *header))
{
    struct wr_header header;
    peek(f, 0, &header, sizeof header);
    change(&header);
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < offsetof(struct wr_header, checksum); i++) {
        sum = (sum ^ ((const unsigned char *)&header)[i]) * UINT64_C(0x100000001b3);
    }
    header.checksum = sum;
    poke(f, 0, &header, sizeof header);
}

static void from_another_boot(struct wr_header *header)
{
    header->origin += 2;
}
static void of_unknown_origin(struct wr_header *header)
{
    header->origin = 0;
}
static void of_a_wrong_size(struct wr_header *header)
{
    header->size = UINT64_MAX;
}
static void with_huge_numbers(struct wr_header *header)
{
    memset(&header->shape, 0xff, sizeof header->shape);
}
static void with_another_name(struct wr_header *header)
{
    memset(header->name, 'x', sizeof header->name);
}

static void a_well_formed_header_of_another_world_is_replaced(void **state)
{
    struct area_fixture *f = *state;
    static const struct {
        void (*change)(struct wr_header *header);
        const char *reason;
    } world[] = {
        {from_another_boot, "left by an earlier boot or another pid namespace"},
        {with_huge_numbers, "workers 4294967295 found, 4 expected"},
    };
    for (size_t i = 0; i < sizeof world / sizeof world[0]; i++) {
        assert_int_equal(open_code(f), WEIR_OK);
        rewrite_header(f, world[i].change);
        replaced_for(f, world[i].reason);
    }
    rewrite_header(f, of_a_wrong_size);
    assert_int_equal(open_code(f), WEIR_OK);
    assert_non_null(strstr(f->replaced, "size "));
}

static void a_file_of_unknown_origin_is_joined(void **state)
{
    struct area_fixture *f = *state;
    assert_int_equal(open_code(f), WEIR_OK);
    rewrite_header(f, of_unknown_origin);
    assert_int_equal(open_code(f), WEIR_OK);
    assert_string_equal(f->replaced, "");
}

static void an_area_of_another_engine_is_refused_by_both_names_and_left_alone(void **state)
{
    struct area_fixture *f = *state;
    assert_int_equal(open_code(f), WEIR_OK);
    ino_t before = inode_of(f->path);
    for (int reshaped = 0; reshaped < 2; reshaped++) { /* of whatever size */
        struct wr_area *area;
        f->shape.workers += (uint32_t)reshaped;
        assert_int_equal(wr_area_open(&area, f->path, "web", &f->shape, false, f->replaced, f->why),
                         WEIR_ESYS);
        assert_non_null(strstr(f->why, f->path));
        assert_non_null(strstr(f->why, "belongs to engine 'api', and this one is 'web'"));
        assert_int_equal(inode_of(f->path), before);
        assert_int_equal(each_file(f, NULL), 1);
    }
    f->shape.workers--;
    rewrite_header(f, with_another_name); /* one that does not end */
    assert_int_equal(open_code(f), WEIR_ESYS);
    assert_non_null(strstr(f->why, "'xxxx"));
    rewrite_header(f, from_another_boot); /* nobody of that world can be left */
    assert_int_equal(open_code(f), WEIR_OK);
    assert_string_not_equal(f->replaced, "");
}

static void every_flipped_header_byte_is_noticed(void **state)
{
    struct area_fixture *f = *state;
    for (off_t offset = 0; offset < (off_t)sizeof(struct wr_header); offset++) {
        unsigned char byte;
        assert_int_equal(open_code(f), WEIR_OK);
        peek(f, offset, &byte, 1);
        byte ^= 0x10;
        poke(f, offset, &byte, 1);
        bool in_magic = offset < (off_t)sizeof(uint64_t);
        assert_int_equal(open_code(f), in_magic ? WEIR_ESYS : WEIR_OK);
        if (in_magic)
            assert_int_equal(remove(f->path), 0);
        else
            assert_string_not_equal(f->replaced, "");
    }
}

static void names_that_do_not_end_are_noticed(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    (void)join_pool(area, "primary");
    (void)wr_area_label(area, "GET /");
    off_t pool = (off_t)(area->at.pool_entries + offsetof(struct wr_entry, name) + WR_NAME_MAX - 1);
    off_t label = (off_t)(area->at.labels + sizeof(struct wr_label) + sizeof(struct wr_label) - 1);
    wr_area_close(area);
    const off_t last[] = {pool, label};
    for (size_t i = 0; i < 2; i++) {
        poke(f, last[i], "x", 1);
        replaced_for(f, "names damaged");
        area = open_area(f);
        (void)join_pool(area, "primary");
        (void)wr_area_label(area, "GET /");
        wr_area_close(area);
    }
}

/* ---- random bytes under a good header ---- */

static void scribble(const struct area_fixture *f, uint64_t size, uint64_t *seed)
{
    uint64_t from = sizeof(struct wr_header), bytes[64];
    int fd = open(f->path, O_WRONLY);
    assert_true(fd >= 0);
    for (uint64_t patch = 0; patch <= next_random(seed) % 24; patch++) {
        for (size_t i = 0; i < 64; i++) bytes[i] = next_random(seed);
        size_t count = (size_t)(1 + next_random(seed) % sizeof bytes);
        /* half of the patches near the front, where the tables are; a few anywhere, over the header too */
        uint64_t span = next_random(seed) % 2 == 0 ? 6000 : size;
        uint64_t at = next_random(seed) % 16 == 0 ? 0 : from;
        at += next_random(seed) % (span - at - count);
        assert_int_equal(pwrite(fd, bytes, count, (off_t)at), (ssize_t)count);
    }
    (void)close(fd);
}

static size_t read_everything(struct wr_area *area, struct wr_series_sum *sum)
{
    struct wr_recorded_call calls[4];
    struct wr_event events[4];
    size_t total = wr_recorder_read(area, calls, 4) + wr_event_read(area, 0, events, 4);
    for (uint32_t pool = 0; pool < area->shape.pools; pool++) {
        total += strlen(wr_area_pool_name(area, pool));
        total += (size_t)wr_meter_counter(area, pool, WR_N_OK);
        total += (size_t)wr_meter_gauge(area, pool, WR_G_IDLE);
        wr_meter_histogram(area, pool, WR_H_DURATION, &sum->duration);
        total += (size_t)wr_histogram_quantile(&sum->duration, 0.99);
        wr_meter_series_sum(area, pool, pool + 1, sum);
        total += (size_t)wr_histogram_count_below(&sum->duration, 1000000);
    }
    for (uint32_t label = 0; label < wr_area_label_count(area); label++) {
        total += strlen(wr_area_label_text(area, label));
    }
    for (uint32_t worker = 0; worker < 6; worker++) {
        total += wr_area_worker_alive(area, worker) + wr_area_reap(area);
    }
    return total + wr_area_pool_count(area);
}

static void use_everything(struct wr_area *area)
{
    struct wr_recorded_call call = {.started_us = 1};
    void *record;
    uint32_t index;
    bool created;
    area->naps = 0;
    if (wr_area_pool(area, "primary", &record, &index, &created) == WEIR_OK) {
        memset(record, 1, area->shape.pool_bytes);
        wr_area_pool_ready(area, index);
        wr_count(&wr_meter_pool(area, index)->counter[WR_N_OK], 1);
        wr_gauge_add(&wr_meter_pool(area, index)->gauge[WR_G_IDLE], 1);
        wr_histogram_record_fine(&wr_meter_pool(area, index)->duration, 1000);
        wr_count(&wr_meter_series(area, index, wr_area_label(area, "GET /x"))->ok, 1);
    }
    if (wr_area_object(area, 2, "redis", &record, &created) == WEIR_OK) wr_area_object_ready(area, record);
    wr_recorder_add(area, &call);
    wr_event_add(area, WR_EVENT_AREA, 0, 1, "still here");
    wr_area_heartbeat(area, 1);
}

static void random_bytes_are_replaced_or_borne_and_never_crash(void **state)
{
    struct area_fixture *f = *state;
    struct wr_series_sum *sum = malloc(sizeof *sum);
    uint64_t seed = 20240611, joined = 0;
    for (int round = 0; round < FUZZ_ROUNDS; round++) {
        struct wr_area *area = open_area(f);
        use_everything(area);
        scribble(f, area->at.size, &seed);
        wr_area_close(area);
        int code = wr_area_open(&area, f->path, "api", &f->shape, false, f->replaced, f->why);
        assert_true(code == WEIR_OK || strstr(f->why, "slot") != NULL ||
                    strstr(f->why, "not an area") != NULL);
        if (code != WEIR_OK) (void)remove(f->path);
        if (code == WEIR_OK) {
            joined += f->replaced[0] == '\0';
            (void)read_everything(area, sum);
            use_everything(area);
            (void)read_everything(area, sum);
            wr_area_close(area);
        }
        if (round % 4 == 3) (void)remove(f->path); /* three rounds of scribbling pile up */
    }
    assert_in_range(joined, FUZZ_ROUNDS / 10, FUZZ_ROUNDS); /* or the rounds tested the header alone */
    free(sum);
}

/* ---- what is not a file of ours ---- */

static void make_fifo(const char *path)
{
    assert_int_equal(mkfifo(path, 0600), 0);
}
static void make_directory(const char *path)
{
    assert_int_equal(mkdir(path, 0700), 0);
}
static void make_loop(const char *path)
{
    assert_int_equal(symlink(path, path), 0);
}
static void make_link(const char *path)
{
    assert_int_equal(symlink("/dev/null", path), 0);
}

static void make_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(strlen(path) < sizeof address.sun_path);
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    (void)close(fd);
}

static void make_second_name(const char *path)
{
    char other[PATH_MAX + 8];
    (void)snprintf(other, sizeof other, "%s.other", path);
    int fd = open(other, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0 && link(other, path) == 0);
    (void)close(fd);
}

static const struct {
    void (*make)(const char *path);
    const char *reason;
} not_ours[] = {
    {make_fifo, "is not a regular file"}, {make_directory, "Is a directory"},
    {make_loop, "is a symbolic link"},    {make_link, "is a symbolic link"},
    {make_socket, "No such device"},      {make_second_name, "has more than one name"},
};

enum { NOT_OURS = sizeof not_ours / sizeof not_ours[0] };

static void what_is_not_a_plain_file_is_refused_at_once_and_left_alone(void **state)
{
    struct area_fixture *f = *state;
    for (size_t i = 0; i < NOT_OURS; i++) {
        struct stat before, after;
        not_ours[i].make(f->path);
        assert_int_equal(lstat(f->path, &before), 0);
        assert_int_equal(open_code(f), WEIR_ESYS);
        assert_non_null(strstr(f->why, f->path));
        assert_non_null(strstr(f->why, not_ours[i].reason));
        assert_int_equal(lstat(f->path, &after), 0);
        assert_int_equal(before.st_ino, after.st_ino);
        assert_int_equal(remove(f->path), 0);
    }
}

static void what_stands_in_the_drafts_place_is_refused_too(void **state)
{
    struct area_fixture *f = *state;
    char draft[PATH_MAX + 8];
    (void)snprintf(draft, sizeof draft, "%s.new", f->path);
    for (size_t i = 0; i < NOT_OURS; i++) {
        not_ours[i].make(draft);
        assert_int_equal(open_code(f), WEIR_ESYS);
        assert_non_null(strstr(f->why, draft));
        assert_int_equal(access(f->path, F_OK), -1);
        assert_int_equal(remove(draft), 0);
    }
}

static void a_file_of_another_user_is_refused(void **state)
{
    struct area_fixture *f = *state;
    if (geteuid() != 0) skip();
    assert_int_equal(open_code(f), WEIR_OK);
    assert_int_equal(chown(f->path, 65534, 65534), 0);
    assert_int_equal(open_code(f), WEIR_ESYS);
    assert_non_null(strstr(f->why, "another user"));
}

static void a_path_that_cannot_be_is_refused(void **state)
{
    struct area_fixture *f = *state;
    char *longest = malloc(PATH_MAX + 10);
    struct wr_area *area;
    memset(longest, 'a', PATH_MAX + 9);
    longest[PATH_MAX + 9] = '\0';
    const char *const path[] = {"/nonexistent/area", "", longest, "/dev/null/area"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(wr_area_open(&area, path[i], "api", &f->shape, false, NULL, f->why), WEIR_ESYS);
        assert_null(area);
        assert_non_null(strstr(f->why, "area "));
    }
    free(longest);
}

/* ---- making ---- */

static void a_new_file_gets_the_mode_asked_for_whatever_the_umask(void **state)
{
    struct area_fixture *f = *state;
    static const mode_t umasks[] = {0, 0077, 0777};
    for (size_t i = 0; i < 6; i++) {
        struct wr_area *area;
        struct stat found;
        mode_t before = umask(umasks[i % 3]);
        int code = wr_area_open(&area, f->path, "api", &f->shape, i >= 3, f->replaced, f->why);
        (void)umask(before);
        assert_int_equal(code, WEIR_OK);
        assert_int_equal(stat(f->path, &found), 0);
        assert_int_equal(found.st_mode & 07777, i >= 3 ? 0640 : 0600);
        wr_area_close(area);
        assert_int_equal(remove(f->path), 0);
    }
}

static void a_new_file_is_sparse_and_alone_in_its_directory(void **state)
{
    struct area_fixture *f = *state;
    f->shape.labels = 4096;
    struct stat found;
    struct wr_area *area = open_area(f);
    assert_int_equal(stat(f->path, &found), 0);
    assert_int_equal(found.st_size, area->at.size);
    assert_true(found.st_blocks * 512 < 256 * 1024);
    assert_int_equal(each_file(f, NULL), 1);
    assert_string_equal(f->replaced, "");
    wr_area_close(area);
}

static void a_file_that_cannot_be_made_whole_leaves_nothing_behind(void **state)
{
    struct area_fixture *f = *state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int code = open_code(f);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(code, WEIR_ESYS);
    assert_non_null(strstr(f->why, "RLIMIT_FSIZE"));
    assert_int_equal(each_file(f, NULL), 0);
    assert_int_equal(open_code(f), WEIR_OK);
}

static void a_draft_left_by_a_killed_creator_is_used_up(void **state)
{
    struct area_fixture *f = *state;
    char draft[PATH_MAX + 8], half[8192];
    (void)snprintf(draft, sizeof draft, "%s.new", f->path);
    memset(half, 0, sizeof half);
    write_file(f, half, sizeof half);
    assert_int_equal(rename(f->path, draft), 0);
    assert_int_equal(chmod(draft, 0666), 0);
    struct wr_area *area = open_area(f);
    struct stat found;
    assert_int_equal(stat(f->path, &found), 0);
    assert_int_equal(found.st_mode & 07777, 0600);
    assert_int_equal(wr_slots_used(area), 1);
    assert_int_equal(wr_area_pool_count(area), 0);
    assert_int_equal(each_file(f, NULL), 1);
    wr_area_close(area);
}

static void a_file_that_is_no_longer_at_its_path_is_noticed(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *first = open_area(f), *alone = private_area(f);
    assert_true(wr_area_is_at_path(first));
    assert_true(wr_area_is_at_path(alone));
    assert_int_equal(remove(f->path), 0);
    assert_false(wr_area_is_at_path(first));
    struct wr_area *second = open_area(f); /* another file: the two share nothing */
    assert_string_equal(f->replaced, "");
    assert_false(wr_area_is_at_path(first));
    assert_true(wr_area_is_at_path(second));
    assert_int_equal(join_pool(first, "primary"), 0);
    assert_int_equal(wr_area_pool_count(second), 0);
    wr_area_close(first);
    wr_area_close(second);
    wr_area_close(alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(a_new_file_gets_the_mode_asked_for_whatever_the_umask),
        area_test(a_new_file_is_sparse_and_alone_in_its_directory),
        area_test(a_file_that_is_no_longer_at_its_path_is_noticed),
        area_test(a_truncated_file_is_replaced),
        area_test(what_never_was_an_area_is_refused_and_left_alone),
        area_test(a_file_of_another_layout_is_replaced),
        area_test(a_file_of_another_shape_is_replaced),
        area_test(a_well_formed_header_of_another_world_is_replaced),
        area_test(a_file_of_unknown_origin_is_joined),
        area_test(an_area_of_another_engine_is_refused_by_both_names_and_left_alone),
        area_test(every_flipped_header_byte_is_noticed),
        area_test(names_that_do_not_end_are_noticed),
        area_test(random_bytes_are_replaced_or_borne_and_never_crash),
        area_test(what_is_not_a_plain_file_is_refused_at_once_and_left_alone),
        area_test(what_stands_in_the_drafts_place_is_refused_too),
        area_test(a_file_of_another_user_is_refused),
        area_test(a_path_that_cannot_be_is_refused),
        area_test(a_file_that_cannot_be_made_whole_leaves_nothing_behind),
        area_test(a_draft_left_by_a_killed_creator_is_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
