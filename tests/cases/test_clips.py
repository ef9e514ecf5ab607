"""Clips as people have them: covers, uneven frames, one that is broken off."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("av", reason="the extra media is not installed")

import av

from tests.clips import RATE, make_clip, tone
from valence.data.features.clip_table import archive_clips
from valence.data.features.extractor import Extractor, ExtractorSettings
from valence.errors import DataError


def make_sound_with_cover(path: Path, codec: str) -> Path:
    """A sound file with the picture of its cover, as music shops sell it."""
    with av.open(str(path), "w") as out:
        cover = out.add_stream("mjpeg" if codec != "flac" else "png", rate=1)
        cover.width, cover.height = 64, 64
        cover.pix_fmt = "yuvj420p" if codec != "flac" else "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = out.add_stream(codec, rate=RATE, layout="stereo")
        sound.codec_context.format = {"flac": "s16", "aac": "fltp", "mp3": "fltp"}.get(
            codec, "fltp"
        )
        picture = np.full((64, 64, 3), 200, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        out.mux(cover.encode(frame))
        out.mux(cover.encode())
        wave = np.repeat(tone(150.0)[None].astype(np.float32), 2, axis=0)
        if codec == "flac":
            wave = (wave.T.reshape(1, -1) * 20_000).astype(np.int16)
        audio = av.AudioFrame.from_ndarray(
            wave, format="s16" if codec == "flac" else "fltp", layout="stereo"
        )
        audio.sample_rate = RATE
        out.mux(sound.encode(audio))
        out.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.mp3", "mp3"), ("a.flac", "flac")]
)
def test_a_cover_is_no_video(tmp_path: Path, name: str, codec: str) -> None:
    path = make_sound_with_cover(tmp_path / name, codec)
    with av.open(str(path)) as made:
        if not made.streams.video:
            pytest.skip("this build writes no attached picture here")
    found = Extractor()(path)
    assert found.vision.shape[0] == 0
    assert found.notes == (f"{name} has no picture",)
    assert found.audio.shape[0] == pytest.approx(40, abs=4)


def make_uneven(path: Path, times: list[float]) -> Path:
    """A video whose frames come at these seconds."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg4", rate=30)
        video.width, video.height, video.pix_fmt = 96, 80, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            picture = np.zeros((80, 96, 3), dtype=np.uint8)
            picture[:, : 8 + i % 80] = (200, 30, 30)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
    return path


SLOW_THEN_FAST = [*np.arange(0, 10, 1.0), *np.arange(10, 12, 0.04)]
UNEVEN = {
    "a still, then 25 a second": (SLOW_THEN_FAST, 10 + 10),
    "25 a second, then a still": ([*np.arange(0, 2, 0.04), 8.0], 10 + 1),
    "a gap in the middle": ([*np.arange(0, 1, 0.04), *np.arange(9, 10, 0.04)], 5 + 5),
    "slower than what is read": (list(np.arange(0, 6, 0.5)), 12),
    "bursts": ([t + d for t in range(5) for d in (0, 0.01, 0.02, 0.03)], 5),
}


@pytest.mark.parametrize("name", UNEVEN)
def test_frames_are_taken_by_time(tmp_path: Path, name: str) -> None:
    times, frames = UNEVEN[name]
    found = Extractor(ExtractorSettings(frames_per_second=5))(
        make_uneven(tmp_path / "uneven.mkv", times)
    )
    assert found.vision.shape[0] == pytest.approx(frames, abs=1)


@pytest.mark.parametrize("fps", [5, 10, 24, 25, 30, 60])
def test_even_frames_are_as_many_as_the_time_has(tmp_path: Path, fps: int) -> None:
    found = Extractor()(make_clip(tmp_path / "clip.mp4", fps=fps, pitch=None))
    assert found.vision.shape[0] == 10


def table_of(folder: Path, names: list[str]) -> Path:
    splits = ["train"] * (len(names) - 2) + ["validation", "test"]
    frame = pd.DataFrame({"clip": names, "text": [f"text {n}" for n in names],
                          "label": np.linspace(-1, 1, len(names)), "split": splits})  # fmt: skip
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.mark.parametrize("broken", ["cut", "empty", "text", "header"])
def test_one_broken_clip_is_left_out_and_named(tmp_path: Path, broken: str) -> None:
    names = [f"{i}.mp4" for i in range(5)]
    for name in names:
        make_clip(tmp_path / name, seconds=0.6)
    whole = (tmp_path / "1.mp4").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no clip " * 50,
               "header": whole[:40]}[broken]  # fmt: skip
    (tmp_path / "1.mp4").write_bytes(content)
    archive = archive_clips(table_of(tmp_path, names), tmp_path / "out", Extractor())
    notes = " ".join(archive.manifest.notes)
    assert "unreadable clips skipped" in notes
    assert "1.mp4" in notes
    assert len(archive.split("train")) == 2


def test_a_split_without_any_clip_is_an_error(tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(3)]
    for name in names:
        make_clip(tmp_path / name, seconds=0.6)
    (tmp_path / "2.mp4").write_bytes(b"")
    with pytest.raises(DataError, match=r"no clip of split 'test' can be read.*2\.mp4"):
        archive_clips(table_of(tmp_path, names), tmp_path / "out", Extractor())
    assert not (tmp_path / "out").exists()
