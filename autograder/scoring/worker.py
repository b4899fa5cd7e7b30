"""The only place where a submission's code runs: a server of predictions, inside the sandbox.

Started by client.Worker as `python -P -s worker.py SUBMISSION`, with the student's tinytorch on PYTHONPATH.
Requests come in on what was stdin, answers leave on what was stdout, as frames of frames.py; both are moved
away before student code is imported, so that its prints end in the log. Nothing here is trusted: clock,
labels and limits stay outside.
"""

import contextlib
import importlib
import importlib.util
import os
import resource
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_FRAMEWORKS = ("torch", "tensorflow", "jax", "jaxlib", "keras", "mxnet", "paddle", "onnxruntime")


class _NoFrameworks:
    """An import hook that notes a foreign framework and says that there is none."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        root = name.partition(".")[0]
        if root in _FRAMEWORKS:
            self.asked.add(root)
            raise ModuleNotFoundError(
                f"{root} is not allowed in a submission: only your own tinytorch", name=name
            )


def _main(submission: str) -> None:
    requests, answers = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    frames = _frames()
    hook = _NoFrameworks()
    sys.meta_path.insert(0, hook)  # type: ignore[arg-type]
    sys.path.append(submission)
    folders = (submission, *os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.dont_write_bytecode = True
    os.chdir(submission)
    served = _Served()
    frames.write(answers, {"ready": True})  # no student code has run yet
    while True:
        try:
            message, arrays = frames.read(requests)
        except frames.Closed:
            return
        replies = _serve(message, arrays, served)
        while True:
            try:
                answer, results = next(replies)
            except StopIteration:
                break
            except BaseException as error:  # SystemExit and the like too: every failure is an answer
                answer, results = {"error": _explain(error, folders)}, []
            answer["frameworks"] = sorted(hook.asked)
            answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            frames.write(answers, answer, results)


@dataclass
class _Served:
    """The model that was loaded, and the texts that it is in the midst of."""

    model: Any = None
    tensor: Any = None  # the student's class
    no_grad: Any = None
    decoder: Any = None
    batch: int = 0  # texts of the decoder
    started: bool = False  # the texts have a first token

    def load(self, path: str) -> int:
        """Import the student's tinytorch and load a model: the count of its parameters."""
        tinytorch = importlib.import_module("tinytorch")  # the student's own
        model = tinytorch.load(path)
        model.eval()
        self.model, self.tensor, self.no_grad = model, tinytorch.Tensor, tinytorch.no_grad
        self.decoder, self.batch = None, 0
        return sum(int(np.prod(np.shape(_array(p)))) for p in model.parameters())

    def predict(self, images: Any) -> Any:
        """Logits of pictures, uint8 as stored or float32 in 0..1."""
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / np.float32(255)
        with self.no_grad():
            return _plain(_array(self.model(self.tensor(images))))

    def begin(self, batch: int) -> None:
        """Forget all text: a decoder of so many texts, empty; the model's own, tinytorch's, or the model."""
        self.started = False
        if self.batch == batch and hasattr(self.decoder, "reset"):
            self.decoder.reset()
        else:
            self.decoder, self.batch = _decoder(self.model, batch), batch

    def step(self, ids: Any) -> Any:
        """Logits (B, V) after one more token (B,) of each text."""
        with self.no_grad():
            logits = self._next(ids if self.started else ids[:, None])
        self.started = True
        return _plain(logits)

    def generate(self, prompts: Any, n: int) -> Iterator[Any]:
        """The likeliest token (B,) after each text, n times."""
        self.begin(len(prompts))
        ids = prompts
        for _ in range(n):
            with self.no_grad():
                logits = self._next(ids)
            ids = np.argmax(_plain(logits), axis=-1).astype(np.int64)
            yield ids

    def _next(self, ids: Any) -> Any:
        """Logits (B, V) after the texts `ids` (B, T), or after one more token (B,) of each."""
        return _array(self.decoder.prefill(ids) if ids.ndim == 2 else self.decoder.step(ids))


def _serve(
    message: dict[str, Any], arrays: list[Any], served: _Served
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The frames that answer one request: one, but for a streamed generation, which has one a token."""
    if message["op"] == "load":
        yield {"parameters": served.load(message["path"])}, []
    elif message["op"] == "predict":
        yield {}, [served.predict(arrays[0])]
    elif message["op"] == "begin":
        served.begin(message["batch"])
        yield {}, []
    elif message["op"] == "step":
        yield {}, [served.step(arrays[0])]
    elif message["op"] == "generate":
        yield from _generate(served, arrays[0], message["n"], message["stream"])
    else:
        raise ValueError(f"unknown request {message['op']!r}")


def _generate(
    served: _Served, prompts: Any, n: int, stream: bool
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The likeliest token after each text, n times: (B,) a frame where streamed, else all (B, n) in one."""
    tokens = served.generate(prompts, n)
    if stream:
        yield from (({}, [ids]) for ids in tokens)
    else:
        yield {}, [np.stack(list(tokens), axis=1)]


def _decoder(model: Any, batch: int) -> Any:
    """What decodes so many texts at a time: the model's own decoder, tinytorch's, or the model itself."""
    tinytorch = importlib.import_module("tinytorch")
    if hasattr(model, "decoder"):
        return model.decoder(batch)
    if hasattr(tinytorch, "Decoder"):
        try:
            return tinytorch.Decoder(model, batch)
        except Exception as error:  # it is made for one kind of model, and there are others
            print(f"tinytorch.Decoder does not take this model ({error}): decoding without a cache")
    return _Uncached(model, batch)


class _Uncached:
    """The model itself, which reads the whole text anew for every token: works for every language model."""

    def __init__(self, model: Any, batch: int) -> None:
        self.model, self.ids = model, np.zeros((batch, 0), np.int64)

    def prefill(self, ids: Any) -> Any:
        self.ids = ids
        return self._logits()

    def step(self, ids: Any) -> Any:
        self.ids = np.concatenate([self.ids, ids[:, None]], axis=1)
        return self._logits()

    def _logits(self) -> Any:
        context = getattr(self.model, "context", None)
        seen = self.ids[:, -context:] if isinstance(context, int) else self.ids
        return _array(self.model(seen))[:, -1]


def _array(value: Any) -> Any:
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def _plain(array: Any) -> Any:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"the model returned {kind} instead of numbers")
    return np.ascontiguousarray(array, dtype=np.float64 if array.dtype == np.float64 else np.float32)


def _explain(error: BaseException, folders: tuple[str, ...]) -> str:
    """One line: where in the student's files it happened, and what."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        for folder in folders:
            if frame.filename.startswith(folder.rstrip("/") + "/"):
                place = f"{os.path.relpath(frame.filename, folder)} line {frame.lineno}: "
    text = ""
    with contextlib.suppress(BaseException):  # str() of an exception is student code, too
        text = " ".join(str(error).split())[:400]
    return f"{place}{type(error).__name__}" + (f": {text}" if text else "")


def _frames() -> Any:
    """The module of the frames, by its path: nothing of ours can be imported here."""
    path = Path(__file__).parents[1] / "frames.py"
    spec = importlib.util.spec_from_file_location("_olympics_frames", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _main(sys.argv[1])
