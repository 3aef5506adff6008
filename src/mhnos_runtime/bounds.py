"""How large what comes in may be, with the reason beside each number: one table for server and supervisor.

What a process's record is made of is bounded here, so that every record fits into one message between the
two, however its texts are escaped. Knows numbers only.
"""

from __future__ import annotations

#: Bytes of one message between server and supervisor: with the kernel's own share it fits into a socket's
#: default send buffer of 208 KiB.
MESSAGE_BYTES = 160 * 1024

# The parts of a record, in bytes of JSON as it is sent. Their sum is what one message carries.

#: The facts about a process at its start. A launch plan has command and arguments twice, so that those of one
#: that fits into a message are half of it.
FACTS_BYTES = 112 * 1024
#: What is found out about a process later: 64 ports of some 420 bytes each are 27 KiB.
FOUND_BYTES = 40 * 1024
#: The rest of a record and of the message around it: numbers, names of signals, a sentence of evidence.
FRAME_BYTES = MESSAGE_BYTES - FACTS_BYTES - FOUND_BYTES
#: What an event has beside the record.
ENVELOPE_BYTES = 1024
#: What a server has the next one know of the token: a digest and some numbers.
TOKEN_BYTES = 1000
#: How deep facts may be nested; the server's own are 4 levels deep.
FACTS_DEPTH = 16
#: Of a record as a file, where each character may be escaped (6 bytes for one).
RECORD_FILE_BYTES = 6 * MESSAGE_BYTES

# Numbers

#: Pids and OS pids: what the kernel's pid_t and a notice's field hold.
MAX_PID = 2**31 - 1
#: The largest that JavaScript counts exactly.
MAX_INTEGER = 2**53 - 1
#: The longest time, ms: what a JavaScript timer and a 32-bit client can name (24.8 days).
MAX_MS = 2**31 - 1
#: Columns or rows: an unsigned short in the kernel (ioctl_tty(2), struct winsize).
MAX_CELLS = 65_535
#: Real-time signals end here (signal(7)).
MAX_SIGNAL = 64
#: Of the output of one process, as the setting retention_bytes allows it.
MAX_RETENTION_BYTES = 1 << 30

# Texts of requests, in characters unless bytes are named

#: A name for people.
NAME_CHARACTERS = 1024
#: A path: PATH_MAX of Linux.
PATH_CHARACTERS = 4096
#: A word out of a short list: a kind, a network, a signal, an operation.
WORD_CHARACTERS = 128
#: The name of a port, as templates and workerd's configs have them.
PORT_NAME_CHARACTERS = 64
#: Ports named by one request. 16 are given.
PORTS = 64
#: Arguments, and variables, of one program.
ARGUMENTS = 8192
VARIABLES = 4096
#: Command, arguments and environment together, UTF-8: more does not fit into one message.
COMMAND_BYTES = MESSAGE_BYTES
#: Bindings, modules, flags and variables in one Worker's config.
WORKER_ITEMS = 1024

# Facts: what a program tells of itself

#: UTF-8 bytes of a port's name as workerd tells it.
TOLD_NAME_BYTES = 128
#: What is read from one control socket in all: workerd's events are some 60 bytes, one for each socket.
TOLD_BYTES = 256 * 1024
#: Patterns and URLs of an operator's kinds: they are kept with each process that is watched.
PATTERN_CHARACTERS = 1024
