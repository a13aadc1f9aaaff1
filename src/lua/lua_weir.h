/* The binding's own types. Rules that hold everywhere in src/lua:
 *
 *  - No C function yields. C submits and collects; the Lua modules beside it park.
 *  - A userdata is born closed, gets its metatable, and only then acquires what it stands for.
 *  - Misuse by the caller of the public API comes back as nil and a sentence, because only the Lua face
 *    knows which line is the caller's. luaL_error is for misuse of this module by its own Lua face.
 *  - No Lua error crosses the engine: policies run under lua_pcall on a thread of their own.
 *  - A finaliser may run inside a policy, that is inside the engine. What it would free then goes to the
 *    loop's retired list and is freed when the engine has been left. */
#ifndef WL_WEIR_H
#define WL_WEIR_H

#include "compat.h"

#include "weir/area.h"
#include "weir/dist.h"
#include "weir/guard.h"
#include "weir/luahost.h"
#include "weir/weir.h"

#define WL_STRANGER                                                                                          \
    "this engine was opened outside the simulation that runs, or inside one that has ended; open it where "  \
    "it is used"
#define WL_TURN_MAX 3600.0 /* seconds that "for ever" lasts in a simulation */

enum { WL_BACKENDS_MAX = 16, WL_CLIENTS_MAX = 16, WL_CHECKS_MAX = 32, WL_PATH_MAX = 72, WL_TEXT_MAX = 32 };

/* ---- the loop (lua_loop.c): one per Lua state, shared by its engines ---------------------------------- */

struct wl_call;
struct wl_engine;
struct wl_load;

struct wl_news {                  /* of one world, which Lua has not heard of */
    struct wl_call *first, *last; /* with an answer; through call->next */
    struct wl_engine *due;        /* with checks to run; through engine->next_due */
    struct wl_listener *heard;    /* with something to take; through listener->next */
};

struct wl_loop {
    unsigned references;           /* the Lua state's one, and one per engine: finalisers come in any order */
    weir_lua_host host;            /* what the surrounding program lends */
    struct wl_engine *engines;     /* that are open; through engine->next_open */
    volatile bool wake;            /* a call ended or a check fell due: back to Lua */
    unsigned busy;                 /* depth inside engine or loop: no frees, no engine calls from policies */
    struct wl_news news;           /* of the world that runs */
    struct wl_call *retired_calls; /* through call->next */
    struct wl_engine *retired_engines; /* through engine->next */
    struct wl_load *loads;             /* that are not freed; through load->next */
    struct wl_load *retired_loads;     /* through load->next_retired */
    bool arrivals;                     /* requests wait to be taken from a load */
    struct wl_sim *sim;                /* the simulation that runs, NULL in the real world */
    void (*rearm_loads)(
        struct wl_loop *loop); /* when a load may be due earlier than before; NULL: nobody asks */
    struct wl_poll *polls;     /* descriptors waited for, by number (lua_poll.c) */
    int poll_room;
    unsigned spare_boxes; /* of calls, in the table that core.query knows */
    int polled;           /* the first that is ready and Lua has not heard of; -1: none */
};

struct wl_loop *wl_loop_of(lua_State *L);
void wl_loop_retain(struct wl_loop *loop);
void wl_loop_release(struct wl_loop *loop);
void wl_loop_open(lua_State *L, const weir_lua_host *host); /* makes the state's loop; called once */
void wl_loop_wake(struct wl_loop *loop);                    /* there is something that Lua should fetch */
void wl_loop_leave(struct wl_loop *loop); /* busy--, and at zero frees what finalisers left behind */
/* Turns until a call has an answer, a check is due, or the time is over; less than 0 is for ever. */
void wl_loop_turn(lua_State *L, struct wl_loop *loop, double seconds);
uint64_t wl_now_ns(void);                         /* the real clock */
uint64_t wl_loop_now(const struct wl_loop *loop); /* the loop's: virtual while a simulation runs */
const luaL_Reg *wl_loop_functions(void);
const luaL_Reg *wl_poll_functions(void);

/* ---- gates (lua_gate.c): waiting where the loop turns by itself ---------------------------------------- */

bool wl_has_gates(const struct wl_loop *loop); /* in the world that runs: a simulation has none */
int wl_gate_new(lua_State *L);                 /* core.gate() -> gate, with pass([seconds]) and open() */
void wl_gate_open(lua_State *L);               /* registers the metatable; called once */
/* What a lua_CFunction returns to wait at the gate, at most so many seconds; less than 0 is for ever. */
int wl_gate_pass(struct wl_loop *loop, lua_State *L, weir_lua_gate *gate, double seconds);

/* The userdata at index if it begins with `mark`; else it raises as luaL_checkudata does. */
void *wl_check_marked(lua_State *L, int index, const char *mark, size_t size, const char *type);

/* ---- pushing (lua_push.c) ------------------------------------------------------------------------------ */

int wl_refuse(lua_State *L, const char *why); /* nil and a sentence: misuse, or what cannot be; returns 2 */
/* A field of the table on top. */
void wl_set_count(lua_State *L, const char *name, uint64_t count);
void wl_set_number(lua_State *L, const char *name, double number);

/* ---- options (lua_fields.c, lua_options.c) ------------------------------------------------------------- */

enum wl_kind {
    WL_STRING,   /* const char *; no NUL inside */
    WL_BOOL,     /* bool */
    WL_SECONDS,  /* uint64_t nanoseconds, zero allowed */
    WL_DURATION, /* uint64_t nanoseconds, more than zero */
    WL_WHOLE,    /* uint32_t in least .. most */
    WL_NUMBER,   /* double in least .. most */
    WL_CHOICE,   /* int: index into choices */
    WL_NESTED    /* known, but read by other code */
};

struct wl_field {
    const char *name;
    enum wl_kind kind;
    size_t offset;
    double least, most;
    const char *const *choices; /* NULL-terminated */
};

struct wl_reader {
    lua_State *L;
    char path[WL_PATH_MAX]; /* of the table being read, "" at the top */
    char why[WEIR_WHY_MAX]; /* the first complaint, "" if none */
};

/* Fills `into` from the table at index; absent keys leave their field alone. False, with reader->why set, at
 * the first unknown key, wrong type or value out of range. Strings point into the Lua table and live as long
 * as it does. */
bool wl_read_fields(struct wl_reader *reader, int index, const struct wl_field *fields, size_t count,
                    void *into);
/* Complains about `name` in the table being read ("" for the table itself); always false. */
bool wl_complain(struct wl_reader *reader, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Steps into the nested table `name`; wl_leave_table undoes it. Afterwards the nested table is on top of the
 * stack. False if absent (nothing pushed, why empty) or no table (nothing pushed, why set). */
bool wl_enter_table(struct wl_reader *reader, int index, const char *name);
void wl_leave_table(struct wl_reader *reader);

struct wl_options { /* all that weir_open needs; strings live in the Lua table they come from */
    weir_options engine;
    weir_backend backends[WL_BACKENDS_MAX];
    weir_client clients[WL_CLIENTS_MAX];
    weir_check checks[WL_CHECKS_MAX];
    uint64_t seed;
    uint64_t policy_slice_ns;
    double area_size; /* bytes */
    int log_format;   /* 1: JSON */
    bool seeded;
    bool null; /* the Lua face's; here only for its type */
};

bool wl_options_read(struct wl_reader *reader, int index, struct wl_options *out);
bool wl_breaker_read(struct wl_reader *reader, int index, weir_breaker_config *out);
bool wl_budget_read(struct wl_reader *reader, int index, weir_budget_config *out);
struct wl_backoff {
    int kind;
    uint64_t base_ns, cap_ns;
    double factor;
    uint64_t seed;
    bool seeded;
};
bool wl_backoff_read(struct wl_reader *reader, int index, struct wl_backoff *out);

/* ---- distributions (lua_dist.c) ------------------------------------------------------------------------- */

struct wl_bins; /* the bins of histograms that were read, all in one list */

/* Reads field `name` of the table at index: a number of seconds, or a table { kind =, a =, b =, c =, edges =,
 * weights = }. Absent: true, and out stays as it was. False, with reader->why set, if it is neither or out of range.
 * Bins are added to *bins, which must outlive *out and stand where a finaliser frees it (wl_bins_free): reading on
 * may raise for lack of memory. */
bool wl_dist_read(struct wl_reader *reader, int index, const char *name, weir_dist *out,
                  struct wl_bins **bins);
void wl_bins_free(struct wl_bins *bins); /* accepts NULL */
int wl_dist_mean(lua_State *L);          /* core.dist(holder, name) -> mean | nil, why */

/* ---- simulations (lua_sim.c, lua_simserver.c; their own structure is in lua_sim.h) ---------------------- */

void wl_sim_open(lua_State *L);
int wl_sim_new(lua_State *L);
/* Runs the world for up to `seconds` or until the loop wakes. False, and a sentence, if it stands still. */
bool wl_sim_turn(struct wl_loop *loop, double seconds, const char **why);
int wl_sim_open_engine(struct wl_engine *engine, struct wl_options *options, char *why); /* accepts failure */
void wl_sim_close_engine(struct wl_engine *engine);         /* after weir_free; nothing in the real world */
void wl_sim_release_engine(struct wl_engine *engine);       /* after its last call has gone */
struct wl_news *wl_news_of(const struct wl_engine *engine); /* those of its world, which may not run */
uint64_t wl_sim_random(struct wl_loop *loop);
bool wl_sim_stranger(const struct wl_engine *engine); /* it belongs to another world than the one that runs */

/* ---- policies (lua_policy.c) --------------------------------------------------------------------------- */

struct wl_policy;

/* Takes the functions retry, route, label from the options at index and anchors them in the table at anchor,
 * which must live as long as the policy. *out is NULL if there are none. Raises only for lack of memory.
 * counted: the slice is measured in instructions, so that a simulation goes the same way every time. */
void wl_policy_open(lua_State *L, int index, int anchor, uint64_t slice_ns, bool counted,
                    struct wl_policy **out, weir_policy *hooks);
void wl_policy_free(struct wl_policy *policy);

/* ---- engines and calls (lua_engine.c, lua_call.c, lua_params.c) ---------------------------------------- */

struct wl_scratch { /* parameter arrays, reused from call to call */
    weir_statement *statements;
    size_t statement_room;
    const char **values;
    int *lengths, *formats;
    uint32_t *types;
    char (*digits)[WL_TEXT_MAX]; /* numbers as text */
    size_t room, used;
};

struct wl_engine {
    weir_engine *handle;            /* NULL once closed */
    void *loan;                     /* the host's, NULL in a simulation */
    struct weir_sim_host *sim_host; /* NULL in the real world */
    struct wl_sim *sim;
    struct wl_loop *loop;
    struct wl_policy *policy;
    struct wl_scratch scratch;
    struct wl_call *spare; /* calls to be used again; through call->next */
    unsigned spares;
    unsigned references; /* the userdata's one, and one per call */
    struct wl_engine *next, *next_due, *next_open;
    uint32_t checks_due; /* a bit per health check */
    bool listed_due;
    bool policy_news; /* the area holds a newer policy text */
    char *text;       /* for the JSON documents */
    size_t text_room;
};

struct wl_call {
    weir_call *handle; /* NULL before it is submitted and once it is freed */
    struct wl_engine *engine;
    struct wl_call *next; /* on the ready, retired or spare list */
    bool ready;           /* on the ready list */
    weir_lua_gate *gate;  /* at which its coroutine waits, where the loop turns by itself; else NULL */
};

struct wl_request { /* what all calls of one client handle have in common */
    const char *mark;
    weir_request request; /* strings live in the anchored table */
    bool null;            /* SQL NULL arrives as weir.null */
};

/* What every call passes through is told by the mark its userdata begins with: luaL_checkudata looks for the metatable by
 * name, which costs more than many a call's answer. */
struct wl_box {
    const char *mark; /* the address of its type's */
    union {
        void *held;               /* NULL while closed */
        struct wl_engine *engine; /* WL_ENGINE_TYPE */
        struct wl_call *call;     /* WL_CALL_TYPE */
    };
};

#define WL_ENGINE_TYPE  "weir.engine"
#define WL_CALL_TYPE    "weir.call"
#define WL_REQUEST_TYPE "weir.request"

void wl_engine_open(lua_State *L); /* registers the metatables; called once by luaopen */
void wl_call_open(lua_State *L);
void wl_listen_open(lua_State *L);
int wl_listen_new(lua_State *L);   /* engine:listen(client, backend, channels, most) */
int wl_listen_heard(lua_State *L); /* core.heard() -> the key of a listener that has news, or nil */
int wl_engine_new(lua_State *L);   /* (options) -> engine | nil, why | nil, nil, failure */
int wl_engine_check(lua_State *L);
int wl_engine_reopen_logs(lua_State *L);
void wl_engine_release(struct wl_engine *engine);
void wl_engines_shut(struct wl_loop *loop);    /* closes all that are open */
void wl_engine_drop(struct wl_engine *engine); /* closes, then releases; the loop's, for retired ones */
/* The open engine at index, ready to be called: raises in a policy, returns NULL if closed. */
struct wl_engine *wl_engine_enterable(lua_State *L, int index);
/* The open engine at 1, only to look at it or to close it, which may be done from another world too; NULL if closed. */
struct wl_engine *wl_engine_lookable(lua_State *L);
/* lua_policytext.c */
void wl_policytext_told(void *engine, uint64_t generation);
int wl_policytext_publish(lua_State *L);
int wl_policytext_read(lua_State *L);
int wl_policytext_applied(lua_State *L);
int wl_policytext_news(lua_State *L);
void wl_call_drop(struct wl_call *call);
int wl_call_request(lua_State *L); /* engine:request(spec) */
/* The two functions share one upvalue, the table of boxes to be used again.
 * query(engine, request, seconds, context, sql, ...): one call, waited for here up to `seconds` (0: not at all)
 * unless something else wants Lua's attention -> result | nil, failure | nil, why | nil, nil, call, key if it
 * has no answer yet.
 * collect(call, nulls) -> result | nil, failure; the caller has no other use for the call, and nobody else knows it. */
int wl_call_query(lua_State *L);
int wl_call_collect(lua_State *L);
int wl_call_submit_many(lua_State *L); /* engine:submit_many(request, context, list) */
int wl_call_begin(lua_State *L);       /* engine:begin(request, context) */

/* What GET `path` gives (lua_web.c) -> status, type, body | nothing if there is no such document. */
int wl_push_page(lua_State *L, weir_area *area, const char *path, const char *accept);

/* Areas (lua_area.c). */
void wl_area_open(lua_State *L);     /* registers the metatable; called once */
int wl_area_attach(lua_State *L);    /* core.attach(path) -> area | nil, why */
int wl_area_of_engine(lua_State *L); /* engine:area() -> area | nil, why */

/* Fills the scratch from the SQL at `first` and the parameters after it up to `last`, or from a list of such
 * statements at `index`. The pointers live as long as the stack and the list do. NULL or a sentence in why.
 */
const weir_statement *wl_params_one(lua_State *L, struct wl_scratch *scratch, int first, int last, char *why);
const weir_statement *wl_params_many(lua_State *L, struct wl_scratch *scratch, int index, size_t *count,
                                     char *why);
void wl_scratch_free(struct wl_scratch *scratch);

/* ---- values (lua_result.c, lua_types.c, lua_array.c) --------------------------------------------------- */

struct wl_decoder { /* set up by wl_decoder_begin */
    int null, json; /* stack indices: weir.null, the JSON decoder */
    bool nulls;     /* SQL NULL as weir.null instead of absent */
    int native; /* stack index of { [oid] = true }: only these types are decoded, all others stay text; 0: all that are known */
};

/* Pushes what the decoder needs; the caller restores the stack. */
void wl_decoder_begin(lua_State *L, struct wl_decoder *decoder, bool nulls);
void wl_push_null(lua_State *L, const struct wl_decoder *decoder);
void wl_push_json_reader(lua_State *L, const struct wl_decoder *decoder);
void wl_push_result(lua_State *L, const struct wl_decoder *decoder, const weir_result *result);
void wl_push_particulars(lua_State *L, const weir_result *result); /* columns and notices */
void wl_push_value(lua_State *L, const struct wl_decoder *decoder, uint32_t type, const char *text,
                   size_t length);
void wl_push_array(lua_State *L, const struct wl_decoder *decoder, uint32_t element, const char *text,
                   size_t length);
/* The type by which values of `type` are read: itself, or that of text. Found once, it makes wl_push_value quick. */
uint32_t wl_value_type(uint32_t type);
uint32_t wl_array_element(uint32_t type); /* the elements' type, 0 if `type` is no array known here */
void wl_push_error(lua_State *L, const weir_error *error);
int wl_values_setup(
    lua_State *L); /* core.setup(null, decode, parameter metatable, row makers by names, maker) */
bool wl_is_parameter(lua_State *L, int index); /* a table made by weir.json, weir.array or weir.bytea */
bool wl_is_null(lua_State *L, int index);      /* weir.null itself */
int wl_values_decode(lua_State *L);            /* core.decode(oid, text), for tests */

/* ---- loads (lua_load.c, lua_tally.c, lua_loadoptions.c; their structure is in lua_load.h) --------------- */

void wl_load_open(lua_State *L);
int wl_load_new(lua_State *L);    /* core.load(engine, tally, options) */
int wl_tally_new(lua_State *L);   /* core.tally(options) */
int wl_numbers_new(lua_State *L); /* core.numbers() */
/* Turns the loads of the world that runs, and when that is next to be done (UINT64_MAX: never by itself). */
void wl_loads_run(struct wl_loop *loop);
uint64_t wl_loads_due(const struct wl_loop *loop);
void wl_loads_free_of(struct wl_engine *engine); /* before weir_free; the loop is busy */
void wl_load_drop(struct wl_load *load);
struct wl_load *wl_load_unretire(struct wl_loop *loop); /* the first one, off its list */

/* ---- guards alone (lua_breaker.c, lua_guard.c) --------------------------------------------------------- */

void wl_breaker_open(lua_State *L);
void wl_guard_open(lua_State *L);
int wl_breaker_new(lua_State *L);
int wl_backoff_new(lua_State *L);
int wl_budget_new(lua_State *L);
int wl_limit_new(lua_State *L);
int wl_rate_new(lua_State *L);
uint64_t wl_seed(lua_State *L); /* drawn from the simulation in one, else from the kernel */
/* The caller's clock in seconds at index as nanoseconds, or the loop's clock if there is none. */
uint64_t wl_guard_now(lua_State *L, int index);
/* A guard's memory inside a userdata of `size` + 63 bytes, on a cache line of its own. */
void *wl_aligned(void *memory);

#endif
