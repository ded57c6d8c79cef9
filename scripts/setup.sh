# Sourced by scripts/run and scripts/test: makes .venv hold what Noema needs, once, and says what it does.
# Receives ROOT, the checkout; gives `set_up [dev]`, after which $VENV/bin/python is ready. Knows nothing of
# what runs in it. Plain bash 3.2, the one macOS ships. Everything it prints goes to stderr: stdout belongs
# to the program. The environment:
#   NOEMA_PYTHON        the Python to use (3.11 to 3.14) in place of the first one found that fits
#   NOEMA_TORCH_INDEX   an index that has PyTorch, e.g. https://download.pytorch.org/whl/cu126,
#                       or `default`: leave it to pip's own settings
# pip's own settings (PIP_*, pip.conf, proxies) hold throughout.
#
# The environment is made at its final place, not aside and renamed: its commands carry their own path. What
# stands in for the rename is the stamp, written last; a .venv without it is thrown away by the next start.
# shellcheck shell=bash

# $1: the environment's name; $2: the file that fixes its versions, or nothing.
use_environment() {
    VENV="$ROOT/$1"
    STAMP="$VENV/noema-stamp"
    LOCK="$ROOT/$1.lock"
    CHILD="$ROOT/$1.child"
    LOG="$ROOT/$1-setup.log"
    CONSTRAINTS=$2
}

use_environment .venv constraints.txt
SETUP_VERSION=1 # count up when an environment made by an older version of this file will not do
TORCH_CPU_INDEX="https://download.pytorch.org/whl/cpu"

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "noema: $*"
    finish
    exit 1
}

# --- is it set up already? -----------------------------------------------------------------------------

# Fills `wanted_sums` with a checksum of all that decides what gets installed. Settings of linters and tests
# stand in the same file, and changing them must not send anyone back to pip.
sum_requirements() {
    wanted_sums=$(awk 'BEGIN { keep = 1 } /^\[/ { keep = /^\[(build-system|project|tool\.setuptools)/ } keep' \
        "$ROOT/constraints.txt" "$ROOT/pyproject.toml" | cksum)
}

# Reads the stamp into stamp_*; nothing there leaves them empty.
read_stamp() {
    stamp_setup="" stamp_root="" stamp_python="" stamp_chosen="" stamp_index="" stamp_sums="" stamp_extra=""
    [ -r "$STAMP" ] || return 0
    {
        IFS= read -r stamp_setup
        IFS= read -r stamp_root
        IFS= read -r stamp_python
        IFS= read -r stamp_chosen
        IFS= read -r stamp_index
        IFS= read -r stamp_sums
        IFS= read -r stamp_extra
    } <"$STAMP"
    return 0
}

write_stamp() {
    printf '%s\n' "$SETUP_VERSION" "$ROOT" "$(readlink -f "$VENV/bin/python")" "${NOEMA_PYTHON-}" \
        "${NOEMA_TORCH_INDEX-}" "$wanted_sums" "$1" >"$STAMP.new"
    mv -f "$STAMP.new" "$STAMP"
}

# The environment fits this checkout and this machine, whatever is installed in it.
is_usable() {
    [ "$stamp_setup" = "$SETUP_VERSION" ] && [ "$stamp_root" = "$ROOT" ] && [ -x "$VENV/bin/python" ] || return 1
    [ -z "${NOEMA_PYTHON-}" ] || [ "$NOEMA_PYTHON" = "$stamp_chosen" ] || return 1
    [ -z "${NOEMA_TORCH_INDEX-}" ] || [ "$NOEMA_TORCH_INDEX" = "$stamp_index" ] || return 1
    # A system upgrade may have put Python 3.13 where 3.11 was; a new patch release does no harm.
    local python
    python=$(readlink -f "$VENV/bin/python")
    [ "${python##*/}" = "${stamp_python##*/}" ]
}

is_current() {
    is_usable && [ "$stamp_sums" = "$wanted_sums" ] && { [ "$stamp_extra" = "$1" ] || [ -z "$1" ]; }
}

# --- one set-up at a time, and nothing half-made -------------------------------------------------------

# A process id comes round again; with its start time it does not.
started_at() {
    local line
    if [ -d /proc/self ]; then
        { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
        # shellcheck disable=SC2086 # the fields are meant to split
        set -- ${line##*) }
        # A zombie is dead, and in a container without an init it stays about.
        [ "$1" = Z ] || printf '%s' "${20}"
    else
        ps -o lstart= -p "$1" 2>/dev/null
    fi
    return 0
}

# $1: "PID START". Is that very process still alive?
is_alive() {
    [ -n "$1" ] && kill -0 "${1%% *}" 2>/dev/null && [ "$(started_at "${1%% *}")" = "${1#* }" ]
}

# The lock is a symbolic link whose target names its owner: link and name come to be in one step.
take_lock() {
    local mine owner announced=""
    mine="$$ $(started_at $$)"
    until ln -s "$mine" "$LOCK" 2>/dev/null; do
        [ -w "$ROOT" ] || fail "cannot write in $ROOT, where the environment belongs. Clone it to a folder of yours."
        owner=$(readlink "$LOCK") || continue
        if ! is_alive "$owner"; then
            mv "$LOCK" "$LOCK.$$" 2>/dev/null || continue
            # Had someone else been quicker, what we moved would be their fresh lock: give it back.
            [ "$(readlink "$LOCK.$$")" = "$owner" ] || ln -s "$(readlink "$LOCK.$$")" "$LOCK"
            rm -f "$LOCK.$$"
            continue
        fi
        [ -n "$announced" ] || say "noema: another set-up is under way here (process ${owner%% *}); waiting for it."
        announced=yes
        sleep 0.3
    done
    locked=yes
}

# A set-up that was killed outright may have left its pip behind, still writing.
end_orphan() {
    local orphan="" number
    [ -r "$CHILD" ] && IFS= read -r orphan <"$CHILD"
    for number in TERM TERM TERM KILL; do
        is_alive "$orphan" || break
        kill "-$number" -- "-${orphan%% *}" 2>/dev/null
        sleep 1
    done
    rm -f "$CHILD"
}

discard() {
    [ -e "$1" ] || [ -L "$1" ] || return 0
    mv "$1" "$VENV.trash.$$" && rm -rf "$VENV.trash.$$"
}

# Leaves the checkout as if no set-up had been under way.
finish() {
    [ -n "${locked-}" ] || return 0
    trap '' INT TERM HUP
    if [ -n "${child-}" ]; then
        kill -TERM -- "-$child" 2>/dev/null
        wait "$child" 2>/dev/null
    fi
    [ -z "${half_made-}" ] || discard "$VENV"
    rm -rf "$VENV".trash.*
    rm -f "$CHILD" "$LOCK"
    locked="" child="" half_made=""
    trap - INT TERM HUP
}

interrupted() {
    [ ! -t 2 ] || printf '\n' >&2
    finish
    say "noema: set-up stopped; nothing half-made is left. Start it again whenever you like."
    exit "$1"
}

# --- steps a person can watch --------------------------------------------------------------------------

# One line, rewritten in place: what is under way, for how long, and what pip says about it.
show_progress() {
    local line
    line=$(tail -n 40 "$LOG" | sed -n -E 's/^ *((Collecting|Downloading|Processing|Installing|Preparing) .*)/\1/p' | tail -n 1)
    line="  $1, $((SECONDS - began)) s  $line"
    printf '\r\033[K%s' "${line:0:79}" >&2
}

# $1: what to call it; the rest: the command. Its output goes to the log, its status comes back.
step() {
    local name=$1 status=0 began=$SECONDS ticks=0
    shift
    printf '\n== %s: %s\n' "$name" "$*" >>"$LOG"
    [ -t 2 ] || say "  $name ..."
    set -m # a process group of its own, so that all of it can be ended at once
    "$@" >>"$LOG" 2>&1 </dev/null &
    child=$!
    set +m
    printf '%s\n' "$child $(started_at "$child")" >"$CHILD"
    while kill -0 "$child" 2>/dev/null; do
        [ ! -t 2 ] || [ $((ticks % 5)) -ne 0 ] || show_progress "$name"
        ticks=$((ticks + 1))
        sleep 0.2
    done
    wait "$child" || status=$?
    child=""
    rm -f "$CHILD"
    [ ! -t 2 ] || printf '\r\033[K' >&2
    [ "$status" -ne 0 ] || say "  $name: $((SECONDS - began)) s"
    return "$status"
}

show_log_end() {
    say ""
    say "The last lines of the log:"
    tail -n 15 "$LOG" | sed 's/^/    /' >&2
    if grep -qi 'no space left' "$LOG"; then
        say "The disk is full: 1.5 GB are needed, 8 GB with PyTorch's CUDA build."
    elif grep -qiE 'name resolution|could not resolve|failed to establish|network is unreachable' "$LOG"; then
        say "The package index could not be reached: check the network, or pip's index and proxy settings."
    fi
    say "The whole log: $LOG"
}

# --- the parts of a set-up -----------------------------------------------------------------------------

PROBE='
import sys, sysconfig
fits = (3, 11) <= sys.version_info[:2] <= (3, 14) and sys.implementation.name == "cpython"
if not fits or sys.maxsize < 2**32 or sysconfig.get_config_var("Py_GIL_DISABLED"):
    sys.exit(1)
try:
    import ensurepip, venv
    complete = "complete"
except ImportError:
    complete = "lacks-venv"
print(complete, "%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", None) or sys.executable)
'

# Finds `python` (its path), `python_version` and whether it is `python_complete`. Running each candidate is
# the only test that sees through a pyenv shim without a Python behind it.
find_python() {
    local candidate found
    python="" python_version="" python_complete=""
    set -- python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 /opt/homebrew/bin/python3
    [ -z "${NOEMA_PYTHON-}" ] || set -- "$NOEMA_PYTHON"
    for candidate in "$@"; do
        found=$("$candidate" -c "$PROBE" 2>/dev/null) || continue
        [ -n "$python" ] && [ "${found%% *}" != complete ] && continue
        python_complete=${found%% *} found=${found#* }
        python_version=${found%% *} python=${found#* }
        [ "$python_complete" = complete ] && return 0
    done
    [ -n "$python" ]
}

explain_no_python() {
    if [ -n "${NOEMA_PYTHON-}" ]; then
        fail "NOEMA_PYTHON is $NOEMA_PYTHON, which is not a working 64-bit CPython 3.11 to 3.14."
    elif [ "$(uname)" = Darwin ]; then
        fail "no Python 3.11 to 3.14 found. Install one:  brew install python@3.13"
    fi
    fail "no Python 3.11 to 3.14 found. Install one:  sudo apt install python3 python3-venv
       or name yours:  NOEMA_PYTHON=/path/to/python3.12 $0"
}

# Debian keeps ensurepip in a package of its own.
complete_python() {
    local package="python$python_version-venv"
    case $python in
    /usr/bin/*) ;;
    *) fail "$python cannot make virtual environments: its module ensurepip is missing.
       Reinstall that Python, or name another:  NOEMA_PYTHON=/path/to/python3.12 $0" ;;
    esac
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        step "Debian package $package" install_debian_packages "$package" && return 0
        show_log_end
    fi
    fail "$python cannot make virtual environments: Debian keeps that part in a package of its own.
       Install it:  sudo apt install $package
       then start this again."
}

install_debian_packages() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" || {
        apt-get update && apt-get install -y --no-install-recommends "$@"
    }
}

has_nvidia_gpu() {
    command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1
}

# Seconds count here: a network that swallows packets must not hold up the set-up.
answers_within_5_s() {
    timeout 5 "$VENV/bin/python" - "$1" <<'PYTHON'
import os, ssl, sys, urllib.request
proxy = os.environ.get("PIP_PROXY")
handlers = [urllib.request.ProxyHandler({"https": proxy})] if proxy else []
trust = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or os.environ.get("REQUESTS_CA_BUNDLE"))
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), *handlers)
opener.open(sys.argv[1] + "/torch/", timeout=5).close()
PYTHON
}

# Writes to $1 where torch comes from: an index for pip to see beside its own settings; `default`, as they are;
# or `cuda`, as they are and large: PyPI's Linux wheels want CUDA libraries, of no use without an NVIDIA GPU.
find_torch() {
    local version
    version=$(sed -n 's/^torch==//p' "$ROOT/constraints.txt")
    # pip may be set to a place that has the CPU build already.
    if timeout 60 "$VENV/bin/python" -m pip index versions torch --retries 1 | grep -F "$version+cpu"; then
        echo default >"$1"
    elif answers_within_5_s "$TORCH_CPU_INDEX"; then
        echo "$TORCH_CPU_INDEX" >"$1"
    else
        echo cuda >"$1"
    fi
}

# Fills `torch_index`.
choose_torch_index() {
    torch_index=${NOEMA_TORCH_INDEX-}
    if [ -z "$torch_index" ] && [ "$(uname)" = Linux ] && ! has_nvidia_gpu; then
        step "where PyTorch comes from" find_torch "$VENV/torch-index"
        read -r torch_index <"$VENV/torch-index"
        rm -f "$VENV/torch-index"
    fi
    if [ "$torch_index" = cuda ]; then
        say "  PyTorch's index of CPU builds ($TORCH_CPU_INDEX) does not answer. Going on with pip's"
        say "  own index, which gives the CUDA build: 2.8 GB to download and 8 GB of disk, in place of 0.3 and 1.5."
        say "  It works without a GPU just as well. Another index: NOEMA_TORCH_INDEX=URL $0"
    fi
    case $torch_index in cuda | default) torch_index="" ;; esac
}

# $1: the extra, or nothing; the rest: options for pip.
install_packages() {
    local target="." extra=$1
    shift
    [ -z "$extra" ] || target=".[$extra]"
    cd "$ROOT" || return
    # These settings of a user would send the packages elsewhere.
    unset PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONPATH
    # pip unpacks where it installs: /tmp may be small, and an interrupted set-up takes this folder with it.
    mkdir -p "$VENV/tmp"
    TMPDIR="$VENV/tmp" PIP_USER=0 "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check \
        --progress-bar off --no-compile ${CONSTRAINTS:+--constraint "$CONSTRAINTS"} "$@" --editable "$target" || return
    rm -rf "$VENV/tmp"
}

# Compiling all of torch takes a third of a set-up; this compiles what gets imported, and shows that it imports.
try_packages() {
    env -u PYTHONDONTWRITEBYTECODE "$VENV/bin/python" - <<'PYTHON'
import importlib, importlib.util
for name in ("onnxruntime", "pydantic", "rich.live", "sentencepiece", "soundfile", "soxr", "torch", "yaml"):
    if importlib.util.find_spec(name.partition(".")[0]):
        importlib.import_module(name)
PYTHON
}

make_environment() {
    find_python || explain_no_python
    [ "$python_complete" = complete ] || complete_python
    if { [ -e "$VENV" ] || [ -L "$VENV" ]; } && [ ! -e "$VENV/.noema" ]; then
        say "  .venv was not made by this script: it is now .venv.before-noema"
        mv "$VENV" "$VENV.before-noema" || fail "please move $VENV away."
    fi
    discard "$VENV"
    half_made=yes
    { mkdir "$VENV" && : >"$VENV/.noema"; } || fail "cannot write in $ROOT."
    say "  Python $python_version ($python)"
    step "environment" "$python" -m venv "$VENV" || { show_log_end; fail "making the environment failed."; }
}

# Brings an environment that fits up to date in place; makes any other anew. $1: the extra, or nothing.
build() {
    local options=() extra=$1
    # What tests need stays once it is there: otherwise run and test would take turns at installing.
    [ -n "$extra" ] || ! is_usable || extra=$stamp_extra
    printf '%s  %s  %s\n' "$(date)" "$(uname -srm)" "$ROOT" >"$LOG"
    if is_usable; then
        say "noema: what it needs has changed; bringing $VENV up to date"
        mv "$STAMP" "$STAMP.old"
    else
        say "noema: setting up in $VENV (once; a minute or a few)"
        make_environment
    fi
    half_made=yes
    choose_torch_index
    [ -z "$torch_index" ] || options=(--extra-index-url "$torch_index")
    if ! step "packages" install_packages "$extra" ${options[@]+"${options[@]}"}; then
        show_log_end
        # pip undoes what it could not finish, so an environment that worked before still does.
        [ ! -e "$STAMP.old" ] || { mv "$STAMP.old" "$STAMP" && half_made=""; }
        fail "installing the packages failed."
    fi
    step "first import" try_packages || { show_log_end; fail "the packages are installed but do not work here."; }
    write_stamp "$extra"
    rm -f "$STAMP.old"
    half_made=""
    say "  ready after $SECONDS s"
}

# $1: an extra of pyproject.toml that is needed too, or nothing.
set_up() {
    sum_requirements
    read_stamp
    is_current "${1-}" && return 0
    locked="" child="" half_made=""
    trap 'interrupted 129' HUP
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    take_lock
    read_stamp
    if ! is_current "${1-}"; then
        end_orphan
        rm -rf "$VENV".trash.*
        build "${1-}"
    fi
    finish
}
