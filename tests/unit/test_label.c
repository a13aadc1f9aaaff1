#include "area_fixture.h"

#include <pthread.h>

static void a_label_keeps_its_index(void **state)
{
    struct wr_area *area = private_area(*state);
    uint32_t first = wr_area_label(area, "GET /a"), second = wr_area_label(area, "GET /b");
    assert_int_equal(first, 1);
    assert_int_equal(second, 2);
    assert_int_equal(wr_area_label(area, "GET /a"), first);
    assert_int_equal(wr_area_label_count(area), 3);
    assert_string_equal(wr_area_label_text(area, second), "GET /b");
    wr_area_close(area);
}

static void label_zero_is_other_from_the_start(void **state)
{
    struct wr_area *area = private_area(*state);
    assert_int_equal(wr_area_label_count(area), 1);
    assert_string_equal(wr_area_label_text(area, 0), "other");
    static const char *const same[] = {"other", "", NULL};
    for (size_t i = 0; i < 3; i++) assert_int_equal(wr_area_label(area, same[i]), 0);
    assert_int_equal(wr_area_label_count(area), 1);
    wr_area_close(area);
}

static void a_full_table_answers_other_and_still_knows_what_it_has(void **state)
{
    struct wr_area *area = private_area(*state);
    char text[16];
    for (uint32_t i = 0; i < 20; i++) {
        (void)snprintf(text, sizeof text, "label %u", i);
        assert_int_equal(wr_area_label(area, text), i < 7 ? i + 1 : 0);
    }
    assert_int_equal(wr_area_label(area, "label 6"), 7);
    assert_int_equal(wr_area_label_count(area), 8);
    wr_area_close(area);
}

static void the_largest_table_can_be_filled_to_the_last_place(void **state)
{
    struct area_fixture *f = *state;
    f->shape.labels = 4096;
    struct wr_area *area = private_area(f);
    char text[32];
    for (uint32_t i = 1; i < 4096; i++) {
        (void)snprintf(text, sizeof text, "GET /api/v1/resource/%u", i);
        assert_int_equal(wr_area_label(area, text), i);
    }
    assert_int_equal(wr_area_label(area, "one more"), 0);
    wr_area_close(area);
}

static void a_long_label_is_cut_between_characters_and_found_again(void **state)
{
    struct wr_area *area = private_area(*state);
    char longer[2 * WR_LABEL_MAX], longest[3 * WR_LABEL_MAX];
    memset(longer, 'a', sizeof longer);
    memcpy(longer + WR_LABEL_MAX - 2, "\xc3\xa9", 2); /* an e with an accent across the edge */
    longer[sizeof longer - 1] = '\0';
    (void)snprintf(longest, sizeof longest, "%sb", longer);
    uint32_t index = wr_area_label(area, longer);
    assert_int_equal(strlen(wr_area_label_text(area, index)), WR_LABEL_MAX - 2);
    assert_int_equal(wr_area_label(area, longest), index);
    wr_area_close(area);
}

static void two_workers_agree_on_every_label(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *one = open_area(f), *two = open_area(f);
    static const char *const text[] = {"a", "b", "c", "d"};
    for (size_t i = 0; i < 4; i++) {
        uint32_t index = wr_area_label(i % 2 == 0 ? one : two, text[i]);
        assert_int_equal(wr_area_label(i % 2 == 0 ? two : one, text[i]), index);
        assert_string_equal(wr_area_label_text(two, index), text[i]);
    }
    assert_int_equal(wr_area_label_count(one), 5);
    wr_area_close(one);
    wr_area_close(two);
}

static void an_index_out_of_range_has_no_text(void **state)
{
    struct wr_area *area = private_area(*state);
    static const uint32_t index[] = {1, 7, 8, 4096, UINT32_MAX};
    for (size_t i = 0; i < 5; i++) assert_string_equal(wr_area_label_text(area, index[i]), "");
    wr_area_close(area);
}

/* What a process leaves that is killed after linking a label and before marking it live. */
static void a_label_linked_by_a_killed_process_is_finished_by_the_next_who_needs_it(void **state)
{
    struct wr_area *area = private_area(*state);
    uint32_t index = wr_area_label(area, "GET /a");
    struct wr_label *label = (struct wr_label *)(void *)(area->base + area->at.labels) + index;
    atomic_store(&label->live, 0);
    assert_string_equal(wr_area_label_text(area, index), "");
    assert_int_equal(wr_area_label(area, "GET /a"), index);
    assert_string_equal(wr_area_label_text(area, index), "GET /a");
    wr_area_close(area);
}

/* What a process leaves that is killed with a text place in hand. */
static void a_text_place_lost_with_its_process_costs_one_label(void **state)
{
    struct wr_area *area = private_area(*state);
    atomic_fetch_add(&wr_shared_of(area)->labels_added, 1);
    assert_int_equal(wr_area_label(area, "GET /a"), 2);
    assert_string_equal(wr_area_label_text(area, 1), "");
    wr_area_close(area);
}

/* What a handle keeps when another worker linked the same label first. */
static void a_text_place_left_from_a_lost_race_is_used_for_the_next_label(void **state)
{
    struct wr_area *area = private_area(*state);
    atomic_fetch_add(&wr_shared_of(area)->labels_added, 1);
    area->spare_label = 1;
    assert_int_equal(wr_area_label(area, "GET /a"), 1);
    assert_int_equal(wr_area_label(area, "GET /b"), 2);
    assert_int_equal(wr_area_label_count(area), 3);
    wr_area_close(area);
}

static void a_damaged_index_gives_other_and_reads_nothing_outside(void **state)
{
    struct wr_area *area = private_area(*state);
    _Atomic uint32_t *index = (_Atomic uint32_t *)(void *)(area->base + area->at.label_index);
    for (uint64_t i = 0; i < area->at.label_places; i++) atomic_store(&index[i], UINT32_MAX - (uint32_t)i);
    atomic_store(&wr_shared_of(area)->labels_added, UINT32_MAX);
    assert_int_equal(wr_area_label(area, "GET /a"), 0);
    assert_int_equal(wr_area_label_count(area), 8);
    wr_area_close(area);
}

/* ---- at once ---- */

enum { THREADS = 4, TEXTS = 200, ROUNDS = 20 };

struct labeller {
    pthread_t thread;
    struct wr_area *area;
    uint32_t index[TEXTS];
    uint32_t start;
};

static void *label_all(void *argument)
{
    struct labeller *labeller = argument;
    char text[32];
    for (uint32_t i = 0; i < TEXTS; i++) {
        uint32_t which = (labeller->start + i) % TEXTS;
        (void)snprintf(text, sizeof text, "GET /%u", which);
        labeller->index[which] = wr_area_label(labeller->area, text);
    }
    return NULL;
}

static void label_at_once(struct area_fixture *f, struct labeller *labeller, uint32_t stagger)
{
    (void)remove(f->path);
    for (uint32_t t = 0; t < THREADS; t++) {
        labeller[t].area = open_area(f);
        labeller[t].start = t * stagger;
    }
    for (int t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_create(&labeller[t].thread, NULL, label_all, &labeller[t]), 0);
    }
    for (int t = 0; t < THREADS; t++) assert_int_equal(pthread_join(labeller[t].thread, NULL), 0);
}

/* Each thread may be left with one place in hand, hence the margin in the table. */
static void workers_that_add_the_same_labels_at_once_never_make_two_of_one(void **state)
{
    struct area_fixture *f = *state;
    struct labeller *labeller = calloc(THREADS, sizeof *labeller);
    f->shape.labels = TEXTS + THREADS + 1;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        label_at_once(f, labeller, round % 3);
        bool seen[TEXTS + THREADS + 1] = {false};
        for (int i = 0; i < TEXTS; i++) {
            uint32_t index = labeller[0].index[i];
            assert_in_range(index, 1, TEXTS + THREADS);
            assert_false(seen[index]);
            seen[index] = true;
            for (int t = 1; t < THREADS; t++) assert_int_equal(labeller[t].index[i], index);
        }
        for (int t = 0; t < THREADS; t++) wr_area_close(labeller[t].area);
    }
    free(labeller);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(a_label_keeps_its_index),
        area_test(label_zero_is_other_from_the_start),
        area_test(a_full_table_answers_other_and_still_knows_what_it_has),
        area_test(the_largest_table_can_be_filled_to_the_last_place),
        area_test(a_long_label_is_cut_between_characters_and_found_again),
        area_test(two_workers_agree_on_every_label),
        area_test(an_index_out_of_range_has_no_text),
        area_test(a_label_linked_by_a_killed_process_is_finished_by_the_next_who_needs_it),
        area_test(a_text_place_lost_with_its_process_costs_one_label),
        area_test(a_text_place_left_from_a_lost_race_is_used_for_the_next_label),
        area_test(a_damaged_index_gives_other_and_reads_nothing_outside),
        area_test(workers_that_add_the_same_labels_at_once_never_make_two_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
