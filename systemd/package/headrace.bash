# bash completion of headrace(1). It asks the program's own help, so that it knows every command and option of the version that is installed.
_headrace() {
  local current=${COMP_WORDS[COMP_CWORD]} command= word help
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ $word != -* ]]; then
      command=$word
      break
    fi
  done
  # shellcheck disable=SC2086  # no command: no word
  help=$(headrace $command --help 2>/dev/null) || return
  if [[ $current == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -- '--?[a-z][a-z-]*' <<<"$(grep -E '^ +-' <<<"$help")")" -- "$current")
  elif [[ -z $command ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/^Subcommands:/,/^$/s/^  \([a-z][a-z-]*\) .*/\1/p' <<<"$help")" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -o filenames -o bashdefault -F _headrace headrace
