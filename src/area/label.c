/* Labels: a table of texts, and an index by hash that leads to them. Nothing is ever removed, so everybody
 * who looks for a label walks the same places in the same order, and whoever puts it at the first empty one
 * has put it there for all. A process that dies between taking a place for the text and linking it costs that
 * one place. */
#include "area/layout.h"

#include "base/text.h"

enum { MOST_PROBES = 64 }; /* the index is at most half full: in practice a handful */

static const char other[] = "other";

static struct wr_label *label_of(const struct wr_area *area, uint32_t number)
{
    return (struct wr_label *)(void *)(area->base + area->at.labels) + number;
}

static _Atomic uint32_t *index_place(const struct wr_area *area, uint32_t hash, uint32_t probe)
{
    uint64_t place = ((uint64_t)hash + probe) & (area->at.label_places - 1);
    return (_Atomic uint32_t *)(void *)(area->base + area->at.label_index) + place;
}

static uint32_t hash_of(const char *text)
{
    uint32_t hash = UINT32_C(2166136261);
    for (; *text != '\0'; text++) hash = (hash ^ (unsigned char)*text) * UINT32_C(16777619);
    hash ^= hash >> 16; /* FNV leaves the low bits, which choose the place, the least mixed */
    return hash * UINT32_C(0x85ebca6b);
}

/* A place for a text of ours: the one left from a lost race, or the table's next. 0 when that is full. */
static uint32_t text_place(struct wr_area *area)
{
    if (area->spare_label != 0) return area->spare_label;
    _Atomic uint32_t *added = &wr_shared_of(area)->labels_added;
    uint32_t seen = atomic_load(added);
    do {
        if (seen >= area->shape.labels - 1) return 0;
    } while (!atomic_compare_exchange_weak(added, &seen, seen + 1));
    area->spare_label = seen + 1;
    return seen + 1;
}

/* Writes the text where nobody can see it yet, then links it. 0 if the table is full or somebody else linked
 * theirs here first; `*taken` is then what stands in the index. */
static uint32_t add(struct wr_area *area, _Atomic uint32_t *place, uint32_t hash, const char *text,
                    uint32_t *taken)
{
    *taken = 0;
    uint32_t number = text_place(area);
    if (number == 0) return 0;
    struct wr_label *label = label_of(area, number);
    label->hash = hash;
    memset(label->text, 0, sizeof label->text);
    wr_text_copy(label->text, sizeof label->text, text);
    if (!atomic_compare_exchange_strong(place, taken, number)) return 0;
    area->spare_label = 0;
    atomic_store(&label->live, 1);
    return number;
}

/* A linked label whose maker died before it could say so is made visible by whoever finds it. */
static bool is_label(const struct wr_area *area, uint32_t number, uint32_t hash, const char *text)
{
    if (number >= area->shape.labels) return false;
    struct wr_label *label = label_of(area, number);
    if (label->hash != hash || strncmp(label->text, text, WR_LABEL_MAX) != 0) return false;
    if (atomic_load_explicit(&label->live, memory_order_relaxed) == 0) atomic_store(&label->live, 1);
    return true;
}

uint32_t wr_area_label(struct wr_area *area, const char *label)
{
    char text[WR_LABEL_MAX];
    if (wr_text_copy(text, sizeof text, label) == 0 || strcmp(text, other) == 0) return 0;
    uint32_t hash = hash_of(text);
    for (uint32_t probe = 0; probe < MOST_PROBES; probe++) {
        _Atomic uint32_t *place = index_place(area, hash, probe);
        uint32_t number = atomic_load_explicit(place, memory_order_acquire);
        if (number == 0) {
            uint32_t made = add(area, place, hash, text, &number);
            if (made != 0 || number == 0) return made;
        }
        if (is_label(area, number, hash, text)) return number;
    }
    return 0;
}

uint32_t wr_area_label_count(const struct wr_area *area)
{
    uint32_t added = atomic_load(&wr_shared_of(area)->labels_added);
    return added < area->shape.labels ? added + 1 : area->shape.labels;
}

const char *wr_area_label_text(const struct wr_area *area, uint32_t index)
{
    if (index == 0) return other;
    if (index >= area->shape.labels || atomic_load(&label_of(area, index)->live) == 0) return "";
    return label_of(area, index)->text;
}

void wr_area_label_copy(const struct wr_area *area, uint32_t index, char out[WR_LABEL_MAX])
{
    const char *text = wr_area_label_text(area, index);
    size_t length = 0;
    while (length < WR_LABEL_MAX - 1 && text[length] != '\0') {
        out[length] = text[length];
        length++;
    }
    out[length] = '\0';
}

bool wr_labels_sound(const struct wr_area *area)
{
    uint32_t count = wr_area_label_count(area);
    for (uint32_t i = 1; i < count; i++) {
        const char *text = wr_area_label_text(area, i);
        if (text[0] != '\0' && text[WR_LABEL_MAX - 1] != '\0') return false;
    }
    return true;
}
