#!/usr/bin/env bash
# Installs what the tests need from Debian, where it may: as root or by sudo without a password.
#
# Where it may not, it says how and goes on: the tests concerned are skipped by name. With
# MODELMILL_REQUIRE_ALL=1 (as .ci/run sets it) a missing package is a failure instead.
set -euo pipefail

# The report is looked at in a real browser: one version of chromium and its driver, and a font, without
# which a screenshot shows no text.
# Images are built and run in a real container engine, on a base made from Debian's packages; pods want catatonit, which
# podman's package only recommends.
# Promotions are committed and signed by Git's own command line and ssh's keys.
packages=(chromium chromium-driver fonts-liberation podman buildah catatonit runc fuse-overlayfs debootstrap git openssh-client)
commands=(chromium chromedriver podman runc debootstrap git ssh-keygen)

say() { printf 'system-packages: %s\n' "$*" >&2; }

missing() {
    if [[ $distribution == debian ]]; then
        for package in "${packages[@]}"; do
            [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
                printf '%s ' "$package"
        done
    else
        for command in "${commands[@]}"; do
            command -v "$command" >/dev/null || printf '%s ' "$command"
        done
    fi
}

give_up() {
    say "missing: $(missing)- $1."
    say "get them as root: apt-get update && apt-get install --no-install-recommends ${packages[*]}"
    if [[ ${MODELMILL_REQUIRE_ALL:-} == 1 ]]; then
        say "MODELMILL_REQUIRE_ALL=1 allows no test to be skipped for that."
        exit 1
    fi
    say "going on; the tests that need them are skipped."
    exit 0
}

distribution=$(. /etc/os-release 2>/dev/null && printf %s "${ID:-}" || true)
[[ -n $(missing) ]] || exit 0
[[ $distribution == debian ]] || give_up "and this is not Debian, whose packages are known here"

as_root=()
if [[ $EUID -ne 0 ]]; then
    sudo -n true 2>/dev/null || give_up "and this is neither root nor sudo without a password"
    as_root=(sudo -n)
fi

# Bounded waits: a package manager that is busy or a mirror that is gone is told, not waited for.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2)
say "installing $(missing)..."
"${apt[@]}" update -qq >&2 || give_up "and apt-get update failed"
"${apt[@]}" install --yes -qq --no-install-recommends "${packages[@]}" >&2 || give_up "and apt-get install failed"
[[ -z $(missing) ]] || give_up "though apt-get install said it went well"
