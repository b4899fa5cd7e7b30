"""Wrong solutions of 09_spatial."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        "output-size-rounds-up",
        "output-size",
        "(size + 2 * padding - kernel) // stride + 1",
        "-(-(size + 2 * padding - kernel) // stride) + 1",
        "counts a last window that does not fit",
    ),
    Mutant("padding-once", "output-size", "2 * padding", "padding", "pads one side only"),
    Mutant("naive-missing-bias", "conv2d-naive", " + (0 if b is None else b[o])", "", "forgets the bias"),
    Mutant(
        "naive-ignores-stride",
        "conv2d-naive",
        "x[n, :, i * stride : i * stride + KH, j * stride : j * stride + KW]",
        "x[n, :, i : i + KH, j : j + KW]",
        "moves by one pixel whatever the stride",
    ),
    Mutant(
        "naive-all-zeros", "conv2d-naive", "(window * w[o]).sum()", "0 * (window * w[o]).sum()", "all zeros"
    ),
    Mutant(
        "windows-off-by-one-stride",
        "sliding-windows",
        "s[2] * stride, s[1], s[3]",
        "s[2], s[1], s[3]",
        "columns move by one pixel whatever the stride",
    ),
    Mutant(
        "im2col-wrong-padding",
        "im2col",
        "pad(x, *pair(padding))",
        "pad(x, pair(padding)[0], 0)",
        "pads rows only",
    ),
    Mutant(
        "im2col-forgets-padding", "im2col", "pad(x, *pair(padding))", "np.ascontiguousarray(x)", "no padding"
    ),
    Mutant("matmul-missing-bias", "conv2d-matmul", "y += b", "pass", "forgets the bias"),
    Mutant(
        "matmul-wrong-layout",
        "conv2d-matmul",
        "channels_first(y.reshape(N, OH, OW, O))",
        "y.reshape(N, O, OH, OW)",
        "right shape, mixed channels and positions",
    ),
    Mutant(
        "spread-off-by-one",
        "spread",
        "wide[:, :, ::stride, ::stride]",
        "wide[:, :, stride - 1 :: stride, stride - 1 :: stride]",
        "zeros before the gradients instead of between them",
    ),
    Mutant(
        "filter-not-flipped", "conv2d-input-gradient", "w[:, :, ::-1, ::-1]", "w", "the filter is not turned"
    ),
    Mutant(
        "filter-flipped-once",
        "conv2d-input-gradient",
        "w[:, :, ::-1, ::-1]",
        "w[:, :, ::-1]",
        "turned in height only",
    ),
    Mutant(
        "input-gradient-wrong-padding",
        "conv2d-input-gradient",
        "(KH - 1 - padding, KW - 1 - padding)",
        "(KW - 1 - padding, KH - 1 - padding)",
        "height and width swapped: the same for square kernels",
    ),
    Mutant(
        "zero-input-gradient",
        "conv2d-input-gradient",
        "return conv2d_forward(",
        "return 0 * conv2d_forward(",
        "a gradient of zeros has the right shape",
    ),
    Mutant(
        "weight-gradient-not-summed",
        "conv2d-weight-gradient",
        "sums[thread] +=",
        "sums[thread] =",
        "keeps the last block only",
    ),
    Mutant(
        "weight-gradient-transposed",
        "conv2d-weight-gradient",
        "transpose(3, 2, 0, 1)",
        "transpose(3, 2, 1, 0)",
        "filters with height and width swapped",
    ),
    Mutant(
        "weight-gradient-forgets-stride",
        "conv2d-weight-gradient",
        "KH, KW, stride, padding)",
        "KH, KW, 1, padding)",
        "windows at stride 1",
    ),
    Mutant(
        "layer-all-zeros",
        "conv2d",
        "return apply(conv2d_forward,",
        "return 0 * apply(conv2d_forward,",
        "an all-zero Conv2d",
    ),
    Mutant(
        "layer-missing-bias", "conv2d", "(x, self.weight, self.bias)", "(x, self.weight)", "forgets the bias"
    ),
    Mutant(
        "layer-missing-check",
        "conv2d",
        'check_images("Conv2d", x, self.weight.shape[2:], self.padding, self.weight.shape[1])',
        "pass",
        "no error for wrong images",
    ),
    Mutant(
        "layer-forgets-padding", "conv2d", "padding=self.padding)", "padding=0)", "padding is not passed on"
    ),
    Mutant(
        "layer-not-recorded",
        "conv2d",
        "apply(conv2d_forward, *inputs, stride=self.stride, padding=self.padding)",
        "Tensor(conv2d_forward(*[t.data for t in inputs], "
        "**{'stride': self.stride, 'padding': self.padding}))",
        "no gradient is recorded",
    ),
    Mutant(
        "max-starts-at-zero",
        "max-pool-block",
        "out[...] = images[window_entry(0, 0, OH, OW, stride)]",
        "out[...] = np.maximum(images[window_entry(0, 0, OH, OW, stride)], 0)",
        "negative windows give zero",
    ),
    Mutant(
        "max-misses-last",
        "max-pool-block",
        "range(1, kernel * kernel)",
        "range(1, kernel * kernel - 1)",
        "the last entry takes no part",
    ),
    Mutant("ties-counted-twice", "max-pool-block-gradient", "free ^= hit", "pass", "every tied entry gets g"),
    Mutant(
        "overlap-overwritten",
        "max-pool-block-gradient",
        "dx[entry] += g * hit",
        "dx[entry] = g * hit",
        "a pixel that wins two windows gets one gradient",
    ),
    Mutant(
        "average-is-sum",
        "avg-pool",
        "stride)] for i, j in entries) / kernel**2",
        "stride)] for i, j in entries)",
        "forgets to divide",
    ),
    Mutant("average-gradient-not-added", "avg-pool", "stride)] += g", "stride)] = g", "overlaps overwritten"),
    Mutant(
        "eps-after-root",
        "batch-norm-forward",
        "np.sqrt(var + eps)",
        "(np.sqrt(var) + eps)",
        "eps in the wrong place",
    ),
    Mutant(
        "norm-without-shift",
        "batch-norm-forward",
        "beta - mean * scale",
        "beta - mean",
        "the mean is not scaled",
    ),
    Mutant(
        "norm-mean-is-constant",
        "batch-norm-vjp",
        "dx[rows] -= mean_g",
        "pass",
        "no gradient through the mean",
    ),
    Mutant(
        "norm-variance-is-constant",
        "batch-norm-vjp",
        "dx[rows] -= centered",
        "pass",
        "no gradient through the variance",
    ),
    Mutant(
        "norm-evaluation-like-training",
        "batch-norm-vjp",
        "if batch:",
        "if True:",
        "running averages treated as functions of x",
    ),
    Mutant(
        "norm-dgamma-not-normalised",
        "batch-norm-vjp",
        "dgamma = g_centered * inverse",
        "dgamma = g_centered",
        "g times (x - mean) instead of xhat",
    ),
    Mutant(
        "biased-running-variance",
        "batch-norm-remember",
        "var * (count / (count - 1))",
        "var",
        "divides by the count",
    ),
    Mutant(
        "momentum-swapped",
        "batch-norm-remember",
        "self.momentum * (mean - self.running_mean.data)",
        "(1 - self.momentum) * (mean - self.running_mean.data)",
        "keeps the new instead of the old",
    ),
    Mutant(
        "running-changed-in-place",
        "batch-norm-remember",
        "self.running_mean.data = self.running_mean.data + ",
        "self.running_mean.data += ",
        "changes an array that someone may hold",
    ),
]
