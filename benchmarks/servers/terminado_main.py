"""terminado as Jupyter runs it: one tornado application, terminals by name; the name carries the argv."""

import asyncio
import json
import signal
from typing import Any
from urllib.parse import unquote

import terminado
import tornado.httpserver
import tornado.netutil
import tornado.web


class ArgvManager(terminado.NamedTermManager):
    """Starts what the name says, so that one server serves every load; one name is one terminal."""

    def get_terminal(self, term_name: str | None = None) -> Any:
        name = unquote(term_name or "")
        if name not in self.terminals:
            self.shell_command = json.loads(name.partition(":")[2])
            terminal = self.new_terminal()
            terminal.term_name = name
            self.terminals[name] = terminal
            self.start_reading(terminal)
        return self.terminals[name]

    def client_disconnected(self, websocket: Any) -> None:
        """Ends a terminal with its last viewer: a flood that nobody sees would disturb what comes next."""
        if websocket.terminal and not websocket.terminal.clients:
            websocket.terminal.killpg(signal.SIGKILL)


async def main() -> None:
    manager = ArgvManager(shell_command=["true"], max_terminals=2000)
    application = tornado.web.Application([(r"/(.*)", terminado.TermSocket, {"term_manager": manager})])
    (listener,) = tornado.netutil.bind_sockets(0, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_socket(listener)
    print(listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
