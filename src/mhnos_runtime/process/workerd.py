"""workerd's kind, and its config made from a script and options: values in, Cap'n Proto text out. Touches no
file but through the context.

The fields are those of workerd.capnp, the schema inside workerd's npm package.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from mhnos_runtime.config.kinds import ReadySetting
from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.process.kind import Hooks, Kind, Script, StartContext
from mhnos_runtime.wire.messages import WorkerOptions

#: What the config is generated for; anything else is a config already.
SCRIPTS = (".js", ".mjs")
#: The socket of a generated config.
SOCKET = "http"
#: Of the behaviours that workerd's pinned version has, the newest.
COMPATIBILITY_DATE = "2026-11-17"

#: Field of Worker.Module by the module's ending; "data" for all others.
_MODULES = {
    ".js": "esModule",
    ".mjs": "esModule",
    ".cjs": "commonJsModule",
    ".json": "json",
    ".wasm": "wasm",
    ".txt": "text",
    ".html": "text",
    ".css": "text",
    ".sql": "text",
    ".md": "text",
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_FLAG = re.compile(r"[a-z0-9_]{1,100}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPES = {byte: f"\\x{byte:02x}" for byte in range(256) if not 0x20 <= byte < 0x7F or byte in b'"\\'}
#: V8 counts in MiB; below this it cannot load a worker.
LEAST_HEAP_MB = 16
#: Of a worker's options as JSON: as much as command, arguments and environment may have. Each byte becomes up
#: to four in the config, and each module a path to be looked up.
MAX_OPTIONS_BYTES = 160 << 10


@dataclass(frozen=True, slots=True)
class Options:
    """bindings: by name; a text is bound as text, everything else as JSON. environment: variables of the
    process that are bound by their names, whose values the config does not hold. modules: further files
    beside the script, which it imports by these names. heap_mb: of all the worker's JavaScript; 0: V8's own
    choice. outbound: what `fetch` reaches: public addresses, or nothing."""

    bindings: Mapping[str, Any] = field(default_factory=dict)
    environment: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    compatibility_date: str = COMPATIBILITY_DATE
    compatibility_flags: tuple[str, ...] = ()
    heap_mb: int = 0
    outbound: Literal["public", "none"] = "public"


class _Workerd(Hooks):
    def program(self, script: Script, context: StartContext) -> tuple[str, tuple[str, ...]]:
        """The path of a config: the client's own, or one that is generated for a script. Of a generated one a
        file in the workspace where the client wants to keep it, else a file in memory."""
        if is_script(script.command):
            return _placed(script, context), (SOCKET,)
        if script.worker is not None:
            raise InvalidRequest(
                f"worker: {script.command} is a config; expected a .js or .mjs file",
                hint="put what it says into the config",
            )
        return config_path(context, context.normalise(script.command)), ()


WORKERD = Kind(
    "workerd",
    (
        *(
            "{engine:workerd}",
            "serve",
            "--import-path=/",
            "--control-fd={control}",
            "--socket-fd={name:*}={socket:*}",
        ),
        *("{command}", "{args}"),
    ),
    named_sockets=True,
    events=True,
    ready=ReadySetting(),
    early_exit="config",
    hooks=_Workerd(),
)


def config_path(context: StartContext, path: str) -> str:
    """How workerd is to be told of a config: relative to its folder where that is possible, since it shows
    paths in its errors as they were given. path: in the workspace."""
    if context.cwd == "/" or path.startswith(context.cwd + "/"):
        return posixpath.relpath(path, context.cwd)
    return context.home + path


def _placed(script: Script, context: StartContext) -> str:
    asked = script.worker
    if asked is not None and asked.keep is not None:
        path = context.normalise(asked.keep)
        if not context.write_new(path, generate(script, context, posixpath.dirname(path))):
            raise InvalidRequest(f"{path} is there already", hint="run it as it is, or remove it")
        return config_path(context, path)
    return f"/proc/self/fd/{context.hand(generate(script, context))}"


def generate(script: Script, context: StartContext, kept_in: str | None = None) -> str:
    """The config for a script. kept_in: the folder of the workspace that it will lie in; None: nowhere.

    Raises InvalidRequest, NotFound and Refused for a script or module that cannot be taken.
    """
    options = _options(script.worker or WorkerOptions(), context.network)
    folder = posixpath.dirname(script.real)
    for name in options.modules:
        context.real(name, folder)
    if kept_in is None:
        seen = posixpath.join(context.home + folder, "")
    else:
        below = posixpath.relpath(folder, kept_in)
        seen = "" if below == "." else below + "/"
    return config(posixpath.basename(script.real), seen, options)


def _options(asked: WorkerOptions, network: str) -> Options:
    """What the client wants, as far as the policy lets it out. Raises InvalidRequest."""
    size = len(msgspec.json.encode(asked))
    if size > MAX_OPTIONS_BYTES:
        raise InvalidRequest(
            f"worker: {size} bytes; at most {MAX_OPTIONS_BYTES}",
            code="too-large",
            hint="write a config, and name it as the command",
        )
    inside = network != "host"
    try:
        bindings: dict[str, Any] = {
            name: msgspec.json.decode(value) for name, value in asked.bindings.items()
        }
    except (ValueError, RecursionError):
        raise InvalidRequest("worker.bindings: nested too deeply, or not JSON") from None
    return Options(
        bindings=bindings,
        environment=tuple(asked.environment),
        modules=tuple(asked.modules),
        compatibility_date=asked.compatibility_date or COMPATIBILITY_DATE,
        compatibility_flags=tuple(asked.compatibility_flags),
        heap_mb=asked.heap_mb,
        outbound="none" if inside else asked.outbound,
    )


def is_script(command: str) -> bool:
    return command.endswith(SCRIPTS)


def config(script: str, folder: str, options: Options) -> str:
    """The text of a config. script: its name. folder: where it and its modules are found, as workerd sees it,
    ending in a slash or empty. Raises InvalidRequest for an option that workerd could not take."""
    _check(options)
    allowed = "" if options.outbound == "none" else '"public"'
    parts = [
        f"# Made by the MHNOS runtime for {script!r}.",
        'using Workerd = import "/workerd/workerd.capnp";',
        "",
        "const config :Workerd.Config = (",
        "  services = [",
        '    (name = "main", worker = .worker),',
        f'    (name = "internet", network = (allow = [{allowed}], tlsOptions = (trustBrowserCas = true))),',
        "  ],",
        f'  sockets = [(name = "{SOCKET}", address = "127.0.0.1:0", http = (), service = "main")],',
        *([f'  v8Flags = ["--max-old-space-size={options.heap_mb}"],'] if options.heap_mb else []),
        ");",
        "",
        "const worker :Workerd.Worker = (",
        "  modules = [",
        *(f"    {_module(name, folder)}," for name in (script, *options.modules)),
        "  ],",
        f"  compatibilityDate = {_text(options.compatibility_date)},",
        *_list("compatibilityFlags", [_text(flag) for flag in options.compatibility_flags]),
        *_list("bindings", _bindings(options)),
        ");",
        "",
    ]
    return "\n".join(parts)


def _check(options: Options) -> None:
    if not _DATE.match(options.compatibility_date):
        raise InvalidRequest(
            f"worker.compatibilityDate is {options.compatibility_date!r}; expected a date such as 2026-11-17"
        )
    for flag in options.compatibility_flags:
        if not _FLAG.match(flag):
            raise InvalidRequest(
                f"worker.compatibilityFlags has {flag!r}; expected one such as nodejs_compat"
            )
    for name in options.environment:
        if not _VARIABLE.match(name):
            raise InvalidRequest(f"worker.environment has {name!r}; expected a variable's name")
    for name in (*options.bindings, *options.modules):
        if not name or "\0" in name:
            raise InvalidRequest(f"worker has the name {name!r}; expected one that is not empty")
    if options.heap_mb and options.heap_mb < LEAST_HEAP_MB:
        raise InvalidRequest(f"worker.heapMb is {options.heap_mb}; expected at least {LEAST_HEAP_MB}")


def _module(name: str, folder: str) -> str:
    ending = posixpath.splitext(name)[1]
    return f"(name = {_text(name)}, {_MODULES.get(ending, 'data')} = embed {_text(folder + name)})"


def _bindings(options: Options) -> list[str]:
    rows = [
        f"(name = {_text(name)}, text = {_text(value)})"
        if isinstance(value, str)
        else f"(name = {_text(name)}, json = {_text(_json(value))})"
        for name, value in options.bindings.items()
    ]
    return rows + [f"(name = {_text(name)}, fromEnvironment = {_text(name)})" for name in options.environment]


def _list(field_name: str, rows: list[str]) -> list[str]:
    return [f"  {field_name} = [", *(f"    {row}," for row in rows), "  ],"] if rows else []


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        raise InvalidRequest("worker.bindings: nested too deeply") from None


def _text(value: str) -> str:
    """A Cap'n Proto text literal. All but plain ASCII as bytes of its UTF-8."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{value!r} is not Unicode text") from None
    return f'"{data.decode("latin-1").translate(_ESCAPES)}"'
