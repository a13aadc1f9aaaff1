/* page.html as the build wrote it into a C array (embed.cmake), and the policy that lets its script and style run. */
#ifndef WR_PAGETEXT_H
#define WR_PAGETEXT_H

#include <stddef.h>

extern const unsigned char wr_page_html[];
extern const size_t wr_page_html_length;
extern const char wr_page_csp[];

#endif
