"""Results of several classes as one, and results of other versions."""

import copy
import json

import pytest
from typer.testing import CliRunner

from autograder.errors import GradingError
from autograder.leaderboard import results_file
from autograder.leaderboard.merge import merge
from tests import boards
from tests.leaderboard.test_leaderboard import RESULTS
from tito import cli


@pytest.fixture
def two():
    return boards.board(24, group="Autumn", seed=1), boards.board(24, group="Spring", seed=2)


def merged(*found, **options):
    return merge([(f"{number}.json", one) for number, one in enumerate(found)], **options)


def test_equal_pseudonyms_of_two_classes_stay_two_people(two):
    found = merged(*two)
    name = boards.HOSTILE[0]
    assert {e["class"] for e in found["entries"] if e["name"] == name} == {"Autumn", "Spring"}
    references = [e for e in two[0]["entries"] if e["badge"] == "reference"]
    once = {(e["name"], e["dataset"]) for e in references}
    assert sum(e["badge"] == "reference" for e in found["entries"]) == len(once)
    assert [group["name"] for group in found["classes"]] == ["Autumn", "Spring"]


def test_machines_that_differ_are_said(two):
    assert not any("do not compare" in note for note in merged(*two)["notes"])
    for entry in two[1]["entries"]:
        entry["machine"] = {**boards.MACHINE, "processor": "another"}
    assert any("do not compare" in note for note in merged(*two)["notes"])


def test_what_does_not_compare_is_refused(two):
    first, second = two
    other = copy.deepcopy(second)
    other["rules"]["vision"]["ramps"] = "0" * 16
    with pytest.raises(GradingError, match=r"other rules of vision than 0.json .ramps.:"):
        merged(first, other)
    with pytest.raises(GradingError, match="hold the same"):
        merged(first, first, names=["x", "y"])
    same = boards.board(24, group="Autumn", seed=3)
    with pytest.raises(GradingError, match="both of a class 'Autumn'"):
        merged(first, same)
    assert len(merged(first, same, names=["x", "y"])["classes"]) == 2
    with pytest.raises(GradingError, match="names students"):
        merged(first, {**second, "names": "id"})
    with pytest.raises(GradingError, match="two or more"):
        merged(first)


def test_version_1_is_upgraded_and_a_newer_one_refused(two):
    old = results_file.upgrade(RESULTS)
    results_file.validate(old)
    assert {e["class"] for e in old["entries"]} == {None, "tiny"} and old["rules"] == {}
    with pytest.raises(GradingError, match="--unknown-rules"):
        merged(two[0], old)
    assert any("not on record: tiny" in note for note in merged(two[0], old, unknown_rules=True)["notes"])
    with pytest.raises(GradingError, match="of version 3, this program reads up to 2"):
        results_file.upgrade({**RESULTS, "schema": "torch-olympics/results/3"})


def test_the_command_merges_and_leaves_nothing_half_written(two, tmp_path):
    paths = []
    for number, one in enumerate(two):
        path, _ = results_file.write(one, tmp_path / f"{number}.json")
        paths.append(str(path))
    to = tmp_path / "merged.json"
    done = CliRunner().invoke(cli.app, ["leaderboard", "merge", *paths, "--to", str(to), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["classes"] == ["Autumn", "Spring"]
    to.unlink()
    done = CliRunner().invoke(cli.app, ["leaderboard", "merge", paths[0], paths[0], "--to", str(to)])
    assert done.exit_code != 0 and not to.exists()
    done = CliRunner().invoke(
        cli.app, ["leaderboard", "--results", paths[0], "--to", str(tmp_path / "p.html")]
    )
    assert done.exit_code == 0 and (tmp_path / "p.html").is_file()
