"""Wrong solutions of lesson 06."""

from tests.mutants import Mutant

MUTANTS = [
    Mutant(
        "step-replaces",
        "step",
        "p.data -= self",
        "p.data = p.data - self",
        "a new array: others keep the old one",
    ),
    Mutant(
        "step-shared-state",
        "step",
        "self.update(p.data, g, state)",
        "self.update(p.data, g, self.state[0])",
        "all parameters share the first one's memory",
    ),
    Mutant(
        "decay-in-place",
        "decayed",
        "return g + self.weight_decay * p if self.weight_decay else g",
        "g += self.weight_decay * p\n        return g",
        "changes the gradient that the tensor holds",
    ),
    Mutant(
        "state-not-copied",
        "state-dict",
        "np.array(v)",
        "np.asarray(v)",
        "the next step changes what was saved",
    ),
    Mutant(
        "load-array-counter",
        "load-state-dict",
        "remembered[i][name] = value",
        "remembered[i][name] = np.array(value)",
        "counters as arrays: the resumed run computes in float64",
    ),
    Mutant(
        "load-half",
        "load-state-dict",
        "        remembered = [{}",
        '        self.lr = float(state["lr"])\n        remembered = [{}',
        "a failed load has changed the learning rate",
    ),
    Mutant(
        "velocity-average",
        "velocity",
        "self.momentum * old + g",
        "self.momentum * old + (1 - self.momentum) * g",
        "the textbook average, not PyTorch's sum",
    ),
    Mutant("velocity-alias", "velocity", "np.array(g)", "g", "keeps the gradient's own array"),
    Mutant(
        "nesterov-ignored",
        "sgd-update",
        "g + self.momentum * v if self.nesterov else v",
        "v",
        "plain momentum instead",
    ),
    Mutant(
        "adam-no-count", "moments", 'state.get("t", 0) + 1', "1", "corrects as if every step were the first"
    ),
    Mutant(
        "adam-no-correction",
        "adam-step",
        "self.lr / (1 - beta1**t) * m / (np.sqrt(v / (1 - beta2**t)) + self.eps)",
        "self.lr * m / (np.sqrt(v) + self.eps)",
        "the means start too small",
    ),
    Mutant(
        "adam-eps-inside",
        "adam-step",
        "(np.sqrt(v / (1 - beta2**t)) + self.eps)",
        "np.sqrt(v / (1 - beta2**t) + self.eps)",
        "epsilon under the root",
    ),
    Mutant(
        "adamw-coupled",
        "adamw",
        "return self.adam_step(g, state) + self.lr * self.weight_decay * p",
        "return super().update(p, g, state)",
        "Adam's decay, through the division",
    ),
    Mutant(
        "adamw-without-lr",
        "adamw",
        "self.lr * self.weight_decay * p",
        "self.weight_decay * p",
        "decay not scaled by lr",
    ),
]
