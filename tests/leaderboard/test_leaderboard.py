"""The leaderboard: ranks, plot, table, and the page that the notebook makes."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest

from autograder import leaderboard
from autograder.errors import GradingError
from autograder.leaderboard import merge, results_file
from autograder.leaderboard import text as terminal
from autograder.scoring import rules
from tests import boards


def entry(
    name, accuracy, size, points, *, badge="graded", dataset="digits", valid=True, sandbox="bubblewrap"
):
    interval = None if accuracy is None else [max(0, accuracy - 0.02), min(1, accuracy + 0.02)]
    return {
        "name": name, "assignment": "vision", "track": "vision", "badge": badge, "valid": valid,
        "reasons": [] if valid else ["model.safetensors is a <pickle>"],
        "points": points, "max_points": 100.0,
        "cells": [], "metrics": {
            "accuracy": accuracy, "accuracy_interval": interval, "images_per_second": 812.0,
            "size_bytes": size, "memory_bytes": 2.1e8,
        },
        "scores": {}, "dataset": dataset, "split": "private", "sandbox": sandbox, "machine": None,
        "date": "2026-11-20T10:00:00+00:00",
    }  # fmt: skip


ENTRIES = [
    entry("Zuse", 0.85, 80e3, 50.0, sandbox="landlock"),
    entry("<b>Noether</b>", 0.98, 84e3, 78.0),
    entry("Curie", 0.97, 420e3, 78.0),
    entry("Tie", 0.98, 90e3, 78.0),
    entry("Forger", None, None, 0.0, valid=False),
    entry("Course entry", 0.887, 8.2e6, 73.0, badge="reference", dataset="cifar10"),
    entry("Mine", 0.99, 2e6, 95.0, badge="self-reported"),
]
RESULTS = {
    "schema": "torch-olympics/results/1", "course": "tiny", "made": "2026-11-20T12:00:00+00:00",
    "names": "pseudonym", "entries": ENTRIES,
}  # fmt: skip


def test_ranks():
    cifar, digits = leaderboard.sections(RESULTS, "vision")
    assert (cifar.dataset, digits.dataset) == ("cifar10", "digits") and cifar.ranks == [None]
    ranked = [(rank, e["name"]) for rank, e in zip(digits.ranks, digits.entries, strict=True)]
    assert ranked == [
        (None, "Mine"), (1, "<b>Noether</b>"), (1, "Tie"), (3, "Curie"), (4, "Zuse"), (None, "Forger"),
    ]  # fmt: skip


def test_the_board_has_the_five_dimensions_and_says_what_is_open():
    unmarked = entry("Open", 0.9, 1e6, 70.0)
    unmarked["cells"] = [
        {"grade_id": d, "points": None if d == "innovation" else 17.5, "max_points": 20.0, "reason": ""}
        for d in rules.DIMENSIONS
    ]
    marked = {**unmarked, "name": "Marked", "points": 76.0}
    marked["cells"] = [{**cell, "points": cell["points"] or 6.0} for cell in unmarked["cells"]]
    (board,) = leaderboard.sections({"entries": [unmarked, marked]}, "vision")
    first, second = re.findall(
        r"<tr.*?(?=<tr|</tbody>)", leaderboard.table(board).partition("<tbody>")[2] + "</tbody>", re.S
    )
    assert "of 90, innovation open" in second and second.count("<td>17.5") == 4
    assert "open" not in first and "<td>6.0" in first and first.count("<td>17.5") == 4
    shown = terminal.lines(terminal.rows({"entries": [unmarked, marked]}, "vision"))
    assert [line.split()[:1] for line in shown[2:]] == [["1"], ["2"]]
    assert "open" in shown[3] and "open" not in shown[2] and shown[1].split()[:3] == ["rank", "name", "score"]


def test_audited_entries_compete_and_say_so():
    changed = {
        **RESULTS,
        "entries": [{**e, "badge": "audited"} if e["name"] == "Tie" else e for e in ENTRIES],
    }
    digits = leaderboard.sections(changed, "vision")[1]
    assert digits.ranks == leaderboard.sections(RESULTS, "vision")[1].ranks
    page = leaderboard.show(changed, "vision")
    assert '<span class="badge audited">audited' in page
    assert "<bdi>Tie</bdi>" in leaderboard.overall(changed)
    assert "made a model as good" in leaderboard.BADGES["audited"]


def test_pareto_front():
    valid = [e for e in ENTRIES if e["valid"]]
    assert [e["name"] for e in leaderboard.pareto(valid)] == ["Zuse", "<b>Noether</b>", "Mine"]


def test_table_and_plot_say_what_they_show():
    cifar, digits = leaderboard.sections(RESULTS, "vision")
    table, plot = leaderboard.table(digits), leaderboard.plot(digits)
    assert "<b>" not in table + plot and "&lt;b&gt;Noether" in table and "&lt;b&gt;Noether" in plot
    assert "INVALID: model.safetensors is a &lt;pickle&gt;" in table
    for text in (
        "98.0%",
        "96.0 to 100.0",
        "812 images/s",
        "84.0 kB",
        "210 MB",
        "2026-11-20",
        "sandbox: landlock",
    ):
        assert text in table
    for text in ('role="img"', "<desc", "entries: 5.", "Pareto front: Zuse"):
        assert text in plot
    for text in ("seed record 82%", "seed record 8.2 MB at 92%"):  # of CIFAR-10, so on its plot alone
        assert text in leaderboard.plot(cifar) and text not in plot
    page = leaderboard.show(RESULTS, "vision")
    assert page.count("do not compare with those on CIFAR-10") == 1
    assert "NaN" not in plot and "nan" not in re.sub(r"[a-z]+nan|nan[a-z]+", "", plot)


def test_nothing_to_show_is_said():
    assert "No entry yet" in leaderboard.show({"entries": []}, "vision")
    only = {"entries": [entry("Forger", None, None, 0.0, valid=False)]}
    assert "No valid entry to plot yet" in leaderboard.show(only, "vision")


class Outside(HTMLParser):
    """Everything that a page would load or lead to, and the number of its scripts."""

    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], 0

    def handle_starttag(self, tag, attrs):
        assert tag not in ("link", "iframe", "img", "object", "embed")
        self.scripts += tag == "script"
        self.found += [
            value for name, value in attrs if name in ("src", "href", "srcset") and value[:1] != "#"
        ]


def test_a_newcomer_moves_no_score_and_may_move_ranks():
    newcomer = entry("Newton", 0.99, 50e3, 90.0)
    (_, before), (_, after) = (
        leaderboard.sections({"entries": found}, "vision") for found in (ENTRIES, [*ENTRIES, newcomer])
    )
    old = {e["name"]: (rank, e["points"]) for rank, e in zip(before.ranks, before.entries, strict=True)}
    new = {e["name"]: (rank, e["points"]) for rank, e in zip(after.ranks, after.entries, strict=True)}
    assert new.pop("Newton") == (1, 90.0)
    assert {name: points for name, (_, points) in new.items()} == {
        n: points for n, (_, points) in old.items()
    }
    assert [new[name][0] for name in ("Tie", "Curie")] == [2, 4]


def test_overall_adds_the_best_graded_entry_of_each_track():
    entries = [
        entry("Ada", 0.9, 8e4, 70.0),
        entry("Ada", 0.8, 8e4, 60.0, dataset="cifar10"),
        of_track("speed", "Ada", points=20.5),
        of_track("speed", "<i>Bo</i>", points=95.0),
        entry("Forger", None, None, 99.0, valid=False),
        entry("Course entry", 0.9, 8e6, 73.0, badge="reference"),
    ]
    table = leaderboard.overall({"entries": entries})
    rows = [re.sub("<[^>]+>", " ", row).split() for row in table.split("<tbody>")[1].split("<tr>")[1:]]
    assert rows == [
        ["1", "&lt;i&gt;Bo&lt;/i&gt;", "95.0", "-", "-", "95.0", "-"],
        ["2", "Ada", "90.5", "70.0", "-", "20.5", "-"],
    ]
    assert "No graded entry yet" in leaderboard.overall({"entries": entries[-2:]})


def test_labels_of_published_results_do_not_cover_each_other():
    compression = {**entry("Mine", 0.89, 4e5, 70.0, dataset="cifar10"), "track": "compression"}
    drawn = leaderboard.plot(leaderboard.sections({"entries": [compression]}, "compression")[0])
    for picture in drawn.split("<svg")[1:]:  # one for wide screens, one for phones
        labels = re.findall(
            r'class="note"(?: text-anchor="(\w+)")? x="([\d.]+)" y="([\d.]+)">([^<]+)', picture
        )
        assert len(labels) == len(leaderboard.SEED_RECORDS["compression", "cifar10"])
        boxes = []
        for anchor, x, y, text in labels:
            width = 5.5 * len(text)  # of 12 px letters
            left = float(x) - width * {"end": 1, "middle": 0.5}.get(anchor, 0)
            for start, end, height in boxes:
                assert left > end or start > left + width or abs(float(y) - height) > 9, (text, picture[:60])
            boxes.append((left, left + width, float(y)))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 500 entries with hostile names and a hostile report: the board, and the entries' folder."""
    folder = tmp_path_factory.mktemp("many")
    exported, _ = results_file.write(boards.board(500), folder / "results.json")
    return leaderboard.render(exported, folder / "public" / "leaderboard.html")


def test_page_is_static_and_stands_alone(many):
    for page in (many, *(many.with_suffix("").glob("*.html"))):
        text = page.read_text(encoding="utf-8")
        outside = Outside()
        outside.feed(text)
        assert outside.scripts <= 1 and "@import" not in text and "url(" not in text
        for address in outside.found:  # only from one page to the other
            assert (page.parent / address.partition("#")[0]).is_file(), (page.name, address)
        assert not re.search(r"href=.?javascript:", text)
        assert not re.search(r"<[^>]*\son\w+=", text), page.name
    assert len(many.read_bytes()) < 1_000_000
    assert len(list(many.with_suffix("").glob("*.html"))) > 500


def test_the_page_says_what_is_on_it(tmp_path):
    exported, _ = results_file.write(results_file.upgrade(RESULTS), tmp_path / "results.json")
    text = leaderboard.render(exported, tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text and "@media print" in text
    for words in ("Course entry", "Curie", "self-reported", "Pareto", "7 track entries"):
        assert words in text
    assert "import leaderboard" not in text and "Traceback" not in text


def test_an_entry_has_a_page_with_its_trail_and_command(many):
    page = next(p for p in many.with_suffix("").glob("*.html") if "What I did" in p.read_text())
    text = page.read_text(encoding="utf-8")
    for words in ("abababab", "bubblewrap", "AMD EPYC", "tito ", "<td>0.91</td>", "<em>words</em>"):
        assert words in text, words


def test_a_results_file_of_an_unknown_version_is_refused():
    old = results_file.upgrade(RESULTS)
    assert old["schema"] == results_file.SCHEMA and len(old["entries"]) == len(ENTRIES)
    with pytest.raises(GradingError, match="version 99, this program reads up to"):
        results_file.upgrade({**RESULTS, "schema": "torch-olympics/results/99"})


def test_classes_are_merged_and_equal_pseudonyms_stay_two_people(tmp_path):
    one, two = boards.board(30, group="A"), boards.board(30, group="B", seed=2)
    for group, made in (("A", one), ("B", two)):
        made["classes"] = [{"name": group, "made": made["made"]}]
        made["entries"][20]["name"] = "Turing"
    merged = merge.merge([("a.json", one), ("b.json", two)])
    assert [e["class"] for e in merged["entries"] if e["name"] == "Turing"] == ["A", "B"]
    references = [(e["track"], e["dataset"]) for e in merged["entries"] if e["badge"] == "reference"]
    assert len(references) == len(set(references)) > 4  # each stands once
    page = leaderboard.render(
        results_file.write(merged, tmp_path / "m.json")[0], tmp_path / "m.html"
    ).read_text()
    assert '<select name="class">' in page
    with pytest.raises(GradingError):
        merge.merge([("a.json", one), ("again.json", one)])
    other = copy.deepcopy(two)
    other["rules"]["vision"] = dict.fromkeys(other["rules"]["vision"], "0" * 16)
    with pytest.raises(GradingError, match="rules"):
        merge.merge([("a.json", one), ("b.json", other)])


def test_notebook_reads_nothing_but_the_export(tmp_path):
    notebook = json.loads(leaderboard.NOTEBOOK.read_text(encoding="utf-8"))
    code = "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert set(re.findall(r"(?:from|import) (\w+)", code)) <= {"IPython", "HTML", "autograder", "leaderboard"}
    assert "open(" not in code and all(not cell.get("outputs") for cell in notebook["cells"])
    with pytest.raises(GradingError, match="tito export"):
        leaderboard.render(tmp_path / "none.json", tmp_path / "page.html")


def of_track(track, name, **metrics):
    made = entry(name, None, 1e6, metrics.pop("points", 50.0), dataset="tinytalks")
    made["metrics"] = {"size_bytes": 1e6, "gate_passed": True, **metrics}
    return {**made, "track": track, "assignment": track}


def test_the_score_ranks_every_track_and_the_own_figure_ends_its_ties():
    entries = [
        of_track("speed", "slow", tokens_per_second=150.0, retention=1.0),
        of_track("speed", "quick", tokens_per_second=900.0, retention=0.97, latency_p50=0.0012),
        of_track("speed", "whole", tokens_per_second=120.0, retention=1.0, points=80.0),
        of_track("speed", "careless", tokens_per_second=5000.0, retention=0.5, gate_passed=False),
    ]
    (board,) = leaderboard.sections({"entries": entries}, "speed")
    assert [e["name"] for e in board.entries] == ["whole", "quick", "slow", "careless"]
    assert board.ranks == [1, 2, 3, 4]
    page = leaderboard.show({"entries": entries}, "speed")
    for text in ("900 tokens/s", "97.0%", "1.2 ms", "Kept", "TinyTalks"):
        assert text in page
    assert "Pareto front: quick, careless" in page or "Pareto front: careless, quick" in page


def test_of_bits_a_byte_less_is_better():
    entries = [
        of_track("language", "worse", bits_per_byte=0.71, rubric=0.9),
        of_track("language", "better", bits_per_byte=0.52, bits_per_byte_interval=[0.5, 0.54], rubric=0.8),
    ]
    (board,) = leaderboard.sections({"entries": entries}, "language")
    assert [e["name"] for e in board.entries] == ["better", "worse"]
    table = leaderboard.table(board)
    assert "0.52" in table and "0.50 to 0.54" in table and "Rubric" in table
