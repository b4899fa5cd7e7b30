"""Wrong solutions of lesson 05."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        "subtract-sign",
        "arithmetic",
        "return g, lambda: -g",
        "return g, g",
        "a - b hands b the gradient without its sign",
    ),
    Mutant(
        "no-grad-no-finally",
        "no-grad",
        "    try:\n        yield\n    finally:\n        _state.off = not before",
        "    yield\n    _state.off = not before",
        "after an error recording stays off for ever",
    ),
    Mutant(
        "record-first-input", "record", "for x in inputs)", "for x in inputs[:1])", "2 * x is not recorded"
    ),
    Mutant(
        "order-before-inputs",
        "topological-order",
        "            stack.append((t, True))\n            if",
        "            order.append(t)\n            if",
        "users before their inputs",
    ),
    Mutant(
        "order-recursive",
        "topological-order",
        "    order, seen, stack = [], set(), [(root, False)]\n",
        "    order, seen, stack = [], set(), []\n\n    def visit(t):\n        if id(t) not in seen:\n"
        "            seen.add(id(t))\n            for x in t.node.inputs if t.node is not None else ():\n"
        "                if isinstance(x, Tensor) and x.requires_grad:\n                    visit(x)\n"
        "            order.append(t)\n\n    visit(root)\n",
        "a deep graph exceeds the recursion limit",
    ),
    Mutant(
        "no-unbroadcast",
        "unbroadcast",
        "    stretched = tuple(i for i, n in enumerate(shape) if n == 1)",
        "    stretched = ()",
        "stretched dimensions are not summed",
    ),
    Mutant(
        "result-unseen",
        "check-usable",
        "zip((*node.inputs, t), node.versions, strict=True)",
        "zip(node.inputs, node.versions)",
        "a result changed in place goes unseen",
    ),
    Mutant(
        "leaf-overwritten",
        "backward",
        "g if t.grad is None else t.grad.data + g",
        "g",
        "the second backward replaces the gradient of the first",
    ),
    Mutant(
        "not-accumulated",
        "backward",
        "gradients[id(x)] + dx if id(x) in gradients else dx",
        "dx",
        "a tensor used twice keeps the last gradient only",
    ),
    Mutant(
        "matmul-missing-transpose",
        "matmul",
        "lambda: g @ np.swapaxes(b, -1, -2)",
        "lambda: g @ b if b.shape[-1] == b.shape[-2] else g @ np.swapaxes(b, -1, -2)",
        "no transpose where the shapes allow it",
    ),
    Mutant("mean-without-n", "reductions", " * (y.size / x.size)", "", "mean without 1 / n"),
    Mutant(
        "max-ties", "reductions", " * largest / shares", " * largest", "each of the tied entries gets all"
    ),
    Mutant(
        "getitem-once",
        "shapes",
        "np.add.at(dx, index, g)",
        "dx[index] += g",
        "an entry named twice gets one gradient",
    ),
    Mutant(
        "gradcheck-nan",
        "gradcheck",
        "if not abs(numeric - analytic) <=",
        "if abs(numeric - analytic) >",
        "NaN passes",
    ),
]
