#include "area_fixture.h"

#include <pthread.h>

enum { CALLS = 16, EVENTS = 16 };

static struct wr_recorded_call call_at(uint64_t started_us)
{
    struct wr_recorded_call call = {.started_us = started_us, .duration_ns = started_us * 7, .attempts = 1};
    (void)snprintf(call.context, sizeof call.context, "GET /%llu", (unsigned long long)started_us);
    return call;
}

static void record(struct wr_area *area, uint64_t started_us)
{
    struct wr_recorded_call call = call_at(started_us);
    wr_recorder_add(area, &call);
}

/* ---- calls ---- */

static void a_recorded_call_is_read_back_whole(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_recorded_call call, found;
    memset(&call, 0x5a, sizeof call);
    call.id = 77;
    call.worker = 1;
    memcpy(call.sqlstate, "40001", 6);
    memcpy(call.context, "GET /api", 9);
    memcpy(call.traceparent, "00-1", 5);
    for (int i = 0; i < WR_RECORD_ATTEMPTS; i++) memcpy(call.attempt[i].sqlstate, "57P01", 6);
    call.context[sizeof call.context - 1] = call.traceparent[sizeof call.traceparent - 1] = '\0';
    wr_recorder_add(area, &call);
    assert_int_equal(wr_recorder_read(area, &found, 1), 1);
    assert_memory_equal(&found, &call, sizeof call);
    wr_area_close(area);
}

static void a_call_without_an_id_gets_its_workers_next_one(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *first = open_area(f), *second = open_area(f);
    struct wr_recorded_call found[2];
    record(second, 10);
    record(second, 20);
    assert_int_equal(wr_recorder_read(first, found, 2), 2);
    assert_int_equal(found[0].id, UINT64_C(2) << 40 | 2);
    assert_int_equal(found[1].id, UINT64_C(2) << 40 | 1);
    assert_int_equal(found[0].worker, 2);
    wr_area_close(first);
    wr_area_close(second);
}

static void calls_of_all_workers_come_newest_first_by_their_start(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *worker[3] = {open_area(f), open_area(f), open_area(f)};
    struct wr_recorded_call found[CALLS];
    static const uint64_t started[] = {50, 10, 90, 30, 70, 20, 80, 60, 40};
    for (size_t i = 0; i < 9; i++) record(worker[i % 3], started[i]);
    assert_int_equal(wr_recorder_read(worker[0], found, CALLS), 9);
    for (uint64_t i = 0; i < 9; i++) assert_int_equal(found[i].started_us, 90 - 10 * i);
    for (int i = 0; i < 3; i++) wr_area_close(worker[i]);
}

static void too_little_room_keeps_the_newest(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_recorded_call found[4];
    static const uint64_t started[] = {5, 1, 9, 3, 7, 2, 8, 6, 4};
    for (size_t i = 0; i < 9; i++) record(area, started[i]);
    for (size_t room = 0; room <= 4; room++) {
        assert_int_equal(wr_recorder_read(area, found, room), room);
        for (size_t i = 0; i < room; i++) assert_int_equal(found[i].started_us, 9 - i);
    }
    wr_area_close(area);
}

static void a_full_ring_forgets_the_oldest(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_recorded_call found[2 * CALLS];
    for (uint64_t i = 1; i <= 3 * CALLS + 5; i++) record(area, i);
    assert_int_equal(wr_recorder_read(area, found, 2 * CALLS), CALLS);
    assert_int_equal(found[0].started_us, 3 * CALLS + 5);
    assert_int_equal(found[CALLS - 1].started_us, 2 * CALLS + 6);
    wr_area_close(area);
}

static struct wr_call_cell *call_cell(const struct wr_area *area, size_t place)
{
    return (struct wr_call_cell *)(void *)(wr_worker_part(area, area->worker) + area->at.recorder) + place;
}

/* An odd turn is what a killed writer leaves. */
static void a_call_left_half_written_is_skipped_and_repaired_by_the_next_lap(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_recorded_call found[CALLS];
    for (uint64_t i = 1; i <= CALLS; i++) record(area, i);
    atomic_fetch_sub(&call_cell(area, 4)->turn, 1);
    assert_int_equal(wr_recorder_read(area, found, CALLS), CALLS - 1);
    for (size_t i = 0; i < CALLS - 1; i++) assert_int_not_equal(found[i].started_us, 5);
    for (uint64_t i = 1; i <= CALLS; i++) record(area, 100 + i);
    assert_int_equal(wr_recorder_read(area, found, CALLS), CALLS);
    assert_int_equal(found[CALLS - 1].started_us, 101);
    wr_area_close(area);
}

static void texts_in_a_damaged_ring_end_all_the_same(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_recorded_call found;
    record(area, 1);
    for (size_t i = 0; i < WR_CALL_WORDS; i++) atomic_store(&call_cell(area, 0)->word[i], UINT64_MAX);
    assert_int_equal(wr_recorder_read(area, &found, 1), 1);
    assert_int_equal(strlen(found.context), sizeof found.context - 1);
    assert_int_equal(strlen(found.traceparent), sizeof found.traceparent - 1);
    assert_int_equal(strlen(found.attempt[3].sqlstate), 5);
    wr_area_close(area);
}

/* ---- events ---- */

static void note(struct wr_area *area, uint64_t number)
{
    char text[32];
    (void)snprintf(text, sizeof text, "event %llu", (unsigned long long)number);
    wr_event_add(area, WR_EVENT_AREA, 2, number * 10, text);
}

static void an_event_is_read_back_whole(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found;
    wr_event_add(area, WR_EVENT_BREAKER, 3, 12345, "CLOSED -> OPEN: failure rate 0.80 >= 0.50");
    assert_int_equal(wr_event_read(area, 0, &found, 1), 1);
    assert_int_equal(found.sequence, 1);
    assert_int_equal(found.at_us, 12345);
    assert_int_equal(found.kind, WR_EVENT_BREAKER);
    assert_int_equal(found.pool, 3);
    assert_int_equal(found.worker, 1);
    assert_string_equal(found.text, "CLOSED -> OPEN: failure rate 0.80 >= 0.50");
    wr_area_close(area);
}

static void events_come_oldest_first_and_only_those_after_the_last_seen(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found[EVENTS];
    for (uint64_t i = 1; i <= 10; i++) note(area, i);
    static const struct {
        uint64_t after;
        size_t room, count;
        uint64_t first;
    } expected[] = {{0, 16, 10, 1}, {4, 16, 6, 5}, {9, 16, 1, 10}, {10, 16, 0, 0},
                    {99, 16, 0, 0}, {0, 3, 3, 8},  {4, 6, 6, 5},   {0, 0, 0, 0}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        assert_int_equal(wr_event_read(area, expected[i].after, found, expected[i].room), expected[i].count);
        for (size_t k = 0; k < expected[i].count; k++) {
            assert_int_equal(found[k].sequence, expected[i].first + k);
        }
    }
    wr_area_close(area);
}

static void a_full_log_forgets_the_oldest(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found[2 * EVENTS];
    for (uint64_t i = 1; i <= 5 * EVENTS + 3; i++) note(area, i);
    assert_int_equal(wr_event_read(area, 0, found, 2 * EVENTS), EVENTS);
    assert_int_equal(found[0].sequence, 4 * EVENTS + 4);
    assert_string_equal(found[EVENTS - 1].text, "event 83");
    wr_area_close(area);
}

static struct wr_event_cell *event_cell(const struct wr_area *area, size_t place)
{
    return (struct wr_event_cell *)(void *)(area->base + area->at.events) + place;
}

static void an_event_left_half_written_is_skipped_and_repaired_by_the_next_lap(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found[EVENTS];
    for (uint64_t i = 1; i <= 5; i++) note(area, i);
    atomic_fetch_sub(&event_cell(area, 2)->turn, 1);
    atomic_fetch_add(&wr_shared_of(area)->events_begun, 1); /* and one that died with its ticket in hand */
    assert_int_equal(wr_event_read(area, 0, found, EVENTS), 4);
    for (uint64_t i = 7; i <= 5 + EVENTS; i++) note(area, i);
    assert_int_equal(wr_event_read(area, 5, found, EVENTS), EVENTS - 1);
    note(area, 6 + EVENTS);
    assert_int_equal(wr_event_read(area, 6, found, EVENTS), EVENTS);
    wr_area_close(area);
}

/* A writer that slept through a whole lap in the middle of its copy wakes up and goes on copying. */
static void old_words_spilled_into_a_newer_event_are_noticed(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found;
    for (size_t word = 0; word < WR_EVENT_WORDS; word++) {
        note(area, word);
        struct wr_event_cell *cell = event_cell(area, word % EVENTS);
        atomic_fetch_xor(&cell->word[word], UINT64_C(1) << 63);
        atomic_fetch_xor(&cell->word[(word + 1) % WR_EVENT_WORDS], UINT64_C(1) << 63);
        assert_int_equal(wr_event_read(area, word, &found, 1), 0);
    }
    wr_area_close(area);
}

static void a_writer_overtaken_by_a_lap_drops_its_event(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found[EVENTS];
    for (uint64_t i = 1; i <= EVENTS + 1; i++) note(area, i);
    atomic_store(&wr_shared_of(area)->events_begun, 0); /* the next ticket is an old one again */
    note(area, 1);
    atomic_store(&wr_shared_of(area)->events_begun, EVENTS + 1);
    assert_int_equal(wr_event_read(area, 0, found, EVENTS), EVENTS);
    assert_int_equal(found[EVENTS - 1].sequence, EVENTS + 1);
    wr_area_close(area);
}

static void a_long_event_text_is_cut(void **state)
{
    struct wr_area *area = private_area(*state);
    struct wr_event found;
    char text[1000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    wr_event_add(area, WR_EVENT_HEALTH, 0, 1, text);
    assert_int_equal(wr_event_read(area, 0, &found, 1), 1);
    assert_int_equal(strlen(found.text), WR_EVENT_TEXT - 1);
    wr_area_close(area);
}

static void every_event_kind_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(wr_event_kind_name(WR_EVENT_BREAKER), "breaker");
    assert_string_equal(wr_event_kind_name(WR_EVENT_OPERATOR), "operator");
    for (uint32_t kind = WR_EVENT_BREAKER; kind <= WR_EVENT_OPERATOR; kind++) {
        assert_string_not_equal(wr_event_kind_name(kind), "?");
    }
    static const uint32_t unknown[] = {0, WR_EVENT_OPERATOR + 1, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) assert_string_equal(wr_event_kind_name(unknown[i]), "?");
}

/* ---- at once ---- */

enum { WRITERS = 3, WRITTEN = 20000 };

struct writer {
    pthread_t thread;
    struct wr_area *area;
    _Atomic bool done;
};

/* Every field of what is written follows from one number, so that a reader can tell a mixture. */
static void fill_call(struct wr_recorded_call *call, uint64_t number)
{
    memset(call, (int)(number & 0x7f) | 1, sizeof *call);
    call->id = call->started_us = number;
    call->sqlstate[5] = call->context[WR_LABEL_MAX - 1] = call->traceparent[55] = '\0';
    for (int i = 0; i < WR_RECORD_ATTEMPTS; i++) call->attempt[i].sqlstate[5] = '\0';
}

static void *write_calls(void *argument)
{
    struct writer *writer = argument;
    struct wr_recorded_call call;
    for (uint64_t number = 1; number <= WRITTEN; number++) {
        fill_call(&call, number);
        wr_recorder_add(writer->area, &call);
    }
    atomic_store(&writer->done, true);
    return NULL;
}

static void a_reader_beside_a_hammering_writer_never_sees_a_torn_call(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *reader = open_area(f);
    struct writer writer = {.area = open_area(f)};
    struct wr_recorded_call found[CALLS], expected;
    assert_int_equal(pthread_create(&writer.thread, NULL, write_calls, &writer), 0);
    for (bool last = false; !last;) {
        last = atomic_load(&writer.done);
        size_t count = wr_recorder_read(reader, found, CALLS);
        for (size_t i = 0; i < count; i++) {
            fill_call(&expected, found[i].id);
            expected.worker = wr_area_worker(writer.area);
            assert_memory_equal(&found[i], &expected, sizeof expected);
        }
        assert_true(!last || count == CALLS);
    }
    assert_int_equal(pthread_join(writer.thread, NULL), 0);
    wr_area_close(writer.area);
    wr_area_close(reader);
}

static void *write_events(void *argument)
{
    struct writer *writer = argument;
    char text[WR_EVENT_TEXT];
    for (uint64_t number = 1; number <= WRITTEN; number++) {
        memset(text, 'a' + (int)(number % 26), sizeof text);
        text[number % (WR_EVENT_TEXT - 1) + 1] = '\0';
        wr_event_add(writer->area, WR_EVENT_AREA, (uint32_t)number, number, text);
    }
    atomic_store(&writer->done, true);
    return NULL;
}

static void check_event(const struct wr_event *event)
{
    size_t length = (size_t)(event->at_us % (WR_EVENT_TEXT - 1) + 1);
    if (length > WR_EVENT_TEXT - 1) length = WR_EVENT_TEXT - 1;
    assert_int_equal(event->pool, event->at_us);
    assert_int_equal(strlen(event->text), length);
    for (size_t i = 0; i < length; i++) assert_int_equal(event->text[i], 'a' + (int)(event->at_us % 26));
}

static bool all_done(struct writer *writer)
{
    bool done = true;
    for (int i = 0; i < WRITERS; i++) done = done && atomic_load(&writer[i].done);
    return done;
}

static void a_reader_beside_hammering_writers_never_sees_a_torn_event(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *reader = open_area(f);
    struct writer writer[WRITERS] = {{.thread = 0}};
    struct wr_event found[EVENTS];
    for (int i = 0; i < WRITERS; i++) {
        writer[i].area = open_area(f);
        assert_int_equal(pthread_create(&writer[i].thread, NULL, write_events, &writer[i]), 0);
    }
    for (bool last = false; !last;) {
        last = all_done(writer);
        size_t count = wr_event_read(reader, 0, found, EVENTS);
        for (size_t i = 0; i < count; i++) {
            check_event(&found[i]);
            assert_true(i == 0 || found[i].sequence > found[i - 1].sequence);
        }
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(writer[i].thread, NULL), 0);
        wr_area_close(writer[i].area);
    }
    note(reader, 1); /* whatever the writers did to each other, the log goes on */
    assert_int_equal(wr_event_read(reader, WRITERS * WRITTEN, found, 1), 1);
    wr_area_close(reader);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(a_recorded_call_is_read_back_whole),
        area_test(a_call_without_an_id_gets_its_workers_next_one),
        area_test(calls_of_all_workers_come_newest_first_by_their_start),
        area_test(too_little_room_keeps_the_newest),
        area_test(a_full_ring_forgets_the_oldest),
        area_test(a_call_left_half_written_is_skipped_and_repaired_by_the_next_lap),
        area_test(texts_in_a_damaged_ring_end_all_the_same),
        area_test(an_event_is_read_back_whole),
        area_test(events_come_oldest_first_and_only_those_after_the_last_seen),
        area_test(a_full_log_forgets_the_oldest),
        area_test(an_event_left_half_written_is_skipped_and_repaired_by_the_next_lap),
        area_test(old_words_spilled_into_a_newer_event_are_noticed),
        area_test(a_writer_overtaken_by_a_lap_drops_its_event),
        area_test(a_long_event_text_is_cut),
        area_test(every_event_kind_has_a_name),
        area_test(a_reader_beside_a_hammering_writer_never_sees_a_torn_call),
        area_test(a_reader_beside_hammering_writers_never_sees_a_torn_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
