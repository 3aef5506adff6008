"""Limits on everything that comes in, with the reason beside each number, for server and supervisor.

The parts of a process's record are bounded so that every record fits into one message between the two,
however its texts are escaped. Knows numbers only.
"""

from __future__ import annotations

#: Bytes of one message between server and supervisor. With the kernel's share it fits into a socket's default
#: send buffer of 208 KiB.
MESSAGE_BYTES = 160 * 1024

# The parts of a record, in bytes of JSON as sent. Together they fit into one message.

#: Facts about a process at its start. A launch plan contains command and arguments twice, the facts once:
#: half of a message is enough.
FACTS_BYTES = 112 * 1024
#: Facts that are found later: 64 ports of some 420 bytes each are 27 KiB.
FOUND_BYTES = 40 * 1024
#: The rest of a record and its message: numbers, names of signals, a sentence of evidence.
FRAME_BYTES = MESSAGE_BYTES - FACTS_BYTES - FOUND_BYTES
#: An event without its record.
ENVELOPE_BYTES = 1024
#: What a server leaves the next one about the token: a digest and some numbers.
TOKEN_BYTES = 1000
#: Nesting of facts; the server's own are 4 levels deep.
FACTS_DEPTH = 16
#: A record as a file, where each character may be escaped (up to 6 bytes).
RECORD_FILE_BYTES = 6 * MESSAGE_BYTES

# Numbers

#: Pids and OS pids: the range of the kernel's pid_t and of a notice's field.
MAX_PID = 2**31 - 1
#: The largest integer that JavaScript represents exactly.
MAX_INTEGER = 2**53 - 1
#: The longest time, ms: the range of a JavaScript timer (24.8 days).
MAX_MS = 2**31 - 1
#: Columns or rows: an unsigned short in the kernel (ioctl_tty(2), struct winsize).
MAX_CELLS = 65_535
#: Real-time signals end here (signal(7)).
MAX_SIGNAL = 64
#: Output of one process that the setting retention_bytes can keep.
MAX_RETENTION_BYTES = 1 << 30

# Texts of requests, in characters unless bytes are named

#: A name that somebody else gave: of a binding, of a variable.
TITLE_CHARACTERS = 1024
#: A name of a process: short enough to type, and below the 63 of a label of a host name (RFC 1035, 2.3.4).
NAME_CHARACTERS = 40
#: A path: PATH_MAX of Linux.
PATH_CHARACTERS = 4096
#: A word of a short list: a kind, a network, a signal, an operation.
WORD_CHARACTERS = 128
#: The name of a port in templates and workerd's configs.
PORT_NAME_CHARACTERS = 64
#: Ports named by one request; a process gets at most 16.
PORTS = 64
#: Arguments, and variables, of one program.
ARGUMENTS = 8192
VARIABLES = 4096
#: Folders of a PATH, each of which is looked at on the event loop.
PATH_FOLDERS = 256
#: Command, arguments and environment together, UTF-8; more does not fit into one message.
COMMAND_BYTES = MESSAGE_BYTES
#: Bindings, modules, flags and variables in one Worker's config.
WORKER_ITEMS = 1024

# Files

#: Of one name: NAME_MAX of Linux, in bytes; a character has one at least. One more marks a name that is not
#: UTF-8.
FILE_NAME_CHARACTERS = 256
#: Entries of a directory, or of the trash, in one answer: some 200 bytes each.
LISTED_FILES = 5000
LISTED_FILES_USUAL = 1000
#: Changes that one event of a watch names; beyond that, its reader looks for itself.
NAMED_CHANGES = 1000
#: Watches of one connection, and lines of what one of them passes over.
WATCHES = 32
IGNORE_LINES = 100

# Searches

#: Processes that one search names; more are kept by no setting that people use.
SEARCHED_PROCESSES = 1024
#: Matches that one search answers with, and where it names no number.
MATCHES = 10_000
MATCHES_USUAL = 1000
#: Lines before each match, and behind it, that go along.
LINES_AROUND = 20

# Facts that a program reports about itself

#: UTF-8 bytes of a port's name in workerd's reports.
TOLD_NAME_BYTES = 128
#: Read from one control socket in all: workerd's events are some 60 bytes, one for each socket.
TOLD_BYTES = 256 * 1024
#: Patterns and URLs of an operator's kinds, which are kept with each watched process; patterns of searches.
PATTERN_CHARACTERS = 1024
