/* The limit of a spawn: fork and exec a program on a PTY from a small process, until its first byte is here. */
#define _GNU_SOURCE
#include <pty.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* spawn COUNT PROGRAM [ARG...]: one duration in ns a line */
int main(int argc, char **argv) {
    if (argc < 3) return 2;
    for (int i = atoi(argv[1]); i > 0; i--) {
        int master;
        char byte[64];
        uint64_t start = now_ns();
        pid_t pid = forkpty(&master, 0, 0, 0);
        if (pid == 0) {
            execv(argv[2], argv + 2);
            _exit(127);
        }
        if (pid < 0 || read(master, byte, sizeof byte) < 1) return 1;
        printf("%llu\n", (unsigned long long)(now_ns() - start));
        close(master);
        waitpid(pid, 0, 0);
        usleep(2000);
    }
    return 0;
}
