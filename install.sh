#!/usr/bin/env bash
# Installs ssmprov for one user: see usage below, or `./install.sh --help`.
set -euo pipefail

usage() {
  cat <<'END'
Usage: ./install.sh [OPTION]...

Installs ssmprov from the folder that holds this file: the application in its own virtual environment, launchers in
~/bin, a working directory with its settings, and a copy of the source. Run it again to update what has changed.

  --prefix DIR     put the launchers in DIR/bin              (default: ~/bin)
  --home DIR       the working directory; all programs find  (default: $SSMPROV_HOME, or /_ if you can create it
                   it through ~/.config/ssmprov/home          or write there, or ~/.local/share/ssmprov/home)
  --venv DIR       the virtual environment                   (default: ~/.local/share/ssmprov/venv)
  --extras LIST    extras to install, separated by commas: rwkv, llama, metrics, composer
                                                             (default: rwkv,metrics,composer; "" for none)
  --no-install     use the environment as it is
  --no-source      do not keep a copy of the source in ~/src/ssmprov
  --uninstall      remove the launchers, the PATH line and the environment, and nothing else; if you
                   installed with --prefix, give it again
  --dry-run        show what would be done, and change nothing
  --help

The environment is made with $PYTHON, or with the first Python found that is 3.11 or newer.
END
}

readonly MARK='# ssmprov launcher: install.sh wrote it, replaces it and removes it.'
readonly PATH_MARK='# ssmprov: install.sh wrote this line and removes it'
readonly STAMP=.ssmprov-installed
readonly LAUNCHERS=(ssmprov PIPE GET_FILE PUT_FILE RUN QUOTE GET PUT MODEL COMPOSER)
readonly ROLES=(ANALYSIS BASH CONTEXT FILE INTERFACE OUTPUT PLAN PYTHON QUERY QUOTE RECAP USER VISITOR)
# llama.cpp is built as in the Makefile: not tuned to this processor, or it would run on no other.
readonly LLAMA_FLAGS='-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF'

say() { printf '%s\n' "$*"; }
fail() { printf 'install.sh: %s\n' "$*" >&2; exit 1; }
misused() { printf "install.sh: %s\nTry './install.sh --help'.\n" "$*" >&2; exit 2; }

# act WHAT COMMAND...: makes every change, so that --dry-run can leave them all out.
act() {
  local what=$1
  shift
  if ((dry)); then
    say "would $what"
  else
    say "$what"
    "$@"
  fi
}

# A word in quotes, which the shell reads as one word whatever it holds.
quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

absolute() {
  case $1 in
    /*) printf '%s' "$1" ;;
    *) printf '%s/%s' "$PWD" "$1" ;;
  esac
}

# Whether a folder can be created, or written to if it exists.
writable() {
  local folder=$1
  while [[ ! -e $folder && ! -L $folder ]]; do folder=$(dirname "$folder"); done
  [[ -d $folder && -w $folder && -x $folder ]]
}

# A name that is still free, for what must be moved out of the way.
backup_of() {
  local backup
  backup=$1.bak-$(date +%Y%m%d)
  while [[ -e $backup || -L $backup ]]; do backup+=-1; done
  printf '%s' "$backup"
}

must_be_writable() {
  writable "$2" || fail "cannot write to $2: choose another folder with $1 DIR, or get permission to write there"
}

make_folder() {
  [[ -d $1 ]] || act "make $1" mkdir -p -- "$1"
}

# -- options

[[ -n ${HOME:-} ]] || fail 'HOME is not set: set it to your home directory'
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
unset -v extras
bin=$HOME/bin venv='' home='' install=1 source=1 uninstall=0 dry=0 fell_back=0
readonly NOTE=$HOME/.config/ssmprov/home # where every program looks for the working directory (ssmprov/configuration.py)
readonly SOURCE=$HOME/src/ssmprov

while (($#)); do
  case $1 in
    --prefix | --home | --venv | --extras)
      (($# > 1)) || misused "$1 needs a value"
      [[ -n $2 || $1 == --extras ]] || misused "$1 needs a folder"
      case $1 in
        --prefix) bin=$(absolute "$2") bin=${bin%/}/bin ;;
        --home) home=$(absolute "$2") ;;
        --venv) venv=$(absolute "$2") ;;
        --extras) extras=$2 ;;
      esac
      shift
      ;;
    --no-install) install=0 ;;
    --no-source) source=0 ;;
    --uninstall) uninstall=1 ;;
    --dry-run) dry=1 ;;
    -h | --help) usage && exit ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done

# -- launchers

is_ours() { [[ -f $1 ]] && head -n 2 -- "$1" | grep -qxF -- "$MARK"; }

# What an earlier run noted in the launcher `ssmprov`: `noted environment`, `noted home`.
noted() {
  ! is_ours "$bin/ssmprov" || sed -n "s/^# $1: //p" "$bin/ssmprov"
}

# shellcheck disable=SC2016 # the launcher expands what is in single quotes
launcher() {
  local program
  program=$(quoted "$venv/bin/ssmprov")
  printf '%s\n' '#!/bin/sh' "$MARK" "# environment: $venv" "# home: $home"
  printf '[ -n "${SSMPROV_HOME:-}" ] || SSMPROV_HOME=%s\nexport SSMPROV_HOME\n' "$(quoted "$home")"
  case $1 in
    MODEL | COMPOSER) printf 'cd "$SSMPROV_HOME" || exit\n' ;;
  esac
  case $1 in
    MODEL) printf 'exec %s up "$@"\n' "$program" ;;
    COMPOSER) printf 'exec %s composer "$@"\n' "$program" ;;
    *) printf 'exec %s "$@"\n' "$(quoted "$venv/bin/$1")" ;;
  esac
}

keep_aside() {
  local backup
  backup=$(backup_of "$1")
  act "keep what is there as $backup" mv -- "$1" "$backup"
}

write_launcher() {
  launcher "${1##*/}" >"$1.new"
  chmod 755 "$1.new"
  mv -f -- "$1.new" "$1"
}

put_launcher() {
  local path=$bin/$1
  if is_ours "$path"; then
    cmp -s -- "$path" <(launcher "$1") || act "replace $path" write_launcher "$path"
    return
  fi
  if [[ -e $path || -L $path ]]; then
    keep_aside "$path"
  fi
  act "write $path" write_launcher "$path"
}

# -- the line that puts the launchers on PATH

start_files() {
  local shell=${SHELL:-} zsh=${ZDOTDIR:-} fish=${XDG_CONFIG_HOME:-$HOME/.config}/fish
  shell=${shell##*/}
  if [[ -z $zsh ]] && command -v zsh >/dev/null; then
    # shellcheck disable=SC2016 # zsh expands it: its .zshenv may say where the other files are
    zsh=$(zsh -c 'printf %s "${ZDOTDIR:-}"' </dev/null 2>/dev/null) || zsh=''
  fi
  zsh=${zsh:-$HOME}
  if [[ -f $HOME/.bashrc || $shell == bash ]]; then printf '%s\n' "$HOME/.bashrc"; fi
  if [[ -f $zsh/.zshrc || $shell == zsh ]]; then printf '%s\n' "$zsh/.zshrc"; fi
  if [[ -d $fish || $shell == fish ]]; then printf '%s\n' "$fish/conf.d/ssmprov.fish"; fi
}

# path_line FILE: the line for this start file.
path_line() {
  local folder
  folder=$(quoted "$bin")
  # shellcheck disable=SC2016
  case $1 in
    *.fish) printf 'contains -- %s $PATH; or set -gx PATH %s $PATH %s' "$folder" "$folder" "$PATH_MARK" ;;
    *) printf 'case ":$PATH:" in *:%s:*) ;; *) export PATH=%s:"$PATH" ;; esac %s' "$folder" "$folder" "$PATH_MARK" ;;
  esac
}

# Whether a start file puts our folder on PATH, in any of the usual ways.
on_path_in() {
  local written
  [[ -f $1 ]] || return 1
  if grep -qxF -- "$(path_line "$1")" "$1"; then return; fi
  for written in "$bin" "\$HOME${bin#"$HOME"}" "\${HOME}${bin#"$HOME"}" "~${bin#"$HOME"}"; do
    if sed 's/^[[:space:]]*#.*//' "$1" | grep -F PATH | grep -F -- "$written" |
      awk -v folder="$written" '{ at = index($0, folder) + length(folder); next_one = substr($0, at, 1)
        if (next_one == "" || index(":\"'\'' ;)", next_one)) found = 1 } END { exit !found }'; then
      return 0
    fi
  done
  return 1
}

append_line() {
  mkdir -p -- "$(dirname "$1")"
  if [[ -s $1 && -n $(tail -c 1 -- "$1") ]]; then printf '\n' >>"$1"; fi
  printf '%s\n' "$(path_line "$1")" >>"$1"
}

put_on_path() {
  local file files
  case $bin in /usr/local/bin | /usr/bin | /bin) return ;; esac
  files=$(start_files)
  if [[ -z $files ]]; then
    say "put $bin on the PATH of your shell, ${SHELL:-which SHELL does not name}"
    return
  fi
  while IFS= read -r file; do
    if on_path_in "$file"; then continue; fi
    if [[ -e $file && ! -w $file ]]; then
      say "cannot write to $file: add this line yourself: $(path_line "$file")"
    else
      act "put $bin on PATH in $file" append_line "$file"
    fi
  done <<<"$files"
}

drop_line() {
  local rest
  rest=$(mktemp -- "$1.XXXXXX")
  grep -vxF -- "$(path_line "$1")" "$1" >"$rest" || (($? == 1)) # 1: no other line
  cat -- "$rest" >"$1" # the file stays the one it is, a link or not
  rm -f -- "$rest"
  if [[ $1 == *.fish && ! -s $1 ]]; then rm -f -- "$1"; fi # this file made it
}

# -- the environment

# The names of the files to install.
sources() {
  local package
  cd "$root"
  printf '%s\0' pyproject.toml setup.py constraints.txt README.md LICENSE
  for package in config */__init__.py; do
    find "${package%/*}" -type f ! -path '*/__pycache__/*' -print0
  done | LC_ALL=C sort -z
}

stamp() {
  say "$extras"
  (sources | (cd "$root" && xargs -0 cksum) | cksum)
}

python_of_choice() {
  local python
  for python in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s' "$python"
      return
    fi
    [[ -z ${PYTHON:-} ]] || fail "$PYTHON is not Python 3.11 or newer: name another one, or leave PYTHON out"
  done
  fail 'ssmprov needs Python 3.11 or newer: install it (on Debian: sudo apt install python3 python3-venv), or say' \
    'where it is: PYTHON=/path/to/python3.11 ./install.sh'
}

with_llama() { [[ ,$extras, == *,llama,* || ,$extras, == *,all,* ]]; }

make_environment() {
  local python=$1
  rm -f -- "$venv/$STAMP"
  "$python" -m venv -- "$venv" ||
    fail "$python could not make a virtual environment in $venv (on Debian: sudo apt install python3-venv)"
}

fill_environment() {
  local work wanted
  wanted=$(stamp)
  rm -f -- "$venv/$STAMP"
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf -- $(quoted "$work")" EXIT
  (sources | (cd "$root" && tar --null -cf - -T -)) | tar -xf - -C "$work" # so the build leaves nothing here
  if with_llama; then export CMAKE_ARGS="$LLAMA_FLAGS ${CMAKE_ARGS:-}"; fi
  cp -- "$root/tools/pip.conf" "$venv/pip.conf"
  (cd "$work" && unset PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_REQUIRE_VIRTUALENV PIP_NO_DEPS PIP_DRY_RUN &&
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -c constraints.txt ".${extras:+[$extras]}") ||
    fail 'pip could not install ssmprov: its last lines say why. Fix that, then run ./install.sh again.'
  if with_llama; then "$venv/bin/python" -P -m ssmprov.start -m workers.runtimes.llama.probe 0; fi
  say "$wanted" >"$venv/$STAMP"
}

put_environment() {
  local python
  if ! ((install)); then
    [[ -x $venv/bin/ssmprov ]] || fail "there is no ssmprov in $venv: leave --no-install out to install it there"
    return
  fi
  if ! [[ -x $venv/bin/python && -x $venv/bin/pip ]]; then
    if [[ -d $venv && ! -f $venv/pyvenv.cfg && -n $(ls -A -- "$venv") ]]; then
      fail "$venv is not a virtual environment, and not empty: choose another folder with --venv DIR"
    fi
    python=$(python_of_choice)
    act "make a virtual environment in $venv" make_environment "$python"
  fi
  if with_llama && ! command -v "${CXX:-c++}" >/dev/null; then
    fail 'the extra llama must be compiled: install a C++ compiler (on Debian: sudo apt install g++), or leave llama out'
  fi
  if [[ ! -f $venv/$STAMP || $(<"$venv/$STAMP") != "$(stamp)" ]]; then
    act "install ssmprov${extras:+ with $extras} there (the first time takes a while)" fill_environment
  fi
}

# -- the working directory

content_of() {
  local role
  case $1 in
    .s1.txt | .s3.txt) for role in "${ROLES[@]}"; do printf '"[%s]: "\n' "$role"; done ;;
    .s2.txt) printf '%s\n' '"\n\n~~~("' '"\n\n~~~(end)~~~\n\n"' ;;
    .counter) printf 0 ;;
    ssmprov.toml) cat -- "$root/config/default.toml" ;;
  esac
}

write_file() {
  content_of "${1##*/}" >"$1.new"
  mv -- "$1.new" "$1"
}

# Where programs look without /_: the folder below, unless an earlier version has kept its contexts beside it.
own_home() {
  local data=${XDG_DATA_HOME:-$HOME/.local/share}/ssmprov
  if [[ ! -d $data/home && -d $data/.checkpoints ]]; then printf '%s' "$data"; else printf '%s' "$data/home"; fi
}

put_home() {
  local file
  make_folder "$home"
  make_folder "$home/.checkpoints"
  for file in ssmprov.toml .s1.txt .s2.txt .s3.txt .counter; do
    [[ -e $home/$file || -L $home/$file ]] || act "write $home/$file" write_file "$home/$file"
  done
}

# Where every program looks for the working directory.
write_note() {
  mkdir -p -- "$(dirname "$NOTE")"
  printf '%s\n' "$home" >"$NOTE.new"
  mv -f -- "$NOTE.new" "$NOTE"
}

put_note() {
  if [[ -f $NOTE && $(<"$NOTE") == "$home" ]]; then return; fi
  if writable "$(dirname "$NOTE")"; then
    act "note the working directory in $NOTE" write_note
  else
    say "cannot write to $NOTE: set SSMPROV_HOME=$home for programs that are not started by the launchers"
  fi
}

# -- the source

# What a tree of the source holds, as one number.
sum_of() { (cd "$1" && find . -type f ! -path "./$STAMP" -print0 | LC_ALL=C sort -z | xargs -0 cksum | cksum); }

copy_source() {
  local new=$SOURCE.new name left_out=()
  for name in ./.git ./.venv ./build ./dist ./runs './.*_cache' ./.hypothesis __pycache__ '*.egg-info' '*.log'; do
    left_out+=("--exclude=$name")
  done
  rm -rf -- "$new"
  mkdir -p -- "$new"
  (cd "$root" && tar "${left_out[@]}" -cf - .) | tar -xf - -C "$new"
  sum_of "$new" >"$new.sum"
  mv -- "$new.sum" "$new/$STAMP"
}

replace_source() {
  rm -rf -- "$SOURCE"
  mv -- "$SOURCE.new" "$SOURCE"
}

# A copy that is as we wrote it is replaced. Anything else is kept.
put_source() {
  if ((!source)) || [[ $root -ef $SOURCE ]]; then return; fi
  if ((!dry)); then copy_source; fi
  if [[ -f $SOURCE/$STAMP && $(<"$SOURCE/$STAMP") == "$(sum_of "$SOURCE")" ]]; then
    if ((!dry)) && cmp -s -- "$SOURCE/$STAMP" "$SOURCE.new/$STAMP"; then
      rm -rf -- "$SOURCE.new"
      return
    fi
  elif [[ -e $SOURCE || -L $SOURCE ]]; then
    keep_aside "$SOURCE"
  fi
  act "keep a copy of the source in $SOURCE" replace_source
}

# -- all of it

install_all() {
  [[ -f $root/pyproject.toml && -f $root/config/default.toml ]] ||
    fail "$root does not hold ssmprov's source: run the install.sh in that folder"
  must_be_writable --venv "$venv"
  must_be_writable --prefix "$bin"
  must_be_writable --home "$home"
  put_environment
  put_source
  put_home
  put_note
  make_folder "$bin"
  local name
  for name in "${LAUNCHERS[@]}"; do put_launcher "$name"; done
  put_on_path
  if ((dry)); then return; fi
  say "ssmprov: launchers in $bin, working directory $home. Open a new terminal, and run MODEL to serve."
  if ((fell_back)); then say "(you cannot create /_; choose another working directory with --home DIR)"; fi
}

uninstall_all() {
  local name file
  for name in "${LAUNCHERS[@]}"; do
    if is_ours "$bin/$name"; then act "remove $bin/$name" rm -f -- "$bin/$name"; fi
  done
  while IFS= read -r file; do
    if [[ -f $file ]] && grep -qxF -- "$(path_line "$file")" "$file"; then
      act "remove the PATH line from $file" drop_line "$file"
    fi
  done < <(start_files)
  if [[ -f $venv/$STAMP && -f $venv/pyvenv.cfg ]]; then # this file made it
    act "remove $venv" rm -rf -- "$venv"
  elif [[ -d $venv ]]; then
    say "kept: $venv, which install.sh did not install"
  fi
  if [[ -d $home ]]; then say "kept: $home, with configuration, settings, transcript and checkpoints"; fi
  if [[ -f $NOTE ]]; then say "kept: $NOTE, which names it"; fi
  if [[ -f $SOURCE/$STAMP ]]; then say "kept: $SOURCE, the source"; fi
}

# An option that is not given keeps its earlier value, or has its default.
[[ -n $venv ]] || venv=$(noted environment)
venv=${venv:-$HOME/.local/share/ssmprov/venv}
if [[ -z $home && -n ${SSMPROV_HOME:-} ]]; then home=$(absolute "$SSMPROV_HOME"); fi
if [[ -z $home && -f $NOTE ]]; then home=$(<"$NOTE"); fi
[[ -n $home ]] || home=$(noted home)
if [[ -z $home ]]; then
  home=/_
  writable "$home" || home=$(own_home) fell_back=1
fi
if [[ -z ${extras+given} ]]; then
  extras=rwkv,metrics,composer
  if [[ -f $venv/$STAMP ]]; then extras=$(head -n 1 -- "$venv/$STAMP"); fi
fi
[[ $extras =~ ^([a-z]+(,[a-z]+)*)?$ ]] || misused "--extras takes names separated by commas, such as rwkv,metrics"

if ((uninstall)); then uninstall_all; else install_all; fi
