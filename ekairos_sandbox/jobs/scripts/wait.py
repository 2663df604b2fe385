"""Waiting for a job, ending it, and the answer that tells of it."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.text import compact

# Wait for the end, or for new output, or until the window is over.
# ek_follow: come back as soon as there is output beyond the offsets.
# ek_kill: "kill" ends the job, "void" makes one that has not run never run, even if it is not known
# yet; "cancel" does both.
WAIT = compact(r"""
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
      # A moment more, for the rest of what is being written and for the end of short commands;
      # unless there is more than the answer takes.
      [ -z "$ek_more" ] && [ "$ek_o" -lt @{out_full} ] && [ "$ek_e" -lt @{err_full} ] || break
      ek_more=y ek_rest=0.05
    fi
  fi
  ek_doze "$ek_rest"
done
[ $ek_state != exited ] || [ -z "$ek_sup" ] || wait "$ek_sup"
""")

# The supervisor is dead, what it started may not be: end everything that bears the mark.
SWEEP = compact(r"""
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
ANSWER = compact(r"""
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
