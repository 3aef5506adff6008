#!/usr/bin/env bash
# Makes an archive from which install.sh installs on a machine without a network: the wheel, what it needs, and with
# --packages the Debian packages too. For machines with this machine's Python version and processor.
# ENGINES: engines to put in, separated by spaces (default: workerd).
#   packaging/systemd/bundle.sh [--packages] [OUT.tar.gz]
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
root=$here/../..
python=${PYTHON:-/usr/bin/python3}
packages=false
[ "${1:-}" != --packages ] || { packages=true && shift; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
made=$(PYTHON=$python "$root/tools/build-wheel" "$work/wheels")
version=$(basename "$made" | cut -d - -f 2)
out=${1:-mhnos-runtime-$version.tar.gz}
bundle=$work/mhnos-runtime-$version
mkdir "$bundle"
mv "$work/wheels" "$bundle/wheels"
cp "$here"/{install.sh,mhnos-runtime,mhnos-runtime.service,environment,config.toml} "$root/requirements/runtime.txt" "$bundle/"

"$python" -m pip --quiet --disable-pip-version-check --no-input download --require-hashes --no-deps \
    --only-binary :all: --dest "$bundle/wheels" -r "$root/requirements/runtime.txt"

# An environment has no pip where Debian's python3-venv is missing.
bundled=$("$python" -c 'import ensurepip, os; print(os.path.dirname(ensurepip.__file__) + "/_bundled")')
find /usr/share/python-wheels "$bundled" -name 'pip-*.whl' -exec cp {} "$bundle/wheels/" \; -quit 2>/dev/null || true

# The engines, as they are installed: their packages come from a registry. Root's npm is another user, who has to get there.
chmod 711 "$work"
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --no-index --no-deps \
    --find-links "$bundle/wheels" --require-hashes -r "$root/requirements/runtime.txt"
"$work/venv/bin/python" -m pip --quiet --disable-pip-version-check --no-input install --no-index --no-deps "$bundle"/wheels/mhnos_runtime-*.whl
read -r -a names <<<"${ENGINES-workerd}"
[ ${#names[@]} = 0 ] || MHNOS_ENGINES_DIR=$bundle/engines "$work/venv/bin/mhnos-runtime" engines install "${names[@]}" >&2

if $packages; then
    mkdir "$bundle/packages"
    # The rest of what they depend on is part of every installation.
    (cd "$bundle/packages" && apt-get -o APT::Sandbox::User=root download -qq bubblewrap libseccomp2)
fi

tar -C "$work" --owner=0 --group=0 --sort=name -czf "$out" "$(basename "$bundle")"
echo "$out: $(du -h "$out" | cut -f 1), install with: tar xzf $(basename "$out") && sudo $(basename "$bundle")/install.sh"
