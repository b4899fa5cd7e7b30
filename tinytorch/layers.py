"""Modules: functions with parameters, and the files that keep them.

Built by tito from lesson 03_layers: change the lesson, not this file.
"""

import ast
import importlib.util
import json
import math
import os
import pickletools
import sys
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import tinytorch
from tinytorch.tensor import Tensor, default_rng

__all__ = [
    "set_caller",
    "Module",
    "uniform",
    "Linear",
    "Dropout",
    "Flatten",
    "Sequential",
    "describe_model",
    "build_model",
    "write_atomically",
    "save",
    "load",
]

_caller = None


def set_caller(call):
    """Lesson 14 plugs in here: `call(module, args, kwargs)` runs every module and returns its result.

    None, as at the start, calls `forward` directly. Returns the caller before, to put it back.
    """
    global _caller
    before, _caller = _caller, call
    return before


class Module:
    """A function with parameters: a subclass makes its parts in `__init__` and computes in `forward`.

    Among the attributes, tensors with `requires_grad` are parameters, other tensors are buffers, modules are
    children; lists and tuples of them are looked into. All are found by name, in the order of assignment.
    `training` says whether the module is being trained; `train` and `eval` set it.
    """

    training = True

    def __new__(cls, *args, **kwargs):
        module = super().__new__(cls)
        module._arguments = (args, kwargs)  # how to build it again: `save` writes this to the file
        return module

    def forward(self, x):
        """Compute the result; every subclass writes its own. Raises NotImplementedError here."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method: write one")

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs) if _caller is None else _caller(self, args, kwargs)

    def _attributes(self):
        """Names and values of all attributes; an entry i of a list `name` is called `name.i`."""
        for name, value in vars(self).items():
            if name == "_arguments":
                continue
            if isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", entry) for i, entry in enumerate(value))
            else:
                yield name, value

    def __repr__(self):
        parts = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        return "\n".join([f"{type(self).__name__}(", *parts, ")"]) if parts else f"{type(self).__name__}()"

    def named_children(self):
        """Yield (name, module) for every module directly inside this one, in the order of assignment."""
        for name, value in self._attributes():
            if isinstance(value, Module):
                yield name, value

    def modules(self):
        """Yield this module and all modules inside it, parents before children."""
        yield self
        for _, child in self.named_children():
            yield from child.modules()

    def named_tensors(self, prefix=""):
        """Yield (name, tensor) for every parameter and buffer: own ones first, then those of the children.

        `prefix` is put before every name; a child's names get the child's name and a dot.
        """
        for name, value in self._attributes():
            if isinstance(value, Tensor):
                yield prefix + name, value
        for name, child in self.named_children():
            yield from child.named_tensors(f"{prefix}{name}.")

    def named_parameters(self):
        """Yield (name, parameter); a tensor that has several names comes once, under its first."""
        seen = set()
        for name, t in self.named_tensors():
            if t.requires_grad and id(t) not in seen:
                seen.add(id(t))
                yield name, t

    def parameters(self):
        """The list of tensors that an optimizer changes."""
        return [t for _, t in self.named_parameters()]

    def zero_grad(self):
        """Forget all gradients, before the next ones are computed."""
        for p in self.parameters():
            p.grad = None

    def state_dict(self):
        """Every parameter and buffer as an array, by name. The arrays are the module's own, not copies."""
        return {name: t.data for name, t in self.named_tensors()}

    def load_state_dict(self, state):
        """Copy the arrays of `state`, by name, into this module's parameters and buffers.

        Raises KeyError where the names differ, with the lists of missing and unexpected ones, and ValueError
        where a shape differs; the module is then unchanged.
        """
        own = dict(self.named_tensors())
        missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or unknown:
            raise KeyError(f"load_state_dict: missing {missing}, not expected {unknown}")
        for name, t in own.items():
            if t.shape != np.shape(state[name]):
                raise ValueError(f"load_state_dict: {name} has shape {t.shape}, got {np.shape(state[name])}")
        for name, t in own.items():
            t.data = np.array(state[name], dtype=t.dtype)

    def train(self, mode=True):
        """Set `training` to `mode` on this module and all modules inside it; returns this module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self):
        """Switch to evaluation: the same as `train(False)`."""
        return self.train(False)


def uniform(bound, *shape):
    """A parameter of this shape, drawn uniformly from ±bound with the package's generator."""
    return Tensor(default_rng().uniform(-bound, bound, shape), requires_grad=True)


class Linear(Module):
    """y = x Wᵀ + b.

    Shapes: x (..., B, in_features), weight (out_features, in_features), y (..., B, out_features).
    Weight and bias start uniform in ±1/sqrt(in_features), as in PyTorch. Raises ValueError for sizes that are
    not whole numbers above zero.
    """

    def __init__(self, in_features, out_features, bias=True):
        """Make `self.weight` and `self.bias`, in this order; `self.bias` is None without one."""
        for size in (in_features, out_features):
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(
                    f"Linear: expected whole numbers above 0 as sizes, got {in_features}, {out_features}"
                )
        bound = 1 / math.sqrt(in_features)
        self.weight = uniform(bound, out_features, in_features)
        self.bias = uniform(bound, out_features) if bias else None

    def __repr__(self):
        return f"Linear({self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None})"

    def forward(self, x):
        """x (..., B, in_features) -> (..., B, out_features). Raises ValueError for any other shape of x."""
        in_features = self.weight.shape[1]
        if x.ndim < 2 or x.shape[-1] != in_features:
            raise ValueError(f"Linear: expected an input of shape (..., B, {in_features}), got {x.shape}")
        lead, x = x.shape[:-1], x.reshape(-1, in_features)  # one large product, not one for each matrix
        y = x @ self.weight.T
        y = y if self.bias is None else y + self.bias
        return y.reshape(*lead, self.weight.shape[0])


class Dropout(Module):
    """While training, zero each element with probability `p` and scale the rest by 1 / (1 - p).

    Raises ValueError for a `p` outside [0, 1).
    """

    def __init__(self, p=0.5):
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: expected a probability in [0, 1), got {p}")
        self.p = p

    def forward(self, x):
        """x of any shape -> the same shape; x itself in evaluation mode or with p = 0."""
        if not self.training or self.p == 0:
            return x
        keep = default_rng().random(x.shape, np.float32) >= self.p
        return x * (keep.astype(x.dtype) / (1 - self.p))

    def __repr__(self):
        return f"Dropout({self.p})"


class Flatten(Module):
    """(N, ...) -> (N, product of the rest)."""

    def forward(self, x):
        """Keep the first dimension and join all others; N may be 0."""
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Sequential(Module):
    """Modules and activations, one after the other: `Sequential(Linear(4, 8), ReLU(), Linear(8, 2))`."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        """What the last layer returns, when each gets the result of the one before."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self):
        return len(self.layers)

    def __getitem__(self, i):
        return self.layers[i]

    def __repr__(self):
        rows = [f"  ({i}): " + repr(layer).replace("\n", "\n  ") for i, layer in enumerate(self.layers)]
        return "\n".join(["Sequential(", *rows, ")"])


def _is_layer(found):
    """Whether `found` is a class that a model file may name: a Module or an activation of the package."""
    return isinstance(found, type) and (
        issubclass(found, Module) or found.__module__ == "tinytorch.activations"
    )


def _arguments_of(layer):
    """The (args, kwargs) that build `layer` again; an activation keeps its arguments as attributes."""
    return layer._arguments if isinstance(layer, Module) else ((), vars(layer))


def describe_model(value):
    """`value` as JSON can hold it: a layer as its class, args and kwargs, the same for all that is inside.

    A tuple becomes {"tuple": [...]}. Raises TypeError for anything but layers, numbers, text, None, lists and
    tuples.
    """
    if _is_layer(type(value)):
        args, kwargs = _arguments_of(value)
        kwargs = {name: describe_model(v) for name, v in kwargs.items()}
        return {"class": type(value).__name__, "args": [describe_model(a) for a in args], "kwargs": kwargs}
    if isinstance(value, tuple):
        return {"tuple": [describe_model(v) for v in value]}
    if isinstance(value, list):
        return [describe_model(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"save: {type(value).__name__} is an argument of a layer, but a file holds only numbers, text, lists "
        "and layers; write a Module, or use one such as ReLU()"
    )


def build_model(description, find_class):
    """What `describe_model` described, built again; `find_class` turns the name of a class into the class."""
    if isinstance(description, list):
        return [build_model(entry, find_class) for entry in description]
    if not isinstance(description, dict):
        return description
    if "tuple" in description:
        return tuple(build_model(description["tuple"], find_class))
    args = [build_model(entry, find_class) for entry in description["args"]]
    kwargs = {name: build_model(entry, find_class) for name, entry in description["kwargs"].items()}
    return find_class(description["class"])(*args, **kwargs)


def write_atomically(path, write):
    """Call `write(temporary)` with a name beside `path`, then rename that file to `path` (both are Paths).

    If `write` raises, the error goes on, `path` is as it was, and no other file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(model, path, dtype=None):
    """Write `model` to one safetensors file: its weights, and how to build it as JSON in the metadata.

    `dtype` ("float16", "float32", "float64") is how floats are stored; `load` turns them back. The file is
    written beside `path` and renamed, so that a crash leaves the old one whole. Its name may end in .pt;
    nothing is ever pickled. A layer that is an argument twice becomes two layers. Raises TypeError for a
    model that a file cannot describe, ValueError for numbers that do not fit `dtype`, FileNotFoundError
    without the folder.
    """
    path = Path(path)
    if not isinstance(model, Module):
        raise TypeError(f"save: expected a Module, got {type(model).__name__}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"save: no folder {path.parent}; make it first")
    notes = {"tinytorch": json.dumps({"format": 1, "architecture": describe_model(model)})}
    arrays = {name: _for_file(name, a, dtype) for name, a in model.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(arrays, temporary, notes))


def _for_file(name, array, dtype):
    """`array` in one piece, floats as `dtype`."""
    if dtype is None or array.dtype.kind != "f":
        return np.asarray(array, order="C")
    if np.dtype(dtype).name not in ("float16", "float32", "float64"):
        raise ValueError(f"save: expected dtype float16, float32 or float64, got {dtype}")
    with np.errstate(over="ignore"):
        stored = np.asarray(array, dtype=dtype, order="C")
    if np.isfinite(array).all() and not np.isfinite(stored).all():
        raise ValueError(f"save: {name} holds {np.abs(array).max():g}, more than {dtype} can; use float32")
    return stored


def load(path, classes=()):
    """Build the model that `save` wrote to `path` and give it its weights; it comes back in training mode.

    A class of your own is looked for in `classes`, in the running notebook, and in network.py beside the
    file, which is run only if it defines a class that the model needs. Nothing else in a file can make code
    run. Raises FileNotFoundError, and ValueError for a pickle, a damaged or foreign file, or a class that is
    no layer; KeyError where the weights are not those of the model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"load: no file {path}; expected one that tinytorch.save wrote")
    description, state = _read(path)
    model = build_model(description, _ClassFinder(path, classes))
    if not isinstance(model, Module):
        raise ValueError(
            f"load: {path} describes a {type(model).__name__}, no Module; save the whole model again"
        )
    model.load_state_dict(state)
    return model


def _read(path):
    """The architecture and the arrays of a file."""
    try:
        with safe_open(path, framework="numpy") as file:
            note = (file.metadata() or {}).get("tinytorch")
            if note is None:
                raise ValueError(
                    f"load: {path} holds weights but no architecture; write it with tinytorch.save"
                )
            description = _parse_note(path, note)
            names = file.keys()
            return description, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, TypeError) as error:  # TypeError: a number format that NumPy does not have
        if _is_pickle(path.read_bytes()):
            raise ValueError(
                f"load: {path} is a pickle, which can run any code when read; write it with tinytorch.save"
            ) from None
        raise ValueError(f"load: {path} is damaged or not a safetensors file ({error})") from None


def _is_pickle(data):
    """Whether `data` is a torch.save archive or a pickle of any protocol; reads the opcodes and runs none."""
    if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] <= b"\x05"):
        return True
    try:
        return bool(list(pickletools.genops(data)))
    except (ValueError, OverflowError, IndexError):
        return False


def _parse_note(path, note):
    """The architecture in the file's note, checked to be of the form that `describe_model` gives."""
    try:
        content = json.loads(note)
        version, description = content["format"], content["architecture"]
        sound = _is_description(description)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"load: the architecture in {path} is damaged; save the model again") from None
    if version != 1:
        raise ValueError(f"load: {path} has format {version}, this tinytorch reads 1; use a newer one")
    if not sound:
        raise ValueError(
            f"load: the architecture in {path} is not one of tinytorch.save; save the model again"
        )
    return description


def _is_description(value):
    if isinstance(value, list):
        return all(_is_description(v) for v in value)
    if not isinstance(value, dict):
        return True
    types = {name: type(v) for name, v in value.items()}
    if types == {"tuple": list}:
        return _is_description(value["tuple"])
    if types != {"class": str, "args": list, "kwargs": dict}:
        return False
    return _is_description(value["args"]) and all(_is_description(v) for v in value["kwargs"].values())


class _ClassFinder:
    """Finds the layer classes that a file names; runs the network.py beside it at most once."""

    def __init__(self, path, classes):
        self.path, self.classes, self.network = path, {cls.__name__: cls for cls in classes}, None
        self.file = path.parent / "network.py"

    def __call__(self, name):
        for place in (self._given, self._in_notebook, self._in_file, self._in_package):
            found = place(name)
            if _is_layer(found):
                return found
        raise ValueError(
            f"load: {self.path} names a class {name!r}, but no layer of this name is in tinytorch, the "
            f"running program or {self.file}; define it there as a Module, or hand it in as classes=[...]"
        )

    def _given(self, name):
        return self.classes.get(name)

    def _in_notebook(self, name):
        return vars(sys.modules["__main__"]).get(name)

    def _in_file(self, name):
        if self.network is None:
            if not self.file.is_file() or not _defines(self.file, name):
                return None
            spec = importlib.util.spec_from_file_location("network", self.file)
            self.network = importlib.util.module_from_spec(spec)
            sys.modules["network"] = self.network
            spec.loader.exec_module(self.network)
        return vars(self.network).get(name)

    def _in_package(self, name):
        return getattr(tinytorch, name, None)


def _defines(file, name):
    """Whether the Python file defines a class of this name; the file is read, not run."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file)))
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in nodes)
