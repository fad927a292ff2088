# Completes `isobar` by asking it. Without an answer fish offers files.
function __isobar_candidates
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    isobar __complete -- $words 2>/dev/null
end
complete -c isobar -a '(__isobar_candidates)'
