"""How fast tinytorch trains and decodes a small GPT, beside PyTorch's CPU build where installed.

    python benchmarks/gpt.py [--json] [--seconds 10] [--threads 2]

4 blocks, d_model 128, 4 heads, context 512, vocabulary 256. A training step is forward, cross-entropy,
backward and AdamW on 16 x 256 tokens. Decoding is greedy with a key-value cache, 256 new tokens from an empty
prompt, for 1 and 64 texts. PyTorch gets our weights; loss, gradients and decoded logits are compared before
the clock runs. Each has a process of its own, in turn, while the other waits. Printed: medians, tokens/s.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from autograder.scratch import scratch_folder

ROOT = Path(__file__).resolve().parents[1]
TOKENS = {"train": 16 * 256, "decode_1": 256, "decode_64": 64 * 256}
IDS = np.random.default_rng(0).integers(0, 256, (16, 257))


def tinytorch_model():
    """The network with weights from seed 0."""
    from tinytorch import GPT, manual_seed

    manual_seed(0)
    return GPT(256)


def tinytorch_work(threads):
    """The functions `train`, `decode_1`, `decode_64`, and `check` for the comparison."""
    from tinytorch import AdamW, Decoder, language_loss
    from tinytorch.activations import set_num_threads

    set_num_threads(threads)
    model, fresh = tinytorch_model(), tinytorch_model()
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def backward():
        optimizer.zero_grad()
        loss = language_loss(model, IDS)
        loss.backward()
        return loss

    def decode(batch, n=256):
        decoder, ids = Decoder(fresh, batch), np.zeros(batch, np.int64)
        for _ in range(n):
            ids = decoder.step(ids).argmax(axis=1)

    def check():
        decoder = Decoder(fresh, 16)
        logits = [decoder.step(IDS[:, t]) for t in range(32)]
        return [backward().numpy(), np.stack(logits, 1), *(p.grad.numpy() for p in model.parameters())]

    def train():
        backward()
        optimizer.step()

    return {"train": train, "decode_1": lambda: decode(1), "decode_64": lambda: decode(64), "check": check}


def torch_work(threads):
    """As tinytorch_work, in PyTorch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(threads)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.qkv, self.out = nn.LayerNorm(128), nn.Linear(128, 384), nn.Linear(128, 128)
            self.norm2, self.up, self.down = nn.LayerNorm(128), nn.Linear(128, 512), nn.Linear(512, 128)

        def forward(self, x, cache=None, t=None):
            B, T, d = x.shape
            q, k, v = (z.view(B, T, 4, 32).transpose(1, 2) for z in self.qkv(self.norm1(x)).chunk(3, -1))
            if cache is not None:
                cache[0][:, :, t], cache[1][:, :, t] = k[:, :, 0], v[:, :, 0]
                k, v = cache[0][:, :, : t + 1], cache[1][:, :, : t + 1]
            a = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
            x = x + self.out(a.transpose(1, 2).reshape(B, T, d))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok, self.pos = nn.Embedding(256, 128), nn.Embedding(512, 128)
            self.blocks = nn.ModuleList(Block() for _ in range(4))
            self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 256, bias=False)

        def forward(self, ids, caches=(None,) * 4, t=None):
            place = slice(ids.shape[1]) if t is None else slice(t, t + 1)
            x = self.tok(ids) + self.pos.weight[place]
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, cache, t)
            return self.head(self.norm(x))

    model, fresh = GPT(), GPT()
    weights = {
        name.replace(".attention.", ".").replace(".mlp.", "."): torch.tensor(p.numpy())
        for name, p in tinytorch_model().named_parameters()
    }
    names = list(weights)
    for net in (model, fresh):
        net.load_state_dict(weights)
    optimizer, ids = torch.optim.AdamW(model.parameters(), lr=1e-3), torch.tensor(IDS)

    def backward():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        return loss

    def new_caches(batch):
        return [(torch.zeros(batch, 4, 512, 32), torch.zeros(batch, 4, 512, 32)) for _ in range(4)]

    @torch.inference_mode()
    def decode(batch, n=256):
        caches, new = new_caches(batch), torch.zeros(batch, 1, dtype=torch.long)
        for t in range(n):
            new = fresh(new, caches, t).argmax(-1)

    def check():
        caches = new_caches(16)
        with torch.inference_mode():
            logits = torch.cat([fresh(ids[:, t : t + 1], caches, t) for t in range(32)], 1)
        loss, found = backward(), dict(model.named_parameters())
        return [r.detach().numpy() for r in (loss, logits, *(found[name].grad for name in names))]

    def train():
        backward()
        optimizer.step()

    return {"train": train, "decode_1": lambda: decode(1), "decode_64": lambda: decode(64), "check": check}


def serve(kind, threads):
    """In the child: for every line on standard input do that work and answer with its seconds."""
    work = (tinytorch_work if kind == "ours" else torch_work)(threads)
    print("ready", flush=True)
    for line in sys.stdin:
        name, _, path = line.strip().partition(" ")
        start = time.perf_counter()
        result = work[name]()
        seconds = time.perf_counter() - start
        if path:
            np.savez(path, *result)
        print(seconds, flush=True)


class Child:
    """A process that serves one of the two; `ask` returns the seconds that a step took."""

    def __init__(self, kind, threads):
        counts = dict.fromkeys(["OMP_NUM_THREADS", "MKL_NUM_THREADS", "TINYTORCH_THREADS"], str(threads))
        env = {**os.environ, **counts, "OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
        command = [sys.executable, __file__, "--serve", kind, "--threads", str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=env, encoding="utf-8", **pipes)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit("benchmarks/gpt.py: a process ended early; its error stands above")
        return line

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.answer())


def agreement(children):
    """Largest difference of loss, decoded logits and gradients, relative to the largest number of each."""
    results = []
    with scratch_folder("measure") as folder:
        for name, child in children.items():
            child.ask(f"check {folder}/{name}.npz")
            with np.load(f"{folder}/{name}.npz") as arrays:
                results.append([arrays[key] for key in arrays.files])
    off = [float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in zip(*results, strict=True)]
    return {"loss": off[0], "decoding": off[1], "gradients": max(off[2:])}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print nothing but the line of JSON")
    parser.add_argument("--seconds", type=float, default=10, help="for each kind of work")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--serve", choices=["ours", "torch"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if args.serve:
        return serve(args.serve, args.threads)
    kinds = ["ours", "torch"] if importlib.util.find_spec("torch") else ["ours"]
    children = {kind: Child(kind, args.threads) for kind in kinds}
    report = {"benchmark": "gpt", "unit": "tokens/s", "threads": args.threads}
    if len(kinds) == 2:
        report["agreement"] = agreement(children)
        if max(report["agreement"].values()) > 1e-3:
            raise SystemExit(f"benchmarks/gpt.py: the two networks disagree: {report['agreement']}")
    for work, count in TOKENS.items():
        samples = {kind: [] for kind in kinds}
        for child in children.values():
            child.ask(work)  # warm-up
        end = time.perf_counter() + args.seconds
        while time.perf_counter() < end or len(samples["ours"]) < 3:
            for kind, child in children.items():
                samples[kind].append(round(count / child.ask(work), 1))
        medians = {kind: statistics.median(rates) for kind, rates in samples.items()}
        ratio = round(medians["ours"] / medians["torch"], 3) if "torch" in medians else None
        report[work] = {**medians, "ratio": ratio, "samples": samples}
        if not args.json:
            print(work, medians, "ratio", ratio, flush=True)
    for child in children.values():
        child.process.stdin.close()
        child.process.wait()
    print(json.dumps(report))
    return None


if __name__ == "__main__":
    main()
