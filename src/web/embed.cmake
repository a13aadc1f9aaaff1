# cmake -DHTML=src/web/page.html -DOUT=build/pagetext.c -P src/web/embed.cmake
#
# Writes the page into a C file: its bytes, and a Content-Security-Policy with the hashes of its one <style> and its one
# <script>. Plain CMake, so that any build that has CMake at hand can run it.

# What stands between <name> and </name>, which must be there once.
function(inner name text out)
    string(FIND "${text}" "<${name}>" from)
    string(FIND "${text}" "<${name}>" last REVERSE)
    string(FIND "${text}" "</${name}>" to)
    if(from EQUAL -1 OR NOT from EQUAL last OR to LESS from)
        message(FATAL_ERROR "${HTML}: needs exactly one <${name}> without attributes")
    endif()
    string(LENGTH "<${name}>" opening)
    math(EXPR from "${from} + ${opening}")
    math(EXPR length "${to} - ${from}")
    string(SUBSTRING "${text}" ${from} ${length} inside)
    set(${out} "${inside}" PARENT_SCOPE)
endfunction()

# Three hexadecimal digits are two of base64; 64 of them and two zeros are 44, the last of which is padding.
function(base64 hex out)
    set(alphabet "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    set(text "")
    foreach(at RANGE 0 63 3)
        string(SUBSTRING "${hex}00" ${at} 3 three)
        math(EXPR high "0x${three} >> 6")
        math(EXPR low "0x${three} & 63")
        string(SUBSTRING "${alphabet}" ${high} 1 first)
        string(SUBSTRING "${alphabet}" ${low} 1 second)
        string(APPEND text "${first}${second}")
    endforeach()
    string(SUBSTRING "${text}" 0 43 text)
    set(${out} "${text}=" PARENT_SCOPE)
endfunction()

file(READ "${HTML}" text)
foreach(name style script)
    inner(${name} "${text}" inside)
    string(SHA256 hex "${inside}")
    base64(${hex} ${name}_hash)
endforeach()
string(CONCAT policy "default-src 'none'; script-src 'sha256-${script_hash}'; style-src 'sha256-${style_hash}'; "
       "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")

file(READ "${HTML}" bytes HEX)
string(LENGTH "${bytes}" length)
math(EXPR length "${length} / 2")
string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
string(REGEX REPLACE "(................................................................................)" "\\1\n"
       bytes "${bytes}")
file(WRITE "${OUT}" "/* Made from page.html by embed.cmake. */
#include \"web/pagetext.h\"

const unsigned char wr_page_html[] = {
${bytes}
};
const size_t wr_page_html_length = ${length};
const char wr_page_csp[] = \"${policy}\";
")
