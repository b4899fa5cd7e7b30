"""Wrong solutions of 14_profiling."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        "matmul-adds-only",
        "matmul-flops",
        "return 2 * y.size",
        "return y.size",
        "counts multiply-adds, not FLOPs",
    ),
    Mutant("matmul-rows", "matmul-flops", "a.shape[-1]", "a.shape[0]", "the wrong dimension is summed over"),
    Mutant("matmul-by-b", "matmul-flops", "a.shape[-1]", "b.shape[-1]", "counts b's columns twice"),
    Mutant("conv-kernel-only", "conv2d-flops", "w[0].size", "w[0, 0].size", "forgets the input channels"),
    Mutant("conv-all-filters", "conv2d-flops", "w[0].size", "w.size", "counts the filters twice"),
    Mutant(
        "conv-input-size", "conv2d-flops", "2 * y.size", "2 * x.size", "counts inputs in the place of results"
    ),
    Mutant("attention-one-product", "attention-flops", "4 * q.size", "2 * q.size", "scores without values"),
    Mutant("attention-square", "attention-flops", "k.shape[-2]", "q.shape[-2]", "as if S were T"),
    Mutant("unknown-is-zero", "count-flops", "return None if rule", "return 0 if rule", "unknown shown as 0"),
    Mutant("params-forgotten", "count-flops", "rule(y, *arrays, **params)", "rule(y, *arrays)", "no params"),
    Mutant(
        "views-counted",
        "new-bytes",
        " and not any(np.may_share_memory(o, a) for a in inputs)",
        "",
        "counts views as memory",
    ),
    Mutant("elements-not-bytes", "new-bytes", "o.nbytes for o", "o.size for o", "counts elements"),
    Mutant(
        "first-result-only",
        "new-bytes",
        "sum(o.nbytes for o in new)",
        "sum(o.nbytes for o in new[:1])",
        "one",
    ),
    Mutant(
        "self-is-total", "stopwatch-stop", "+ elapsed - inner", "+ elapsed", "inner time is counted twice"
    ),
    Mutant("last-call-wins", "stopwatch-stop", "self.selfs.get(key, 0.0) + ", "", "forgets earlier calls"),
    Mutant(
        "parent-gets-self", "stopwatch-stop", "[2] += elapsed", "[2] += elapsed - inner", "grandchildren lost"
    ),
    Mutant("inner-overwritten", "stopwatch-stop", "[2] += elapsed", "[2] = elapsed", "only the last child"),
    Mutant(
        "last-name",
        "layer-names",
        "if id(model) not in names:",
        "if True:",
        "a module with two names keeps the last",
    ),
    Mutant(
        "bare-names", "layer-names", 'f"{name}.{child_name}" if name else child_name', "child_name", "no path"
    ),
    Mutant(
        "leading-dot",
        "layer-names",
        'f"{name}.{child_name}" if name else child_name',
        'f"{name}.{child_name}"',
        "dot",
    ),
    Mutant(
        "dotless-prefix", "totals", 'other.startswith(name + ".")', "other.startswith(name)", "1 and 10 mixed"
    ),
    Mutant("totals-without-self", "totals", "or other == name ", "", "leaves out the layer itself"),
    Mutant(
        "everything-on-root",
        "own-parameters",
        "max(owners, key=len)",
        "min(owners, key=len)",
        "all on the model",
    ),
    Mutant(
        "last-dot", "own-parameters", "max(owners, key=len)", 'name.rpartition(".")[0]', "lists of tensors"
    ),
    Mutant("tensors-not-numbers", "own-parameters", "+= p.numel()", "+= 1", "counts tensors"),
    Mutant(
        "buffers-counted",
        "own-parameters",
        "model.named_parameters()",
        "model.named_tensors()",
        "buffers are no parameters",
    ),
]
