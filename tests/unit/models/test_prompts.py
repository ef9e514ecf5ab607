"""The prompt in front of every text: from the encoder's folder, or as the settings say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from valence.audit.token_lengths import token_lengths
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.dataset import Dataset, TrainingData
from valence.data.examples import Examples
from valence.data.sources import load_dataset
from valence.errors import ModelError
from valence.inference.export.export import ExportOptions, export_model
from valence.llm.retrieval import Embedder
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.config_file import read_config, seal_again
from valence.models.encoder import TextTokenizer
from valence.models.encoder_files import PROMPTS_FILE, resolve_prompt
from valence.models.loader import load_model
from valence.models.stock_head import stock_refusal
from valence.runs.store import result_key

PROMPT = "film plot is "
TEXTS = ["good food", "a really awful room", ""]


def encoder_with(tmp_path: Path, tiny_encoder: Path, prompts: dict[str, object]) -> Path:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, folder)
    (folder / PROMPTS_FILE).write_text(json.dumps(prompts))
    return folder


@pytest.fixture
def prompted_encoder(tmp_path: Path, tiny_encoder: Path) -> Path:
    prompts = {"prompts": {"query": PROMPT, "document": ""}, "default_prompt_name": "query"}
    return encoder_with(tmp_path, tiny_encoder, prompts)


@pytest.fixture
def rows(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=45)


def training(rows: Dataset) -> TrainingData:
    return rows.without_test()


def test_folder_names_its_prompt_and_the_setting_comes_first(prompted_encoder: Path) -> None:
    where = str(prompted_encoder)
    assert resolve_prompt(None, where).text == PROMPT
    assert "'query' of the encoder's folder" in resolve_prompt(None, where).note
    assert resolve_prompt("", where) == resolve_prompt("", "no folder")
    assert resolve_prompt("a ", where).text == "a "
    assert "from encoder.prompt" in resolve_prompt("a ", where).note


def test_prompts_without_a_default_are_named_and_not_taken(
    tmp_path: Path, tiny_encoder: Path
) -> None:
    prompts = {"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": None}
    prompt = resolve_prompt(None, str(encoder_with(tmp_path, tiny_encoder, prompts)))
    assert prompt.text == ""
    assert "query, passage" in prompt.note
    assert resolve_prompt(None, str(tiny_encoder)).note == ""


def test_broken_file_of_prompts_is_one_clear_error(prompted_encoder: Path) -> None:
    (prompted_encoder / PROMPTS_FILE).write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        resolve_prompt(None, str(prompted_encoder))


def test_prompt_is_a_part_of_the_ids_and_of_the_limit(
    prompted_encoder: Path, tiny_encoder: Path
) -> None:
    plain = TextTokenizer(EncoderSpec(name=str(tiny_encoder)))
    own = TextTokenizer(EncoderSpec(name=str(prompted_encoder)))
    assert own(TEXTS).input_ids == plain([PROMPT + text for text in TEXTS]).input_ids
    assert own.prompt_tokens == 3
    short = TextTokenizer(EncoderSpec(name=str(prompted_encoder), max_length=6))
    assert short(TEXTS).truncated == 2
    assert [len(ids) for ids in short(TEXTS).input_ids] == [6, 6, 5]
    with pytest.raises(ModelError, match="leaves no room"):
        TextTokenizer(EncoderSpec(name=str(prompted_encoder), max_length=5))


def test_every_window_has_room_for_the_prompt(prompted_encoder: Path) -> None:
    tokenizer = TextTokenizer(EncoderSpec(name=str(prompted_encoder), max_length=9))
    text = "the food was good but the room was cold and the staff was awful"
    (pieces,) = tokenizer.windows([text])
    assert pieces[0].startswith("the food was")
    assert pieces[-1].endswith("staff was awful")
    assert max(len(piece.split()) for piece in pieces) == 4
    assert tokenizer(pieces).truncated == 0
    assert tokenizer.windows(["the food was good"]) == [["the food was good"]]


def test_lengths_of_an_audit_count_the_prompt(prompted_encoder: Path) -> None:
    lengths, limit = token_lengths(EncoderSpec(name=str(prompted_encoder)), TEXTS)
    assert lengths.tolist() == [7, 9, 5]
    assert limit == 64


@pytest.mark.parametrize("method", ["linear-probe", "lora", "full"])
def test_saved_model_remembers_the_prompt(
    method: str, rows: Dataset, prompted_encoder: Path, tiny_settings: dict[str, object],
    tmp_path: Path,
) -> None:  # fmt: skip
    settings = {**tiny_settings, "encoder.name": str(prompted_encoder), "train.epochs": 1}
    spec = make_spec(method, DataSpec(), settings=settings)
    result = fit_spec(spec, training(rows))
    assert any("'query' of the encoder's folder" in note for note in result.notes)
    folder = tmp_path / "model"
    result.model.uncached().save(folder)
    assert read_config(folder).network["encoder"]["prompt"] == PROMPT
    (prompted_encoder / PROMPTS_FILE).unlink()  # what the folder says later changes nothing
    loaded = load_model(folder)
    examples = Examples(TEXTS)
    before = result.model.uncached().predict(examples).probs
    np.testing.assert_allclose(loaded.predict(examples).probs, before, atol=1e-6)


def test_model_saved_before_prompts_has_none(
    rows: Dataset, prompted_encoder: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    settings = {**tiny_settings, "encoder.name": str(prompted_encoder), "encoder.prompt": ""}
    spec = make_spec("linear-probe", DataSpec(), settings=settings)
    model = fit_spec(spec, training(rows)).model.uncached()
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["network"]["encoder"]["prompt"]
    path.write_text(json.dumps(config))
    seal_again(tmp_path / "model")
    probs = load_model(tmp_path / "model").predict(Examples(TEXTS)).probs
    np.testing.assert_allclose(probs, model.predict(Examples(TEXTS)).probs, atol=1e-6)


def test_prompt_of_the_folder_is_a_part_of_the_key(
    rows: Dataset, reviews: Path, prompted_encoder: Path, tiny_encoder: Path
) -> None:
    def contents(encoder: Path, **settings: str) -> tuple[str, ...]:
        named = {"encoder.name": str(encoder), **settings}
        spec = make_spec("lora", DataSpec(name=str(reviews)), settings=named)
        return result_key(spec, rows).content

    assert len(contents(tiny_encoder)) == 1, "results of encoders without a prompt stay valid"
    assert contents(prompted_encoder)[1] == f"prompt {PROMPT}"
    assert len(contents(prompted_encoder, **{"encoder.prompt": ""})) == 1


def test_explanation_shows_words_of_the_text_alone(
    rows: Dataset, prompted_encoder: Path, tiny_settings: dict[str, object]
) -> None:
    settings = {**tiny_settings, "encoder.name": str(prompted_encoder)}
    model = fit_spec(make_spec("lora", DataSpec(), settings=settings), training(rows)).model
    text = "good film but the plot is dull"
    attribution = model.attribute(text, 0, 64)
    assert [text[a:b] for (a, b), _ in attribution.pieces] == text.split()
    assert attribution.error is not None
    assert attribution.error < 0.05


def test_demonstrations_are_retrieved_with_the_prompt(
    prompted_encoder: Path, tiny_encoder: Path
) -> None:
    own = Embedder(EncoderSpec(name=str(prompted_encoder)), device="cpu")
    plain = Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")
    np.testing.assert_allclose(own(TEXTS), plain([PROMPT + text for text in TEXTS]), atol=1e-5)
    assert np.abs(own(TEXTS) - plain(TEXTS)).max() > 1e-3


def test_tools_that_add_no_prompt_are_refused_and_others_are_given_it(
    rows: Dataset, prompted_encoder: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed"
    )
    settings = {**tiny_settings, "encoder.name": str(prompted_encoder), "train.epochs": 1}
    model = fit_spec(make_spec("full", DataSpec(), settings=settings), training(rows)).model
    assert "the prompt 'film plot is '" in str(stock_refusal(model.text_model()))
    model.save(tmp_path / "full")
    with pytest.raises(ModelError, match="does not put the prompt"):
        export_model(
            tmp_path / "full", tmp_path / "t", rows, options=ExportOptions(format="transformers")
        )
    probe = fit_spec(make_spec("linear-probe", DataSpec(), settings=settings), training(rows))
    probe.model.uncached().save(tmp_path / "probe")
    options = ExportOptions(format="sentence-transformers")
    export_model(tmp_path / "probe", tmp_path / "st", rows, options=options)
    theirs = library.SentenceTransformer(str(tmp_path / "st"), device="cpu", local_files_only=True)
    features = probe.model.uncached().predict(Examples(TEXTS)).features
    np.testing.assert_allclose(theirs.encode(TEXTS), features, atol=1e-5)


def test_export_puts_the_prompt_in_front(
    rows: Dataset, prompted_encoder: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    settings = {**tiny_settings, "encoder.name": str(prompted_encoder)}
    model = fit_spec(make_spec("linear-probe", DataSpec(), settings=settings), training(rows)).model
    model.uncached().save(tmp_path / "model")
    export_model(tmp_path / "model", tmp_path / "onnx", rows, options=ExportOptions())
    exported = load_model(tmp_path / "onnx")
    probs = exported.predict(Examples(TEXTS)).probs
    np.testing.assert_allclose(probs, model.uncached().predict(Examples(TEXTS)).probs, atol=1e-4)
    long = ["the food was good but the room was cold " * 12]
    assert exported.windows(long) == model.windows(long)
