"""Small clips, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 22_050
SECONDS = 2.0


def tone(pitch: float, seconds: float = SECONDS, rate: int = RATE) -> np.ndarray:
    """A voice-like tone: a base and its overtones."""
    t = np.arange(int(seconds * rate)) / rate
    return 0.2 * sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2, 3))


def make_clip(
    path: Path, *, pitch: float | None = 150.0, fps: int | None = 25, seconds: float = SECONDS
) -> Path:
    """A clip with a voice-like tone and a red bar that grows; either may be left out."""
    import av

    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=RATE, layout="stereo") if pitch else None
        video = out.add_stream("mpeg4", rate=fps) if fps else None
        if video:
            video.width, video.height, video.pix_fmt = 96, 80, "yuv420p"
            for i in range(int(seconds * fps)):
                picture = np.zeros((80, 96, 3), dtype=np.uint8)
                picture[:, : 4 * (i % 20) + 8] = (200, 30, 30)
                out.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            out.mux(video.encode())
        if sound:
            wave = np.repeat(tone(pitch, seconds)[None].astype(np.float32), 2, axis=0)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="stereo")
            frame.sample_rate = RATE
            out.mux(sound.encode(frame))
            out.mux(sound.encode())
    return path
