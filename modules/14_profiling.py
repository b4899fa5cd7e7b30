# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # 14 Profiling
#
# > Where time, arithmetic and memory go: a profiler that accounts for a whole model, layer by layer.
#
# In this lesson you build `Profiler`, which runs a model once and says for every layer how long it took, how much it
# had to compute, how many parameters it holds and how much memory it filled.
#
# **Why it matters to a system.** The next lessons make models smaller and faster. Whoever speeds up a layer that takes
# 2 % of the time gains 2 % at best. So measure first, and let the measurement add up: time that is missing from the
# table is where the surprise sits.
#
# **You need** `apply` (01), `Module` (03), the walk back (05), convolution (09) and attention (12).
#
# The words of this lesson: a *FLOP* is one floating-point operation. A *multiply-add* is a product that is added to a
# sum, so two of them. *Self time* of a layer is spent in it and in no layer inside it; *total time* includes those.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson 14

# %%
#| export
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
from tinytorch.tensor import Tensor, concatenate_forward, set_runner
from tinytorch.transformers import layer_norm_forward

# %% nbgrader={"grade_id": "imports", "locked": true}
from tinytorch.layers import Linear, Module, Sequential
from tinytorch.tensor import apply, manual_seed

manual_seed(0)

# %% [markdown]
# ## 1. How much is there to compute?
#
# Arithmetic can be counted without a clock, from shapes alone. By hand: (2, 3) @ (3, 4) has 2·4 results, each a sum of
# 3 products: 24 multiply-adds, 48 FLOPs. We count what papers and PyTorch's counter count: two for each multiply-add
# of a *product*, that is of matrix products, convolutions and attention. Adding, activations and normalisation touch
# every number once or a few times; their time is that of memory traffic, and the clock will show it.
#
# The rules stand in a table by primitive, like gradient rules in lesson 05. A rule gets the result `y` and what the
# primitive was called with. A primitive that does no products says so by a rule that returns 0. One that has *no* rule
# is something else: unknown, and never shown as 0.

# %%
#| export
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


# %% [markdown]
# ### Exercise: matrix products
# `y` has the shape that broadcasting gave it, so `y.size` is right for stacks of matrices too. The size that is summed
# over is the last one of `a`. Use Python's integers: `y.size` is one.

# %% nbgrader={"grade_id": "matmul-flops", "solution": true}
#| export
@flop_rule(np.matmul)
def matmul_flops(y, a, b):
    """2 for each of the y.size results and each term of its sum. (2, 3) @ (3, 4): 48."""
    ### BEGIN SOLUTION
    return 2 * y.size * a.shape[-1]
    ### END SOLUTION


# %% tags=["nbval-check-output"]
matmul_flops(np.zeros((2, 4)), np.zeros((2, 3)), np.zeros((3, 4)))

# %% nbgrader={"grade_id": "test-matmul-flops", "grade": true, "points": 2}
def counted_product(shape_a, shape_b):
    """The multiply-adds of a product, counted by NumPy: products of ones are counts."""
    return 2 * int((np.ones(shape_a, int) @ np.ones(shape_b, int)).sum())


def matmul_agrees(shape_a, shape_b):
    a, b = np.zeros(shape_a), np.zeros(shape_b)
    got, wanted = int(matmul_flops(a @ b, a, b)), counted_product(shape_a, shape_b)
    assert got == wanted, f"matmul_flops of {shape_a} @ {shape_b}: expected {wanted}, got {got}"


matmul_agrees((2, 3), (3, 4))
matmul_agrees((5, 2, 3), (3, 4))
### BEGIN HIDDEN TESTS
matmul_agrees((5, 1, 2, 3), (4, 3, 7))
matmul_agrees((6,), (6, 2))
matmul_agrees((3, 6), (6,))
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: convolution
# Each result is a sum over its window: all input channels, rows and columns of one filter. `w` is (O, C, KH, KW).

# %% nbgrader={"grade_id": "conv2d-flops", "solution": true}
#| export
@flop_rule(conv2d_forward)
def conv2d_flops(y, x, w, b=None, stride=1, padding=0):
    """2 for each of the y.size results and each entry of a filter; padding counts like any pixel."""
    ### BEGIN SOLUTION
    return 2 * y.size * w[0].size
    ### END SOLUTION


# %% tags=["nbval-check-output"]
conv2d_flops(np.zeros((1, 24, 31, 31)), np.zeros((1, 3, 32, 32)), np.zeros((24, 3, 2, 2)))

# %% nbgrader={"grade_id": "test-conv2d-flops", "grade": true, "points": 2}
def conv_agrees(shape, kernels, stride=1, padding=0):
    x, w = np.ones(shape), np.ones(kernels)
    windows = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), constant_values=1)
    windows = np.lib.stride_tricks.sliding_window_view(windows, kernels[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    y = np.einsum("nchwkl,ockl->nohw", windows, w)  # of ones: each result is its number of products
    got, wanted = int(conv2d_flops(y, x, w, None, stride=stride, padding=padding)), 2 * int(y.sum())
    assert got == wanted, f"conv2d_flops of {shape} with {kernels}, stride {stride}: expected {wanted}, got {got}"


conv_agrees((2, 3, 6, 5), (4, 3, 3, 2))
### BEGIN HIDDEN TESTS
conv_agrees((1, 2, 7, 7), (5, 2, 3, 3), stride=2)
conv_agrees((3, 4, 5, 6), (2, 4, 1, 3), padding=1)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: attention
# Attention is two products for each head: queries (T, D) with keys (S, D), then shares (T, S) with values (S, D). The mask is
# not counted as a saving, as usual in papers: whether masked entries are skipped is up to the kernel. `q` is
# (B, H, T, D), `k` and `v` are (B, H, S, D).

# %% nbgrader={"grade_id": "attention-flops", "solution": true}
#| export
@flop_rule(attention_forward, cached_attention_forward)
def attention_flops(y, q, k, v, causal=False):
    """Two products of T·S·D multiply-adds for each of the B·H heads, whatever the mask."""
    ### BEGIN SOLUTION
    return 4 * q.size * k.shape[-2]
    ### END SOLUTION


# %% nbgrader={"grade_id": "self-attention-flops", "locked": true}
#| export
@flop_rule(self_attention_forward)
def self_attention_flops(y, qkv, n_heads, causal):
    """As attention_flops; y is (B, T, C), all heads side by side, and every position is query and key."""
    return 4 * y.size * y.shape[-2]


# %% tags=["nbval-check-output"]
attention_flops(None, np.zeros((1, 2, 5, 4)), np.zeros((1, 2, 7, 4)), np.zeros((1, 2, 7, 4)))

# %% nbgrader={"grade_id": "test-attention-flops", "grade": true, "points": 2}
def attention_agrees(B, H, T, S, D):
    q, k = np.zeros((B, H, T, D)), np.zeros((B, H, S, D))
    scores, shares = counted_product((B, H, T, D), (B, H, D, S)), counted_product((B, H, T, S), (B, H, S, D))
    got = int(attention_flops(q, q, k, k, causal=True))
    assert got == scores + shares, f"attention_flops, B={B} H={H} T={T} S={S} D={D}: expected {scores + shares}, got {got}"


attention_agrees(1, 2, 5, 5, 4)
### BEGIN HIDDEN TESTS
attention_agrees(3, 2, 1, 9, 8)
attention_agrees(2, 4, 6, 7, 3)
### END HIDDEN TESTS

# %% [markdown]
# Everything below has no products. The list is long because it is complete: each primitive of lessons 01 to 13 that
# has a gradient rule has a FLOP rule too.

# %%
#| export
@flop_rule(
    np.add, np.subtract, np.multiply, np.divide, np.negative, np.power, np.exp, np.log, np.sqrt, np.abs, np.tanh,
    np.equal, np.less, np.greater, np.sum, np.mean, np.max, np.reshape, np.transpose, operator.getitem,
    concatenate_forward, embedding_forward, relu_forward, sigmoid_forward, gelu_forward, softmax_forward,
    mse_forward, bce_forward, log_softmax_forward, cross_entropy_forward, max_pool2d_forward, avg_pool2d_forward,
    batch_norm_forward, layer_norm_forward,
)
def no_products(y, *arrays, **params):
    """0: no products, only work in step with the memory that is touched."""
    return 0


# %% [markdown]
# ### Exercise: look it up
# `count_flops` finds the rule and calls it, and gives None where there is no rule.

# %% nbgrader={"grade_id": "count-flops", "solution": true}
#| export
def count_flops(primitive, y, arrays, params):
    """The FLOPs of one call, an int; None if `primitive` has no rule in FLOPS."""
    ### BEGIN SOLUTION
    rule = FLOPS.get(primitive)
    return None if rule is None else rule(y, *arrays, **params)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
a = np.ones((3, 3))
print(count_flops(np.matmul, a @ a, [a, a], {}), count_flops(np.exp, a, [a], {}), count_flops(np.sin, a, [a], {}))

# %% nbgrader={"grade_id": "test-count-flops", "grade": true, "points": 2}
def by_axis(x, axis):
    return x.sum(axis=axis)


flop_rule(by_axis)(lambda y, x, axis: 100 * axis + x.size)
x = np.ones((2, 5))
got = count_flops(by_axis, x.sum(axis=1), [x], {"axis": 1})
assert got == 110, f"a rule that wants axis=1: expected 110, got {got}; hand the params on by name"
got = count_flops(np.exp, x, [x], {})
assert got == 0 and got is not None, f"np.exp has a rule that says 0: expected 0, got {got}"
got = count_flops(np.sinh, x, [x], {})
assert got is None, f"np.sinh has no rule: expected None, got {got}; unknown is not zero"

# %% [markdown]
# ## 2. How much memory is filled?
#
# We take the sizes of arrays, not `tracemalloc`: that counts every Python object and slows what it watches. What
# counts is each array that a primitive *returns*, if it is new: a view of an input costs nothing. A primitive may
# return a tuple, the result and what its gradient rule will want; all of it stays in memory until the walk back.
# What a primitive uses in between, such as an im2col block, is not seen this way.
#
# ### Exercise: `new_bytes`
# Add up `.nbytes` of the arrays in `out` that share no memory with any array of `arrays`
# (`np.may_share_memory(a, b)`). Entries of either that are no arrays are skipped.

# %% nbgrader={"grade_id": "new-bytes", "solution": true}
#| export
def new_bytes(out, arrays):
    """Bytes of the arrays in `out`, an array or a tuple, that are no views of `arrays`."""
    outs = out if isinstance(out, tuple) else (out,)
    ### BEGIN SOLUTION
    inputs = [a for a in arrays if isinstance(a, np.ndarray)]
    new = [o for o in outs if isinstance(o, np.ndarray) and not any(np.may_share_memory(o, a) for a in inputs)]
    return sum(o.nbytes for o in new)
    ### END SOLUTION


# %% tags=["nbval-check-output"]
a = np.zeros((10, 10), np.float32)
print(new_bytes(a + 1, [a, 1]), new_bytes(a.T, [a]), new_bytes((a + 1, a * 2), [a]))

# %% nbgrader={"grade_id": "test-new-bytes", "grade": true, "points": 2}
a, b = np.zeros((6, 4), np.float32), np.zeros(5)
for name, out, wanted in [
    ("a new float32 array of 24", a + 1, 96), ("a transposed view", a.T, 0), ("a row", a[1], 0),
    ("a copy of three rows", a[[0, 1, 1]], 48), ("two new arrays", (a + 1, b + 1), 136),
]:
    got = int(new_bytes(out, [a, b, 3.0]))
    assert got == wanted, f"new_bytes of {name}: expected {wanted}, got {got}"
### BEGIN HIDDEN TESTS
got = int(new_bytes((a.T, b + 1, None, 3), [b, a]))
assert got == 40, f"new_bytes of a view, a new array, None and a number: expected 40, got {got}"
got = int(new_bytes((a + 1)[::2].T, [a]))
assert got == 48, f"a strided array on new memory is new: expected 48, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Time that adds up
#
# Layers lie inside layers. If we add the time of a network and the times of its layers, we count twice. The way out is
# self time: when something ends, the time it took goes to its parent's `inner`, and it keeps only what its own
# children have not used.
#
# ```
# A starts 0 ─── B starts 2 ─── B stops 5 ─── A stops 10        B: 3, self 3        A: 10, self 10 - 3 = 7
# ```
#
# So the self times add up to the whole, always. A `Stopwatch` does this for any keys. The clock is an argument, so
# that we can test it with one that we move by hand.

# %%
#| export
class Stopwatch:
    """Self times by key: `start(key)` and `stop()` in pairs, one inside another.

    `clock()` gives seconds. `selfs` maps a key to its seconds without those of what ran inside.
    """

    def __init__(self, clock=time.perf_counter):
        self.clock, self.frames, self.selfs = clock, [], {}

    def start(self, key):
        """Begin `key`, inside of what is running."""
        self.frames.append([key, self.clock(), 0.0])  # the last entry: seconds used by what runs inside


# %% [markdown]
# ### Exercise: `stop`
# Read the clock, take the last frame off `frames`, add its self time to `selfs[key]` (a key may come many times), and
# tell the frame below, if there is one, how much time was used inside it.

# %% nbgrader={"grade_id": "stopwatch-stop", "solution": true}
#| export
class Stopwatch(Stopwatch):
    def stop(self):
        """End what was started last; returns its seconds, with what ran inside."""
        ### BEGIN SOLUTION
        key, start, inner = self.frames.pop()
        elapsed = self.clock() - start
        self.selfs[key] = self.selfs.get(key, 0.0) + elapsed - inner
        if self.frames:
            self.frames[-1][2] += elapsed
        return elapsed
        ### END SOLUTION


# %% tags=["nbval-check-output"]
moments = iter([0, 2, 5, 10])  # the picture above
watch = Stopwatch(lambda: next(moments))
watch.start("A")
watch.start("B")
print(watch.stop(), watch.stop(), watch.selfs)

# %% nbgrader={"grade_id": "test-stopwatch-stop", "grade": true, "points": 3}
def told(script):
    """Run a script such as "A B . B . ." on a clock that moves 1, 2, 4, 8, ... seconds; selfs and totals."""
    now = [0.0]
    watch, totals = Stopwatch(lambda: now[0]), []
    for k, word in enumerate(script.split()):
        if word == ".":
            totals.append(watch.stop())
        else:
            watch.start(word)
        now[0] += 2.0**k
    return {key: float(seconds) for key, seconds in watch.selfs.items()}, totals


got, totals = told("A B . .")
assert got == {"A": 5.0, "B": 2.0}, f"A holds B: expected self times A 5, B 2, got {got}"
assert totals == [2.0, 7.0], f"stop returns the time with what ran inside: expected [2, 7], got {totals}"
### BEGIN HIDDEN TESTS
got, totals = told("A B . B . .")
assert got == {"A": 21.0, "B": 10.0}, f"B twice inside A: expected A 21, B 10, got {got}"
got, totals = told("A B C . . .")
assert got == {"A": 17.0, "B": 10.0, "C": 4.0} and sum(got.values()) == totals[-1], (
    f"three deep: expected A 17, B 10, C 4, which add up to the whole, 31; got {got}"
)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Whose time is it?
#
# ### Exercise: `layer_names`
# A module in the tree is called by its dotted name; the model itself is `""`. A module with two names keeps its first.
# Go down recursively: if this module's `id` is new, note it, then go into `named_children()` with `prefix + name`.

# %% nbgrader={"grade_id": "layer-names", "solution": true}
#| export
def layer_names(model, name="", names=None):
    """A dict from id(module) to its dotted name, for `model` ("") and all below it, parents first."""
    names = {} if names is None else names
    ### BEGIN SOLUTION
    if id(model) not in names:
        names[id(model)] = name
        for child_name, child in model.named_children():
            layer_names(child, f"{name}.{child_name}" if name else child_name, names)
    ### END SOLUTION
    return names


# %% tags=["nbval-check-output"]
net = Sequential(Linear(2, 3), Sequential(Linear(3, 3)))
[name for name in layer_names(net).values()]

# %% nbgrader={"grade_id": "test-layer-names", "grade": true, "points": 2}
root, body, leaf = Module(), Module(), Module()
body.parts, root.body, root.last = [leaf, Module()], body, Module()
names = layer_names(root)
got = list(names.values())
assert got == ["", "body", "body.parts.0", "body.parts.1", "last"], f"expected the tree's dotted names, got {got}"
assert names[id(leaf)] == "body.parts.0", f"expected body.parts.0 for the leaf's id, got {names[id(leaf)]!r}"
### BEGIN HIDDEN TESTS
root.again = leaf
got = layer_names(root)[id(leaf)]
assert got == "body.parts.0", f"a module with two names keeps the first: expected body.parts.0, got {got!r}"
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `totals`
# A layer's total is its own value plus those of all layers below it, which are those whose name begins with its own name
# and a dot. All of them are below `""`. Mind the dot: `block1` is not above `block10`.

# %% nbgrader={"grade_id": "totals", "solution": true}
#| export
def totals(selfs):
    """From {name: own value} to {name: own value plus those of all names below it}."""
    ### BEGIN SOLUTION
    def below(name):
        return [own for other, own in selfs.items() if not name or other == name or other.startswith(name + ".")]

    return {name: sum(below(name)) for name in selfs}
    ### END SOLUTION


# %% tags=["nbval-check-output"]
totals({"": 1, "body": 10, "body.0": 100, "head": 1000})

# %% nbgrader={"grade_id": "test-totals", "grade": true, "points": 2}
own = {"": 1, "a": 2, "a.0": 4, "a.0.x": 8, "a.1": 16, "b": 32}
got = dict(totals(own))
assert got == {"": 63, "a": 30, "a.0": 12, "a.0.x": 8, "a.1": 16, "b": 32}, f"totals: got {got}"
### BEGIN HIDDEN TESTS
got = dict(totals({"": 0, "block.1": 1, "block.10": 2, "block.1.norm": 4}))
assert got == {"": 7, "block.1": 5, "block.10": 2, "block.1.norm": 4}, (
    f"block.1 and block.10 are neighbours: expected 7, 5, 2, 4, got {got}"
)
### END HIDDEN TESTS

# %% [markdown]
# ### Exercise: `own_parameters`
# How many numbers of each layer are trained, without those of its children. Each tensor counts once, as in `parameters()`,
# and belongs to the longest layer name that its own name begins with: `body.0.weight` to `body.0`. The names come
# from `layer_names`; start with 0 for every layer.

# %% nbgrader={"grade_id": "own-parameters", "solution": true}
#| export
def own_parameters(model):
    """From layer name to the count of its own trained numbers; they add up to all of `model.parameters()`."""
    counts = dict.fromkeys(layer_names(model).values(), 0)
    ### BEGIN SOLUTION
    for name, p in model.named_parameters():
        owners = [layer for layer in counts if not layer or name.startswith(layer + ".")]
        counts[max(owners, key=len)] += p.numel()
    ### END SOLUTION
    return counts


# %% tags=["nbval-check-output"]
own_parameters(Sequential(Linear(2, 3), Linear(3, 1, bias=False)))

# %% nbgrader={"grade_id": "test-own-parameters", "grade": true, "points": 2}
root, body = Module(), Module()
root.scales = [Tensor([1.0, 2.0], requires_grad=True), Tensor([1.0], requires_grad=True)]
root.mean, root.body = Tensor([1.0, 2.0, 3.0]), body
body.weight, body.inner = Tensor(np.ones((4, 5)), requires_grad=True), Linear(3, 2)
got = {name: int(n) for name, n in own_parameters(root).items()}
assert got == {"": 3, "body": 20, "body.inner": 8}, f"expected 3 of the root, 20 of body, 8 of body.inner, got {got}"
### BEGIN HIDDEN TESTS
root.tied = body.weight
got = sum(int(n) for n in own_parameters(root).values())
assert got == 31, f"a shared tensor counts once: expected 31 in all, got {got}"
### END HIDDEN TESTS

# %% [markdown]
# ## 5. The profiler
#
# Given is what plugs the parts in: `set_caller` of lesson 03 around every module, `set_runner` of lesson 01 around every
# primitive, and `set_stepper` of lesson 05 around each step of the walk back. When no profiler is active each of these
# seams costs one comparison with None.
#
# A key of the stopwatch is (layer, phase, primitive). The first frame runs as long as the profiler and is called
# `OUTSIDE`: everything that no layer of the model does, such as the loss, the optimizer, or you. A step back is
# booked on the layer whose forward pass made the operation. FLOPs and memory are those of the forward pass.


# %%
#| export
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


# %% [markdown]
# Then the rows: for every layer, in the order of the tree, and for every primitive, the slowest first.

# %%
#| export
class Profiler(Profiler):
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
            lines.append([name if row.name != OUTSIDE else OUTSIDE, *_cells(row), f"{1e3 * row.total_seconds:.3f}"])
        whole = [sum(getattr(row, f) for row in rows) for f in ("parameters", "flops", "unknown", "bytes", "forward", "backward")]
        lines.append(["sum", *_cells(Row("", *whole, 0, 0.0)), f"{1e3 * self.seconds:.3f}"])
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        text = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
        for name, calls in self.unknown.items():
            text.append(f"?: no FLOP rule for {name} ({calls} calls); the sum leaves them out")
        return "\n".join(text)


def _cells(row):
    """The columns of a Row between name and total as text; `?` where calls have no FLOP rule."""
    flops = f"{row.flops / 1e6:.3f}" if row.flops or not row.unknown else ""
    times = [f"{1e3 * row.forward:.3f}", f"{1e3 * row.backward:.3f}"]
    return [f"{row.parameters:,}", flops + "?" * bool(row.unknown), f"{row.bytes / 1e6:.3f}", *times]


# %% [markdown]
# A small network, on a clock that moves one millisecond at each look, so that the table is the same everywhere.

# %% tags=["nbval-check-output"]
from itertools import count

net = Sequential(Linear(20, 50), Sequential(Linear(50, 50), Linear(50, 10)))
ticks = count()
with Profiler(net, clock=lambda: next(ticks) / 1000) as profile:
    net(Tensor(np.ones((100, 20)))).sum().backward()
print(profile.table())

# %% [markdown]
# Check it by hand: the first layer is (100, 20) @ (20, 50), 100·20·50 multiply-adds, 0.2 MFLOP. All 4,110 parameters
# are there. The columns with self times add up to the whole.

# %% nbgrader={"grade_id": "test-profiler", "grade": true, "points": 2}
ticks = count()
with Profiler(net, clock=lambda: next(ticks) / 1000) as profile:
    net(Tensor(np.ones((7, 20)))).sum().backward()
rows = profile.layers()
selfs = sum(float(row.forward) + float(row.backward) for row in rows)
assert np.isclose(selfs, float(profile.seconds)), f"self times add up to {selfs}, the whole took {profile.seconds}"
wanted = 2 * 7 * (20 * 50 + 50 * 50 + 50 * 10)
assert int(profile.flops) == wanted, f"expected {wanted} FLOPs, got {profile.flops}; look at matmul_flops"
assert sum(int(row.parameters) for row in rows) == 4110, "expected 4110 parameters: look at own_parameters"
root = float(rows[0].total_seconds) + float(rows[-1].total_seconds)
assert np.isclose(root, float(profile.seconds)), "the model's total and what ran outside: expected the whole"

# %% [markdown]
# ## 6. Where time goes
#
# Now a real clock and a convolutional network. Before you run it: which layer will take longest? Then compare the time
# with the FLOPs. Two layers with equal FLOPs and different times differ in what they wait for.

# %% tags=["measure"]
from tinytorch.activations import GELU
from tinytorch.spatial import BatchNorm2d, Conv2d, MaxPool2d

first = [Conv2d(3, 24, 2), GELU(), Conv2d(24, 64, 3, padding=1, bias=False), MaxPool2d(2), BatchNorm2d(64), GELU()]
vision = Sequential(*first, Conv2d(64, 64, 3, padding=1, bias=False), BatchNorm2d(64), GELU())
images = Tensor(np.random.default_rng(0).standard_normal((50, 3, 32, 32)))
(vision(images) ** 2).mean().backward()  # once without a clock: memory is warm then
with Profiler(vision) as profile:
    (vision(images) ** 2).mean().backward()
print(profile.table())

# %% tags=["measure"]
import matplotlib.pyplot as plt

from tito.figures import show

rows = profile.layers()[::-1]
kinds = {f"layers.{i}": f"{i} {type(layer).__name__}" for i, layer in enumerate(vision.layers)}
labels = [kinds.get(row.name, row.name or "model") for row in rows]
figure, axes = plt.subplots(figsize=(8, 4.4))
ahead, back = (1e3 * np.array([getattr(row, way) for row in rows]) for way in ("forward", "backward"))
axes.barh(labels, ahead, label="forward")
axes.barh(labels, back, left=ahead, color="#E69F00", hatch="//", edgecolor="white", label="backward")
axes.set(xlabel="self time, ms")
axes.legend()
order = np.argsort(ahead + back)[::-1][:3]
longest = ", ".join(f"{labels[i]} with {ahead[i]:.0f} ms forward and {back[i]:.0f} ms backward" for i in order)
show(figure, alt=f"One bar a layer, forward and backward time end to end. The longest: {longest}.")

# %% [markdown]
# The layers follow each other from top to bottom, and all bars together are as long as the whole run. "model" is what
# none of the modules in it did, here the GELUs, which are no Modules; "(outside)" is the square and the mean.
#
# ## 7. What breaks
#
# **A primitive nobody counted.** It shows as `?`, not as 0, and the sum says what it leaves out.

# %% tags=["nbval-check-output"]
class Wave(Module):
    def forward(self, x):
        return apply(np.sin, x)


wave, ticks = Sequential(Linear(4, 4), Wave()), count()
with Profiler(wave, clock=lambda: next(ticks) / 1000) as profile:
    wave(Tensor(np.ones((2, 4))))
print(profile.table())

# %% [markdown]
# **A profiler inside another one.** Time would be booked twice, so it refuses.

# %% tags=["nbval-check-output"]
try:
    with Profiler(net), Profiler(net):
        pass
except RuntimeError as error:
    print(error)

# %% [markdown]
# **One run.** A single measurement of one run on a busy machine is an anecdote. It tells which layer is the heavy one, but not
# whether a change made it 3 % faster. That takes repetition, and lesson 19.
#
# ## Exercises
#
# 1. Add a rule for `np.sin` of your own with `@flop_rule`. What would you count, and why might 0 be right?
# 2. Profile the same network with batches of 1, 10 and 100. Which share of the time is Python's own, the row `""` of
#    `primitives()`?
# 3. Backward of a matrix product is two products. Compare the two time columns. For which layer is it only one?
# 4. Divide each layer's FLOPs by its bytes. Which layers do you expect to gain from a faster processor?
#
# ## Elsewhere
#
# - `torch.profiler` records every operator with its time and memory, on CPU and GPU, and writes traces that a browser
#   shows as a flame graph. A GPU works on while Python goes ahead, so there the clock has to be the device's own.
# - `torch.utils.flop_counter.FlopCounterMode` counts as we do: products only, by a table of formulas.
# - `perf`, `py-spy` and other *sampling* profilers ask many times a second where the program is. They change less of
#   what they watch, and see what never passes a seam.
#
# ## Summary
#
# - FLOPs come from shapes, by one rule a primitive; what has no rule is unknown, not zero.
# - Self times add up to the whole; totals are for finding the way in a tree.
# - A seam that is not used costs one comparison.
# - Measure before you optimise, and look first at what the table does not explain.

# %% [markdown]
# ## Complete
#
# Run the cell below. It saves this notebook, tests it in a fresh kernel, and writes your `tinytorch/profiling.py`;
# `tito module complete 14` in a terminal does the same.

# %% tags=["measure"] nbgrader={"grade_id": "complete", "locked": true}
# %tito complete
