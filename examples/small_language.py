"""A small language: can the encoder read it, what do its own rows give, and does English help?

The rows are those of the built-in synthetic corpus, ten languages of some thirty rows each beside
English. The built-in encoder was made for English. It takes some seconds.
"""

# %% Before any training: what the encoder makes of every language
import tempfile
from pathlib import Path
from statistics import fmean

import pandas as pd

import valence
from valence.audit.encoder_coverage import readiness
from valence.config.sections import EncoderSpec

RUNS = Path(tempfile.mkdtemp(prefix="valence-")) / "runs"
data = valence.load_dataset(valence.DataSpec(name="demo"))
entries = readiness(data, EncoderSpec())
table = pd.DataFrame(
    {
        entry.group: {
            "training rows": entry.train,
            "tokens a word": round(entry.tokens_per_word, 2),
            "unknown tokens": f"{entry.unknown:.0%}",
        }
        for entry in entries
    }
).T
print(table.to_string())
for entry in entries:
    for line in entry.warnings:
        if "cannot read" in line:
            print(f"{entry.group}: {line}")

# %% Train on the small languages alone, on English alone, and on all; test on the small ones
SMALL = tuple(entry.group for entry in entries if entry.group != "en")
TRAINED_ON = {"their own rows": SMALL, "English": ("en",), "all": (*SMALL, "en")}
lines = []
for told, languages in TRAINED_ON.items():
    for method in ("majority", "tfidf-lr", "linear-probe"):
        result = valence.run(
            valence.make_spec(
                method, valence.DataSpec(name="demo", groups=SMALL, train_groups=languages)
            ),
            store=valence.RunStore(RUNS),
        )
        each = [scores["macro_f1"] for scores in result.groups.values()]
        lines.append((method, told, result.sizes["train"], result.test["macro_f1"], fmean(each)))
heads = ["method", "trained on", "rows", "macro-F1", "mean of the languages"]
print(pd.DataFrame(lines, columns=heads).round(3).to_string(index=False))

# %% What to make of it
print(
    "N-grams do not carry one language over to another; an encoder that reads the language can\n"
    "(name a multilingual one with --encoder). A dozen test rows a language say little."
)
