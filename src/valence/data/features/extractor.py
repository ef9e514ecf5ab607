"""From a sound or video file to features of the shapes that multimodal models read.

How features are made is one frozen value, :class:`ExtractorSettings`; a model keeps it in its
config, so that new clips are read as the training clips were.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from valence.data.features.signals import (
    FRAME_SIDE,
    FRAME_WIDTH,
    PROSODY,
    frame_features,
    speech_features,
)
from valence.data.pretrained import load_companion, load_network
from valence.errors import DataError, ModelError
from valence.storage import atomic

MEL = "mel"
FRAMES = "frames"
_CHUNK_SECONDS = 20  # of sound for a trained encoder at once
_CHUNK_FRAMES = 16


class ExtractorSettings(BaseModel):
    """How sound and pictures become features."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: str = MEL
    """``mel``: log-mel energies and prosody; else hub name or folder of an audio encoder."""
    vision: str = FRAMES
    """``frames``: statistics of frames; else hub name or folder of an image encoder."""
    sample_rate: PositiveInt = 16_000
    """Samples per second after resampling; what most speech encoders expect."""
    step_seconds: float = Field(default=0.05, gt=0)
    """Length of an audio step under ``mel``."""
    mel_bands: PositiveInt = 40
    frames_per_second: float = Field(default=5.0, gt=0)
    """Frames that are read; the others are skipped."""
    max_seconds: float = Field(default=120.0, gt=0)
    """Clips are truncated after this, with a note."""


@dataclass(frozen=True)
class ClipFeatures:
    """Features of one clip.

    Attributes:
        audio: (L_a, d_a) float32; (0, d_a) where the clip has no sound.
        vision: (L_v, d_v) float32; (0, d_v) where it has no picture.
        notes: What was missing or left out.
    """

    audio: np.ndarray
    vision: np.ndarray
    notes: tuple[str, ...] = ()


class Extractor:
    """Makes features of clips; trained encoders are loaded once, at the first clip.

    Args:
        settings: How.
        local_only: Whether encoders are not fetched from the hub, as those that a model folder
            names without a revision.
    """

    def __init__(
        self, settings: ExtractorSettings | None = None, *, local_only: bool = False
    ) -> None:
        self.settings = settings or ExtractorSettings()
        self.local_only = local_only
        self._loaded: dict[str, Any] = {}

    def __call__(self, path: str | Path) -> ClipFeatures:
        """Features of the clip at ``path``.

        Raises:
            DataError: if the file cannot be read or has neither sound nor picture.
            ModelError: if an encoder cannot be loaded.
        """
        path, notes = Path(path), []
        wave, truncated_wave = _sound(path, self.settings)
        frames, truncated_frames = _pictures(path, self.settings)
        if wave is None and frames is None:
            raise DataError(f"{path}: no sound or picture found; use a sound or video file")
        if wave is None:
            notes.append(f"{path.name} has no sound")
        if frames is None:
            notes.append(f"{path.name} has no picture")
        if truncated_wave or truncated_frames:
            notes.append(f"{path.name} is truncated at {self.settings.max_seconds:g} s")
        return ClipFeatures(self._audio(wave), self._vision(frames), tuple(notes))

    def _audio(self, wave: np.ndarray | None) -> np.ndarray:
        settings = self.settings
        if settings.audio != MEL:
            return self._encoded_sound(wave)
        if wave is None:
            return np.zeros((0, settings.mel_bands + len(PROSODY)), dtype=np.float32)
        window = max(1, round(settings.step_seconds * settings.sample_rate))
        return speech_features(
            wave, rate=settings.sample_rate, window=window, mel_bands=settings.mel_bands
        )

    def _vision(self, frames: np.ndarray | None) -> np.ndarray:
        if self.settings.vision != FRAMES:
            return self._encoded_pictures(frames)
        if frames is None:
            return np.zeros((0, FRAME_WIDTH), dtype=np.float32)
        return frame_features(frames)

    def _encoded_sound(self, wave: np.ndarray | None) -> np.ndarray:
        import torch

        processor, model = self._encoder(self.settings.audio, sound=True)
        rate, size = self.settings.sample_rate, _CHUNK_SECONDS * self.settings.sample_rate
        parts = [np.zeros((0, int(model.config.hidden_size)), dtype=np.float32)]
        whole = np.zeros(0, dtype=np.float32) if wave is None else wave
        for start in range(0, len(whole), size):
            # Half a second is the least that every encoder's first layers take.
            chunk = whole[start : start + size]
            chunk = np.pad(chunk, (0, max(0, rate // 2 - len(chunk))))
            batch = processor(chunk, sampling_rate=rate, return_tensors="pt")
            with torch.inference_mode():
                parts.append(model(**batch).last_hidden_state[0].numpy())
        return np.concatenate(parts)

    def _encoded_pictures(self, frames: np.ndarray | None) -> np.ndarray:
        import torch

        processor, model = self._encoder(self.settings.vision, sound=False)
        parts = [np.zeros((0, int(model.config.hidden_size)), dtype=np.float32)]
        for start in range(0, 0 if frames is None else len(frames), _CHUNK_FRAMES):
            chunk = frames[start : start + _CHUNK_FRAMES]  # type: ignore[index]
            batch = processor(list(chunk), return_tensors="pt")
            with torch.inference_mode():
                parts.append(model(**batch).last_hidden_state[:, 0].numpy())
        return np.concatenate(parts)

    def _encoder(self, name: str, *, sound: bool) -> tuple[Any, Any]:
        if name not in self._loaded:
            from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoModel

            maker: Any = AutoFeatureExtractor if sound else AutoImageProcessor
            try:
                self._loaded[name] = (
                    load_companion(maker, name, local_only=self.local_only),
                    load_network(AutoModel, name, local_only=self.local_only),
                )
            except (OSError, ValueError) as error:
                reason = (str(error).strip().splitlines() or ["not found"])[0][:160]
                raise ModelError(
                    f"Encoder {name!r} cannot be loaded ({reason}); use a local folder, or "
                    f"download it once: hf download {name}"
                ) from None
        processor, model = self._loaded[name]
        return processor, model.eval()


def save_clip(features: ClipFeatures, settings: ExtractorSettings, path: Path) -> None:
    """Write the features of one clip, with how they were made, to a ``.safetensors`` file.

    Raises:
        RunError: if the disk refuses.
    """
    from safetensors.numpy import save_file

    about = {"format": "1", "extractor": settings.model_dump_json()}
    with atomic.new_file(path) as scratch:
        save_file({"audio": features.audio, "vision": features.vision}, scratch, about)


def extractor_key(settings: ExtractorSettings) -> str:
    """Hash of how features are made."""
    text = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import av
    except ImportError:
        raise DataError(
            "Reading sound and video needs an extra: pip install 'valence[media]'"
        ) from None
    try:
        # A playlist could name other files and addresses; a clip has no business with them.
        with path.open("rb") as file, av.open(
            file, options={"protocol_whitelist": "none"}
        ) as container:  # fmt: skip
            yield container
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except av.FFmpegError as error:
        reason = (str(error).strip().splitlines() or ["broken"])[0][:120]
        raise DataError(f"{path} cannot be read as sound or video: {reason}") from None


def _sound(path: Path, settings: ExtractorSettings) -> tuple[np.ndarray | None, bool]:
    """(samples,) float32 of one channel, None where there is no sound; whether it was truncated."""
    with _opened(path) as container:
        import av

        if not container.streams.audio:
            return None, False
        resampler = av.AudioResampler(format="flt", layout="mono", rate=settings.sample_rate)
        most, have = round(settings.max_seconds * settings.sample_rate), 0
        parts: list[np.ndarray] = []
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray()[0])
                have += len(parts[-1])
            if have > most:
                break
        else:
            parts += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    wave = np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
    return (wave[:most] if len(wave) else None), len(wave) > most


def _moving_pictures(container: Any) -> Any:
    """The first stream that is a video, and no picture attached to a sound; None without one."""
    import av

    attached = av.stream.Disposition.attached_pic | av.stream.Disposition.still_image
    return next((s for s in container.streams.video if not s.disposition & attached), None)


def _pictures(path: Path, settings: ExtractorSettings) -> tuple[np.ndarray | None, bool]:
    """(N, S, S, 3) uint8 frames, None where there is no picture; whether they were truncated."""
    side = FRAME_SIDE if settings.vision == FRAMES else 224
    frames: list[np.ndarray] = []
    truncated = False
    with _opened(path) as container:
        stream = _moving_pictures(container)
        if stream is None:
            return None, False
        start: float | None = None
        last = -1
        rate = stream.average_rate
        for number, frame in enumerate(container.decode(stream)):
            # Frames without a time of their own come at the stream's rate.
            time = frame.time if frame.time is not None else number / float(rate or 1)
            start = time if start is None else start
            seconds = time - start
            if seconds > settings.max_seconds:
                truncated = True
                break
            # Half a frame's tolerance, as times are rounded to the stream's clock.
            place = math.floor(seconds * settings.frames_per_second + 1e-3)
            if place > last:  # the first of each stretch of time, however many there are
                last = place
                small = frame.reformat(width=side, height=side, format="rgb24")
                frames.append(small.to_ndarray())
    return (np.stack(frames) if frames else None), truncated
