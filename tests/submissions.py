"""A stand-in for a student's submission: a linear model that knows ten patterns, and pictures of them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from autograder.data.datasets import Split

TINYTORCH = '''"""A stand-in for a student's package: just enough for the worker."""

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


class Tensor:
    """An array."""

    def __init__(self, data):
        self.data = np.asarray(data)

    def numpy(self):
        """The array itself."""
        return self.data


@contextlib.contextmanager
def no_grad():
    """There are no gradients here."""
    yield


class Model:
    """Logits by one matrix."""

    def __init__(self, weight):
        self.weight = Tensor(weight)

    def parameters(self):
        """One matrix."""
        return [self.weight]

    def eval(self):
        """Nothing to switch."""
        return self

    def logits(self, x):
        """Inner products with the ten patterns."""
        x = x.data.reshape(len(x.data), -1)
        return (x - x.mean(axis=1, keepdims=True)) @ self.weight.data

    def __call__(self, x):
        return Tensor(self.logits(x))


def load(path):
    """The student's own Model from network.py where there is one, and the file's weights."""
    network = Path(path).parent / "network.py"
    model = Model
    if network.is_file():
        spec = importlib.util.spec_from_file_location("network", network)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = getattr(module, "Model", Model)
    return model(load_file(path)["weight"])
'''


def pictures(n: int = 120, seed: int = 0) -> Split:
    """n pictures of ten smooth patterns with noise; the stand-in gets nearly all of them right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n).astype(np.uint8)
    noise = rng.normal(0, 20, (n, 3, 32, 32))
    images = np.clip(128 + 60 * _patterns()[labels] + noise, 0, 255).astype(np.uint8)
    return Split(images, labels, "digits", "private", tuple("0123456789"))


def submission(folder: Path, network: str = "") -> Path:
    """A valid submission in `folder`; network: the source of its network.py."""
    (folder / "tinytorch").mkdir(parents=True)
    (folder / "tinytorch" / "__init__.py").write_text(TINYTORCH)
    save_model(folder, _patterns().reshape(10, -1).T.astype(np.float32).copy(), "Linear", 3072, 10)
    (folder / "training.json").write_text(json.dumps({"seconds": 12.0, "epochs": 1, "history": []}))
    if network:
        (folder / "network.py").write_text(network)
    return folder


def save_model(folder: Path, weight: np.ndarray, layer: str, *args: int) -> None:
    """The model file, with its architecture as tinytorch.save writes it: one layer."""
    architecture = {"class": layer, "args": list(args), "kwargs": {}}
    note = {"tinytorch": json.dumps({"format": 1, "architecture": architecture})}
    save_file({"weight": weight}, folder / "model.safetensors", note)


def _patterns() -> np.ndarray:
    rng = np.random.default_rng(7)
    coarse = rng.choice([-1.0, 1.0], (10, 3, 4, 4))
    return coarse.repeat(8, axis=2).repeat(8, axis=3)
