#!/bin/bash
# Install the Debian packages that the tests' private Slurm cluster needs, and those that make disks
# and system calls fail (bench/chaos), where they are missing.
# As root they are installed with apt; otherwise their names are printed and the exit status is 1.
set -euo pipefail

packages=(munge slurmctld slurmd slurm-client slurmdbd mariadb-server
  strace e2fsprogs mount)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests on Slurm and on failing disks need, by their Debian names: ${missing[*]}" >&2
  echo "This machine has no apt-get: install them by its own means." >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "The tests on Slurm and on failing disks need Debian packages: ${missing[*]}" >&2
  echo "Install them as root: apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi

# Debian starts a service as soon as it is installed. The tests start their own, on their own
# ports, so policy-rc.d refuses while we install (and only then).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

log=$(mktemp)
install() {
  DEBIAN_FRONTEND=noninteractive timeout 300 \
    apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1
}
# The lists of a fresh image are empty or old: only then does the first try fail.
if ! install; then
  timeout 300 apt-get -o DPkg::Lock::Timeout=120 update >>"$log" 2>&1 || true
  if ! install; then
    tail -n 20 "$log" >&2
    echo "apt-get could not install: ${missing[*]} (its whole output: $log)" >&2
    exit 1
  fi
fi
rm -f "$log"
echo "installed: ${missing[*]}" >&2
