"""What the tests of all modules share: one way to hold an operation against an independent reference."""

import numpy as np

from tinytorch import Tensor, gradcheck


def check_op(fn, reference, shapes, *, draw=None, gradients=True, tolerance=1e-5, seed=0):
    """Check `fn(*tensors)` against `reference(*arrays)`, and its gradients against finite differences.

    The inputs have the shapes in `shapes`; `draw(rng, shape)` makes each, standard normal numbers by default.
    Values are compared in float32 (to `tolerance`) and in float64 (to 1e-10), gradients in float64. The
    result must keep the dtype of its inputs.
    """
    rng = np.random.default_rng(seed)
    draw = draw or (lambda rng, shape: rng.standard_normal(shape))
    inputs = [np.asarray(draw(rng, shape)) for shape in shapes]
    for dtype, limit in ((np.float32, tolerance), (np.float64, 1e-10)):
        arrays = [x.astype(dtype) for x in inputs]
        got = fn(*(Tensor(x, dtype=dtype) for x in arrays)).numpy()
        expected = np.asarray(reference(*(x.astype(np.float64) for x in arrays)))
        assert got.dtype == dtype, f"expected {np.dtype(dtype)}, got {got.dtype}"
        assert got.shape == expected.shape, f"expected shape {expected.shape}, got {got.shape}"
        np.testing.assert_allclose(got, expected, rtol=limit, atol=limit)
    if gradients:
        assert gradcheck(fn, [Tensor(x, dtype=np.float64) for x in inputs])
