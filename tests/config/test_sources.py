"""Where values come from, what wins, and what each wrong value is answered with."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mhnos_runtime.config import SETTINGS, ConfigError, Settings, describe, docs_table, find, load, table
from mhnos_runtime.config.values import Where
from tests.config.conftest import write_config


def refusal(env: dict[str, str], flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, env)
    assert "\n" not in caught.value.message
    return caught.value.message


# --- defaults


def test_defaults(env: dict[str, str]) -> None:
    settings, warnings = load({}, env)
    home = Path(env["HOME"])
    assert warnings == ()
    assert (settings.host, settings.port) == ("127.0.0.1", 18790)
    assert settings.workspace == home / "mhnos-workspace"
    assert settings.state_dir == home / ".local/state/mhnos-runtime"
    assert (settings.sandbox, settings.network) == ("strict", "host")
    assert (settings.user, settings.allow_root) == ("", False)
    assert settings.allow_openclaw is False
    assert settings.max_processes == 50
    assert settings.max_memory == 1 << 30
    assert (settings.log_level, settings.log_format) == ("info", "auto")
    assert settings.auth == "token"
    assert settings.allow_origin == settings.allow_host == ()
    assert settings.tls_cert is settings.tls_key is None
    assert settings.retention_bytes == 1 << 20
    assert (settings.retain_seconds, settings.retain_count) == (600.0, 256)
    assert (settings.stall_seconds, settings.kill_grace_seconds) == (10.0, 5.0)
    assert settings.kinds == ()
    assert set(settings.sources.values()) == {"default"}


def test_container_workspace_is_the_default_where_it_exists(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "CONTAINER_WORKSPACE", tmp_path)
    assert load({}, env)[0].workspace == tmp_path


def test_container_workspace_that_is_not_writable_is_not_the_default(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, unprivileged: None
) -> None:
    monkeypatch.setattr(table, "CONTAINER_WORKSPACE", Path("/usr"))
    assert load({}, env)[0].workspace == Path(env["HOME"]) / "mhnos-workspace"


def test_state_dir_follows_xdg_but_not_a_relative_one(env: dict[str, str]) -> None:
    assert load({}, env | {"XDG_STATE_HOME": "/s"})[0].state_dir == Path("/s/mhnos-runtime")
    relative = load({}, env | {"XDG_STATE_HOME": "s"})[0].state_dir
    assert relative == Path(env["HOME"]) / ".local/state/mhnos-runtime"


def test_home_is_found_without_the_variable() -> None:
    assert load({}, {})[0].state_dir.is_absolute()


def test_defaults_in_the_table_are_what_their_types_take(env: dict[str, str]) -> None:
    place = table.UserEnvironment(env, Path(env["HOME"]))
    where = Where(Path("/"), Path("/"))
    for setting in SETTINGS:
        default = setting.default_value(place)
        assert setting.type.parse(default, where) == default


def test_one_setting_is_found_beside_others_that_are_wrong(env: dict[str, str]) -> None:
    write_config(env, 'port = "x"\ntls_cert = "/nosuch"\ndetach_keys = "ctrl-]"\n')
    assert find("detach_keys", env) == "ctrl-]"
    assert find("detach_keys", env | {"MHNOS_DETACH_KEYS": "ctrl-a,d"}) == "ctrl-a,d"
    with pytest.raises(ConfigError):
        find("port", env)


# --- precedence and sources

# name, flag value, variable text, TOML text, and the value each gives
EACH = [
    ("host", "::1", "10.0.0.1", '"Example.org"', "::1", "10.0.0.1", "example.org"),
    ("port", "0", "81", "82", 0, 81, 82),
    ("base_path", "/a/", "a/b", '"/%41/~b"', "/a/", "/a/b/", "/%41/~b/"),
    ("workspace", "/f", "/v", '"/t"', Path("/f"), Path("/v"), Path("/t")),
    ("state_dir", "/f", "/v", '"/t"', Path("/f"), Path("/v"), Path("/t")),
    ("engines_dir", "/f", "/v", '"/t"', Path("/f"), Path("/v"), Path("/t")),
    ("sandbox", "none", "STRICT", '"relaxed"', "none", "strict", "relaxed"),
    ("network", "none", "LOOPBACK", '"host"', "none", "loopback", "host"),
    ("user", "mhnos", "1000:1000", "1000", "mhnos", "1000:1000", "1000"),
    ("allow_root", True, "yes", "true", True, True, True),
    ("allow_openclaw", True, "yes", "true", True, True, True),
    ("max_processes", "1", "2", "3", 1, 2, 3),
    ("max_memory", "512m", "1.5g", "33554432", 512 << 20, 3 << 29, 32 << 20),
    ("max_tasks", "1", "2", "0", 1, 2, 0),
    ("max_cpu", "50", "200", "0", 50, 200, 0),
    ("max_cpu_seconds", "1", "2", "0", 1, 2, 0),
    ("max_open_files", "64", "128", "0", 64, 128, 0),
    ("max_file_size", "1m", "1g", "0", 1 << 20, 1 << 30, 0),
    ("min_free", "1m", "1g", "0", 1 << 20, 1 << 30, 0),
    ("trash_seconds", "60", "0", "3600", 60.0, 0.0, 3600.0),
    ("log_level", "debug", "error", '"warning"', "debug", "error", "warning"),
    ("log_format", "json", "text", '"auto"', "json", "text", "auto"),
    ("auth", "none", "token", '"none"', "none", "token", "none"),
    ("show_token", True, "yes", "true", True, True, True),
    (
        "allow_origin",
        ("https://A.example", "https://b.example:443/"),
        "null, http://x:80",
        '["https://c.example:8443"]',
        ("https://a.example", "https://b.example"),
        ("null", "http://x"),
        ("https://c.example:8443",),
    ),
    (
        "allow_host",
        ["A.b", "a.b."],
        "x:1,[::1]:2",
        '["::1", "10.0.0.1"]',
        ("a.b",),
        ("x:1", "[::1]:2"),
        ("[::1]", "10.0.0.1"),
    ),
    ("retention_bytes", "64k", "1G", "65537", 64 << 10, 1 << 30, 65537),
    ("retain_seconds", "0", "1.5", "2", 0.0, 1.5, 2.0),
    ("retain_count", "0", "1", "2", 0, 1, 2),
    ("stall_seconds", "0", "0.25", "2.5", 0.0, 0.25, 2.5),
    ("kill_grace_seconds", "1", "2", "3", 1.0, 2.0, 3.0),
    ("window_size", "smallest", "LARGEST", '"latest"', "smallest", "largest", "latest"),
    ("detach_keys", "ctrl-]", "none", '"ctrl-a,d"', "ctrl-]", "none", "ctrl-a,d"),
]


@pytest.mark.parametrize(
    ("name", "flag", "variable", "toml", "by_flag", "by_variable", "by_file"),
    EACH,
    ids=lambda value: str(value)[:20],
)
def test_flag_over_variable_over_file(
    env: dict[str, str],
    name: str,
    flag: object,
    variable: str,
    toml: str,
    by_flag: object,
    by_variable: object,
    by_file: object,
) -> None:
    setting = table.BY_NAME[name]
    file = write_config(env, f"{name} = {toml}\n")
    from_file, _ = load({}, env)
    assert (getattr(from_file, name), from_file.source(name)) == (by_file, f"file {file}:{name}")
    env[setting.env] = variable
    from_variable, _ = load({}, env)
    assert (getattr(from_variable, name), from_variable.source(name)) == (
        by_variable,
        f"variable {setting.env}",
    )
    from_flag, _ = load({name: flag}, env)
    assert (getattr(from_flag, name), from_flag.source(name)) == (by_flag, f"flag {setting.flag}")


def test_every_setting_has_a_case_above() -> None:
    assert {case[0] for case in EACH} | {"tls_cert", "tls_key"} == {setting.name for setting in SETTINGS}


def test_flag_that_switches_off_beats_a_variable(env: dict[str, str]) -> None:
    settings, _ = load({"allow_openclaw": False}, env | {"MHNOS_ALLOW_OPENCLAW": "true"})
    assert settings.allow_openclaw is False


def test_flags_not_given_and_empty_variables_do_not_count(env: dict[str, str]) -> None:
    settings, _ = load({"port": None, "allow_host": ()}, env | {"MHNOS_RUNTIME_PORT": "", "MHNOS_CONFIG": ""})
    assert (settings.port, settings.source("port"), settings.source("allow_host")) == (
        18790,
        "default",
        "default",
    )


def test_documented_variable_names() -> None:
    names = {setting.env for setting in SETTINGS}
    assert {
        "MHNOS_RUNTIME_PORT",
        "MHNOS_WORKSPACE",
        "MHNOS_SANDBOX",
        "MHNOS_ALLOW_OPENCLAW",
        "MHNOS_MAX_PROCESSES",
        "MHNOS_MAX_MEMORY",
        "MHNOS_LOG_LEVEL",
    } <= names


@pytest.mark.parametrize(
    ("said", "meant"),
    [("warn", "warning"), ("WARN", "warning"), ("Err", "error"), ("INFO", "info"), (" debug ", "debug")],
)
def test_levels_as_other_programs_write_them(env: dict[str, str], said: str, meant: str) -> None:
    """MHNOS_LOG_LEVEL=warn was refused."""
    assert load({}, env | {"MHNOS_LOG_LEVEL": said})[0].log_level == meant
    assert load({"log_level": said}, env)[0].log_level == meant
    write_config(env, f'log_level = "{said}"\n')
    assert load({}, env)[0].log_level == meant


def test_relative_paths_are_of_the_one_who_wrote_them(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_config(env, 'workspace = "w"\nstate_dir = "~/s"\n')
    settings, _ = load({}, env)
    assert settings.workspace == file.parent / "w"
    assert settings.state_dir == Path(env["HOME"]) / "s"
    assert load({"workspace": "w"}, env)[0].workspace == tmp_path / "w"
    assert load({}, env | {"MHNOS_WORKSPACE": "~"})[0].workspace == Path(env["HOME"])


# --- the config file


def test_config_file_by_flag_over_variable_over_home_over_system(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "etc.toml").write_text("port = 1\n")
    assert load({}, env)[0].port == 1
    write_config(env, "port = 2\n")
    assert load({}, env)[0].port == 2
    by_variable = tmp_path / "v.toml"
    by_variable.write_text("port = 3\n")
    env["MHNOS_CONFIG"] = str(by_variable)
    assert load({}, env)[0].port == 3
    by_flag = tmp_path / "f.toml"
    by_flag.write_text("port = 4\n")
    assert load({"config": str(by_flag)}, env)[0].port == 4


def test_config_file_in_xdg_config_home(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "mhnos-runtime/config.toml"
    file.parent.mkdir()
    file.write_text("port = 5\n")
    assert load({}, env | {"XDG_CONFIG_HOME": str(tmp_path)})[0].source("port") == f"file {file}:port"


def test_config_file_that_was_named_must_be_there(env: dict[str, str]) -> None:
    assert "/no/such.toml cannot be read: No such file" in refusal(env, {"config": "/no/such.toml"})
    assert "Is a directory" in refusal(env | {"MHNOS_CONFIG": "~/"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"port = \n", "is not TOML: Invalid value (at line 1"),
        (b"port = 1\nport = 2\n", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"prot = 1\n", "unknown key 'prot' (did you mean port?)"),
        (b"max-processes = 1\n", "unknown key 'max-processes' (did you mean max_processes?)"),
        (b"zzzzzz = 1\n", "unknown key 'zzzzzz'"),
        (b"[kind.deno]\nargv = ['deno']\n", "unknown key 'kind' (did you mean kinds?)"),
        (b'port = "80x"\n', ":port; expected a whole number from 0 to 65535"),
        (b"port = true\n", 'port is "True" by file'),
        (b"port = 1.5\n", 'port is "1.5" by file'),
        (b"allow_origin = [1]\n", 'allow_origin is "[1]" by file'),
        (b"workspace = 5\n", "expected a path"),
        (b"allow_openclaw = 1\n", "expected true or false"),
        (b"stall_seconds = nan\n", "expected seconds from 0 to 3600"),
        (b"stall_seconds = true\n", "expected seconds from 0 to 3600"),
        (b"[host]\n", "expected an IP address or a host name"),
    ],
)
def test_config_file_that_is_wrong(env: dict[str, str], text: bytes, said: str) -> None:
    file = write_config(env, "")
    file.write_bytes(text)
    message = refusal(env)
    assert said in message
    assert str(file) in message


# --- wrong values


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MHNOS_RUNTIME_PORT", "80x", "expected a whole number from 0 to 65535"),
        ("MHNOS_RUNTIME_PORT", "65536", "expected a whole number from 0 to 65535"),
        ("MHNOS_RUNTIME_PORT", "-1", "expected a whole number from 0 to 65535"),
        ("MHNOS_RUNTIME_PORT", "1e3", "expected a whole number from 0 to 65535"),
        ("MHNOS_HOST", "*", "expected an IP address or a host name"),
        ("MHNOS_HOST", "a b", "expected an IP address or a host name"),
        ("MHNOS_HOST", "http://x", "expected an IP address or a host name"),
        ("MHNOS_HOST", "127.0.0.1:80", "expected an IP address or a host name"),
        ("MHNOS_SANDBOX", "off", "expected strict, relaxed or none"),
        ("MHNOS_NETWORK", "lan", "expected host, loopback or none"),
        ("MHNOS_MAX_FILE_SIZE", "-1", "expected a size from 0 to 16t"),
        ("MHNOS_ALLOW_OPENCLAW", "maybe", "expected true or false"),
        ("MHNOS_MAX_PROCESSES", "0", "expected a whole number from 1 to 100000"),
        ("MHNOS_MAX_MEMORY", "1x", "expected a size from 16m to 16t, in bytes or with k, m, g or t"),
        ("MHNOS_MAX_MEMORY", "1m", "expected a size from 16m to 16t, in bytes or with k, m, g or t"),
        ("MHNOS_MAX_MEMORY", "16777217.5", "(a part of a byte); expected a size"),
        ("MHNOS_LOG_LEVEL", "loud", "by variable MHNOS_LOG_LEVEL; expected debug, info, warning or error"),
        ("MHNOS_LOG_LEVEL", "Warnin", "(did you mean warning?); expected debug, info, warning or error"),
        ("MHNOS_SANDBOX", "relax", "(did you mean relaxed?); expected strict, relaxed or none"),
        ("MHNOS_NETWORK", "loopbak", "(did you mean loopback?); expected host, loopback or none"),
        ("MHNOS_LOG_FORMAT", "jsn", "(did you mean json?); expected auto, text or json"),
        ("MHNOS_AUTH", "tokens", "(did you mean token?); expected token or none"),
        ("MHNOS_LOG_FORMAT", "xml", "expected auto, text or json"),
        ("MHNOS_AUTH", "basic", "expected token or none"),
        ("MHNOS_ALLOW_ORIGIN", "*", "(a wildcard would let every web page in); expected origins"),
        (
            "MHNOS_ALLOW_ORIGIN",
            "https://*.x.org",
            "(a wildcard would let every web page in); expected origins",
        ),
        ("MHNOS_ALLOW_ORIGIN", "x.org", "(x.org is not an origin); expected origins"),
        ("MHNOS_ALLOW_ORIGIN", "https://x.org/a", "(https://x.org/a is not an origin); expected origins"),
        ("MHNOS_ALLOW_HOST", "x/y", "(x/y is not a host name or address); expected host names"),
        ("MHNOS_ALLOW_HOST", "x:99999", "(x:99999 is not a host name or address); expected host names"),
        ("MHNOS_RETENTION_BYTES", "63k", "expected a size from 64k to 1g"),
        ("MHNOS_RETENTION_BYTES", "2g", "expected a size from 64k to 1g"),
        ("MHNOS_STALL_SECONDS", "inf", "expected seconds from 0 to 3600"),
        ("MHNOS_STALL_SECONDS", "-1", "expected seconds from 0 to 3600"),
        ("MHNOS_KILL_GRACE_SECONDS", "soon", "expected seconds from 0 to 3600"),
        ("MHNOS_WORKSPACE", "a\0b", "expected a path"),
        ("MHNOS_LOG_LEVEL", "a\nb", "expected debug"),
    ],
)
def test_wrong_value(env: dict[str, str], variable: str, value: str, message: str) -> None:
    setting = next(setting for setting in SETTINGS if setting.env == variable)
    said = refusal(env | {variable: value})
    assert said.startswith(f'{setting.name} is "')
    assert f"by variable {variable}" in said
    assert message in said


def test_message_of_a_wrong_flag_to_the_letter(env: dict[str, str]) -> None:
    assert (
        refusal(env, {"port": "web"})
        == 'port is "web" by flag --port; expected a whole number from 0 to 65535'
    )


def test_a_flag_that_is_repeated_is_shown_as_it_was_typed(env: dict[str, str]) -> None:
    """Python's tuple was shown."""
    said = refusal(env, {"allow_origin": ("https://x.org", "y")})
    assert said.startswith('allow_origin is "https://x.org, y" by flag --allow-origin (y is not an origin); ')


def test_very_long_wrong_value_is_cut(env: dict[str, str]) -> None:
    assert len(refusal(env | {"MHNOS_HOST": "x/" * 10_000})) < 400


# --- what one value allows of another


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_no_authentication_on_loopback(env: dict[str, str], host: str) -> None:
    assert load({"auth": "none", "host": host}, env)[0].auth == "none"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "127.example.org"])
def test_no_authentication_elsewhere_is_refused(env: dict[str, str], host: str) -> None:
    said = refusal(env | {"MHNOS_HOST": host}, {"auth": "none"})
    assert said.startswith('auth is "none" by flag --auth; expected token')
    assert "variable MHNOS_HOST" in said


def test_certificate_and_key_come_together_and_are_readable(env: dict[str, str], tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    cert.write_text("")
    assert "without tls_key; expected both" in refusal(env, {"tls_cert": str(cert)})
    assert "without tls_cert; expected both" in refusal(env, {"tls_key": str(key)})
    both: dict[str, object] = {"tls_cert": str(cert), "tls_key": str(key)}
    assert f'tls_key is "{key}" by flag --tls-key: No such file' in refusal(env, both)
    key.mkdir()
    assert "Is a directory; expected a readable file" in refusal(env, both)
    key.rmdir()
    key.write_text("")
    settings, _ = load(both, env)
    assert (settings.tls_cert, settings.tls_key) == (cert, key)


# --- warnings


def test_unknown_variable_is_a_warning_with_the_nearest(env: dict[str, str]) -> None:
    env |= {"MHNOS_PORT_": "1", "MHNOS_MAX_PROCESES": "9", "MHNOS_URL": "x", "MHNOS_TOKEN": "x", "OTHER": "x"}
    _, warnings = load({}, env)
    assert len(warnings) == 2
    assert warnings[0] == (
        "variable MHNOS_MAX_PROCESES is not known and is ignored (did you mean MHNOS_MAX_PROCESSES?)"
    )
    assert "MHNOS_PORT_" in warnings[1]


# --- shown and handed over


def test_fields_and_table_agree() -> None:
    fields = [field.name for field in dataclasses.fields(Settings)]
    assert fields == [*(setting.name for setting in SETTINGS), "kinds", "sources"]


def test_settings_are_frozen(env: dict[str, str]) -> None:
    settings, _ = load({}, env)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]
    assert hash(settings) == hash(load({}, env)[0])


def test_described_as_they_would_be_typed(env: dict[str, str]) -> None:
    file = write_config(env, '[kinds.deno]\nargv = ["deno", "{command}"]\ndescription = "Deno"\n')
    settings, _ = load({"max_memory": "1536m", "allow_host": ("a", "b:1")}, env)
    rows = {row.name: row for row in describe(settings)}
    assert list(rows) == [*(setting.name for setting in SETTINGS), "kinds.deno"]
    assert rows["max_memory"][1:3] == ("1536m", "flag --max-memory")
    assert rows["allow_host"].value == "a, b:1"
    assert rows["allow_openclaw"][1:3] == ("false", "default")
    assert rows["tls_cert"].value == ""
    assert rows["retain_seconds"].value == "600"
    assert rows["kinds.deno"][1:] == ("deno {command}", f"file {file}:kinds.deno", "Deno")


def test_docs_table_has_a_row_for_each() -> None:
    lines = docs_table().splitlines()
    assert len(lines) == len(SETTINGS) + 2
    assert {line.count("|") for line in lines} == {7}


def test_flag_help_names_variable_and_default() -> None:
    text = table.BY_NAME["port"].flag_help()
    assert text == "port to listen on; 0 takes any free one (MHNOS_RUNTIME_PORT; default: 18790)"


def test_reading_settings_opens_no_socket(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name is not looked up: that could hang the start."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked up"))
    load({"host": "example.org"}, env)


def test_only_the_standard_library_is_loaded() -> None:
    """The starter of the supervisor reads settings, and is to be quick and small."""
    script = (
        "import sys; before = set(sys.modules); import mhnos_runtime.config;"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(names - set(sys.stdlib_module_names) - {'mhnos_runtime'})"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number that no user has."""
    monkeypatch.setattr("os.getuid", lambda: 987_654_321)
    assert load({}, {"HOME": "relative"})[0].state_dir == Path("/.local/state/mhnos-runtime")
