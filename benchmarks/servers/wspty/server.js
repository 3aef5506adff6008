// A web terminal as most are built: one ws connection, one node-pty process, one message for each data event.
// Set up to favour it: binary messages, no decoding, no compression, no Nagle delay, no logging.
"use strict";
const http = require("node:http");
const { spawn } = require("node:child_process");
const pty = require("node-pty");
const { WebSocketServer } = require("ws");

const processes = new Map();

function start(argv, usePty) {
  if (!usePty) {
    const child = spawn(argv[0], argv.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    return {
      onData: (f) => child.stdout.on("data", f),
      write: (d) => child.stdin.write(d),
      kill: () => child.kill("SIGKILL"),
    };
  }
  const term = pty.spawn(argv[0], argv.slice(1), { cols: 100, rows: 30, encoding: null });
  return {
    onData: (f) => term.onData(f),
    write: (d) => term.write(d),
    kill: () => { try { term.kill("SIGKILL"); } catch { /* it has ended */ } },
  };
}

function attach(socket, process) {
  process.viewers.add(socket);
  socket.on("message", (data) => process.write(data));
  socket.on("close", () => {
    process.viewers.delete(socket);
    if (process.viewers.size === 0) { process.kill(); processes.delete(process.id); }
  });
}

function launch(id, argv, usePty) {
  const process = start(argv, usePty);
  process.id = id;
  process.viewers = new Set();
  process.onData((data) => { for (const socket of process.viewers) socket.send(data); });
  processes.set(id, process);
  return process;
}

const server = http.createServer();
const wss = new WebSocketServer({ server, perMessageDeflate: false });
wss.on("connection", (socket, request) => {
  const query = new URL(request.url, "http://peer").searchParams;
  const id = query.get("id");
  if (query.get("late")) {
    // The spawn benchmark: the connection is there first, its first message starts the process.
    socket.once("message", () => attach(socket, launch(id, JSON.parse(query.get("argv")), true)));
    return;
  }
  attach(socket, processes.get(id) ?? launch(id, JSON.parse(query.get("argv")), query.get("pty") !== "0"));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
