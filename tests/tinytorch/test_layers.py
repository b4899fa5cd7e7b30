"""tinytorch.layers: finding parameters, the layers against PyTorch, and files that cannot do harm."""

import json
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from tests.helpers import check_op
from tinytorch.activations import GELU, ReLU, Softmax, relu
from tinytorch.layers import (
    Dropout,
    Flatten,
    Linear,
    Module,
    Sequential,
    build_model,
    describe_model,
    load,
    save,
    write_atomically,
)
from tinytorch.tensor import Tensor, apply, manual_seed


class Net(Module):
    """Every kind of attribute."""

    def __init__(self, width=4, activation=None):
        self.mean = Tensor(np.arange(2.0))
        self.scale = Tensor(3.0, requires_grad=True)  # no dimensions: its shape must survive a file
        self.blocks = [Linear(2, width), Sequential(Linear(width, width), activation or ReLU())]
        self.tied = self.blocks[0].weight
        self.rate, self.name = 0.5, "net"

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x * self.scale


NAMES = ["mean", "scale", "tied", "blocks.0.weight", "blocks.0.bias"]
NAMES += ["blocks.1.layers.0.weight", "blocks.1.layers.0.bias"]


# ---- Module


def test_names_in_order_of_assignment():
    assert [name for name, _ in Net().named_tensors()] == NAMES


def test_parameters_leave_out_buffers_and_list_shared_tensors_once():
    names = [name for name, _ in Net().named_parameters()]
    assert names == ["scale", "tied", *NAMES[4:]]
    assert len(Net().parameters()) == 5


def test_modules_children_and_repr():
    net = Net()
    assert [type(m).__name__ for m in net.modules()] == ["Net", "Linear", "Sequential", "Linear"]
    assert [name for name, _ in net.named_children()] == ["blocks.0", "blocks.1"]
    assert "  (blocks.1): Sequential(\n    (0): Linear(4, 4, bias=True)\n    (1): ReLU()" in repr(net)
    assert repr(Flatten()) == "Flatten()" and len(net.blocks[1]) == 2 and isinstance(net.blocks[1][1], ReLU)


def test_tensors_in_lists_are_found():
    module = Module()
    module.weights = [Tensor([1.0], requires_grad=True), Tensor([2.0])]
    assert list(module.state_dict()) == ["weights.0", "weights.1"] and len(module.parameters()) == 1


def test_train_and_eval_reach_every_module_and_only_this_tree():
    net = Net()
    assert net.eval() is net and not any(m.training for m in net.modules())
    assert Net().training and all(m.training for m in net.train().modules())


def test_zero_grad():
    net = Net()
    net(Tensor(np.ones((3, 2)))).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_state_comes_back_and_is_copied():
    one, two = Net(), Net()
    state = {name: a.astype(np.float64) for name, a in one.state_dict().items()}
    kept = two.scale
    two.load_state_dict(state)
    state["mean"][...] = 7
    assert two.scale is kept and all(a.dtype == np.float32 for a in two.state_dict().values())
    for name, a in one.state_dict().items():
        np.testing.assert_array_equal(a, two.state_dict()[name])


def test_state_errors_name_what_is_wrong_and_change_nothing():
    net = Net()
    state = {name: a + 1 for name, a in net.state_dict().items()}
    before = net.mean.numpy().copy()
    with pytest.raises(KeyError, match=r"missing \['mean'\], not expected \['median'\]"):
        net.load_state_dict({"median": state["mean"], **{k: v for k, v in state.items() if k != "mean"}})
    with pytest.raises(ValueError, match=r"blocks.0.bias has shape \(4,\), got \(5,\)"):
        net.load_state_dict({**state, "blocks.0.bias": np.zeros(5)})
    np.testing.assert_array_equal(net.mean.numpy(), before)


def test_forward_is_asked_for():
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        Module()(Tensor([1.0]))


# ---- layers


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), *[st.integers(1, 5)] * 2, st.booleans())
def test_linear_against_a_sum(lead, n, m, bias):
    layer = Linear(n, m, bias=bias)
    w, b = layer.weight.numpy().astype(np.float64), layer.bias.numpy() if bias else 0.0
    check_op(layer, lambda x: np.einsum("...n,mn->...m", x, w) + b, [(*lead, n)])


def test_linear_gradients_of_weight_and_bias():
    x = np.random.default_rng(0).standard_normal((5, 3))

    def linear(w, b):
        layer = Linear(3, 2)
        layer.weight, layer.bias = w, b
        return layer(Tensor(x, dtype=w.dtype))

    check_op(linear, lambda w, b: x @ w.T + b, [(2, 3), (2,)])


def test_linear_starts_like_pytorch():
    torch = pytest.importorskip("torch")
    manual_seed(0)
    ours, theirs = Linear(100, 400), torch.nn.Linear(100, 400)
    for name, p in theirs.named_parameters():
        a = ours.state_dict()[name]
        assert a.shape == tuple(p.shape) and np.abs(a).max() <= 0.1
        assert a.std() == pytest.approx(float(p.detach().std()), rel=0.15)
    manual_seed(0)
    np.testing.assert_array_equal(Linear(100, 400).weight.numpy(), ours.weight.numpy())


def test_network_agrees_with_pytorch():
    torch = pytest.importorskip("torch")
    net = Sequential(Flatten(), Linear(12, 8), GELU(), Linear(8, 5))
    layers = [torch.nn.Linear(12, 8), torch.nn.GELU(approximate="tanh"), torch.nn.Linear(8, 5)]
    twin = torch.nn.Sequential(torch.nn.Flatten(), *layers)
    state = {name.removeprefix("layers."): torch.tensor(a) for name, a in net.state_dict().items()}
    twin.load_state_dict(state)
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32)
    y, z = net(Tensor(x)), twin(torch.tensor(x))
    (y * y).sum().backward()
    (z * z).sum().backward()
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-5)
    for (_, p), q in zip(net.named_parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(0, 3), (3, -1), (2.5, 3), ("3", 3)])
def test_linear_refuses_sizes(sizes):
    with pytest.raises(ValueError, match=f"above 0 as sizes, got {sizes[0]}, {sizes[1]}"):
        Linear(*sizes)


@pytest.mark.parametrize("shape", [(5, 4), (3,), ()])
def test_linear_refuses_inputs(shape):
    with pytest.raises(ValueError, match=r"shape \(..., B, 3\), got " + str(shape).replace("(", r"\(")[:-1]):
        Linear(3, 2)(Tensor(np.zeros(shape)))


def test_dropout_zeros_scales_and_rests():
    manual_seed(0)
    x, layer = Tensor(np.full((300, 200), 2.0)), Dropout(0.25)
    y = layer(x).numpy()
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(y[y != 0], 2 / 0.75, rtol=1e-6)
    assert layer.eval()(x) is x and Dropout(0)(x) is x
    manual_seed(0)
    np.testing.assert_array_equal(Dropout(0.25)(x).numpy(), y)


def test_dropout_gradient_passes_where_the_number_stayed():
    x = Tensor(np.ones((50, 50)), requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert Dropout(0.5)(Tensor([1.0], dtype=np.float64)).dtype == np.float64


@pytest.mark.parametrize("p", [-0.1, 1, 1.5, float("nan")])
def test_dropout_refuses_probabilities(p):
    with pytest.raises(ValueError, match=rf"in \[0, 1\), got {p}"):
        Dropout(p)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 1), (0, 3, 2), (4,)])
def test_flatten(shape):
    rows = int(np.prod(shape[1:]))
    check_op(Flatten(), lambda x: x.reshape(shape[0], rows), [shape], gradients=0 not in shape)


def test_flatten_of_channels_last_memory():
    x = np.arange(24.0).reshape(1, 2, 3, 4).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(Flatten()(Tensor(x)).numpy(), x.reshape(1, -1))


# ---- files


def note(architecture, version=1):
    return {"tinytorch": json.dumps({"format": version, "architecture": architecture})}


def layer(name, *args, **kwargs):
    return {"class": name, "args": list(args), "kwargs": kwargs}


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "no ending"])
def test_a_model_comes_back(tmp_path, name):
    net = Net(width=np.int64(6), activation=Softmax(dim=1))
    save(net, tmp_path / name)
    back = load(tmp_path / name, classes=[Net])
    x = Tensor(np.random.default_rng(0).standard_normal((3, 2)))
    np.testing.assert_array_equal(back(x).numpy(), net(x).numpy())
    assert back.training and back.scale.shape == () and back.blocks[1][1].dim == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_paths_as_text(tmp_path):
    save(Linear(2, 3), str(tmp_path / "m"))
    assert load(str(tmp_path / "m")).weight.shape == (3, 2)


def test_half_the_bytes_and_small_errors(tmp_path):
    net = Linear(100, 100)
    for dtype in ("float32", "float16", np.float16):
        save(net, tmp_path / f"{np.dtype(dtype)}", dtype=dtype)
    sizes = [(tmp_path / d).stat().st_size for d in ("float32", "float16")]
    assert sizes[0] - sizes[1] == 2 * 10100 + (sizes[0] - sizes[1]) % 64 - (2 * 10100) % 64
    back = load(tmp_path / "float16")
    assert back.weight.dtype == np.float32
    np.testing.assert_array_equal(back.weight.numpy(), net.weight.numpy().astype(np.float16))


def test_numbers_that_do_not_fit_are_refused(tmp_path):
    net = Linear(2, 2)
    net.bias.data = np.array([1e6, 0], np.float32)
    with pytest.raises(ValueError, match=r"bias holds 1e\+06, more than float16 can"):
        save(net, tmp_path / "m", dtype="float16")
    with pytest.raises(ValueError, match="expected dtype float16, float32 or float64, got int8"):
        save(net, tmp_path / "m", dtype="int8")
    assert not list(tmp_path.iterdir())


def test_values_of_every_kind_come_back_as_they_were():
    value = [1, 2.5, "a", None, True, (3, (4,)), [5], Linear(2, 3, bias=False), Softmax(dim=1), ReLU()]
    description = json.loads(json.dumps(describe_model(value)))
    classes = {"Linear": Linear, "Softmax": Softmax, "ReLU": ReLU}
    back = build_model(description, classes.__getitem__)
    assert back[:7] == value[:7] and [repr(v) for v in back[7:]] == [repr(v) for v in value[7:]]
    assert describe_model([np.float32(0.5), np.bool_(True)]) == [0.5, True]


@pytest.mark.parametrize("argument", [relu, lambda x: x, {"a": 1}, Tensor([1.0]), np.zeros(2), 1j, Path()])
def test_arguments_that_a_file_cannot_hold(tmp_path, argument):
    with pytest.raises(TypeError, match=f"save: {type(argument).__name__} is an argument of a layer"):
        save(Sequential(argument), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_save_refuses_what_is_no_module_and_a_missing_folder(tmp_path):
    with pytest.raises(TypeError, match="expected a Module, got int"):
        save(3, tmp_path / "m")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; make it first"):
        save(Linear(2, 2), tmp_path / "nowhere" / "m")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    def half(file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "m").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(tmp_path / "m", half)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m", b"old")]


# ---- files that others made


class Harm:
    """What a pickle can do: unpickling it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def torch_archive(path, harm):
    """The layout of a real torch.save file: a zip, not compressed, with data.pkl first."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(harm, protocol=2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", struct.pack("<2f", 1, 2))
        archive.writestr("archive/version", "3\n")


def old_torch_file(harm):
    """torch.save before 1.6: a magic number, a version, system facts and the object, pickle after pickle."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, harm]
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def test_torch_files_are_refused(tmp_path):
    torch_archive(tmp_path / "new.pt", Harm(tmp_path / "harm"))
    (tmp_path / "old.pt").write_bytes(old_torch_file(Harm(tmp_path / "harm")))
    for name in ("new.pt", "old.pt"):
        with pytest.raises(ValueError, match=f"{name} is a pickle.*write it with tinytorch.save"):
            load(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("content", ["harm", "state", "number", "text"])
def test_pickles_of_every_protocol_are_refused(tmp_path, protocol, content):
    state = {"weight": np.ones(3), "note": "{" * 20}
    values = {"harm": Harm(tmp_path / "harm"), "state": state, "number": 5, "text": "{{{{{{{{{{"}
    (tmp_path / "m.pt").write_bytes(pickle.dumps(values[content], protocol=protocol))
    with pytest.raises(ValueError, match="m.pt is a pickle"):
        load(tmp_path / "m.pt")
    assert not (tmp_path / "harm").exists()


def test_truncated_files_are_refused(tmp_path):
    save(Linear(3, 2), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in (0, 1, 7, 8, 9, 50, len(data) - 30, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(ValueError, match="cut is damaged or not a safetensors file"):
            load(tmp_path / "cut")


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 100, b"Hello, this is text.", b"{}", bytes(64)]
)
def test_foreign_files_are_refused(tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load(tmp_path / "m")


def test_a_number_format_without_numpy_is_refused(tmp_path):
    array = {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]}
    header = json.dumps({"__metadata__": note(layer("Linear", 1, 1)), "w": array}).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises((ValueError, KeyError), match="load"):
        load(tmp_path / "m")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="load: no file"):
            load(path)


def test_weights_alone_are_refused(tmp_path):
    save_file({"w": np.ones(3)}, tmp_path / "m")
    with pytest.raises(ValueError, match="holds weights but no architecture"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": 1}', '{"format": 1, "architecture": ' + "[" * 100000]
)
def test_damaged_notes_are_refused(tmp_path, text):
    save_file({}, tmp_path / "m", {"tinytorch": text})
    with pytest.raises(ValueError, match="architecture in .* is damaged"):
        load(tmp_path / "m")


@pytest.mark.parametrize(
    "architecture",
    [
        {"class": "Linear"},
        {"class": 3, "args": [], "kwargs": {}},
        {"class": "Linear", "args": {}, "kwargs": {}},
        {"class": "Linear", "args": [2, 3], "kwargs": {}, "more": 1},
        layer("Sequential", {"tuple": 3}),
        layer("Sequential", x={"__import__": []}),
    ],
)
def test_strange_architectures_are_refused(tmp_path, architecture):
    save_file({}, tmp_path / "m", note(architecture))
    with pytest.raises(ValueError, match="not one of tinytorch.save"):
        load(tmp_path / "m")


@pytest.mark.parametrize("architecture", [3, None, [], "Linear", layer("ReLU")])
def test_only_a_module_is_a_model(tmp_path, architecture):
    save_file({}, tmp_path / "m", note(architecture))
    with pytest.raises(ValueError, match="no Module"):
        load(tmp_path / "m")


def test_newer_format_and_other_weights(tmp_path):
    save_file({}, tmp_path / "m", note(layer("Flatten"), version=2))
    with pytest.raises(ValueError, match="has format 2, this tinytorch reads 1"):
        load(tmp_path / "m")
    save_file({"w": np.ones(1)}, tmp_path / "m", note(layer("Flatten")))
    with pytest.raises(KeyError, match=r"not expected \['w'\]"):
        load(tmp_path / "m")


NO_LAYERS = ["exec", "eval", "Path", "open", "Tensor", "relu", "os", "tensor", "layers", "Popen", "__class__"]


@pytest.mark.parametrize("name", NO_LAYERS)
@pytest.mark.parametrize("inside", [False, True])
def test_only_layer_classes_are_called(tmp_path, monkeypatch, name, inside):
    for known in ("Path", "Popen", "exec", "open"):
        monkeypatch.setattr(sys.modules["__main__"], known, lambda *a: pytest.fail("called"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "Path", Path)
    wanted = layer(name, f"open({str(tmp_path / 'harm')!r}, 'w')")
    save_file({}, tmp_path / "m", note(layer("Sequential", wanted) if inside else wanted))
    with pytest.raises(ValueError, match=f"names a class '{name}', but no layer of this name"):
        load(tmp_path / "m")
    assert not (tmp_path / "harm").exists()


def test_handed_in_classes_are_checked_too(tmp_path):
    save_file({}, tmp_path / "m", note(layer("Path")))
    with pytest.raises(ValueError, match="no layer of this name"):
        load(tmp_path / "m", classes=[Path])


NETWORK = """
from tinytorch import Linear, Module
(__import__("pathlib").Path(__file__).parent / "ran").open("a").write("x")
class Block(Module):
    def __init__(self, n):
        self.linear = Linear(n, n)
    def forward(self, x):
        return self.linear(x)
class Pair(Module):
    def __init__(self, block):
        assert isinstance(block, Block)
        self.block = block
class Dropout(Module):
    pass
def Function(x): return x
"""


def test_own_classes_come_from_network_py(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    state = {"block.linear.weight": np.eye(2), "block.linear.bias": np.ones(2)}
    save_file(state, tmp_path / "m", note(layer("Pair", layer("Block", 2))))
    model = load(tmp_path / "m")
    assert type(model).__name__ == "Pair" and (tmp_path / "ran").read_text() == "x", "expected one run"
    np.testing.assert_array_equal(model.block(Tensor([[1.0, 2.0]])).numpy(), [[2, 3]])


def test_own_class_goes_before_the_package(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    save_file({}, tmp_path / "m", note(layer("Dropout")))
    assert type(load(tmp_path / "m")).__module__ == "network"


def test_network_py_is_not_run_without_need(tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    save(Sequential(Linear(2, 2), ReLU()), tmp_path / "m")
    load(tmp_path / "m")
    save_file({}, tmp_path / "m", note(layer("Function", 3)))
    with pytest.raises(ValueError, match="no layer of this name"):
        load(tmp_path / "m")
    assert not (tmp_path / "ran").exists()


def test_a_class_of_the_running_program_is_found(tmp_path, monkeypatch):
    save(Net(), tmp_path / "m")
    with pytest.raises(ValueError, match="'Net', but no layer of this name.*network.py"):
        load(tmp_path / "m")
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    assert isinstance(load(tmp_path / "m"), Net)


def test_apply_is_the_only_seam():
    """Linear goes through matmul and add of the package, so lesson 05 can record it."""
    y = Linear(2, 3)(Tensor([[1.0, 2.0]]))
    assert y.requires_grad and apply(np.add, y, y).requires_grad
