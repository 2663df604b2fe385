"""Listing the jobs that a sandbox knows, and deleting old ones."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.text import compact

# Names and states of all jobs.
LIST = compact(r"""
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
PURGE = compact(r"""
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
HOUSEKEEPING = compact(r"""
set -- "$ek_root"/jobs/*
if [ $# -gt @{many} ] && [ -z "$(find "$ek_root/purged/.last" -mmin -60)" ]; then
  true >"$ek_root/purged/.last"
  (exec 4<&- >/dev/null; ek_purge) &
fi
""")
