"""A small server of files for tests of the client: GET with Range and If-Match, PUT with conditions, archives
as bytes, uploads by tus 1.0. It checks what it is asked as the runtime does, and keeps all in memory."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from mhnos_runtime.client.discovery import Target

TOKEN = "t" * 43


def version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


class ContentServer:
    """A context manager. `files`: content by path. `lines`: the requests that came, as "GET /path"."""

    def __init__(self, base_path: str = "", cut: Callable[[str], int | None] | None = None) -> None:
        """cut: for a request's line, after so many bytes of the answer's body the connection ends."""
        self.files: dict[str, bytes] = {}
        self.attributes: dict[str, tuple[str, str]] = {}
        self.uploads: dict[str, tuple[dict[str, str], int, bytearray]] = {}
        self.writers: dict[str, object] = {}
        self.lock = threading.Lock()
        self.refuse_uploads: tuple[int, str, str] | None = None
        self.metadata: dict[str, str] = {}
        self.lines: list[str] = []
        self.connections = 0
        self.base_path = base_path
        self.cut = cut or (lambda _line: None)
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.port = self._server.server_address[1]
        self.target = Target(f"http://127.0.0.1:{self.port}{base_path}", TOKEN, "a test")

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"owner": self})

    def __enter__(self) -> ContentServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is what the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ContentServer

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1

    def log_message(self, *_args: Any) -> None:
        pass

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass

    def handle_expect_100(self) -> bool:
        if (refused := self._refusal()) is not None:
            self._problem(*refused)
            return False
        return super().handle_expect_100()

    def parse_request(self) -> bool:
        self._refused = False
        good = super().parse_request()
        if good:
            self.owner.lines.append(f"{self.command} {self.path}")
        return good

    # GET, HEAD

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if (refused := self._refusal()) is not None:
            self._problem(*refused)
            return
        if self._path.startswith("/v1/uploads/"):
            _, size, data = self.owner.uploads[self._path.rpartition("/")[2]]
            self._answer(200, b"", {"Upload-Offset": str(len(data)), "Upload-Length": str(size), **_TUS})
            return
        content = self.owner.files[self._name]
        if self.path.endswith("?archive=tar"):
            self._chunks(content)
            return
        mode, mtime = self.owner.attributes.get(self._name, ("0644", "0"))
        headers = {"ETag": f'"{version(content)}"', "Mhnos-Mode": mode, "Mhnos-Mtime": mtime}
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, size = int(found[1]), len(content)
            if start >= size:
                self._problem(416, "range", "nothing is there")
                return
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self._answer(206, content[start:], headers)
            return
        self._answer(200, content, headers)

    # PUT

    def do_PUT(self) -> None:
        if (body := self._body()) is None:
            return
        if (refused := self._refusal()) is not None:
            self._problem(*refused)
            return
        new = self._name not in self.owner.files
        self.owner.files[self._name] = body
        if self.path.endswith("?archive=tar"):
            self._json(200, {"written": 1, "bytes": len(body), "failed": 0, "failures": []})
            return
        self.owner.attributes[self._name] = (
            self.headers.get("Mhnos-Mode", "0644"),
            self.headers.get("Mhnos-Mtime", "0"),
        )
        self._json(201 if new else 200, {"file": self._info(self._name)})

    # tus

    def do_POST(self) -> None:
        if (refused := self._refusal()) is not None:
            self._problem(*refused)
            return
        metadata = {}
        for each in self.headers["Upload-Metadata"].split(","):
            name, _, value = each.partition(" ")
            metadata[name] = base64.b64decode(value).decode()
        self.owner.metadata = metadata
        if self.owner.refuse_uploads is not None:
            self._problem(*self.owner.refuse_uploads)
            return
        number = f"upload-{len(self.owner.uploads)}"
        self.owner.uploads[number] = (metadata, int(self.headers["Upload-Length"]), bytearray())
        place = f"http://elsewhere.example{self.owner.base_path}/v1/uploads/{number}"
        self._answer(201, b"", {"Location": place, **_TUS})

    def do_PATCH(self) -> None:
        if (refused := self._refusal()) is not None:
            self._problem(*refused)
            return
        upload, me = self._path.rpartition("/")[2], object()
        metadata, size, data = self.owner.uploads[upload]
        with self.owner.lock:
            fits = self.headers["Upload-Offset"] == str(len(data))
            if fits:
                # Whoever wrote before is cut off by now, though it may not know that yet.
                self.owner.writers[upload] = me
        if not fits:
            self.rfile.read(int(self.headers["Content-Length"]))  # else it is taken for the next request
            self._problem(409, "offset-mismatch", "it is elsewhere")
            return
        left = int(self.headers["Content-Length"])
        most = self.owner.cut(f"{self.command} {self.path}")
        while left and most != 0:
            piece = self.rfile.read1(min(left, 1 << 16, most or 1 << 16))
            with self.owner.lock:
                if not piece or self.owner.writers[upload] is not me:
                    break
                data += piece
            left -= len(piece)
            most = None if most is None else most - len(piece)
        if left or most == 0:
            self._hang_up()
            return
        headers = {"Upload-Offset": str(len(data)), **_TUS}
        if len(data) == size:
            self.owner.files[metadata["path"]] = bytes(data)
            self.owner.attributes[metadata["path"]] = (
                metadata.get("mode", "0644"),
                metadata.get("mtime", "0"),
            )
        self._answer(204, b"", headers)

    def do_DELETE(self) -> None:
        del self.owner.uploads[self._path.rpartition("/")[2]]
        self._answer(204, b"", _TUS)

    # Parts of all

    @property
    def _path(self) -> str:
        return self.path.partition("?")[0].removeprefix(self.owner.base_path)

    @property
    def _name(self) -> str:
        return unquote(self._path.removeprefix("/v1/files"))

    def _refusal(self) -> tuple[int, str, str] | None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, "unauthorized", "The token is wrong"
        if self._path.startswith("/v1/uploads"):
            known = self.command == "POST" or self._path.rpartition("/")[2] in self.owner.uploads
            return None if known else (404, "not-found", "No such upload")
        assert self._path.startswith("/v1/files/"), self.path
        content = self.owner.files.get(self._name)
        wanted = self.headers.get("If-Match")
        if wanted and (content is None or wanted != f'"{version(content)}"'):
            return 412, "changed", "It has changed"
        if self.headers.get("If-None-Match") == "*" and content is not None:
            return 412, "already-exists", "It is there"
        if content is None and self.command in ("GET", "HEAD"):
            return 404, "not-found", f"No such file or directory: {self._name}"
        return None

    def _body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = bytearray()
            while size := int(self.rfile.readline() or b"-1", 16):
                if size < 0:
                    return None
                whole += self.rfile.read(size)
                if self.rfile.readline() != b"\r\n":
                    return None
            self.rfile.readline()
            return bytes(whole)
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        return body if len(body) == size else None

    def _info(self, name: str) -> dict[str, Any]:
        content = self.owner.files[name]
        mode, mtime = self.owner.attributes[name]
        return {
            "path": name,
            "kind": "file",
            "size": len(content),
            "mode": int(mode, 8),
            "mtime": int(mtime),
            "version": version(content),
        }

    def _problem(self, status: int, code: str, text: str) -> None:
        self._json(status, {"error": text, "code": code, "hint": "look"})

    def _json(self, status: int, value: object) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        most = self.owner.cut(f"{self.command} {self.path}") if self.command == "GET" else None
        self.wfile.write(body if most is None else body[:most])
        if most is not None and most < len(body):
            self._hang_up()

    def _chunks(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        most = self.owner.cut(f"{self.command} {self.path}")
        for start in range(0, len(body if most is None else body[:most]), 1000):
            piece = body[start : start + 1000]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        if most is not None:
            self._hang_up()
            return
        self.wfile.write(b"0\r\n\r\n")

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


_TUS = {"Tus-Resumable": "1.0.0"}
