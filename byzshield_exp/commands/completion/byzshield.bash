# Tab completion of byzshield for bash; the answers are byzshield's own.
_byzshield() {
    local line="${COMP_LINE:0:COMP_POINT}" answer kept=""
    local word="${line##*[[:space:]]}"
    local breaks="${COMP_WORDBREAKS//[^=@:]/}" # bash replaces only what follows the last of these
    if [[ -n $breaks && $word == *["$breaks"]* ]]; then
        kept="${word%"${word##*["$breaks"]}"}"
    fi
    COMPREPLY=()
    while IFS= read -r answer; do
        COMPREPLY+=("${answer#"$kept"}")
    done < <("$1" completion answer "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null # the value comes next
    fi
}
complete -o default -F _byzshield byzshield
