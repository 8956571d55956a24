# Shared by tests/run, tests/bench and examples/demo: Debian packages, the Rust toolchain, root.
# shellcheck shell=bash

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root: as it is for root, else by sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: run it as root, or install sudo ($*)"
    fi
}

# Installs those of the given Debian packages that are missing.
need_packages() {
    local package missing=()
    if ! command -v dpkg-query >/dev/null; then
        say "This is no Debian: please see to it that you have what these packages hold: $*"
        return 0
    fi
    for package in "$@"; do
        if ! dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing: ${missing[*]}"
    as_root bash -c "$(declare -f install_quietly); install_quietly \"\$@\"" install "${missing[@]}" ||
        die "cannot install ${missing[*]}"
}

# As root: installs packages and does not let their services run, now or at the next boot. The lab
# starts servers of its own and nobody asked for one on this machine.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d own=no service
    if [ ! -e $policy ]; then
        own=yes
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 0755 $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    local code=0
    { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null; } || code=$?
    [ $own = no ] || rm -f $policy
    if [ -d /run/systemd/system ]; then
        for service in mosquitto coturn tinyproxy; do
            case " $* " in *" $service "*) systemctl disable --quiet $service || true ;; esac
        done
    fi
    return $code
}

# Finds cargo, and says how to get a toolchain where there is none that is new enough.
need_rust() {
    local wanted have
    # shellcheck disable=SC1091
    command -v cargo >/dev/null || { [ -r "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; } || true
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        say "There is no Rust toolchain here. Qanah needs Rust $wanted or newer. To get it:"
        say "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
        say "then open a new shell and run this again."
        exit 1
    fi
    have=$(cargo --version | awk '{print $2}')
    if [ "$(printf '%s\n%s\n' "$wanted" "${have%%-*}" | sort -V | head -n 1)" != "$wanted" ]; then
        say "This is Rust $have, and Qanah needs $wanted or newer: \`rustup update stable\`,"
        say "or get rustup at https://rustup.rs where the toolchain is that of the distribution."
        exit 1
    fi
}

# What the build needs, and what the lab needs (used by those who read this file).
# shellcheck disable=SC2034
BUILD_PACKAGES=(build-essential cmake ca-certificates)
# shellcheck disable=SC2034
LAB_PACKAGES=(iproute2 iputils-ping iperf3 nftables util-linux mosquitto mosquitto-clients coturn conntrack)
# What the tests need beside the lab.
# shellcheck disable=SC2034
TEST_PACKAGES=(openssl tinyproxy faketime)
# What makes the Debian package and looks at it.
# shellcheck disable=SC2034
PACKAGE_PACKAGES=(debhelper dpkg-dev lintian man-db systemd zsh fish)
# What boots machines.
# shellcheck disable=SC2034
MACHINE_PACKAGES=(debootstrap systemd-container)
