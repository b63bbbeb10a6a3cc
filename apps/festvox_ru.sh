# For other scripts: `festvox_ru` prints the folder of a corpus of speech, which it downloads if need
# be. Reads CENTROID_CACHE (where it is kept) and FESTVOX_RU (an unpacked one to use instead).
cache=${CENTROID_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/centroid}
voice=usr/share/festival/voices/russian/msu_ru_nsh_clunits

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'error: %s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }

festvox_ru() {
  if [ -n "${FESTVOX_RU:-}" ]; then
    [ -d "$FESTVOX_RU/wav" ] && { echo "$FESTVOX_RU"; return; }
    [ -d "$FESTVOX_RU/$voice/wav" ] && { echo "$FESTVOX_RU/$voice"; return; }
    fail "FESTVOX_RU=$FESTVOX_RU has no folder wav"
  fi
  local root=$cache/festvox-ru
  if [ ! -d "$root/$voice/wav" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "the speech comes from" \
      "Debian's package festvox-ru and needs apt-get and dpkg; elsewhere, unpack the package by hand" \
      "and run FESTVOX_RU=DIR make demo, or train on your own recordings (docs/asr-data.md)"
    mkdir -p "$cache"
    local work
    work=$(mktemp -d "$cache/download.XXXXXX")
    trap "rm -rf '$work'" EXIT  # expanded now: `work` is gone by then
    echo "downloading festvox-ru (179 MB) with apt-get into $cache" >&2
    (cd "$work" && apt-get download festvox-ru >/dev/null 2>&1) ||
      (sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
       $sudo apt-get -qq update && cd "$work" && apt-get download festvox-ru >/dev/null 2>&1) ||
      fail "apt-get cannot download festvox-ru: is there a network, and is it in your distribution" \
        "(Debian and Ubuntu have it)? See docs/asr-data.md to train on other speech"
    dpkg -x "$work"/festvox-ru_*.deb "$work/root"
    rm -rf "$root"
    mv "$work/root" "$root"
  fi
  echo "$root/$voice"
}
