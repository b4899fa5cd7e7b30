"""Builds and tests again and again beside a load: what passes only on a quiet machine is a fault.

    python -m tests.steady --rounds 5               `make book`, anew, and `make browser`, five times
    python -m tests.steady --rounds 20 "make test"  another command, as many times as asked

Two processes keep the machine busy meanwhile, or as many as --busy says. What each run prints is kept in
build/steady/. Exit code 1 where a run failed.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autograder import leash

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "steady"
COMMANDS = ("make book BOOK=--force", "make browser")


@contextmanager
def load(busy: int) -> Iterator[None]:
    """Processes that do nothing but run, for as long as the context lasts."""
    words = leash.command([sys.executable, "-c", "while True: pass"])
    running = [subprocess.Popen(words) for _ in range(busy)]
    try:
        yield
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def main() -> int:
    """The command line."""
    ask = argparse.ArgumentParser(description="Run commands again and again beside a load.")
    ask.add_argument("commands", nargs="*", default=COMMANDS, help="default: %(default)s")
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--busy", type=int, default=2, help="processes that keep the machine busy")
    options = ask.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    failed = []
    with load(options.busy):
        for number in range(1, options.rounds + 1):
            for index, command in enumerate(options.commands, start=1):
                log = LOGS / f"round-{number}-{index}.log"
                begin = time.monotonic()
                with log.open("wb") as out:
                    code = subprocess.call(
                        shlex.split(command), cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
                    )
                failed += [log] if code else []
                seconds = time.monotonic() - begin
                print(f"round {number}: {command}: {'passed' if code == 0 else f'exit {code}'}, "
                      f"{seconds:.0f} s: {log.relative_to(ROOT)}", flush=True)  # fmt: skip
    runs = options.rounds * len(options.commands)
    print(f"{runs - len(failed)} of {runs} runs passed beside {options.busy} busy processes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
