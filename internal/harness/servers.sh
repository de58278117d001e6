#!/bin/bash
# Tests against the servers of newer Debian releases. Each release is a root directory in
# the user's cache, made by debootstrap. Needs root.
#
#   servers.sh build [SUITE...]       makes the roots that are missing; 2 minutes and 1.2 GB each
#   servers.sh test [SUITE...]        tests in each, and prints a table of versions and results
#   servers.sh run SUITE COMMAND...   runs a command in one root, in the present directory
#
# SUITE is trixie (Debian 13), trixie-backports, or "here": the machine itself, without a
# root. All but "here" is the default. The tests are those of the packages that use the harness.
#
#   SERVERS_ROOTS   where the roots are; default ~/.cache/eventpusher/servers
#   SERVERS_FLAGS   more flags for go test, such as "-run TestKinds"
#   SERVERS_ONLY    test these packages alone
#
# A command in a root has a mount namespace of its own with the checkout and Go's
# directories. When it ends, nothing is left to unmount. The network is the machine's.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(dirname "$(dirname "$here")")
roots=${SERVERS_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/eventpusher/servers}

fail() {
	echo "servers.sh: $*" >&2
	exit 1
}

# sources prints the URIs in apt's configuration, in both of its formats.
sources() {
	{ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true; } |
		sed -nE 's/^(deb +(\[[^]]*\] +)?|URIs: *)(https?:[^ ]+).*/\3/p' | sed 's,/$,,' | sort -u
}

# inside ROOT COMMAND...: runs a command in the root, in the present directory.
inside() (
	root=$1
	shift
	path=/usr/sbin:/usr/bin:/sbin:/bin
	binds=(/proc /sys /dev "$checkout")
	if command -v go >/dev/null; then
		GOMODCACHE=$(go env GOMODCACHE) GOCACHE=$(go env GOCACHE) goroot=$(go env GOROOT)
		export GOMODCACHE GOCACHE
		mkdir -p "$GOMODCACHE" "$GOCACHE"
		binds+=("$goroot" "$GOMODCACHE" "$GOCACHE")
		path=$goroot/bin:$path
	fi
	# shellcheck disable=SC2016 # expands in the new namespace
	exec unshare --mount --propagation private bash -euc '
		root=$1 path=$2 binds=("${@:4:$3}")
		shift $((3 + $3))
		for dir in "${binds[@]}"; do
			mkdir -p "$root$dir"
			mount --rbind "$dir" "$root$dir"
		done
		exec chroot "$root" env -u TMPDIR PATH="$path" LC_ALL=C.UTF-8 sh -c "cd \"\$0\" && exec \"\$@\"" "$PWD" "$@"
	' servers.sh "$root" "$path" ${#binds[@]} "${binds[@]}" "$@"
)

# run SUITE COMMAND...
run() {
	local suite=$1
	shift
	if [ "$suite" = here ]; then
		"$@"
	else
		[ -d "$roots/$suite" ] || fail "no root for $suite: run servers.sh build $suite"
		inside "$roots/$suite" "$@"
	fi
}

# build SUITE: the directory has its last name only when it is complete.
build() {
	local suite=$1 release=${1%-backports} root=$roots/$1 mirror security
	[ "$suite" != here ] || return 0
	if [ ! -d "$root" ]; then
		mirror=$(sources | grep '/debian$' | head -n 1) || fail "no mirror of Debian in apt's sources"
		security=$(sources | grep '/debian-security$' | head -n 1) || security=""
		command -v debootstrap >/dev/null || {
			apt-get -qq update
			apt-get -qq install -y --no-install-recommends debootstrap
		}
		echo "making $root"
		mkdir -p "$roots"
		rm -rf --one-file-system "$root.new"
		unshare --mount --propagation private debootstrap --variant=minbase "$release" "$root.new" "$mirror" >"$root.log" ||
			fail "debootstrap failed, see $root.log"
		{
			echo "deb $mirror $release main"
			[ -z "$security" ] || echo "deb $security $release-security main"
			[ "$suite" = "$release" ] || echo "deb $mirror $suite main"
		} >"$root.new/etc/apt/sources.list"
		# Backports count as much as the release, so the newest version is installed.
		printf 'Package: *\nPin: release n=%s-backports\nPin-Priority: 500\n' "$release" >"$root.new/etc/apt/preferences"
		cp /etc/resolv.conf "$root.new/etc/resolv.conf"
		rm -f "$root.log"
		mv "$root.new" "$root"
	fi
	(cd "$checkout" && inside "$root" "$here/install.sh" servers)
}

# version SUITE PACKAGE: upstream's version, without Debian's epoch and revision.
version() {
	run "$1" dpkg-query -W -f '${Version}\n' "$2" 2>/dev/null | sed -E 's/^[0-9]+://; s/[-+~].*//' | sort -V | tail -n 1
}

# packages prints the packages whose tests use the harness.
packages() {
	local imports='{{join .TestImports " "}} {{join .XTestImports " "}}'
	echo eventpusher/internal/harness
	go list -f "{{.ImportPath}} $imports " ./... | sed -n 's, .* eventpusher/internal/harness .*,,p'
}

# check SUITE: tests, and appends a row to the table. The output is in dist.
check() {
	local suite=$1 out=dist/servers-$1.txt failed result=passed
	echo "testing in $suite, see $out" >&2
	# shellcheck disable=SC2086 # several flags, several packages
	run "$suite" env CGO_ENABLED=0 go test -count 1 -p "${TEST_PARALLEL:-2}" -timeout 25m ${SERVERS_FLAGS:-} \
		${SERVERS_ONLY:-$(packages)} >"$out" 2>&1 || {
		failed=$(sed -nE 's/^FAIL\teventpusher\/([^ \t]+).*/\1/p' "$out" | paste -sd ' ')
		result="failed: ${failed:-see $out}"
		grep -E '^ *--- FAIL' "$out" >&2 || tail -n 20 "$out" >&2
	}
	echo "| $(run "$suite" cat /etc/debian_version) ($suite) | $(version "$suite" prosody) | $(version "$suite" ejabberd)" \
		"| $(version "$suite" erlang-base | cut -d . -f 1) | $(version "$suite" rabbitmq-server)" \
		"| $(version "$suite" 'postgresql-[0-9]*') | $result |" >>"$table"
	[ "$result" = passed ]
}

command=${1:-}
shift || true
case $command in
build | test)
	[ "$(id -u)" = 0 ] || fail "needs root"
	[ $# -gt 0 ] || set -- trixie trixie-backports
	for suite in "$@"; do build "$suite"; done
	[ "$command" = test ] || exit 0
	cd "$checkout"
	"$here/install.sh"
	go mod download
	go -C "$here/nats" mod download
	mkdir -p dist
	table=dist/servers.md
	printf '%s\n' '| Debian | Prosody | ejabberd | Erlang/OTP | RabbitMQ | PostgreSQL | tests |' '|---|---|---|---|---|---|---|' >"$table"
	status=0
	for suite in "$@"; do check "$suite" || status=1; done
	cat "$table"
	exit $status
	;;
run)
	[ $# -gt 1 ] || fail "usage: servers.sh run SUITE COMMAND..."
	run "$@"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
	exit 2
	;;
esac
