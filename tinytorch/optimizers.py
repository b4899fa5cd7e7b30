"""Optimizers: rules that turn gradients into steps.

Built by tito from lesson 06_optimizers: change the lesson, not this file.
"""

import math

import numpy as np

from tinytorch.tensor import Tensor

__all__ = ["Optimizer", "check_setting", "read_state", "SGD", "Adam", "AdamW"]


class Optimizer:
    """A rule that changes parameters by their gradients. Subclasses write `update(p, g, state)`.

    `parameters` is a list of tensors, such as model.parameters(); a tensor that comes twice counts once.
    `lr` is the learning rate and may be set at any time; `weight_decay` pulls weights towards 0. Raises
    TypeError for anything but tensors, ValueError for an empty list and for negative or non-finite numbers.
    """

    def __init__(self, parameters, lr, weight_decay=0.0):
        name = type(self).__name__
        if isinstance(parameters, Tensor) or not hasattr(parameters, "__iter__"):
            kind = type(parameters).__name__
            raise TypeError(
                f"{name}: expected a list of tensors, got a {kind}; pass model.parameters() or [tensor]"
            )
        self.parameters = list({id(p): p for p in parameters}.values())
        for p in self.parameters:
            if not isinstance(p, Tensor):
                raise TypeError(
                    f"{name}: expected tensors, got a {type(p).__name__}; pass model.parameters()"
                )
        if not self.parameters:
            raise ValueError(f"{name}: no parameters to optimise; pass model.parameters()")
        self.lr = check_setting(name, "lr", lr)
        self.weight_decay = check_setting(name, "weight_decay", weight_decay)
        self.state = [{} for _ in self.parameters]  # what the rule remembers for each parameter

    def update(self, p, g, state):
        """How much to take off the parameter array `p` with gradient `g`; may keep arrays in `state`."""
        raise NotImplementedError(f"{type(self).__name__}: write its update method")

    def zero_grad(self):
        """Forget all gradients; the next backward starts from nothing."""
        for p in self.parameters:
            p.grad = None

    def step(self):
        """Change every parameter that has a gradient, in place, by its rule."""
        self.lr = float(self.lr)
        gradients = [None if p.grad is None else np.asarray(p.grad.data, p.dtype) for p in self.parameters]
        for p, g, state in zip(self.parameters, gradients, self.state, strict=True):
            if g is not None:
                p.data -= self.update(p.data, g, state)

    def decayed(self, p, g):
        """The gradient `g` of the array `p` with that of ½ weight_decay p² added (L2 regularisation)."""
        return g + self.weight_decay * p if self.weight_decay else g

    def state_dict(self):
        """What the rule remembers, as a flat dict of arrays: "lr", and "<number of the parameter>.<name>"."""
        arrays = {f"{i}.{name}": np.array(v) for i, s in enumerate(self.state) for name, v in s.items()}
        return {"lr": np.array(self.lr), **arrays}

    def load_state_dict(self, state):
        """Remember again what `state_dict` gave; the rule then goes on exactly where it was.

        Raises ValueError, and changes nothing, where `state` lacks "lr" or does not fit these parameters.
        """
        if "lr" not in state:
            raise ValueError(
                f"load_state_dict: expected what state_dict gave, with 'lr'; got the keys {sorted(state)}"
            )
        remembered = [{} for _ in self.parameters]
        for key, value in state.items():
            if key != "lr":
                i, name, value = read_state(key, value, self.parameters)
                remembered[i][name] = value
        self.lr, self.state = float(state["lr"]), remembered


def check_setting(owner, name, value):
    """`value` as a Python float, or ValueError unless it is a finite number >= 0.

    A float of Python keeps float32 arrays float32; a float64 number of NumPy would turn them into float64.
    """
    if not 0 <= value < math.inf:
        raise ValueError(f"{owner}: expected {name} >= 0 and finite, got {value}")
    return float(value)


def read_state(key, value, parameters):
    """(i, name, value) of one entry "i.name" of a state dict: a whole number as int, an array as a copy.

    Raises ValueError, with the key, for a parameter that is not there and for an array of another shape
    than its.
    """
    number, _, name = key.partition(".")
    if not number.isdigit() or int(number) >= len(parameters):
        raise ValueError(
            f"load_state_dict: {key!r} fits none of the {len(parameters)} parameters of this optimizer"
        )
    value, shape = np.array(value), parameters[int(number)].shape
    if value.dtype.kind in "iu" and value.ndim == 0:
        return int(number), name, int(value)
    if value.shape != shape:
        raise ValueError(f"load_state_dict: {key!r} has shape {value.shape}, its parameter {shape}")
    return int(number), name, value


class SGD(Optimizer):
    """Gradient descent with momentum, Nesterov's variant and weight decay, as PyTorch defines them.

    Keeps one array for each parameter with momentum, none without. Raises ValueError for nesterov without
    momentum.
    Source: Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
    """

    def __init__(self, parameters, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        self.momentum, self.nesterov = check_setting("SGD", "momentum", momentum), nesterov
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs momentum > 0, such as 0.9")

    def velocity(self, g, state):
        """momentum times the old velocity, plus g; kept as state["momentum"] for the next time."""
        old = state.get("momentum")
        state["momentum"] = np.array(g) if old is None else self.momentum * old + g
        return state["momentum"]

    def update(self, p, g, state):
        """lr times: the decayed gradient, or its velocity v, or with Nesterov g + momentum v."""
        g = self.decayed(p, g)
        if not self.momentum:
            return self.lr * g
        v = self.velocity(g, state)
        return self.lr * (g + self.momentum * v if self.nesterov else v)


class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square, as PyTorch defines it.

    Keeps two arrays for each parameter. `weight_decay` is added to the gradient; AdamW keeps it apart.
    Raises ValueError for betas outside [0, 1). Source: Kingma and Ba, Adam: a method for stochastic
    optimization, 2015.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr, weight_decay)
        name = type(self).__name__
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"{name}: expected two betas in [0, 1), got {betas}")
        self.betas, self.eps = tuple(float(beta) for beta in betas), check_setting(name, "eps", eps)

    def moments(self, g, state):
        """(t, m, v) after one more gradient g: how many there were, their mean, the mean of their squares.

        All three are kept in `state` under these names; the means start at 0 and are not yet corrected for
        that. With g = 2 and the usual betas, the first are 1, 0.2, 0.004.
        """
        beta1, beta2 = self.betas
        state["t"] = state.get("t", 0) + 1
        state["m"] = beta1 * state.get("m", 0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * g * g
        return state["t"], state["m"], state["v"]

    def adam_step(self, g, state):
        """lr * m / (sqrt(v) + eps), with both means corrected for their start at zero."""
        beta1, beta2 = self.betas
        t, m, v = self.moments(g, state)
        return self.lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + self.eps)

    def update(self, p, g, state):
        """Adam's step for the decayed gradient."""
        return self.adam_step(self.decayed(p, g), state)


class AdamW(Adam):
    """Adam whose weight decay shrinks the weights themselves, apart from the gradient.

    Keeps two arrays for each parameter. Source: Loshchilov and Hutter, Decoupled weight decay
    regularization, 2019.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr, betas, eps, weight_decay)

    def update(self, p, g, state):
        """Adam's step for the gradient alone, plus lr * weight_decay * p."""
        return self.adam_step(g, state) + self.lr * self.weight_decay * p
