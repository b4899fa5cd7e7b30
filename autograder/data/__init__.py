"""The data sets, the tokenizer of the tracks, and what a training script sees of them while it is audited."""
