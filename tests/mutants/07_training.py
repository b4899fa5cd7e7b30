"""Plausible wrong solutions of lesson 07; each must lose points."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        name="constant-zero",
        cell="constant-schedule",
        old="return self.lr",
        new="return 0.0",
        why="a learning rate of zero",
    ),
    Mutant(
        name="warm-up-from-zero",
        cell="linear-schedule",
        old="self.lr * (step + 1) / self.warmup",
        new="self.lr * step / self.warmup",
        why="off by one: the first step does nothing",
    ),
    Mutant(
        name="warm-up-counted-twice",
        cell="linear-schedule",
        old="(step - self.warmup) / (self.total - self.warmup)",
        new="step / self.total",
        why="the way down does not begin at the peak",
    ),
    Mutant(
        name="linear-below-final",
        cell="linear-schedule",
        old="        if step >= self.total:\n            return self.final\n",
        new="",
        why="after `total` the learning rate becomes negative",
    ),
    Mutant(
        name="cosine-without-final",
        cell="cosine-schedule",
        old="self.final + (self.lr - self.final) * 0.5",
        new="self.lr * 0.5",
        why="ends at zero whatever `final` is",
    ),
    Mutant(
        name="cosine-whole-wave",
        cell="cosine-schedule",
        old="math.cos(math.pi * done)",
        new="math.cos(2 * math.pi * done)",
        why="goes down and up again",
    ),
    Mutant(
        name="clip-always",
        cell="clip-grad-norm",
        old="if norm > max_norm:",
        new="if norm > 0:",
        why="short gradients are made longer",
    ),
    Mutant(
        name="clip-each-alone",
        cell="clip-grad-norm",
        old="            g.data = g.data * (max_norm / norm)",
        new="            g.data = g.data * min(1, max_norm / np.linalg.norm(g.data))",
        why="every gradient by its own norm: the direction changes",
    ),
    Mutant(
        name="clip-norm-of-sums",
        cell="clip-grad-norm",
        old="math.sqrt(sum(float(np.vdot(g.data, g.data)) for g in gradients))",
        new="sum(float(np.linalg.norm(g.data)) for g in gradients)",
        why="a sum of norms instead of the norm of all",
    ),
    Mutant(
        name="clip-infinite",
        cell="clip-grad-norm",
        old="if not math.isfinite(norm):",
        new="if norm < 0:",
        why="infinite gradients become NaN without a word",
    ),
    Mutant(
        name="accuracy-wrong-axis",
        cell="accuracy",
        old="logits.argmax(axis=-1) == targets",
        new="logits.argmax(axis=0)[0] == targets",
        why="the largest row of a column",
    ),
    Mutant(
        name="left-in-eval-mode",
        cell="evaluation-mode",
        old="module.training = training",
        new="module.training = False",
        why="after the first evaluation dropout is off for good",
    ),
    Mutant(
        name="everything-in-training-mode",
        cell="evaluation-mode",
        old="module.training = training",
        new="module.training = True",
        why="a frozen layer thaws",
    ),
    Mutant(
        name="not-after-an-error",
        cell="evaluation-mode",
        old="    finally:\n",
        new="    except ZeroDivisionError:\n        pass\n    else:\n",
        why="an interrupt leaves the model in evaluation mode",
    ),
    Mutant(
        name="never-in-eval-mode",
        cell="evaluate",
        old="with evaluation_mode(model), no_grad():",
        new="with no_grad():",
        why="dropout is active while measuring",
    ),
    Mutant(
        name="evaluate-records",
        cell="evaluate",
        old="with evaluation_mode(model), no_grad():",
        new="with evaluation_mode(model):",
        why="a graph is kept for every batch",
    ),
    Mutant(
        name="mean-of-batch-means",
        cell="evaluate",
        old="            loss += float(loss_fn(logits, y)) * len(x)\n"
        "            right += accuracy(logits, y) * len(x)\n"
        "            count += len(x)",
        new="            loss += float(loss_fn(logits, y))\n"
        "            right += accuracy(logits, y)\n"
        "            count += 1",
        why="the small last batch weighs as much as a full one",
    ),
    Mutant(
        name="accumulate-not-divided",
        cell="train-step",
        old="loss.backward(1 / accumulate)",
        new="loss.backward()",
        why="accumulated gradients are a sum, not a mean",
    ),
    Mutant(
        name="loss-divided",
        cell="train-step",
        old="return value",
        new="return value / accumulate",
        why="the reported loss depends on how the batch was cut",
    ),
    Mutant(
        name="nan-not-caught",
        cell="train-step",
        old="if not math.isfinite(value):",
        new="if value == math.nan:",
        why="NaN equals nothing, not even itself",
    ),
    Mutant(
        name="infinity-not-caught",
        cell="train-step",
        old="if not math.isfinite(value):",
        new="if math.isnan(value):",
        why="an infinite loss goes through",
    ),
    Mutant(
        name="no-zero-grad",
        cell="train-epoch",
        old="            optimizer.step()\n            optimizer.zero_grad()",
        new="            optimizer.step()",
        why="the gradients of all steps pile up",
    ),
    Mutant(
        name="zero-grad-every-batch",
        cell="train-epoch",
        old="        losses.append(train_step(",
        new="        optimizer.zero_grad()\n        losses.append(train_step(",
        why="with accumulation only the last part counts",
    ),
    Mutant(
        name="schedule-per-batch",
        cell="train-epoch",
        old="        if len(losses) % accumulate == 0:\n"
        "            if schedule is not None:\n"
        "                optimizer.lr = schedule(step)\n",
        new="        if schedule is not None:\n"
        "            optimizer.lr = schedule(step + len(losses) - 1)\n"
        "        if len(losses) % accumulate == 0:\n",
        why="the schedule runs by batches, not by steps",
    ),
    Mutant(
        name="schedule-stands-still",
        cell="train-epoch",
        old="            step += 1\n",
        new="",
        why="one learning rate for the whole epoch",
    ),
    Mutant(
        name="clip-after-the-step",
        cell="train-epoch",
        old="            if clip_norm is not None:\n"
        "                clip_grad_norm(optimizer.parameters, clip_norm)\n"
        "            optimizer.step()\n",
        new="            optimizer.step()\n"
        "            if clip_norm is not None:\n"
        "                clip_grad_norm(optimizer.parameters, clip_norm)\n",
        why="the long step is already made",
    ),
    Mutant(
        name="checkpoint-without-optimizer",
        cell="save-checkpoint",
        old="in optimizer.state_dict().items()}",
        new='in optimizer.state_dict().items() if k == "lr"}',
        why="momentum starts anew after a break",
    ),
    Mutant(
        name="numbers-become-arrays",
        cell="save-checkpoint",
        old='arrays |= {f"optimizer.{k}": np.asarray(v, order="C")',
        new='arrays |= {f"optimizer.{k}": np.ascontiguousarray(v)',
        why="a single number comes back with shape (1,)",
    ),
    Mutant(
        name="checkpoint-without-random-state",
        cell="save-checkpoint",
        old="json.dumps(default_rng().bit_generator.state)",
        new="json.dumps(np.random.default_rng(0).bit_generator.state)",
        why="dropout drops other units after a break",
    ),
    Mutant(
        name="random-state-not-restored",
        cell="load-checkpoint",
        old='    default_rng().bit_generator.state = json.loads(notes["random"])\n',
        new="",
        why="dropout drops other units after a break",
    ),
    Mutant(
        name="history-not-restored",
        cell="load-checkpoint",
        old='return json.loads(notes["history"])',
        new="return []",
        why="training starts counting from zero",
    ),
    Mutant(
        name="optimizer-not-restored",
        cell="load-checkpoint",
        old='    optimizer.load_state_dict(states["optimizer"])\n',
        new="",
        why="momentum starts anew after a break",
    ),
    Mutant(
        name="steps-are-batches",
        cell="epoch-entry",
        old="len(losses) // accumulate",
        new="len(losses)",
        why="the next epoch's schedule starts too late",
    ),
    Mutant(
        name="schedule-starts-anew",
        cell="train-loop",
        old='step = sum(entry["steps"] for entry in history)',
        new="step = 0",
        why="every epoch begins with the warm-up",
    ),
    Mutant(
        name="options-forgotten",
        cell="train-loop",
        old="loss_fn, step, schedule, clip_norm, accumulate, progress, title",
        new="loss_fn, step, schedule, None, accumulate, progress, title",
        why="gradients are not clipped",
    ),
    Mutant(
        name="checkpoint-after-callbacks",
        cell="train-loop",
        old="        if checkpoint:\n"
        "            save_checkpoint(checkpoint, model, optimizer, history)\n"
        "        for callback in callbacks:\n"
        "            callback(entry)\n",
        new="        for callback in callbacks:\n"
        "            callback(entry)\n"
        "        if checkpoint:\n"
        "            save_checkpoint(checkpoint, model, optimizer, history)\n",
        why="a callback that raises costs the epoch that is done",
    ),
]
