# bash-completion(7) for five(1): options, orders, hosts, and the services of a host to which a session stands.
#
# It asks nobody: services come from a session that "five -O check" knows, without a terminal and within two seconds; hosts
# from five's own files and /etc/hosts.

_five_hosts() {
    local dir=${XDG_CONFIG_HOME:-$HOME/.config}/five
    {
        # Of the patterns of a section those that are names.
        sed -n 's/^[[:space:]]*\[\([^]]*\)\].*/\1/p' "$dir/config" | tr -s '[:blank:]' '\n' | grep -v '[*?!]'
        sed -n 's/^[[:space:]]*\[\{0,1\}\([^][#[:space:]]*\)\]\{0,1\}:[0-9]*[[:space:]]\{1,\}[sv].*/\1/p' "$dir/known_hosts"
        sed 's/#.*//' /etc/hosts | awk '{ for (i = 2; i <= NF; i++) print $i }'
    } 2>/dev/null | sort -u
}

# _five_services FIVE WORDS...: what FIVE WORDS... lists, if that session stands.
_five_services() {
    local five=$1
    shift
    command -v setsid >/dev/null && command -v timeout >/dev/null || return
    [[ $(timeout 2 "$five" -q -O check "$@" 2>/dev/null </dev/null) == *' state=up '* ]] || return
    # Should the session end just now: without a terminal and an agent nobody is asked.
    SSH_ASKPASS= SSH_ASKPASS_REQUIRE=never SSH_AUTH_SOCK= setsid -w timeout 2 "$five" -nq "$@" 2>/dev/null </dev/null
}

_five() {
    # Words as the shell has them, also where readline breaks them at @ and colons.
    local line=${COMP_LINE:0:COMP_POINT} words word cur
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] || ${#words[@]} -lt 2 ]]; then cur=; else
        cur=${words[-1]}
        unset 'words[-1]'
    fi

    local said=() host= service= wants= alone= i rest
    for word in "${words[@]:1}"; do
        if [[ $wants ]]; then
            case $wants in
            O) alone=1 ;;
            p | l | H | J) said+=("-$wants" "$word") ;;
            esac
            wants=
            continue
        fi
        case $word in
        --port=* | --login=* | --host=*) said+=("$word") ;;
        --port) wants=p ;;
        --login) wants=l ;;
        --host) wants=H ;;
        --identity) wants=i ;;
        --plain) alone=1 ;;
        --*) ;;
        -?*)
            # -vp 1001, -p1001
            for ((i = 1; i < ${#word}; i++)); do
                case ${word:i:1} in
                N) alone=1 ;;
                p | l | H | i | L | R | O | J)
                    wants=${word:i:1} rest=${word:i+1}
                    if [[ $rest ]]; then
                        case $wants in
                        O) alone=1 ;;
                        p | l | H | J) said+=("-$wants" "$rest") ;;
                        esac
                        wants=
                    fi
                    break
                    ;;
                esac
            done
            ;;
        *) if [[ $host ]]; then service=$word; else host=$word; fi ;;
        esac
    done

    COMPREPLY=()
    case $wants in
    O) mapfile -t COMPREPLY < <(compgen -W 'check list exit resume forward cancel' -- "$cur") ;;
    i | L | R) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
    l) mapfile -t COMPREPLY < <(compgen -u -- "$cur") ;;
    p | H | J) ;;
    *)
        if [[ $cur == -* ]]; then
            local options='-4 -6 -N -n -q -v -t -T -x -h -V -p -l -H -i -L -R -J -O --port --login --host --identity --quiet --verbose
                --accept-new --plain --help --version'
            mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        elif [[ ! $host ]]; then
            local user=
            [[ $cur != *@* ]] || user=${cur%@*}@
            mapfile -t COMPREPLY < <(compgen -P "$user" -W "$(_five_hosts)" -- "${cur#"$user"}")
        elif [[ ! $service && ! $alone ]]; then
            # Names are what a server says: none of them is expanded.
            while IFS= read -r word; do
                [[ $word == *[!-[:alnum:]._+/@:,%]* || $word != "$cur"* ]] || COMPREPLY+=("$word")
            done < <(_five_services "${words[0]}" "${said[@]}" "$host")
        fi
        ;;
    esac

    # readline puts the reply after the last of its breaks.
    local breaks=${COMP_WORDBREAKS//[^@:]/}
    if [[ $breaks && $cur == *[$breaks]* ]]; then
        local before=${cur%"${cur##*[$breaks]}"}
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
} && complete -F _five five
