"""Run a program to its end and hand back what it wrote."""

import contextlib
import os
import threading
from dataclasses import dataclass
from subprocess import PIPE
from typing import IO

from autograder.sandbox.process import Process, Report, start
from autograder.sandbox.program import Program


@dataclass(frozen=True)
class Completed(Report):
    """A Report with what the program wrote."""

    stdout: bytes
    stderr: bytes


def run(program: Program, input: bytes = b"") -> Completed:
    """Run to the end, as `start`; what it wrote comes back, and too much of it ends the program."""
    most = program.limits.output_bytes
    with start(program, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        readers = [_Reader(pipe, most, process) for pipe in (process.stdout, process.stderr)]
        writer = threading.Thread(target=_feed, args=(process.stdin, input), daemon=True)
        writer.start()
        report = process.wait()
        for thread in (writer, *readers):
            thread.join()
        reason = report.reason
        if any(reader.overflow for reader in readers):
            reason = f"output limit: more than {most / 1e6:g} MB written"
        out, err = (bytes(reader.data) for reader in readers)
        return Completed(
            reason, report.returncode, report.peak_memory, report.seconds, report.level, out, err,
            memory_by=report.memory_by,
        )  # fmt: skip


class _Reader(threading.Thread):
    """Drains one pipe into memory, up to a cap; the first byte over it ends the program."""

    def __init__(self, stream: IO[bytes], cap: int, process: Process):
        super().__init__(daemon=True)
        self.data, self.overflow = bytearray(), False
        self._stream, self._cap, self._process = stream, cap, process
        self.start()

    def run(self) -> None:
        while part := os.read(self._stream.fileno(), 65536):
            self.data += part
            if len(self.data) > self._cap and not self.overflow:
                self.overflow = True
                self._process.stop()
            del self.data[self._cap :]


def _feed(stream: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError):  # the program need not read its input
        stream.write(data)
        stream.close()
