/* Whether the workers will be able to make and share the area, asked when the configuration is read: a worker that
 * finds out is too late for `nginx -t`. */
#include "ngxweir.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

struct account {
    uid_t uid;
    gid_t gid;
    const char *name;
};

static ngx_int_t refuse(char *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(why, WEIR_WHY_MAX, format, arguments);
    va_end(arguments);
    return NGX_ERROR;
}

/* Whom the workers run as: only a master that is root can change it. The core module fills in its default later. */
static struct account workers_account(ngx_conf_t *cf)
{
    ngx_core_conf_t *core = (ngx_core_conf_t *)ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module);
    if (geteuid() != 0) return (struct account){geteuid(), getegid(), "its own user"};
    if (core->user != (uid_t)NGX_CONF_UNSET_UINT)
        return (struct account){core->user, core->group, core->username};
    const struct passwd *entry = getpwnam(NGX_USER);
    return entry != NULL ? (struct account){entry->pw_uid, entry->pw_gid, NGX_USER}
                         : (struct account){0, 0, NGX_USER};
}

static bool may_write(const struct stat *info, const struct account *account)
{
    mode_t wanted = S_ISDIR(info->st_mode) ? 3 : 2; /* write, and search a folder */
    if (account->uid == 0) return true;
    if (info->st_uid == account->uid) return (info->st_mode >> 6 & wanted) == wanted;
    if (info->st_gid == account->gid) return (info->st_mode >> 3 & wanted) == wanted;
    return (info->st_mode & wanted) == wanted;
}

/* As nginx does with its own temporary paths: the last folder is made, for those who will write there. */
static ngx_int_t make_folder(const char *folder, const struct account *account, char *why)
{
    if (mkdir(folder, 0700) != 0)
        return refuse(why, "the folder %s is not there and cannot be made (%d: %s)", folder, ngx_errno,
                      strerror(ngx_errno));
    if (geteuid() == 0 && chown(folder, account->uid, account->gid) != 0)
        return refuse(why, "the folder %s cannot be given to %s (%d: %s)", folder, account->name, ngx_errno,
                      strerror(ngx_errno));
    return NGX_OK;
}

static ngx_int_t check_folder(const char *path, const struct account *account, char *why)
{
    char folder[NGX_MAX_PATH];
    struct stat info;
    const char *slash = strrchr(path, '/');
    int length = slash == path ? 1 : (int)(slash - path);
    (void)snprintf(folder, sizeof folder, "%.*s", length, path);
    if (stat(folder, &info) != 0) return make_folder(folder, account, why);
    if (!S_ISDIR(info.st_mode)) return refuse(why, "%s is no folder", folder);
    if (!may_write(&info, account))
        return refuse(why, "the workers run as %s, who may not write in %s", account->name, folder);
    return NGX_OK;
}

ngx_int_t wn_check_area(ngx_conf_t *cf, const struct wn_conf *conf, char *why)
{
    const char *path = (const char *)conf->area.data;
    struct account account = workers_account(cf);
    struct stat info;
    if (conf->area.len >= NGX_MAX_PATH)
        return refuse(why, "the path is longer than %d bytes", NGX_MAX_PATH - 1);
    if (check_folder(path, &account, why) != NGX_OK) return NGX_ERROR;
    if (lstat(path, &info) != 0) return NGX_OK;
    if (!S_ISREG(info.st_mode)) return refuse(why, "%s is there and is no file", path);
    if (info.st_uid != account.uid)
        return refuse(why,
                      "%s belongs to the user number %lu, and the workers run as %s (%lu): remove it or give "
                      "it to them",
                      path, (unsigned long)info.st_uid, account.name, (unsigned long)account.uid);
    return NGX_OK;
}
