# Completes `isobar` by asking it. Without an answer fish offers files.
function __isobar_candidates
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    set -l candidates (isobar __complete -- $words 2>/dev/null)
    if set -q candidates[1]
        printf '%s\n' $candidates
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c isobar -f -a '(__isobar_candidates)'
