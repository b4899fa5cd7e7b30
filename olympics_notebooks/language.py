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
# # Language: a model that answers
#
# > The network of a language entry: a transformer of your own tinytorch that has read TinyTalks.
#
# You have a tokenizer, attention, a transformer and a cache, all your own. Here they become a model that is asked
# something and answers. The text is TinyTalks: ten thousand small dialogues, from "Good morning" to sums and to
# questions about what was said three lines before.
#
# Two things are measured. How well the model *predicts* held-out dialogues, in bits for each byte; the gate is 0.85.
# And how well it *answers* held-out questions, by a published rubric; the gate is 0.5. The first falls quickly. The
# second is harder to move than you may think, and why is the best part of this track.
#
# **You need:** modules 01 to 08, 10 to 13 and 17 completed. **Time:** an afternoon, most of it the machine's.
#
# What you hand in is this notebook, your trained model with its tokenizer, and the tinytorch that it runs on.

# %% nbgrader={"grade_id": "setup", "locked": true}
# %load_ext tito
# %tito lesson language

# %% nbgrader={"grade_id": "imports", "locked": true}
import numpy as np
import matplotlib.pyplot as plt

import tinytorch
from autograder import datasets, language
from tito import olympics
from tito.figures import explore, show
from tinytorch import GPT, AdamW, BPETokenizer, CosineSchedule, CrossEntropyLoss, Tensor, no_grad, train_loop
from tinytorch import DataLoader, Decoder, TensorDataset, causal_mask, generate_cached, save_checkpoint, split_heads

# %% [markdown]
# ## The rules
#
# Bits per byte, not perplexity: a tokenizer with longer tokens makes each of them harder to guess and takes fewer of
# them, so perplexity compares nothing across tokenizers. The bytes of the text are the same for everybody.

# %% tags=["nbval-check-output"] nbgrader={"grade_id": "rules", "locked": true}
print(olympics.rules_text(olympics.rules.track("language")))

# %% [markdown]
# ## The dialogues
#
# TinyTalks is made on the spot from a seed; there is nothing to download. It has five levels. Read one dialogue of
# each, and say what a model must be able to do for it: remember, look up, calculate, look back.

# %% tags=["nbval-check-output"] nbgrader={"grade_id": "data", "locked": true}
train = datasets.load_text("tinytalks", "train").dialogues
validation = datasets.load_text("tinytalks", "validation").dialogues
for level in range(1, 6):
    print(f"level {level}\n{next(d for d in train if d.level == level).text}\n")

# %% [markdown]
# The test dialogues put together what never stands together in training: if 35 minus 9 is asked there, it is asked
# nowhere in `train`, while every word of it is known. A model that only remembers sentences fails.
#
# Begin small. With `SMALL` the whole notebook runs in about a minute, and you see that every part works. The model
# will talk nonsense. Then set `SMALL = False`, go for a walk, and come back to one that does not.

# %%
SMALL = True
DIALOGUES = 2000 if SMALL else len(train)
LENGTH = 128 if SMALL else 512  # tokens of a row in training; the model's context is 512 in any case

# %% [markdown]
# ## Tokens
#
# The tokenizer learns from the training text only. A larger vocabulary makes the text shorter and the model larger:
# each token has a row in the first table and one in the last. `tokenizer.end` stands before each dialogue and after
# it; that is how the model knows that something begins, and how it says that it is done.

# %%
VOCABULARY = 512
tokenizer = BPETokenizer.train("\n\n".join(d.text for d in train), vocab_size=VOCABULARY)
encoded = [tokenizer.encode(d.text) for d in train[:DIALOGUES]]
n_bytes = sum(len(d.text.encode()) for d in train[:DIALOGUES])
print(f"{n_bytes / sum(map(len, encoded)):.2f} bytes a token, {np.mean([len(ids) for ids in encoded]):.0f} tokens a dialogue")

# %% [markdown]
# ## Rows
#
# Dialogues have different lengths, a batch is a rectangle. Filling each up with nothing would waste most of the
# arithmetic. So we *pack*: put dialogues one behind the other, each after an end token, and start a new row when one
# is full. A row always starts where a dialogue starts, as every test dialogue does; its last dialogue is cut.
#
# Write `pack(texts, end, length)`: `texts` is a list of lists of ids. Join `[end, *ids]` of each in order; as soon as
# there are more than `length` ids, cut to `length + 1`, keep that row, and begin the next one with the next text.
# What does not fill a row at the end is dropped. Returns an integer array (rows, length + 1).
#
# Example: `pack([[1, 2], [3], [4, 5, 6, 7], [8]], end=9, length=4)` is `[[9, 1, 2, 9, 3], [9, 4, 5, 6, 7]]`.


# %% nbgrader={"grade_id": "pack", "solution": true}
def pack(texts, end, length):
    """Rows (n, length + 1) of ids: whole texts one behind the other, each after `end`; the last one is cut."""
    rows, row = [], []
    ### BEGIN SOLUTION
    for ids in texts:
        row += [end, *ids]
        if len(row) > length:
            rows.append(row[: length + 1])
            row = []
    ### END SOLUTION
    return np.array(rows, dtype=np.int64).reshape(-1, length + 1)


# %% nbgrader={"grade_id": "check-pack", "locked": true}
found = pack([[1, 2], [3], [4, 5, 6, 7], [8]], end=9, length=4).tolist()
assert found == [[9, 1, 2, 9, 3], [9, 4, 5, 6, 7]], f"expected [[9, 1, 2, 9, 3], [9, 4, 5, 6, 7]], got {found}"
found = pack([[1] * 7, [2, 3, 4]], end=9, length=3).tolist()
assert found == [[9, 1, 1, 1], [9, 2, 3, 4]], f"what is cut is gone: expected [[9, 1, 1, 1], [9, 2, 3, 4]], got {found}"
assert pack([[1]], end=9, length=3).shape == (0, 4), "one short text fills no row: expected shape (0, 4)"
print("the rows are full")

# %% [markdown]
# What goes in are the first `length` ids of a row, and what should come out is the same row one place further on: at
# every place the next token. So one row is `length` exercises at once, and causal attention sees to it that none of
# them can look at its answer.

# %%
BATCH = 16 if SMALL else 4
order = np.random.default_rng(1).permutation(len(encoded))
rows = pack([encoded[i] for i in order], tokenizer.end, LENGTH)
held_out = pack([tokenizer.encode(d.text) for d in validation], tokenizer.end, LENGTH)[: 40 if SMALL else None]
loader = DataLoader(TensorDataset(rows[:, :-1], rows[:, 1:]), BATCH, shuffle=True, seed=1, drop_last=True)
validate = DataLoader(TensorDataset(held_out[:, :-1], held_out[:, 1:]), BATCH)
print(f"{len(rows):,} rows of {LENGTH} tokens, {len(loader)} steps an epoch")

# %% [markdown]
# ## The loss
#
# `CrossEntropyLoss` takes logits (N, classes) and targets (N,). A language model gives logits (B, T, V) and has
# targets (B, T): a classifier with V classes at each of B · T places. Write `next_token_loss`.


# %% nbgrader={"grade_id": "next-token-loss", "solution": true}
def next_token_loss(logits, targets):
    """The mean cross entropy, in nats, of logits (B, T, V) against the ids (B, T) that should come next."""
    targets = np.asarray(targets).reshape(-1)
    ### BEGIN SOLUTION
    return CrossEntropyLoss()(logits.reshape(-1, logits.shape[-1]), targets)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-next-token-loss", "locked": true}
logits = np.zeros((2, 3, 5), np.float32)
flat = float(next_token_loss(Tensor(logits), np.zeros((2, 3), int)).numpy())
assert abs(flat - np.log(5)) < 1e-5, f"five equal logits: expected log(5) = {np.log(5):.4f}, got {flat:.4f}"
logits[1, 2, 4] = 50.0  # sure at one place of six, and right
targets = np.zeros((2, 3), int)
targets[1, 2] = 4
one = float(next_token_loss(Tensor(logits), targets).numpy())
assert abs(one - np.log(5) * 5 / 6) < 1e-5, f"right at one place of six: expected {np.log(5) * 5 / 6:.4f}, got {one:.4f}"
print("the loss counts every place")

# %% [markdown]
# ## The network
#
# `GPT` of module 13 is the network. Its size is yours: a million parameters (`d_model=128`, four layers, four heads)
# learn TinyTalks in about half an hour on two cores. If you want another architecture, write it in a cell that starts
# with `#| export`, and call `olympics.save_network("language")` when you save; a class with a method
# `decoder(batch)` brings its own cache, and one without is read anew for each token, which is slow.

# %%
tinytorch.manual_seed(1)
sizes = dict(d_model=48, n_layers=2) if SMALL else dict(d_model=128, n_layers=4)
model = GPT(tokenizer.vocab_size, n_heads=4, context=512, **sizes)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")

# %% [markdown]
# ## Train
#
# An untrained model guesses: the loss starts near the logarithm of the vocabulary, 6.2. The accuracy in the figure is
# the share of next tokens that are guessed right. The loop writes a checkpoint after every epoch, and the cell one
# before the first: interrupt it as you like, run it again, also tomorrow, and it goes on to the very weights that it
# would have had. To start over, delete the file.

# %% tags=["train"]
EPOCHS = 4 if SMALL else 24
LR = 0.005 if SMALL else 0.002

total = EPOCHS * len(loader)
place = olympics.folder("language")  # your workspace's language folder
place.mkdir(exist_ok=True)
checkpoint = place / f"checkpoint-{'small' if SMALL else 'full'}.safetensors"
optimizer = AdamW(model.parameters(), lr=LR, betas=(0.9, 0.95), weight_decay=0.1)
if not checkpoint.exists():
    save_checkpoint(checkpoint, model, optimizer, [])  # the start: an interrupt in the first epoch goes back to it
plot = olympics.LivePlot(EPOCHS, checkpoint, unit="tokens", per_item=LENGTH)
history = train_loop(
    model, plot.follow(loader), optimizer, epochs=EPOCHS, loss_fn=next_token_loss,
    schedule=CosineSchedule(LR, total, warmup=total // 20), clip_norm=1.0, validate=validate,
    callbacks=[plot], checkpoint=checkpoint, progress=False,
)

# %% [markdown]
# ## Save
#
# The model, the tokenizer, which the harness reads with its own code, and the log.

# %% tags=["train"]
tinytorch.save(model, place / "model.safetensors", dtype="float16")
tokenizer.save(place / "tokenizer.json")
olympics.save_training("language", history)
saved = tinytorch.load(place / "model.safetensors").eval()

# %% [markdown]
# ## Bits per byte
#
# The harness shows your model one token after the other and reads its distribution before each. The bits of a token
# are the logarithm, base 2, of one over the probability that the model gave it: 1 bit for one chance in two, 10 bits
# for one in a thousand. All bits together, over the bytes of the text, is the figure.
#
# Write `bits_per_byte`. The loop already makes the logits of each dialogue; what is missing is the sum of the bits of
# `targets` under the softmax of `logits`. Subtract the largest logit of each row before `exp`.


# %% nbgrader={"grade_id": "bits-per-byte", "solution": true}
def bits_per_byte(model, tokenizer, texts):
    """Bits of every token of the texts and of the end after each, over the bytes of the texts."""
    bits = 0.0
    for text in texts:
        ids = np.array([tokenizer.end, *tokenizer.encode(text), tokenizer.end])
        with no_grad():
            logits = np.asarray(model(ids[None, :-1]).numpy(), np.float64)[0]  # (T, V)
        targets = ids[1:]  # (T,)
        ### BEGIN SOLUTION
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[np.arange(len(targets)), targets]
        bits += float((np.log(np.exp(logits).sum(axis=1)) - chosen).sum() / np.log(2))
        ### END SOLUTION
    return bits / sum(len(text.encode()) for text in texts)


# %% nbgrader={"grade_id": "check-bits-per-byte", "locked": true}
class Flat:
    """A model that knows nothing, with logits far from zero; a token of 8 takes it 3 bits."""

    def __call__(self, ids):
        return Tensor(np.full((*np.asarray(ids).shape, 8), 900.0))


class Letters:
    """a is 0, b is 1, the end is 7."""

    end = 7

    def encode(self, text):
        return ["ab".index(c) for c in text]


found = float(bits_per_byte(Flat(), Letters(), ["ab", "b"]))
assert abs(found - 5.0) < 1e-9, f"five tokens of 3 bits over three bytes: expected 5, got {found}"
print("3 bits a token, as it should be")

# %% tags=["train"]
some = [d.text for d in validation[: 100 if SMALL else None]]
print(f"{bits_per_byte(saved, tokenizer, some):.3f} bits a byte on {len(some)} validation dialogues")

# %% [markdown]
# For comparison: a table of what follows two characters needs 2.2, mixed tables of up to six characters 0.85.
#
# ## What temperature does
#
# A model gives a distribution; which token is taken from it is another decision. Dividing the logits by a temperature
# below 1 makes the likely likelier, above 1 the reverse. `top_k` keeps the k likeliest, `top_p` the fewest that
# together reach the probability p. The figure shows the same distribution at three temperatures.

# %% tags=["train"]
def ids_of(question):
    """The ids of a question, up to where the answer begins."""
    return [tokenizer.end, *tokenizer.encode(f"Q: {question}\nA:")]


QUESTION = "What is the color of grass?"
with no_grad():
    logits = np.asarray(saved(np.array([ids_of(QUESTION)])).numpy(), np.float64)[0, -1]  # (V,)
likely = np.argsort(-logits)[:10]
figure, axis = plt.subplots(figsize=(9, 3.8))
top = []  # the chance of the likeliest token at each temperature
for k, (temperature, hatch) in enumerate([(0.5, ""), (1.0, "//"), (1.5, "..")]):
    chances = np.exp((logits - logits.max()) / temperature)
    top.append(f"{100 * chances.max() / chances.sum():.0f}% at {temperature}")
    axis.bar(np.arange(10) + 0.27 * (k - 1), (chances / chances.sum())[likely], 0.27, hatch=hatch, edgecolor="white",
             label=f"temperature {temperature}")
axis.set_xticks(range(10), [repr(tokenizer.decode([int(i)])) for i in likely], rotation=30)
axis.set(ylabel="probability", title=f"the first token after: {QUESTION}")
axis.legend()
show(
    figure,
    alt=f"Probability of the ten likeliest tokens at three temperatures. The likeliest, {tokenizer.decode([int(likely[0])])!r}, "
    f"has {', '.join(top)}; the higher the temperature, the more is left to the others.",
)

# %% [markdown]
# ## Playground
#
# Ask it something, and press Enter. Move the sliders: at temperature 0 it says the same each time; at 1.5 see which
# mistakes come first. Where no sliders can be shown, there is one answer of each kind.


# %%
def answer(question, temperature=0.0, top_k=50, top_p=1.0, seed=0):
    """What the saved model answers, up to the end of the line."""
    prompt = ids_of(question)
    (text,) = generate_cached(saved, [prompt], 60, temperature, top_k, top_p, seed, stop=tokenizer.end)
    said = [i for i in text[len(prompt) :] if i != tokenizer.end]
    return tokenizer.decode(said).split("\n")[0].strip()


# %% tags=["train"]
def playground(question=QUESTION, temperature=0.8, top_k=50, top_p=0.9, seed=0):
    """The answer with these settings, beside the one of the likeliest token each time."""
    drawn = answer(question, temperature, top_k, top_p, seed)
    return f"{question}\n  drawn:     {drawn}\n  likeliest: {answer(question)}"


explore(playground, question=QUESTION, temperature=(0.0, 2.0, 0.1), top_k=(1, tokenizer.vocab_size, 1),
        top_p=(0.05, 1.0, 0.05), seed=(0, 99, 1))

# %% [markdown]
# ## Who looks at whom
#
# Attention mixes what the positions hold, in shares that add up to 1. Shares can be drawn, so they are the one place
# where you can watch a transformer at work.
#
# Write `attention_shares(block, x)`: for x of shape (1, T, d_model), the shares (H, T, T) of each head of one block,
# row: who looks, column: at whom. The queries and keys are there; you need the scores q · k / √D, -inf where
# `causal_mask(T, T)` is False, and the softmax of each row.


# %% nbgrader={"grade_id": "attention-shares", "solution": true}
def attention_shares(block, x):
    """The shares (H, T, T) with which each position of x (1, T, d_model), by row, looks at the others."""
    with no_grad():
        qkv = np.asarray(block.attention.qkv(block.norm1(x)).numpy())
    q, k, _ = (part[0] for part in split_heads(qkv, block.attention.n_heads))  # (H, T, D)
    H, T, D = q.shape
    ### BEGIN SOLUTION
    scores = np.where(causal_mask(T, T), q @ k.swapaxes(1, 2) / np.sqrt(D), -np.inf)
    shares = np.exp(scores - scores.max(axis=2, keepdims=True))
    return shares / shares.sum(axis=2, keepdims=True)
    ### END SOLUTION


# %% nbgrader={"grade_id": "check-attention-shares", "locked": true}
tinytorch.manual_seed(3)
block = GPT(8, d_model=12, n_heads=3, n_layers=1, context=6).blocks[0]
x = Tensor(np.random.default_rng(2).standard_normal((1, 5, 12)).astype(np.float32))
shares = np.asarray(attention_shares(block, x))
assert shares.shape == (3, 5, 5), f"3 heads and 5 positions: expected shape (3, 5, 5), got {shares.shape}"
assert np.allclose(shares.sum(axis=2), 1, atol=1e-5), f"the shares of a row add up to 1, got {shares.sum(axis=2)[0]}"
assert np.allclose(np.triu(shares[0], 1), 0), "a position looks at nothing behind itself: expected 0 above the diagonal"
with no_grad():
    normed = block.norm1(x)
    v = split_heads(np.asarray(block.attention.qkv(normed).numpy()), 3)[2][0]  # (H, T, D)
    by_shares = block.attention.out(Tensor((shares @ v).transpose(1, 0, 2).reshape(1, 5, 12).astype(np.float32)))
    wanted = block.attention(normed)
off = float(np.abs(np.asarray(by_shares.numpy()) - np.asarray(wanted.numpy())).max())
assert off < 1e-5, f"mixing the values by your shares should give what the block computes; they differ by {off:.2g}"
print("these are the shares that the block uses")

# %% [markdown]
# The dialogue below needs looking back: the answer stands three lines above the question. In a trained model, find
# the head that fetches it: in the last row, the bright square is at the token that is about to be said.

# %% tags=["train"]
told = "Q: My name is Mei.\nA: Nice to meet you, Mei.\nQ: What is my name?\nA: Your name is"
ids = [tokenizer.end, *tokenizer.encode(told)]
labels = [repr(tokenizer.decode([i]))[1:-1] for i in ids]
with no_grad():
    x = saved.tok(np.array([ids])) + saved.pos(len(ids), 0)
    for block in saved.blocks[:-1]:
        x = block(x)
shares = attention_shares(saved.blocks[-1], x)  # of the last block
figure, axes = plt.subplots(2, 2, figsize=(10, 10), sharex=True, sharey=True)
targets = []  # at whom the last token looks most, head by head
for head, (axis, share) in enumerate(zip(axes.flat, shares)):
    axis.imshow(share, cmap="viridis", vmin=0, vmax=0.5)
    targets.append(f"head {head} at {labels[share[-1].argmax()]} with {share[-1].max():.2f}")
    axis.set_title(f"head {head}: the last token looks at {labels[share[-1].argmax()]}", fontsize=11)
    axis.set_xticks(range(len(ids)), labels, rotation=90, fontsize=8)
    axis.set_yticks(range(len(ids)), labels, fontsize=8)
show(
    figure,
    alt="For each head of the last block a square, row by row who looks, column by column at whom; above the diagonal all "
    f"is 0, for nobody sees what comes later. The last token looks most in {'; in '.join(targets)}.",
)

# %% [markdown]
# Row by row who looks, column by column at whom. Dark is a share of 0, yellow a half or more; above the diagonal
# everything is dark, for nobody sees what comes later.
#
# ## Read ten samples
#
# Figures do not tell how a model talks. Ten answers at temperature 0.8, two of each level, with the expected answer
# beside those that differ, and the three marks of the rubric below. Which of the marks would you have given?


# %%
class Session:
    """The saved model as the harness asks it: begin with so many texts, then one token of each at a time."""

    def begin(self, batch):
        self.decoder = Decoder(saved, batch)

    def step(self, ids):
        return self.decoder.step(ids)


# %% tags=["train"]
for found in language.ten_samples(Session(), tokenizer, validation, np.random.default_rng(0)):
    marks = found.marks
    print(f"{found}   coherence {marks.coherence:.2f}, relevance {marks.relevance:.2f}, fluency {marks.fluency:.2f}\n")

# %% [markdown]
# Your reading is marked by a person. What earns points: every one of the ten has your own mark (right, nearly, or
# wrong, with the reason in a few words); a pattern that goes by level; one answer where the rubric and you disagree,
# and who is right; and one thing to change in the training that follows from it.

# %% [markdown] nbgrader={"grade_id": "reading", "grade": true, "solution": true, "points": 4}
# | sample | level | my mark | why |
# |---|---|---|---|
# | 1 | 1 | | |
# | 2 | 1 | | |
# | 3 | 2 | | |
# | 4 | 2 | | |
# | 5 | 3 | | |
# | 6 | 3 | | |
# | 7 | 4 | | |
# | 8 | 4 | | |
# | 9 | 5 | | |
# | 10 | 5 | | |
#
# **By level.**
#
# **Where the rubric and I disagree.**
#
# **What I would change.**

# %% [markdown]
# ## Benchmark
#
# As the grader will measure: your saved files in a sandbox that has your tinytorch, NumPy and nothing else, on the
# public dialogues. The first cell takes the longest, for all four share one measurement.

# %% nbgrader={"grade_id": "accuracy", "grade": true, "points": 40}
olympics.grade_cell("language", "accuracy")

# %% nbgrader={"grade_id": "speed", "grade": true, "points": 20}
olympics.grade_cell("language", "speed")

# %% nbgrader={"grade_id": "size", "grade": true, "points": 20}
olympics.grade_cell("language", "size")

# %% nbgrader={"grade_id": "quality", "grade": true, "points": 10}
olympics.grade_cell("language", "quality")

# %% [markdown]
# Where would the next points come from? Bits per byte and the rubric part ways: a sum that is off by one costs a few
# bits and the whole mark. Some ideas, none of which is free: digits as tokens of their own; more passes over the
# sums; a new packing of the rows in each epoch; a wider MLP against more layers; weights averaged over the last
# epochs; the table of the first layer used again as the last.
#
# ## Report
#
# Read by a person, for up to 6 points of innovation. Say what your idea was, how you tested it, and what came out,
# also where it failed.

# %% [markdown] nbgrader={"grade_id": "innovation", "grade": true, "solution": true, "points": 6}
# **What I built.** Model, tokenizer and training in three sentences, with their sizes.
#
# **What I tried.** A table with one row for each experiment: what was changed, validation bits per byte before and
# after, minutes of training. At least three rows, one of them a failure.
#
# **What is new.** The idea that is yours, and the measurement that shows what it does.
#
# **What the attention figure says.** Two sentences on one head.
#
# **What I would do with another hour.**

# %% [markdown]
# ## Hand in
#
# Save this notebook first (Ctrl-S), for the file is what gets packed. Then, in a terminal in your workspace:
#
# ```
# tito olympics submit --track language
# ```
#
# It packs this notebook, the model, the tokenizer, `training.json` and a snapshot of your tinytorch, tries in the
# sandbox whether the model loads, and hands everything to nbgrader or writes a zip. You may hand in as often as you
# like; the last one counts. `tito olympics leaderboard --track language` shows the board when grades are out.
