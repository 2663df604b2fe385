"""The start of a job, at most once."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.text import compact

# Start the job unless it was claimed before. `@{deliver}` writes the supervisor's script to
# $ek_run and the input to $ek_in, or names the files that were uploaded.
START = compact(r"""
ek_refuse() { @{cleanup}; ek_say "error:$1"; }
# Whether the id stands for another command, by the claim; one that was voided stands for none.
ek_other() { ek_claimed && [ "$ek_digest" != @{digest} ] && [ "$ek_digest" != - ]; }
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
elif ek_other; then ek_refuse conflict
fi
""")

# Of two commands that were started under one id at once, one has claimed it meanwhile.
SAME = compact(r"""
! ek_other || ek_refuse conflict
""")
