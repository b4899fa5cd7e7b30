"""Wrong solutions of 15_quantization."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant("scale-not-absolute", "channel-scale", "np.abs(w).max", "w.max", "forgets negative weights"),
    Mutant(
        "scale-of-inputs",
        "channel-scale",
        "axis=tuple(range(1, w.ndim))",
        "axis=tuple(range(2, w.ndim + 1))[: w.ndim - 2] + (0,)",
        "one scale an input channel instead of an output channel",
    ),
    Mutant(
        "one-scale-for-all",
        "channel-scale",
        "np.abs(w).max(axis=tuple(range(1, w.ndim)))",
        "np.full(len(w), np.abs(w).max())",
        "the largest weight of the whole matrix",
    ),
    Mutant(
        "scale-one-code-too-many",
        "channel-scale",
        "largest_code(bits)",
        "(largest_code(bits) + 1)",
        "8 for 7",
    ),
    Mutant("codes-truncated", "codes", "np.rint(w", "np.trunc(w", "cuts off instead of rounding"),
    Mutant("codes-not-clipped", "codes", "-end, end)", "-128, 127)", "runs over the end of four bits"),
    Mutant(
        "decoded-in-int8",
        "codes",
        "codes.astype(np.float32) * column(scale, codes.ndim).astype(np.float32)",
        "(codes * column(scale, codes.ndim).astype(np.int8)).astype(np.float32)",
        "multiplies as small integers",
    ),
    Mutant(
        "best-is-first", "best-scale", "np.where(error < smallest, scale, best)", "whole", "never shrinks"
    ),
    Mutant(
        "best-for-all-channels",
        "best-scale",
        "error.sum(axis=tuple(range(1, w.ndim)))",
        "np.full(len(w), error.sum())",
        "one shrink for the whole matrix",
    ),
    Mutant("best-is-last", "best-scale", "np.minimum(error, smallest)", "smallest", "keeps the last scale"),
    Mutant(
        "best-of-squares", "best-scale", "scale)) ** 4", "scale)) ** 2", "squares instead of fourth powers"
    ),
    Mutant(
        "nibbles-swapped",
        "pack",
        "nibbles[0::2] | (nibbles[1::2] << 4)",
        "(nibbles[0::2] << 4) | nibbles[1::2]",
        "high nibble first",
    ),
    Mutant("odd-code-lost", "pack", "np.append(nibbles, np.uint8(0))", "nibbles[:-1]", "drops the last code"),
    Mutant(
        "unpacked-in-halves", "pack", "axis=1).reshape(-1)", "axis=0).reshape(-1)", "all low nibbles first"
    ),
    Mutant("offset-forgotten", "pack", " - np.int8(8)", "", "codes from 0 to 15"),
    Mutant(
        "codes-not-packed",
        "quantized-layer",
        "pack_int4(codes) if self.bits == 4 else codes",
        "codes",
        "a byte a code",
    ),
    Mutant(
        "scale-not-stored",
        "quantized-layer",
        "self.scale.data = scale",
        "self.scale.data = channel_scale(w, self.bits)",
        "its own scales",
    ),
    Mutant(
        "always-unpacked",
        "quantized-layer",
        "if self.bits == 4:\n            codes = unpack",
        "if True:\n            codes = unpack",
        "reads 8-bit codes as nibbles",
    ),
    Mutant(
        "no-way-down", "replace-layers", 'replace_layers(child, change, name + ".")', "pass", "only the top"
    ),
    Mutant(
        "names-without-path", "replace-layers", 'change, name + ".")', "change)", "names lose their prefix"
    ),
    Mutant(
        "replaced-is-walked",
        "replace-layers",
        "if new is child:",
        "if True:",
        "looks inside what was replaced",
    ),
    Mutant("child-stays", "replace-layers", "return new", "return child", "nothing is replaced"),
    Mutant("fold-bias-not-scaled", "folded", "b * s + beta", "b + beta", "the bias is not multiplied"),
    Mutant(
        "fold-forgets-mean",
        "folded",
        "(0 if b is None else b) - mean",
        "(0 if b is None else b) - 0 * mean",
        "no mean",
    ),
    Mutant("fold-eps-outside", "folded", "np.sqrt(var + eps)", "(np.sqrt(var) + eps)", "eps after the root"),
    Mutant(
        "grid-without-zero", "activation-grid", "min(float(lo), 0.0)", "float(lo)", "zero may be off the grid"
    ),
    Mutant(
        "grid-symmetric",
        "activation-grid",
        "round(-lo / scale)",
        "128",
        "the zero point is always the middle",
    ),
    Mutant("grid-256-steps", "activation-grid", "/ 255 or", "/ 256 or", "256 marks have 255 steps"),
    Mutant("grid-empty-range", "activation-grid", " or 1.0", "", "divides by zero where all is zero"),
    Mutant(
        "sum-in-one-piece",
        "integer-linear",
        "slice(start, start + EXACT)",
        "slice(0, q.shape[1] if start == 0 else 0)",
        "rounds in long sums",
    ),
    Mutant("pieces-overwritten", "integer-linear", "y += (", "y = (", "keeps the last piece"),
    Mutant("fake-not-clipped", "fake-quantize", "np.clip(y, low, high, out=y)", "pass", "runs over the ends"),
    Mutant("fake-zero-ignored", "fake-quantize", "y += zero", "pass", "the zero point is only subtracted"),
    Mutant("fake-floors", "fake-quantize", "np.rint(x / scale)", "np.floor(x / scale)", "rounds down"),
    Mutant(
        "all-gradients-pass",
        "straight-through",
        "((code >= low) & (code <= high))",
        "1",
        "also where clipped",
    ),
    Mutant("true-gradient", "straight-through", "g * ((code", "0 * g * ((code", "a staircase has slope zero"),
    Mutant(
        "ends-do-not-pass",
        "straight-through",
        "(code <= high)",
        "(code < high)",
        "the last mark counts as clipped",
    ),
    Mutant(
        "mask-forgets-zero",
        "straight-through",
        "np.rint(x / scale) + zero",
        "np.rint(x / scale)",
        "no zero point",
    ),
    Mutant(
        "weight-not-recorded",
        "fake-quantize-weight",
        "return apply(fake_quantize_forward, w, scale",
        "return apply(fake_quantize_forward, w.data, scale",
        "no gradient reaches the weight",
    ),
    Mutant(
        "weight-unrounded",
        "fake-quantize-weight",
        "return apply",
        "return w\n    return apply",
        "does nothing",
    ),
]
