/* Looking at an area from outside. The file is read and checked before it is mapped, as in area.c; what happens to it
 * afterwards must not hurt whoever looks: missing pages read as zeros (sigbus.c), every number is bounded by our own copy
 * of the shape, and texts are copied with an end. */
#include "area/layout.h"
#include "area/sigbus.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(char *why, const char *path, const char *reason)
{
    wr_text_format(why, WEIR_WHY_MAX, "area %s: %s", path, reason);
    return WEIR_ESYS;
}

/* ---- finding it ------------------------------------------------------------------------------------------------ */

/* An area has no name before it is complete, but its draft has. */
static bool is_being_made(const char *path)
{
    char draft[WR_AREA_PATH_MAX + 8];
    struct stat found;
    int length = snprintf(draft, sizeof draft, "%s.new", path);
    return length > 0 && (size_t)length < sizeof draft && lstat(draft, &found) == 0 && S_ISREG(found.st_mode);
}

static int open_for_writing_or_reading(const char *path, bool *writable)
{
    int fd = wr_file_open(path, O_RDWR);
    *writable = fd >= 0;
    if (fd >= 0 || (errno != EACCES && errno != EROFS && errno != EPERM && errno != EISDIR)) return fd;
    return wr_file_open(path, O_RDONLY);
}

static int wait_and_open(const char *path, bool *writable)
{
    for (int naps = 0;; naps++) {
        int fd = open_for_writing_or_reading(path, writable);
        if (fd >= 0 || errno != ENOENT || naps >= WR_WAIT_NAPS || !is_being_made(path)) return fd;
        wr_nap();
    }
}

/* ---- checking it ----------------------------------------------------------------------------------------------- */

/* NULL if it can be read with the shape that it tells; else what is wrong, perhaps put together in `fault`. */
static const char *fault_of(int fd, struct wr_header *header, struct stat *found, char *fault)
{
    if (fstat(fd, found) != 0) return strerror(errno);
    if (!S_ISREG(found->st_mode)) return "is not a regular file";
    if (found->st_size == 0) return "is empty: whoever was to make an area of it has not done so";
    if (wr_file_is_foreign(fd)) return "is not an area";
    if (!wr_header_read(fd, header)) return "is cut short: its header is not whole";
    if (header->magic != WR_AREA_MAGIC) return "is not an area";
    if (header->layout != WR_AREA_LAYOUT) {
        unsigned ours = WR_AREA_LAYOUT;
        wr_text_format(fault, WEIR_WHY_MAX,
                       "has layout %u, and this program reads layout %u: use the one that came with the "
                       "engine that made it",
                       header->layout, ours);
        return fault;
    }
    if (wr_shape_check(&header->shape, fault) != WEIR_OK) return "header damaged: a shape that cannot be";
    uint64_t size = wr_area_size(&header->shape);
    return wr_header_sound(header, (uint64_t)found->st_size, &header->shape, size, fault) ? NULL : fault;
}

/* ---- the handle ------------------------------------------------------------------------------------------------ */

static bool remember(struct wr_area *area, const char *path, const struct wr_header *header,
                     const struct stat *found)
{
    area->path = wr_alloc(wr_memory_libc(), strlen(path) + 1);
    if (area->path == NULL) return false;
    memcpy(area->path, path, strlen(path) + 1);
    memcpy(area->name, header->name, sizeof area->name);
    area->name[sizeof area->name - 1] = '\0';
    area->checksum = header->checksum;
    area->device = found->st_dev;
    area->inode = found->st_ino;
    return true;
}

static int attach(struct wr_area **out, const char *path, int fd, bool writable, char *why)
{
    struct wr_header header = {0};
    struct stat found;
    char fault[WEIR_WHY_MAX];
    const char *wrong = fault_of(fd, &header, &found, fault);
    if (wrong != NULL) return refuse(why, path, wrong);
    int code = wr_area_handle_new(out, &header.shape, true, why);
    if (code != WEIR_OK) return code;
    struct wr_area *area = *out;
    area->attached = true;
    *out = NULL;
    if (!remember(area, path, &header, &found) || !wr_area_map(area, fd, writable)) {
        code = refuse(why, path, strerror(ENOMEM));
    } else if ((area->guard = wr_sigbus_guard(area->base, (size_t)area->at.size)) < 0) {
        code = refuse(why, path, "too many areas are looked at by this process");
    }
    if (code == WEIR_OK)
        *out = area;
    else
        wr_area_handle_free(area);
    return code;
}

int wr_area_attach(struct wr_area **out, const char *path, char *why)
{
    char unasked[WEIR_WHY_MAX];
    bool writable = false;
    if (why == NULL) why = unasked;
    *out = NULL;
    if (strlen(path) >= WR_AREA_PATH_MAX) return refuse(why, "", strerror(ENAMETOOLONG));
    int fd = wait_and_open(path, &writable);
    if (fd < 0)
        return refuse(why, path, errno == ENOENT ? "there is no such file" : wr_file_open_error(errno));
    int code = attach(out, path, fd, writable, why);
    (void)close(fd);
    return code;
}

/* ---- how it stands --------------------------------------------------------------------------------------------- */

bool wr_area_is_worked_on(const struct wr_area *area)
{
    for (uint32_t worker = 1; worker <= wr_slots_used(area); worker++) {
        if (wr_area_worker_alive(area, worker)) return true;
    }
    return false;
}

static enum wr_sight say(enum wr_sight sight, char *why, const struct wr_area *area, const char *what)
{
    if (why != NULL) {
        if (what[0] == '\0') why[0] = '\0';
        if (what[0] != '\0') wr_text_format(why, WEIR_WHY_MAX, "area %s %s", area->path, what);
    }
    return sight;
}

/* The header was written once: whatever it says now, it was another's hand. */
static bool is_damaged(const struct wr_area *area)
{
    const struct wr_header *header = (const struct wr_header *)(const void *)area->base;
    uint64_t magic = header->magic, checksum = header->checksum;
    return magic != WR_AREA_MAGIC || checksum != area->checksum || wr_sigbus_struck(area->guard);
}

enum wr_sight wr_area_sight(const struct wr_area *area, char *why)
{
    struct stat now;
    if (area->path == NULL) {
        if (why != NULL) why[0] = '\0';
        return WR_SIGHT_LIVE;
    }
    bool there = lstat(area->path, &now) == 0;
    int error = errno;
    bool same = there && now.st_dev == area->device && now.st_ino == area->inode;
    if (area->attached && (is_damaged(area) || (same && (uint64_t)now.st_size != area->at.size)))
        return say(WR_SIGHT_DAMAGED, why, area,
                   "was cut short or written over by somebody else: what it shows cannot be trusted");
    if (!there && (error == ENOENT || error == ENOTDIR))
        return say(WR_SIGHT_GONE, why, area, "has been removed: those who had it open go on with it");
    if (there && !same)
        return say(WR_SIGHT_REPLACED, why, area,
                   "has been replaced by another one: attach again to see that");
    if (area->attached && !wr_area_is_worked_on(area))
        return say(WR_SIGHT_DESERTED, why, area, "has no worker that lives: what it shows is what they left");
    return say(WR_SIGHT_LIVE, why, area, "");
}
