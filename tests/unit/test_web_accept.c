/* Accept headers, as browsers, scrapers and people send them. */
#include "web/accept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct wr_form open_metrics = {"application/openmetrics-text", "1.0.0"};
static const struct wr_form text = {"text/plain", "0.0.4"};

struct row {
    const char *accept;
    bool special;
};

static void expect(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool special = wr_accept_special(rows[i].accept, open_metrics, text);
        if (special != rows[i].special) print_error("%s\n", rows[i].accept);
        assert_int_equal(special, rows[i].special);
    }
}

#define EXPECT(rows) expect(rows, sizeof(rows) / sizeof *(rows))

static void scrapers_get_what_they_prefer(void **state)
{
    static const struct row rows[] = {
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         true},
        {"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
         "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.2",
         true},
        {"text/plain;version=0.0.4;q=0.5,application/openmetrics-text;version=1.0.0;q=0.4,*/*;q=0.1", false},
        {"text/plain;version=0.0.4;q=1,*/*;q=0.1", false},
        {"application/openmetrics-text; version=0.0.1", false},
        {"application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", true},
    };
    (void)state;
    EXPECT(rows);
}

static void browsers_and_people_get_text(void **state)
{
    static const struct row rows[] = {
        {NULL, false},         {"", false},
        {"*/*", false},        {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false},
        {"text/plain", false}, {"text/*, application/openmetrics-text;q=0.5", false},
    };
    (void)state;
    EXPECT(rows);
}

static void it_is_enough_to_name_it(void **state)
{
    static const struct row rows[] = {
        {"application/openmetrics-text", true},
        {"APPLICATION/OpenMetrics-Text ; Q=0.001", true},
        {"application/openmetrics-text, text/plain", true},
        {"application/openmetrics-text, */*", true},
        {" \t application/openmetrics-text \t , text/html", true},
        {"application/*", true},
        {"application/openmetrics-text;q=0", false},
        {"application/openmetrics-text;q=0.0, */*", false},
        {"application/json;q=1, application/openmetrics-text;q=0.3, text/plain;q=0.2", true},
    };
    (void)state;
    EXPECT(rows);
}

static void what_does_not_parse_does_not_match(void **state)
{
    static const struct row rows[] = {
        {",,,;;;", false},
        {"application", false},
        {"/", false},
        {"application/openmetrics-textile", false},
        {"x=\"application/openmetrics-text\"", false},
        {"text/html;x=\",application/openmetrics-text,\"", false},
        {"text/html;x=\"\\", false},
        {"application/openmetrics-text;q", true},
        {"application/openmetrics-text;q=many", true},
        {"application/openmetrics-text;;;q=1.", true},
        {"application/openmetrics-text;q=5", true},
    };
    (void)state;
    EXPECT(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scrapers_get_what_they_prefer),
        cmocka_unit_test(browsers_and_people_get_text),
        cmocka_unit_test(it_is_enough_to_name_it),
        cmocka_unit_test(what_does_not_parse_does_not_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
