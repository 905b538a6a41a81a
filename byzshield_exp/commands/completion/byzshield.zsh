#compdef byzshield
# Tab completion of byzshield for zsh; the answers are byzshield's own.
_byzshield() {
    local -a answers
    answers=(${(f)"$("${words[1]}" completion answer "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    if (( ! ${#answers} )); then
        compset -P '*='
        _files
        return
    fi
    compadd -Q -S '' -- ${(M)answers:#*=} # the value comes next
    compadd -Q -- ${answers:#*=}
}
compdef _byzshield byzshield
