"""The only place where a submission's code runs: a server of predictions, inside the sandbox.

Started by client.Worker as `python -P -s worker.py SUBMISSION`, with the student's tinytorch on PYTHONPATH.
Requests come in on what was stdin, answers leave on what was stdout, as frames of protocol.py; both are moved
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
    protocol = _protocol()
    hook = _NoFrameworks()
    sys.meta_path.insert(0, hook)  # type: ignore[arg-type]
    sys.path.append(submission)
    folders = (submission, *os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.dont_write_bytecode = True
    os.chdir(submission)
    served: dict[str, Any] = {}
    protocol.write(answers, {"ready": True})  # no student code has run yet
    while True:
        try:
            message, arrays = protocol.read(requests)
        except protocol.Closed:
            return
        frames = _serve(message, arrays, served)
        while True:
            try:
                answer, results = next(frames)
            except StopIteration:
                break
            except BaseException as error:  # SystemExit and the like too: every failure is an answer
                answer, results = {"error": _explain(error, folders)}, []
            answer["frameworks"] = sorted(hook.asked)
            answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            protocol.write(answers, answer, results)


def _serve(
    message: dict[str, Any], arrays: list[Any], served: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The frames that answer one request: one, but for a streamed generation, which has one a token."""
    if message["op"] == "load":
        tinytorch = importlib.import_module("tinytorch")  # the student's own
        model = tinytorch.load(message["path"])
        model.eval()
        served.update(model=model, tensor=tinytorch.Tensor, no_grad=tinytorch.no_grad)
        sizes = [int(np.prod(np.shape(_array(p)))) for p in model.parameters()]
        yield {"parameters": sum(sizes)}, []
    elif message["op"] == "predict":
        images = arrays[0]
        if images.dtype == np.uint8:
            images = images.astype(np.float32) / np.float32(255)
        with served["no_grad"]():
            yield {}, [_plain(_array(served["model"](served["tensor"](images))))]
    elif message["op"] == "begin":
        served.update(decoder=_decoder(served, message["batch"]), started=False)
        yield {}, []
    elif message["op"] == "step":
        with served["no_grad"]():
            logits = _next(served, arrays[0][:, None] if not served["started"] else arrays[0])
        served["started"] = True
        yield {}, [_plain(logits)]
    elif message["op"] == "generate":
        yield from _generate(served, arrays[0], message["n"], message["stream"])
    else:
        raise ValueError(f"unknown request {message['op']!r}")


def _generate(
    served: dict[str, Any], prompts: Any, n: int, stream: bool
) -> Iterator[tuple[dict[str, Any], list[Any]]]:
    """The likeliest token after each text, n times: (B,) a frame where streamed, else all (B, n) in one."""
    served["decoder"] = _decoder(served, len(prompts))
    tokens: list[Any] = []
    for _ in range(n):
        with served["no_grad"]():
            logits = _next(served, tokens[-1] if tokens else prompts)
        tokens.append(np.argmax(_plain(logits), axis=-1).astype(np.int64))
        if stream:
            yield {}, [tokens[-1]]
    if not stream:
        yield {}, [np.stack(tokens, axis=1)]


def _next(served: dict[str, Any], ids: Any) -> Any:
    """Logits (B, V) after the texts `ids` (B, T), or after one more token (B,) of each."""
    decoder = served["decoder"]
    return _array(decoder.prefill(ids) if ids.ndim == 2 else decoder.step(ids))


def _decoder(served: dict[str, Any], batch: int) -> Any:
    """A decoder of so many texts at a time, empty: the model's own, tinytorch's, or the model itself."""
    if served.get("batch") == batch and hasattr(served["decoder"], "reset"):
        served["decoder"].reset()
        return served["decoder"]
    model, tinytorch = served["model"], importlib.import_module("tinytorch")
    served["batch"] = batch
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


def _protocol() -> Any:
    spec = importlib.util.spec_from_file_location(
        "_olympics_protocol", Path(__file__).with_name("protocol.py")
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    _main(sys.argv[1])
