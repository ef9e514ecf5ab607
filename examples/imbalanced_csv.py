"""An imbalanced CSV: which method finds the rare classes, and a model of the best one.

The rows are the English ones of the built-in synthetic corpus: they show how it goes, not which
method is better on real texts. Run it as it is, or cell by cell; it takes half a minute.
"""

# %% A CSV file with a long tail, as one might have it
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd

import valence

FOLDER = Path(tempfile.mkdtemp(prefix="valence-"))
data = valence.load_dataset(valence.DataSpec(name="demo", groups=("en",)))
for name in ("train", "validation", "test"):
    split = getattr(data, name)
    labels = [data.classes[label] for label in split.labels]
    (FOLDER / "reviews").mkdir(exist_ok=True)
    rows = pd.DataFrame({"text": split.texts, "label": labels})
    rows.to_csv(FOLDER / "reviews" / f"{name}.csv", index=False)
print("training rows:", dict(Counter(data.classes[label] for label in data.train.labels)))

# %% Compare: same rows for all, choice on validation, test rows met once
SETTINGS = {"train.epochs": 1, "train.batch_size": 16}
outcome = valence.compare(
    str(FOLDER / "reviews"),
    ["majority", "tfidf-lr", "linear-probe", "lora", "lora-posthoc"],
    seeds=[45],
    settings=SETTINGS,
    runs=FOLDER / "runs",
)
shown = ["macro_f1", "tail_f1", "accuracy"]
scores = pd.DataFrame(
    {result.spec.method: {name: result.test[name] for name in shown} for result in outcome.results}
).T.sort_values("macro_f1", ascending=False)
print(scores.round(3).to_string())

# %% Accuracy alone would mislead: what the adapter finds of each class, before and after its logits
# are corrected by the class shares, which trains nothing
best = str(scores.index[0])
of_class = {
    result.spec.method: {name: result.test[f"f1/{name}"] for name in data.classes}
    for result in outcome.results
    if result.spec.method in ("lora", "lora-posthoc", best)
}
print(pd.DataFrame(of_class).round(3).to_string())

# %% A model of the best method, and what it says
result = valence.train(
    str(FOLDER / "reviews"), best, settings=SETTINGS, runs=FOLDER / "runs",
)  # fmt: skip
model = valence.Predictor(valence.RunStore(FOLDER / "runs").path(result.key) / "model")
texts = ["The soup was superb and the staff kind.", "Anything but good, and far too dear."]
print(model.table(texts).assign(text=texts).round(2).to_string(index=False))
