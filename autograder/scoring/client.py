"""The trusted end of a worker: starts it in the sandbox, asks for predictions, checks every answer.

Of a language model it asks for the logits after one more token of each text (`begin`, `step`: what comes next
stays here until it is answered), or for greedy tokens (`generate`: one frame a step, timed on arrival).
"""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autograder import frames, sandbox
from autograder.errors import OlympicsError

PACKAGES = (
    "numpy",
    "safetensors",
    "threadpoolctl",
)  # all that a submission may import beside the standard library
CLASSES = 10
_LOG_BYTES = 1 << 16
_THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Threads of OpenBLAS wait for work by spinning, 2^26 clock cycles by default. That is longer than a short
# answer takes, and on two cores they are in the way of the submission's own threads and of ours. 2^19 are
# enough to be awake for the next product.
_SHORT_SPINNING = {"OPENBLAS_THREAD_TIMEOUT": "19"}


class SubmissionError(OlympicsError):
    """A submission that failed by its own doing; the message is one line, for the record and the student."""


@dataclass(frozen=True)
class Stream:
    """What `generate` answered. tokens: int64 (B, n). arrivals: seconds from the request to each frame."""

    tokens: NDArray[np.int64]
    arrivals: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """From the request to the last token."""
        return self.arrivals[-1]


class Worker:
    """A submission's model behind a pipe, in a sandbox. A context manager.

    submission_dir: holds the model file and network.py. tinytorch_dir: the folder that contains tinytorch/.
    limits.wall_s bounds its whole life; answer_s each single answer. Whatever the submission does, only
    SubmissionError comes out of load and predict.
    """

    def __init__(
        self,
        submission_dir: str | Path,
        tinytorch_dir: str | Path | None = None,
        limits: sandbox.Limits | None = None,
        level: str | None = None,
        *,
        answer_s: float = 120.0,
        threads: int | None = None,
    ):
        self.submission = Path(submission_dir).absolute()
        self.tinytorch = Path(tinytorch_dir).absolute() if tinytorch_dir else self.submission
        self.limits = limits or sandbox.Limits(wall_s=600.0)
        self.level = sandbox.choose(level)
        self._answer_s = answer_s
        self._threads = threads or os.cpu_count() or 1
        self._process: sandbox.Process | None = None
        self._log = bytearray()
        self._own_peak = 0
        self._vocabulary = 0
        self._batch = 0

    def __enter__(self) -> "Worker":
        if not (self.tinytorch / "tinytorch").is_dir():
            raise SubmissionError("the folder tinytorch/ is missing: run `tito olympics submit` to pack it")
        threads = str(self._threads)
        script = Path(__file__).absolute().with_name("worker.py")
        program = sandbox.Program(
            [sys.executable, "-P", "-s", "-B", "-u", str(script), str(self.submission)],
            readable=[script, Path(frames.__file__).absolute(), self.submission],
            importable=[self.tinytorch / "tinytorch"],
            env=dict.fromkeys(_THREAD_COUNTS, threads) | _SHORT_SPINNING,
            limits=self.limits, level=self.level, packages=PACKAGES,
        )  # fmt: skip
        pipe = subprocess.PIPE
        self._process = sandbox.start(program, stdin=pipe, stdout=pipe, stderr=pipe)
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self._from, False)
        self._drainer = threading.Thread(
            target=self._drain, args=(self._process.stderr.fileno(),), daemon=True
        )
        self._drainer.start()
        try:
            frames.read(self._from, 0, time.monotonic() + 60.0)
        except frames.FrameError as error:
            self._process.close()
            self._drainer.join(1.0)
            why = _one_line(self._process.wait().reason or self.log.strip().rpartition("\n")[2] or error)
            raise sandbox.SandboxUnavailable(
                f"the worker does not start at level {self.level}: {why}"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process:
            self._process.close()
            self._drainer.join(1.0)

    @property
    def log(self) -> str:
        """The first 64 KiB of what the submission printed; all of it once the worker has ended."""
        return self._log.decode(errors="replace")

    def load(self, model_path: str | Path, vocabulary: int = 0) -> dict[str, Any]:
        """Import the student's tinytorch, load the model, switch it to evaluation: {"parameters": count}.

        vocabulary: of a language model, how many ids its tokenizer has.
        """
        self._vocabulary, self._batch = vocabulary, 0
        answer, _ = self._ask({"op": "load", "path": str(Path(model_path).absolute())}, [], 0)
        parameters = answer.get("parameters")
        if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 0:
            raise SubmissionError("the model did not give a count of its parameters")
        if parameters > self.limits.memory_bytes:
            raise SubmissionError(f"the model counts {parameters:.3g} parameters: more than its memory holds")
        return {"parameters": parameters}

    def predict(self, images: NDArray[Any]) -> NDArray[np.float64]:
        """Logits (N, 10) for images (N, 3, 32, 32): float32 in 0..1, or uint8 as stored."""
        if images.dtype not in (np.uint8, np.float32) or images.shape[1:] != (3, 32, 32):
            raise ValueError(
                f"predict: expected float32 or uint8 (N, 3, 32, 32), got {images.dtype} {images.shape}"
            )
        n = len(images)
        _, arrays = self._ask({"op": "predict"}, [images], 8 * n * CLASSES * 16 + 4096)
        logits = _one(arrays)
        if logits.shape != (n, CLASSES):
            raise SubmissionError(
                f"the model answered with shape {logits.shape}: expected {(n, CLASSES)} for {n} pictures"
            )
        if logits.dtype.kind != "f":
            raise SubmissionError(f"the model answered with {logits.dtype} numbers: expected floats")
        bad = int((~np.isfinite(logits).all(axis=1)).sum())
        if bad:
            raise SubmissionError(f"the model answered with NaN or infinity for {bad} of {n} pictures")
        return logits.astype(np.float64)

    def begin(self, batch: int) -> None:
        """Forget all text: the next `step` gives the first token of `batch` new texts."""
        if batch < 1 or not self._vocabulary:
            raise ValueError(f"begin: expected a batch of 1 or more and a vocabulary, got {batch}")
        self._ask({"op": "begin", "batch": batch}, [], 0)
        self._batch = batch

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """One more token of each text, int64 (B,), and the logits (B, V) of what comes after it."""
        self._check_ids(ids, (self._batch,), "step")
        shape = (self._batch, self._vocabulary)
        _, arrays = self._ask({"op": "step"}, [ids], 8 * shape[0] * shape[1] + 4096)
        logits = _one(arrays)
        if logits.shape != shape:
            raise SubmissionError(
                f"the model answered with shape {logits.shape}: expected {shape}, texts and vocabulary"
            )
        if logits.dtype.kind != "f":
            raise SubmissionError(f"the model answered with {logits.dtype} numbers: expected floats")
        if not np.isfinite(logits).all():
            raise SubmissionError("the model answered with NaN or infinity as logits")
        return logits.astype(np.float64)

    def generate(self, prompts: NDArray[np.int64], n: int, stream: bool = True) -> Stream:
        """n greedy tokens after each prompt, int64 (B, L); with stream=False all come in one frame."""
        if n < 1 or prompts.ndim != 2 or prompts.size == 0 or not self._vocabulary:
            raise ValueError(f"generate: expected prompts (B, L), n >= 1, got {prompts.shape}, n = {n}")
        self._check_ids(prompts, prompts.shape, "generate")
        self._batch = 0  # a text that `begin` began is over
        batch, answers = len(prompts), n if stream else 1
        shape = (batch,) if stream else (batch, n)
        start, tokens, arrivals = time.perf_counter(), [], []
        self._send({"op": "generate", "n": n, "stream": stream}, [prompts])
        for _ in range(answers):
            _, arrays = self._receive(8 * batch * n + 4096)
            arrivals.append(time.perf_counter() - start)
            found = _one(arrays)
            if found.shape != shape or found.dtype != np.int64:
                raise SubmissionError(
                    f"the model answered with {found.dtype} {found.shape} as tokens: expected int64 {shape}"
                )
            if found.min() < 0 or found.max() >= self._vocabulary:
                raise SubmissionError(
                    f"the model answered with token {int(found.min())} to {int(found.max())}: expected 0 to "
                    f"{self._vocabulary - 1}"
                )
            tokens.append(found.reshape(batch, -1))
        return Stream(np.concatenate(tokens, axis=1), tuple(arrivals))

    def _check_ids(self, ids: NDArray[np.int64], shape: tuple[int, ...], what: str) -> None:
        if ids.dtype != np.int64 or ids.shape != shape or ids.size == 0:
            raise ValueError(f"{what}: expected int64 {shape}, got {ids.dtype} {ids.shape}")
        if ids.min() < 0 or ids.max() >= self._vocabulary:
            raise ValueError(f"{what}: expected ids from 0 to {self._vocabulary - 1}, got {ids.max()}")

    def peak_memory(self) -> int:
        """Most bytes used so far by the worker and all it started."""
        assert self._process, "Worker: use it in a with block"
        return max(self._process.memory()[1], self._own_peak)

    def check_limits(self) -> None:
        """Raise SubmissionError if the worker, or what it started, has gone over a limit by now."""
        assert self._process, "Worker: use it in a with block"
        self._process.memory()  # makes the supervisor look
        with contextlib.suppress(TimeoutError):
            if reason := self._process.wait(0.0).reason:
                raise SubmissionError(reason)

    def _ask(
        self, message: dict[str, Any], arrays: list[NDArray[Any]], most: int
    ) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        deadline = time.monotonic() + self._answer_s
        self._send(message, arrays, deadline)
        return self._receive(most, deadline)

    def _send(
        self, message: dict[str, Any], arrays: list[NDArray[Any]], deadline: float | None = None
    ) -> None:
        assert self._process, "Worker: use it in a with block"
        with self._failures():
            frames.refuse_unasked(self._from)
            frames.write(self._to, message, arrays, deadline or time.monotonic() + self._answer_s)

    def _receive(self, most: int, deadline: float | None = None) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        with self._failures():
            answer, results = frames.read(self._from, most, deadline or time.monotonic() + self._answer_s)
        frameworks = answer.get("frameworks")
        if frameworks:
            listed = frameworks[:8] if isinstance(frameworks, list) else ["one"]
            names = ", ".join(_one_line(name)[:20] for name in listed)
            raise SubmissionError(
                f"the submission imports a foreign framework ({names}): only tinytorch is allowed"
            )
        if "error" in answer:
            raise SubmissionError(_one_line(answer["error"]))
        peak = answer.get("peak")
        if isinstance(peak, int) and not isinstance(
            peak, bool
        ):  # it can only understate; ours is the other one
            self._own_peak = max(self._own_peak, min(peak, self.limits.memory_bytes))
        return answer, results

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """What the pipe reports, in words for the student."""
        try:
            yield
        except frames.Closed:
            raise SubmissionError(self._why_it_ended()) from None
        except frames.Late:
            raise SubmissionError(f"time limit: no answer within {self._answer_s:g} s") from None
        except frames.FrameError as error:
            raise SubmissionError(f"the model sent garbage instead of an answer: {error}") from None

    def _why_it_ended(self) -> str:
        assert self._process
        with contextlib.suppress(TimeoutError):
            report = self._process.wait(5.0)
            if report.reason:
                return report.reason
            code = report.returncode
            if code is not None and (
                code < 0 or code > 128
            ):  # bubblewrap reports a signal as 128 + its number
                return f"the submission's process crashed (signal {-code if code < 0 else code - 128})"
            return f"the submission's process ended by itself (exit code {code}) instead of answering"
        return "the submission closed its connection instead of answering"

    def _drain(self, fd: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed under our hands at the end
            while part := os.read(fd, 65536):
                self._log += part[: max(0, _LOG_BYTES - len(self._log))]


def _one(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) != 1:
        raise SubmissionError(f"the model's answer holds {len(arrays)} arrays instead of one")
    return arrays[0]


def _one_line(text: Any) -> str:
    """Text from the other side, made harmless for a record: printable, one line, not long."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:500].strip() or "the submission failed"
