"""Declare the speed reference entry: the given checkpoint, which is the language entry's model, as it is.

    python course/entries/speed/declare.py

Writes training.json: the language entry's log, the closed division, and the SHA-256 of the model file.
Nothing is trained; model.safetensors and tokenizer.json beside it are links to the language entry's.
"""

import argparse
import hashlib
import json
from pathlib import Path

from autograder.files import write_text

HERE = Path(__file__).resolve().parent


def main():
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    log = json.loads((HERE.parent / "language" / "training.json").read_text())
    digest = hashlib.sha256((HERE / "model.safetensors").read_bytes()).hexdigest()
    write_text(
        HERE / "training.json",
        json.dumps({**log, "division": "closed", "checkpoint": digest}, indent=1) + "\n",
    )
    print(f"{HERE / 'training.json'}: closed division, checkpoint {digest}")


if __name__ == "__main__":
    main()
