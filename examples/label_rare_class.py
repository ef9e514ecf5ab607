"""Label a pool by program: which rows a strategy asks for, and how soon a rare class is there.

The rows are made up: three topics, of which one is rare. The same steps happen behind the page of
`valence label`; here a function labels. Run it as it is, or cell by cell; it takes some seconds.
"""

# %% A pool of texts, one topic in twenty-five
import random
import tempfile
from pathlib import Path

import pandas as pd

import valence
from valence.labeling.job import LabelJob, LabelNames, open_session
from valence.labeling.sampling import SamplingSettings
from valence.labeling.store import Decision

WORDS = {
    "food": ["soup", "bread", "salad", "dinner", "spicy", "tasty"],
    "room": ["bed", "window", "shower", "pillow", "floor", "quiet"],
    "staff": ["waiter", "desk", "helpful", "rude", "smile", "manager"],
}
COMMON = ["the", "a", "was", "we", "very", "and", "there", "then", "again", "today"]
draw = random.Random(0)


def make_text(topic: str, number: int) -> str:
    """Seven words and a number."""
    return " ".join([*draw.sample(COMMON, 4), *draw.sample(WORDS[topic], 3), str(number)])


topics = draw.choices(list(WORDS), weights=[0.6, 0.36, 0.04], k=500)
pool = pd.DataFrame({"text": [make_text(topic, i) for i, topic in enumerate(topics)]})
FOLDER = Path(tempfile.mkdtemp(prefix="valence-"))
pool.to_csv(FOLDER / "pool.csv", index=False)

# %% A session: rows come one by one, the model is fitted in the background
job = LabelJob(
    FOLDER / "labels.db",
    valence.DataSpec(name=str(FOLDER / "pool.csv")),
    names=LabelNames.parse("food,room,staff"),
    encoder="none",
    settings=SamplingSettings(batch=10),
)
session = open_session(job, print)
session.start()
session.background.wait()

# %% Label 150 rows; after every tenth the model is fitted and chooses the next ones
for number in range(150):
    (item,) = session.next_items("ann", 1)
    session.decide(Decision(item.row, "ann", "label", topics[item.row], chosen_by=item.chosen_by))
    if number % 10 == 9:
        session.background.wait()
state = session.state("ann")
print("rows of the rare topic in the pool:", topics.count("staff"))
print("labels per topic:", state["counts"])
print("macro-F1:", state["estimate"])
session.close()

# %% The label file is a data set
data = valence.load_dataset(valence.DataSpec(name=str(FOLDER / "labels.db")))
print("data set:", data.classes, len(data.train), "training rows")
