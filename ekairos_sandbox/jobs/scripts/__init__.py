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

from ekairos_sandbox.jobs.scripts.common import HEAD, JUDGE, SESSION
from ekairos_sandbox.jobs.scripts.housekeeping import HOUSEKEEPING, LIST, PURGE
from ekairos_sandbox.jobs.scripts.prepare import PREPARE
from ekairos_sandbox.jobs.scripts.start import SAME, START
from ekairos_sandbox.jobs.scripts.supervisor import AWAKE, SUPERVISOR
from ekairos_sandbox.jobs.scripts.text import fill, script
from ekairos_sandbox.jobs.scripts.wait import ANSWER, SWEEP, WAIT

__all__ = [
    "ANSWER",
    "AWAKE",
    "HEAD",
    "HOUSEKEEPING",
    "JUDGE",
    "LIST",
    "PREPARE",
    "PURGE",
    "SAME",
    "SESSION",
    "START",
    "SUPERVISOR",
    "SWEEP",
    "WAIT",
    "fill",
    "script",
]
