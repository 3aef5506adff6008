"""Every message of the protocol as a struct, by domain: `from mhnos_runtime.wire import messages as m`.

Knows which messages there are, by direction (docs/protocol.md is the reference); must not know what a server
does with them.
"""

from __future__ import annotations

from typing import TypeAlias

from mhnos_runtime.wire.messages.base import (
    MAX_ID_BYTES,
    MAX_INTEGER,
    MAX_NAME,
    Count,
    Handle,
    Integer,
    Message,
    Milliseconds,
    Name,
    Offset,
    Part,
    Path,
    ProcessName,
    RequestId,
    Stream,
    Title,
    Word,
)
from mhnos_runtime.wire.messages.events import (
    Happening,
    ProcessEvent,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from mhnos_runtime.wire.messages.files import (
    CopyFile,
    DirectoryMade,
    EmptyTrash,
    FileChange,
    FileCopied,
    FileInfo,
    FileKind,
    FileList,
    FileMatch,
    FileMoved,
    FileName,
    FileRemoved,
    FileRestored,
    FilesChanged,
    FileSearchResult,
    FileStat,
    FilesUnwatched,
    FilesWatched,
    ListFiles,
    ListTrash,
    MakeDirectory,
    MoveFile,
    RemoveFile,
    RestoreFile,
    SearchFiles,
    StatFile,
    TrashEmptied,
    TrashId,
    TrashItem,
    TrashList,
    UnwatchFiles,
    Version,
    WatchFiles,
)
from mhnos_runtime.wire.messages.fsync import (
    MAX_MESSAGE_BYTES,
    FileContent,
    FileEntry,
    FileFailure,
    Fsync,
    FsyncResult,
    Mtime,
    PushResults,
)
from mhnos_runtime.wire.messages.input import (
    DEFAULT_COLS,
    DEFAULT_ROWS,
    MAX_CELLS,
    Cells,
    CloseStdin,
    InputAck,
    InputOpened,
    OpenInput,
    PtySize,
    Resize,
    StdinClosed,
    Write,
)
from mhnos_runtime.wire.messages.output import (
    Ack,
    Attach,
    Attached,
    Detach,
    Detached,
    Gap,
    Output,
    Replay,
    Stderr,
    Stdout,
)
from mhnos_runtime.wire.messages.processes import (
    Credentials,
    CredentialsAnswer,
    Exit,
    ExitInfo,
    ExitReason,
    Inspect,
    Inspected,
    Isolation,
    Kill,
    Killed,
    List,
    Port,
    Ports,
    ProcessInfo,
    ProcessLimits,
    ProcessList,
    ProcessStats,
    ProcessStatus,
    ProcessUsage,
    Readiness,
    Ready,
    ReadyState,
    Remove,
    Removed,
    Rename,
    Renamed,
    Stats,
)
from mhnos_runtime.wire.messages.search import (
    Search,
    SearchMatch,
    SearchResult,
    Timeline,
    TimelineAnswer,
)
from mhnos_runtime.wire.messages.server import (
    PROTOCOL,
    PROTOCOL_VERSION,
    SUBPROTOCOL,
    TOKEN_SUBPROTOCOL_PREFIX,
    Connected,
    ErrorMessage,
    Limits,
    Ping,
    Pong,
    ServerConfig,
    ServerStats,
    Status,
    StatusAnswer,
)
from mhnos_runtime.wire.messages.spawning import (
    Plan,
    Planned,
    PortName,
    PortNumber,
    Spawn,
    Spawned,
    SpawnLimits,
    SpawnOptions,
    WorkerConfig,
    WorkerConfigText,
    WorkerOptions,
)

Request: TypeAlias = (
    Spawn
    | WorkerConfig
    | Credentials
    | Plan
    | Attach
    | Detach
    | Write
    | CloseStdin
    | OpenInput
    | Resize
    | Kill
    | List
    | Status
    | Ping
    | Stats
    | Rename
    | Inspect
    | Remove
    | Subscribe
    | Unsubscribe
    | Timeline
    | Search
    | Ack
    | Fsync
    | ListFiles
    | StatFile
    | MakeDirectory
    | MoveFile
    | CopyFile
    | RemoveFile
    | ListTrash
    | RestoreFile
    | EmptyTrash
    | SearchFiles
    | WatchFiles
    | UnwatchFiles
)
Answer: TypeAlias = (
    Connected
    | Spawned
    | WorkerConfigText
    | CredentialsAnswer
    | Planned
    | Attached
    | Detached
    | StdinClosed
    | InputOpened
    | Killed
    | ProcessList
    | StatusAnswer
    | Pong
    | ProcessStats
    | Renamed
    | Inspected
    | Removed
    | Subscribed
    | Unsubscribed
    | TimelineAnswer
    | SearchResult
    | FsyncResult
    | FileList
    | FileStat
    | DirectoryMade
    | FileMoved
    | FileCopied
    | FileRemoved
    | TrashList
    | FileRestored
    | TrashEmptied
    | FileSearchResult
    | FilesWatched
    | FilesUnwatched
    | ErrorMessage
)
Event: TypeAlias = (
    Stdout | Stderr | Exit | Gap | Replay | Ready | Ports | InputAck | ProcessEvent | FilesChanged
)
ServerMessage: TypeAlias = Answer | Event
