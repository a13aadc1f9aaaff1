#include "base/text.h"

#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* Memory that runs out after `left` allocations. */
static void *rationed(void *ctx, void *old, size_t size)
{
    int *left = ctx;
    if (size > 0 && (*left)-- <= 0) return NULL;
    return wr_resize(wr_memory_libc(), old, size);
}

static void a_copy_is_cut_between_characters(void **state)
{
    static const struct {
        size_t size;
        const char *from, *to;
    } table[] = {
        {6, "hello", "hello"},
        {5, "hello", "hell"},
        {1, "hello", ""},
        {8, NULL, ""},
        {8, "", ""},
        {4, "a\xc3\xa9x", "a\xc3\xa9"}, /* e acute fits */
        {3, "a\xc3\xa9x", "a"},         /* and does not */
        {4, "\xe2\x82\xac\xe2\x82\xac", "\xe2\x82\xac"},
        {6, "\xe2\x82\xac\xe2\x82\xac", "\xe2\x82\xac"},
        {5, "\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80"},
        {4, "\xf0\x9f\x98\x80!", ""},
        {3, "\xff\xff\xff\xff", "\xff\xff"}, /* no UTF-8: every byte by itself */
        {5, "\x80\x80\x80\x80\x80\x80", "\x80\x80\x80\x80"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char to[16];
        memset(to, '#', sizeof to);
        assert_int_equal(wr_text_copy(to, table[i].size, table[i].from), strlen(table[i].to));
        assert_string_equal(to, table[i].to);
        assert_int_equal(to[table[i].size], '#');
    }
}

static void a_copy_into_no_room_writes_nothing(void **state)
{
    (void)state;
    char to = '#';
    assert_int_equal(wr_text_copy(&to, 0, "x"), 0);
    assert_int_equal(wr_text_format(&to, 0, "x"), 0);
    assert_int_equal(to, '#');
}

static void formatting_is_cut_between_characters_too(void **state)
{
    (void)state;
    char to[8];
    assert_int_equal(wr_text_format(to, sizeof to, "%d-%s", 42, "ab"), 5);
    assert_string_equal(to, "42-ab");
    assert_int_equal(wr_text_format(to, sizeof to, "12345%s", "\xe2\x82\xac"), 5);
    assert_string_equal(to, "12345");
}

static void a_buffer_grows_and_keeps_offsets(void **state)
{
    (void)state;
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, wr_memory_libc());
    size_t offsets[200];
    for (int i = 0; i < 200; i++) {
        char word[8];
        wr_text_format(word, sizeof word, "w%d", i);
        offsets[i] = wr_buffer_add_text(&buffer, word);
    }
    for (int i = 0; i < 200; i++) {
        char word[8];
        wr_text_format(word, sizeof word, "w%d", i);
        assert_string_equal(buffer.data + offsets[i], word);
    }
    assert_false(buffer.failed);
    wr_buffer_release(&buffer);
}

static void a_buffer_is_terminated_behind_its_length(void **state)
{
    (void)state;
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, wr_memory_libc());
    for (int i = 0; i < 300; i++) {
        assert_int_equal(wr_buffer_add(&buffer, "x", 1), i);
        assert_int_equal(strlen(buffer.data), i + 1);
    }
    wr_buffer_release(&buffer);
}

static void a_cleared_buffer_does_not_allocate_again(void **state)
{
    (void)state;
    int left = 1;
    const struct wr_memory memory = {.resize = rationed, .ctx = &left};
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, &memory);
    for (int i = 0; i < 10; i++) {
        wr_buffer_clear(&buffer);
        wr_buffer_printf(&buffer, "%s and %d", "text", i);
        assert_false(buffer.failed);
    }
    assert_string_equal(buffer.data, "text and 9");
    wr_buffer_release(&buffer);
}

static void lack_of_memory_sticks_and_leaves_what_was_there(void **state)
{
    (void)state;
    int left = 1;
    const struct wr_memory memory = {.resize = rationed, .ctx = &left};
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, &memory);
    wr_buffer_add(&buffer, "kept", 4);
    char large[1000] = {0};
    wr_buffer_add(&buffer, large, sizeof large);
    assert_true(buffer.failed);
    wr_buffer_add(&buffer, "x", 1);
    wr_buffer_printf(&buffer, "%s", "y");
    assert_string_equal(buffer.data, "kept");
    wr_buffer_clear(&buffer);
    assert_false(buffer.failed);
    wr_buffer_release(&buffer);
}

static void a_length_no_memory_could_hold_fails(void **state)
{
    (void)state;
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, wr_memory_libc());
    wr_buffer_add(&buffer, "kept", 4);
    wr_buffer_add(&buffer, "x", SIZE_MAX - 2);
    assert_true(buffer.failed);
    wr_buffer_release(&buffer);
}

static void json_strings_are_quoted_escaped_and_valid_utf8(void **state)
{
    static const struct {
        const char *text, *json;
    } table[] = {
        {"", "\"\""},
        {NULL, "\"\""},
        {"plain / text", "\"plain / text\""},
        {"\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\""},
        {"\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\""},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b",
         "\"a" REPLACEMENT "b\""},
        {"\x80", "\"" REPLACEMENT "\""},
        {"\xc3", "\"" REPLACEMENT "\""}, /* cut short */
        {"\xe2\x82", "\"" REPLACEMENT REPLACEMENT "\""},
        {"\xc0\xaf", "\"" REPLACEMENT REPLACEMENT "\""}, /* overlong */
        {"\xe0\x80\xaf", "\"" REPLACEMENT REPLACEMENT REPLACEMENT "\""},
        {"\xf0\x80\x80\xaf", "\"" REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT "\""},
        {"\xed\xa0\x80", "\"" REPLACEMENT REPLACEMENT REPLACEMENT "\""}, /* a surrogate */
        {"\xed\x9f\xbf\xee\x80\x80", "\"\xed\x9f\xbf\xee\x80\x80\""},    /* its neighbours */
        {"\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""},                    /* U+10FFFF */
        {"\xf4\x90\x80\x80", "\"" REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT "\""},
        {"\xc3\"", "\"" REPLACEMENT "\\\"\""}, /* a bad lead does not swallow a quote */
    };
    (void)state;
    struct wr_buffer buffer;
    wr_buffer_init(&buffer, wr_memory_libc());
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        wr_buffer_clear(&buffer);
        wr_buffer_json_string(&buffer, table[i].text);
        assert_string_equal(buffer.data, table[i].json);
    }
    wr_buffer_release(&buffer);
}

static void duplicates_are_equal_and_nothing_duplicates_to_nothing(void **state)
{
    (void)state;
    int left = 0;
    const struct wr_memory none = {.resize = rationed, .ctx = &left};
    char *copy = wr_strdup(wr_memory_libc(), "text");
    assert_string_equal(copy, "text");
    wr_free(wr_memory_libc(), copy);
    wr_free(wr_memory_libc(), NULL);
    assert_null(wr_strdup(wr_memory_libc(), NULL));
    assert_null(wr_strdup(&none, "text"));
    assert_null(wr_alloc(&none, 10));
}

static void allocated_memory_is_zero(void **state)
{
    (void)state;
    static const char zeroes[200];
    char *memory = wr_alloc(wr_memory_libc(), sizeof zeroes);
    assert_memory_equal(memory, zeroes, sizeof zeroes);
    wr_free(wr_memory_libc(), memory);
}

static void the_generator_gives_the_published_sequence(void **state)
{
    (void)state;
    struct wr_rng rng = {{1, 2, 3, 4}}; /* as in the reference implementation's test vectors */
    static const uint64_t expected[] = {11520, 0, 1509978240, 1215971899390074240};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        assert_int_equal(wr_rng_next(&rng), expected[i]);
}

static void equal_seeds_agree_and_units_stay_below_one(void **state)
{
    (void)state;
    struct wr_rng a, b, other;
    double sum = 0;
    wr_rng_seed(&a, 0);
    wr_rng_seed(&b, 0);
    wr_rng_seed(&other, 1);
    assert_int_not_equal(wr_rng_next(&other), wr_rng_next(&a));
    wr_rng_next(&b);
    for (int i = 0; i < 10000; i++) {
        double unit = wr_rng_unit(&a);
        assert_true(unit >= 0.0 && unit < 1.0);
        assert_true(unit == wr_rng_unit(&b));
        sum += unit;
    }
    assert_true(sum > 4900 && sum < 5100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_cut_between_characters),
        cmocka_unit_test(a_copy_into_no_room_writes_nothing),
        cmocka_unit_test(formatting_is_cut_between_characters_too),
        cmocka_unit_test(a_buffer_grows_and_keeps_offsets),
        cmocka_unit_test(a_buffer_is_terminated_behind_its_length),
        cmocka_unit_test(a_cleared_buffer_does_not_allocate_again),
        cmocka_unit_test(lack_of_memory_sticks_and_leaves_what_was_there),
        cmocka_unit_test(a_length_no_memory_could_hold_fails),
        cmocka_unit_test(json_strings_are_quoted_escaped_and_valid_utf8),
        cmocka_unit_test(duplicates_are_equal_and_nothing_duplicates_to_nothing),
        cmocka_unit_test(allocated_memory_is_zero),
        cmocka_unit_test(the_generator_gives_the_published_sequence),
        cmocka_unit_test(equal_seeds_agree_and_units_stay_below_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
