"""What else compose.yaml offers, each for real: relaxed, secrets as files, TLS by Caddy, OpenClaw, limits."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mhnos_runtime.client import Output, connect
from tests.packages.compose import Project, free_port, owned_by_the_image
from tests.packages.engine import IMAGE, Engine
from tests.packages.scene import eventually
from tests.packages.wheel import ROOT, run

pytestmark = pytest.mark.timeout(900)


def test_relaxed_works_with_docker_s_own_profiles(engine: Engine, image: str) -> None:
    with Project(engine, "mhnos-relaxed", "compose.relaxed.yaml") as project:
        project.up()
        settings = engine.inspect(project.container)["HostConfig"]
        assert settings["SecurityOpt"] == ["no-new-privileges:true"]
        assert settings["MaskedPaths"]
        levels = project.levels()
        assert levels["relaxed"]["available"]
        assert levels["strict"] == {"available": False, "missing": ["user namespaces"]}
        assert project.inside("mhnos-runtime", "run", "shell", "cat /proc/1/environ || echo no") == "no\n"


TOKEN = "/var/lib/mhnos-runtime/state/token"


@pytest.fixture(scope="module")
def proxies(engine: Engine) -> str:
    """Those that Debian has, since no registry of images is needed."""
    lines = [f"FROM {engine.base_image()}", "ENV XDG_DATA_HOME=/data"]
    lines += ["RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends caddy nginx-light"]
    lines += ['CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]']
    return engine.build_from(lines, "mhnos-test-proxies")


def test_the_profile_tls_puts_caddy_in_front(
    engine: Engine, image: str, proxies: str, tmp_path: Path
) -> None:
    """With Debian's Caddy, whose own authority signs for localhost."""
    port = free_port()
    settings = {
        "MHNOS_CADDY_IMAGE": proxies,
        "MHNOS_TLS_PUBLISH": f"127.0.0.1:{port}",
        "MHNOS_HTTP_PUBLISH": f"127.0.0.1:{free_port()}",
        "MHNOS_ALLOW_HOST": f"localhost:{port}",
    }
    with Project(engine, "mhnos-tls", profile="tls", **settings) as project:
        project.up()
        root = "/data/caddy/pki/authorities/local/root.crt"
        eventually(lambda: project.call("exec", "-T", "caddy", "test", "-s", root).returncode == 0)
        (tmp_path / "root.pem").write_text(project.run("exec", "-T", "caddy", "cat", root))
        (tmp_path / "token").write_text(project.token)
        check = [sys.executable, "-m", "mhnos_runtime", "check", f"https://localhost:{port}"]
        check += ["--token-file", str(tmp_path / "token")]
        env = {**engine.env, "SSL_CERT_FILE": str(tmp_path / "root.pem")}
        # The authority is there before its certificate for localhost.
        eventually(lambda: subprocess.run(check, env=env, capture_output=True).returncode == 0)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """A token and a certificate of one's own."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    name = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,DNS:desk.example.com,IP:127.0.0.1",
    ]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    run(["openssl", "req", "-x509", *curve, "-keyout", key, "-out", cert, *name], tmp_path)
    for path in (cert, key):
        owned_by_the_image(path, path.read_text())
    token = owned_by_the_image(tmp_path / "token", secrets.token_urlsafe(32) + "\n")
    return {"MHNOS_TOKEN_FILE": token, "MHNOS_TLS_CERT_FILE": cert, "MHNOS_TLS_KEY_FILE": key}


def with_secrets(engine: Engine, given: dict[str, Path]) -> Project:
    settings = {name: str(path) for name, path in given.items()}
    return Project(engine, "mhnos-secrets", "compose.secrets.yaml", **settings)


def test_secrets_are_files_and_the_log_does_not_show_them(
    engine: Engine, image: str, given: dict[str, Path]
) -> None:
    token = given["MHNOS_TOKEN_FILE"].read_text().strip()
    with with_secrets(engine, given) as project:
        project.up()
        url = f"https://127.0.0.1:{project.port}"
        check = [sys.executable, "-m", "mhnos_runtime", "check", url, "--token-file"]
        env = {**engine.env, "SSL_CERT_FILE": str(given["MHNOS_TLS_CERT_FILE"])}
        run([*check, given["MHNOS_TOKEN_FILE"]], ROOT, env)
        assert project.token == token
        assert "mhnos-runtime token shows it" in project.log
        assert token not in project.log
        refused = project.call("exec", "-T", "runtime", "mhnos-runtime", "token", "--rotate")
        assert "cannot be replaced" in refused.stderr
        assert token not in json.dumps(engine.inspect(project.container))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o644), "can be read by others (mode 0644)"),
        (lambda path: os.chown(path, 0, 0), "chown 9999 /var/lib/mhnos-runtime/state/token"),
        (lambda path: path.write_text("short"), "is damaged: expected 32 to 256 of"),
        (lambda path: path.unlink(), "bind source path does not exist"),
    ],
    ids=["open", "of another", "damaged", "missing"],
)
def test_a_wrong_secret_ends_the_start_with_its_reason(
    engine: Engine, image: str, given: dict[str, Path], spoil: Callable[[Path], None], said: str
) -> None:
    spoil(given["MHNOS_TOKEN_FILE"])
    with with_secrets(engine, given) as project:
        done = project.call("run", "--rm", "-T", "runtime")
    assert done.returncode == 1
    assert said in done.stderr


async def test_the_profile_openclaw_runs_its_gateway(engine: Engine, image: str) -> None:
    """Health is asked by OpenClaw's own command, through the client and the published port."""
    tag = engine.build(f"{IMAGE}:openclaw", INSTALL_OPENCLAW="true")
    with Project(
        engine, "mhnos-openclaw", service="openclaw", profile="openclaw", MHNOS_OPENCLAW_IMAGE=tag
    ) as project:
        project.up()
        async with connect(project.url, project.token) as runtime:
            gateway = await runtime.spawn("openclaw", "start")
            serving = await gateway.until_serving()
            assert serving is not None
            assert serving.state == "ready", serving
            asked = await runtime.spawn("openclaw", "gateway", args=["health"])
            said = b"".join([item.data async for item in asked.output() if isinstance(item, Output)])
            assert ((await asked.wait()).code, b"OK" in said) == (0, True), said
            # By itself, however long that takes on a machine that does other things too.
            await gateway.kill(escalate=False)
            assert (await gateway.wait()).code == 0
        project.run("stop")
        assert engine.inspect(project.container)["State"]["ExitCode"] == 0


def test_limits_of_the_container_bite(engine: Engine, image: str) -> None:
    limits = {"MHNOS_CONTAINER_MEMORY": "200m", "MHNOS_CONTAINER_PIDS": "40", "MHNOS_CONTAINER_CPUS": "0.5"}
    with Project(engine, "mhnos-limits", **limits) as project:
        memory = 'import sys; x = bytearray(10**9); print("had it")'
        done = project.call("run", "--rm", "-T", "--entrypoint=python3", "runtime", "-c", memory)
        assert (done.returncode, done.stdout) == (137, "")
        fork = "for i in $(seq 60); do sleep 5 & done; echo all"
        done = project.call("run", "--rm", "-T", "--entrypoint=bash", "runtime", "-c", fork)
        assert "Resource temporarily unavailable" in done.stderr
        spin = "import resource, time; end = time.time() + 2\nwhile time.time() < end: pass\n"
        spin += "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
        used = project.run("run", "--rm", "-T", "--entrypoint=python3", "runtime", "-c", spin)
        assert float(used) < 1.5


#: Page, what its block stands in, how the proxy is started, and where it has its configuration.
SERVER = "server {{ listen 443 ssl; server_name desk.example.com; {tls}\n{block}}}"
SITES = {
    "nginx": ("how-to/remote.md", SERVER, ("nginx", "-g", "daemon off;"), "/etc/nginx/conf.d/desk.conf"),
    "caddyfile": ("operations.md", "{block}", (), "/etc/caddy/Caddyfile"),
}
OVERRIDE = """services:
  runtime:
    extra_hosts: ["desk.example.com:127.0.0.1"]
    volumes: ["{folder}:/tls:ro"]
"""


@pytest.mark.parametrize("kind", SITES)
def test_a_proxy_of_the_docs_leads_to_the_runtime(
    engine: Engine, image: str, proxies: str, given: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """In the runtime's own network, where it is 127.0.0.1:18790 as on a server."""
    page, frame, command, target = SITES[kind]
    text = (ROOT / "docs" / page).read_text("utf-8")
    (block,) = re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    tls = "ssl_certificate /tls/cert.pem; ssl_certificate_key /tls/key.pem;"
    block = block.replace(".com {", ".com {\n    tls /tls/cert.pem /tls/key.pem")
    (tmp_path / "site").write_text(frame.format(block=block, tls=tls))
    tmp_path.chmod(0o755)  # the image's user reads the certificate there
    (tmp_path / "override.yaml").write_text(OVERRIDE.format(folder=tmp_path))
    known = {"MHNOS_ALLOW_HOST": "desk.example.com", "MHNOS_ALLOW_ORIGIN": "https://desk.example.com"}
    with Project(engine, f"mhnos-{kind}", tmp_path / "override.yaml", **known) as project:
        project.up()
        network = f"--network=container:{project.container}"
        mounts = [f"--volume={tmp_path}:/tls:ro", f"--volume={tmp_path / 'site'}:{target}:ro"]
        proxy = engine.run("run", "--detach", network, *mounts, proxies, *command).strip()
        try:
            check = ("mhnos-runtime", "check", "https://desk.example.com", "--token-file", TOKEN)
            trusting = ("exec", "-T", "--env=SSL_CERT_FILE=/tls/cert.pem", "runtime", *check)
            eventually(lambda: project.call(*trusting).returncode == 0)
        finally:
            engine.call("rm", "--force", proxy)
