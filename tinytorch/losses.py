"""Losses: one number that says how wrong a batch of predictions is.

Built by tito from lesson 04_losses: change the lesson, not this file.
"""

import numpy as np

from tinytorch.tensor import Tensor, apply

__all__ = [
    "mse_forward",
    "check_same_shape",
    "MSELoss",
    "log_softmax_forward",
    "log_softmax",
    "cross_entropy_forward",
    "check_targets",
    "CrossEntropyLoss",
    "bce_forward",
    "check_probabilities",
    "BCELoss",
]


def mse_forward(x, targets):
    """The mean of (x - targets)² over all elements; arrays of one shape, the result a number."""
    d = x - targets
    return np.mean(d * d)


def check_same_shape(name, x, targets):
    """Raise ValueError, with `name` in front, unless both have one shape and hold at least one number."""
    if x.shape != targets.shape:
        raise ValueError(
            f"{name}: predictions {x.shape} and targets {targets.shape} must have the same shape"
        )
    if 0 in x.shape:
        raise ValueError(f"{name}: expected at least one number, got shape {x.shape}")


class MSELoss:
    """Mean of the squared differences; predictions and targets (a tensor or array) of one shape.

    Raises ValueError for different shapes or an empty batch.
    """

    def __call__(self, x, targets):
        """x and targets of any one shape -> a tensor with a single number."""
        targets = targets if isinstance(targets, Tensor) else Tensor(targets)
        check_same_shape("MSELoss", x, targets)
        return apply(mse_forward, x, targets)

    def __repr__(self):
        return "MSELoss()"


def log_softmax_forward(x, axis):
    """log(softmax(x)) along `axis`, same shape as x; finite for all finite x."""
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def log_softmax(x, dim=-1):
    """log(softmax(x)) along `dim`, without ever taking the logarithm of a rounded zero."""
    return apply(log_softmax_forward, x, axis=dim)


def cross_entropy_forward(logits, targets, smoothing):
    """Logits (B, C), targets (B,) whole numbers -> the mean loss, and the log-probabilities (B, C).

    The gradient needs the latter again. `smoothing` is the share of the target spread over all classes.
    """
    log_p = log_softmax_forward(logits, axis=-1)
    loss = -np.mean(log_p[np.arange(len(targets)), targets])
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * np.mean(log_p)
    return loss, log_p


def check_targets(logits, targets):
    """Class indices as an int64 array (B,), for logits (B, C).

    Raises ValueError for wrong shapes, an empty batch, or a label that is not a whole number from 0 to C - 1
    (the message names it), TypeError for labels that are not numbers.
    """
    labels = np.asarray(targets)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise ValueError(
            "CrossEntropyLoss: expected logits (B, C) and targets (B,), B at least 1, "
            f"got {logits.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "biuf":
        raise TypeError(f"CrossEntropyLoss: expected class numbers as targets, got {labels.dtype}")
    classes = logits.shape[1]
    right = (labels == np.floor(labels)) & (labels >= 0) & (labels < classes)
    if not right.all():
        raise ValueError(
            f"CrossEntropyLoss: target {labels[~right][0]} is not a class; "
            f"expected whole numbers from 0 to {classes - 1}"
        )
    return labels.astype(np.int64)


class CrossEntropyLoss:
    """Mean of -log softmax(logits)[target]. Shapes: logits (B, C), targets (B,) whole numbers.

    With `label_smoothing` s the target is 1 - s on the right class plus s / C on every class (Szegedy et al.,
    2016). Raises ValueError for a smoothing outside [0, 1], wrong shapes, or a target that is not a class.
    """

    def __init__(self, label_smoothing=0.0):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: expected label_smoothing in [0, 1], got {label_smoothing}")
        self.label_smoothing = float(label_smoothing)

    def __call__(self, logits, targets):
        """Logits (B, C) and targets (B,) -> a tensor with a single number."""
        targets = check_targets(logits, targets)
        return apply(cross_entropy_forward, logits, targets=targets, smoothing=self.label_smoothing)

    def __repr__(self):
        return f"CrossEntropyLoss(label_smoothing={self.label_smoothing})"


def bce_forward(p, targets):
    """The mean of -(t log p + (1 - t) log(1 - p)) over arrays of one shape; logarithms are cut at -100."""
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    return -np.mean(targets * log_p + (1 - targets) * log_q)


def check_probabilities(name, what, values, advice=""):
    """Raise ValueError, naming the first of `values` that is not in [0, 1] (or is nan).

    `name` is the loss, `what` the values are, such as "targets"; `advice` ends the message.
    """
    values = np.asarray(values)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        raise ValueError(f"{name}: expected {what} in [0, 1], got {values[wrong].flat[0]:.4g}{advice}")


class BCELoss:
    """Mean of -(t log p + (1 - t) log(1 - p)); probabilities p and targets t of one shape, both in [0, 1].

    Logarithms are cut at -100, as in PyTorch. Raises ValueError for different shapes, an empty batch, or a
    value outside [0, 1], which it names.
    """

    def __call__(self, p, targets):
        """p and targets of any one shape -> a tensor with a single number."""
        targets = targets if isinstance(targets, Tensor) else Tensor(targets)
        check_same_shape("BCELoss", p, targets)
        check_probabilities("BCELoss", "probabilities", p, "; apply sigmoid first")
        check_probabilities("BCELoss", "targets", targets)
        return apply(bce_forward, p, targets)

    def __repr__(self):
        return "BCELoss()"
