r"""The sh that runs inside the sandbox, as text.

Common to all of it:

* Placeholders look like ``@{name}``; ``fill`` replaces them with sh words, quoted already.
* Every script is one ``{ ...; exit; }``, which a shell parses completely before it runs any of
  it: a script that was cut on its way does nothing, and nothing can read the rest of it from
  standard input.
* Only POSIX sh and builtins, except where a program is named. Tried as ``sh``: dash, bash, busybox.
* Variables begin with ``ek_``, because assigning to one that the sandbox exports would change it
  for the command. ``true >file`` where ``: >file`` looks natural: a failed redirection of a special
  builtin ends the shell.
* Sets of files of a job, in ``jobs/<id>``: ``go`` is the claim, created exclusively by the
  supervisor just before it starts the command; without it the command has not run. ``live`` is a
  FIFO that only the supervisor holds open for writing: reading it blocks exactly as long as the
  supervisor lives. ``status`` is written through a descriptor that was opened, and over bytes that
  were allocated, before the command began. ``o``/``e`` are FIFOs drained into ``out``/``err``: a
  program that reopens /dev/stdout must not truncate what came before. ``whole`` is removed when
  output had to be dropped. ``note`` says why a program could not be run.
* Where FIFOs do not work, ``status`` is polled and output goes straight into ``out`` and ``err``:
  it is not capped then, and a program that reopens /dev/stdout truncates it.
* Programs of our own run with ``LC_ALL=C``: most of them load a dozen files for any other locale,
  which takes longer than all else they do. The command gets the locale that the sandbox has.
* Where env(1) has no ``--default-signal`` (busybox), commands ignore SIGINT and SIGQUIT, because sh
  starts background processes that way and cannot take it back.
"""

from __future__ import annotations

import re

from ekairos_sandbox.shell.quoting import quote

_PLACEHOLDER = re.compile(rb"@\{([a-z_]+)\}")


def _compact(text: str) -> str:
    """Leave out comments and indentation: they need not travel with every call."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"


def fill(template: str, **values: bytes | str | int) -> bytes:
    """Replace each ``@{name}``: ``bytes`` go in as they are, text and numbers as quoted words.

    Raises:
        KeyError: A placeholder has no value.
    """
    words = {
        name: value if isinstance(value, bytes) else quote(str(value))
        for name, value in values.items()
    }
    return _PLACEHOLDER.sub(lambda found: words[found[1].decode()], template.encode())


# Every call begins with this. `ek_say` ends the call with a short answer.
HEAD = _compact(r"""
exec </dev/null 2>/dev/null
ek_nonce=@{nonce} ek_root=@{root} ek_id=@{id}
ek_job=$ek_root/jobs/$ek_id
ek_say() { printf '\n@EK1:%s:%s:%s@\n' "$ek_nonce" "$1" "$ek_nonce"; exit; }
ek_nap() { sleep "$1" || sleep 1; }
""")

# Become a program in a session of its own. setsid(1) does not fork here, because a background
# process of a shell without job control leads no group. Python ignores SIGPIPE and SIGXFSZ and
# would hand that on.
SESSION = _compact(r"""
ek_session() {
  case $ek_setsid in
  perl:*) exec "${ek_setsid#perl:}" -e \
    'use POSIX (); POSIX::setsid(); exec { $ARGV[0] } @ARGV; exit 126' -- "$@" ;;
  python:*) exec "${ek_setsid#python:}" -c 'import os, signal, sys
for s in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(s, signal.SIG_DFL)
os.setsid()
try: os.execvp(sys.argv[1], sys.argv[1:])
except OSError: sys.exit(126)' "$@" ;;
  *) exec "$ek_setsid" -- "$@" ;;
  esac
}
""")

# What state a job is in, from its files alone. Sets ek_state and what belongs to it.
JUDGE = _compact(r"""
ek_ended() {
  ek_key= ek_end=
  [ -f "$ek_job/status" ] && [ ! -L "$ek_job/status" ] &&
    read -r ek_key ek_rc ek_why ek_up0 ek_up1 ek_end <"$ek_job/status"
  [ "$ek_key" = EK1 ] && [ "$ek_end" = . ] &&
    case $ek_rc$ek_why$ek_up0$ek_up1 in *[!a-z0-9.-]*) false ;; esac
}
ek_claimed() {
  ek_end=
  [ -f "$ek_job/go" ] && [ ! -L "$ek_job/go" ] &&
    read -r ek_pid ek_since ek_boot ek_mark ek_digest ek_end <"$ek_job/go"
  [ "$ek_end" = . ]
}
# The claim names process, start time and boot: a reused pid does not pass for the supervisor.
ek_alive() {
  ek_claimed && case $ek_pid in *[!0-9]*) false ;; esac &&
    read -r ek_stat <"/proc/$ek_pid/stat" && set -- ${ek_stat##*) } && [ $# -ge 20 ] &&
    [ "$1" != Z ] && [ "$1" != X ] && shift 19 && [ "$1" = "$ek_since" ] &&
    { [ "$ek_boot" = - ] || { read -r ek_stat </proc/sys/kernel/random/boot_id &&
      [ "$ek_stat" = "$ek_boot" ]; }; }
}
ek_judge() {
  ek_rc=- ek_why=- ek_up0=- ek_up1=-
  if ek_ended; then ek_state=exited; return; fi
  ek_rc=- ek_why=- ek_up0=- ek_up1=-
  if [ ! -d "$ek_job" ]; then
    ek_state=unknown
    [ ! -e "$ek_root/purged/$ek_id" ] || ek_state=purged
  elif [ ! -e "$ek_job/go" ]; then ek_state=created
  elif ek_alive; then ek_state=running
  elif [ "$ek_end" = . ] && [ "$ek_pid" = void ]; then ek_state=void
  elif [ -n "$ek_patient" ] && ek_nap 0.05 && ek_alive; then ek_state=running
  elif ek_ended; then ek_state=exited
  else ek_state=lost; ek_rc=- ek_why=- ek_up0=- ek_up1=-
  fi
}
""")

# Start the job unless it was claimed before. `@{deliver}` writes the supervisor's script to
# $ek_run and the input to $ek_in, or names the files that were uploaded.
START = _compact(r"""
ek_refuse() { @{cleanup}; ek_say "error:$1"; }
ek_epoch= ek_caps= ek_sup=
[ -f "$ek_root/epoch" ] && read -r ek_epoch <"$ek_root/epoch"
[ "$ek_epoch" = @{epoch} ] || ek_refuse epoch
[ -f "$ek_root/caps" ] &&
  read -r ek_caps ek_sh ek_setsid ek_env ek_fifo ek_fraction ek_end <"$ek_root/caps"
[ "$ek_caps" = 1 ] || ek_refuse epoch
if [ ! -e "$ek_job/go" ]; then
  # After the claim: whoever purges a job leaves the mark before it removes the claim.
  [ ! -e "$ek_root/purged/$ek_id" ] || ek_refuse purged
  [ -d "$ek_job" ] || LC_ALL=C mkdir -m 700 "$ek_job" || [ -d "$ek_job" ] || ek_refuse space
  if [ "$ek_fifo" = y ]; then
    # `live` last: whoever sees it may rely on the others.
    [ -p "$ek_job/live" ] || LC_ALL=C mkfifo "$ek_job/o" "$ek_job/e" "$ek_job/live"
    [ -p "$ek_job/live" ] || ek_refuse space
  fi
  {
    @{deliver} && true >>"$ek_job/whole" &&
      { [ -s "$ek_job/status" ] || printf '%96s\n' '' >>"$ek_job/status"; }
  } || ek_refuse space
  [ "$ek_fifo" != y ] || exec 9<>"$ek_job/live"
  (
    trap - INT QUIT
    set -- "$ek_run" "$ek_job" "$ek_in" "${LC_ALL+=$LC_ALL}"
    export LC_ALL=C
    ek_session "$ek_sh" "$@" >/dev/null 2>&1
  ) & ek_sup=$!
  [ "$ek_fifo" != y ] || { exec 4<"$ek_job/live" 9>&-; ek_bell=y; }
elif ek_claimed && [ "$ek_digest" != @{digest} ] && [ "$ek_digest" != - ]; then
  ek_refuse conflict
fi
""")

# The supervisor: claims the job, runs the command, enforces its time, writes the status.
# Arguments: the job's directory, the file to use as standard input, `=` and LC_ALL if that is set.
SUPERVISOR = _compact(
    r"""{
ek_job=$1 ek_in=$2 ek_root=@{root} ek_mark=@{mark} ek_timeout=@{timeout}
ek_why=- ek_timer= ek_drain= ek_full= ek_pumps= ek_awake=
case $3 in =*) LC_ALL=${3#=} ;; *) unset LC_ALL ;; esac
cd / || exit
# Caught, not ignored: ignoring would be inherited. The first reason stands.
trap : HUP INT QUIT
trap '[ "$ek_why" != - ] || ek_why=cancel' TERM
trap '[ "$ek_why" != - ] || ek_why=timeout' USR1
trap ek_full=y USR2
read -r ek_v ek_sh ek_setsid ek_env ek_fifo ek_fraction ek_v <"$ek_root/caps"
"""
    + SESSION
    + r"""
# Signal this shell after a while, and again until it is through: a signal that arrives just
# before `wait` would not interrupt it. Only as long as it is the parent: after that its number may
# be another process's. ALRM calls it off. A process that was just forked still has
# its parent's handlers and would swallow a signal that the parent traps: hence one that this
# shell leaves alone, and KILL for the sleep.
ek_alarm() {
  (
    exec 8>&- 9>&-
    ek_off= ek_nap= ek_signal=$2
    trap - TERM USR1 USR2
    trap 'ek_off=y; [ -z "$ek_nap" ] || kill -KILL "$ek_nap"' ALRM
    sleep "$1" & ek_nap=$!
    [ -z "$ek_off" ] || kill -KILL "$ek_nap"
    wait "$ek_nap"
    while [ -z "$ek_off" ] && read -r ek_v </proc/self/stat && set -- ${ek_v##*) } &&
      [ "$2" = $$ ] && kill "-$ek_signal" $$; do
      sleep 1 & ek_nap=$!
      [ -z "$ek_off" ] || kill -KILL "$ek_nap"
      wait "$ek_nap"
    done
    wait
  ) &
}
# Drain a FIFO into a file, up to the cap, then to nothing: the command never sees a full disk or
# a closed pipe.
ek_pump() {
  trap '' TERM INT HUP QUIT XFSZ
  exec <"$1" >&"$2" 3>&- 4>&- 5>&- 6>&- 7<&- 8>&- 9>&-
  ulimit -f @{blocks}
  cat || { rm -f "$ek_job/whole"; exec cat >/dev/null; }
}
ek_through() {
  read -r ek_v <"/proc/$1/stat" || return 0
  set -- ${ek_v##*) }
  [ "$1" = Z ] || [ "$1" = X ]
}
# Whether the FIFO $ek_f will not end soon: somebody in the background has it open for writing, and
# what the command itself wrote has been taken out, so that the pump sleeps, as does the shell that
# waits for it. On a busy machine a pump may not have begun after seconds, with all of it to come.
ek_endless() {
  [ $ek_waits -lt 30 ] || return 0
  ek_held= ek_idle=0
  for ek_g in /proc/[0-9]*/fd/*; do
    [ "$ek_g" -ef "$ek_f" ] || continue
    case $ek_g in
    */fd/0) read -r ek_s <"${ek_g%/fd/0}/stat" && case ${ek_s##*) } in
      S*) ek_idle=$((ek_idle + 1)) ;;
      *) ek_idle=-9 ;;
      esac ;;
    *) ek_held=y ;;
    esac
  done
  [ -n "$ek_held" ] && { [ $ek_idle -ge 2 ] || [ $ek_waits -ge 3 ]; }
}
# Whether the command's group has a member that is no zombie: process 1 may be slow to reap.
ek_group() {
  kill -0 "-$ek_cmd" || return
  for ek_p in /proc/[0-9]*/stat; do
    read -r ek_v <"$ek_p" || continue
    set -- ${ek_v##*) }
    [ "$3" != "$ek_cmd" ] || [ "$1" = Z ] || [ "$1" = X ] || return 0
  done
  false
}
# Signal the command's group, and strays that left it but bear the mark. True while any is left.
ek_sweep() {
  kill "-$1" "-$ek_cmd" || kill "-$1" "$ek_cmd"
  ek_left=
  for ek_p in $(grep -l "EKAIROS_JOB_MARK=$ek_mark" /proc/[0-9]*/environ); do
    ek_p=${ek_p#/proc/}
    kill "-$1" "${ek_p%/environ}" && ek_left=y
  done
  [ -n "$ek_left" ] || ek_group
}
exec 7<"$ek_in"
read -r ek_boot </proc/sys/kernel/random/boot_id || ek_boot=-
read -r ek_v </proc/$$/stat
set -- ${ek_v##*) }
shift 19
exec 8<>"$ek_job/status"
ek_out=$ek_job/out ek_err=$ek_job/err
if [ "$ek_fifo" = y ]; then
  exec 3>>"$ek_out" 4>>"$ek_err"
  ek_out=$ek_job/o ek_err=$ek_job/e
  # Whoever has a FIFO open both ways neither waits for the other side nor lets it see an end. So
  # the command and the pumps, which inherit this, may open theirs in any order.
  exec 5<>"$ek_out" 6<>"$ek_err"
fi
set -C
{ echo "$$ $1 $ek_boot $ek_mark @{digest} ." >"$ek_job/go"; } || exit 0
set +C
# Claimed. The scripts hold secrets and are not needed any more, this one included.
true >"$0"
for ek_v in "$ek_job"/run.*; do [ ! -s "$ek_v" ] || true >"$ek_v"; done
set --
case $0 in */up/*) set -- "$0" ;; esac
[ "$ek_in" = /dev/null ] || set -- "$@" "$ek_in"
[ $# = 0 ] || rm -f "$@"
printf '%s.' '@{argv}' >"$ek_job/argv"
read -r ek_up0 ek_v </proc/uptime
(
  trap - INT QUIT TERM HUP USR1 USR2
  set --
  [ ! -f "$ek_root/env" ] || . "$ek_root/env"
@{env}
  # In two parts: a script that travelled in a variable must not pass for the command.
  export EKAIROS_JOB=@{id} EKAIROS_JOB_MARK=""@{mark}
  ek_n=$#
  cd -- @{home} || cd /
  @{cwd} || { echo nocwd >"$ek_job/note"; exit 126; }
  ek_prog=@{prog}
  case $ek_prog in
  */*)
    [ -e "$ek_prog" ] ||
      { echo noent >"$ek_job/note"; printf '%s: not found\n' "$ek_prog" >&2; exit 127; }
    [ -x "$ek_prog" ] && [ ! -d "$ek_prog" ] ||
      { echo perm >"$ek_job/note"; printf '%s: permission denied\n' "$ek_prog" >&2; exit 126; }
    ;;
  *)
    command -v -- "$ek_prog" >/dev/null ||
      { echo noent >"$ek_job/note"; printf '%s: not found\n' "$ek_prog" >&2; exit 127; }
    ;;
  esac
  # What an sh cannot hold as a variable is in "$@" now, for env(1), which also undoes that sh
  # ignores SIGINT and SIGQUIT in background processes.
  set -- "$@" @{words}
  if [ "$ek_env" != - ]; then
    ek_n=
    [ -n "${LC_ALL+y}" ] || { ek_n=--unset=LC_ALL; export LC_ALL=C; }
    set -- "$ek_env" --default-signal=INT,QUIT $ek_n -- "$@"
  elif [ "$ek_n" -gt 0 ]; then set -- env -- "$@"
  fi
  ek_session "$@"
) <&7 >>"$ek_out" 2>>"$ek_err" 3>&- 4>&- 5>&- 6>&- 7<&- 8>&- 9>&- & ek_cmd=$!
export LC_ALL=C
# The pumps come second, because the command has a longer way to go.
if [ "$ek_fifo" = y ]; then
  ek_pump "$ek_out" 3 & ek_pumps=$!
  ek_pump "$ek_err" 4 & ek_pumps="$ek_pumps $!"
fi
exec 3>&- 4>&- 5>&- 6>&- 7<&-
if [ -n "$ek_timeout" ]; then
  [ "$ek_fraction" = y ] || ek_timeout=$((${ek_timeout%.*} + 1))
  ek_alarm "$ek_timeout" USR1
  ek_timer=$!
fi
@{awake}
wait "$ek_cmd"
ek_rc=$?
[ "$ek_why" = - ] || if kill -0 "$ek_cmd"; then
  ek_sweep TERM
  ek_n=0
  while [ $ek_n -lt @{grace} ] && ek_sweep 0; do
    if sleep 0.1; then ek_n=$((ek_n + 1)); else sleep 1; ek_n=$((ek_n + 10)); fi
  done
  ek_n=0
  while ek_sweep KILL && [ $ek_n -lt 50 ]; do ek_n=$((ek_n + 1)); done
  while kill -0 "$ek_cmd"; do wait "$ek_cmd"; done
else
  ek_why=-
fi
# The first wait may have been interrupted by a signal to this shell.
[ $ek_rc -le 128 ] || { wait "$ek_cmd"; ek_n=$?; [ $ek_n = 127 ] || ek_rc=$ek_n; }
# Let the pumps finish, but not for the sake of a child that was left in the background.
# Mostly they are through sooner than a timer could be started.
ek_full= ek_n=0 ek_waits=0
set -- $ek_pumps
while [ $# -gt 0 ]; do
  ek_p=$1
  [ $# = 2 ] && ek_f=$ek_job/o || ek_f=$ek_job/e
  shift
  until ek_through "$ek_p" || [ $ek_n -ge 10 ]; do ek_n=$((ek_n + 1)); done
  if [ -z "$ek_drain" ] && ! ek_through "$ek_p"; then
    [ "$ek_fraction" = y ] && ek_v=0.2 || ek_v=1
    ek_alarm $ek_v USR2
    ek_drain=$!
  fi
  ek_v=0 ek_left_it=
  while :; do
    if [ -n "$ek_full" ]; then
      ! ek_endless || { ek_left_it=y; break; }
      ek_full= ek_waits=$((ek_waits + 1))
    fi
    wait "$ek_p"
    ek_v=$?
    kill -0 "$ek_p" || break
  done
  # A pump that was killed has dropped something.
  case $ek_left_it$ek_v in y* | 0 | 127) ;; *) rm -f "$ek_job/whole" ;; esac
done
read -r ek_up1 ek_v </proc/uptime
printf 'EK1 %s %s %s %s .\n' "$ek_rc" "$ek_why" "$ek_up0" "$ek_up1" >&8
# Reaped here: process 1 of a sandbox may not do it.
for ek_p in $ek_timer $ek_drain; do kill -ALRM "$ek_p"; wait "$ek_p"; done
exec 9>&-
[ -z "$ek_awake" ] || { kill -ALRM "$ek_awake"; wait "$ek_awake"; }
exit
} </dev/null 2>/dev/null
"""
)

# A part of the supervisor where a provider's machines freeze when nobody looks: keep this one
# awake while the supervisor lives. Short commands are through before it does anything. ALRM calls
# it off, as in `ek_alarm`.
AWAKE = _compact(r"""
ek_keep() {
@{keep_awake}
}
(
  exec 7<&- 8>&- 9>&-
  ek_off= ek_nap= ek_held= ek_rest=@{first}
  trap - HUP INT QUIT TERM USR1 USR2
  trap 'ek_off=y; [ -z "$ek_nap" ] || kill -KILL "$ek_nap"' ALRM
  while [ -z "$ek_off" ]; do
    sleep "$ek_rest" & ek_nap=$!
    [ -z "$ek_off" ] || kill -KILL "$ek_nap"
    wait "$ek_nap"
    ek_nap=
    [ -z "$ek_off" ] && ! ek_through $$ || break
    ek_keep hold "ekairos-$ek_mark"
    ek_held=y ek_rest=@{again}
  done
  [ -z "$ek_held" ] || ek_keep free "ekairos-$ek_mark"
) & ek_awake=$!
""")

# Wait for the end, or for new output, or until the window is over.
# ek_follow: come back as soon as there is output beyond the offsets.
# ek_kill: "kill" ends the job, "void" makes one that has not run never run, even if it is not known
# yet; "cancel" does both.
WAIT = _compact(r"""
ek_window=@{window} ek_follow=@{follow} ek_kill=@{kill} ek_patient=y ek_n=0 ek_woke= ek_more=
export LC_ALL=C
ek_now() { read -r ek_t ek_v </proc/uptime; ek_t=${ek_t%.*}; }
ek_now
ek_until=$((ek_t + ek_window)) ek_told=$ek_t
ek_ring=n
read -r -t 1 ek_v
[ $? -ge 2 ] || ek_ring=read
# Sleep, but wake up at once when the supervisor is through.
ek_doze() {
  [ -z "$ek_woke" ] || ek_nap 0.05
  ek_woke=y
  if [ -z "$ek_bell" ] && [ -p "$ek_job/live" ]; then
    exec 9<>"$ek_job/live"
    exec 4<"$ek_job/live" 9>&-
    ek_bell=y
  fi
  case $ek_bell$ek_ring in
  yread) read -r -t "$1" ek_v <&4 ;;
  y*)
    sleep "$1" >/dev/null & ek_v=$!
    # If this shell was killed, the number of its child may be another process's by now.
    (read -r ek_t <&4; read -r ek_t <"/proc/$ek_v/stat" && set -- ${ek_t##*) } &&
      [ "$2" = $$ ] && kill -KILL "$ek_v") >/dev/null & ek_t=$!
    wait "$ek_v"
    [ $? != 1 ] || sleep 1
    kill -KILL "$ek_t"
    wait "$ek_t"
    ;;
  *) ek_nap 0.2 ;;
  esac
}
ek_sizes() {
  ek_o=0 ek_e=0
  [ -f "$ek_job/out" ] && [ ! -L "$ek_job/out" ] && [ -f "$ek_job/err" ] &&
    [ ! -L "$ek_job/err" ] && if [ -s "$ek_job/out" ] || [ -s "$ek_job/err" ]; then
    set -- $(stat -c %s "$ek_job/out" "$ek_job/err" ||
      { wc -c <"$ek_job/out"; wc -c <"$ek_job/err"; })
    ek_o=$1 ek_e=$2
  fi
}
# A job that was not claimed can be made never to run.
ek_void() {
  set -C
  { echo "void - - - - ." >"$ek_job/go"; }
  set +C
}
while :; do
  ek_judge
  case $ek_kill$ek_state in
  voidunknown | cancelunknown) mkdir -m 700 "$ek_job"; ek_void; ek_judge ;;
  voidcreated | cancelcreated | killcreated) ek_void; ek_judge ;;
  esac
  ek_signalled=
  case $ek_kill$ek_state in
  killrunning | cancelrunning) kill -TERM "$ek_pid"; ek_signalled=y ;;
  esac
  case $ek_state in
  created)
    # Not for long: the supervisor claims the job within milliseconds.
    [ $ek_n -lt 40 ] || break
    ek_n=$((ek_n + 1))
    if [ "$ek_window" -gt 0 ] && [ -n "$ek_bell" ] && [ -z "$ek_woke" ]; then
      ek_rest=$ek_window
    else
      ek_nap 0.03
      continue
    fi
    ;;
  running)
    ek_now
    ek_rest=$((ek_until - ek_t))
    [ $ek_rest -gt 0 ] || break
    # A byte now and then, or somebody on the way may take a silent connection for a dead one.
    [ $((ek_t - ek_told)) -lt 8 ] || { printf ' '; ek_told=$ek_t; }
    [ $ek_rest -le 8 ] || ek_rest=8
    ;;
  *) break ;;
  esac
  # Again and again: a signal that arrives just before its `wait` does not interrupt it.
  [ -z "$ek_signalled" ] || ek_rest=0.5
  if [ -n "$ek_follow" ]; then
    ek_sizes
    ek_rest=0.1
    if [ "$ek_o" -gt @{out_offset} ] || [ "$ek_e" -gt @{err_offset} ]; then
      # A moment more, for the rest of what is being written and for the end of short commands.
      [ -z "$ek_more" ] || break
      ek_more=y ek_rest=0.05
    fi
  fi
  ek_doze "$ek_rest"
done
[ $ek_state != exited ] || [ -z "$ek_sup" ] || wait "$ek_sup"
""")

# The supervisor is dead, what it started may not be: end everything that bears the mark.
SWEEP = _compact(r"""
if [ $ek_state = lost ] && ek_claimed && [ ${#ek_mark} = 16 ]; then
  for ek_v in TERM 0 0 0 0 0 KILL; do
    ek_left=
    for ek_p in $(grep -l "EKAIROS_JOB_MARK=$ek_mark" /proc/[0-9]*/environ); do
      ek_p=${ek_p#/proc/}
      kill "-$ek_v" "${ek_p%/environ}" && ek_left=y
    done
    [ -n "$ek_left" ] || break
    ek_nap 0.1
  done
fi
""")

# One frame with everything: sizes are taken once, so that the output may grow meanwhile.
ANSWER = _compact(r"""
ek_sizes
ek_note=- ek_code=b ek_drop=y
[ ! -f "$ek_job/note" ] || [ -L "$ek_job/note" ] || read -r ek_note <"$ek_job/note"
case $ek_note in noent | perm | nocwd) ;; *) ek_note=- ;; esac
[ ! -e "$ek_job/whole" ] && [ -e "$ek_job/go" ] || ek_drop=n
command -v base64 >/dev/null || ek_code=x
ek_encode() { if [ $ek_code = b ]; then base64; else od -An -v -tx1; fi; }
# FILE SIZE OFFSET LIMIT: from the offset on, or, with offset "-", head and tail.
ek_part() {
  [ "$2" -gt 0 ] && [ "$4" -gt 0 ] || return
  if [ "$3" = - ]; then
    if [ "$2" -le "$4" ]; then head -c "$2" <"$1"
    else
      head -c $(($4 / 2)) <"$1"
      tail -c "+$(($2 - ($4 - $4 / 2) + 1))" <"$1" | head -c $(($4 - $4 / 2))
    fi
  elif [ "$2" -gt "$3" ]; then
    ek_n=$(($2 - $3))
    [ $ek_n -le "$4" ] || ek_n=$4
    if [ "$3" = 0 ]; then head -c "$ek_n" <"$1"
    else tail -c "+$(($3 + 1))" <"$1" | head -c "$ek_n"
    fi
  fi | ek_encode
}
printf '\n@EK1:%s:job:%s:%s:%s:%s:%s:%s:%s:%s:%s:%s:' "$ek_nonce" $ek_code $ek_state \
  "$ek_rc" "$ek_why" $ek_note "$ek_up0" "$ek_up1" $ek_drop "$ek_o" "$ek_e"
ek_part "$ek_job/out" "$ek_o" @{out_from} @{out_limit}
printf :
ek_part "$ek_job/err" "$ek_e" @{err_from} @{err_limit}
printf :
[ -z "@{want_argv}" ] || [ ! -f "$ek_job/argv" ] || [ -L "$ek_job/argv" ] || cat "$ek_job/argv"
# What matters most once more: a run of bytes lost in the middle must not make another answer.
printf ':%s,%s,%s,%s,%s:%s@\n' $ek_state "$ek_rc" "$ek_why" "$ek_o" "$ek_e" "$ek_nonce"
exit
""")

# Names and states of all jobs.
LIST = _compact(r"""
ek_patient= ek_list=
for ek_job in "$ek_root"/jobs/*; do
  ek_id=${ek_job##*/}
  case $ek_id in *[!A-Za-z0-9._-]* | '') continue ;; esac
  ek_judge
  [ $ek_state != exited ] || [ "$ek_why" = - ] || ek_state=killed
  ek_list=$ek_list:$ek_id=$ek_state
done
ek_say "list$ek_list"
""")

# Delete ended jobs by the age of their status, leaving a mark: their ids never run again.
PURGE = _compact(r"""
ek_purge() {
  cd "$ek_root/jobs" || return
  ek_count=0 ek_patient=y
  for ek_job in $(find . -mindepth 2 -maxdepth 2 -name status @{age}); do
    ek_id=${ek_job#./}
    ek_id=${ek_id%/status}
    case $ek_id in *[!A-Za-z0-9._-]* | '') continue ;; esac
    ek_job=$ek_root/jobs/$ek_id
    ek_judge
    case $ek_state in exited | lost | void) ;; *) continue ;; esac
    true >"$ek_root/purged/$ek_id" && rm -rf "$ek_job" && ek_count=$((ek_count + 1))
  done
  find "$ek_root/up" -type f -mmin +1440 -exec rm -f '{}' ';'
}
""")

# Now and then a start also purges, beside the command that it has just started.
HOUSEKEEPING = _compact(r"""
set -- "$ek_root"/jobs/*
if [ $# -gt @{many} ] && [ -z "$(find "$ek_root/purged/.last" -mmin -60)" ]; then
  true >"$ek_root/purged/.last"
  (exec 4<&- >/dev/null; ek_purge) &
fi
""")

# Check the tools, settle on a home, make the directories, store the environment and the epoch.
PREPARE = _compact(r"""
exec </dev/null 2>/dev/null
ek_nonce=@{nonce} ek_home=@{home}
ek_say() { printf '\n@EK1:%s:%s:%s@\n' "$ek_nonce" "$1" "$ek_nonce"; exit; }
export LC_ALL=C
ek_miss= ek_code=b
command -v base64 >/dev/null || { ek_code=x; command -v od >/dev/null || ek_miss=$ek_miss,base64; }
for ek_v in cat chmod find grep head id kill mkdir mv rm sleep tail; do
  command -v $ek_v >/dev/null || ek_miss=$ek_miss,$ek_v
done
command -v stat >/dev/null || command -v wc >/dev/null || ek_miss=$ek_miss,stat
{ read -r ek_v </proc/$$/stat && read -r ek_v </proc/uptime; } || ek_miss=$ek_miss,/proc
# Sets ek_path to where a program is, if that can be kept as a plain word.
ek_find() {
  ek_path=$(command -v "$1")
  case $ek_path in *[!A-Za-z0-9._/+-]*) false ;; /*) ;; *) false ;; esac
}
if ek_find setsid; then ek_setsid=$ek_path
elif ek_find perl && "$ek_path" -MPOSIX -e 1; then ek_setsid=perl:$ek_path
elif ek_find python3 && "$ek_path" -c 'import os, signal'; then ek_setsid=python:$ek_path
else ek_miss=$ek_miss,setsid
fi
[ -z "$ek_miss" ] || ek_say "missing:${ek_miss#,}"
ek_sh=/bin/sh
! ek_find sh || ek_sh=$ek_path
ek_env=- ek_fraction=y
if ek_find env && "$ek_path" --default-signal=INT,QUIT -- sleep 0.001; then ek_env=$ek_path
else sleep 0.001 || ek_fraction=n
fi

if [ -z "$ek_home" ]; then
  ek_home=${HOME:-}
  case $ek_home in /*) ;; *) ek_home= ;; esac
  if [ -z "$ek_home" ] || [ ! -d "$ek_home" ] || [ ! -w "$ek_home" ]; then
    ek_home=/var/tmp/ekairos-sandbox-$(id -u)
    [ -d "$ek_home" ] || mkdir -m 700 "$ek_home"
    [ -d "$ek_home" ] && [ ! -L "$ek_home" ] && [ -O "$ek_home" ] || ek_say error:owner
  fi
fi
[ -d "$ek_home" ] || ek_say error:home
ek_root=$ek_home/.local/state/ekairos-sandbox
ek_new=$ek_root/up/$ek_nonce
[ ! -e "$ek_root" ] || [ -O "$ek_root" ] || ek_say error:owner
umask 077
mkdir -p "$ek_root/jobs" "$ek_root/purged" "$ek_new" || ek_say error:write
[ -O "$ek_root" ] || ek_say error:owner
chmod 700 "$ek_root" || ek_say error:write

# No mount point may hold the jobs that does not hold the home as well.
cd -P -- "$ek_home" || ek_say error:home
ek_at_home=${PWD%/}/
cd -P -- "$ek_root/jobs" || ek_say error:write
while read -r ek_v ek_v ek_v ek_v ek_p ek_v; do
  case $PWD/ in "${ek_p%/}"/*)
    case $ek_at_home in "${ek_p%/}"/*) ;; *) ek_say error:volume ;; esac ;;
  esac
done </proc/self/mountinfo
cd /

ek_fifo=n
[ -p "$ek_root/fifo" ] || mkfifo "$ek_root/fifo"
if [ -p "$ek_root/fifo" ]; then
  exec 9<>"$ek_root/fifo"
  echo ring >&9 && read -r ek_v <&9 && [ "$ek_v" = ring ] && ek_fifo=y
  exec 9<&-
fi

# Each file takes its place in one step, the epoch last.
[ -z "@{keep}" ] || [ -f "$ek_root/env" ] || ek_say error:env
set -- "$ek_new/caps"
echo "1 $ek_sh $ek_setsid $ek_env $ek_fifo $ek_fraction ." >"$ek_new/caps" || ek_say error:write
if [ -z "@{keep}" ]; then
  printf @{env} >"$ek_new/env" || ek_say error:write
  set -- "$@" "$ek_new/env"
fi
if [ -n "@{epoch}" ]; then
  echo "@{epoch}" >"$ek_new/epoch" || ek_say error:write
  set -- "$@" "$ek_new/epoch"
fi
mv -f "$@" "$ek_root" && rm -rf "$ek_new" || ek_say error:write
printf '\n@EK1:%s:prepared:%s:' "$ek_nonce" $ek_code
printf %s "$ek_home" | if [ $ek_code = b ]; then base64; else od -An -v -tx1; fi
printf ':%s@\n' "$ek_nonce"
exit
""")


def script(*parts: bytes) -> bytes:
    """Join parts into one script that runs completely or not at all."""
    return b"{\n" + b"".join(parts) + b"\nexit\n}\n"
