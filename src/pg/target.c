/* Parsing, defaults, refusals. */
#include "pg/target.h"

#include "base/text.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { EXTRA = 16, NAME_MAX_BYTES = 63 };

/* ---- refusals: what libpq would later put into a message, or what cannot work here ---- */

static int refuse(char *why, const char *sentence)
{
    if (why != NULL) wr_text_copy(why, WEIR_WHY_MAX, sentence);
    return WEIR_EINVAL;
}

/* In a URI an @ or / of the password that is not percent-encoded makes the rest of the password look like
 * host, port or database, and libpq would quote those in its messages. */
static bool uri_is_torn(const char *conninfo)
{
    const char *at = strstr(conninfo, "://");
    if (at == NULL || (strncmp(conninfo, "postgres:", 9) != 0 && strncmp(conninfo, "postgresql:", 11) != 0))
        return false;
    int marks = 0;
    bool in_path = false;
    for (at += 3; *at != '\0' && !(in_path && *at == '?'); at++) {
        if (*at == '/' && marks == 0 && strchr(at, '@') != NULL && strcspn(at, "@") < strcspn(at, "?"))
            return true;
        if (*at == '/') in_path = true;
        if (*at == '@' && (in_path || ++marks > 1)) return true;
    }
    return false;
}

static bool is_port_list(const char *text)
{
    return text[strspn(text, "0123456789,")] == '\0';
}

static const char *value_of(const PQconninfoOption *options, const char *keyword)
{
    for (; options->keyword != NULL; options++) {
        if (strcmp(options->keyword, keyword) == 0) return options->val;
    }
    return NULL;
}

static bool is_utf8(const char *encoding)
{
    return strcasecmp(encoding, "UTF8") == 0 || strcasecmp(encoding, "UTF-8") == 0 ||
           strcasecmp(encoding, "auto") == 0;
}

static int check_options(const PQconninfoOption *options, char *why)
{
    const char *port = value_of(options, "port"), *encoding = value_of(options, "client_encoding");
    const char *host = value_of(options, "host"), *replication = value_of(options, "replication");
    if (port != NULL && !is_port_list(port)) return refuse(why, "conninfo: port is not a number");
    if (host != NULL && host[0] != '@' && strchr(host, '@') != NULL) {
        return refuse(why, "conninfo: host holds an @; if it belongs to the password, write it as %40");
    }
    if (encoding != NULL && !is_utf8(encoding)) return refuse(why, "conninfo: client_encoding must be UTF8");
    if (replication != NULL && strcmp(replication, "false") != 0 && strcmp(replication, "0") != 0) {
        return refuse(why, "conninfo: replication connections cannot be used");
    }
    return WEIR_OK;
}

static int check_login(const struct wr_login *login, char *why)
{
    if (login->conninfo == NULL) return refuse(why, "conninfo: it must be given");
    if (login->kind == WEIR_ANON && (login->role == NULL || login->role[0] == '\0')) {
        return refuse(why, "role: an ANON client needs one");
    }
    if (login->role != NULL && strlen(login->role) > NAME_MAX_BYTES) {
        return refuse(why, "role: the name is longer than 63 bytes");
    }
    if (login->role != NULL && strcmp(login->role, "none") == 0)
        return refuse(why, "role: none is not a role");
    if (uri_is_torn(login->conninfo)) {
        return refuse(why,
                      "conninfo: the URI holds an @ or / that libpq would take for the end of the password; "
                      "write them as %40 and %2F");
    }
    return WEIR_OK;
}

/* ---- the keyword arrays ---- */

static int add(struct wr_target *target, const char *key, const char *value)
{
    char *key_copy = strdup(key), *value_copy = strdup(value);
    target->keys[target->count] = key_copy;
    target->values[target->count] = value_copy;
    target->count++; /* half of a pair is freed like a whole one */
    return key_copy == NULL || value_copy == NULL ? WEIR_ENOMEM : WEIR_OK;
}

static bool has(const struct wr_target *target, const char *key)
{
    for (size_t i = 0; i < target->count; i++) {
        if (strcmp(target->keys[i], key) == 0) return true;
    }
    return false;
}

/* Ours whatever the conninfo says, or (connect_timeout) without meaning here. */
static bool is_ours(const char *key)
{
    static const char *const ours[] = {"client_encoding", "application_name", "fallback_application_name",
                                       "connect_timeout", "replication"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (strcmp(key, ours[i]) == 0) return true;
    }
    return false;
}

static int add_given(struct wr_target *target, const PQconninfoOption *options, const struct wr_login *login)
{
    int code = WEIR_OK;
    for (; options->keyword != NULL && code == WEIR_OK; options++) {
        const char *value = options->val;
        if (strcmp(options->keyword, "user") == 0 && login->user != NULL) value = login->user;
        if (strcmp(options->keyword, "password") == 0 && login->password != NULL) value = login->password;
        if (value == NULL || is_ours(options->keyword)) continue;
        code = add(target, options->keyword, value);
    }
    return code;
}

/* libpq's own defaults give up on a silent peer after two hours. Encryption stays libpq's `prefer`: what
 * would make a second attempt with the same wrong password is stopped while connecting. GSS is left out
 * unless asked for: it adds attempts of its own, and a ticket cache is nothing a server program has by
 * accident. */
static int add_defaults(struct wr_target *target)
{
    static const char *const defaults[][2] = {
        {"keepalives", "1"},       {"keepalives_idle", "30"},     {"keepalives_interval", "5"},
        {"keepalives_count", "3"}, {"tcp_user_timeout", "10000"},
    };
    int code = WEIR_OK;
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults && code == WEIR_OK; i++) {
        if (!has(target, defaults[i][0])) code = add(target, defaults[i][0], defaults[i][1]);
    }
    if (code == WEIR_OK && !has(target, "gssencmode") && getenv("PGGSSENCMODE") == NULL) {
        code = add(target, "gssencmode", "disable");
    }
    if (code == WEIR_OK) code = add(target, "client_encoding", "UTF8");
    return code == WEIR_OK ? add(target, "application_name", target->pool) : code;
}

static void note_secrets(struct wr_target *target)
{
    size_t count = 0;
    for (size_t i = 0; i < target->count; i++) {
        bool secret = strcmp(target->keys[i], "password") == 0 || strcmp(target->keys[i], "sslpassword") == 0;
        if (secret && count < WR_SECRETS) target->secrets.list[count++] = target->values[i];
    }
}

/* ---- making and freeing ---- */

static char *copy(const char *text, int *code)
{
    if (text == NULL) return NULL;
    char *made = strdup(text);
    if (made == NULL) *code = WEIR_ENOMEM;
    return made;
}

static int fill(struct wr_target *target, const PQconninfoOption *options, const struct wr_login *login)
{
    size_t room = EXTRA;
    int code = WEIR_OK;
    for (const PQconninfoOption *at = options; at->keyword != NULL; at++) room++;
    target->kind = login->kind;
    target->pooler = login->pooler;
    target->prepared_max = login->prepared_max;
    target->pool = copy(login->pool == NULL ? "weir" : login->pool, &code);
    target->login = copy(login->user != NULL ? login->user : value_of(options, "user"), &code);
    target->role = copy(login->role, &code);
    target->keys = calloc(room, sizeof *target->keys);
    target->values = calloc(room, sizeof *target->values);
    if (target->keys == NULL || target->values == NULL) code = WEIR_ENOMEM;
    if (code == WEIR_OK) code = add_given(target, options, login);
    if (code == WEIR_OK) code = add_defaults(target);
    if (code == WEIR_OK) note_secrets(target);
    return code;
}

static void wipe(char *secret)
{
    if (secret != NULL) explicit_bzero(secret, strlen(secret));
}

static void free_options(PQconninfoOption *options)
{
    for (PQconninfoOption *at = options; at != NULL && at->keyword != NULL; at++) {
        if (at->dispchar != NULL && at->dispchar[0] == '*') wipe(at->val);
    }
    PQconninfoFree(options);
}

int wr_target_make(struct wr_target **out, const struct wr_login *login, char *why)
{
    *out = NULL;
    int code = check_login(login, why);
    if (code != WEIR_OK) return code;
    char *complaint = NULL;
    PQconninfoOption *options = PQconninfoParse(login->conninfo, &complaint);
    wipe(complaint);
    PQfreemem(complaint);
    if (options == NULL) {
        return refuse(why, "conninfo: it cannot be parsed (not repeated here, for it may hold a password)");
    }
    struct wr_target *target = NULL;
    code = check_options(options, why);
    if (code == WEIR_OK) {
        target = calloc(1, sizeof *target);
        code = target == NULL ? WEIR_ENOMEM : fill(target, options, login);
    }
    free_options(options);
    if (target != NULL) atomic_init(&target->references, 1);
    if (code != WEIR_OK) {
        wr_target_drop(target);
        target = NULL;
    }
    *out = target;
    return code;
}

struct wr_target *wr_target_keep(struct wr_target *target)
{
    atomic_fetch_add(&target->references, 1);
    return target;
}

void wr_target_drop(struct wr_target *target)
{
    if (target == NULL || atomic_fetch_sub(&target->references, 1) > 1) return;
    for (size_t i = 0; i < target->count; i++) {
        wipe(target->values[i]);
        free(target->keys[i]);
        free(target->values[i]);
    }
    free(target->keys);
    free(target->values);
    free(target->pool);
    free(target->login);
    free(target->role);
    free(target);
}
