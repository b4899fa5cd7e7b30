"""Rebuilding a submission: our cells, the student's answers, and nothing else from the student's file."""

import base64
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from autograder.notebooks.rebuild import (
    MAX_SOURCE,
    NOTES,
    NotANotebook,
    clean_outputs,
    read_submission,
    rebuild,
    unsolved,
)


def cell(source, grade_id, *, markdown=False, tags=(), **flags):
    meta = {
        "grade_id": grade_id,
        "grade": False,
        "solution": False,
        "locked": False,
        "schema_version": 3,
        **flags,
    }
    make = new_markdown_cell if markdown else new_code_cell
    return make(source, metadata={"nbgrader": meta, **({"tags": list(tags)} if tags else {})})


def ours():
    return new_notebook(
        cells=[
            cell("%load_ext tito", "setup", locked=True),
            cell(
                "def f(x):\n    ### BEGIN SOLUTION\n    return x + 1\n    ### END SOLUTION",
                "f",
                solution=True,
            ),
            cell("assert f(1) == 2", "test-f", grade=True, points=2, locked=True),
            cell("Say why.", "why", markdown=True, grade=True, solution=True, points=1),
        ]
    )


def submitted(*cells):
    return json.loads(nbformat.writes(new_notebook(cells=list(cells))))


def by_id(nb, name):
    return next(c for c in nb.cells if c.metadata.get("nbgrader", {}).get("grade_id") == name)


def test_only_answers_are_taken():
    nb = rebuild(
        ours(),
        submitted(
            cell("print('mine')", "setup", locked=True),
            cell("def f(x):\n    return x", "f", solution=True, tags=["skip-execution"]),
            cell("pass", "test-f", grade=True, points=200, tags=["skip-execution"]),
            new_code_cell("import os; os.remove('gradebook.db')"),
        ),
    )
    assert [c.metadata.nbgrader["grade_id"] for c in nb.cells] == ["setup", "f", "test-f", "why"]
    assert by_id(nb, "f").source == "def f(x):\n    return x"
    assert by_id(nb, "setup").source == "%load_ext tito"
    test = by_id(nb, "test-f")
    assert (test.source, test.metadata.nbgrader["points"]) == ("assert f(1) == 2", 2)
    assert not any("tags" in c.metadata for c in nb.cells)


def test_missing_answer_stays_as_released():
    release = unsolved(ours())
    by_id(release, "f").source = "def f(x):\n    raise NotImplementedError()  # ours"
    nb = rebuild(unsolved(ours(), release), submitted())
    assert by_id(nb, "f").source == "def f(x):\n    raise NotImplementedError()  # ours"
    assert any("Cell f is missing" in note for note in nb.metadata[NOTES])
    assert rebuild(ours(), None).metadata[NOTES] == []
    assert "### BEGIN" not in by_id(rebuild(ours(), None), "f").source


def test_duplicates_and_foreign_cells_are_noted():
    nb = rebuild(
        ours(),
        submitted(
            cell("first", "f", solution=True),
            cell("second", "f", solution=True),
            cell("x = 1", "other", solution=True),
            cell("y", "why", markdown=True, solution=True),
        ),
    )
    assert by_id(nb, "f").source == "first"
    assert nb.metadata[NOTES] == [
        "Cell f occurs more than once: the first one counts.",
        "Not part of this assignment and left out: other.",
    ]


def test_cell_type_stays_ours():
    nb = rebuild(ours(), submitted(cell("# text", "f", markdown=True, solution=True)))
    assert by_id(nb, "f").cell_type == "code"


def test_long_answer_is_refused():
    nb = rebuild(ours(), submitted(cell("#" * (MAX_SOURCE + 1), "f", solution=True)))
    assert "raise NotImplementedError" in by_id(nb, "f").source
    assert "the limit is 100000" in " ".join(nb.metadata[NOTES])


@pytest.mark.parametrize(
    "garbage",
    [
        {"cells": [None, 3, {"metadata": 5}, {"metadata": {"nbgrader": []}}, {"metadata": {"nbgrader": {}}}]},
        {"cells": [{"metadata": {"nbgrader": {"grade_id": "f", "solution": True}}, "source": {"a": 1}}]},
        {"cells": [{"metadata": {"nbgrader": {"grade_id": ["f"]}}, "source": [1, "x", None]}]},
        {"cells": {}},
        {},
    ],
)
def test_garbage_is_no_exception(garbage):
    nbformat.validate(rebuild(ours(), garbage))


def test_lone_surrogates_can_be_written(tmp_path):
    bad = {
        "cells": [{"metadata": {"nbgrader": {"grade_id": "f", "solution": True}}, "source": "x = '\ud800'"}]
    }
    nbformat.write(rebuild(ours(), bad), tmp_path / "a.ipynb")


def test_markdown_answers_carry_no_live_html():
    text = "a < b and <script>alert(1)</script> [x](javascript:alert(1))"
    source = by_id(rebuild(ours(), submitted(cell(text, "why", markdown=True, solution=True))), "why").source
    assert "<script" not in source and "javascript:" not in source and "a < b" in source


def test_outputs_are_reduced_to_text_and_png():
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()
    html = base64.b64encode(b"<script>").decode()
    kept = clean_outputs(
        [
            new_output(
                "display_data", data={"text/html": "<script>", "text/plain": "shown", "image/png": png}
            ),
            new_output("display_data", data={"text/html": "<script>", "image/png": html}),
            new_output("display_data", data={"application/javascript": "alert(1)"}),
            new_output("stream", name="stdout", text="x" * 100_000),
            "nonsense",
            {"output_type": "stream", "name": "stdout", "text": {"a": 1}},
        ]
    )
    assert kept[0].data == {"text/plain": "shown", "image/png": png}
    assert [output.output_type for output in kept] == ["display_data", "stream", "stream"]
    assert len(kept[1].text) < 21_000


def test_a_picture_keeps_its_alternative_and_a_size_that_is_a_number():
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 20).decode()
    hostile = {
        "image/png": {"alt": '"><script>', "width": "1 onload=alert(1)", "height": 90, "unconfined": "x"}
    }
    (kept,) = clean_outputs([new_output("display_data", data={"image/png": png}, metadata=hostile)])
    assert kept.metadata == {"image/png": {"alt": '"><script>', "height": 90}}  # nbconvert escapes the text
    for metadata in ({"image/png": "x"}, {"image/png": {"alt": 3, "width": True, "height": 10**9}}, {}):
        (kept,) = clean_outputs([new_output("display_data", data={"image/png": png}, metadata=metadata)])
        assert kept.metadata == {}


@pytest.mark.parametrize(
    "content,reason",
    [
        (b"not json", "cannot be read as JSON"),
        (b"\xff\xfe\x00", "cannot be read as JSON"),
        (b"[1, 2]", "has no list of cells"),
        (b'{"worksheets": []}', "has no list of cells"),
        (b"[" * 200_000, "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
    ],
)
def test_unreadable_file_has_a_reason(tmp_path: Path, content: bytes, reason: str):
    path = tmp_path / "a.ipynb"
    path.write_bytes(content)
    with pytest.raises(NotANotebook, match=reason):
        read_submission(path)


def test_links_and_missing_files_have_a_reason(tmp_path: Path):
    (tmp_path / "gradebook.db").write_text("{}")
    link = tmp_path / "a.ipynb"
    link.symlink_to(tmp_path / "gradebook.db")
    with pytest.raises(NotANotebook, match="no link"):
        read_submission(link)
    with pytest.raises(NotANotebook, match="was not submitted"):
        read_submission(tmp_path / "b.ipynb")
