/* What /metrics of `weir serve` tells of its own process, under the names that Prometheus' client libraries use. */
#include "httpinside.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct process {
    double cpu_s, started_s; /* since 1970 */
    unsigned long long virtual_bytes, resident_bytes, open_fds, max_fds;
};

/* ---- from the kernel ------------------------------------------------------------------------------------------- */

static bool read_file(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    size_t length = fread(text, 1, size - 1, file);
    (void)fclose(file);
    text[length] = '\0';
    return length > 0;
}

/* When the machine was booted. */
static double boot_time(void)
{
    static double known; /* it does not change, and /proc/stat is long */
    char text[64 * 1024];
    const char *at;
    if (known > 0) return known;
    if (read_file("/proc/stat", text, sizeof text) && (at = strstr(text, "\nbtime ")) != NULL)
        known = strtod(at + 7, NULL);
    return known;
}

/* The fields behind the program's name, which may hold blanks and brackets: the 14th, 15th, 22nd, 23rd and 24th of all. */
static void read_stat(struct process *process)
{
    char text[1024];
    unsigned long long user, system, start, size;
    long long pages;
    double ticks = (double)sysconf(_SC_CLK_TCK);
    const char *behind = read_file("/proc/self/stat", text, sizeof text) ? strrchr(text, ')') : NULL;
    if (behind == NULL ||
        sscanf(
            behind + 1,
            " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %llu %lld",
            &user, &system, &start, &size, &pages) != 5)
        return;
    process->cpu_s = (double)(user + system) / ticks;
    process->started_s = boot_time() + (double)start / ticks;
    process->virtual_bytes = size;
    process->resident_bytes = (unsigned long long)pages * (unsigned long long)sysconf(_SC_PAGESIZE);
}

static void read_descriptors(struct process *process)
{
    struct rlimit limit;
    DIR *folder = opendir("/proc/self/fd");
    if (folder != NULL) {
        while (readdir(folder) != NULL) process->open_fds++;
        process->open_fds -= process->open_fds > 3 ? 3 : process->open_fds; /* itself, . and .. */
        (void)closedir(folder);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) process->max_fds = limit.rlim_cur;
}

/* ---- as text ------------------------------------------------------------------------------------------------------ */

size_t http_process_text(bool open_metrics, char *out, size_t size)
{
    static const char text_format[] =
        "# HELP process_cpu_seconds_total Time spent by the process that answers.\n"
        "# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.2f\n"
        "# HELP process_max_fds Descriptors that it may have open.\n"
        "# TYPE process_max_fds gauge\nprocess_max_fds %llu\n"
        "# HELP process_open_fds Descriptors that it has open.\n"
        "# TYPE process_open_fds gauge\nprocess_open_fds %llu\n"
        "# HELP process_resident_memory_bytes Memory that it has.\n"
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %llu\n"
        "# HELP process_start_time_seconds When it was started.\n"
        "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds %.2f\n"
        "# HELP process_virtual_memory_bytes Addresses that it has.\n"
        "# TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes %llu\n";
    static const char open_format[] =
        "# HELP process_cpu_seconds Time spent by the process that answers.\n"
        "# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\nprocess_cpu_seconds_total "
        "%.2f\n"
        "# HELP process_max_fds Descriptors that it may have open.\n"
        "# TYPE process_max_fds gauge\nprocess_max_fds %llu\n"
        "# HELP process_open_fds Descriptors that it has open.\n"
        "# TYPE process_open_fds gauge\nprocess_open_fds %llu\n"
        "# HELP process_resident_memory_bytes Memory that it has.\n"
        "# TYPE process_resident_memory_bytes gauge\n# UNIT process_resident_memory_bytes bytes\n"
        "process_resident_memory_bytes %llu\n"
        "# HELP process_start_time_seconds When it was started.\n"
        "# TYPE process_start_time_seconds gauge\n# UNIT process_start_time_seconds seconds\n"
        "process_start_time_seconds %.2f\n"
        "# HELP process_virtual_memory_bytes Addresses that it has.\n"
        "# TYPE process_virtual_memory_bytes gauge\n# UNIT process_virtual_memory_bytes bytes\n"
        "process_virtual_memory_bytes %llu\n";
    struct process process = {0};
    read_stat(&process);
    read_descriptors(&process);
    int length = snprintf(out, size, open_metrics ? open_format : text_format, process.cpu_s, process.max_fds,
                          process.open_fds, process.resident_bytes, process.started_s, process.virtual_bytes);
    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}
