# A Cloudflare Worker: worker.js beside this file, reached by HTTP.
#
# mhnos-runtime run workerd default.capnp               listens on the address below
# mhnos-runtime run --port http workerd default.capnp   listens on a free port that the runtime finds

using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
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
);
