# The dynamic module for nginx: the whole engine and the binding for LuaJIT in one shared object, which takes Lua's and
# nginx's functions from the program that loads it.
#
# nginx's headers are of use only with the two its configure script writes, and its loader asks for a list of modules that
# the same script makes. So it is run once, for a module of no content.

pkg_check_modules(LUAJIT QUIET IMPORTED_TARGET luajit)
if(NOT EXISTS ${WEIR_NGINX_SOURCE}/conf_flags OR NOT LUAJIT_FOUND)
    if(WEIR_NGINX STREQUAL "AUTO")
        return()
    endif()
    message(FATAL_ERROR "WEIR_NGINX is ON, but ${WEIR_NGINX_SOURCE}/conf_flags or LuaJIT is missing: install nginx-dev and "
                        "libluajit2-5.1-dev, or configure with -DWEIR_NGINX=OFF.")
endif()

set(weir_ngx ${PROJECT_BINARY_DIR}/nginx)
set(weir_ngx_name ngx_http_weir_module)
if(NOT EXISTS ${weir_ngx}/objs/ngx_auto_config.h)
    file(MAKE_DIRECTORY ${weir_ngx}/empty)
    file(WRITE ${weir_ngx}/empty/empty.c "")
    file(WRITE ${weir_ngx}/empty/config
         "ngx_addon_name=${weir_ngx_name}\nngx_module_type=HTTP\nngx_module_name=${weir_ngx_name}\n"
         "ngx_module_srcs=\"$ngx_addon_dir/empty.c\"\n. auto/module\n")
    execute_process(
        COMMAND bash -c ". ./conf_flags && ./configure --with-cc-opt='-g -O2 -fPIC' --with-ld-opt=-fPIC \
\"\${NGX_CONF_FLAGS[@]}\" --add-dynamic-module='${weir_ngx}/empty' --builddir='${weir_ngx}/objs'"
        WORKING_DIRECTORY ${WEIR_NGINX_SOURCE} OUTPUT_FILE ${weir_ngx}/configure.log
        ERROR_FILE ${weir_ngx}/configure.log RESULT_VARIABLE weir_ngx_result)
    if(NOT weir_ngx_result EQUAL 0)
        file(REMOVE ${weir_ngx}/objs/ngx_auto_config.h)
        message(FATAL_ERROR "nginx's configure failed, see ${weir_ngx}/configure.log; to build without nginx: -DWEIR_NGINX=OFF.")
    endif()
endif()

# The folders of nginx's headers are others in each version. Its makefile names them, a line each: "-I src/event/quic \".
file(READ ${weir_ngx}/objs/Makefile weir_ngx_folders)
string(REGEX MATCH "ALL_INCS =([^\n]*\\\\\n)*[^\n]*" weir_ngx_folders "${weir_ngx_folders}")
string(REGEX MATCHALL "-I src/[^ \n]+" weir_ngx_folders "${weir_ngx_folders}")
list(TRANSFORM weir_ngx_folders REPLACE "^-I " "${WEIR_NGINX_SOURCE}/")

file(GLOB weir_ngx_sources CONFIGURE_DEPENDS src/nginx/*.c)
set(weir_ngx_binding ${weir_binding_sources})
list(FILTER weir_ngx_binding EXCLUDE REGEX "/lua_uv\\.c$")
add_library(weir_ngx_list OBJECT ${weir_ngx}/objs/${weir_ngx_name}_modules.c)
add_library(weir_ngx_module MODULE ${weir_ngx_sources} ${weir_ngx_binding} $<TARGET_OBJECTS:weir_ngx_list>)
foreach(target weir_ngx_list weir_ngx_module)
    target_include_directories(${target} SYSTEM PRIVATE ${weir_ngx}/objs ${weir_ngx_folders} ${LUAJIT_INCLUDE_DIRS})
endforeach()
target_compile_options(weir_ngx_module PRIVATE -include ${PROJECT_SOURCE_DIR}/src/lua/lua_weak.h)
target_compile_definitions(weir_ngx_module PRIVATE
    WEIR_LUA_DIR_SOURCE="${PROJECT_SOURCE_DIR}/lua"
    WEIR_LUA_DIR_INSTALL="${CMAKE_INSTALL_FULL_DATADIR}/lua/5.1")
# nginx's macros give one type for another here and there.
set_source_files_properties(${weir_ngx_sources} PROPERTIES COMPILE_OPTIONS "-Wno-conversion;-Wno-sign-conversion;-Wno-pedantic")
target_link_libraries(weir_ngx_module PRIVATE weir_flags weir_static)
file(CONFIGURE OUTPUT nginx/module.map CONTENT
     "{ global: ngx_modules; ngx_module_names; ngx_module_order; ngx_http_weir_module; local: *; };\n")
# nodelete: nginx unloads modules, and a thread that hangs in PQcancel may be the last one left.
target_link_options(weir_ngx_module PRIVATE -Wl,--version-script=${weir_ngx}/module.map -Wl,-z,nodelete)
set_target_properties(weir_ngx_module PROPERTIES PREFIX "" OUTPUT_NAME ${weir_ngx_name} LINKER_LANGUAGE C
                      LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
install(TARGETS weir_ngx_module LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/nginx/modules)
install(DIRECTORY lua/weir lua/resty DESTINATION ${CMAKE_INSTALL_DATADIR}/lua/5.1 FILES_MATCHING PATTERN "*.lua")
