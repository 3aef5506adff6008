# A Cloudflare Worker with the modules of Node.js (node:buffer, node:crypto, node:util ...): worker.js beside
# this file, reached by HTTP. `fetch` in it reaches public addresses only.
#
# mhnos-runtime run workerd nodejs-compat.capnp               listens on the address below
# mhnos-runtime run --port http workerd nodejs-compat.capnp   listens on a free port that the runtime finds

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "internet", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [
    (name = "http", address = "127.0.0.1:8080", http = (), service = "main"),
  ],
);

const worker :Workerd.Worker = (
  modules = [
    (name = "worker.js", esModule = embed "worker.js"),
  ],
  compatibilityDate = "2026-11-17",
  compatibilityFlags = ["nodejs_compat"],
  bindings = [
    (name = "GREETING", text = "hello"),
  ],
);
