"""How a file comes to its place: a temporary file beside it, then one rename.

Only the rename cannot be repeated; whether it happened shows in the target having the size and
time of the temporary file that is no longer there.
"""

from __future__ import annotations

from ekairos_sandbox.shell.exchange import assign
from ekairos_sandbox.shell.quoting import quote

# at: sets P to where the file shall be, links followed, and T to the temporary file beside it.
# fin: checks T and moves it to P; without an identity, a missing T means that the same script is
# at it twice, as its answer was lost while it ran, and that the other one was first.
PLACING = b"""\
need stat tr readlink mkdir chmod mv rm
id() { stat -L -c '%s-%y' "$1" | tr -d ': '; }
at() {
 I=$1 T=
 case $P in /*) ;; *) P=${HOME:-}/$P ;; esac
 n=0
 while [ -L "$P" ]; do
  l=$(readlink "$P" && echo .); l=${l%??}; n=$((n+1)); [ "$l" ] && [ $n -le 40 ] || no link
  case $l in /*) P=$l ;; *) P=${P%/*}/$l ;; esac
 done
 [ ! -d "$P" ] || no isdir
 [ ! -e "$P" ] || [ -f "$P" ] || no special
 d=${P%/*}
 [ -d "$d/" ] || m=$(mkdir -p "$d" 2>&1) || no failed "$m"
 T=$d/$Q
}
fin() {
 if [ -f "$T" ]; then
  [ "$(stat -c %s "$T")" = "$1" ] || no short
  m=$({ chmod "$2" "$T" && mv -f "$T" "$P"; } 2>&1) || no failed "$m"
  [ ! -d "$P" ] || { T=$P/$Q; no isdir; }
 else
  if [ -n "$3" ]; then [ "$(id "$P")" = "$3" ]
  else [ -f "$P" ] && [ "$(stat -L -c %s "$P")" = "$1" ]
  fi || no lost
 fi
}
"""


def where(path: str, number: int, nonce: str) -> bytes:
    """Statements that say which file is meant, as ``at`` does.

    Args:
        path: The file.
        number: Its number among the files of the script.
        nonce: Makes the name of the temporary file one of a kind.
    """
    temporary = assign("Q", f".{name_of(path)[:48]}.ekairos-{nonce}")
    return b"%s%sat %d\n" % (assign("P", path), temporary, number)


def finish(total: int, mode: int, identity: str = "") -> bytes:
    """Statements that put the file in its place, or see that this has happened already."""
    return b"fin %d %04o %s\n" % (total, mode, quote(identity))


def check_mode(mode: int) -> int:
    """Return permission bits if they are such.

    Raises:
        ValueError: They are not.
    """
    if not 0 <= mode <= 0o7777:
        raise ValueError("mode must be between 0 and 0o7777")
    return mode


def name_of(path: str) -> str:
    """Return the last component of a path.

    Raises:
        ValueError: It is none that a file can have.
    """
    name = path.rpartition("/")[2]
    if name in {"", ".", ".."}:
        raise ValueError(f"{path!r} does not end with the name of a file")
    return name
