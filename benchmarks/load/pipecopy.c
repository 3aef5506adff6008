/* The limit of pipe output: what comes in at descriptor 0 goes to the socket at descriptor 1, 64 KiB at a time. */
#include <unistd.h>

int main(void) {
    static char buffer[64 << 10];
    ssize_t n;
    while ((n = read(0, buffer, sizeof buffer)) > 0)
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(1, buffer + done, n - done)) <= 0) return 1;
    return 0;
}
