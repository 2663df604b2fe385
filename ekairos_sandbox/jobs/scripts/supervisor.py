"""The process beside a command: it claims the job, enforces the time, writes the status."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.common import SESSION
from ekairos_sandbox.jobs.scripts.text import compact

# The supervisor: claims the job, runs the command, enforces its time, writes the status.
# Arguments: the job's directory, the file to use as standard input, `=` and LC_ALL if that is set.
SUPERVISOR = compact(
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
{ echo "$$ $1 $ek_boot $ek_mark @{digest} ." >"$ek_job/go"; } || {
  rm -f "$0"
  [ "$ek_in" = /dev/null ] || rm -f "$ek_in"
  exit 0
}
set +C
# Claimed. Scripts and input hold secrets and are not needed any more, this script included.
true >"$0"
for ek_v in "$ek_job"/run.* "$ek_job"/in.*; do
  [ ! -s "$ek_v" ] || [ "$ek_v" = "$ek_in" ] || true >"$ek_v"
done
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
# Mostly they are through sooner than a timer could be started; a subshell lets them have the CPU.
ek_full= ek_n=0 ek_waits=0
set -- $ek_pumps
while [ $# -gt 0 ]; do
  ek_p=$1
  [ $# = 2 ] && ek_f=$ek_job/o || ek_f=$ek_job/e
  shift
  until ek_through "$ek_p" || [ $ek_n -ge 7 ]; do
    [ $ek_n -lt 3 ] || (true)
    ek_n=$((ek_n + 1))
  done
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
AWAKE = compact(r"""
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
