"""Each check of the suite for providers fails on a provider that makes the mistake it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers import faulty_folders
from helpers.faulty_folders import CAUGHT, TOLERATED
from helpers.folder_provider import FAULTS

pytestmark = pytest.mark.xdist_group("catches")  # one process makes what all of them look at

EXPECTED = ("test_account_is_stable_text", "test_find_of_an_unknown_name_is_none")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """What became of each chosen test, by class and name; nothing if it passed."""
    file = Path(faulty_folders.__file__)
    report = tmp_path_factory.mktemp("catches") / "report.xml"
    chosen = [(fault, name) for fault, (_, name) in {**CAUGHT, **TOLERATED}.items()]
    chosen += [("expected", name) for name in EXPECTED]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line"),
            f"--junitxml={report}",
            *(f"{file}::Test_{fault}::{name}" for fault, name in chosen),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=file.parents[2],
    )
    assert report.exists(), done.stdout + done.stderr
    found: dict[tuple[str, str], set[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        fault = case.attrib["classname"].rpartition("Test_")[2]
        kinds = {child.attrib.get("type") or child.tag for child in case}
        found.setdefault((fault, case.attrib["name"]), set()).update(kinds)
    assert sorted(found) == sorted(chosen), done.stdout + done.stderr
    return found


def test_every_mistake_has_its_check() -> None:
    assert sorted({**CAUGHT, **TOLERATED}) == sorted(FAULTS)


Outcomes = dict[tuple[str, str], set[str]]


@pytest.mark.parametrize("fault", sorted(CAUGHT))
def test_a_mistake_is_caught(outcomes: Outcomes, fault: str) -> None:
    assert "failure" in outcomes[fault, CAUGHT[fault][1]]


@pytest.mark.parametrize("fault", sorted(TOLERATED))
def test_what_is_no_mistake_passes(outcomes: Outcomes, fault: str) -> None:
    assert outcomes[fault, TOLERATED[fault][1]] == set()


def test_what_is_left_at_the_provider_is_an_error(outcomes: Outcomes) -> None:
    assert "error" in outcomes["destroy_keeps", CAUGHT["destroy_keeps"][1]]


def test_an_expected_failure_is_none_but_must_fail(outcomes: Outcomes) -> None:
    assert outcomes["expected", EXPECTED[0]] == {"pytest.xfail"}
    assert outcomes["expected", EXPECTED[1]] == {"failure"}
