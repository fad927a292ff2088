#compdef isobar
# Completes `isobar` by asking it. Without an answer zsh offers files.
_isobar() {
  local -a candidates
  candidates=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  candidates=(${candidates:#})
  if (( ${#candidates} )); then compadd -a candidates; else _files; fi
}
if [ "${funcstack[1]}" = "_isobar" ]; then _isobar "$@"; else compdef _isobar isobar; fi
