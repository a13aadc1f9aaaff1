#include "area_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* ---- children ---- */

/* A child that has done its part and says so, and then waits to be told to go on, or to be killed. */
struct child {
    pid_t pid;
    int said, told;
};

typedef void child_part(struct area_fixture *f, int say, int hear);

static struct child start_child(struct area_fixture *f, child_part *part)
{
    int said[2], told[2];
    assert_true(pipe2(said, O_CLOEXEC) == 0 && pipe2(told, O_CLOEXEC) == 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)close(told[1]);
        part(f, said[1], told[0]);
        _exit(0);
    }
    (void)close(said[1]);
    (void)close(told[0]);
    return (struct child){.pid = pid, .said = said[0], .told = told[1]};
}

static void say(int fd)
{
    if (write(fd, "", 1) != 1) _exit(90);
}

static bool hear(int fd)
{
    char byte;
    return read(fd, &byte, 1) == 1;
}

static void forget(struct child *child)
{
    (void)close(child->said);
    (void)close(child->told);
}

/* Dead, and collected only if `reaped`: on some machines nobody ever collects. */
static void kill_child(struct child *child, bool reaped)
{
    siginfo_t info;
    assert_int_equal(kill(child->pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)child->pid, &info, WEXITED | (reaped ? 0 : WNOWAIT)), 0);
    forget(child);
}

static void collect(pid_t pid)
{
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static int exit_code(struct child *child)
{
    int status;
    (void)close(child->told);
    assert_int_equal(waitpid(child->pid, &status, 0), child->pid);
    (void)close(child->said);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* In a child nothing may assert: it would go on with the parent's tests. */
static struct wr_area *open_in_child(struct area_fixture *f)
{
    struct wr_area *area;
    if (wr_area_open(&area, f->path, "api", &f->shape, false, f->replaced, f->why) != WEIR_OK) _exit(91);
    return area;
}

static uint32_t pool_in_child(struct wr_area *area, const char *name, void **record)
{
    uint32_t index;
    bool created;
    if (wr_area_pool(area, name, record, &index, &created) != WEIR_OK) _exit(92);
    if (created) wr_area_pool_ready(area, index);
    return index;
}

static void count_and_stay(struct area_fixture *f, int out, int in)
{
    struct wr_area *area = open_in_child(f);
    void *record;
    uint32_t pool = pool_in_child(area, "primary", &record);
    struct wr_pool_meter *meter = wr_meter_pool(area, pool);
    wr_count(&meter->counter[WR_N_OK], 10);
    wr_gauge_add(&meter->gauge[WR_G_CONNECTIONS], 5);
    wr_histogram_record_fine(&meter->duration, 1000000);
    ((char *)record)[7]++;
    say(out);
    (void)hear(in);
    wr_area_close(area);
}

/* A whole round over the slots. Returns 1 << worker for each that was reported, added up. */
static uint32_t reap_all(struct wr_area *area)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < area->shape.workers + 1; i++) {
        uint32_t worker = wr_area_reap(area);
        if (worker != 0) found += 1u << worker;
    }
    return found;
}

/* ---- two that live ---- */

static void two_processes_see_one_pool_record_and_one_sum(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    uint32_t index, pool = join_pool(area, "primary");
    void *record;
    bool created;
    wr_count(&wr_meter_pool(area, pool)->counter[WR_N_OK], 1);
    struct child child = start_child(f, count_and_stay);
    assert_true(hear(child.said));
    assert_int_equal(wr_area_pool(area, "primary", &record, &index, &created), WEIR_OK);
    assert_int_equal(((char *)record)[7], 1);
    assert_int_equal(wr_meter_counter(area, pool, WR_N_OK), 11);
    assert_int_equal(wr_meter_gauge(area, pool, WR_G_CONNECTIONS), 5);
    assert_true(wr_area_worker_alive(area, 2));
    assert_int_equal(wr_area_worker_pid(area, 2), child.pid);
    assert_int_equal(reap_all(area), 0);
    assert_int_equal(exit_code(&child), 0);
    assert_int_equal(wr_meter_counter(area, pool, WR_N_OK), 11);
    assert_int_equal(wr_meter_gauge(area, pool, WR_G_CONNECTIONS), 0);
    wr_area_close(area);
}

static void open_count_and_leave(struct area_fixture *f, int out, int in)
{
    void *record;
    (void)out;
    (void)hear(in);
    struct wr_area *area = open_in_child(f);
    uint32_t pool = pool_in_child(area, "primary", &record);
    wr_count(&wr_meter_pool(area, pool)->counter[WR_N_OK], 1);
    wr_area_close(area);
}

/* Were two of them to make a file each, some counts would be in a file that has no name. */
static void processes_that_open_a_missing_or_spoilt_file_at_once_meet_in_one(void **state)
{
    enum { CROWD = 8 };
    struct area_fixture *f = *state;
    f->shape.workers = CROWD + 1;
    for (int round = 0; round < 10; round++) {
        struct child child[CROWD];
        for (int i = 0; i < CROWD; i++) child[i] = start_child(f, open_count_and_leave);
        for (int i = 0; i < CROWD; i++) say(child[i].told);
        for (int i = 0; i < CROWD; i++) assert_int_equal(exit_code(&child[i]), 0);
        struct wr_area *area = open_area(f);
        assert_string_equal(f->replaced, "");
        assert_int_equal(wr_meter_counter(area, join_pool(area, "primary"), WR_N_OK), CROWD);
        assert_int_equal(each_file(f, NULL), 1);
        wr_area_close(area);
        assert_int_equal(truncate(f->path, round % 2 == 0 ? 0 : 5000), 0);
    }
}

static void inherit_and_close(struct area_fixture *f, int out, int in)
{
    (void)out;
    (void)in;
    wr_area_close(*(struct wr_area **)(void *)f->why); /* the parent's, by fork */
}

static void a_forked_child_that_closes_its_parents_handle_does_not_free_its_slot(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    memcpy(f->why, &area, sizeof area);
    struct child child = start_child(f, inherit_and_close);
    assert_int_equal(exit_code(&child), 0);
    assert_true(wr_area_worker_alive(area, 1));
    wr_area_close(area);
}

/* ---- one that died ---- */

static void a_killed_worker_is_reaped_once_and_its_counts_stay(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    uint32_t pool = join_pool(area, "primary");
    for (int collected = 0; collected < 2; collected++) {
        struct child child = start_child(f, count_and_stay);
        assert_true(hear(child.said));
        kill_child(&child, collected != 0); /* a zombie is as dead as one that is gone */
        assert_false(wr_area_worker_alive(area, 2));
        assert_int_equal(wr_meter_gauge(area, pool, WR_G_CONNECTIONS), 5); /* still held, as far as we know */
        assert_int_equal(wr_area_reap(area), 2);
        assert_int_equal(wr_meter_gauge(area, pool, WR_G_CONNECTIONS), 0);
        assert_int_equal(raw_gauge(area, 2, pool, WR_G_CONNECTIONS), 0);
        assert_int_equal(wr_meter_counter(area, pool, WR_N_OK), 10 * (collected + 1));
        assert_int_equal(reap_all(area), 0);
        if (!collected) collect(child.pid);
    }
    wr_area_close(area);
}

static void start_calls_and_stay(struct area_fixture *f, int out, int in)
{
    struct wr_area *area = open_in_child(f);
    void *record;
    struct wr_pool_meter *meter = wr_meter_pool(area, pool_in_child(area, "primary", &record));
    wr_count(&meter->counter[WR_N_STARTED], 9);
    wr_count(&meter->counter[WR_N_OK], 3);
    wr_count(&meter->counter[WR_N_REFUSED], 2);
    say(out);
    (void)hear(in);
}

static void the_running_calls_of_a_dead_worker_are_counted_as_abandoned_once(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    uint32_t pool = join_pool(area, "primary");
    for (uint64_t deaths = 1; deaths <= 3; deaths++) {
        struct child child = start_child(f, start_calls_and_stay);
        assert_true(hear(child.said));
        kill_child(&child, true);
        if (deaths == 2)
            wr_area_close(open_area(f)); /* a newcomer that takes the slot settles it as a reaper does */
        (void)reap_all(area);
        (void)reap_all(area);
        assert_int_equal(wr_meter_counter(area, pool, WR_N_STARTED), 9 * deaths);
        assert_int_equal(wr_meter_counter(area, pool, WR_N_OK), 3 * deaths);
        assert_int_equal(wr_meter_counter(area, pool, WR_N_ABANDONED), 4 * deaths);
    }
    wr_area_close(area);
}

static void slots_change_hands_and_the_sums_only_grow(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    struct wr_histogram_view *view = malloc(sizeof *view);
    uint32_t pool = join_pool(area, "primary");
    for (uint64_t life = 1; life <= 12; life++) {
        struct child child = start_child(f, count_and_stay);
        assert_true(hear(child.said));
        assert_int_equal(wr_area_worker_pid(area, 2), child.pid); /* the used slot, never a fresh one */
        assert_int_equal(wr_meter_gauge(area, pool, WR_G_CONNECTIONS), 5);
        kill_child(&child, true);
        if (life % 3 == 0) assert_int_equal(wr_area_reap(area), 2);
        if (life % 3 == 0) assert_int_equal(wr_area_reap(area), 0);
        wr_meter_histogram(area, pool, WR_H_DURATION, view);
        assert_int_equal(view->count, life);
        assert_int_equal(wr_meter_counter(area, pool, WR_N_OK), 10 * life);
    }
    assert_int_equal(wr_slots_used(area), 2);
    free(view);
    wr_area_close(area);
}

static void reap_and_stay(struct area_fixture *f, int out, int in)
{
    struct wr_area *area = open_in_child(f);
    say(out);
    (void)hear(in);
    while (wr_area_reap(area) != 2) {
    }
    say(out);
    (void)hear(in);
}

/* The reaper may have died before its caller took the leases back, so the slot is reported again. */
static void a_dead_workers_slot_is_reported_again_when_its_reaper_dies_too(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    struct child worker = start_child(f, count_and_stay);
    assert_true(hear(worker.said));
    struct child reaper = start_child(f, reap_and_stay);
    assert_true(hear(reaper.said));
    kill_child(&worker, true);
    say(reaper.told);
    assert_true(hear(reaper.said));
    assert_int_equal(reap_all(area), 0); /* the reaper lives and has it in hand */
    kill_child(&reaper, true);
    assert_int_equal(reap_all(area), 1u << 2 | 1u << 3); /* what it held, and its own corpse */
    assert_int_equal(reap_all(area), 0);
    wr_area_close(area);
}

/* Leases name slots: a newcomer must not sit in one whose dead owner's leases are just being taken back. */
static void a_reaped_slot_is_free_only_when_the_reaper_looks_again(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f), *other;
    struct child child = start_child(f, count_and_stay);
    assert_true(hear(child.said));
    kill_child(&child, true);
    assert_int_equal(wr_area_reap(area), 2);
    other = open_area(f);
    assert_int_equal(wr_area_worker(other), 3);
    wr_area_close(other);
    assert_int_equal(wr_area_reap(area), 0);
    other = open_area(f);
    assert_int_equal(wr_area_worker(other), 2);
    wr_area_close(other);
    wr_area_close(area);
}

static void *reap_when_awaited(void *argument)
{
    wr_nap();
    (void)wr_area_reap(argument);
    return NULL;
}

static void a_newcomer_waits_for_a_slot_that_a_reaper_is_about_to_free(void **state)
{
    struct area_fixture *f = *state;
    pthread_t thread;
    f->shape.workers = 2;
    struct wr_area *area = open_area(f);
    struct child child = start_child(f, count_and_stay);
    assert_true(hear(child.said));
    kill_child(&child, true);
    assert_int_equal(wr_area_reap(area), 2);
    assert_int_equal(pthread_create(&thread, NULL, reap_when_awaited, area), 0);
    struct wr_area *other = open_area(f);
    assert_int_equal(wr_area_worker(other), 2);
    assert_int_equal(pthread_join(thread, NULL), 0);
    wr_area_close(other);
    wr_area_close(area);
}

/* ---- makers that died ---- */

static void half_make_a_pool(struct area_fixture *f, int out, int in)
{
    struct wr_area *area = open_in_child(f);
    void *record;
    uint32_t index;
    bool created;
    if (wr_area_pool(area, "primary", &record, &index, &created) != WEIR_OK || !created) _exit(94);
    memset(record, 0xff, f->shape.pool_bytes);
    say(out);
    (void)hear(in);
}

static void a_pool_whose_creator_was_killed_is_taken_over_clean(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    struct child child = start_child(f, half_make_a_pool);
    void *record;
    uint32_t index;
    bool created;
    assert_true(hear(child.said));
    kill_child(&child, false);
    assert_int_equal(wr_area_pool(area, "primary", &record, &index, &created), WEIR_OK);
    assert_true(created);
    assert_int_equal(index, 0);
    for (uint32_t i = 0; i < f->shape.pool_bytes; i++) assert_int_equal(((char *)record)[i], 0);
    collect(child.pid);
    wr_area_close(area);
}

/* Killed between taking the place and naming it: nobody can know what for. */
static void a_nameless_place_of_a_killed_creator_goes_to_whoever_comes(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    struct wr_entry *entry = (struct wr_entry *)(void *)(area->base + area->at.pool_entries);
    struct child child = start_child(f, half_make_a_pool);
    assert_true(hear(child.said));
    kill_child(&child, true);
    uint64_t named = atomic_load(&entry->state);
    atomic_store(&entry->state, (named & ~(UINT64_C(3) << 62)) | UINT64_C(1) << 62);
    memset(entry->name, 'x', 9);
    assert_int_equal(wr_area_pool_count(area), 0);
    assert_int_equal(join_pool(area, "replica"), 0);
    assert_int_equal(join_pool(area, "primary"), 1);
    assert_string_equal(wr_area_pool_name(area, 0), "replica");
    wr_area_close(area);
}

/* ---- who is who ---- */

static void an_identity_tells_a_reused_pid_apart(void **state)
{
    (void)state;
    uint64_t self = wr_process_self();
    assert_false(wr_process_gone(self));
    assert_true(wr_process_gone(self ^ 1)); /* the same pid, started a tick apart */
    assert_true(wr_process_gone(0));
    assert_true(wr_process_gone(UINT64_C(4194303) << 31));
}

static void take_an_odd_name(struct area_fixture *f, int out, int in)
{
    uint64_t before = wr_process_self();
    (void)f;
    (void)in;
    if (prctl(PR_SET_NAME, "a) Z (b 1 2") != 0) _exit(95);
    if (wr_process_self() != before || wr_process_gone(before)) _exit(96);
    say(out);
}

static void spaces_and_parentheses_in_a_processs_name_do_not_confuse(void **state)
{
    struct child child = start_child(*state, take_an_odd_name);
    assert_int_equal(exit_code(&child), 0);
}

static void *look_after_the_leader(void *argument)
{
    const int *out = argument;
    uint64_t self = wr_process_self();
    char text[512];
    for (bool zombie = false; !zombie;) { /* as the process shows once its first thread has ended */
        int fd = open("/proc/self/stat", O_RDONLY);
        ssize_t got = read(fd, text, sizeof text - 1);
        (void)close(fd);
        text[got > 0 ? got : 0] = '\0';
        zombie = strstr(text, ") Z ") != NULL;
        (void)sched_yield();
    }
    if (wr_process_gone(self)) _exit(97);
    say(*out);
    _exit(0);
}

static void end_the_first_thread(struct area_fixture *f, int out, int in)
{
    pthread_t thread;
    (void)f;
    (void)in;
    if (pthread_create(&thread, NULL, look_after_the_leader, &out) != 0) _exit(98);
    pthread_exit(NULL);
}

static void a_process_whose_first_thread_ended_is_alive(void **state)
{
    struct child child = start_child(*state, end_the_first_thread);
    assert_true(hear(child.said));
    assert_int_equal(exit_code(&child), 0);
}

/* ---- killed anywhere ---- */

static void note_all(struct wr_area *area, uint64_t number)
{
    struct wr_recorded_call call;
    char text[64];
    memset(&call, (int)(number % 100) + 1, sizeof call);
    call.id = call.started_us = number;
    wr_recorder_add(area, &call);
    memset(text, 'a' + (int)(number % 26), sizeof text);
    text[1 + number % 62] = '\0';
    wr_event_add(area, WR_EVENT_AREA, 0, number, text);
}

/* Lets some time pass, another amount each time. */
static void spin(uint64_t turns)
{
    for (; turns > 0; turns--) atomic_signal_fence(memory_order_seq_cst);
}

/* Does everything over and over, a byte to the parent each time round. */
static void do_everything(struct area_fixture *f, int out, int in)
{
    uint64_t seed = (uint64_t)getpid() * UINT64_C(0x9e3779b97f4a7c15);
    (void)in;
    for (;;) {
        struct wr_area *area = open_in_child(f);
        char label[32], pool_name[8];
        void *record;
        for (int i = 0; i < 8; i++) {
            (void)snprintf(label, sizeof label, "GET /%u", (unsigned)(next_random(&seed) % 100));
            (void)snprintf(pool_name, sizeof pool_name, "p%u", (unsigned)(next_random(&seed) % 3));
            uint32_t pool = pool_in_child(area, pool_name, &record);
            struct wr_pool_meter *meter = wr_meter_pool(area, pool);
            wr_gauge_add(&meter->gauge[WR_G_BUSY], 1);
            wr_count(&meter->counter[WR_N_OK], 1);
            wr_histogram_record_fine(&meter->duration, next_random(&seed) % 1000000);
            wr_count(&wr_meter_series(area, pool, wr_area_label(area, label))->ok, 1);
            note_all(area, next_random(&seed));
            (void)wr_area_reap(area);
            wr_gauge_add(&meter->gauge[WR_G_BUSY], -1);
        }
        wr_area_close(area);
        say(out);
    }
}

static void check_notes(const struct wr_area *area)
{
    struct wr_recorded_call calls[16];
    struct wr_event events[16];
    size_t count = wr_recorder_read(area, calls, 16);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(calls[i].id, calls[i].started_us);
        assert_int_equal(((unsigned char *)&calls[i].attempt[3])[8], calls[i].id % 100 + 1);
    }
    count = wr_event_read(area, 0, events, 16);
    for (size_t i = 0; i < count; i++) assert_int_equal(strlen(events[i].text), 1 + events[i].at_us % 62);
}

static void check_labels(const struct wr_area *area)
{
    for (uint32_t i = 1; i < wr_area_label_count(area); i++) {
        const char *text = wr_area_label_text(area, i);
        for (uint32_t k = 1; k < i && text[0] != '\0'; k++) {
            assert_string_not_equal(wr_area_label_text(area, k), text);
        }
    }
}

static uint64_t sum_of_calls(const struct wr_area *area)
{
    uint64_t sum = 0;
    for (uint32_t pool = 0; pool < area->shape.pools; pool++) sum += wr_meter_counter(area, pool, WR_N_OK);
    return sum;
}

static void workers_killed_at_any_moment_leave_an_area_that_works(void **state)
{
    enum { ROUNDS = 150, CROWD = 3 };
    struct area_fixture *f = *state;
    uint64_t sum = 0, seed = 4711;
    f->shape.labels = 512;
    f->shape.workers = CROWD + 1;
    struct wr_area *area = open_area(f);
    for (int round = 0; round < ROUNDS; round++) {
        struct child child[CROWD];
        for (int i = 0; i < CROWD; i++) child[i] = start_child(f, do_everything);
        for (int i = 0; i < CROWD; i++) assert_true(hear(child[i].said));
        spin(next_random(&seed) % 20000);
        for (int i = 0; i < CROWD; i++) kill_child(&child[i], round % 2 == 0);
        if (round % 3 != 0) (void)reap_all(area);
        uint64_t now = sum_of_calls(area);
        assert_true(now >= sum + CROWD * 8);
        sum = now;
        check_notes(area);
        check_labels(area);
        for (int i = 0; i < CROWD && round % 2 != 0; i++) collect(child[i].pid);
    }
    (void)reap_all(area);
    (void)reap_all(area);
    for (uint32_t i = 0; i < 3; i++) assert_int_equal(wr_meter_gauge(area, i, WR_G_BUSY), 0);
    assert_int_equal(wr_area_pool_count(area), 3);
    wr_area_close(area);
}

static void open_over_and_over(struct area_fixture *f, int out, int in)
{
    (void)in;
    for (;;) {
        (void)truncate(f->path, 0);
        struct wr_area *area = open_in_child(f);
        if (wr_area_pool_count(area) != 0) _exit(99);
        wr_area_close(area);
        say(out);
    }
}

/* Alone, as truncating a file that another has mapped kills that one. */
static void a_creator_killed_at_any_moment_leaves_a_path_that_can_be_opened(void **state)
{
    struct area_fixture *f = *state;
    uint64_t seed = 815;
    for (int round = 0; round < 200; round++) {
        struct child child = start_child(f, open_over_and_over);
        assert_true(hear(child.said));
        spin(next_random(&seed) % 200000);
        kill_child(&child, true);
        struct wr_area *area = open_area(f);
        assert_in_range(each_file(f, NULL), 1, 2);
        wr_area_close(area);
        assert_int_equal(truncate(f->path, 0), 0);
        wr_area_close(open_area(f));
        assert_int_equal(each_file(f, NULL), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(two_processes_see_one_pool_record_and_one_sum),
        area_test(processes_that_open_a_missing_or_spoilt_file_at_once_meet_in_one),
        area_test(a_forked_child_that_closes_its_parents_handle_does_not_free_its_slot),
        area_test(a_killed_worker_is_reaped_once_and_its_counts_stay),
        area_test(the_running_calls_of_a_dead_worker_are_counted_as_abandoned_once),
        area_test(slots_change_hands_and_the_sums_only_grow),
        area_test(a_dead_workers_slot_is_reported_again_when_its_reaper_dies_too),
        area_test(a_reaped_slot_is_free_only_when_the_reaper_looks_again),
        area_test(a_newcomer_waits_for_a_slot_that_a_reaper_is_about_to_free),
        area_test(a_pool_whose_creator_was_killed_is_taken_over_clean),
        area_test(a_nameless_place_of_a_killed_creator_goes_to_whoever_comes),
        area_test(an_identity_tells_a_reused_pid_apart),
        area_test(spaces_and_parentheses_in_a_processs_name_do_not_confuse),
        area_test(a_process_whose_first_thread_ended_is_alive),
        area_test(workers_killed_at_any_moment_leave_an_area_that_works),
        area_test(a_creator_killed_at_any_moment_leaves_a_path_that_can_be_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
