/* Where the lines of a log go: standard error, or a file, or a pipe with a name. One write(2) per line at the end of the
 * file, so that several processes may share it. Writing never waits for a reader: what a full pipe does not take is
 * lost, and the caller told so. */
#ifndef WR_SINK_H
#define WR_SINK_H

#include <stdbool.h>
#include <stddef.h>

struct wr_sink {
    int fd;           /* -1: closed */
    const char *path; /* the caller's, as long as the sink is open; NULL: standard error */
    bool waits;       /* it is nobody's alone, so it may not be told not to wait: ask before each line */
    bool socket;
    bool torn; /* the last line got there in part */
};

/* `to`: "stderr", or a path. Makes the file (mode 0640) if it is not there. WEIR_OK; WEIR_ESYS and a sentence in `why`. */
int wr_sink_open(struct wr_sink *sink, const char *to, char *why);
/* Opens its path anew, after somebody has moved the file away. On failure it goes on with what it had. */
int wr_sink_reopen(struct wr_sink *sink, char *why);
void wr_sink_close(struct wr_sink *sink);                                  /* of a closed one: nothing */
bool wr_sink_write(struct wr_sink *sink, const char *line, size_t length); /* false: lost */

#endif
