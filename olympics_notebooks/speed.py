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
# # Speed: the same words, sooner
#
# > The network of a speed entry: a GPT of your own tinytorch, and the decoder that writes its text.
#
# The course gives you a trained GPT of a million parameters. It writes well enough. Now make it write fast: so many
# tokens a second as you can get out of two processor cores, without getting more of them wrong.
#
# Two scenarios are measured, as in MLPerf. *Offline*: sixteen texts at once; only their number of tokens a second
# counts, and it ranks. *Single stream*: one text; how long does somebody wait for each token? The two pull in
# different directions, and in this notebook you will see why.
#
# The gate is 100 tokens a second, with more than 95% of the given model's accuracy; the record to beat is 250.
#
# **You need:** modules 01 to 07, 10 to 13, 17 and 19 completed; 14 and 18 help. **Time:** an evening. Nothing has to be
# trained, unless you want to.
#
# What you hand in is this notebook, your model with the given tokenizer, and the tinytorch that it runs on.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson speed

# %% nbgrader={"grade_id": "imports", "locked": true}
import hashlib
import json
import shutil
import time

import numpy as np
import matplotlib.pyplot as plt

import tinytorch
from autograder import datasets, tokens
from tito import olympics
from tito.figures import show
from tinytorch import Benchmark, Decoder, compare, generate_cached, load_tokenizer, no_grad

# %% [markdown]
# ## The rules
#
# Read what is timed: the time of a token is when it *arrives* at the harness. And read the audits, which ask whether
# the tokens were really computed, by this model.

# %% tags=["nbval-check-output"] nbgrader={"grade_id": "rules", "locked": true}
print(olympics.rules_text(olympics.rules.track("speed")))

# %% [markdown]
# ## What is given
#
# In the *closed* division everybody has the same weights, and only the code differs. In the *open* division the model
# is yours too: smaller, thinner, with fewer bits. Begin closed. The tokenizer is the same for all, so that a token is
# the same amount of text for all.

# %% nbgrader={"grade_id": "data", "locked": true}
given = olympics.given("speed")
model = tinytorch.load(given / "model.safetensors").eval()
tokenizer = load_tokenizer(given / "tokenizer.json")
validation = datasets.load_text("tinytalks", "validation").dialogues
parameters = sum(p.numel() for p in model.parameters())
print(f"{parameters:,} parameters, {len(model.blocks)} blocks, context {model.context}, {tokenizer.vocab_size} tokens")

# %% [markdown]
# The harness makes its prompts with this class, from dialogues that nobody has seen, and never asks the same twice.
# We make ours from the validation dialogues.

# %%
prompts = tokens.Prompts(tokenizer, validation, np.random.default_rng(0))
sixteen = prompts.take(16, 64)  # (16, 64) ids
print(tokenizer.decode(sixteen[0]))

# %% [markdown]
# ## Greedy text
#
# Both scenarios take the likeliest token each time, so that there is nothing to draw, and two correct programs write
# the same. Write `greedy(decoder, prompts, n)`: `decoder.prefill(prompts)` reads the prompts (B, T) and gives the
# logits (B, V) of what follows; `decoder.step(tokens)` reads one more token of each text, (B,), and gives the next
# logits. After the last token no step is needed.


# %% nbgrader={"grade_id": "greedy", "solution": true}
def greedy(decoder, prompts, n):
    """The likeliest n tokens after each prompt (B, T): an array (B, n)."""
    logits, found = decoder.prefill(prompts), []
    ### BEGIN SOLUTION
    while True:
        found.append(np.asarray(logits).argmax(axis=1))
        if len(found) == n:
            return np.stack(found, axis=1)
        logits = decoder.step(found[-1])
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-greedy", "locked": true}
class Counting(Decoder):
    """A decoder that counts its steps."""

    steps = 0

    def step(self, tokens):
        self.steps += 1
        return super().step(tokens)


decoder = Counting(model, 3)
found = np.asarray(greedy(decoder, sixteen[:3], 8))
assert found.shape == (3, 8), f"3 prompts and 8 tokens: expected shape (3, 8), got {found.shape}"
wanted = np.array(generate_cached(model, sixteen[:3], 8, temperature=0))[:, 64:]
assert (found == wanted).all(), f"expected the tokens {wanted[0]} after the first prompt, got {found[0]}"
assert decoder.steps == 7, f"8 tokens take 7 steps, the first comes from the prompt; got {decoder.steps} steps"
print("the same text as module 17 writes")

# %% [markdown]
# ## Where the time goes
#
# Reading a prompt and writing a token are different work. A prompt goes through the model at once: large matrix
# products, in which each weight that was fetched from memory is used for 64 positions. A step fetches all weights for
# one position. Measure both before you improve either.


# %%
def split_times(decoder, prompts, n):
    """Seconds for reading the prompts, and for each of n - 1 steps (their median)."""
    start = time.perf_counter()
    token = decoder.prefill(prompts).argmax(axis=1)
    reading, steps = time.perf_counter() - start, []
    for _ in range(n - 1):
        start = time.perf_counter()
        token = decoder.step(token).argmax(axis=1)
        steps.append(time.perf_counter() - start)
    return reading, float(np.median(steps))


# %% tags=["measure"]
for batch in (1, 16):
    decoder = Decoder(model, batch)
    split_times(decoder, prompts.take(batch, 64), 8)  # warm up
    reading, step = split_times(decoder, prompts.take(batch, 64), 64)
    share = reading / (reading + 63 * step)
    print(f"batch {batch:>2}: prompt {1e3 * reading:5.1f} ms, a step {1e3 * step:.2f} ms; the prompt is {100 * share:.0f}% of all")

# %% [markdown]
# If reading the prompts takes a third of the time, then steps that cost nothing would make the whole three times as
# fast, and no more. That is Amdahl's law, and a reason to look at the larger part first.
#
# ## Latency and throughput
#
# With more texts at once each weight that comes from memory is used more often, and each call of NumPy does more
# work. So a step takes longer, and yet costs less for each of its tokens.

# %% tags=["measure"]
batches, seconds = [1, 2, 4, 8, 16, 32, 64], []
for batch in batches:
    decoder = Decoder(model, batch)
    split_times(decoder, prompts.take(batch, 16), 4)
    seconds.append(split_times(decoder, prompts.take(batch, 16), 32)[1])
seconds = np.array(seconds)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
left.plot(batches, 1e3 * seconds, "o-")
left.set(xscale="log", xlabel="texts at once", ylabel="ms a step", ylim=(0, None), title="how long one waits")
right.plot(batches, batches / seconds, "s-")
right.set(xscale="log", xlabel="texts at once", ylabel="tokens/s", ylim=(0, None), title="how much gets done")
for axis in (left, right):
    axis.set_xticks(batches, batches)
    axis.minorticks_off()
show(
    figure,
    alt=f"Against the number of texts at once, from {batches[0]} to {batches[-1]}: left, the time of a step goes from "
    f"{1e3 * seconds[0]:.1f} to {1e3 * seconds[-1]:.1f} ms; right, tokens a second go from {1 / seconds[0]:,.0f} to "
    f"{batches[-1] / seconds[-1]:,.0f}.",
)

# %% [markdown]
# The time of a step grows with the number of texts, far more slowly than that number; therefore tokens a second grow
# with it, until the arithmetic itself is the limit.
#
# ## A floor
#
# How fast can a step possibly be? It has to read every weight of the blocks and of the head once (of the two
# embedding tables only the rows of its tokens), and all keys and values so far, of every text.
#
# Write `bytes_read(model, batch, length)`: the bytes of all parameters but the two tables `model.tok.weight` and
# `model.pos.weight`, and of the caches when each text has `length` tokens: for every block keys and values,
# `length` vectors of d_model float32 numbers each. A parameter `p` has `p.numel()` numbers of 4 bytes.
#
# Example: without weights, one block with d_model 8, 2 texts of 10 tokens: 2 · 2 · 10 · 8 · 4 = 1,280 bytes.


# %% nbgrader={"grade_id": "bytes-read", "solution": true}
def bytes_read(model, batch, length):
    """Bytes that a step has to read: the weights outside of the tables, and the caches of `batch` texts."""
    d_model = model.tok.weight.shape[1]
    ### BEGIN SOLUTION
    tables = model.tok.weight.numel() + model.pos.weight.numel()
    weights = sum(p.numel() for p in model.parameters()) - tables
    return 4 * (weights + batch * len(model.blocks) * 2 * length * d_model)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-bytes-read", "locked": true}
small = tinytorch.GPT(10, d_model=8, n_heads=2, n_layers=1, context=16)
weights = 4 * (sum(p.numel() for p in small.parameters()) - 10 * 8 - 16 * 8)
found = int(bytes_read(small, 2, 10)) - weights
assert found == 1280, f"the caches of 2 texts of 10 tokens: expected 1,280 bytes beside the weights, got {found:,}"
assert int(bytes_read(small, 1, 0)) == weights, f"no cache: expected {weights:,}, got {bytes_read(small, 1, 0):,}"
print(f"a step of the given model, one text of 100 tokens: {bytes_read(model, 1, 100) / 1e6:.2f} MB")

# %% tags=["measure"]
source, target = np.ones((2, 8_000_000), np.float32)
seconds = Benchmark(lambda: np.copyto(target, source), "copy", repeats=5).run().median
bandwidth = 2 * source.nbytes / seconds  # bytes/s: a copy reads and writes
for batch in (1, 16):
    floor = bytes_read(model, batch, 100) / bandwidth
    step = split_times(Decoder(model, batch), prompts.take(batch, 64), 64)[1]
    print(f"batch {batch:>2}: {1e3 * floor:.2f} ms to read it at {bandwidth / 1e9:.0f} GB/s, {1e3 * step:.2f} ms measured")

# %% [markdown]
# Four megabytes fit into the second or third cache of the processor, so that the floor from main memory is not even a
# strict one. A large part of the rest are the calls: a step is some hundred NumPy functions, at about a microsecond
# each before the first number is touched.
#
# ## Keep the accuracy
#
# Speed is worth nothing if the words get worse. The harness reads dialogues token by token, counts how often the
# likeliest token is the right one, and divides by the same share of the given model.
#
# Write `next_token_accuracy(model, tokenizer, texts)`: for each text the ids are `[end, *ids, end]`; the model sees
# all but the last and should say all but the first. Returns right tokens over all tokens.


# %% nbgrader={"grade_id": "next-token-accuracy", "solution": true}
def next_token_accuracy(model, tokenizer, texts):
    """The share of the tokens of some texts, and of the end after each, that the model finds likeliest."""
    right = total = 0
    for text in texts:
        ids = np.array([tokenizer.end, *tokenizer.encode(text), tokenizer.end])
        with no_grad():
            logits = np.asarray(model(ids[None, :-1]).numpy())[0]  # (T, V)
        ### BEGIN SOLUTION
        right += int((logits.argmax(axis=1) == ids[1:]).sum())
        total += len(ids) - 1
        ### END SOLUTION
    return right / total


# %% nbgrader={"grade_id": "check-next-token-accuracy", "locked": true}
class Parrot:
    """Says after each token the same token again."""

    def __call__(self, ids):
        return tinytorch.Tensor(np.eye(8, dtype=np.float32)[np.asarray(ids)])


class Letters:
    """a is 0, b is 1, the end is 7."""

    end = 7

    def encode(self, text):
        return ["ab".index(c) for c in text]


found = float(next_token_accuracy(Parrot(), Letters(), ["aabb", "b"]))
assert abs(found - 2 / 7) < 1e-9, f"2 of 7 tokens are the same as before: expected {2 / 7:.4f}, got {found:.4f}"
print("counted as the harness counts")

# %%
texts = [d.text for d in validation[:100]]
baseline = next_token_accuracy(model, tokenizer, texts)

# %% tags=["measure"]
print(f"the given model: {100 * baseline:.1f}% of the next tokens")

# %% [markdown]
# ## Your entry
#
# The harness looks for the decoder in three places: a method `decoder(batch)` of your network; else `Decoder` of your
# tinytorch; else the model itself, which then reads the whole text anew for every token. So there are two ways to a
# faster entry. Improve module 17 and complete it again: then the given model is your entry as it is. Or write a
# network with a decoder of its own, below; everything it uses must stand in `#| export` cells.
#
# A decoder needs `prefill(prompts)`, `step(tokens)` and, better, `reset()`. What could be faster? Some ideas: write
# results into arrays that are there already (`out=`) in place of new ones; keep the keys transposed, so that the
# product with the query runs along memory; fold the factor 1/√D into the weights of the queries; put a bias into its
# matrix as one more row; keep keys and values in one array and write both at once; share the texts out over the
# threads at another batch size than module 17 does.
#
# Write `Network`: a `GPT` with a method `decoder(batch)` that returns a decoder for `batch` texts. The sample
# solution returns the one of module 17, and that is a sound place to start from.

# %% nbgrader={"grade_id": "network", "solution": true}
#| export
from tinytorch import GPT, Decoder


class Network(GPT):
    """The given GPT, with the decoder that the harness is to use."""

    def decoder(self, batch):
        """A decoder for `batch` texts: prefill, step, reset."""
        ### BEGIN SOLUTION
        return Decoder(self, batch)
        ### END SOLUTION


# %% nbgrader={"grade_id": "check-network", "locked": true}
network = Network(tokenizer.vocab_size, model.tok.weight.shape[1], model.blocks[0].attention.n_heads,
                  len(model.blocks), model.context)
network.load_state_dict(model.state_dict())
network.eval()
for batch in (1, 16):
    fresh = prompts.take(batch, 64)
    found, wanted = np.asarray(greedy(network.decoder(batch), fresh, 24)), greedy(Decoder(model, batch), fresh, 24)
    same = float((found == wanted).mean())
    assert same > 0.99, f"batch {batch}: only {100 * same:.1f}% of the tokens are those of module 17's decoder"
print("your decoder writes the same text")

# %% [markdown]
# ## Is it faster?
#
# Two runs of the same program never take the same time. `compare` (19) lets the two take turns and says "no
# difference" where there is none. With the sample solution that is the right answer.

# %% tags=["measure"]
mine, theirs, fresh = network.decoder(16), Decoder(model, 16), prompts.take(16, 64)
print(compare(lambda: greedy(mine, fresh, 16), lambda: greedy(theirs, fresh, 16), ("yours", "module 17"), pairs=8))

# %% [markdown]
# ## Save
#
# Closed division: the weights are the given ones, and `checkpoint` says of which file; the seconds of training are the
# course's. For the open division save your own model, the log of its training, and `division="open"`.
#
# `dtype="float16"` halves the file. It is the precision in which the given file is stored, so nothing is lost.

# %% tags=["train"]
place = olympics.folder("speed")  # your workspace's speed folder
place.mkdir(exist_ok=True)
tinytorch.save(network, place / "model.safetensors", dtype="float16")
shutil.copyfile(given / "tokenizer.json", place / "tokenizer.json")
olympics.save_network("speed")
digest = hashlib.sha256((given / "model.safetensors").read_bytes()).hexdigest()
history = json.loads((given / "training.json").read_text())["history"]
olympics.save_training("speed", history, division="closed", checkpoint=digest)
saved = tinytorch.load(place / "model.safetensors").eval()
print(f"kept {100 * next_token_accuracy(saved, tokenizer, texts) / baseline:.1f}% of the accuracy")

# %% [markdown]
# ## Benchmark
#
# As the grader will measure: your files in a sandbox, each token sent through a pipe, the given entry timed in turn
# with yours. Expect less than above: a token that arrives costs a message, and the prompts are read on the clock.
# From a terminal: `tito benchmark speed --model model.safetensors --input-length 512`.

# %% nbgrader={"grade_id": "accuracy", "grade": true, "points": 40}
olympics.grade_cell("speed", "accuracy")

# %% nbgrader={"grade_id": "speed", "grade": true, "points": 20}
olympics.grade_cell("speed", "speed")

# %% nbgrader={"grade_id": "size", "grade": true, "points": 20}
olympics.grade_cell("speed", "size")

# %% nbgrader={"grade_id": "quality", "grade": true, "points": 10}
olympics.grade_cell("speed", "quality")

# %% [markdown]
# In the open division more is possible, and more can go wrong: fewer layers, distilled from the given model (16);
# weights in 8 bits (15), which are only faster if the product is; a narrower model that has read more; one key and
# value for several heads; a small model that guesses several tokens, which the large one then checks at once.
#
# ## Report
#
# Read by a person, for up to 10 points of innovation. Say what your idea was, how you measured it, and what came out,
# also where it failed.

# %% [markdown] nbgrader={"grade_id": "innovation", "grade": true, "solution": true, "points": 10}
# **What I built.** The entry in three sentences: the model, the decoder, what it does differently.
#
# **Where the time went.** Before and after: reading the prompt, a step, the rest.
#
# **What I tried.** A table with one row for each experiment: what was changed, tokens a second before and after with
# their intervals. At least three rows, one of them a failure or "no difference".
#
# **What is new.** The idea that is yours, and the measurement that shows what it does.
#
# **What I would do with another hour.**

# %% [markdown]
# ## Hand in
#
# Save this notebook first (Ctrl-S), for the file is what gets packed. Then, in a terminal in your workspace:
#
# ```
# tito olympics submit --track speed
# ```
#
# It packs this notebook, the model, the tokenizer, `network.py`, `training.json` and a snapshot of your tinytorch,
# tries in the sandbox whether the model loads, and hands everything to nbgrader or writes a zip. You may hand in as
# often as you like; the last one counts. `tito olympics leaderboard --track speed` shows the board when grades are out.
