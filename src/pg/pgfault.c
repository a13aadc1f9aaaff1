/* Messages are rewritten from their source text, never patched in place: a secret cut in two by the end of a
 * buffer would be a secret half told. */
#include "pg/pgfault.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

enum {
    DRAFT = 2048,  /* of a message before it is cut to the fault's size */
    SECRET_MIN = 3 /* replacing every "a" of a text tells more than it hides */
};

/* ---- one line, no secrets ---- */

static size_t secret_at(const char *text, const struct wr_secrets *secrets)
{
    size_t longest = 0;
    for (int i = 0; i < WR_SECRETS; i++) {
        const char *secret = secrets->list[i];
        size_t length = secret == NULL ? 0 : strlen(secret);
        if (length >= SECRET_MIN && length > longest && strncmp(text, secret, length) == 0) longest = length;
    }
    return longest;
}

static bool is_blank(char c)
{
    return c == '\n' || c == '\r' || c == '\t' || c == ' ';
}

void wr_redact(char *to, size_t size, const char *from, const struct wr_secrets *secrets)
{
    char draft[DRAFT];
    size_t length = 0;
    while (*from != '\0' && length + 4 < sizeof draft) {
        size_t hidden = secret_at(from, secrets);
        if (hidden > 0) {
            memcpy(draft + length, "***", 3);
            length += 3;
            from += hidden;
        } else if (*from == '\n' || *from == '\r' || *from == '\t') {
            while (is_blank(*from) && secret_at(from, secrets) == 0) from++;
            if (*from != '\0') draft[length++] = ' ';
        } else {
            draft[length++] = *from++;
        }
    }
    draft[length] = '\0';
    wr_text_copy(to, size, draft);
}

void wr_pgfault_say(struct wr_fault *fault, const char *format, ...)
{
    char text[sizeof fault->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    *fault = (struct wr_fault){.position = 0};
    wr_text_copy(fault->message, sizeof fault->message, text);
}

/* ---- results ---- */

static const char *field(const PGresult *result, int code)
{
    const char *text = PQresultErrorField(result, code);
    return text == NULL ? "" : text;
}

void wr_pgfault_from_result(struct wr_fault *fault, const PGresult *result, const struct wr_secrets *secrets)
{
    const char *primary = field(result, PG_DIAG_MESSAGE_PRIMARY);
    wr_text_copy(fault->sqlstate, sizeof fault->sqlstate, field(result, PG_DIAG_SQLSTATE));
    const char *severity = field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    if (*severity == '\0') severity = field(result, PG_DIAG_SEVERITY); /* all that PgBouncer sends */
    wr_text_copy(fault->severity, sizeof fault->severity, severity);
    wr_redact(fault->message, sizeof fault->message,
              *primary != '\0' ? primary : PQresultErrorMessage(result), secrets);
    wr_redact(fault->detail, sizeof fault->detail, field(result, PG_DIAG_MESSAGE_DETAIL), secrets);
    wr_redact(fault->hint, sizeof fault->hint, field(result, PG_DIAG_MESSAGE_HINT), secrets);
    fault->position = (uint32_t)strtoul(field(result, PG_DIAG_STATEMENT_POSITION), NULL, 10);
    fault->lost = fault->sqlstate[0] == '\0' || strcmp(fault->severity, "FATAL") == 0 ||
                  strcmp(fault->severity, "PANIC") == 0;
    fault->identity = fault->unreachable = fault->ours = false;
    if (fault->message[0] == '\0')
        wr_text_copy(fault->message, sizeof fault->message, "the connection was lost");
}

void wr_pgfault_from_conn(struct wr_fault *fault, const PGconn *conn, const struct wr_secrets *secrets)
{
    const char *message = PQerrorMessage(conn);
    *fault = (struct wr_fault){.lost = true};
    wr_redact(fault->message, sizeof fault->message, *message != '\0' ? message : "the connection was lost",
              secrets);
}

/* ---- connecting ---- */

static bool is_sqlstate(const char *text)
{
    for (int i = 0; i < 5; i++) {
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'A' && text[i] <= 'Z'))) return false;
    }
    return true;
}

/* "...: FATAL:  28P01: password ..."; the severity's name is the server's language, so the shape alone
 * tells. */
static const char *next_sqlstate(const char *text)
{
    while ((text = strstr(text, ":  ")) != NULL) {
        text += 3;
        if (is_sqlstate(text) && text[5] == ':' && text[6] == ' ') return text;
    }
    return NULL;
}

const char *wr_pgfault_connect_sqlstate(const char *message)
{
    const char *last = NULL;
    while ((message = next_sqlstate(message)) != NULL) last = message;
    return last;
}

/* "LOCATION:  auth_failed, auth.c:335", whatever LOCATION is in the language at hand. */
static bool is_location(const char *line, size_t length)
{
    size_t end = length;
    while (end > 0 && line[end - 1] >= '0' && line[end - 1] <= '9') end--;
    return end < length && end >= 3 && memcmp(line + end - 3, ".c:", 3) == 0;
}

/* Appends the line without the SQLSTATEs in it. */
static void add_plain(struct wr_buffer *to, const char *line, size_t length)
{
    char text[DRAFT];
    if (length >= sizeof text) length = sizeof text - 1;
    memcpy(text, line, length);
    text[length] = '\0';
    const char *from = text;
    for (const char *code; (code = next_sqlstate(from)) != NULL; from = code + 7) {
        wr_buffer_add(to, from, (size_t)(code - from) - 1);
    }
    wr_buffer_add(to, from, strlen(from));
}

void wr_pgfault_from_connect(struct wr_fault *fault, const char *message, const struct wr_secrets *secrets)
{
    struct wr_buffer plain;
    wr_buffer_init(&plain, wr_memory_libc()); /* on a crew thread: the engine's memory is the loop's alone */
    for (const char *line = message; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        if (!is_location(line, length)) {
            if (plain.length > 0) wr_buffer_add(&plain, "\n", 1);
            add_plain(&plain, line, length);
        }
        line += length + (line[length] == '\n');
    }
    const char *code = wr_pgfault_connect_sqlstate(message);
    *fault = (struct wr_fault){.lost = true};
    if (code != NULL) {
        memcpy(fault->sqlstate, code, 5);
        memcpy(fault->severity, "FATAL", 6);
    }
    wr_redact(fault->message, sizeof fault->message,
              plain.data != NULL && plain.length > 0 ? plain.data : "the connection could not be made",
              secrets);
    wr_buffer_release(&plain);
}
