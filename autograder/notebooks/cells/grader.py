"""The judge: runs a notebook's graded cells on proxies of what the student's cells define.

Started as `python -m autograder.notebooks.cells.grader JOB`, in a sandbox of its own, with the student's
process at its stdin and stdout. Results leave on stderr, a JSON line a cell:
    {"i": 3, "outputs": [...], "status": "ok" | "error" | "timeout" | "dead", "seconds": 0.1}
The job is a JSON file: {"cells": [{"i", "source", "kind"}], "cell_s": 60, "stop_s": 300}, kind being
    student   an answer
    export    ours, part of the package
    ours      ours
    grade     a graded cell: runs here and nowhere else

A graded cell finds each name where the notebook bound it last: what a graded cell made, here; functions,
imports and constants of our own cells, made anew here, so that no student code can touch them; all else is
the student's, by proxy.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dis
import io
import json
import os
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from autograder.notebooks.cells import wire
from autograder.notebooks.cells.proxies import Ended, Late, Link, Proxy

# Modules that belong to the process of the student: the package, memory, threads, operators of its classes.
THEIRS = ("tinytorch", "tracemalloc", "threading", "gc", "operator", "warnings")
_GRACE_S = 5.0  # for the student's process to notice by itself that time is over
_MOST_TEXT = 20_000
_READS = ("LOAD_NAME", "LOAD_GLOBAL", "DELETE_NAME", "DELETE_GLOBAL")


class Judge:
    """The names of a notebook, and its cells one after the other."""

    def __init__(self, link: Link, clock: Clock) -> None:
        self.link, self.clock = link, clock
        np.shares_memory = link.shares_memory  # type: ignore[assignment]  # of the student's arrays we hold copies
        self.space: dict[str, Any] = {"__name__": "__main__"}
        self.space["__builtins__"] = {**vars(builtins), "__import__": self._import, "id": self._id}
        self._ours: dict[str, ast.stmt] = {}  # name -> the statement of ours that makes it
        self._made: dict[str, ast.stmt] = {}  # those that were run
        self._graded: set[str] = set()  # bound by graded cells

    def run(self, source: str, kind: str) -> dict[str, Any]:
        """One cell: its outputs and status."""
        if kind != "grade":
            try:
                record = self.link.run_cell(source)
            except Exception as error:  # their process could not say how it went, but it goes on
                if self.link.ended:
                    raise
                text = f"{type(error).__name__}: {error}"[:_MOST_TEXT]
                record = {"outputs": [_error(type(error).__name__, text)], "status": "error"}
            self._note(source, kind)
            return record
        printed = io.StringIO()
        outputs: list[dict[str, Any]] = []
        tree = ast.parse(source)
        try:
            self._resolve(_loaded(tree))
            with contextlib.redirect_stdout(printed):
                value = self._run(tree)
        except (Late, Ended):
            raise
        except BaseException as error:  # the verdict
            name, text = type(error).__name__, str(error)[:_MOST_TEXT]
            outputs = [_error(name, text)]
        else:
            if isinstance(value, int | float | np.generic):
                outputs = [
                    {"output_type": "execute_result", "data": {"text/plain": repr(_plain(value))},
                     "metadata": {}, "execution_count": None}
                ]  # fmt: skip
        if text := printed.getvalue():
            outputs.insert(0, {"output_type": "stream", "name": "stdout", "text": text[:_MOST_TEXT]})
        failed = any(output["output_type"] == "error" for output in outputs)
        return {"outputs": outputs, "status": "error" if failed else "ok"}

    def _run(self, tree: ast.Module) -> Any:
        """Run a cell; the value of its last line where that is an expression."""
        last = tree.body[-1] if tree.body else None
        shown = ast.Expression(last.value) if isinstance(last, ast.Expr) else None
        body = tree.body[:-1] if shown else tree.body
        bound = _bound(tree.body)
        before = {name: self.space.get(name) for name in bound}
        try:
            exec(compile(ast.Module(body, []), "<graded cell>", "exec"), self.space)
            return eval(compile(shown, "<graded cell>", "eval"), self.space) if shown else None
        finally:  # a cell that failed halfway has bound the names of its first half
            self._graded |= {n for n in bound if n in self.space and self.space[n] is not before[n]}

    def _note(self, source: str, kind: str) -> None:
        """Remember which names the cell bound, and which of them are made here."""
        try:
            body = ast.parse(
                "\n".join(line for line in source.splitlines() if not line.startswith(("%", "!")))
            ).body
        except SyntaxError:
            return
        for statement in body:
            for name in _bound([statement]):
                self._graded.discard(name)
                self._ours.pop(name, None)
                if self._is_ours(statement, kind):
                    self._ours[name] = statement

    def _is_ours(self, statement: ast.stmt, kind: str) -> bool:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return kind in ("ours", "export")
        if kind != "ours":
            return False
        if isinstance(statement, ast.FunctionDef):  # a class of theirs is extended in their process
            derives = any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(statement))
            return not (statement.decorator_list or derives)
        return isinstance(statement, ast.Assign) and _is_constant(statement.value)

    def _resolve(self, names: Iterable[str]) -> None:
        """Bind the names that a piece of code reads: made here, or fetched from the student's process."""
        wanted, seen = list(names), set()
        theirs = []
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            statement = self._ours.get(name)
            if statement is not None:
                wanted += _loaded(statement)
            elif name not in self._graded and not hasattr(builtins, name):
                theirs.append(name)
        found = self.link.names(sorted(theirs)) if theirs else {}
        for name in theirs:
            self.space.pop(name, None)
            self._made.pop(name, None)
        self.space.update(found)
        for name in sorted(seen & self._ours.keys()):
            self._make(name, set())

    def _make(self, name: str, begun: set[str]) -> None:
        """Run the statement of ours that binds a name, after those that it reads from."""
        statement = self._ours[name]
        if name in begun or self._made.get(name) is statement:
            return
        begun.add(name)
        for needed in _loaded(statement):
            if needed in self._ours:
                self._make(needed, begun)
        exec(compile(ast.Module([statement], []), "<a cell of ours>", "exec"), self.space)
        self._made[name] = statement

    def _import(
        self, name: str, space: Any = None, local: Any = None, wanted: Any = (), level: int = 0
    ) -> Any:
        if name.partition(".")[0] not in THEIRS or level:
            return builtins.__import__(name, space, local, wanted, level)
        module = self.link.module(name)
        return module if wanted or "." not in name else self.link.module(name.partition(".")[0])

    def _id(self, value: Any) -> Any:
        return self.link.do("id", value) if isinstance(value, Proxy) else id(value)


class Clock:
    """How long the cell that runs, and the notebook, may still take."""

    def __init__(self, cell_s: float, stop_s: float) -> None:
        self.cell_s, self.stop = cell_s, time.monotonic() + stop_s
        self.end = 0.0

    def left(self) -> float:
        """Seconds left to the cell."""
        return max(0.05, self.end - time.monotonic())

    @contextlib.contextmanager
    def cell(self) -> Iterator[None]:
        """Within: one cell. Raises Late where it does not end in time; the student's process should first."""
        self.end = min(time.monotonic() + self.cell_s, self.stop + 1)
        signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, self.left() + _GRACE_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _late(*_: Any) -> None:
    raise Late("alarm")


def _error(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": [f"{name}: {text}"]}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _loaded(node: ast.AST) -> list[str]:
    """Every global name that the code reads, in its functions, too."""
    tree = node if isinstance(node, ast.Module) else ast.Module([node], [])  # type: ignore[list-item]
    codes, found = [compile(tree, "<cell>", "exec")], set()
    while codes:
        code = codes.pop()
        found |= {step.argval for step in dis.get_instructions(code) if step.opname in _READS}
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return sorted(found)


def _bound(body: Iterable[ast.stmt]) -> list[str]:
    """The names that statements of a cell bind; what functions and classes bind within is theirs."""
    names: list[str] = []
    stack: list[ast.AST] = list(body)
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
            continue
        if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
        stack += ast.iter_child_nodes(node)
    return names


def _is_constant(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def main(job_file: str) -> int:
    """Run the job; the exit status is 0 when every cell was tried."""
    results = os.fdopen(os.dup(2), "w", encoding="utf-8")
    answers, requests = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    with open(job_file, encoding="utf-8") as file:
        job = json.load(file)

    def emit(**record: Any) -> None:
        results.write(json.dumps(record, default=lambda value: None) + "\n")
        results.flush()

    clock = Clock(job["cell_s"], job["stop_s"])
    link = Link(requests, answers, clock.left)
    judge = Judge(link, clock)
    for cell in job["cells"]:
        begin = time.monotonic()
        if begin > clock.stop:
            emit(stopped="time")
            return 1
        try:
            with clock.cell():
                record = judge.run(cell["source"], cell["kind"])
        except Late as late:
            record = {"outputs": [], "status": "timeout"}
            if late.args:  # our own alarm: the student's process did not answer, and never will
                link.ended = True
        except (Ended, wire.WireError):
            emit(i=cell["i"], outputs=[], status="dead", seconds=time.monotonic() - begin)
            emit(stopped="dead")
            return 1
        emit(**{**record, "i": cell["i"], "seconds": time.monotonic() - begin})
        if link.ended:
            emit(stopped="late")
            return 1
    emit(done=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
