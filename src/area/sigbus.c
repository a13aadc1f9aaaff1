/* The handler runs wherever a page is missing, so it looks at atomics alone and makes one system call. */
#include "area/sigbus.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARDS = 64 };

struct guard {
    _Atomic uintptr_t base; /* 0: free */
    _Atomic size_t size;
    _Atomic bool struck;
};

static struct guard guards[GUARDS];
static unsigned guarded;
static struct sigaction before; /* ours came after it */
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;

static struct guard *guard_of(uintptr_t address)
{
    for (int i = 0; i < GUARDS; i++) {
        uintptr_t base = atomic_load(&guards[i].base);
        if (base != 0 && address - base < atomic_load(&guards[i].size)) return &guards[i];
    }
    return NULL;
}

static bool fill_page(uintptr_t address)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *from = (void *)(address / page * page);
    return mmap(from, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == from;
}

/* Without a handler of its own a program dies of this signal; so it does, as soon as we return. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    if ((before.sa_flags & SA_SIGINFO) != 0) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        struct sigaction deadly = {.sa_handler = SIG_DFL};
        (void)sigaction(number, &deadly, NULL);
        if (info->si_code <= 0) (void)raise(number); /* sent by somebody: nothing repeats it */
    }
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
    int error = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    struct guard *guard = info->si_code == BUS_ADRERR ? guard_of(address) : NULL;
    if (guard != NULL && fill_page(address)) {
        atomic_store(&guard->struck, true);
    } else {
        pass_on(number, info, context);
    }
    errno = error;
}

static void install(void)
{
    struct sigaction ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigemptyset(&ours.sa_mask);
    (void)sigaction(SIGBUS, &ours, &before);
}

/* Somebody who came after us keeps his handler, and with it ours. */
static void remove_ours(void)
{
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) != 0 &&
        now.sa_sigaction == on_sigbus)
        (void)sigaction(SIGBUS, &before, NULL);
}

static int take_place(uintptr_t base, size_t size)
{
    for (int i = 0; i < GUARDS; i++) {
        if (atomic_load(&guards[i].base) != 0) continue;
        atomic_store(&guards[i].struck, false);
        atomic_store(&guards[i].size, size);
        atomic_store(&guards[i].base, base);
        return i;
    }
    return -1;
}

int wr_sigbus_guard(void *base, size_t size)
{
    (void)pthread_mutex_lock(&changing);
    int guard = take_place((uintptr_t)base, size);
    if (guard >= 0 && guarded++ == 0) install();
    (void)pthread_mutex_unlock(&changing);
    return guard;
}

void wr_sigbus_leave(int guard)
{
    if (guard < 0) return;
    (void)pthread_mutex_lock(&changing);
    atomic_store(&guards[guard].base, 0);
    if (--guarded == 0) remove_ours();
    (void)pthread_mutex_unlock(&changing);
}

bool wr_sigbus_struck(int guard)
{
    return guard >= 0 && atomic_load(&guards[guard].struck);
}
