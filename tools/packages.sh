# Sourced by start and test: installs what packages.txt names. Sets no options, prints only when something is missing.

packages_file=$(dirname -- "${BASH_SOURCE[0]}")/packages.txt

# packages_missing SECTION...: the sections' packages that dpkg does not have, one a line.
packages_missing() {
	local section=" $* " package
	awk -v wanted="$section" '
		{ sub(/#.*/, ""); gsub(/[ \t]/, "") }
		/^\[.*\]$/ { on = index(wanted, " " substr($0, 2, length($0) - 2) " ") > 0; next }
		on && $0 != ""' "$packages_file" |
	while read -r package; do
		case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
		*' ok installed') ;;
		*) printf '%s\n' "$package" ;;
		esac
	done
}

# packages_install SECTION...: installs what is missing; without the right to, prints the line to run and fails.
packages_install() {
	local missing as_root=() install
	if ! command -v dpkg-query >/dev/null; then
		echo "$0: not a Debian system: $packages_file lists what must be installed" >&2
		return 0
	fi
	mapfile -t missing < <(packages_missing "$@")
	[ ${#missing[@]} -gt 0 ] || return 0

	install="apt-get install -y --no-install-recommends ${missing[*]}"
	if [ "$(id -u)" -ne 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			echo "$0: packages are missing and may not be installed by this user. Run this line, then $0 again:" >&2
			echo "sudo sh -c 'apt-get update && $install'" >&2
			return 1
		fi
		as_root=(sudo -n)
	fi
	echo "Installing ${missing[*]}"
	# Where the lists cannot be refreshed, those at hand may do: the installation tells.
	"${as_root[@]}" apt-get -qq update </dev/null || true
	if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $install </dev/null; then
		echo "$0: could not install: $install" >&2
		return 1
	fi
}
