"""Where time, arithmetic and memory go: a profiler that accounts for a whole model, layer by layer.

Built by tito from lesson 14_profiling: change the lesson, not this file.
"""

import operator
import threading
import time
from dataclasses import dataclass

import numpy as np

from tinytorch.activations import gelu_forward, relu_forward, sigmoid_forward, softmax_forward
from tinytorch.attention import attention_forward, cached_attention_forward, self_attention_forward
from tinytorch.autograd import set_stepper
from tinytorch.embeddings import embedding_forward
from tinytorch.layers import set_caller
from tinytorch.losses import bce_forward, cross_entropy_forward, log_softmax_forward, mse_forward
from tinytorch.spatial import avg_pool2d_forward, batch_norm_forward, conv2d_forward, max_pool2d_forward
from tinytorch.tensor import concatenate_forward, set_runner
from tinytorch.transformers import layer_norm_forward

__all__ = [
    "FLOPS",
    "flop_rule",
    "matmul_flops",
    "conv2d_flops",
    "attention_flops",
    "self_attention_flops",
    "no_products",
    "count_flops",
    "new_bytes",
    "Stopwatch",
    "layer_names",
    "totals",
    "own_parameters",
    "OUTSIDE",
    "Row",
    "Profiler",
]

FLOPS = {}  # primitive -> its rule


def flop_rule(*primitives):
    """Decorator: put a rule for `primitives` into the table FLOPS.

    `rule(y, *arrays, **params)` gets a primitive's result and what it was called with; it returns an int, two
    for each multiply-add of its products.
    """

    def register(rule):
        for primitive in primitives:
            FLOPS[primitive] = rule
        return rule

    return register


@flop_rule(np.matmul)
def matmul_flops(y, a, b):
    """2 for each of the y.size results and each term of its sum. (2, 3) @ (3, 4): 48."""
    return 2 * y.size * a.shape[-1]


@flop_rule(conv2d_forward)
def conv2d_flops(y, x, w, b=None, stride=1, padding=0):
    """2 for each of the y.size results and each entry of a filter; padding counts like any pixel."""
    return 2 * y.size * w[0].size


@flop_rule(attention_forward, cached_attention_forward)
def attention_flops(y, q, k, v, causal=False):
    """Two products of T·S·D multiply-adds for each of the B·H heads, whatever the mask."""
    return 4 * q.size * k.shape[-2]


@flop_rule(self_attention_forward)
def self_attention_flops(y, qkv, n_heads, causal):
    """As attention_flops; y is (B, T, C), all heads side by side, and every position is query and key."""
    return 4 * y.size * y.shape[-2]


@flop_rule(
    np.add,
    np.subtract,
    np.multiply,
    np.divide,
    np.negative,
    np.power,
    np.exp,
    np.log,
    np.sqrt,
    np.abs,
    np.tanh,
    np.equal,
    np.less,
    np.greater,
    np.sum,
    np.mean,
    np.max,
    np.reshape,
    np.transpose,
    operator.getitem,
    concatenate_forward,
    embedding_forward,
    relu_forward,
    sigmoid_forward,
    gelu_forward,
    softmax_forward,
    mse_forward,
    bce_forward,
    log_softmax_forward,
    cross_entropy_forward,
    max_pool2d_forward,
    avg_pool2d_forward,
    batch_norm_forward,
    layer_norm_forward,
)
def no_products(y, *arrays, **params):
    """0: no products, only work in step with the memory that is touched."""
    return 0


def count_flops(primitive, y, arrays, params):
    """The FLOPs of one call, an int; None if `primitive` has no rule in FLOPS."""
    rule = FLOPS.get(primitive)
    return None if rule is None else rule(y, *arrays, **params)


def new_bytes(out, arrays):
    """Bytes of the arrays in `out`, an array or a tuple, that are no views of `arrays`."""
    outs = out if isinstance(out, tuple) else (out,)
    inputs = [a for a in arrays if isinstance(a, np.ndarray)]
    new = [
        o for o in outs if isinstance(o, np.ndarray) and not any(np.may_share_memory(o, a) for a in inputs)
    ]
    return sum(o.nbytes for o in new)


class Stopwatch:
    """Self times by key: `start(key)` and `stop()` in pairs, one inside another.

    `clock()` gives seconds. `selfs` maps a key to its seconds without those of what ran inside.
    """

    def __init__(self, clock=time.perf_counter):
        self.clock, self.frames, self.selfs = clock, [], {}

    def start(self, key):
        """Begin `key`, inside of what is running."""
        self.frames.append([key, self.clock(), 0.0])  # the last entry: seconds used by what runs inside

    def stop(self):
        """End what was started last; returns its seconds, with what ran inside."""
        key, start, inner = self.frames.pop()
        elapsed = self.clock() - start
        self.selfs[key] = self.selfs.get(key, 0.0) + elapsed - inner
        if self.frames:
            self.frames[-1][2] += elapsed
        return elapsed


def layer_names(model, name="", names=None):
    """A dict from id(module) to its dotted name, for `model` ("") and all below it, parents first."""
    names = {} if names is None else names
    if id(model) not in names:
        names[id(model)] = name
        for child_name, child in model.named_children():
            layer_names(child, f"{name}.{child_name}" if name else child_name, names)
    return names


def totals(selfs):
    """From {name: own value} to {name: own value plus those of all names below it}."""

    def below(name):
        return [
            own for other, own in selfs.items() if not name or other == name or other.startswith(name + ".")
        ]

    return {name: sum(below(name)) for name in selfs}


def own_parameters(model):
    """From layer name to the count of its own trained numbers; they add up to all of `model.parameters()`."""
    counts = dict.fromkeys(layer_names(model).values(), 0)
    for name, p in model.named_parameters():
        owners = [layer for layer in counts if not layer or name.startswith(layer + ".")]
        counts[max(owners, key=len)] += p.numel()
    return counts


OUTSIDE = "(outside)"


@dataclass(frozen=True)
class Row:
    """What one layer, or one primitive, did: self values, and with `total_` those of all below it too.

    `flops` leaves out `unknown` calls of primitives without a rule; `bytes` are of the arrays that were
    returned, times are in seconds.
    """

    name: str
    parameters: int
    flops: int
    unknown: int
    bytes: int
    forward: float
    backward: float
    total_flops: int
    total_seconds: float


class Profiler:
    """`with Profiler(model) as p:` around forward passes (and backward) of `model`: time, FLOPs, memory.

    `print(p.table())` and `p.layers()` account for all of the time; `p.primitives()` sorts it by primitive.
    `clock()` gives seconds; counting itself takes a little time, booked on the layer. Operations of other
    threads are not seen. Raises RuntimeError inside another one.
    """

    def __init__(self, model, clock=time.perf_counter):
        self.model, self.watch = model, Stopwatch(clock)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.unknown = {}  # name of a primitive without a FLOP rule -> calls
        self.seconds = 0.0
        self._names, self._counts, self._made_by = layer_names(model), {}, {}
        self._thread, self._before = None, None

    def __enter__(self):
        caller = set_caller(self._call)
        if caller is not None:
            set_caller(caller)
            raise RuntimeError("Profiler: another profiler is active; leave its with block first")
        self._before = set_runner(self._run), set_stepper(self._step)
        self._thread = threading.get_ident()
        self.watch.start((OUTSIDE, "forward", ""))
        return self

    def __exit__(self, *error):
        self.seconds += self.watch.stop()
        set_caller(None)
        set_runner(self._before[0])
        set_stepper(self._before[1])
        self._made_by.clear()

    @property
    def flops(self):
        """FLOPs of all forward passes, without the calls that `unknown` lists."""
        return sum(flops for flops, _, _ in self._counts.values())

    def _timed(self, key, run):
        if threading.get_ident() != self._thread:
            return run()
        self.watch.start(key)
        try:
            return run()
        finally:
            self.watch.stop()

    def _layer(self):
        return self.watch.frames[-1][0][0]

    def _call(self, module, args, kwargs):
        """The seam of lesson 03: a module that is not in the model, such as a loss, counts for its caller."""
        name = self._names.get(id(module), self._layer())
        return self._timed((name, "forward", ""), lambda: module.forward(*args, **kwargs))

    def _run(self, primitive, arrays, params):
        """The seam of lesson 01."""
        key = (self._layer(), "forward", primitive.__name__)
        out = self._timed(key, lambda: primitive(*arrays, **params))
        if threading.get_ident() == self._thread:
            flops = count_flops(primitive, out[0] if isinstance(out, tuple) else out, arrays, params)
            if flops is None:
                self.unknown[primitive.__name__] = self.unknown.get(primitive.__name__, 0) + 1
            known, unknown, size = self._counts.get(key[::2], (0, 0, 0))
            size += new_bytes(out, arrays)
            self._counts[key[::2]] = known + (flops or 0), unknown + (flops is None), size
            self._made_by[id(out)] = key[0]  # while `out` is alive its id is its own
        return out

    def _step(self, node, run):
        """The seam of lesson 05."""
        name = self._made_by.get(id(node.out), OUTSIDE)
        return self._timed((name, "backward", node.primitive.__name__), run)

    def _seconds(self, phase, **where):
        """Self seconds of a phase; `where` says which layer or which primitive."""
        place = {"layer": 0, "primitive": 2}
        keys = [key for key in self.watch.selfs if key[1] == phase]
        keys = [key for key in keys if all(key[place[k]] == v for k, v in where.items())]
        return sum(self.watch.selfs[key] for key in keys)

    def layers(self):
        """A Row for each layer of the model, parents first, and one for what ran OUTSIDE; selfs add up."""
        names = [*self._names.values(), OUTSIDE]
        own = own_parameters(self.model) | {OUTSIDE: 0}
        counts = {name: [c for (layer, _), c in self._counts.items() if layer == name] for name in names}
        flops, unknown, sizes = ({name: sum(c[i] for c in counts[name]) for name in names} for i in range(3))
        ahead, back = ({n: self._seconds(phase, layer=n) for n in names} for phase in ("forward", "backward"))
        selfs = {n: ahead[n] + back[n] for n in names}
        inside = [{n: v for n, v in values.items() if n != OUTSIDE} for values in (flops, selfs)]
        all_flops, all_seconds = (totals(v) for v in inside)
        all_flops[OUTSIDE], all_seconds[OUTSIDE] = flops[OUTSIDE], selfs[OUTSIDE]
        return [
            Row(n, own[n], flops[n], unknown[n], sizes[n], ahead[n], back[n], all_flops[n], all_seconds[n])
            for n in names
        ]

    def primitives(self):
        """A Row for each primitive, the slowest first; "" is Python's own time between primitives."""
        names, rows = {key[2] for key in self.watch.selfs}, []
        for n in names:
            counts = [c for (_, primitive), c in self._counts.items() if primitive == n]
            flops, unknown, size = (sum(c[i] for c in counts) for i in range(3))
            ahead, back = (self._seconds(phase, primitive=n) for phase in ("forward", "backward"))
            rows.append(Row(n, 0, flops, unknown, size, ahead, back, flops, ahead + back))
        return sorted(rows, key=lambda row: (-row.total_seconds, row.name))

    def table(self):
        """The layers as text, indented as they lie in one another; then the sum of the lines above."""
        heads = ["layer", "parameters", "MFLOP", "new MB", "forward ms", "backward ms", "with inner ms"]
        lines, rows = [heads], self.layers()
        for row in rows:
            *above, last = row.name.split(".")
            name = "  " * (len(above) + 1) + last if row.name else type(self.model).__name__
            lines.append(
                [name if row.name != OUTSIDE else OUTSIDE, *_cells(row), f"{1e3 * row.total_seconds:.3f}"]
            )
        whole = [
            sum(getattr(row, f) for row in rows)
            for f in ("parameters", "flops", "unknown", "bytes", "forward", "backward")
        ]
        lines.append(["sum", *_cells(Row("", *whole, 0, 0.0)), f"{1e3 * self.seconds:.3f}"])
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        text = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
        ]
        for name, calls in self.unknown.items():
            text.append(f"?: no FLOP rule for {name} ({calls} calls); the sum leaves them out")
        return "\n".join(text)


def _cells(row):
    """The columns of a Row between name and total as text; `?` where calls have no FLOP rule."""
    flops = f"{row.flops / 1e6:.3f}" if row.flops or not row.unknown else ""
    times = [f"{1e3 * row.forward:.3f}", f"{1e3 * row.backward:.3f}"]
    return [f"{row.parameters:,}", flops + "?" * bool(row.unknown), f"{row.bytes / 1e6:.3f}", *times]
