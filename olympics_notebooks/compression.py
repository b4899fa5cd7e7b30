# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compression: the smallest network that still competes
#
# > The network of a compression entry: layers of your own tinytorch, stored in as few bytes as will do.
#
# A network that tells ten kinds of pictures apart is a file of numbers. Most of them need not be so exact, many need
# not be there at all. In this track you find out how far that goes: start from a network that works, and make its
# file as small as you can before it stops working.
#
# The gate is a file under 10 MB that loses less than 3 points of accuracy to the baseline; among the entries that
# pass it the smallest wins. Published networks for these pictures need less than a hundredth of the 10 MB.
#
# **You need:** modules 01 to 09, 15 and 16 completed, better still a vision entry. **Time:** an afternoon, most of it
# the machine's.
#
# What you hand in is this notebook, your compressed model, and the tinytorch that it runs on.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson compression

# %% nbgrader={"grade_id": "imports", "locked": true}
import time

import numpy as np
import matplotlib.pyplot as plt

import tinytorch
from autograder import datasets, leaderboard
from tito import olympics
from tito.figures import show
from tinytorch import AdamW, CosineSchedule, CrossEntropyLoss, Tensor, no_grad, train_loop
from tinytorch import Compose, DataLoader, RandomCrop, RandomFlip, TensorDataset, ToFloat
from tinytorch import DistillationLoss, prepare_qat, prune, quantize

# %% [markdown]
# ## The rules
#
# Read what a megabyte is worth: the scale is a logarithm, so below the record each halving of the file earns about
# as much as the one before. And read what a division is. *Closed* means that network and weights are derived from
# the file the course gives; *open* means any network and any training, which is what this notebook does.

# %% tags=["nbval-check-output"] nbgrader={"grade_id": "rules", "locked": true}
print(olympics.rules_text(olympics.rules.track("compression")))

# %% [markdown]
# ## The pictures
#
# The same as in vision: CIFAR-10 where `tito data fetch cifar10` has been run, else the handwritten `digits`, which
# train in seconds. Choose by the validation pictures that we cut from the training set; keep the public half for the
# end.

# %% nbgrader={"grade_id": "data", "locked": true}
DATASET = olympics.dataset("compression")  # "cifar10" where it is on this machine, else "digits"
train = datasets.load(DATASET, "train")
n_validation = len(train) // 10
print(train)

# %%
BATCH = 64 if DATASET == "digits" else 250

augment = [RandomCrop(2)] if DATASET == "digits" else [RandomCrop(2), RandomFlip()]
training = TensorDataset(train.images[n_validation:], train.labels[n_validation:])
validation = TensorDataset(train.images[:n_validation], train.labels[:n_validation])
loader = DataLoader(training, BATCH, shuffle=True, seed=1, drop_last=True, transform=Compose(*augment, ToFloat()))
validate = DataLoader(validation, 250, transform=ToFloat())

sample = train.images[:5000].astype(np.float32) / 255  # (5000, 3, 32, 32) in 0..1
MEAN = [round(float(m), 4) for m in sample.mean(axis=(0, 2, 3))]
STD = [round(float(s), 4) for s in sample.std(axis=(0, 2, 3))]

# %% [markdown]
# ## The network
#
# The network of your entry must stand in an `#| export` cell, for these cells become its `network.py`. If you have a
# vision entry, copy the export cell with its network here as it is: then the file that you trained there is where you
# start. If you have none, write one now, three groups of convolution, batch norm, activation and pooling and a linear
# layer, as vision.ipynb describes it:
#
# - `Network(width=...)` has `width`, 2 `width`, 4 `width` channels;
# - it takes images (N, 3, 32, 32) in 0..1, normalises them itself with `mean` and `std`, returns logits (N, 10).
#
# Put each convolution and its batch norm side by side in a `Sequential`: `quantize` then folds the norm into the
# convolution before it, and its four vectors leave the file.

# %% nbgrader={"grade_id": "network", "solution": true}
#| export
from tinytorch import BatchNorm2d, Conv2d, Flatten, GELU, Linear, MaxPool2d, Module, Sequential, Tensor


def conv_group(n_in, n_out):
    """Convolution, batch norm, activation, pooling by two: (N, n_in, H, W) -> (N, n_out, H/2, W/2)."""
    ### BEGIN SOLUTION
    return Sequential(Conv2d(n_in, n_out, 3, padding=1, bias=False), BatchNorm2d(n_out), GELU(), MaxPool2d(2))
    ### END SOLUTION


class Network(Module):
    """Images (N, 3, 32, 32) in 0..1 -> logits (N, 10)."""

    def __init__(self, width=32, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)):
        ### BEGIN SOLUTION
        self.mean = Tensor(list(mean)).reshape(3, 1, 1)
        self.std = Tensor(list(std)).reshape(3, 1, 1)
        self.groups = Sequential(
            conv_group(3, width), conv_group(width, 2 * width), conv_group(2 * width, 4 * width)
        )
        self.head = Sequential(Flatten(), Linear(4 * width * 4 * 4, 10))
        ### END SOLUTION

    def forward(self, x):
        """Normalise, three groups, then one linear layer."""
        ### BEGIN SOLUTION
        return self.head(self.groups((x - self.mean) / self.std))
        ### END SOLUTION


# %% nbgrader={"grade_id": "check-network", "locked": true}
images = np.random.default_rng(0).random((6, 3, 32, 32), dtype=np.float32)
shape = tuple(np.asarray(Network(width=4)(Tensor(images)).numpy()).shape)
assert shape == (6, 10), f"Network(...)(images of shape (6, 3, 32, 32)): expected logits (6, 10), got {shape}"
print("the network answers")

# %% [markdown]
# ## Where we start
#
# Your trained vision model if it is in this workspace, else a small network trained now. From here on it is called
# the teacher, and it stays as it is: every method below makes a copy.
#
# `fit` writes a checkpoint after every epoch and removes it at the end: interrupt it, run the cell again, and it goes
# on from there.

# %% tags=["train"]
EPOCHS = 4 if DATASET == "digits" else 12
WIDTH = 12 if DATASET == "digits" else 32

given = olympics.folder("vision") / "model.safetensors"
place = olympics.folder("compression")  # your workspace's compression folder
place.mkdir(exist_ok=True)


def fit(model, epochs, lr, name, loss_fn=None):
    """Train `model` for some epochs with a rate that rises and falls to `lr`; returns the history.

    An interrupted run goes on from its checkpoint, checkpoint-<name>.safetensors, when it is called again.
    """
    total = epochs * len(loader)
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=0.02)
    checkpoint = place / f"checkpoint-{name}.safetensors"
    plot = olympics.LivePlot(epochs, checkpoint)
    log = train_loop(
        model, plot.follow(loader), optimizer, epochs=epochs, loss_fn=loss_fn or CrossEntropyLoss(label_smoothing=0.1),
        schedule=CosineSchedule(lr, total, warmup=total // 10), clip_norm=1.0,
        callbacks=[plot], checkpoint=checkpoint, progress=False,
    )
    checkpoint.unlink()
    return log


# %% tags=["train"]
tinytorch.manual_seed(1)
history = []
if given.is_file():
    teacher = tinytorch.load(given)
    print(f"teacher: {given}")
else:
    teacher = Network(width=WIDTH, mean=MEAN, std=STD)
    history += fit(teacher, EPOCHS, 0.003, "teacher")
    print(f"teacher: trained here in {sum(entry['seconds'] for entry in history):.0f} s")
teacher = teacher.eval()

# %% [markdown]
# ## Measure first
#
# Two numbers decide here: how many validation pictures are right, and how many bytes the file has. Both are measured
# on the file as written and read again, never reckoned: a model in memory has no bytes. `weigh` keeps every result in
# a list, for the figure further down.


# %%
results = {}  # name -> (accuracy, bytes, model)


def accuracy(model):
    """Share of the validation pictures that a model gets right."""
    right = 0
    with no_grad():
        for x, y in validate:
            right += int((np.asarray(model(x).numpy()).argmax(axis=1) == np.asarray(y)).sum())
    return right / n_validation


def weigh(name, model, dtype="float16"):
    """Save a model, read it again, measure both figures of it and keep them under `name`."""
    path = place / "trial.safetensors"
    tinytorch.save(model, path, dtype=dtype)
    n_bytes, share = path.stat().st_size, accuracy(tinytorch.load(path).eval())
    path.unlink()
    results[name] = share, n_bytes, model
    print(f"{name:<28} {100 * share:5.1f}%  {n_bytes:>9,} bytes")


# %% tags=["train"]
weigh("teacher, float32", teacher, dtype=None)
weigh("teacher, float16", teacher)

# %% [markdown]
# ## Where the bytes are
#
# Before you save anywhere, look where the weight lies. Write `share_of_bytes(model)`: pairs (name, share) for every
# tensor of `model.state_dict()`, a dict from names to arrays, where the share is the tensor's part of all bytes;
# largest first.
#
# Example: for a model with a weight of 300 float32 numbers and a bias of 100 the answer is
# `[("weight", 0.75), ("bias", 0.25)]`.


# %% nbgrader={"grade_id": "share-of-bytes", "solution": true}
def share_of_bytes(model):
    """Pairs (name, share of all bytes) of a model's tensors, largest first."""
    ### BEGIN SOLUTION
    sizes = {name: array.nbytes for name, array in model.state_dict().items()}
    total = sum(sizes.values())
    return sorted(((name, n / total) for name, n in sizes.items()), key=lambda pair: -pair[1])
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-share-of-bytes", "locked": true}
found = [(str(name), float(share)) for name, share in share_of_bytes(Linear(30, 10))]
wanted = [("weight", 300 / 310), ("bias", 10 / 310)]
assert [name for name, _ in found] == [name for name, _ in wanted], f"expected weight, then bias, got {found}"
assert np.allclose([s for _, s in found], [s for _, s in wanted]), f"expected the shares 300/310, 10/310, got {found}"
print("the shares add up")

# %% tags=["train"]
for name, share in share_of_bytes(teacher)[:6]:
    print(f"{name:<28} {100 * share:5.1f}%")

# %% [markdown]
# A layer that holds four fifths of the bytes is the one to work on; a vector that holds a thousandth may stay exact.
# If most lies in the linear layer at the end, a mean over the last picture in its place (pooling down to 1 x 1) is
# the largest saving of all, and no method below will find it for you.
#
# ## Quantize
#
# `quantize` (15) writes weights as whole numbers of 8 or 4 bits, with a scale for each output channel. Nothing is
# trained. At 8 bits hardly any accuracy goes; at 4 bits some does, and more in a small network than in a large one.

# %% tags=["train"]
for bits in (8, 4):
    weigh(f"quantized, {bits} bits", quantize(teacher, bits=bits))

# %% [markdown]
# ## Prune
#
# `prune` (16) drops the weights of the smallest magnitude. A pruned file holds what is left and a bit for each place,
# so that at 4 bits a weight, pruning half saves less than half: 0.5 x 4 + 1 = 3 bits. Where does accuracy break? Your
# answer decides how far to go with fine-tuning.

# %% tags=["train"]
for sparsity in (0.5, 0.7, 0.9):
    weigh(f"pruned by {100 * sparsity:.0f}%, 8 bits", prune(quantize(teacher, bits=8), sparsity=sparsity))

# %% [markdown]
# ## Fine-tune at 4 bits
#
# Rounding after training takes the network by surprise. `prepare_qat` (15) gives a copy whose forward pass sees
# rounded weights while the exact ones learn: after an epoch or two at a small rate the network has made up for most
# of it. `quantize` then keeps exactly the weights that it was trained with.

# %% tags=["train"]
TUNE = 2
rounded = prepare_qat(teacher, bits=4)
history += fit(rounded, TUNE, 0.001, "rounded")
weigh("fine-tuned, 4 bits", quantize(rounded, bits=4))

# %% [markdown]
# ## Distill
#
# The methods so far make the same network cheaper. A smaller network is cheaper still, if only it can be taught. The
# teacher's logits say more than a label does: how much a 3 looks like an 8. `DistillationLoss` (16) takes the
# student's logits, the labels and the teacher's logits.
#
# Write `distill`: for `epochs` passes over `loader`, let the teacher answer each batch under `no_grad()`, and take a
# step with `DistillationLoss(temperature=4.0, alpha=0.7)`. Return one dict for each epoch with `"epoch"`, from 1,
# `"loss"`, the mean over its batches, and `"seconds"`; the training log is made of them. A batch of the loader is a
# pair (x, y), ready for the model.


# %% nbgrader={"grade_id": "distill", "solution": true}
def distill(student, teacher, loader, epochs, lr):
    """Train `student` on the labels and on the teacher's logits; returns a dict for each epoch."""
    optimizer = AdamW(student.parameters(), lr=lr, weight_decay=0.02)
    schedule = CosineSchedule(lr, epochs * len(loader), warmup=epochs * len(loader) // 10)
    loss_fn, log, step = DistillationLoss(temperature=4.0, alpha=0.7), [], 0
    student.train()
    for epoch in range(epochs):
        start, losses = time.perf_counter(), []
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.lr = schedule(step)
            ### BEGIN SOLUTION
            with no_grad():
                answer = teacher(x)
            loss = loss_fn(student(x), y, answer)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ### END SOLUTION
            losses.append(float(loss.numpy()))
            step += 1
        log.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), "seconds": time.perf_counter() - start})
    return log


# %% tags=["train"]
tinytorch.manual_seed(2)
student = Network(width=WIDTH // 2, mean=MEAN, std=STD)
history += distill(student, teacher, loader, EPOCHS, 0.003)
print("loss by epoch: " + ", ".join(f"{entry['loss']:.2f}" for entry in history[-EPOCHS:]))
weigh("student, float16", student.eval())
weigh("student, 8 bits", quantize(student, bits=8))

# %% [markdown]
# Both at once: two epochs at 4 bits, as above, with the student, and the teacher still there to answer.

# %% tags=["train"]
rounded = prepare_qat(student, bits=4)
history += distill(rounded, teacher, loader, TUNE, 0.001)
weigh("student, fine-tuned, 4 bits", quantize(rounded, bits=4))

# %% [markdown]
# ## Choose
#
# A result is on the *front* if no other is at least as accurate and at least as small, and better in one of the two.
# Everything else can be forgotten. Write `front(points)`: the names on the front, smallest file first, of a dict from
# names to pairs (accuracy, bytes).
#
# Example: `front({"a": (0.9, 100), "b": (0.8, 200), "c": (0.7, 50)})` is `["c", "a"]`; b is larger than a and worse.


# %% nbgrader={"grade_id": "front", "solution": true}
def front(points):
    """Names of the points (accuracy, bytes) that no other point beats, smallest file first."""
    ### BEGIN SOLUTION
    kept, best = [], -1.0
    for name, (share, _) in sorted(points.items(), key=lambda item: (item[1][1], -item[1][0])):
        if share > best:
            kept.append(name)
            best = share
    return kept
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-front", "locked": true}
found = list(front({"a": (0.9, 100), "b": (0.8, 200), "c": (0.7, 50)}))
assert found == ["c", "a"], f'expected ["c", "a"], got {found}'
found = list(front({"a": (0.9, 100), "b": (0.9, 80), "c": (0.95, 80)}))
assert found == ["c"], f'expected ["c"], which is as small as any and more accurate, got {found}'
print("the front is right")

# %% [markdown]
# The grey crosses are published results on CIFAR-10, weights alone: ResNet-20 and ResNet-56 with 2 to 4 bits a weight
# (Li, Dong and Wang, 2020), a ResNet-8 in 8 bits (Banbury and others, 2021), and the record of this course. They
# compare with your points where those are CIFAR-10 too; on digits they only say what order of size is small.
# Filled circles on the line are the front, empty ones lie behind it; what is below 70% is left out.

# %% tags=["train"]
points = {name: (share, n_bytes) for name, (share, n_bytes, _) in results.items()}
best = front(points)
figure, axis = plt.subplots(figsize=(10, 5))
known = [(name, 100 * share, n) for name, share, n in leaderboard.SEED_RECORDS["compression", "cifar10"]]
mine = [(name, 100 * share, n) for name, (share, n) in points.items()]
for number, (name, percent, n_bytes) in enumerate(mine + known, start=1):
    color = "0.4" if number > len(mine) else "#0072B2" if name in best else "#D55E00"
    axis.plot(n_bytes / 1e6, percent, "x" if number > len(mine) else "o", color=color, label=f"{number}  {name}",
              fillstyle="full" if name in best else "none")
    axis.annotate(number, (n_bytes / 1e6, percent), (0, 6), textcoords="offset points", ha="center", fontsize=10,
                  annotation_clip=True)
axis.plot([points[name][1] / 1e6 for name in best], [100 * points[name][0] for name in best], "-", color="#0072B2", lw=1)
axis.set(xscale="log", xlabel="file, MB", ylabel="accuracy, %", ylim=(70, 100), title=f"{DATASET}, validation")
figure.legend(loc="outside right upper", fontsize=9, handlelength=1, title="crosses: published, CIFAR-10")
told = "; ".join(f"{name}: {percent:.1f}% in {n_bytes / 1e6:.3g} MB" for name, percent, n_bytes in mine if name in best)
show(figure, alt=f"Accuracy against the size of the file, on a logarithmic axis. On the front of your own: {told}.")

# %% [markdown]
# The smallest file wins among those that pass the gate, and a file just past the gate on the validation pictures may
# fall short of it on the private ones. Keep some distance: below we take the smallest result that loses less than two
# points to the teacher. Choose another, by name, when you know better.

# %% tags=["train"]
enough = points["teacher, float32"][0] - 0.02
chosen = next(name for name in best if points[name][0] >= enough)
print(f"chosen: {chosen}, {100 * points[chosen][0]:.1f}%, {points[chosen][1]:,} bytes")

# %% [markdown]
# ## Save
#
# Three files beside this notebook: `model.safetensors` with what is left of the weights, `network.py` with your
# export cells, and `training.json` with the log and the division. If your teacher is your vision entry, its own
# training is in the log of that entry; add those seconds here if you trained it for this.
#
# For the closed division start from `course/entries/vision`, and declare
# `division="closed", checkpoint=...` with the SHA-256 that the rules ask for.

# %% tags=["train"]
tinytorch.save(results[chosen][2], place / "model.safetensors", dtype="float16")
olympics.save_network("compression")
olympics.save_training("compression", history, division="open")
print(f"{sum(entry['seconds'] for entry in history):.0f} s of training in {len(history)} epochs")

# %% [markdown]
# ## Benchmark
#
# As the grader will measure: your saved file in a sandbox that has your tinytorch, NumPy and nothing else, on the
# public half. Accuracy is shown as the points that you lost to the baseline; a figure below zero says that you lost
# none. Speed counts here too: a compressed layer that is unpacked once, before the first picture, is as fast as the
# exact one.

# %% nbgrader={"grade_id": "accuracy", "grade": true, "points": 40}
olympics.grade_cell("compression", "accuracy")

# %% nbgrader={"grade_id": "speed", "grade": true, "points": 20}
olympics.grade_cell("compression", "speed")

# %% nbgrader={"grade_id": "size", "grade": true, "points": 20}
olympics.grade_cell("compression", "size")

# %% nbgrader={"grade_id": "quality", "grade": true, "points": 10}
olympics.grade_cell("compression", "quality")

# %% [markdown]
# Where would the next bytes come from? Some ideas, none of which is free: a mean over the last picture in place of
# the large linear layer; 4 bits for the layers that bear it and 8 for the others; `prune_channels`, which makes the
# network faster as well; pruning a little, tuning, pruning again; a student taught by several teachers; distillation
# and rounding at once from the first epoch.
#
# ## Report
#
# This answer is read by a person and earns up to 10 points for innovation. The figure itself is not what counts here:
# say what your idea was, how you tested it, and what came out, also where it failed.

# %% [markdown] nbgrader={"grade_id": "innovation", "grade": true, "solution": true, "points": 10}
# **What I built.** The entry in three sentences: where it starts, what was done to it, its bytes by layer.
#
# **What I tried.** A table with one row for each experiment: what was changed, accuracy and bytes before and after,
# seconds of training. At least three rows, one of them a failure.
#
# **What is new.** The idea that is yours, and the measurement that shows what it does.
#
# **What breaks first.** The method that you pushed until it failed, and the figure at which it did.
#
# **What I would do with another hour.**

# %% [markdown]
# ## Hand in
#
# Save this notebook first (Ctrl-S), for the file is what gets packed. Then, in a terminal in your workspace:
#
# ```
# tito olympics submit --track compression
# ```
#
# It packs this notebook, the model, `network.py`, `training.json` and a snapshot of your tinytorch, tries in the
# sandbox whether the model loads, and hands everything to nbgrader or writes a zip. You may hand in as often as you
# like; the last one counts. `tito olympics leaderboard --track compression` shows the board when grades are out.
