#!/usr/bin/env bash
# Installs, upgrades, shows and removes the MHNOS runtime as a systemd service on Debian and Ubuntu, from a checkout or
# from a bundle (bundle.sh). Knows packages, files and the unit; everything about running it is the unit's.
set -euo pipefail
umask 022

usage() {
    cat <<'END'
Usage: sudo packaging/systemd/install.sh [install|status|uninstall] [options]

install      (default) install the service, or upgrade it without ending processes
status       what is installed, whether it serves, where
uninstall    remove everything but the workspace

  --yes            do not ask before Debian packages are installed
  --dry-run        say what would be done, and change nothing
  --engines NAMES  engines to install, separated by spaces (default: workerd; "" for none; a bundle has its own)
  --purge          uninstall: remove the workspace too
END
}

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
base=/opt/mhnos-runtime
state=/var/lib/mhnos-runtime
settings=/etc/mhnos-runtime
unit=/etc/systemd/system/mhnos-runtime.service
command=/usr/local/bin/mhnos-runtime
user=mhnos
# Seconds that a start or an upgrade may take until the server answers.
wait_s=30
# Kilobytes that two versions with Node.js take.
needed_kb=600000

action=install
yes=false
dry=false
purge=false
engines=workerd

say() { printf '%s\n' "$*"; }
step() { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
    exit 1
}

# Everything that changes something goes through here.
run() {
    if $dry; then
        say "would run: $*"
    else
        "$@"
    fi
}

parse() {
    while [ $# -gt 0 ]; do
        case $1 in
            install | status | uninstall) action=$1 ;;
            --yes) yes=true ;;
            --dry-run) dry=true ;;
            --purge) purge=true ;;
            --engines) engines=${2-} && shift ;;
            -h | --help) usage && exit 0 ;;
            *) usage >&2 && exit 2 ;;
        esac
        shift
    done
}

# Checks

check_machine() {
    [ "$(id -u)" = 0 ] || fail "only root can install a service" "sudo $0"
    [ -d /run/systemd/system ] || fail "systemd does not run here" "see docs/how-to/docker.md, or pip install the wheel"
    command -v apt-get >/dev/null || fail "this is neither Debian nor Ubuntu" "pip install the wheel, and copy the unit by hand"
    local free_kb
    free_kb=$(df --output=avail -k /opt | tail -n 1)
    [ "$free_kb" -ge $needed_kb ] || fail "/opt has $((free_kb / 1000)) MB free, $((needed_kb / 1000)) MB are needed"
    case $engines in *[!a-z0-9\ -]*) fail "--engines $engines is no list of names" ;; esac
}

# The system's own, since the service's user must be able to run it.
find_python() {
    local each
    for each in python3 python3.13 python3.12 python3.11; do
        if "/usr/bin/$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            readlink -f "/usr/bin/$each"
            return
        fi
    done
    return 1
}

# Packages

missing_packages() {
    local python each wanted
    python=$(find_python) && python=$(basename "$python") || python=python3
    wanted=("$python" bubblewrap libseccomp2)
    [ -d "$here/wheels" ] || wanted+=("$python-venv") # a bundle brings pip by itself
    for each in "${wanted[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$each" 2>/dev/null)" = installed ] || say "$each"
    done
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    step "Debian packages: ${missing[*]}"
    if ! $yes && ! $dry; then
        local answer=
        { [ -t 0 ] && read -r -p "Install them? [Y/n] " answer; } || fail "they are needed" "give --yes"
        case $answer in '' | [yY]*) ;; *) fail "they are needed" ;; esac
    fi
    if [ -d "$here/packages" ]; then
        local files=() each
        for each in "${missing[@]}"; do files+=("$here"/packages/"$each"_*.deb); done
        run dpkg --install "${files[@]}"
    else
        run apt-get update -qq
        run env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
}

# User and folders

make_user() {
    getent passwd $user >/dev/null && return
    step "user $user"
    run useradd --system --user-group --home-dir $state --no-create-home --shell /usr/sbin/nologin $user
    run mkdir -p $base
    run touch $base/made-user
}

# The workspace of an earlier installation belongs to root since that was removed.
take_workspace() {
    [ -d $state/workspace ] || return 0
    [ "$(stat -c %u $state/workspace)" = 0 ] || return 0
    run chown -hR $user:$user $state/workspace
}

copy() { # FROM TO MODE: nothing when it is there already
    cmp -s "$1" "$2" && return
    run install -D -m "$3" "$1" "$2"
}

install_files() {
    step "unit, settings, command"
    run mkdir -p -m 755 $settings
    [ -e $settings/environment ] || copy "$here/environment" $settings/environment 644
    [ -e $settings/config.toml ] || copy "$here/config.toml" $settings/config.toml 644
    copy "$here/mhnos-runtime" $command 755
    copy "$here/mhnos-runtime.service" $unit 644
    run systemctl daemon-reload
}

# Versions: each in an environment of its own, of which `current` is one

wheel_and_lock() { # sets wheel and lock
    if [ -d "$here/wheels" ]; then
        wheel=$(find "$here/wheels" -name 'mhnos_runtime-*.whl')
        lock=$here/runtime.txt
        return
    fi
    local root=$here/../..
    [ -x "$root/tools/build-wheel" ] || fail "no checkout and no bundle around $here"
    lock=$root/requirements/runtime.txt
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    wheel=$(PYTHON=$python "$root/tools/build-wheel" "$work")
}

version_name() { # changes with the code, with what it needs, and with the Python under it
    local digest
    digest=$({ cat "$wheel" "$lock"; "$python" --version; } | sha256sum | cut -c 1-10)
    say "$(basename "$wheel" | cut -d - -f 2)-$digest"
}

make_version() { # NAME
    local folder=$base/versions/$1
    if [ -e "$folder/complete" ]; then
        say "version $1 is there"
        return
    fi
    step "version $1 in $folder"
    run rm -rf "$folder"
    local pip=("$folder/bin/python") options=(--quiet --disable-pip-version-check --no-input install --no-deps)
    if [ -d "$here/wheels" ]; then
        run "$python" -m venv --without-pip "$folder"
        pip+=("$(find "$here/wheels" -name 'pip-*.whl')/pip")
        options+=(--no-index --find-links "$here/wheels")
    else
        run "$python" -m venv "$folder"
        pip+=(-m pip)
    fi
    run "${pip[@]}" "${options[@]}" --require-hashes --only-binary :all: -r "$lock"
    run "${pip[@]}" "${options[@]}" "$wheel"
    # The service may not write here.
    run "$folder/bin/python" -P -c 'from mhnos_runtime.cli.node import complete_wheel; complete_wheel()'
    run touch "$folder/complete"
}

install_engines() { # NAME of the version
    [ -n "$engines" ] || return 0
    step "engines: $engines"
    if [ -d "$here/wheels" ]; then
        [ -d "$here/engines" ] || { say "the bundle has none" && return; }
        run mkdir -p $base/engines
        run cp -RT "$here/engines" $base/engines
        return
    fi
    # shellcheck disable=SC2086 # a list of names
    run env HOME=/root MHNOS_ENGINES_DIR=$base/engines "$base/versions/$1/bin/python" -P -m mhnos_runtime engines install $engines
}

point_to() { # NAME: in one step, so that `current` is there at every moment
    run ln -sfn "versions/$1" $base/current.new
    run mv -T $base/current.new $base/current
}

current() { readlink $base/current 2>/dev/null | sed 's,^versions/,,' || true; }

remove_other_versions() { # KEEP...: the one before may still be read by what it started
    local each name
    for each in "$base"/versions/*; do
        [ -d "$each" ] || continue
        name=$(basename "$each")
        case " $* " in *" $name "*) ;; *) run rm -rf "$each" ;; esac
    done
}

# The service

start() { # OLD NEW
    if ! systemctl is-active --quiet mhnos-runtime; then
        step "start"
        run systemctl reset-failed mhnos-runtime 2>/dev/null || true
        run systemctl enable --quiet mhnos-runtime
        run systemctl start mhnos-runtime || { journal && fail "the service did not start"; }
    elif [ "$1" != "$2" ]; then
        step "hand over from $1; processes go on"
        if ! run systemctl reload mhnos-runtime; then
            journal
            point_to "$1"
            fail "the running version did not hand over, and goes on" \
                "systemctl restart mhnos-runtime after another install ends its processes"
        fi
    else
        say "it runs already"
    fi
    run "$command" health --wait $wait_s || { journal && fail "the server does not answer"; }
}

journal() { journalctl --no-pager --lines 20 --output cat --unit mhnos-runtime >&2 || true; }

do_install() {
    check_machine
    install_packages
    python=$(find_python) || {
        $dry && say "the rest needs Python" && return
        fail "Python 3.11 or newer is needed" "apt-get install python3.11-venv, where there is one"
    }
    make_user
    local old name
    wheel_and_lock
    old=$(current)
    name=$(version_name)
    make_version "$name"
    install_engines "$name"
    take_workspace
    install_files
    point_to "$name"
    start "$old" "$name"
    remove_other_versions "$name" "$old"
    $dry || summary
}

summary() {
    local url
    url=$(sed -n 's/.*"url": "\([^"]*\)".*/\1/p' $state/state/server.json)
    cat <<END

The MHNOS runtime serves at $url
  token       $state/state/token: sudo mhnos-runtime token
  workspace   $state/workspace
  settings    $settings/environment, then: sudo systemctl restart mhnos-runtime
  log         journalctl -u mhnos-runtime
  try         sudo mhnos-runtime run -it shell
END
}

do_status() {
    [ -e $unit ] || fail "the service is not installed" "sudo $0"
    say "version   $(current)"
    say "service   $(systemctl is-active mhnos-runtime || true), $(systemctl is-enabled mhnos-runtime || true)"
    if [ "$(id -u)" = 0 ]; then
        say "health    $("$command" health 2>&1 | head -n 1)"
        say "address   $(sed -n 's/.*"url": "\([^"]*\)".*/\1/p' $state/state/server.json 2>/dev/null)"
    fi
    systemctl is-active --quiet mhnos-runtime
}

do_uninstall() {
    [ "$(id -u)" = 0 ] || fail "only root can remove a service" "sudo $0 uninstall"
    if [ -e $unit ]; then
        step "stop; its processes end"
        run systemctl disable --quiet --now mhnos-runtime
    fi
    local made_user=false
    [ ! -e $base/made-user ] || made_user=true
    step "remove"
    run rm -rf $unit $unit.d $command $base $settings $state/state
    run systemctl daemon-reload
    run systemctl reset-failed mhnos-runtime 2>/dev/null || true
    if $purge; then
        run rm -rf $state
    elif [ -d $state/workspace ]; then
        # Whoever gets this number next must not get these files.
        run chown -hR root:root $state/workspace
        run chown root:root $state
        say "the workspace is kept: $state/workspace (--purge removes it)"
    else
        run rm -rf $state
    fi
    if $made_user && getent passwd $user >/dev/null; then
        run userdel $user
    fi
}

parse "$@"
case $action in
    install) do_install ;;
    status) do_status ;;
    uninstall) do_uninstall ;;
esac
