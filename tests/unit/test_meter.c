#include "area_fixture.h"

#include <sys/mman.h>

/* Three workers over one file, in one process. */
struct crew {
    struct wr_area *worker[3];
    uint32_t pool;
};

static struct crew crew_of(struct area_fixture *f)
{
    struct crew crew;
    for (int i = 0; i < 3; i++) {
        crew.worker[i] = open_area(f);
        crew.pool = join_pool(crew.worker[i], "primary");
    }
    return crew;
}

static void dismiss(struct crew *crew)
{
    for (int i = 0; i < 3; i++) wr_area_close(crew->worker[i]);
}

static void a_counter_is_the_sum_over_all_workers(void **state)
{
    struct crew crew = crew_of(*state);
    for (uint32_t i = 0; i < 3; i++) {
        wr_count(&wr_meter_pool(crew.worker[i], crew.pool)->counter[WR_N_OK], i + 1);
    }
    for (int i = 0; i < 3; i++) assert_int_equal(wr_meter_counter(crew.worker[i], crew.pool, WR_N_OK), 6);
    assert_int_equal(wr_meter_counter(crew.worker[0], crew.pool, WR_N_FAILED), 0);
    dismiss(&crew);
}

static void pools_are_counted_apart(void **state)
{
    struct area_fixture *f = *state;
    struct wr_area *area = open_area(f);
    uint32_t first = join_pool(area, "first"), second = join_pool(area, "second");
    wr_count(&wr_meter_pool(area, first)->counter[WR_N_STARTED], 5);
    wr_count(&wr_meter_pool(area, second)->counter[WR_N_STARTED], 7);
    assert_int_equal(wr_meter_counter(area, first, WR_N_STARTED), 5);
    assert_int_equal(wr_meter_counter(area, second, WR_N_STARTED), 7);
    wr_area_close(area);
}

static void a_gauge_goes_up_and_down_and_may_be_taken_below_another_workers(void **state)
{
    struct crew crew = crew_of(*state);
    _Atomic int64_t *mine = &wr_meter_pool(crew.worker[0], crew.pool)->gauge[WR_G_CONNECTIONS];
    _Atomic int64_t *theirs = &wr_meter_pool(crew.worker[1], crew.pool)->gauge[WR_G_CONNECTIONS];
    assert_int_equal(wr_gauge_add(mine, 3), 3);
    assert_int_equal(wr_gauge_add(theirs, 4), 4);
    assert_int_equal(wr_gauge_add(mine, -2), 1);
    assert_int_equal(wr_meter_gauge(crew.worker[2], crew.pool, WR_G_CONNECTIONS), 5);
    dismiss(&crew);
}

static void a_worker_that_leaves_takes_its_gauges_along_and_leaves_its_counters(void **state)
{
    struct crew crew = crew_of(*state);
    struct wr_pool_meter *meter = wr_meter_pool(crew.worker[0], crew.pool);
    wr_gauge_add(&meter->gauge[WR_G_BUSY], 2);
    wr_count(&meter->counter[WR_N_OK], 9);
    wr_histogram_record_fine(&meter->duration, 5000);
    wr_area_close(crew.worker[0]);
    crew.worker[0] = NULL;
    struct wr_histogram_view *view = malloc(sizeof *view);
    wr_meter_histogram(crew.worker[1], crew.pool, WR_H_DURATION, view);
    assert_int_equal(wr_meter_gauge(crew.worker[1], crew.pool, WR_G_BUSY), 0);
    assert_int_equal(raw_gauge(crew.worker[1], 1, crew.pool, WR_G_BUSY), 0);
    assert_int_equal(wr_meter_counter(crew.worker[1], crew.pool, WR_N_OK), 9);
    assert_int_equal(view->count, 1);
    free(view);
    dismiss(&crew);
}

/* What a reaper leaves that is killed before it has zeroed them. */
static void gauges_in_a_slot_that_nobody_owns_do_not_count(void **state)
{
    struct crew crew = crew_of(*state);
    (void)wr_meter_pool(crew.worker[2], crew.pool);
    wr_area_close(crew.worker[2]);
    crew.worker[2] = NULL;
    struct wr_pool_meter *meter = (struct wr_pool_meter *)(void *)wr_worker_part(crew.worker[0], 3);
    wr_gauge_add(&meter[crew.pool].gauge[WR_G_WAITING], 8);
    assert_int_equal(wr_meter_gauge(crew.worker[0], crew.pool, WR_G_WAITING), 0);
    dismiss(&crew);
}

static void the_next_owner_of_a_slot_counts_on_and_starts_with_gauges_at_zero(void **state)
{
    struct area_fixture *f = *state;
    struct crew crew = crew_of(f);
    uint32_t slot = wr_area_worker(crew.worker[1]);
    struct wr_pool_meter *meter = wr_meter_pool(crew.worker[1], crew.pool);
    wr_count(&meter->counter[WR_N_RETRIES], 4);
    wr_gauge_add(&meter->gauge[WR_G_IDLE], 4);
    wr_area_close(crew.worker[1]);
    crew.worker[1] = open_area(f);
    assert_int_equal(wr_area_worker(crew.worker[1]), slot);
    meter = wr_meter_pool(crew.worker[1], crew.pool);
    assert_int_equal(atomic_load(&meter->gauge[WR_G_IDLE]), 0);
    wr_count(&meter->counter[WR_N_RETRIES], 1);
    assert_int_equal(wr_meter_counter(crew.worker[0], crew.pool, WR_N_RETRIES), 5);
    dismiss(&crew);
}

static void each_histogram_of_a_pool_is_summed_apart(void **state)
{
    struct crew crew = crew_of(*state);
    struct wr_histogram_view *view = malloc(sizeof *view);
    for (int i = 0; i < 3; i++) {
        struct wr_pool_meter *meter = wr_meter_pool(crew.worker[i], crew.pool);
        wr_histogram_record_fine(&meter->duration, 1000000);
        wr_histogram_record_fine(&meter->wait, 2000000);
        wr_histogram_record_fine(&meter->wait, 2000000);
        wr_histogram_record_fine(&meter->connect, 3000000);
        wr_histogram_record_fine(&meter->hold, 4000000);
    }
    static const struct {
        enum wr_pool_histogram which;
        uint64_t count, sum_ns;
    } expected[] = {{WR_H_DURATION, 3, 3000000},
                    {WR_H_WAIT, 6, 12000000},
                    {WR_H_CONNECT, 3, 9000000},
                    {WR_H_HOLD, 3, 12000000}};
    for (size_t i = 0; i < WR_POOL_HISTOGRAMS; i++) {
        wr_meter_histogram(crew.worker[0], crew.pool, expected[i].which, view);
        assert_int_equal(view->count, expected[i].count);
        assert_int_equal(view->sum_ns, expected[i].sum_ns);
    }
    free(view);
    dismiss(&crew);
}

static void fill_series(struct wr_series_meter *series, uint64_t n)
{
    wr_count(&series->ok, n);
    wr_count(&series->failed, 2 * n);
    wr_count(&series->refused, 3 * n);
    wr_count(&series->timeout, 4 * n);
    wr_count(&series->unknown, 5 * n);
    wr_count(&series->cancelled, 6 * n);
    wr_count(&series->retries, 7 * n);
    wr_histogram_record_coarse(&series->duration, n * 1000000);
}

static void a_series_is_summed_over_workers_for_its_pool_and_label_alone(void **state)
{
    struct crew crew = crew_of(*state);
    uint32_t other_pool = join_pool(crew.worker[0], "replica");
    struct wr_series_sum *sum = malloc(sizeof *sum);
    fill_series(wr_meter_series(crew.worker[0], crew.pool, 7), 1);
    fill_series(wr_meter_series(crew.worker[2], crew.pool, 7), 10);
    fill_series(wr_meter_series(crew.worker[2], crew.pool, 6), 100);
    fill_series(wr_meter_series(crew.worker[2], other_pool, 7), 1000);
    wr_meter_series_sum(crew.worker[1], crew.pool, 7, sum);
    const uint64_t found[] = {sum->ok,      sum->failed,    sum->refused, sum->timeout,
                              sum->unknown, sum->cancelled, sum->retries};
    for (uint64_t i = 0; i < 7; i++) assert_int_equal(found[i], 11 * (i + 1));
    assert_int_equal(sum->duration.count, 2);
    assert_int_equal(sum->duration.sum_ns, 11000000);
    free(sum);
    dismiss(&crew);
}

static size_t pages_in_memory(const struct wr_area *area)
{
    size_t pages = (size_t)(area->at.size / WR_PAGE), count = 0;
    unsigned char *present = malloc(pages);
    assert_int_equal(mincore(area->base, (size_t)area->at.size, present), 0);
    for (size_t i = 0; i < pages; i++) count += present[i] & 1;
    free(present);
    return count;
}

/* Reading a hole of a tmpfs file fills it, so a scrape must not wander over meters that nobody ever used. */
static void summing_touches_no_memory_that_was_never_counted_in(void **state)
{
    struct area_fixture *f = *state;
    f->shape.labels = 512;
    struct wr_area *area = private_area(f);
    (void)madvise(area->base, (size_t)area->at.size, MADV_NOHUGEPAGE);
    struct wr_series_sum *sum = malloc(sizeof *sum);
    uint32_t pool = join_pool(area, "primary");
    fill_series(wr_meter_series(area, pool, 3), 1);
    wr_count(&wr_meter_pool(area, pool)->counter[WR_N_OK], 1);
    wr_meter_series_sum(area, pool, 3, sum);
    size_t before = pages_in_memory(area);
    for (uint32_t label = 0; label < 512; label++) wr_meter_series_sum(area, pool, label, sum);
    for (uint32_t other = 1; other < 3; other++) assert_int_equal(wr_meter_counter(area, other, WR_N_OK), 0);
    /* the bits that say which series were used are allowed their page */
    assert_in_range(pages_in_memory(area), before, before + 1);
    free(sum);
    wr_area_close(area);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        area_test(a_counter_is_the_sum_over_all_workers),
        area_test(pools_are_counted_apart),
        area_test(a_gauge_goes_up_and_down_and_may_be_taken_below_another_workers),
        area_test(a_worker_that_leaves_takes_its_gauges_along_and_leaves_its_counters),
        area_test(gauges_in_a_slot_that_nobody_owns_do_not_count),
        area_test(the_next_owner_of_a_slot_counts_on_and_starts_with_gauges_at_zero),
        area_test(each_histogram_of_a_pool_is_summed_apart),
        area_test(a_series_is_summed_over_workers_for_its_pool_and_label_alone),
        area_test(summing_touches_no_memory_that_was_never_counted_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
