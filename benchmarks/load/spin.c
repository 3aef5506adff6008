/* One SCHED_IDLE spinner a CPU: keeps the CPUs of a virtual machine from halting, and yields to everything else. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

static void spin(int cpu) {
    cpu_set_t set;
    struct sched_param zero = {0};
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (sched_setaffinity(0, sizeof set, &set) || sched_setscheduler(0, SCHED_IDLE, &zero)) _exit(1);
    for (;;) __asm__ volatile("" ::: "memory");
}

int main(void) {
    cpu_set_t all;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (sched_getaffinity(0, sizeof all, &all)) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && !fork()) spin(cpu);
    for (;;) pause();
}
