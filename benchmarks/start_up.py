"""Processor seconds and memory of commands that should cost little more than their imports.

A TF-IDF model is trained on the rows of a CSV (columns ``text`` and ``label``); then it labels one
text, and the whole file. With ``--before``, an earlier version runs right before each.

    python benchmarks/start_up.py reviews.csv [--before OLD/src]
"""

from __future__ import annotations

import argparse
import tempfile

from commands import measured, rows_of, sources

ROWS = 3000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--before", help="src folder of an earlier version")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, model = f"{folder}/rows.csv", f"{folder}/model"
        rows_of(options.file, ROWS).to_csv(rows, index=False)
        measured(["train", rows, "--method", "tfidf-lr", "--out", model, "--quiet",
                  "--runs", f"{folder}/runs"])  # fmt: skip
        commands = {
            "help": ["--help"],
            "methods": ["methods"],
            "encoders": ["encoders"],
            "predict, one text": ["predict", model, "good food"],
            f"predict, {ROWS} rows": ["predict", model, rows, "--out", f"{folder}/o.csv"],
        }
        for what, words in commands.items():
            for name, source in sources(options.before).items():
                again = ["--quiet"] if words[0] == "predict" else []
                print(f"{what}, {name}: {measured([*words, *again], source)}")


if __name__ == "__main__":
    main()
