"""``shell``: bytes in, bytes out, deadlines, threads, and what is left open afterwards."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest
from ekairos_sandbox_local.provider import LocalConnection
from helpers.local_sandboxes import Local, sh, wait_until

from ekairos_sandbox.exceptions import ProviderError, ProviderTimeoutError


def descriptors(pid: int | str) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def test_every_byte_of_the_output_comes_back(local: Local) -> None:
    connection, _ = local.create()
    wanted = bytes(range(256)) * 500

    connection.shell(b"cat > data <<'E'\nE\n", timeout_s=10, max_bytes=10)
    script = b"".join(b"printf '\\%03o'\n" % byte for byte in range(256))
    output = connection.shell(
        b"{ " + script + b"} > all; i=0; while [ $i -lt 500 ]; do cat all; i=$((i+1)); done",
        timeout_s=60,
        max_bytes=len(wanted),
    )

    assert output == wanted


def test_standard_error_is_not_part_of_the_output(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "echo out; echo err >&2; echo dev > /dev/stdout") == "out\ndev"


def test_scripts_of_several_megabytes_run(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "true\n" * 800_000 + "echo end") == "end"


def test_the_script_is_in_no_argument_list_and_on_no_descriptor(local: Local) -> None:
    connection, _ = local.create()
    output = sh(connection, "cat /proc/*/cmdline | tr '\\0' ' '; readlink /proc/$$/fd/3; : s3cret")

    assert "s3cret" not in output
    assert "sh /dev/fd/3" in output


def test_a_script_reads_the_bytes_it_was_sent_and_cannot_change_them(local: Local) -> None:
    connection, _ = local.create()
    assert isinstance(connection, LocalConnection)
    sent = bytes(range(256)) * 10_000

    script = b"cat <&4; { echo x >&4; echo x >/dev/fd/4; } 2>/dev/null || printf refused"
    output = connection.shell_sending(script, sent, timeout_s=30, max_bytes=len(sent) + 100)

    assert output == sent + b"refused"


def test_a_script_writes_into_its_file_what_there_is_room_for(local: Local) -> None:
    connection, _ = local.create()
    assert isinstance(connection, LocalConnection)
    script = b"printf 'a\\000b' >&4; head -c 10 /dev/zero >&4; printf full >&4 || printf refused"

    output, got = connection.shell_receiving(script, 13, timeout_s=30, max_bytes=100)
    assert (output, got) == (b"refused", b"a\0b" + bytes(10))

    output, got = connection.shell_receiving(b"printf short >&4", 13, timeout_s=30, max_bytes=100)
    assert (output, got) == (b"", b"short")


def test_a_script_without_a_file_has_no_fourth_descriptor(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "[ -e /proc/self/fd/4 ] || echo none") == "none"


def test_files_of_several_parts_and_without_a_size_are_read(local: Local) -> None:
    connection, _ = local.create()
    part = os.urandom(1 << 20)

    assert connection.write_file("big", [part] * 35) == 35 << 20
    assert b"".join(connection.read_file("big")) == part * 35
    assert b"".join(connection.read_file("big", offset=17 << 20)) == part * 18
    assert b"".join(connection.read_file("/proc/version")).startswith(b"Linux version")


def test_standard_input_is_empty(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "cat; echo end") == "end"


def test_output_of_exactly_the_bound_passes_and_one_byte_more_does_not(local: Local) -> None:
    connection, _ = local.create()

    assert connection.shell(b"printf 12345", timeout_s=10, max_bytes=5) == b"12345"
    with pytest.raises(ProviderError, match="more than 5 bytes") as caught:
        connection.shell(b"printf 123456", timeout_s=10, max_bytes=5)
    assert caught.value.outcome == "unknown"


def test_fifty_megabytes_come_through(local: Local) -> None:
    connection, _ = local.create()
    output = connection.shell(b"head -c 50000000 /dev/zero", timeout_s=60, max_bytes=50_000_000)

    assert len(output) == 50_000_000


def test_endless_output_is_cut_off(local: Local) -> None:
    connection, _ = local.create()

    with pytest.raises(ProviderError, match="more than"):
        connection.shell(b"yes", timeout_s=60, max_bytes=1_000_000)
    wait_until(lambda: sh(connection, "pgrep -c yes || :") == "0")


def test_what_runs_on_in_the_background_delays_nothing(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "(while :; do echo x; sleep 0.001; done) & echo first; sleep 0.2")
    assert sh(connection, "sleep 1000 & echo done", timeout_s=20) == "done"


def test_a_script_over_its_deadline_is_unknown_and_runs_on(local: Local) -> None:
    connection, _ = local.create()

    with pytest.raises(ProviderTimeoutError) as caught:
        sh(connection, "sleep 0.6; echo finished > mark", timeout_s=0.3)

    assert caught.value.outcome == "unknown"
    wait_until(lambda: sh(connection, "cat mark 2>/dev/null || :") == "finished")


def test_exit_codes_and_signals_of_the_script_do_not_matter(local: Local) -> None:
    connection, _ = local.create()

    assert sh(connection, "echo a; exit 7") == "a"
    assert sh(connection, "echo b; kill -9 $$") == "b"
    assert sh(connection, "echo c\nif") == "c"
    assert sh(connection, "") == ""


def test_sixteen_threads_do_not_mix_their_outputs(local: Local) -> None:
    connection, _ = local.create()
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(10):
            output = sh(connection, f"echo {number}.{turn}; cat /dev/null; echo $$ > /dev/null")
            if output != f"{number}.{turn}":
                wrong.append(output)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_forked_process_may_use_the_connection(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, "true")
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if sh(connection, "echo child") == "child" else 1)
        finally:
            os._exit(2)
    parent = sh(connection, "echo parent")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert parent == "parent"


def test_descriptors_and_children_of_the_caller_do_not_grow(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "true")
    gc.collect()
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    born = children.read_text() if children.exists() else ""
    before = descriptors("self")
    for _ in range(20):
        sh(connection, "true")
        with pytest.raises(ProviderError):
            connection.shell(b"echo too much", timeout_s=5, max_bytes=1)
    local.provider.stop(ref)
    local.provider.connect(ref)
    gc.collect()

    assert descriptors("self") == before
    assert (children.read_text() if children.exists() else "") == born


def test_the_holder_keeps_no_descriptor_of_past_scripts(local: Local) -> None:
    connection, ref = local.create()
    pid = local.holder_pid(ref)
    if os.geteuid() != 0:
        pytest.skip("the holder hides its descriptors from its own user")
    before = len(descriptors(pid))
    for _ in range(50):
        sh(connection, "sleep 0.001 & true")

    wait_until(lambda: len(descriptors(pid)) <= before)
