"""Features of clips that are made here: sound, picture, both, neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from tests.clips import SECONDS, make_clip, tone
from valence.data.features.extractor import ClipFeatures, Extractor, ExtractorSettings, save_clip
from valence.data.features.signals import FRAME_WIDTH, PROSODY, frame_features, speech_features
from valence.errors import DataError, ModelError

pytest.importorskip("av", reason="the extra media is not installed")


def test_sound_and_picture(tmp_path: Path) -> None:
    found = Extractor()(make_clip(tmp_path / "clip.mp4"))
    assert found.notes == ()
    assert found.audio.dtype == found.vision.dtype == np.float32
    assert found.audio.shape[1] == 40 + len(PROSODY)
    assert found.audio.shape[0] == pytest.approx(SECONDS / 0.05, abs=3)
    assert found.vision.shape == (10, FRAME_WIDTH)
    pitch = found.audio[5:-5, 40 + PROSODY.index("pitch")] * 100
    assert np.median(pitch) == pytest.approx(150, rel=0.03)
    assert (found.vision[1:, 6] > 0).all(), "the bar moves"
    assert np.isfinite(found.audio).all()
    assert np.isfinite(found.vision).all()


def test_sound_alone_and_picture_alone(tmp_path: Path) -> None:
    sound = Extractor()(make_clip(tmp_path / "sound.m4a", fps=None))
    assert sound.vision.shape == (0, FRAME_WIDTH)
    assert sound.notes == ("sound.m4a has no picture",)
    silent = Extractor()(make_clip(tmp_path / "silent.mp4", pitch=None))
    assert silent.audio.shape == (0, 45)
    assert silent.notes == ("silent.mp4 has no sound",)


def test_long_clips_are_cut_and_said(tmp_path: Path) -> None:
    settings = ExtractorSettings(max_seconds=1.0, frames_per_second=10, mel_bands=20)
    found = Extractor(settings)(make_clip(tmp_path / "clip.mp4"))
    assert found.audio.shape == (20, 25)
    assert found.vision.shape[0] in (10, 11)
    assert found.notes == ("clip.mp4 is truncated at 1 s",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("clip.mp4", b""),
        ("clip.mp4", b"no video at all " * 99),
        # playlists, which would have other files read
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile other.mp4\n"),
    ],
)
def test_what_is_no_clip(
    name: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "other.mp4")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read") as refused:
        Extractor()(tmp_path / name)
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match=r"none\.mp4 cannot be read"):
        Extractor()(tmp_path / "none.mp4")


@pytest.mark.parametrize("pitch", [80.0, 150.0, 220.0, 350.0])
def test_pitch_is_found(pitch: float) -> None:
    steps = speech_features(tone(pitch, 1.0, 16_000), rate=16_000, window=800, mel_bands=30)
    assert steps.shape == (20, 35)
    assert np.median(steps[:, 33]) * 100 == pytest.approx(pitch, rel=0.03)
    assert steps[:, 34].min() > 0.8


def test_silence_noise_and_shortness_are_finite() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    for wave in (np.zeros(16_000), noise, np.ones(3)):
        steps = speech_features(wave, rate=16_000, window=800, mel_bands=30)
        assert np.isfinite(steps).all()
        assert len(steps) >= 1
    voicing = speech_features(noise, rate=16_000, window=800, mel_bands=30)[:, 33]
    assert (voicing == 0).mean() > 0.8, "noise has no pitch"


def test_frame_features_by_hand() -> None:
    frames = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    frames[1, :16, :16] = 255
    still, moved = frame_features(frames)
    assert (still == 0).all()
    assert moved[:3] == pytest.approx([1 / 16] * 3)
    assert moved[6] == pytest.approx(1 / 16)
    assert moved[8:].tolist() == [1.0] + [0.0] * 15


def test_saved_with_how_it_was_made(tmp_path: Path) -> None:
    settings = ExtractorSettings(mel_bands=20)
    features = ClipFeatures(np.ones((3, 25), np.float32), np.zeros((0, 24), np.float32))
    save_clip(features, settings, tmp_path / "new" / "clip.safetensors")
    with safe_open(tmp_path / "new" / "clip.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("audio"), features.audio)
        assert file.get_tensor("vision").shape == (0, 24)
        assert ExtractorSettings.model_validate_json(file.metadata()["extractor"]) == settings


def test_trained_encoders_from_a_folder(tmp_path: Path) -> None:
    from transformers import (
        ViTConfig,
        ViTImageProcessor,
        ViTModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(
        ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=16)
    ).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    config = Wav2Vec2Config(
        **sizes, intermediate_size=16, conv_dim=[8] * 3, conv_stride=[5, 4, 4],
        conv_kernel=[10, 4, 4], num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(tmp_path / "wav2vec")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "wav2vec")
    settings = ExtractorSettings(audio=str(tmp_path / "wav2vec"), vision=str(tmp_path / "vit"))
    extractor = Extractor(settings)
    clip = make_clip(tmp_path / "clip.mp4")
    found, again = extractor(clip), extractor(clip)
    assert found.vision.shape == (10, 16)
    assert found.audio.shape[1] == 16
    assert found.audio.shape[0] > 100
    np.testing.assert_array_equal(found.audio, again.audio)
    assert extractor(make_clip(tmp_path / "s.mp4", pitch=None)).audio.shape == (0, 16)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Extractor(ExtractorSettings(audio=str(tmp_path / "none")))(clip)
