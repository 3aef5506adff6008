"""What the supervisor starts as its server in these tests: passes every message on to the test, and back.

Knows nothing of what the messages mean. Arguments: the test's address, the channel's descriptor.
"""

from __future__ import annotations

import select
import signal
import socket
import sys

LIMIT = 1 << 18


def relay(source: socket.socket, target: socket.socket) -> bool:
    data, descriptors, _flags, _address = socket.recv_fds(source, LIMIT, 64)
    if not data:
        return False
    socket.send_fds(target, [data], descriptors)
    for fd in descriptors:
        socket.close(fd)
    return True


def main() -> None:
    test = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    test.connect("\0" + sys.argv[1])
    supervisor = socket.socket(fileno=int(sys.argv[2]))
    supervisor.setblocking(True)
    ends = {test.fileno(): (test, supervisor), supervisor.fileno(): (supervisor, test)}
    poll = select.poll()  # select(2) knows no descriptor above 1023
    for fd in ends:
        poll.register(fd, select.POLLIN)
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ending.append(number))
    while True:
        ready = poll.poll(50)
        if ending and not ready:
            return
        for fd, _events in ready:
            if not relay(*ends[fd]):
                return


if __name__ == "__main__":
    main()
