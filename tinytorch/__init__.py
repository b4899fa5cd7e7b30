"""TinyTorch: a deep-learning package on NumPy, written notebook by notebook.

Every public name is served from here and imported when it is first asked for. A name whose notebook is not
completed yet raises NotBuilt, which says what to run. TINYTORCH_BEFORE=NN hides module NN and those after it,
so that a notebook uses its own cells and never the built copy of itself.

Built by tito from the lessons: change them, not this file.
"""

import os
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

_LESSONS = {
    "tensor": "01",
    "activations": "02",
    "layers": "03",
    "losses": "04",
    "autograd": "05",
    "optimizers": "06",
    "training": "07",
    "dataloader": "08",
    "spatial": "09",
    "acceleration": "18",
}
_HOMES = {
    "Tensor": "tensor",
    "apply": "tensor",
    "arange": "tensor",
    "as_array": "tensor",
    "as_shape": "tensor",
    "broadcast_shape": "tensor",
    "concatenate": "tensor",
    "concatenate_forward": "tensor",
    "default_rng": "tensor",
    "manual_seed": "tensor",
    "normalize_dim": "tensor",
    "ones": "tensor",
    "rand": "tensor",
    "randn": "tensor",
    "set_recorder": "tensor",
    "zeros": "tensor",
    "BLOCK": "activations",
    "GELU": "activations",
    "ReLU": "activations",
    "Sigmoid": "activations",
    "Softmax": "activations",
    "Tanh": "activations",
    "blockwise": "activations",
    "gelu": "activations",
    "gelu_block": "activations",
    "gelu_forward": "activations",
    "num_threads": "activations",
    "parallel_for": "activations",
    "relu": "activations",
    "relu_forward": "activations",
    "set_num_threads": "activations",
    "sigmoid": "activations",
    "sigmoid_forward": "activations",
    "softmax": "activations",
    "softmax_forward": "activations",
    "tanh": "activations",
    "Dropout": "layers",
    "Flatten": "layers",
    "Linear": "layers",
    "Module": "layers",
    "Sequential": "layers",
    "build_model": "layers",
    "describe_model": "layers",
    "load": "layers",
    "save": "layers",
    "uniform": "layers",
    "write_atomically": "layers",
    "BCELoss": "losses",
    "CrossEntropyLoss": "losses",
    "MSELoss": "losses",
    "bce_forward": "losses",
    "check_probabilities": "losses",
    "check_same_shape": "losses",
    "check_targets": "losses",
    "cross_entropy_forward": "losses",
    "log_softmax": "losses",
    "log_softmax_forward": "losses",
    "mse_forward": "losses",
    "NOT_DIFFERENTIABLE": "autograd",
    "Node": "autograd",
    "VJP": "autograd",
    "abs_vjp": "autograd",
    "add_vjp": "autograd",
    "backward": "autograd",
    "bce_vjp": "autograd",
    "check_usable": "autograd",
    "concatenate_vjp": "autograd",
    "cross_entropy_vjp": "autograd",
    "directional_difference": "autograd",
    "divide_vjp": "autograd",
    "exp_vjp": "autograd",
    "first_gradient": "autograd",
    "gelu_vjp": "autograd",
    "gelu_vjp_block": "autograd",
    "getitem_vjp": "autograd",
    "gradcheck": "autograd",
    "input_gradients": "autograd",
    "is_grad_enabled": "autograd",
    "log_softmax_vjp": "autograd",
    "log_vjp": "autograd",
    "matmul_vjp": "autograd",
    "max_vjp": "autograd",
    "mean_vjp": "autograd",
    "mse_vjp": "autograd",
    "multiply_vjp": "autograd",
    "negative_vjp": "autograd",
    "no_grad": "autograd",
    "power_vjp": "autograd",
    "record": "autograd",
    "relu_vjp": "autograd",
    "reshape_vjp": "autograd",
    "restore_axes": "autograd",
    "sigmoid_vjp": "autograd",
    "softmax_vjp": "autograd",
    "sqrt_vjp": "autograd",
    "subtract_vjp": "autograd",
    "sum_vjp": "autograd",
    "tanh_vjp": "autograd",
    "topological_order": "autograd",
    "transpose_vjp": "autograd",
    "unbroadcast": "autograd",
    "vjp": "autograd",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "Optimizer": "optimizers",
    "SGD": "optimizers",
    "check_setting": "optimizers",
    "read_state": "optimizers",
    "ConstantSchedule": "training",
    "CosineSchedule": "training",
    "LinearSchedule": "training",
    "accuracy": "training",
    "clip_grad_norm": "training",
    "epoch_entry": "training",
    "evaluate": "training",
    "evaluation_mode": "training",
    "load_checkpoint": "training",
    "save_checkpoint": "training",
    "train_epoch": "training",
    "train_loop": "training",
    "train_step": "training",
    "Compose": "dataloader",
    "Cutout": "dataloader",
    "DataLoader": "dataloader",
    "Dataset": "dataloader",
    "Normalize": "dataloader",
    "RandomCrop": "dataloader",
    "RandomFlip": "dataloader",
    "TensorDataset": "dataloader",
    "ToFloat": "dataloader",
    "as_tensor": "dataloader",
    "AvgPool2d": "spatial",
    "BLOCK_BYTES": "spatial",
    "BatchNorm2d": "spatial",
    "Conv2d": "spatial",
    "MaxPool2d": "spatial",
    "Pool2d": "spatial",
    "ROW_BLOCK": "spatial",
    "average_windows": "spatial",
    "average_windows_gradient": "spatial",
    "avg_pool2d_forward": "spatial",
    "avg_pool2d_vjp": "spatial",
    "batch_norm_forward": "spatial",
    "batch_norm_vjp": "spatial",
    "channel_statistics": "spatial",
    "channels_first": "spatial",
    "channels_last": "spatial",
    "check_images": "spatial",
    "column_sums": "spatial",
    "conv2d_forward": "spatial",
    "conv2d_input_gradient": "spatial",
    "conv2d_naive": "spatial",
    "conv2d_naive_gradients": "spatial",
    "conv2d_vjp": "spatial",
    "conv2d_weight_gradient": "spatial",
    "filter_matrix": "spatial",
    "im2col": "spatial",
    "image_blocks": "spatial",
    "keep_freed_memory": "spatial",
    "max_pool2d_forward": "spatial",
    "max_pool2d_vjp": "spatial",
    "max_pool_block": "spatial",
    "max_pool_block_gradient": "spatial",
    "output_size": "spatial",
    "pad": "spatial",
    "pair": "spatial",
    "pixel_matrix": "spatial",
    "row_blocks": "spatial",
    "scratch": "spatial",
    "set_convolution": "spatial",
    "sliding_windows": "spatial",
    "spread": "spatial",
    "window_entry": "spatial",
    "ACTIVATIONS": "acceleration",
    "AT": "acceleration",
    "Accelerated": "acceleration",
    "BLOCK_BUDGET": "acceleration",
    "BT": "acceleration",
    "Chain": "acceleration",
    "FastConv2d": "acceleration",
    "FusedSequential": "acceleration",
    "G": "acceleration",
    "MOVE_COST": "acceleration",
    "accelerate": "acceleration",
    "attainable": "acceleration",
    "batch_norm_line": "acceleration",
    "best_rate": "acceleration",
    "block_size": "acceleration",
    "chain_end": "acceleration",
    "check_fused": "acceleration",
    "choose_path": "acceleration",
    "conv2d_cost": "acceleration",
    "conv2d_fused": "acceleration",
    "differences": "acceleration",
    "fast_twin": "acceleration",
    "finish_block": "acceleration",
    "fold_line": "acceleration",
    "kind_of": "acceleration",
    "measure_bandwidth": "acceleration",
    "measure_peak": "acceleration",
    "over_blocks": "acceleration",
    "patch_rows": "acceleration",
    "prepare_filters": "acceleration",
    "product_block": "acceleration",
    "sums": "acceleration",
    "use_winograd": "acceleration",
    "winograd_block": "acceleration",
    "winograd_filters": "acceleration",
    "winograd_or_none": "acceleration",
    "winograd_outputs": "acceleration",
    "winograd_patches": "acceleration",
    "winograd_tile": "acceleration",
}


class NotBuilt(ImportError):
    """A name or module of a notebook that is not completed yet; the message says which and what to run."""

    def _render_traceback_(self):  # IPython shows this one line instead of a traceback
        return [f"NotBuilt: {self}"]


def _hidden(module):
    before = os.environ.get("TINYTORCH_BEFORE", "")
    return before.isdigit() and int(_LESSONS[module]) >= int(before)


def _available(module):
    return Path(__file__).with_name(f"{module}.py").exists() and not _hidden(module)


def _require(module, wanted):
    """Raise NotBuilt, for the name `wanted`, unless its module is built and not hidden."""
    if _available(module):
        return
    number = _LESSONS[module]
    home = f"module {number} ({number}_{module})"
    if not _hidden(module):
        todo = f"run its notebook, then `tito module complete {number}`"
        raise NotBuilt(f"{wanted} is built in {home}: {todo}.")
    if int(number) == int(os.environ["TINYTORCH_BEFORE"]):
        raise NotBuilt(f"{wanted} is built in {home}, this notebook: use its cells, without an import.")
    raise NotBuilt(f"{wanted} is built in {home}, after this notebook.")


class _Guard(MetaPathFinder):
    """Makes `from tinytorch.spatial import Conv2d` fail as readably as `from tinytorch import Conv2d`."""

    package = __name__

    def find_spec(self, fullname, path=None, target=None):
        parent, _, module = fullname.rpartition(".")
        if parent == self.package and module in sys.modules[parent]._LESSONS:
            sys.modules[parent]._require(module, fullname)
        return None  # the usual finders import it


def __getattr__(name):
    if name in _LESSONS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _require(_HOMES[name], name)
    module = import_module(f"{__name__}.{_HOMES[name]}")
    if not hasattr(module, name):
        todo = f"run `tito module complete {_LESSONS[_HOMES[name]]}` again"
        raise NotBuilt(f"{name} is not in {module.__file__}: {todo}.")
    return getattr(module, name)


def __dir__():
    return [*globals(), *__all__]


__all__ = [name for name, module in _HOMES.items() if _available(module)]
if not any(getattr(finder, "package", None) == __name__ for finder in sys.meta_path):
    sys.meta_path.insert(0, _Guard())
if _available("autograd"):  # gradients are on as soon as autograd is built
    import_module(f"{__name__}.autograd")
