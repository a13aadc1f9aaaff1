/* For each server two queues and two kinds of threads; one bell. The lock guards the lists, `stopping`, and
 * each errand's owner while a connector works on it; nothing blocking is done while it is held. */
#include "pg/crew.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "weir/guard.h"

enum { PATIENCE_AT_STOP_S = 2 };

struct hand { /* one thread */
    struct wr_crew *crew;
    struct wr_site *site;
    pthread_t thread;
    int poke_fd;              /* connectors: look up from poll() */
    struct wr_errand *errand; /* connectors: what it works on */
    bool made, gone;
};

/* A server and the threads that may hang on it. It stays until the crew goes. Only the loop's thread and the
 * last one out touch the list of sites. */
struct wr_site {
    struct wr_list place;
    char *address;
    struct wr_list waiting;   /* errands */
    struct wr_list to_cancel; /* cancels */
    pthread_cond_t work, cancel_work;
    struct hand connectors[WR_CREW_MOST], canceller;
    unsigned made, busy;
};

struct wr_crew {
    pthread_mutex_t lock;
    pthread_cond_t leaving;
    struct wr_list sites;
    struct wr_list arrived, cancelled; /* errands, cancels */
    unsigned limit;                    /* connectors per site */
    int bell_fd;
    bool stopping, orphaned; /* orphaned: the last thread out frees it all */
};

static struct wr_site *site_at(const struct wr_crew *crew, struct wr_list *place)
{
    return place == &crew->sites ? NULL : WR_CONTAINER(place, struct wr_site, place);
}

#define FOR_SITES(site, crew)                                                                                \
    for (struct wr_site *site = site_at(crew, (crew)->sites.next); site != NULL;                             \
         site = site_at(crew, site->place.next))

static void ring(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

void wr_crew_ring(struct wr_crew *crew)
{
    ring(crew->bell_fd);
}

/* ---- connectors ---- */

static bool called_off(void *arg)
{
    struct hand *hand = arg;
    pthread_mutex_lock(&hand->crew->lock);
    bool off = hand->crew->stopping || hand->errand->owner == NULL;
    pthread_mutex_unlock(&hand->crew->lock);
    return off;
}

/* The next errand, or NULL when the crew is to leave. */
static struct wr_errand *take_errand(struct hand *hand)
{
    struct wr_crew *crew = hand->crew;
    struct wr_site *site = hand->site;
    pthread_mutex_lock(&crew->lock);
    while (!crew->stopping && wr_list_empty(&site->waiting)) pthread_cond_wait(&site->work, &crew->lock);
    struct wr_errand *errand = NULL;
    if (!crew->stopping) {
        errand = WR_CONTAINER(wr_list_first(&site->waiting), struct wr_errand, place);
        wr_list_remove(&errand->place);
        site->busy++;
    }
    hand->errand = errand;
    pthread_mutex_unlock(&crew->lock);
    return errand;
}

static void deliver_errand(struct hand *hand, struct wr_errand *errand)
{
    struct wr_crew *crew = hand->crew;
    pthread_mutex_lock(&crew->lock);
    hand->errand = NULL;
    hand->site->busy--;
    wr_list_append(&crew->arrived, &errand->place);
    ring(crew->bell_fd);
    pthread_mutex_unlock(&crew->lock);
}

static void dismantle(struct wr_crew *crew);
static bool all_gone(const struct wr_crew *crew);

static void leave(struct hand *hand)
{
    struct wr_crew *crew = hand->crew;
    pthread_mutex_lock(&crew->lock);
    hand->gone = true;
    bool last = crew->orphaned && all_gone(crew);
    pthread_cond_broadcast(&crew->leaving);
    pthread_mutex_unlock(&crew->lock);
    if (last) dismantle(crew);
}

static void *connector(void *arg)
{
    struct hand *hand = arg;
    for (struct wr_errand *errand; (errand = take_errand(hand)) != NULL;) {
        struct wr_patience patience = {.poke_fd = hand->poke_fd, .called_off = called_off, .arg = hand};
        wr_handshake(&errand->arrival, errand->target, errand->timeout_ns, &patience);
        deliver_errand(hand, errand);
    }
    leave(hand);
    return NULL;
}

/* ---- cancellers ---- */

static struct wr_cancel *soonest(const struct wr_site *site)
{
    struct wr_cancel *first = NULL;
    for (struct wr_list *at = site->to_cancel.next; at != &site->to_cancel; at = at->next) {
        struct wr_cancel *cancel = WR_CONTAINER(at, struct wr_cancel, place);
        if (first == NULL || cancel->due_ns < first->due_ns) first = cancel;
    }
    return first;
}

/* With the lock held. What was asked for before the end is still done, and at the end without delay. */
static struct wr_cancel *wait_for_cancel(struct wr_crew *crew, struct wr_site *site)
{
    for (;;) {
        struct wr_cancel *cancel = soonest(site);
        if (cancel == NULL && crew->stopping) return NULL;
        if (cancel == NULL) {
            pthread_cond_wait(&site->cancel_work, &crew->lock);
        } else if (crew->stopping || cancel->due_ns <= wr_monotonic_ns()) {
            return cancel;
        } else {
            struct timespec due = {.tv_sec = (time_t)(cancel->due_ns / 1000000000u),
                                   .tv_nsec = (long)(cancel->due_ns % 1000000000u)};
            pthread_cond_timedwait(&site->cancel_work, &crew->lock, &due);
        }
    }
}

static struct wr_cancel *take_cancel(struct wr_crew *crew, struct wr_site *site)
{
    pthread_mutex_lock(&crew->lock);
    struct wr_cancel *cancel = wait_for_cancel(crew, site);
    if (cancel != NULL) {
        wr_list_remove(&cancel->place);
        cancel->state = WR_CANCEL_RUNNING;
    }
    pthread_mutex_unlock(&crew->lock);
    return cancel;
}

/* Whether the request could be made does not matter here: when PQcancel is back, nothing can hit the link
 * late. Against a frozen server it does not come back, and what else is to be cancelled there waits
 * behind. */
static void *canceller(void *arg)
{
    struct hand *hand = arg;
    struct wr_crew *crew = hand->crew;
    for (struct wr_cancel *cancel; (cancel = take_cancel(crew, hand->site)) != NULL;) {
        char ignored[256];
        PQcancel(cancel->handle, ignored, sizeof ignored);
        pthread_mutex_lock(&crew->lock);
        cancel->state = WR_CANCEL_DONE;
        wr_list_append(&crew->cancelled, &cancel->place);
        ring(crew->bell_fd);
        pthread_mutex_unlock(&crew->lock);
    }
    leave(hand);
    return NULL;
}

/* ---- making threads ---- */

static int start_hand(struct wr_crew *crew, struct wr_site *site, struct hand *hand, void *(*body)(void *))
{
    sigset_t all, before;
    hand->crew = crew;
    hand->site = site;
    hand->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (hand->poke_fd < 0) return WEIR_ESYS;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    hand->made = pthread_create(&hand->thread, NULL, body, hand) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (hand->made) return WEIR_OK;
    close(hand->poke_fd);
    return WEIR_ESYS;
}

/* One more connector if all of the site's are busy and more are allowed. With at least one at work a failure
 * does no harm. */
static int enough_connectors(struct wr_crew *crew, struct wr_site *site)
{
    unsigned waiting = 1;
    pthread_mutex_lock(&crew->lock);
    for (struct wr_list *at = site->waiting.next; at != &site->waiting; at = at->next) waiting++;
    bool enough = site->made == crew->limit || site->made - site->busy >= waiting;
    pthread_mutex_unlock(&crew->lock);
    if (enough) return WEIR_OK;
    if (start_hand(crew, site, &site->connectors[site->made], connector) != WEIR_OK) {
        return site->made > 0 ? WEIR_OK : WEIR_ESYS;
    }
    site->made++;
    return WEIR_OK;
}

static void init_monotonic(pthread_cond_t *cond)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

int wr_crew_make(struct wr_crew **out, unsigned connectors)
{
    *out = NULL;
    struct wr_crew *crew = calloc(1, sizeof *crew);
    if (crew == NULL) return WEIR_ENOMEM;
    crew->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (crew->bell_fd < 0) {
        free(crew);
        return WEIR_ESYS;
    }
    pthread_mutex_init(&crew->lock, NULL);
    init_monotonic(&crew->leaving);
    wr_list_init(&crew->sites);
    wr_list_init(&crew->arrived);
    wr_list_init(&crew->cancelled);
    crew->limit = connectors < 1 ? 1 : connectors > WR_CREW_MOST ? WR_CREW_MOST : connectors;
    *out = crew;
    return WEIR_OK;
}

int wr_crew_fd(const struct wr_crew *crew)
{
    return crew->bell_fd;
}

/* ---- sites ---- */

static const char *setting(const struct wr_target *target, const char *key)
{
    for (size_t i = 0; i < target->count; i++) {
        if (strcmp(target->keys[i], key) == 0) return target->values[i];
    }
    return "";
}

/* What tells one server from another; the conninfo alone, for names are resolved by the connectors. Behind a
 * pooler each database is a server of its own, which can be mute alone. */
static char *address_of(const struct wr_target *target)
{
    const char *parts[] = {setting(target, "host"), setting(target, "hostaddr"), setting(target, "port"),
                           setting(target, "service"), target->pooler ? setting(target, "dbname") : ""};
    enum { PARTS = sizeof parts / sizeof *parts };
    size_t length = 1;
    for (size_t i = 0; i < PARTS; i++) length += strlen(parts[i]) + 1;
    char *address = malloc(length), *end = address;
    for (size_t i = 0; i < PARTS && address != NULL; i++) {
        end = stpcpy(end, parts[i]);
        *end++ = '\n';
    }
    if (address != NULL) *end = '\0';
    return address;
}

static struct wr_site *find_site(struct wr_crew *crew, const struct wr_target *target)
{
    char *address = address_of(target);
    if (address == NULL) return NULL;
    FOR_SITES(known, crew)
    {
        if (strcmp(known->address, address) != 0) continue;
        free(address);
        return known;
    }
    struct wr_site *site = calloc(1, sizeof *site);
    if (site == NULL) {
        free(address);
        return NULL;
    }
    site->address = address;
    wr_list_init(&site->waiting);
    wr_list_init(&site->to_cancel);
    pthread_cond_init(&site->work, NULL);
    init_monotonic(&site->cancel_work);
    wr_list_append(&crew->sites, &site->place);
    return site;
}

/* ---- connects ---- */

int wr_crew_connect(struct wr_crew *crew, struct wr_target *target, uint64_t timeout_ns, void *owner)
{
    struct wr_site *site = find_site(crew, target);
    struct wr_errand *errand = site == NULL ? NULL : calloc(1, sizeof *errand);
    if (errand == NULL) return WEIR_ENOMEM;
    errand->site = site;
    errand->target = wr_target_keep(target);
    errand->timeout_ns = timeout_ns;
    errand->owner = owner;
    wr_list_init(&errand->place);
    int code = enough_connectors(crew, site);
    if (code != WEIR_OK) {
        wr_errand_free(errand);
        return code;
    }
    pthread_mutex_lock(&crew->lock);
    wr_list_append(&site->waiting, &errand->place);
    pthread_cond_signal(&site->work);
    pthread_mutex_unlock(&crew->lock);
    return WEIR_OK;
}

static struct wr_errand *find_owner(struct wr_list *list, const void *owner)
{
    for (struct wr_list *at = list->next; at != list; at = at->next) {
        struct wr_errand *errand = WR_CONTAINER(at, struct wr_errand, place);
        if (errand->owner == owner) return errand;
    }
    return NULL;
}

/* One under way is told to stop and comes back through the bell like any other, to be thrown away there. */
static void call_off(struct wr_site *site, const void *owner)
{
    for (unsigned i = 0; i < site->made; i++) {
        struct hand *hand = &site->connectors[i];
        if (hand->errand == NULL || hand->errand->owner != owner) continue;
        hand->errand->owner = NULL;
        ring(hand->poke_fd);
    }
}

void wr_crew_forget(struct wr_crew *crew, void *owner)
{
    pthread_mutex_lock(&crew->lock);
    struct wr_errand *errand = find_owner(&crew->arrived, owner);
    FOR_SITES(site, crew)
    {
        if (errand == NULL) errand = find_owner(&site->waiting, owner);
        if (errand == NULL) call_off(site, owner);
    }
    if (errand != NULL) wr_list_remove(&errand->place);
    pthread_mutex_unlock(&crew->lock);
    wr_errand_free(errand);
}

/* ---- cancels ---- */

int wr_crew_cancel(struct wr_crew *crew, struct wr_cancel *cancel, uint64_t delay_ns)
{
    struct wr_site *site = cancel->site;
    if (!site->canceller.made && start_hand(crew, site, &site->canceller, canceller) != WEIR_OK)
        return WEIR_ESYS;
    pthread_mutex_lock(&crew->lock);
    cancel->state = WR_CANCEL_QUEUED;
    cancel->due_ns = wr_monotonic_ns() + delay_ns;
    wr_list_append(&site->to_cancel, &cancel->place);
    pthread_cond_signal(&site->cancel_work);
    pthread_mutex_unlock(&crew->lock);
    return WEIR_OK;
}

bool wr_crew_withdraw(struct wr_crew *crew, struct wr_cancel *cancel)
{
    pthread_mutex_lock(&crew->lock);
    bool waiting = cancel->state == WR_CANCEL_QUEUED;
    if (waiting) {
        wr_list_remove(&cancel->place);
        cancel->state = WR_CANCEL_IDLE;
    }
    pthread_mutex_unlock(&crew->lock);
    return waiting;
}

static void free_cancel(struct wr_cancel *cancel)
{
    PQfreeCancel(cancel->handle);
    free(cancel);
}

/* A cancel that still waits its turn is sent all the same: the statement would else run on, holding its
 * locks. */
void wr_crew_abandon(struct wr_crew *crew, struct wr_cancel *cancel)
{
    pthread_mutex_lock(&crew->lock);
    cancel->link = NULL;
    bool idle = cancel->state == WR_CANCEL_IDLE;
    pthread_mutex_unlock(&crew->lock);
    if (idle) free_cancel(cancel);
}

/* ---- what is done ---- */

void wr_crew_heard(struct wr_crew *crew)
{
    uint64_t count;
    while (read(crew->bell_fd, &count, sizeof count) < 0 && errno == EINTR) continue;
}

static struct wr_list *take_first(struct wr_crew *crew, struct wr_list *list)
{
    pthread_mutex_lock(&crew->lock);
    struct wr_list *first = wr_list_first(list);
    if (first != NULL) wr_list_remove(first);
    pthread_mutex_unlock(&crew->lock);
    return first;
}

struct wr_errand *wr_crew_next_arrival(struct wr_crew *crew)
{
    for (struct wr_list *first; (first = take_first(crew, &crew->arrived)) != NULL;) {
        struct wr_errand *errand = WR_CONTAINER(first, struct wr_errand, place);
        if (errand->owner != NULL) return errand;
        wr_errand_free(errand);
    }
    return NULL;
}

struct wr_cancel *wr_crew_next_cancelled(struct wr_crew *crew)
{
    for (struct wr_list *first; (first = take_first(crew, &crew->cancelled)) != NULL;) {
        struct wr_cancel *cancel = WR_CONTAINER(first, struct wr_cancel, place);
        cancel->state = WR_CANCEL_IDLE;
        if (cancel->link != NULL) return cancel;
        free_cancel(cancel);
    }
    return NULL;
}

void wr_errand_free(struct wr_errand *errand)
{
    if (errand == NULL) return;
    wr_arrival_discard(&errand->arrival);
    wr_target_drop(errand->target);
    free(errand);
}

/* ---- stopping ---- */

static bool all_gone(const struct wr_crew *crew)
{
    bool gone = true;
    FOR_SITES(site, crew)
    {
        gone = gone && (!site->canceller.made || site->canceller.gone);
        for (unsigned i = 0; i < site->made; i++) gone = gone && site->connectors[i].gone;
    }
    return gone;
}

static void call_home(struct wr_site *site)
{
    pthread_cond_broadcast(&site->work);
    pthread_cond_broadcast(&site->cancel_work);
    for (unsigned i = 0; i < site->made; i++) ring(site->connectors[i].poke_fd);
}

/* Waits for the site's threads to be over, or leaves them to themselves. */
static void take_leave(struct wr_site *site, int (*how)(pthread_t thread))
{
    for (unsigned i = 0; i < site->made; i++) how(site->connectors[i].thread);
    if (site->canceller.made) how(site->canceller.thread);
}

static int join(pthread_t thread)
{
    return pthread_join(thread, NULL);
}

/* False if some thread is still not back after all patience: it is stuck where nothing can call it off, and
 * takes the crew along when it ends. */
static bool send_home(struct wr_crew *crew)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += PATIENCE_AT_STOP_S;
    pthread_mutex_lock(&crew->lock);
    crew->stopping = true;
    FOR_SITES(site, crew) call_home(site);
    while (!all_gone(crew)) {
        if (pthread_cond_timedwait(&crew->leaving, &crew->lock, &until) == ETIMEDOUT) break;
    }
    bool gone = all_gone(crew);
    crew->orphaned = !gone;
    if (!gone) {
        FOR_SITES(site, crew) take_leave(site, pthread_detach);
    }
    pthread_mutex_unlock(&crew->lock);
    return gone;
}

static void free_site(struct wr_crew *crew, struct wr_site *site)
{
    for (struct wr_list *first; (first = take_first(crew, &site->waiting)) != NULL;) {
        wr_errand_free(WR_CONTAINER(first, struct wr_errand, place));
    }
    for (unsigned i = 0; i < site->made; i++) close(site->connectors[i].poke_fd);
    if (site->canceller.made) close(site->canceller.poke_fd);
    pthread_cond_destroy(&site->work);
    pthread_cond_destroy(&site->cancel_work);
    wr_list_remove(&site->place);
    free(site->address);
    free(site);
}

static void throw_away(struct wr_crew *crew)
{
    for (struct wr_site *site; (site = site_at(crew, crew->sites.next)) != NULL;) free_site(crew, site);
    for (struct wr_list *first; (first = take_first(crew, &crew->arrived)) != NULL;) {
        wr_errand_free(WR_CONTAINER(first, struct wr_errand, place));
    }
    for (struct wr_list *first; (first = take_first(crew, &crew->cancelled)) != NULL;) {
        free_cancel(WR_CONTAINER(first, struct wr_cancel, place));
    }
}

/* No thread but the caller's is left. */
static void dismantle(struct wr_crew *crew)
{
    throw_away(crew);
    pthread_mutex_destroy(&crew->lock);
    pthread_cond_destroy(&crew->leaving);
    close(crew->bell_fd);
    free(crew);
}

void wr_crew_free(struct wr_crew *crew)
{
    if (crew == NULL || !send_home(crew)) return;
    FOR_SITES(site, crew) take_leave(site, join);
    dismantle(crew);
}
