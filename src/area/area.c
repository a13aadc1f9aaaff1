/* Making, joining and leaving an area.
 *
 * A file gets its name only when it is complete: it is made as `path.new` under an exclusive flock and then
 * renamed, over an unsound one if there is one. Whoever waits for that lock looks at `path` again before
 * making anything, so of two creators the second joins. A creator that is killed leaves `path.new`, which the
 * next one takes over. Joining needs no lock: what has the name is complete, and slots are claimed by
 * compare-and-swap.
 *
 * The header is read with pread and checked before anything is mapped. From then on the file is trusted as
 * far as its owner is: who may write it may also truncate it, and that ends everybody who has it mapped with
 * SIGBUS. A disk that fills up later does the same when a hole is first written; what is written at once has
 * its room checked. */
#include "area/layout.h"
#include "area/sigbus.h"

#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static uint64_t wall_clock_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- the handle ---- */

int wr_area_handle_new(struct wr_area **out, const struct wr_area_shape *shape, bool shared, char *why)
{
    *out = NULL;
    int code = wr_shape_check(shape, why);
    if (code != WEIR_OK) return code;
    struct wr_area *area = wr_alloc(wr_memory_libc(), sizeof *area);
    if (area == NULL) {
        wr_text_copy(why, WEIR_WHY_MAX, "area: out of memory");
        return WEIR_ENOMEM;
    }
    area->shape = *shape;
    area->shared = shared;
    area->self = wr_process_self();
    area->naps = WR_WAIT_NAPS;
    area->guard = -1;
    wr_layout_compute(&area->at, shape);
    *out = area;
    return WEIR_OK;
}

static void area_unmap(struct wr_area *area)
{
    if (area->base != NULL) (void)munmap(area->base, (size_t)area->at.size);
    area->base = NULL;
}

void wr_area_handle_free(struct wr_area *area)
{
    if (area->attached) wr_sigbus_leave(area->guard);
    area_unmap(area);
    wr_free(wr_memory_libc(), area->path);
    wr_free(wr_memory_libc(), area);
}

/* Holes cost nothing and need no reserve, so a roomy shape is free until it is used. */
bool wr_area_map(struct wr_area *area, int fd, bool writable)
{
    int access = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_NORESERVE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
    if (area->at.size > SIZE_MAX) {
        errno = ENOMEM;
        return false;
    }
    void *base = mmap(NULL, (size_t)area->at.size, access, flags, fd, 0);
    if (base == MAP_FAILED) return false;
    area->base = base;
    area->writable = writable;
    return true;
}

int wr_area_private(struct wr_area **out, const char *name, const struct wr_area_shape *shape, char *why)
{
    char unasked[WEIR_WHY_MAX];
    bool fresh;
    if (why == NULL) why = unasked;
    int code = wr_area_handle_new(out, shape, false, why);
    if (code != WEIR_OK) return code;
    struct wr_area *area = *out;
    if (!wr_area_map(area, -1, true)) {
        wr_text_format(why, WEIR_WHY_MAX, "area: no address space for %llu bytes: %s",
                       (unsigned long long)area->at.size, strerror(errno));
        wr_area_handle_free(area);
        *out = NULL;
        return WEIR_ENOMEM;
    }
    wr_text_copy(area->name, sizeof area->name, name);
    wr_header_fill((struct wr_header *)(void *)area->base, name, shape, area->at.size, wall_clock_us());
    (void)wr_slot_claim(area, &fresh); /* slot 1 of an area that nobody else sees */
    return WEIR_OK;
}

void wr_area_close(struct wr_area *area)
{
    if (area == NULL) return;
    /* A child forked with our handle must not give its parent's slot away. */
    if (area->worker != 0 && wr_process_self() == area->self) wr_slot_release(area);
    wr_area_handle_free(area);
}

bool wr_area_is_shared(const struct wr_area *area)
{
    return area->shared;
}

bool wr_area_is_at_path(const struct wr_area *area)
{
    struct stat now;
    if (area->path == NULL) return true;
    if (lstat(area->path, &now) != 0) return errno != ENOENT && errno != ENOTDIR;
    return now.st_dev == area->device && now.st_ino == area->inode;
}

uint32_t wr_area_worker(const struct wr_area *area)
{
    return area->worker;
}

const char *wr_area_path(const struct wr_area *area)
{
    return area->path;
}

const char *wr_area_name(const struct wr_area *area)
{
    return area->name;
}

uint64_t wr_area_created_us(const struct wr_area *area)
{
    return ((const struct wr_header *)(const void *)area->base)->created_us;
}

bool wr_area_is_writable(const struct wr_area *area)
{
    return area->writable;
}

uint64_t wr_area_self(const struct wr_area *area)
{
    return area->self;
}

void *wr_area_common(const struct wr_area *area)
{
    return area->shape.common_bytes == 0 ? NULL : area->base + area->at.common;
}

void *wr_area_worker_record(const struct wr_area *area, uint32_t worker)
{
    if (worker < 1 || worker > area->shape.workers || area->shape.worker_bytes == 0) return NULL;
    return wr_worker_part(area, worker) + area->at.record;
}

const struct wr_area_shape *wr_area_shape(const struct wr_area *area)
{
    return &area->shape;
}

/* ---- files ---- */

/* One wr_area_open on its way. */
struct opening {
    struct wr_area *area;
    const char *path, *name;
    bool group_read;
    const struct wr_carrier *carrier; /* NULL: what another shape holds is lost with it */
    char *replaced, *why;
    char draft[PATH_MAX];
};

enum finding { JOINED = 0, MISSING, UNSOUND, REFUSED };

static enum finding refuse(const struct opening *opening, const char *path, const char *reason)
{
    wr_text_format(opening->why, WEIR_WHY_MAX, "area %s: %s", path, reason);
    return REFUSED;
}

/* O_NONBLOCK, so that a FIFO in the file's place cannot hold us up. -1 and errno. */
int wr_file_open(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | flags, 0600);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

const char *wr_file_open_error(int error)
{
    return error == ELOOP ? "is a symbolic link" : strerror(error);
}

/* NULL if `fd` is a file that we may use, else what is wrong with it. */
static const char *kind_fault(int fd, struct stat *found)
{
    if (fstat(fd, found) != 0) return strerror(errno);
    if (!S_ISREG(found->st_mode)) return "is not a regular file";
    if (found->st_uid != geteuid()) return "belongs to another user";
    if (found->st_nlink > 1) return "has more than one name";
    return NULL;
}

static bool has_room(int fd, uint64_t bytes)
{
    struct statvfs space;
    /* A tmpfs without a limit says that it has 0 blocks. */
    if (fstatvfs(fd, &space) != 0 || space.f_blocks == 0) return true;
    uint64_t blocks = geteuid() == 0 ? space.f_bfree : space.f_bavail;
    return blocks >= bytes / (space.f_frsize > 0 ? space.f_frsize : 1);
}

/* ---- joining ---- */

bool wr_header_read(int fd, struct wr_header *header)
{
    ssize_t got;
    do {
        got = pread(fd, header, sizeof *header, 0);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof *header;
}

static enum finding claim(struct opening *opening, int fd)
{
    struct wr_area *area = opening->area;
    bool fresh;
    if (!wr_slot_claim(area, &fresh)) {
        return refuse(opening, opening->path, "every worker slot belongs to a live process");
    }
    if (!fresh || has_room(fd, wr_layout_worker_start(&area->at))) return JOINED;
    wr_slot_release(area);
    area->worker = 0;
    return refuse(opening, opening->path, "no room on the disk for another worker");
}

/* A file that does not begin as an area does was never one: it may be somebody's data under a mistyped path, so it is
 * neither replaced nor touched. An empty one has nothing to lose, nor has one of zeros: a creator's that was killed
 * before it wrote the header. */
bool wr_file_is_foreign(int fd)
{
    uint64_t magic = WR_AREA_MAGIC, found = 0;
    ssize_t got = pread(fd, &found, sizeof found, 0);
    return got < 0 || (found != 0 && memcmp(&found, &magic, (size_t)got) != 0);
}

static enum finding join_open_file(struct opening *opening, int fd)
{
    struct wr_area *area = opening->area;
    struct wr_header header = {0};
    struct stat found;
    const char *fault = kind_fault(fd, &found);
    if (fault != NULL) return refuse(opening, opening->path, fault);
    if (wr_file_is_foreign(fd))
        return refuse(opening, opening->path, "is not an area; remove it or choose another path");
    uint64_t size = (uint64_t)found.st_size;
    if (!wr_header_read(fd, &header)) size = size < sizeof header ? size : 0;
    char owner[WEIR_WHY_MAX];
    if (wr_header_is_anothers(&header, size, opening->name, owner))
        return refuse(opening, opening->path, owner);
    if (!wr_header_sound(&header, size, &area->shape, area->at.size, opening->replaced)) return UNSOUND;
    if (!wr_area_map(area, fd, true)) return refuse(opening, opening->path, strerror(errno));
    if (!wr_directories_sound(area) || !wr_labels_sound(area)) {
        wr_text_copy(opening->replaced, WEIR_WHY_MAX, "names damaged");
        area_unmap(area);
        return UNSOUND;
    }
    opening->replaced[0] = '\0';
    area->device = found.st_dev;
    area->inode = found.st_ino;
    return claim(opening, fd);
}

int wr_area_check_name(const char *path, const char *name, char *why)
{
    struct wr_header header = {0};
    struct stat found;
    char owner[WEIR_WHY_MAX];
    int code = WEIR_OK;
    int fd = wr_file_open(path, O_RDONLY);
    if (fd < 0) return WEIR_OK;
    if (kind_fault(fd, &found) == NULL && wr_header_read(fd, &header) &&
        wr_header_is_anothers(&header, (uint64_t)found.st_size, name, owner)) {
        wr_text_format(why, WEIR_WHY_MAX, "area %s: %s", path, owner);
        code = WEIR_EINVAL;
    }
    (void)close(fd);
    return code;
}

static enum finding join(struct opening *opening)
{
    int fd = wr_file_open(opening->path, O_RDWR);
    if (fd < 0 && errno == ENOENT) {
        opening->replaced[0] = '\0';
        return MISSING;
    }
    if (fd < 0) return refuse(opening, opening->path, wr_file_open_error(errno));
    enum finding finding = join_open_file(opening, fd);
    (void)close(fd);
    return finding;
}

/* ---- making ---- */

/* Past the limit ftruncate would not just fail: SIGXFSZ ends the process. */
static bool within_file_limit(uint64_t size)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur;
}

static const char *fill_draft(struct opening *opening, int fd, uint64_t created_us)
{
    struct wr_area *area = opening->area;
    mode_t mode = opening->group_read ? 0640 : 0600;
    struct wr_header header;
    if (!within_file_limit(area->at.size)) return "is larger than this process may write (RLIMIT_FSIZE)";
    if (ftruncate(fd, 0) != 0 || fchmod(fd, mode) != 0) return strerror(errno);
    if (!has_room(fd, area->at.workers + wr_layout_worker_start(&area->at))) return "no room on the disk";
    if (ftruncate(fd, (off_t)area->at.size) != 0) return strerror(errno);
    wr_header_fill(&header, opening->name, &area->shape, area->at.size,
                   created_us != 0 ? created_us : wall_clock_us());
    ssize_t put = pwrite(fd, &header, sizeof header, 0);
    if (put < 0) return strerror(errno);
    return put == (ssize_t)sizeof header ? NULL : "cut short while being written";
}

static bool still_named(const char *path, const struct stat *ours)
{
    struct stat now;
    return lstat(path, &now) == 0 && now.st_dev == ours->st_dev && now.st_ino == ours->st_ino;
}

/* The lock is on the file and not on its name: what we locked may be the area by now, or be gone. */
static bool lock(const struct opening *opening, int fd, const struct stat *found)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0 && still_named(opening->draft, found);
}

/* The draft, empty or left over, locked; -1 if refused. A stopped creator is waited for about a second. */
static int lock_draft(struct opening *opening)
{
    for (uint32_t naps = 0; naps <= opening->area->naps; naps++) {
        struct stat found;
        int fd = wr_file_open(opening->draft, O_RDWR | O_CREAT);
        const char *fault = fd < 0 ? wr_file_open_error(errno) : kind_fault(fd, &found);
        if (fault == NULL && wr_file_is_foreign(fd))
            fault = "is not an area; remove it or choose another path";
        if (fault == NULL && lock(opening, fd, &found)) return fd;
        if (fd >= 0) (void)close(fd);
        if (fault != NULL) {
            refuse(opening, opening->draft, fault);
            return -1;
        }
        wr_nap();
    }
    refuse(opening, opening->draft, "is locked by another process");
    return -1;
}

/* ---- carrying over ---- */

/* A handle for reading an area of whatever shape; NULL if that cannot be. Never has a slot. */
static struct wr_area *open_old(const char *path, uint64_t *created_us)
{
    struct wr_header header = {0};
    struct stat found;
    struct wr_area *old = NULL;
    char ignored[WEIR_WHY_MAX];
    int fd = wr_file_open(path, O_RDWR);
    if (fd < 0) return NULL;
    if (kind_fault(fd, &found) == NULL && wr_header_read(fd, &header) &&
        wr_header_is_reshaped(&header, (uint64_t)found.st_size) &&
        wr_area_handle_new(&old, &header.shape, true, ignored) == WEIR_OK && !wr_area_map(old, fd, true)) {
        wr_area_handle_free(old);
        old = NULL;
    }
    (void)close(fd);
    *created_us = header.created_us;
    if (old == NULL || (wr_directories_sound(old) && wr_labels_sound(old))) return old;
    wr_area_handle_free(old);
    return NULL;
}

/* Into the completed draft, before it gets its name. False: it stays empty, as it may not fit. */
static bool carry_over(struct opening *opening, int fd, const struct wr_area *old)
{
    struct wr_area *area = opening->area;
    if (!wr_area_map(area, fd, true)) return false;
    wr_area_carry(area, old, opening->carrier);
    area_unmap(area);
    return true;
}

static struct wr_area *find_old(const struct opening *opening, uint64_t *created_us)
{
    *created_us = 0;
    struct wr_area *old = opening->carrier == NULL ? NULL : open_old(opening->path, created_us);
    if (old != NULL && wr_area_can_carry(&opening->area->shape, old)) return old;
    if (old != NULL) wr_area_handle_free(old);
    *created_us = 0;
    return NULL;
}

/* Completes the locked draft, gives it the name and joins it. The reason for it stays in `replaced`. */
static enum finding publish(struct opening *opening, int fd)
{
    char reason[WEIR_WHY_MAX];
    uint64_t created_us;
    struct wr_area *old = find_old(opening, &created_us);
    const char *fault = fill_draft(opening, fd, created_us);
    bool carried = fault == NULL && old != NULL && carry_over(opening, fd, old);
    if (old != NULL) wr_area_handle_free(old);
    wr_text_format(reason, sizeof reason, "%s%s", opening->replaced,
                   carried ? "; what it held was carried over" : "");
    if (fault == NULL && rename(opening->draft, opening->path) != 0) fault = strerror(errno);
    if (fault != NULL) {
        (void)unlink(opening->draft);
        return refuse(opening, opening->path, fault);
    }
    enum finding finding = join_open_file(opening, fd);
    wr_text_copy(opening->replaced, WEIR_WHY_MAX, reason);
    return finding;
}

static enum finding make(struct opening *opening)
{
    int fd = lock_draft(opening);
    if (fd < 0) return REFUSED;
    enum finding finding = join(opening); /* somebody may have been faster */
    if (finding == MISSING || finding == UNSOUND) {
        finding = publish(opening, fd);
    } else {
        (void)unlink(opening->draft);
    }
    (void)close(fd);
    return finding;
}

static enum finding join_or_make(struct opening *opening)
{
    int length = snprintf(opening->draft, sizeof opening->draft, "%s.new", opening->path);
    if (length < 0 || (size_t)length >= sizeof opening->draft) {
        return refuse(opening, opening->path, strerror(ENAMETOOLONG));
    }
    enum finding finding = join(opening);
    return finding == MISSING || finding == UNSOUND ? make(opening) : finding;
}

int wr_area_open(struct wr_area **out, const char *path, const char *name, const struct wr_area_shape *shape,
                 bool group_read, char *replaced, char *why)
{
    return wr_area_open_carrying(out, path, name, shape, group_read, NULL, replaced, why);
}

int wr_area_open_carrying(struct wr_area **out, const char *path, const char *name,
                          const struct wr_area_shape *shape, bool group_read,
                          const struct wr_carrier *carrier, char *replaced, char *why)
{
    char unasked[2][WEIR_WHY_MAX];
    struct opening opening = {.path = path, .name = name, .group_read = group_read, .carrier = carrier};
    opening.replaced = replaced != NULL ? replaced : unasked[0];
    opening.why = why != NULL ? why : unasked[1];
    opening.replaced[0] = '\0';
    int code = wr_area_handle_new(out, shape, true, opening.why);
    if (code != WEIR_OK) return code;
    opening.area = *out;
    opening.area->path = wr_alloc(wr_memory_libc(), strlen(path) + 1);
    if (opening.area->path == NULL) {
        wr_text_copy(opening.why, WEIR_WHY_MAX, "area: out of memory");
        wr_area_handle_free(opening.area);
        *out = NULL;
        return WEIR_ENOMEM;
    }
    memcpy(opening.area->path, path, strlen(path) + 1);
    wr_text_copy(opening.area->name, sizeof opening.area->name, name);
    if (join_or_make(&opening) == JOINED) return WEIR_OK;
    opening.replaced[0] = '\0';
    wr_area_handle_free(opening.area);
    *out = NULL;
    return WEIR_ESYS;
}
