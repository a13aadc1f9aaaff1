/* How an area is laid out: its default, or the largest layout that fits the size that was asked for. It follows from the
 * size alone, so that all workers, under whatever policy, come to the same one. */
#include "area/sharedarea.h"
#include "engine/config.h"
#include "engine/door.h"
#include "engine/order.h"
#include "engine/pool.h"

#include <string.h>

enum { DEFAULT_SHAPE = 5 };

/* Workers are processes, and two for each during a reload of a policy; one label is "other". */
static const struct {
    uint32_t workers, pools, labels, calls, events, objects, servers;
} shapes[] = {
    {8, 4, 16, 32, 64, 0, 4},        {8, 8, 16, 64, 64, 4, 8},          {16, 8, 32, 128, 128, 8, 8},
    {16, 8, 64, 256, 256, 16, 8},    {32, 16, 64, 256, 256, 32, 16},    {64, 32, 128, 256, 256, 64, 32},
    {64, 32, 256, 512, 512, 64, 32}, {128, 32, 512, 512, 1024, 64, 32},
};

enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct wr_area_shape shape_of(size_t index)
{
    return (struct wr_area_shape){
        .workers = shapes[index].workers,
        .pools = shapes[index].pools,
        .pool_bytes = (uint32_t)wr_pool_record_bytes(),
        .labels = shapes[index].labels,
        .calls = shapes[index].calls,
        .events = shapes[index].events,
        .objects = shapes[index].objects,
        .object_bytes = 16384,
        .servers = shapes[index].servers,
        .server_bytes = (uint32_t)wr_door_bytes(),
        .common_bytes = (uint32_t)wr_order_bytes(),
        .worker_bytes = (uint32_t)sizeof(struct wr_worker_record),
    };
}

static uint64_t size_of(size_t index)
{
    struct wr_area_shape shape = shape_of(index);
    return wr_area_size(&shape);
}

/* The smallest that has room for these pools and backends; SHAPES if none has. */
static size_t least_for(size_t pools, size_t backends)
{
    size_t index = 0;
    while (index < SHAPES && (shapes[index].pools < pools || shapes[index].servers < backends)) index++;
    return index;
}

bool wr_engine_makes(const struct wr_area_shape *shape)
{
    for (size_t i = 0; i < SHAPES; i++) {
        struct wr_area_shape ours = shape_of(i);
        if (memcmp(shape, &ours, sizeof ours) == 0) return true;
    }
    return false;
}

int wr_engine_shape(const weir_options *options, struct wr_area_shape *shape, char *why)
{
    size_t pools = options->client_count * options->backend_count;
    size_t index = DEFAULT_SHAPE, least = least_for(pools, options->backend_count);
    if (least == SHAPES) {
        wr_text_format(why, WEIR_WHY_MAX, "clients and backends make %zu pools; an area holds %u at most",
                       pools, shapes[SHAPES - 1].pools);
        return WEIR_EINVAL;
    }
    if (options->area_size > 0) {
        for (index = SHAPES - 1; index > 0 && size_of(index) > options->area_size;) index--;
        if (size_of(index) > options->area_size || index < least) {
            wr_text_format(why, WEIR_WHY_MAX, "area_size is %llu bytes; %zu pools need %llu at least",
                           (unsigned long long)options->area_size, pools, (unsigned long long)size_of(least));
            return WEIR_EINVAL;
        }
    }
    *shape = shape_of(index);
    if (options->area_path == NULL) shape->workers = 1;
    return WEIR_OK;
}
