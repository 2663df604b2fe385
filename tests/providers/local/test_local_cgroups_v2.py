"""Control groups of the new kind and core dumps that are piped, in a user mode kernel.

This machine may have the old kind of groups only, and its kernel settings are not ours to change.

The kernel runs as a process, sees this machine's files read-only and has memory file systems for
what is written.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

UID = 54_321
KERNEL = shutil.which("linux.uml")
PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
PACKAGES = (
    *("ekairos_sandbox", "ekairos_sandbox_local", "pydantic", "pydantic_core", "pluggy"),
    *("platformdirs", "annotated_types", "typing_inspection", "typing_extensions"),
)
TESTS = Path(__file__).parents[2]

INIT = f"""#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 tmpfs /run; mount -t tmpfs -o mode=0755,size=500m tmpfs /mnt
mkdir -p /dev/shm; mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /mnt; mkdir -m 711 root; mkdir user; chown {UID}:{UID} user; tar -xf @TAR@
export PYTHONPATH=/mnt/code HOME=/mnt/user PYTHONDONTWRITEBYTECODE=1
printf '#!/bin/sh\\ntouch /mnt/dumped\\n' > handler; chmod 755 handler
echo '|/mnt/handler' > /proc/sys/kernel/core_pattern
say() {{ printf 'SAYS %s %s\\n' "$1" "$2"; }}
as_user() {{ setpriv --reuid={UID} --regid={UID} --clear-groups {PYTHON} code/guest.py "$@"; }}
top=/sys/fs/cgroup app=/sys/fs/cgroup/user/app
say root "$({PYTHON} code/guest.py root)"
say not_delegated "$(as_user user/not_delegated)"
echo "+memory +cpu +pids" > $top/cgroup.subtree_control
mkdir -p $app/leaf
echo "+memory +cpu +pids" > $top/user/cgroup.subtree_control
chown -R {UID}:{UID} $app
(echo 0 > $app/cgroup.procs; say undivided "$(as_user user/undivided)")
(echo 0 > $app/leaf/cgroup.procs; say delegated "$(as_user user/delegated)")
say left "$(find $top -name 'ekairos*' | wc -l)"
say dumped "$(ls dumped 2>/dev/null | wc -l)"
(ulimit -c 0; sh -c 'kill -SEGV $$')
say dumped_outside "$(ls dumped 2>/dev/null | wc -l)"
{PYTHON} -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
"""

GUEST = """
import json, sys
from pathlib import Path
from typing import Any
from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox_local.limits import limits
from helpers.local_sandboxes import Local, sh

local = Local(Path("/mnt") / sys.argv[1] / "state")
said = {limit.name: limit.level for limit in limits()}
found = {name: said[name] for name in ("memory_mb", "cpu_quota", "max_processes")}
try:
    connection, ref = local.create(memory_mb=100, cpu_quota=0.5, max_processes=40)
except UnsupportedOperationError as error:
    found["refused"] = error.message
else:
    (path,) = json.loads((local.state / ref.name / "cgroups.json").read_text())["paths"]
    group = Path(path)
    for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
        if (group / name).exists():
            found[name] = (group / name).read_text().strip()
    found["parent"] = str(group.parent)
    found["eats"] = sh(connection, "python3 -c 'x = bytearray(300 << 20)' 2>/dev/null; echo $?")
    found["inside"] = sh(connection, "cat /proc/self/cgroup; test -e /sys || echo no sys")
    sh(connection, "ulimit -c 0; sh -c 'kill -SEGV $$'; sh -c 'ulimit -c 0; kill -SEGV $$'")
    local.provider.stop(ref)
    found["stopped"] = group.exists()
    found["again"] = sh(local.provider.connect(ref), "echo up")
    local.provider.destroy(ref)
    found["destroyed"] = group.exists()
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(KERNEL is None, reason="needs linux.uml (Debian: user-mode-linux)")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which mounts and delegates inside")
@pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}")
def test_limits_hold_where_groups_can_be_made_and_no_core_is_dumped(
    scratch: Path,
) -> None:
    found = boot(scratch)

    held = {
        "memory_mb": "enforced",
        "cpu_quota": "enforced",
        "max_processes": "enforced",
        "memory.max": "104857600",
        "cpu.max": "50000 100000",
        "pids.max": "44",
        "eats": "137",
        "inside": "0::/\nno sys",
        "stopped": False,
        "again": "up",
        "destroyed": False,
    }
    found["root"].pop("memory.swap.max", None)  # kernels without swap have none
    found["delegated"].pop("memory.swap.max", None)
    assert found["root"] == {**held, "parent": "/sys/fs/cgroup"}
    assert found["delegated"] == {**held, "parent": "/sys/fs/cgroup/user/app"}
    for name in ("not_delegated", "undivided"):
        refused = found[name].pop("refused")
        assert refused.startswith("memory_mb cannot be enforced on this machine"), name
        assert found[name] == {
            "memory_mb": "impossible",
            "cpu_quota": "impossible",
            "max_processes": "enforced",
        }
    assert found["left"] == 0
    assert found["dumped"] == 0
    assert found["dumped_outside"] == 1  # shows that a dump would have been noticed


def boot(scratch: Path) -> dict[str, Any]:
    """Run ``INIT`` as the first process of a kernel and return what it says."""
    (scratch / "guest.py").write_text(GUEST)
    origins = [Path(str(importlib.import_module(name).__file__)) for name in PACKAGES]
    needed = [path.parent if path.stem == "__init__" else path for path in origins]
    needed += [scratch / "guest.py", TESTS / "helpers"]
    with tarfile.open(scratch / "code.tar", "w") as archive:
        for path in needed:
            archive.add(path, f"code/{path.name}", filter=readable)
    init = scratch / "init.sh"
    init.write_text(INIT.replace("@TAR@", str(scratch / "code.tar")))
    init.chmod(0o755)
    result = subprocess.run(
        [
            *(str(KERNEL), "mem=1G", "root=/dev/root", "rootfstype=hostfs", "ro", f"init={init}"),
            *("con=null", "con0=null,fd:1", "quiet", f"uml_dir={scratch}/", "umid=kernel"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        timeout=240,
    )
    said = [line.split(" ", 2)[1:] for line in result.stdout.splitlines() if "SAYS" in line[:5]]
    assert [name for name, _ in said][-1:] == ["dumped_outside"], result.stdout
    return {name: json.loads(text) for name, text in said}


def readable(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Make what goes into the archive readable for everybody, and leave caches out."""
    member.mode |= 0o755 if member.isdir() else 0o444
    return None if "__pycache__" in member.name else member
