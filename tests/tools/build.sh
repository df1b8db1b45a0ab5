#!/usr/bin/env bash
# Builds the servers that the test bed runs, from the Go modules beside this script.
#
#   tests/tools/build.sh [controlplane] [prometheus]        (both, when none is named)
#
# Each family is a module of its own, since their dependency graphs disagree. What is built lands in
# .tools/FAMILY-HASH/, HASH being that of go.mod and go.sum, and .tools/FAMILY points there. A binary that exists is
# not built again; each is built under another name and renamed when it is whole, so that an interrupted build leaves
# nothing half done, and a lock keeps two builds of one family apart.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${LEARNING_ROLLOUT_TOOLS:-$(cd "$here/../.." && pwd)/.tools}

say() { printf 'tools: %s\n' "$*"; }
die() { printf 'tools: %s\n' "$*" >&2; exit 1; }

# version_of FAMILY MODULE: the version that the family's go.mod requires.
version_of() { sed -nE "s|^(require)?[[:space:]]*$2 (v[^ ]+).*|\2|p" "$here/$1/go.mod" | head -n 1; }

need_go() {
    command -v go >/dev/null || die "go is not installed: it is needed to build the test servers (https://go.dev/doc/install)"
}

# go_binary FAMILY DIR NAME PACKAGE LDFLAGS
go_binary() {
    local family=$1 dir=$2 name=$3 package=$4 ldflags=$5 started=$SECONDS part="$2/.$3.part"
    [[ -x "$dir/$name" ]] && return
    need_go
    say "$family: building $name ($package) …"
    (cd "$here/$family" &&
        GOWORK=off CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags "-s -w $ldflags" -o "$part" "$package")
    mv -f "$part" "$dir/$name"
    say "$family: $name took $((SECONDS - started)) s"
}

# Kubernetes' own API server, controllers, scheduler and client, etcd, and kwok, which plays the kubelets.
# A developer's KUBEBUILDER_ASSETS supplies those of them that it holds.
build_controlplane() {
    local dir=$1 version ldflags= name
    version=$(version_of controlplane k8s.io/kubernetes)
    local base=k8s.io/component-base/version client=k8s.io/client-go/pkg/version set
    for set in "gitVersion=$version" "gitMajor=$(cut -d. -f1 <<<"${version#v}")" "gitMinor=$(cut -d. -f2 <<<"$version")" gitTreeState=clean; do
        ldflags+=" -X $base.$set -X $client.$set"
    done
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kwok; do
        if [[ -n ${KUBEBUILDER_ASSETS:-} && -x $KUBEBUILDER_ASSETS/$name ]]; then
            say "controlplane: $name is taken from KUBEBUILDER_ASSETS"
            continue
        fi
        case $name in
        etcd) go_binary controlplane "$dir" etcd go.etcd.io/etcd/server/v3 "" ;;
        kwok) go_binary controlplane "$dir" kwok sigs.k8s.io/kwok/cmd/kwok "" ;;
        *) go_binary controlplane "$dir" "$name" "k8s.io/kubernetes/cmd/$name" "$ldflags" ;;
        esac
    done
    if [[ ! -d $dir/kwok-stages ]]; then
        need_go
        local module stage
        module=$(cd "$here/controlplane" && GOWORK=off go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)
        rm -rf "$dir/.kwok-stages.part"
        mkdir "$dir/.kwok-stages.part"
        for stage in node/fast/node-initialize node/heartbeat-with-lease/node-heartbeat-with-lease \
            pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete; do
            cp "$module/kustomize/stage/$stage.yaml" "$dir/.kwok-stages.part/"
        done
        chmod -R u+w "$dir/.kwok-stages.part"
        mv -T "$dir/.kwok-stages.part" "$dir/kwok-stages"
    fi
}

# Prometheus 3 (its Go module is tagged v0.3xx) and promtool.
build_prometheus() {
    local dir=$1 version name
    version=$(version_of prometheus github.com/prometheus/prometheus)
    version=$(sed -E 's/^v0\.([0-9])([0-9]{2})\.([0-9]+)$/\1.\2.\3/; s/\.0([0-9])/.\1/' <<<"$version")
    for name in prometheus promtool; do
        go_binary prometheus "$dir" "$name" "github.com/prometheus/prometheus/cmd/$name" \
            "-X github.com/prometheus/common/version.Version=$version"
    done
}

build() {
    local family=$1 started=$SECONDS hash dir
    [[ -f $here/$family/go.mod ]] || die "there is no $family: the families are controlplane and prometheus"
    hash=$(cat "$here/$family/go.mod" "$here/$family/go.sum" | sha256sum | cut -c1-12)
    dir=$tools/$family-$hash
    mkdir -p "$dir"
    exec 9>"$tools/.$family.lock"
    flock -n 9 || { say "$family: another build is under way, waiting for it …"; flock 9; }
    if [[ -f $dir/.complete ]]; then
        say "$family: ready in $dir"
    else
        say "$family: building into $dir (minutes the first time, cached afterwards)"
        "build_$family" "$dir"
        # Built without what KUBEBUILDER_ASSETS gave, the folder is whole only for as long as that is set.
        [[ -n ${KUBEBUILDER_ASSETS:-} ]] || touch "$dir/.complete"
        say "$family: done in $((SECONDS - started)) s"
    fi
    ln -sfn "$family-$hash" "$tools/.$family.link" && mv -fT "$tools/.$family.link" "$tools/$family"
    exec 9>&-
}

command -v flock >/dev/null || die "flock is not installed: it is part of util-linux"
[[ $# -gt 0 ]] || set -- controlplane prometheus
for family in "$@"; do
    build "$family"
done
