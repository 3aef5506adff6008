/* The measuring reader: takes output from descriptors as fast as it can, counts it and says when the first and the
 * last byte came. It knows the framing of every peer and nothing of what they run. Also the bare loop on a PTY. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum mode { RAW, BINARY, OURS, JSON };
enum { BUFFER_BYTES = 1 << 20, BARE_BYTES = 64 << 10, STALL_MS = 15000 };

struct reader {
    int fd, open;
    unsigned char head[24];
    size_t have, need, header_len, skip_len; /* bytes of the frame header; payload bytes that are not output */
    uint64_t left, seen;                     /* payload bytes still to come; payload bytes seen of this frame */
    int opcode, data_kind, escaped, hex;
    int64_t bytes; /* below zero for a moment, while a JSON frame has begun */
    uint64_t frames, control, reads, first_ns, last_ns;
};

static volatile sig_atomic_t stopped;
static enum mode mode;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static void count(struct reader *r, int64_t n) { r->bytes += n; }

static void pong(struct reader *r) {
    static const unsigned char empty[6] = {0x8a, 0x80, 0, 0, 0, 0};
    if (write(r->fd, empty, sizeof empty) < 0) r->open = 0;
}

/* Output bytes of a JSON text frame ["stdout", "..."]: an escape counts as the one character it stands for. */
static void count_json(struct reader *r, const unsigned char *p, size_t n) {
    uint64_t total = 0;
    const unsigned char *end = p + n;
    while (p < end) {
        if (r->hex) { r->hex--; p++; continue; }
        if (r->escaped) {
            r->escaped = 0;
            total++;
            if (*p++ == 'u') r->hex = 4;
            continue;
        }
        const unsigned char *q = memchr(p, '\\', end - p);
        if (!q) { total += end - p; break; }
        total += q - p;
        r->escaped = 1;
        p = q + 1;
    }
    count(r, total);
}

static void begin_payload(struct reader *r) {
    r->seen = 0;
    r->data_kind = mode == BINARY ? r->opcode == 2 : mode == JSON ? r->opcode == 1 : r->opcode == 2;
    r->skip_len = mode == OURS ? 16 : 0;
    r->escaped = r->hex = 0;
    if (r->opcode == 9) pong(r);
    if (r->opcode == 8) r->open = 0;
    if (r->data_kind) r->frames++; else r->control++;
    /* ["stdout", "  and  "]  are not output */
    if (mode == JSON && r->data_kind) r->bytes -= 14;
}

static int parse_header(struct reader *r) {
    if (r->have < r->need) return 0;
    unsigned len = r->head[1] & 0x7f;
    size_t need = len == 126 ? 4 : len == 127 ? 10 : 2;
    if (r->have < need) { r->need = need; return 0; }
    r->opcode = r->head[0] & 0x0f;
    r->left = len;
    if (len >= 126) {
        r->left = 0;
        for (size_t i = 2; i < need; i++) r->left = r->left << 8 | r->head[i];
    }
    r->have = 0;
    r->need = 2;
    begin_payload(r);
    return 1;
}

static void take(struct reader *r, const unsigned char *p, size_t n) {
    while (n) {
        if (!r->left) {
            r->head[r->have++] = *p++;
            n--;
            parse_header(r);
            continue;
        }
        size_t part = n < r->left ? n : r->left, off = 0;
        if (r->data_kind) {
            if (r->seen < r->skip_len) off = r->skip_len - r->seen < part ? r->skip_len - r->seen : part;
            if (mode == JSON) count_json(r, p, part); else count(r, part - off);
        }
        r->seen += part;
        r->left -= part;
        p += part;
        n -= part;
    }
}

static void drain_once(struct reader *r, unsigned char *buffer, size_t size) {
    ssize_t n = read(r->fd, buffer, size);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) { r->open = 0; return; }
    r->reads++;
    int64_t before = r->bytes;
    if (mode == RAW) { count(r, n); r->frames++; } else take(r, buffer, n);
    if (r->bytes != before && !r->first_ns) r->first_ns = now_ns();
}

static void report(struct reader *r, int n) {
    printf("[");
    for (int i = 0; i < n; i++)
        printf("%s{\"bytes\":%lld,\"frames\":%llu,\"control\":%llu,\"reads\":%llu,\"first\":%llu,\"last\":%llu}", i ? "," : "",
               (long long)r[i].bytes, (unsigned long long)r[i].frames, (unsigned long long)r[i].control,
               (unsigned long long)r[i].reads, (unsigned long long)r[i].first_ns, (unsigned long long)r[i].last_ns);
    printf("]\n");
}

static void on_stop(int sig) { (void)sig; stopped = 1; }

/* drain MODE TOTAL_BYTES FD...   (0 bytes: until the end or SIGTERM) */
int main(int argc, char **argv) {
    static const char *const names[] = {"raw", "binary", "ours", "json"};
    if (argc < 4) return 2;
    for (int i = 0; i < 4; i++) if (!strcmp(argv[1], names[i])) mode = i;
    int64_t total = strtoll(argv[2], 0, 10);
    int n = argc - 3, live = n;
    struct reader *r = calloc(n, sizeof *r);
    struct pollfd *p = calloc(n, sizeof *p);
    unsigned char *buffer = malloc(BUFFER_BYTES);
    struct sigaction stop = {.sa_handler = on_stop};
    sigaction(SIGTERM, &stop, 0);
    for (int i = 0; i < n; i++) {
        r[i].fd = atoi(argv[3 + i]);
        r[i].open = 1;
        r[i].need = 2;
        p[i] = (struct pollfd){r[i].fd, POLLIN, 0};
    }
    size_t size = mode == RAW ? BARE_BYTES : BUFFER_BYTES;
    while (live && !stopped) {
        /* One descriptor: a plain blocking read, nothing in its way. */
        if (n > 1 && poll(p, n, STALL_MS) <= 0) break;
        for (int i = 0; i < n; i++) {
            if (!r[i].open || (n > 1 && !p[i].revents)) continue;
            drain_once(&r[i], buffer, size);
            if ((total && r[i].bytes >= total) || !r[i].open) {
                r[i].last_ns = now_ns();
                r[i].open = 0;
                p[i].fd = -1;
                live--;
            }
        }
    }
    for (int i = 0; i < n; i++) if (!r[i].last_ns) r[i].last_ns = now_ns();
    report(r, n);
    return 0;
}
