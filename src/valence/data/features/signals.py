"""From sound and pictures to simple features, without any trained model."""

from __future__ import annotations

import numpy as np

PITCH_RANGE = (60.0, 400.0)  # Hz, of speech
VOICED = 0.5  # least fraction of a window's energy that repeats at the pitch
GRID = 4  # a frame's brightness is averaged on a grid of 4 by 4
FRAME_SIDE = 64  # pixels; statistics need no more
PROSODY = ("loudness", "zero crossings", "spectral centroid", "pitch", "voicing")
FRAME_WIDTH = 3 + 3 + 1 + 1 + GRID * GRID


def speech_features(wave: np.ndarray, *, rate: int, window: int, mel_bands: int) -> np.ndarray:
    """(steps, mel_bands + 5) log-mel energies and prosody of a sound.

    Prosody is :data:`PROSODY`: loudness in decibel, zero crossings per sample, spectral
    centroid in kHz, pitch in hundreds of Hz (0 where there is no voice) and the fraction of
    energy that repeats at the pitch.

    Args:
        wave: (samples,) in [-1, 1], one channel.
        rate: Samples per second.
        window: Samples of a step; steps follow each other without overlap.
        mel_bands: How many.
    """
    if len(wave) < window:
        wave = np.pad(wave, (0, window - len(wave)))
    steps = len(wave) // window
    windows = wave[: steps * window].astype(np.float64).reshape(steps, window)
    mel = _log_mel(windows.reshape(-1), rate, window, mel_bands)
    return np.concatenate([mel, _prosody(windows, rate)], axis=1).astype(np.float32)


def frame_features(frames: np.ndarray) -> np.ndarray:
    """(N, 24) per frame: color mean and spread, motion, edges, and brightness on a grid.

    Args:
        frames: (N, S, S, 3) uint8 with S = :data:`FRAME_SIDE`, in order of time.
    """
    pixels = frames.astype(np.float32) / 255.0
    gray = pixels.mean(axis=3)
    motion = np.zeros((len(gray), 1), dtype=np.float32)
    motion[1:, 0] = np.abs(np.diff(gray, axis=0)).mean(axis=(1, 2))
    edges = np.abs(np.diff(gray, axis=1)).mean(axis=(1, 2))
    edges = edges + np.abs(np.diff(gray, axis=2)).mean(axis=(1, 2))
    side = gray.shape[1] // GRID
    grid = gray.reshape(len(gray), GRID, side, GRID, side).mean(axis=(2, 4))
    parts = [pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2)), motion, edges[:, None]]
    return np.concatenate([*parts, grid.reshape(len(gray), -1)], axis=1)


def _log_mel(wave: np.ndarray, rate: int, window: int, bands: int) -> np.ndarray:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    size = 1 << (window - 1).bit_length()
    filters = mel_filter_bank(
        size // 2 + 1, bands, PITCH_RANGE[0], rate / 2, rate, norm="slaney", mel_scale="slaney"
    )
    energies = spectrogram(
        wave, window_function(window, "hann"), window, window, fft_length=size, power=2.0,
        center=False, mel_filters=filters, log_mel="log10",
    )  # fmt: skip
    mel: np.ndarray = np.asarray(energies).T
    return mel


def _prosody(windows: np.ndarray, rate: int) -> np.ndarray:
    loudness = 10 * np.log10((windows**2).mean(axis=1) + 1e-10)
    crossings = (np.diff(np.signbit(windows), axis=1) != 0).mean(axis=1)
    size = windows.shape[1]
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2
    frequencies = np.fft.rfftfreq(size, 1 / rate) / 1000
    centroid = (power @ frequencies) / (power.sum(axis=1) + 1e-10)
    pitch, voicing = _pitch(windows, rate)
    return np.stack([loudness, crossings, centroid, pitch / 100, voicing], axis=1)


def _pitch(windows: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Pitch in Hz and the fraction of energy that repeats there, by autocorrelation."""
    size = windows.shape[1]
    centered = windows - windows.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centered, n=2 * size, axis=1)
    repeats = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :size]
    # Longer lags overlap less of the window; without this, high pitches would always win.
    autocorrelation = repeats / (repeats[:, :1] + 1e-10) * (size / (size - np.arange(size)))
    least, most = int(rate / PITCH_RANGE[1]), min(int(rate / PITCH_RANGE[0]), size * 3 // 4)
    lags = autocorrelation[:, least : most + 1]
    strength = lags.max(axis=1, initial=0).clip(0, 1)
    # Multiples of the period repeat as well; the first lag that is nearly as good is it.
    first = (lags >= 0.9 * strength[:, None]).argmax(axis=1)
    near = np.stack([lags[i, f : f + 12].argmax() + f for i, f in enumerate(first)])
    return np.where(strength > VOICED, rate / (near + least), 0.0), strength
