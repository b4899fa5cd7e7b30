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
# # Vision: ten classes, your own network
#
# > The network of a vision entry: layers of your own tinytorch, arranged to tell ten kinds of pictures apart.
#
# In modules 01 to 09 you built a library. Here you use it for something that anyone can check: a picture goes in,
# one of ten classes comes out, and the harness that grades you counts how often it is right.
#
# The task is CIFAR-10: 50,000 small colour photographs to learn from, 10,000 more to be judged on. The gate is 80%
# of them right; the record to beat is 82%. A network that fits in 8 MB and trains for less than two hours on two
# processor cores is enough for both.
#
# **You need:** modules 01 to 09 completed (`tito module status` shows them). **Time:** an afternoon, most of it the
# machine's.
#
# What you hand in is this notebook, your trained model, and the tinytorch that it runs on.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson vision

# %% nbgrader={"grade_id": "imports", "locked": true}
import numpy as np
import matplotlib.pyplot as plt

import tinytorch
from autograder import datasets
from tito import olympics
from tito.figures import show
from tinytorch import AdamW, CosineSchedule, CrossEntropyLoss, Tensor, no_grad, save_checkpoint, train_loop
from tinytorch import Compose, DataLoader, RandomCrop, RandomFlip, TensorDataset, ToFloat

# %% [markdown]
# ## The rules
#
# They stand in one table, which the harness, the handbook and this cell all read. Read the last lines twice: they say
# what a figure is worth. Past the record, a point of accuracy gets expensive, and a model of half the size or twice
# the speed may be the cheaper way up.

# %% tags=["nbval-check-output"] nbgrader={"grade_id": "rules", "locked": true}
print(olympics.rules_text(olympics.rules.track("vision")))

# %% [markdown]
# ## The pictures
#
# `tito data fetch cifar10` downloads them once (170 MB). Without them this notebook works on `digits`: 1,797 real
# handwritten digits in the same shape, which train in seconds. Begin on digits until everything runs from top to
# bottom, then fetch CIFAR-10 and run it again; it is CIFAR-10 that is graded.
#
# The test pictures come in two halves. The *public* half is yours for checking. The *private* half decides the rank,
# so whatever you tune to the public half by trying often enough will not help you there. Choose by the validation
# pictures, which we cut from the training set below.

# %% nbgrader={"grade_id": "data", "locked": true}
DATASET = olympics.dataset()  # "cifar10" where it is on this machine, else "digits"
train, public = datasets.load(DATASET, "train"), datasets.load(DATASET, "public")
n_validation = len(train) // 10
print(train, public, sep="\n")

# %% [markdown]
# Look at what you are about to learn, always. What would you miss at 32 by 32 pixels? Which two classes would you
# mix up yourself?


# %%
def show_images(images, titles, alt, columns=10):
    """Draw uint8 images (N, 3, 32, 32) in rows, each under its title; `alt` says what there is to see."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns, 1.45 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles):
        axis.imshow(image.transpose(1, 2, 0))
        axis.set_title(title, fontsize=9)
    show(figure, alt)


# %% tags=["measure"]
one_of_each = [int(np.flatnonzero(train.labels == c)[k]) for k in range(3) for c in range(10)]
show_images(
    train.images[one_of_each],
    [train.classes[train.labels[i]] for i in one_of_each],
    alt=f"Thirty training pictures of 32 by 32 pixels, three of each class: {', '.join(train.classes)}.",
)

# %% [markdown]
# ## From pictures to batches
#
# Images are stored as bytes, 0 to 255; networks like numbers around zero. The harness gives your model float32 in 0
# to 1, so whatever else you want done to an image, the model must do itself. One thing is settled first: the mean and
# the standard deviation of the training pixels, a number for each colour.

# %% nbgrader={"grade_id": "statistics", "locked": true}
sample = train.images[:5000].astype(np.float32) / 255  # (5000, 3, 32, 32) in 0..1
MEAN = [round(float(m), 4) for m in sample.mean(axis=(0, 2, 3))]
STD = [round(float(s), 4) for s in sample.std(axis=(0, 2, 3))]
MEAN, STD

# %% [markdown]
# Augmentation (08) shows the network each image a little differently every time, so that it cannot learn the pixels
# by heart. A photograph moved by two pixels, or seen in a mirror, still shows the same thing; a mirrored 2 is not a 2.
# Decide for each data set.
#
# Validation images are never augmented: they stand for what the harness will show.

# %%
BATCH = 64 if DATASET == "digits" else 250

augment = [RandomCrop(2)] if DATASET == "digits" else [RandomCrop(2), RandomFlip()]
training = TensorDataset(train.images[n_validation:], train.labels[n_validation:])
validation = TensorDataset(train.images[:n_validation], train.labels[:n_validation])
loader = DataLoader(training, BATCH, shuffle=True, seed=1, drop_last=True, transform=Compose(*augment, ToFloat()))
validate = DataLoader(validation, 250, transform=ToFloat())
x, y = next(iter(loader))
x.shape, y.shape

# %% [markdown]
# ## Design the network
#
# The usual shape of such a network: convolutions see small patches; pooling halves height and width, so that a window
# of the next convolution covers twice as much of the image; channels grow as the image shrinks; at the end one linear
# layer turns what is left into ten logits.
#
# A sound starting point: three groups of convolution, batch norm, activation and pooling, with 32, 64 and 128
# channels. Each group halves 32 x 32 pixels: 16, 8, and 4 x 4 are left for the linear layer, in every one of the 128
# channels; `Flatten` puts them in a row. Count before you train: a 3 x 3 convolution from C to D channels has 9 C D
# weights, and uses each of them once for every pixel.
#
# Write `conv_group`, one such group, and `Network` so that
#
# - `Network()` builds it, and `Network(width=...)` scales its channels: `width`, 2 `width`, 4 `width`;
# - it takes images (N, 3, 32, 32) in 0..1, normalises them itself with `mean` and `std`, and returns logits (N, 10);
#   keep both as attributes, tensors of shape (3, 1, 1), and they are saved with the model;
# - everything it uses is imported or defined in an `#| export` cell, for these cells become your `network.py`.
#
# Example: `Network(width=8)(Tensor(np.zeros((2, 3, 32, 32), np.float32))).shape` is `(2, 10)`.

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


# %% [markdown]
# Three quick checks before the long wait: the shape, that different images give different logits, and that gradients
# reach every parameter.

# %% nbgrader={"grade_id": "check-network", "locked": true}
small = Network(width=4, mean=MEAN, std=STD)
images = np.random.default_rng(0).random((6, 3, 32, 32), dtype=np.float32)
logits = small(Tensor(images))
shape = tuple(np.asarray(logits.numpy()).shape)
assert shape == (6, 10), f"Network(...)(images of shape (6, 3, 32, 32)): expected logits (6, 10), got {shape}"
spread = float(np.asarray(logits.numpy()).std(axis=0).min())
assert spread > 0, "expected different logits for six different images, got the same: is x used in forward?"
CrossEntropyLoss()(logits, np.arange(6)).backward()
without = [name for name, p in small.named_parameters() if p.grad is None]
assert not without, f"expected a gradient for every parameter, got none for {', '.join(without)}: is it used in forward?"
parameters = sum(int(np.asarray(p.numpy()).size) for p in Network().parameters())
print(f"the network answers; Network() has {parameters:,} parameters, {4 * parameters / 1e6:.1f} MB in float32")

# %% [markdown]
# A network that cannot learn eight images by heart will not learn 45,000. This takes a few seconds and finds many
# bugs: the loss should come down from about 2.3, that of a guess among ten, to almost nothing.

# %%
tinytorch.manual_seed(0)
tiny = Network(width=8, mean=MEAN, std=STD)
optimizer = AdamW(tiny.parameters(), lr=0.01)
few = Tensor(train.images[:8].astype(np.float32) / 255), train.labels[:8].astype(np.int64)
for step in range(30):
    optimizer.zero_grad()
    loss = CrossEntropyLoss()(tiny(few[0]), few[1])
    loss.backward()
    optimizer.step()
print(f"loss on eight images after 30 steps: {float(loss.numpy()):.4f}")

# %% [markdown]
# ## Train
#
# The recipe below is plain: AdamW, a learning rate that rises for a short while and falls along a cosine, labels
# smoothed a little. Change one thing at a time, and write down what it did: the last cell of this notebook asks for
# it. The loop writes a checkpoint after every epoch, and the cell one before the first: interrupt it (the square in
# the toolbar) whenever you like, run it again, also tomorrow, and it goes on to the very weights that it would have
# had. To start over, delete the file.

# %% tags=["train"]
EPOCHS = 4 if DATASET == "digits" else 12
WIDTH = 16 if DATASET == "digits" else 32
LR = 0.003

tinytorch.manual_seed(1)
model = Network(width=WIDTH, mean=MEAN, std=STD)
optimizer = AdamW(model.parameters(), lr=LR, weight_decay=0.02)
total = EPOCHS * len(loader)
place = olympics.folder("vision")  # your workspace's vision folder
place.mkdir(exist_ok=True)

# %% tags=["train"]
checkpoint = place / f"checkpoint-{DATASET}.safetensors"
if not checkpoint.exists():
    save_checkpoint(checkpoint, model, optimizer, [])  # the start: an interrupt in the first epoch goes back to it
plot = olympics.LivePlot(EPOCHS, checkpoint)
history = train_loop(
    model, plot.follow(loader), optimizer, epochs=EPOCHS, loss_fn=CrossEntropyLoss(label_smoothing=0.1),
    schedule=CosineSchedule(LR, total, warmup=total // 10), clip_norm=1.0, validate=validate,
    callbacks=[plot], checkpoint=checkpoint, progress=False,
)

# %% [markdown]
# Read the curves. Training loss still falling while validation stands still: the network learns pictures by heart;
# augment more, or take a smaller network. Both still falling at the end: it wants more epochs. Both flat from the
# start: look at the learning rate.
#
# ## Save
#
# Three files beside this notebook: `model.safetensors` with the weights, `network.py` with your export cells, and
# `training.json` with the log. `dtype="float16"` halves the file; what that costs in accuracy the next cells tell you.

# %% tags=["train"]
tinytorch.save(model, place / "model.safetensors", dtype="float16")
olympics.save_network("vision")
olympics.save_training("vision", history)
sorted(path.name for path in place.iterdir() if path.name in ("model.safetensors", "network.py", "training.json"))

# %% [markdown]
# From here on we use what was saved, not what is in memory: that is what will be graded.

# %% tags=["train"]
saved = tinytorch.load(place / "model.safetensors")
saved.eval()


def logits_of(model, images, batch=250):
    """Logits (N, 10) of uint8 images (N, 3, 32, 32), a batch at a time."""
    with no_grad():
        parts = [model(Tensor(images[i : i + batch].astype(np.float32) / 255)) for i in range(0, len(images), batch)]
    return np.concatenate([np.asarray(part.numpy()) for part in parts])


validation_images, validation_labels = train.images[:n_validation], train.labels[:n_validation]
scores = logits_of(saved, validation_images)
answers = scores.argmax(axis=1)
print(f"validation: {100 * (answers == validation_labels).mean():.1f}% of {n_validation:,} right, as saved; "
      f"{100 * history[-1]['val_accuracy']:.1f}% at the end of training")

# %% [markdown]
# ## Study the errors
#
# One number does not say which classes go wrong. The confusion matrix has a row for each true class and a column for
# each answer: bright squares off the diagonal are pairs that your network mixes up.


# %%
def confusion(labels, answers, classes=10):
    """Counts (classes, classes): row the true class, column the answer.

    Example: confusion([0, 1, 1], [0, 1, 0], 2) is [[1, 0], [1, 1]].
    """
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(labels, int), np.asarray(answers, int)), 1)
    return counts


# %% tags=["train"]
counts = confusion(validation_labels, answers)
figure, axis = plt.subplots(figsize=(6.5, 5.8))
axis.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="viridis", vmin=0, vmax=1)
axis.set_xticks(range(10), train.classes, rotation=60)
axis.set_yticks(range(10), train.classes)
axis.set(xlabel="answer", ylabel="true class")
for row, column in np.argwhere(counts):
    axis.text(column, row, counts[row, column], ha="center", va="center", fontsize=10,
              color="black" if counts[row, column] > 0.5 * counts[row].sum() else "white")
right = ", ".join(f"{counts[c, c]} of {counts[c].sum()} of class {name}" for c, name in enumerate(train.classes))
show(figure, alt=f"A table, true class by row and answer by column, with the number of pictures; right are {right}.")

# %% tags=["train"]
off = counts - np.diag(np.diag(counts))
for place_in_order in np.argsort(off, axis=None)[::-1][:3]:
    true, answer = divmod(int(place_in_order), 10)
    if off[true, answer]:
        print(f"{off[true, answer]:>4} times {train.classes[true]} was taken for {train.classes[answer]}")

# %% [markdown]
# The worst pictures are those where the network was surest and wrong. Look for doubtful labels, and for what the
# network may have gone by instead of the thing itself: the sky behind a plane, the grass under a horse. The title is
# the answer and how sure it was, below it the true class.

# %% tags=["train"]
certain = np.exp(scores - scores.max(axis=1, keepdims=True))
certain /= certain.sum(axis=1, keepdims=True)
wrong = np.flatnonzero(answers != validation_labels)
worst = wrong[np.argsort(certain[wrong, answers[wrong]])[::-1]][:20]

# %% tags=["train"]
if len(worst):
    show_images(
        validation_images[worst],
        [f"{train.classes[answers[i]]} {100 * certain[i, answers[i]]:.0f}%\n({train.classes[validation_labels[i]]})"
         for i in worst],
        alt=f"The {len(worst)} pictures that were taken for another class with the most certainty, each under its wrong "
        f"answer; the first is a {train.classes[validation_labels[worst[0]]]} taken for a "
        f"{train.classes[answers[worst[0]]]}.",
    )
else:
    print("no answer was wrong")

# %% [markdown]
# ## Benchmark
#
# The next four cells measure your saved model as the grader will: in a sandbox that has your tinytorch, NumPy and
# nothing else, with the labels and the clock outside. They use the public half. The first takes the longest, for all
# four share one measurement; it is repeated when a file changes. The same from a terminal:
# `tito benchmark accuracy --model model.safetensors --dataset cifar10`.
#
# Below the gate, speed and size count only in the share of the gate that was reached: a model that answers fast and
# wrong wins nothing. Quality is read by linters, from `network.py` and your tinytorch: their findings, functions with
# too many branches, missing docstrings.

# %% nbgrader={"grade_id": "accuracy", "grade": true, "points": 40}
olympics.grade_cell("vision", "accuracy")

# %% nbgrader={"grade_id": "speed", "grade": true, "points": 20}
olympics.grade_cell("vision", "speed")

# %% nbgrader={"grade_id": "size", "grade": true, "points": 20}
olympics.grade_cell("vision", "size")

# %% nbgrader={"grade_id": "quality", "grade": true, "points": 10}
olympics.grade_cell("vision", "quality")

# %% [markdown]
# Where would the next points come from? Some ideas, none of which is free: whitened input patches for the first
# layer; starting convolutions as the identity; an average of the weights over the last epochs; the mean of the
# answers for a picture and its mirror image; fewer channels where the picture is large; folding batch norm into the
# convolution before it when training is over.
#
# ## Report
#
# This answer is read by a person and earns up to 10 points for innovation. The figure itself is not what counts here:
# say what your idea was, how you tested it, and what came out, also where it failed.

# %% [markdown] nbgrader={"grade_id": "innovation", "grade": true, "solution": true, "points": 10}
# **What I built.** The network in three sentences: its parameters, its multiply-adds for a picture, why this shape.
#
# **What I tried.** A table with one row for each experiment: what was changed, validation accuracy before and after,
# seconds of training. At least three rows, one of them a failure.
#
# **What is new.** The idea that is yours, and the measurement that shows what it does.
#
# **What the errors say.** Two sentences on the confusion matrix and the worst pictures.
#
# **What I would do with another hour.**

# %% [markdown]
# ## Hand in
#
# Save this notebook first (Ctrl-S), for the file is what gets packed. Then, in a terminal in your workspace:
#
# ```
# tito olympics submit --track vision
# ```
#
# It packs this notebook, the model, `network.py`, `training.json` and a snapshot of your tinytorch, tries in the
# sandbox whether the model loads, and hands everything to nbgrader or writes a zip. You may hand in as often as you
# like; the last one counts. `tito olympics leaderboard --track vision` shows the board when grades are out.
