/* The bearer token of `weir serve`; see httpd.h. */
#include "httpd.h"

#include <string.h>
#include <strings.h>

enum { TOKEN_MAX = 1024 };

/* Looks at as many bytes as were given, whatever they are. The length of the token is no secret, its bytes are. */
static bool equal(const char *token, const char *given, size_t length)
{
    size_t whole = strlen(token);
    unsigned char different = whole != length || whole == 0;
    for (size_t i = 0; i < length; i++)
        different |= (unsigned char)(given[i] ^ token[whole > 0 ? i % whole : 0]);
    return different == 0;
}

static int digit_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c == '\0' ? NULL : strchr(digits, c);
    return at == NULL ? -1 : (int)(at - digits);
}

/* Up to the first byte that is no digit of base64. */
static size_t decode(const char *text, char *out, size_t size)
{
    unsigned bits = 0, held = 0;
    size_t length = 0;
    for (int digit; length < size && (digit = digit_of(*text)) >= 0; text++) {
        bits = (bits << 6 | (unsigned)digit) & 0xffffff;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        out[length++] = (char)(bits >> held);
    }
    return length;
}

/* The password is what stands behind the first colon. */
static bool password_fits(const char *token, const char *encoded)
{
    char text[TOKEN_MAX + 256];
    size_t length = decode(encoded, text, sizeof text);
    const char *colon = memchr(text, ':', length);
    return colon != NULL && equal(token, colon + 1, length - (size_t)(colon + 1 - text));
}

bool cli_token_fits(const char *token, const char *header)
{
    if (header == NULL) return false;
    if (strncasecmp(header, "Bearer ", 7) == 0) {
        header += 7 + strspn(header + 7, " ");
        return equal(token, header, strcspn(header, " "));
    }
    if (strncasecmp(header, "Basic ", 6) != 0) return false;
    return password_fits(token, header + 6 + strspn(header + 6, " "));
}
