"""Making a sandbox ready for jobs."""

from __future__ import annotations

from ekairos_sandbox.jobs.scripts.text import compact

# Check the tools, settle on a home, make the directories, store the environment and the epoch.
PREPARE = compact(r"""
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
