/* The command weir: finds the subcommand and hands over. */
#include "cli.h"

#include "weir/weir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const struct cli_command *const commands[] = {
    &cli_command_run,    /* scripts */
    &cli_command_repl,   /* by hand */
    &cli_command_top,    /* to see */
    &cli_command_tail,   /* to see */
    &cli_command_serve,  /* for monitoring */
    &cli_command_doctor, /* before and after */
    &cli_command_test,
};

enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const struct cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    }
    return NULL;
}

static void print_overview(FILE *out)
{
    fputs("Weir " WEIR_VERSION ": keeps an application upright when its PostgreSQL is slow, full or gone.\n\n"
          "usage: weir COMMAND [ARGUMENTS]\n\n",
          out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  %-16s %s\n", commands[i]->name, commands[i]->summary);
    fputs("  help [COMMAND]   this text, or what one command does\n"
          "  --version        the version\n",
          out);
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "weir: there is no %s '%s'; there are", name[0] == '-' ? "option" : "command", name);
    for (size_t i = 0; i < COMMAND_COUNT; i++) fprintf(stderr, " %s,", commands[i]->name);
    fputs(" help and --version\n", stderr);
    return CLI_USAGE;
}

static int show_help(int argc, char **argv)
{
    const struct cli_command *command;

    if (argc > 2) {
        fprintf(stderr, "weir help: one command at most, not '%s'\n", argv[2]);
        return CLI_USAGE;
    }
    if (argc < 2) {
        print_overview(stdout);
        return CLI_OK;
    }
    command = find_command(argv[1]);
    if (command == NULL) return unknown_command(argv[1]);
    fputs(command->help, stdout);
    return CLI_OK;
}

/* What the program said may still be in a buffer, and the disk may be full. */
static int flush_output(int code)
{
    if ((fflush(stdout) == 0 && !ferror(stdout)) || cli_interrupt_signal() != 0) return code;
    fputs("weir: the output could not be written\n", stderr);
    return code == CLI_OK ? CLI_FAILED : code;
}

/* "weir run": what this process is called wherever it is told, as on a worker's card. */
static void take_name(const char *command)
{
    static char name[64];
    (void)snprintf(name, sizeof name, "weir %s", command);
    program_invocation_short_name = name;
}

static int dispatch(int argc, char **argv)
{
    const struct cli_command *command;

    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        puts("weir " WEIR_VERSION);
        return CLI_OK;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return show_help(argc - 1, argv + 1);
    command = find_command(argv[1]);
    if (command == NULL) return unknown_command(argv[1]);
    take_name(command->name);
    return command->run(argc - 1, argv + 1);
}

/* A program started with `>&-` would give descriptor 1 to the first thing it opens, and print into it. */
static bool open_missing_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", O_RDWR) != fd) return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (!open_missing_descriptors()) return CLI_FAILED;
    return flush_output(dispatch(argc, argv));
}
