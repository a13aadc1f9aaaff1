/* Which of two forms of a document an Accept header asks for (RFC 9110, 12.5.1). */
#ifndef WR_ACCEPT_H
#define WR_ACCEPT_H

#include <stdbool.h>

struct wr_form {
    const char *type;    /* "text/plain", in small letters */
    const char *version; /* a range with another version=... does not mean this form; NULL: any */
};

/* True if `special` is preferred: wanted more than `plain`, or named outright and wanted as much. A header that wants
 * neither, or none at all, gets the plain form: an answer that can be read is better than 406. */
bool wr_accept_special(const char *accept, struct wr_form special, struct wr_form plain);

#endif
