"""Text, audio and vision: from clips to a model of intensities, with its rivals beside it.

The clips are made here: the voice rises and the picture grows redder with the intensity, and only
every other text tells it. Needs the extra media (``pip install 'valence[media]'``); it takes half
a minute.
"""

# %% Clips of one second, and the table that names them
import tempfile
from pathlib import Path
from random import Random

import av
import numpy as np
import pandas as pd

import valence
from valence.data.features.clip_table import archive_clips
from valence.data.features.extractor import Extractor, ExtractorSettings

FOLDER = Path(tempfile.mkdtemp(prefix="valence-"))
RATE, FRAMES, SECONDS = 16_000, 10, 1.0


def make_clip(path: Path, intensity: float) -> None:
    """A clip whose pitch and redness follow an intensity in [-3, 3]."""
    steps = np.arange(int(SECONDS * RATE)) / RATE
    pitch = 160 + 25 * intensity
    wave = 0.2 * sum(np.sin(2 * np.pi * pitch * k * steps) / k for k in (1, 2, 3))
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=RATE, layout="mono")
        video = out.add_stream("mpeg4", rate=FRAMES)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for i in range(int(SECONDS * FRAMES)):
            picture = np.full((64, 64, 3), 20, dtype=np.uint8)
            picture[:, : 4 * i + 8, 0] = int(130 + 40 * intensity)
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(video.encode())
        frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = RATE
        out.mux(sound.encode(frame))
        out.mux(sound.encode())


WORDS = ("awful", "bad", "rather dull", "all right", "fine", "good", "superb")
draw = Random(1)
rows = []
for split, count in (("train", 48), ("validation", 16), ("test", 20)):
    for i in range(count):
        intensity = round(draw.uniform(-3, 3), 1)
        said = f"It was {WORDS[round(intensity) + 3]}." if i % 2 else "You know what I mean."
        make_clip(FOLDER / f"{split}{i}.mp4", intensity)
        rows.append((f"{split}{i}.mp4", said, intensity, split))
pd.DataFrame(rows, columns=["clip", "text", "label", "split"]).to_csv(
    FOLDER / "clips.csv", index=False
)

# %% Features of every clip, kept as an archive that is read row by row
archive = archive_clips(FOLDER / "clips.csv", FOLDER / "archive", Extractor(ExtractorSettings()))
print("rows:", archive.manifest.rows, " numbers in a step:", archive.manifest.widths)

# %% One modality alone, three joined, and ALMT
METHODS = ["text-only", "audio-only", "vision-only", "early-fusion", "late-fusion", "almt"]
SETTINGS = {"train.epochs": 12, "train.batch_size": 16, "train.learning_rate": 1e-3}
outcome = valence.compare(
    str(FOLDER / "archive"), METHODS, seeds=[45], settings=SETTINGS, runs=FOLDER / "runs"
)
shown = ["mae", "corr", "acc2_non0", "acc7"]
scores = pd.DataFrame(
    {result.spec.method: {name: result.test[name] for name in shown} for result in outcome.results}
).T.sort_values("mae")
print(scores.round(3).to_string())

# %% A model of the best, asked about a clip that it has not seen
best = str(scores.index[0])
result = valence.train(
    str(FOLDER / "archive"), best, settings=SETTINGS, runs=FOLDER / "runs",
)  # fmt: skip
model = valence.Predictor(valence.RunStore(FOLDER / "runs").path(result.key) / "model")
for intensity in (-2.5, 2.5):
    make_clip(FOLDER / "new.mp4", intensity)
    (told,) = model.clip_columns(FOLDER / "new.mp4", "You know what I mean.")["intensity"]
    print(f"{best} says {told:+.1f} of a clip made for {intensity:+.1f}")
