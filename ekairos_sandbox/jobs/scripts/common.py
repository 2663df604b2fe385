"""What several scripts have in common: their head, new sessions, the state of a job."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.text import compact

# Every call begins with this. `ek_say` ends the call with a short answer.
HEAD = compact(r"""
exec </dev/null 2>/dev/null
ek_nonce=@{nonce} ek_root=@{root} ek_id=@{id}
ek_job=$ek_root/jobs/$ek_id
ek_say() { printf '\n@EK1:%s:%s:%s@\n' "$ek_nonce" "$1" "$ek_nonce"; exit; }
ek_nap() { sleep "$1" || sleep 1; }
""")

# Become a program in a session of its own. setsid(1) does not fork here, because a background
# process of a shell without job control leads no group. Python ignores SIGPIPE and SIGXFSZ and
# would hand that on.
SESSION = compact(r"""
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
JUDGE = compact(r"""
ek_ended() {
  ek_key= ek_end=
  [ -f "$ek_job/status" ] && [ ! -L "$ek_job/status" ] &&
    read -r ek_key ek_rc ek_why ek_up0 ek_up1 ek_end <"$ek_job/status"
  [ "$ek_key" = EK1 ] && [ "$ek_end" = . ] &&
    case $ek_rc$ek_why$ek_up0$ek_up1 in *[!a-z0-9.-]*) false ;; esac
}
ek_claimed() {
  ek_claim=
  [ -f "$ek_job/go" ] && [ ! -L "$ek_job/go" ] &&
    read -r ek_pid ek_since ek_boot ek_mark ek_digest ek_claim <"$ek_job/go"
  [ "$ek_claim" = . ]
}
# The claim names process, start time and boot: a reused pid does not pass for the supervisor.
ek_alive() {
  ek_claimed && case $ek_pid in *[!0-9]*) false ;; esac &&
    read -r ek_stat <"/proc/$ek_pid/stat" && set -- ${ek_stat##*) } && [ $# -ge 20 ] &&
    [ "$1" != Z ] && [ "$1" != X ] && shift 19 && [ "$1" = "$ek_since" ] &&
    { [ "$ek_boot" = - ] || { read -r ek_stat </proc/sys/kernel/random/boot_id &&
      [ "$ek_stat" = "$ek_boot" ]; }; }
}
# One look at a claimed job; false if it says neither that the job lives nor how it ended.
ek_settled() {
  if ek_alive; then ek_state=running
  elif [ "$ek_claim" = . ] && [ "$ek_pid" = void ]; then ek_state=void
  elif ek_ended; then ek_state=exited
  else ek_state=lost; false
  fi
}
ek_judge() {
  ek_rc=- ek_why=- ek_up0=- ek_up1=-
  if ek_ended; then ek_state=exited; return; fi
  if [ ! -d "$ek_job" ]; then
    ek_state=unknown
    [ ! -e "$ek_root/purged/$ek_id" ] || ek_state=purged
  elif [ ! -e "$ek_job/go" ]; then ek_state=created
  else
    # A second look decides, unless the claim is only just being written: that may take long on a
    # machine that has much else to do.
    ek_looks=0
    until ek_settled || [ -z "$ek_patient" ] || [ $ek_looks -ge 100 ]; do
      [ $ek_looks = 0 ] || [ -z "$ek_claim" ] || break
      case $ek_looks in 0) ek_nap 0.01 ;; *) ek_nap 0.05 ;; esac
      ek_looks=$((ek_looks + 1))
    done
  fi
  [ $ek_state = exited ] || ek_rc=- ek_why=- ek_up0=- ek_up1=-
}
""")
