/* A line of the log is one line and well-formed, whatever it is given, and never longer than it may be. */
#include "base/logline.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *with_text(struct wr_log_line *line, bool json, const char *value)
{
    wr_log_begin(line, json);
    wr_log_text(line, "k", value, 1000);
    wr_log_end(line);
    return line->text;
}

static void texts_are_escaped_and_quoted_where_they_must_be(void **state)
{
    static const struct {
        const char *value, *json, *logfmt;
    } table[] = {
        {"plain", "{\"k\":\"plain\"}\n", "k=plain\n"},
        {"service@primary", "{\"k\":\"service@primary\"}\n", "k=service@primary\n"},
        {"two words", "{\"k\":\"two words\"}\n", "k=\"two words\"\n"},
        {"a=b", "{\"k\":\"a=b\"}\n", "k=\"a=b\"\n"},
        {"say \"no\"", "{\"k\":\"say \\\"no\\\"\"}\n", "k=\"say \\\"no\\\"\"\n"},
        {"back\\slash", "{\"k\":\"back\\\\slash\"}\n", "k=\"back\\\\slash\"\n"},
        {"a\nlevel=error", "{\"k\":\"a\\nlevel=error\"}\n", "k=\"a\\nlevel=error\"\n"},
        {"\r\t", "{\"k\":\"\\r\\t\"}\n", "k=\"\\r\\t\"\n"},
        {"\x1b[31m", "{\"k\":\"\\u001b[31m\"}\n", "k=\"\\u001b[31m\"\n"},
        {"\x7f", "{\"k\":\"\\u007f\"}\n", "k=\"\\u007f\"\n"},
        {"\xc2\x9b"
         "0m",
         "{\"k\":\"\\u009b0m\"}\n", "k=\"\\u009b0m\"\n"},
        {"\xd8\x9c", "{\"k\":\"\\u061c\"}\n", "k=\"\\u061c\"\n"}, /* marks that turn the direction */
        {"a\xe2\x80\x8e\xe2\x80\x8f", "{\"k\":\"a\\u200e\\u200f\"}\n", "k=\"a\\u200e\\u200f\"\n"},
        {"\xe2\x80\xaa\xe2\x80\xae", "{\"k\":\"\\u202a\\u202e\"}\n", "k=\"\\u202a\\u202e\"\n"},
        {"\xe2\x81\xa6\xe2\x81\xa9", "{\"k\":\"\\u2066\\u2069\"}\n", "k=\"\\u2066\\u2069\"\n"},
        {"\xe2\x80\xa8\xe2\x80\xa9", "{\"k\":\"\\u2028\\u2029\"}\n", "k=\"\\u2028\\u2029\"\n"},
        {"\xe2\x80\x8d\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa", /* their neighbours */
         "{\"k\":\"\xe2\x80\x8d\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa\"}\n",
         "k=\"\xe2\x80\x8d\xe2\x80\xaf\xe2\x81\xa5\xe2\x81\xaa\"\n"},
        {"\xf0\x9f\x8c\x8a", "{\"k\":\"\xf0\x9f\x8c\x8a\"}\n", "k=\"\xf0\x9f\x8c\x8a\"\n"},
        {"\xc3\xa4", "{\"k\":\"\xc3\xa4\"}\n", "k=\"\xc3\xa4\"\n"},
        {"\xff", "{\"k\":\"\xef\xbf\xbd\"}\n", "k=\"\xef\xbf\xbd\"\n"},
        {"\xc0\x80", "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\"}\n", "k=\"\xef\xbf\xbd\xef\xbf\xbd\"\n"},
        {"\xe2\x82", "{\"k\":\"\xef\xbf\xbd\xef\xbf\xbd\"}\n", "k=\"\xef\xbf\xbd\xef\xbf\xbd\"\n"},
        {"", "{}\n", "\n"},
        {NULL, "{}\n", "\n"},
    };
    (void)state;
    struct wr_log_line line;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_string_equal(with_text(&line, true, table[i].value), table[i].json);
        assert_string_equal(with_text(&line, false, table[i].value), table[i].logfmt);
    }
}

static void numbers_and_times_do_not_depend_on_where_one_is(void **state)
{
    struct wr_log_line line;
    (void)state;
    wr_log_begin(&line, true);
    wr_log_time(&line, "ts", UINT64_C(1700000000123456));
    wr_log_count(&line, "n", UINT64_MAX);
    wr_log_hex(&line, "id", UINT64_C(0x10000000001));
    wr_log_ms(&line, "ms", 1002003);
    wr_log_ms(&line, "none", 0);
    wr_log_part(&line, "part", "abcdef", 3);
    wr_log_raw(&line, "raw", "[1,2]");
    wr_log_end(&line);
    assert_string_equal(
        line.text, "{\"ts\":\"2023-11-14T22:13:20.123456Z\",\"n\":18446744073709551615,"
                   "\"id\":\"10000000001\",\"ms\":1002.003,\"none\":0.000,\"part\":\"abc\",\"raw\":[1,2]}\n");
    assert_int_equal(line.length, strlen(line.text));
    wr_log_begin(&line, false);
    wr_log_time(&line, "ts", 0);
    wr_log_ms(&line, "ms", 999);
    wr_log_raw(&line, "raw", "[1, 2]");
    wr_log_end(&line);
    assert_string_equal(line.text, "ts=1970-01-01T00:00:00.000000Z ms=0.999 raw=\"[1, 2]\"\n");
}

static void a_text_is_cut_between_characters(void **state)
{
    struct wr_log_line line;
    (void)state;
    wr_log_begin(&line, true);
    wr_log_text(&line, "k", "abc\xe2\x82\xac", 5);
    wr_log_text(&line, "l", "abcd\n", 5);
    wr_log_text(&line, "m", "abcde", 5);
    wr_log_end(&line);
    assert_string_equal(line.text, "{\"k\":\"abc\",\"l\":\"abcd\",\"m\":\"abcde\"}\n");
    wr_log_begin(&line, false);
    wr_log_text(&line, "k", "abcdef", 5);
    wr_log_end(&line);
    assert_string_equal(line.text, "k=\"abcde\"\n");
}

/* ---- anything at all ---- */

static uint32_t seed = 7;

static uint32_t draw(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static const char *past_string(const char *at)
{
    for (at++; *at != '"'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) return NULL;
        if (*at == '\\' && strchr("\"\\nrtu", *++at) == NULL) return NULL;
    }
    return at + 1;
}

/* One object whose values are texts and plain numbers. */
static bool is_json(const char *at)
{
    if (*at++ != '{') return false;
    for (bool first = true; *at != '}'; first = false) {
        if (!first && *at++ != ',') return false;
        if (*at != '"' || (at = past_string(at)) == NULL || *at++ != ':') return false;
        if (*at == '"') {
            if ((at = past_string(at)) == NULL) return false;
        } else {
            size_t digits = strspn(at, "0123456789.");
            if (digits == 0) return false;
            at += digits;
        }
    }
    return strcmp(at, "}\n") == 0;
}

/* Pairs with bare or quoted values, a space between them. */
static bool is_logfmt(const char *at)
{
    for (bool first = true; *at != '\n'; first = false) {
        if (!first && *at++ != ' ') return false;
        at += strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        if (*at++ != '=') return false;
        if (*at == '"') {
            if ((at = past_string(at)) == NULL) return false;
        } else {
            while (*at != ' ' && *at != '\n') {
                if ((unsigned char)*at < 0x21 || (unsigned char)*at > 0x7e || *at == '"') return false;
                at++;
            }
        }
    }
    return at[1] == '\0';
}

static void fill(char *text, size_t size)
{
    static const char nasty[] = "\"\\\n\r\t\x1b\x7f\xc2\x9b\xff\xe2\x82\xac =,:{}";
    size_t length = draw() % size;
    for (size_t i = 0; i < length; i++)
        text[i] = draw() % 2 == 0 ? nasty[draw() % (sizeof nasty - 1)] : (char)(1 + draw() % 255);
    text[length] = '\0';
}

static void whatever_it_is_given_it_is_sound_and_bounded(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct wr_log_line line;
        bool json = round % 2 == 0;
        wr_log_begin(&line, json);
        for (uint32_t fields = draw() % 12; fields > 0; fields--) {
            char text[1200];
            fill(text, draw() % 4 == 0 ? sizeof text : 40);
            if (draw() % 4 == 0)
                wr_log_count(&line, "number", draw());
            else
                wr_log_text(&line, "text", text, draw() % 1500);
        }
        wr_log_end(&line);
        assert_true(line.length <= WR_LOG_LINE);
        assert_int_equal(line.length, strlen(line.text));
        if (!(json ? is_json(line.text) : is_logfmt(line.text))) fail_msg("not sound: %s", line.text);
    }
}

static void what_does_not_fit_is_left_out_whole(void **state)
{
    struct wr_log_line line;
    char text[WR_LOG_LINE];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)state;
    wr_log_begin(&line, true);
    wr_log_text(&line, "text", text, sizeof text);
    wr_log_count(&line, "number", 1);
    wr_log_raw(&line, "raw", "[]");
    wr_log_end(&line);
    assert_int_equal(line.length, WR_LOG_LINE);
    assert_true(is_json(line.text));
    assert_null(strstr(line.text, "number"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_escaped_and_quoted_where_they_must_be),
        cmocka_unit_test(numbers_and_times_do_not_depend_on_where_one_is),
        cmocka_unit_test(a_text_is_cut_between_characters),
        cmocka_unit_test(whatever_it_is_given_it_is_sound_and_bounded),
        cmocka_unit_test(what_does_not_fit_is_left_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
