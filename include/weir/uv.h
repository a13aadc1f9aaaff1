/* weir/uv.h: an engine on a libuv loop. */
#ifndef WEIR_UV_H
#define WEIR_UV_H

#include "weir/weir.h"

#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s;

typedef struct weir_uv weir_uv;

/* Lends `loop` (run by the caller, in this thread) to the engine opened with weir_uv_hooks. The handles made here are
 * unreferenced: they do not keep uv_run alive; use weir_uv_run_until or hold a handle of your own.
 * loop NULL: a loop of its own, which ends with it; others may be made on it meanwhile (weir_uv_loop) and must be freed
 * first. WEIR_OK, WEIR_ENOMEM, or WEIR_ESYS (no descriptor left). */
int weir_uv_new(weir_uv **out, struct uv_loop_s *loop, uint64_t seed);
struct uv_loop_s *weir_uv_loop(const weir_uv *uv);

/* The host to open ONE engine with; then bind the engine so that readiness reaches it. */
const weir_host *weir_uv_hooks(weir_uv *uv);
void weir_uv_bind(weir_uv *uv, weir_engine *engine);

/* Calls `ready` in a turn of the loop whenever `fd` is readable or writable, as asked for by events (WEIR_READ,
 * WEIR_WRITE), until events is 0: which forgets it, and must come before the descriptor is closed. Anew with the same fd:
 * replaces what was asked for. An error on the descriptor is reported as all that was asked for; reading or writing
 * tells which. Inside `ready` all functions here may be called except weir_uv_run_until and weir_uv_free.
 * For descriptors of the caller's own, in the thread that turns the loop; needs no engine.
 * WEIR_OK; WEIR_EINVAL: bad arguments, or the engine itself watches this descriptor; WEIR_ESYS: what epoll cannot watch
 * (a closed number, a regular file), or what something else on the same loop watches already; WEIR_ENOMEM. */
typedef void (*weir_uv_ready)(void *ctx, int fd, unsigned events);
int weir_uv_watch(weir_uv *uv, int fd, unsigned events, weir_uv_ready ready, void *ctx);

/* Turns the loop until *flag is true (checked after every turn) or timeout_ns passed (0: no limit). True if *flag. */
bool weir_uv_run_until(weir_uv *uv, const volatile bool *flag, uint64_t timeout_ns);

/* After weir_free of the engine: closes the handles and turns the loop until they are closed. Accepts NULL. */
void weir_uv_free(weir_uv *uv);

#ifdef __cplusplus
}
#endif
#endif
