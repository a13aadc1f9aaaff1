/* /health: DESIGN's document, and the same with the fields of application/health+json beside it. */
#ifndef WR_HEALTHDOC_H
#define WR_HEALTHDOC_H

#include "web/writer.h"

/* Writes weir_health_json's text; with `fields`, adds those of draft-inadarei-api-health-check. */
void wr_healthdoc_write(struct wr_writer *w, bool fields);

#endif
