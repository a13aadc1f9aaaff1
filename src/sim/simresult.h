/* Rows as a simulated server answers with them. */
#ifndef WR_SIMRESULT_H
#define WR_SIMRESULT_H

#include "engine/result.h"
#include "weir/sim.h"

struct wr_sim_rows { /* shared by all results that show them */
    unsigned references;
    struct wr_sim_rows *of; /* the same rows under another tag: what is below is theirs; NULL otherwise */
    size_t columns, rows;
    char **names;
    uint32_t *types;
    char **values;
    char tag[32];
    uint64_t affected;
};

/* A copy of the answer's rows with one reference, or NULL. */
struct wr_sim_rows *wr_sim_rows_new(const struct weir_sim_answer *answer);
void wr_sim_rows_drop(void *handle);
/* A result that shows them; takes a reference of its own. verb: see struct wr_sim_op. */
void wr_sim_rows_show(struct wr_sim_rows *rows, char verb, struct weir_result *out);
struct wr_sim_rows *wr_sim_rows_usual(char verb); /* what a statement answers when nobody said */
char **wr_sim_texts_copy(const char *const *texts,
                         size_t count); /* NULL members stay NULL; NULL: out of memory */
void wr_sim_texts_free(char **texts, size_t count);

#endif
