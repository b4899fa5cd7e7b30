"""`tito build`: lessons to the package, the instructor's notebooks and the release.

Everything is made in a temporary folder and then replaces what is there, file by file; `--check` compares.
The same lessons give the same bytes: fixed metadata, cell ids from content, outputs kept only where nbval
compares them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from nbformat import NotebookNode

from autograder.files import write_text
from autograder.scratch import scratch_folder
from tito import progress
from tito.build import built
from tito.build.lessons import BuildError, Lesson, find_lessons, lint
from tito.build.run_lesson import execute
from tito.package.exporter import ExportError, export_text, public_names, tidy
from tito.package.init import names_module, package_init

BUILT = ("tinytorch", "source", "release")
NOTEBOOKS = ("source", "release")
NAMES = "tito/package/names.py"
_IGNORED = {"__pycache__", ".ipynb_checkpoints"}
Report = Callable[[str], None]


def build(
    root: Path, lessons: Sequence[str] = (), *, jobs: int = 2, force: bool = False, report: Report = print
) -> list[str]:
    """Build all lessons, or the named ones ("05", "05_autograd", "vision"), and replace what changed.

    Returns the changed paths, relative to `root`. Nothing is replaced when a lesson has a fault: BuildError
    holds one line for each. With named lessons, faults of the others are only reported, and their built files
    stay. What built.json knows to be current is not executed again, unless `force`.
    """
    with _locked(root, report), scratch_folder("build") as out:
        cache = None if force else root / "build" / "executed"
        made = _make(root, out, lessons, jobs=jobs, cache=cache, force=force, report=report)
        changed = []
        for path, reason in _differences(root, out, made):
            if reason == "extra":
                (root / path).unlink()
                _remove_empty(root, (root / path).parent)
            else:
                write_text(root / path, (out / path).read_text(encoding="utf-8"))
            changed.append(path)
        return changed


def check(
    root: Path, lessons: Sequence[str] = (), *, jobs: int = 2, force: bool = False, report: Report = print
) -> list[str]:
    """Build into a temporary folder and return what differs from the files in place: "path: reason", sorted.

    Reasons: missing, stale (or edited by hand), extra. Executed is every lesson that built.json does not
    vouch for, past this machine's cache; all of them with `force`. A record that is behind is no fault of the
    built files, which were then executed and compared: it is said, and `tito build` mends it. Raises
    BuildError.
    """
    words = {
        "missing": "missing, run `tito build`",
        "stale": "differs from what its lesson builds, run `tito build`",
        "extra": "no lesson builds it, delete it or run `tito build`",
    }
    with scratch_folder("check") as folder:
        made = _make(root, folder, lessons, jobs=jobs, cache=None, force=force, report=report)
        found = dict(_differences(root, folder, made))
        if found.pop(built.RECORD, None) and not found:
            report(f"{built.RECORD} is behind: `tito build` brings it up to date, commit it")
        return [f"{path}: {words[reason]}" for path, reason in found.items()]


def build_command(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Lessons to build, such as 05; all when left out.")
    ] = None,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail when a built file is stale.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Execute what is current, too.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Lessons executed at the same time.")] = 2,
) -> None:
    """Build source/, release/ and tinytorch/ from the lessons in modules/ and olympics_notebooks/."""
    try:
        root = course_root(Path.cwd())
        if check_only:
            stale = check(root, lessons or (), jobs=jobs, force=force, report=_to_stderr)
            if not stale:
                print("Everything is as the lessons build it.")
                return
            for line in stale:
                print(line, file=sys.stderr)
            raise typer.Exit(1)
        changed = build(root, lessons or (), jobs=jobs, force=force, report=_to_stderr)
    except BuildError as error:
        for line in error.faults:
            print(line, file=sys.stderr)
        raise typer.Exit(1) from None
    for line in changed:
        print(line)
    print(f"{len(changed)} files changed." if changed else "Nothing changed.")


def course_root(start: Path) -> Path:
    """The nearest folder upwards with modules/ and nbgrader_config.py. Raises BuildError."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "modules").is_dir() and (folder / "nbgrader_config.py").is_file():
            return folder
    raise BuildError(
        [f"{start} is not in the course repository: expected a folder with modules/ and nbgrader_config.py."]
    )


# ---- making everything in a folder


def _make(
    root: Path,
    out: Path,
    wanted: Sequence[str],
    *,
    jobs: int,
    cache: Path | None,
    force: bool,
    report: Report,
) -> set[str] | None:
    """Fill `out` as the course should look; returns the assignments built, None for all of them."""
    lessons = find_lessons(root)
    chosen = _choose(lessons, wanted)
    notebooks: dict[str, NotebookNode] = {}
    texts: dict[str, str] = {}
    faults: list[str] = []
    for lesson in lessons:
        try:
            notebooks[lesson.name] = nb = lesson.read()
            if lesson.module:
                texts[lesson.module] = export_text(nb, file=lesson.file, lesson=lesson.name)
        except (BuildError, ExportError) as error:
            old = root / "tinytorch" / f"{lesson.module}.py"
            if lesson in chosen:
                faults += error.faults if isinstance(error, BuildError) else [str(error)]
            else:
                report(f"left as it is: {error}")
                if lesson.module and old.exists():
                    texts[lesson.module] = old.read_text(encoding="utf-8")
    modules = {lesson.module: lesson.number for lesson in lessons if lesson.module and lesson.number}
    names, clashes = _names(lessons, texts, modules)
    faults += [clash for lesson, clash in clashes if lesson in chosen]
    for lesson in chosen:
        if lesson.name in notebooks:
            faults += lint(lesson, notebooks[lesson.name], modules, names)
    if faults:
        raise BuildError(faults)

    for module, text in texts.items():
        write_text(out / "tinytorch" / f"{module}.py", text)
    write_text(out / "tinytorch" / "__init__.py", tidy(package_init(modules, names)))
    write_text(out / NAMES, tidy(names_module(modules, names)))

    keys = {}
    for lesson in chosen:
        limit = lesson.number or "99"
        package = [text for module, text in sorted(texts.items()) if modules[module] < limit]
        keys[lesson.name] = built.key_of(notebooks[lesson.name], package, root)
    recorded = built.load(root)
    fresh = {}  # lesson -> the texts of both notebooks
    for lesson in () if force else chosen:
        if kept := built.current(root, lesson.name, keys[lesson.name], recorded.get(lesson.name)):
            fresh[lesson.name] = kept
    stale = [lesson for lesson in chosen if lesson.name not in fresh]
    executed = _execute(stale, notebooks, keys, out, jobs=jobs, cache=cache, report=report)
    be = "is" if len(fresh) == 1 else "are"
    cached = len(stale) - executed
    report(
        f"{_counted(len(fresh))} {be} current, executed {executed}"
        + (f", kept in build/ from before {cached}" if cached else "")
    )
    if stale:
        _release(root, out)
    for name, both in fresh.items():
        for folder, text in zip(("source", "release"), both, strict=True):
            write_text(out / folder / name / f"{name}.ipynb", text)
    entries = {lesson.name: recorded[lesson.name] for lesson in lessons if lesson.name in recorded}
    for name, key in keys.items():
        digests = [built.digest((out / folder / name / f"{name}.ipynb").read_bytes()) for folder in NOTEBOOKS]
        entries[name] = built.Entry(key, *digests)
    write_text(out / built.RECORD, built.text(entries))
    return {lesson.name for lesson in chosen} if wanted else None


def _execute(
    lessons: Sequence[Lesson],
    notebooks: Mapping[str, NotebookNode],
    keys: Mapping[str, str],
    out: Path,
    *,
    jobs: int,
    cache: Path | None,
    report: Report,
) -> int:
    """Fill out/source by running the lessons, or from the cache; how many ran. Raises BuildError."""
    faults, ran = [], 0
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = {
            pool.submit(
                execute, lesson, notebooks[lesson.name], out, key=keys[lesson.name], cache=cache
            ): lesson
            for lesson in lessons
        }
        with progress.beating(progress.Heart(report)) as beat:
            beat.on(f"executing {_counted(len(waiting))}")
            for done in as_completed(waiting):
                text, found, seconds = done.result()
                lesson = waiting[done]
                write_text(out / "source" / lesson.name / f"{lesson.name}.ipynb", text)
                faults += found
                ran += bool(seconds)
                how = f"executed in {seconds:.1f} s" if seconds else "kept in build/ from before"
                beat.say(f"{lesson.name}: {how}")
    if faults:
        raise BuildError(sorted(faults))
    return ran


def _counted(number: int) -> str:
    return f"{number} lesson{'' if number == 1 else 's'}"


def _choose(lessons: Sequence[Lesson], wanted: Sequence[str]) -> list[Lesson]:
    if not wanted:
        return list(lessons)
    chosen = {}
    for word in wanted:
        found = [
            lesson for lesson in lessons if word in (lesson.name, lesson.number, lesson.module, lesson.file)
        ]
        if not found:
            raise BuildError(
                [f"no lesson {word!r}; there are {', '.join(lesson.name for lesson in lessons) or 'none'}."]
            )
        first = min(found, key=lambda lesson: lesson.name != word)  # the track before module 16, compression
        chosen[first.name] = first
    return list(chosen.values())


def _names(
    lessons: Iterable[Lesson], texts: dict[str, str], modules: dict[str, str]
) -> tuple[dict[str, str], list[tuple[Lesson, str]]]:
    """Public name -> module, and the names that two lessons claim."""
    names: dict[str, str] = {}
    clashes = []
    for lesson in lessons:
        for name in public_names(texts[lesson.module]) if lesson.module in texts else []:
            if name in modules:
                clashes.append((lesson, f"{lesson.file}: exports {name!r}, which is the name of a module."))
            elif name in names:
                clashes.append(
                    (lesson, f"{lesson.file}: exports {name!r}, which {names[name]} already exports.")
                )
            else:
                names[name] = str(lesson.module)
    return names, clashes


def _release(root: Path, out: Path) -> None:
    """out/release from out/source, by nbgrader's generate_assignment.

    No gradebook: `tito release` fills the course's own; one thrown away costs seconds and changes no byte.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import SaveCells
    from traitlets.config import Config, PyFileConfigLoader

    settings = root / "nbgrader_config.py"
    known = settings.exists()
    config: Any = PyFileConfigLoader(settings.name, path=str(root)).load_config() if known else Config()
    config.CourseDirectory = Config(root=str(out.resolve()), assignment_id="*", db_url="sqlite://")
    said: list[str] = []
    listener = logging.Handler(logging.ERROR)
    listener.emit = lambda record: said.append(record.getMessage().strip())  # type: ignore[method-assign]
    log = logging.getLogger("tito.nbgrader")
    log.propagate = False
    log.addHandler(listener)
    converter = GenerateAssignment(
        coursedir=CourseDirectory(config=config), config=config, log=log, no_database=True
    )
    converter.preprocessors = [step for step in converter.preprocessors if step is not SaveCells]
    try:
        converter.start()
    except Exception as error:  # nbgrader raises bare RuntimeErrors; what went wrong is in its log
        traces = [line.splitlines()[-1] for line in said if line.startswith("Traceback")]
        reason = (traces or [str(error)])[0]
        raise BuildError([f"release: nbgrader generate_assignment: {reason}"]) from error
    finally:
        log.removeHandler(listener)


# ---- comparing and replacing


def _differences(root: Path, out: Path, made: set[str] | None) -> list[tuple[str, str]]:
    """(path, "missing" | "stale" | "extra") for all built files, or for the assignments in `made`."""
    new = {path.relative_to(out).as_posix(): path for path in _files(out)}
    differences = []
    for path, file in new.items():
        place = root / path
        if not place.is_file():
            differences.append((path, "missing"))
        elif place.read_bytes() != file.read_bytes():
            differences.append((path, "stale"))
    for folder in BUILT:
        for file in _files(root / folder):
            path = file.relative_to(root).as_posix()
            assignment = path.split("/")[1]
            if path not in new and (made is None or (folder != "tinytorch" and assignment in made)):
                differences.append((path, "extra"))
    return sorted(differences)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _IGNORED & set(path.parts):
            yield path


def _remove_empty(root: Path, folder: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


@contextmanager
def _locked(root: Path, report: Report) -> Iterator[None]:
    """One build at a time in a repository."""
    (root / "build").mkdir(exist_ok=True)
    with open(root / "build" / "lock", "w", encoding="utf-8") as file:
        if sys.platform == "win32":  # it has no flock: two builds at once are then not kept apart
            yield
            return
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another `tito build` to finish")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
