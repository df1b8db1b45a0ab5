#!/usr/bin/env bash
# Makes the Prometheus of Debian 12, 2.42, and its promtool available as .tools/prometheus-2.42/: the old server that
# users still run. The package is only unpacked, never installed, so that no service starts; root is not needed as long
# as apt's lists are there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${LEARNING_ROLLOUT_TOOLS:-$(cd "$here/../.." && pwd)/.tools}
version=2.42
target=$tools/prometheus-$version

say() { printf 'tools: prometheus-%s: %s\n' "$version" "$*"; }
die() { say "$*" >&2; exit 1; }

# The version in Debian's notation (2.42.0+ds-5+b5) that apt would give, if it is the one wanted.
candidate() { apt-cache madison prometheus 2>/dev/null | awk -F' *[|] *' -v want="$version." 'index($2, want) == 1 { print $2; exit }'; }

mkdir -p "$tools"
exec 9>"$tools/.prometheus-$version.lock"
flock 9
if [[ -x $target/prometheus && -x $target/promtool ]]; then
    say "ready in .tools/prometheus-$version"
    exit 0
fi
for command in apt-get apt-cache dpkg-deb; do
    command -v "$command" >/dev/null || die "$command is not installed: Prometheus $version comes from a package of Debian 12 (bookworm)"
done

started=$SECONDS
found=$(candidate)
if [[ -z $found ]]; then
    say "apt knows no prometheus $version yet, asking for its lists …"
    apt-get update -q || die "apt-get update failed (as root it may work): apt's lists do not have prometheus $version"
    found=$(candidate)
fi
[[ -n $found ]] || die "apt offers no prometheus $version.*: it is in Debian 12 (bookworm); add that release to apt's sources, or unpack the package into .tools/prometheus-$version by hand"

work=$(mktemp -d "$tools/.prometheus-$version.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading Debian's prometheus $found …"
# As root apt would hand the download to its own user, who may not write into this folder.
(cd "$work" && apt-get download -q -o APT::Sandbox::User="$(id -un)" "prometheus=$found")
dpkg-deb --extract "$work"/prometheus_*.deb "$work/package"
mkdir "$work/bin"
cp "$work"/package/usr/bin/{prometheus,promtool} "$work/bin/"
"$work/bin/prometheus" --version >/dev/null || die "the unpacked prometheus does not run here"
rm -rf "$target"
mv -T "$work/bin" "$target"
say "done in $((SECONDS - started)) s"
