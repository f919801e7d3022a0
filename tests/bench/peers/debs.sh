# Sourced by the other scripts: unpacks Debian packages below a folder, without installing them, so that no service starts
# and the machine stays as it was.

unpack() { # FOLDER PROGRAM PACKAGE...
    local folder=$1 program=$2
    shift 2
    [ -x "$folder/$program" ] && return 0
    command -v apt-get >/dev/null || { echo "needs apt-get (a Debian system)"; return 1; }
    rm -rf "$folder" && mkdir -p "$folder/debs" && cd "$folder/debs" || return 1
    if ! apt-get download "$@" >apt.log 2>&1; then
        # The lists of packages may be old or missing.
        apt-get update >>apt.log 2>&1
        apt-get download "$@" >>apt.log 2>&1 || { grep '^E:' apt.log | tail -1; return 1; }
    fi
    local deb
    for deb in *.deb; do
        dpkg -x "$deb" "$folder" || return 1
    done
    rm -rf "$folder/debs"
    [ -x "$folder/$program" ] || { echo "the packages hold no $program"; return 1; }
}
