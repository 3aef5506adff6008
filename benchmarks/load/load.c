/* The processes that are served: a writer, an echo, a first byte, a sleeper. Nothing here knows who serves it. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

static void raw_tty(int echo) {
    struct termios t;
    if (tcgetattr(0, &t)) return;
    if (!echo) cfmakeraw(&t);
    t.c_lflag &= ~ECHO;
    tcsetattr(0, TCSANOW, &t);
}

static void write_all(const char *p, size_t n) {
    while (n) {
        ssize_t w = write(1, p, n);
        if (w <= 0) _exit(1);
        p += w;
        n -= w;
    }
}

/* Lines of 79 characters and a line feed, so that the default tty mode makes 81 bytes of 80. */
static void writer(uint64_t total) {
    enum { BLOCK = 80 * 800 };
    static char block[BLOCK];
    for (int i = 0; i < BLOCK; i++) block[i] = i % 80 == 79 ? '\n' : 'a' + i % 26;
    while (total) {
        size_t n = total < BLOCK ? total : BLOCK;
        write_all(block, n);
        total -= n;
    }
}

static void wait_byte(void) {
    char c;
    if (read(0, &c, 1) < 1) _exit(1);
}

/* load write raw|tty|pipe BYTES | echo | first | idle [BYTES]; `write` starts at the first byte of its input. */
int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "write") && argc > 3) {
        if (strcmp(argv[2], "pipe")) raw_tty(!strcmp(argv[2], "tty"));
        /* The one byte before the gate says that the terminal is set up; it is not part of the figure. */
        write_all("!", 1);
        wait_byte();
        writer(strtoull(argv[3], 0, 10));
        return 0;
    }
    if (!strcmp(what, "echo")) {
        char c[256];
        ssize_t n;
        raw_tty(0);
        write_all("!", 1);
        while ((n = read(0, c, sizeof c)) > 0) write_all(c, n);
        return 0;
    }
    if (!strcmp(what, "first")) {
        write_all("!", 1);
        return 0;
    }
    if (!strcmp(what, "idle")) {
        writer(argc > 2 ? strtoull(argv[2], 0, 10) : 0);
        write_all("!", 1);
        for (;;) pause();
    }
    return 2;
}
