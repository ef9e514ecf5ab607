"""A model folder is a stranger's input: whole, of one model, finite, and nothing in it runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import make_reviews
from valence.config.data import DataSpec
from valence.data.dataset import Dataset
from valence.data.pretrained import check_source, load_adapted
from valence.data.sources import load_dataset
from valence.errors import ModelError
from valence.inference.calibration import no_calibration, remove_calibration, write_calibration
from valence.inference.predictor import Predictor
from valence.methods.fit import fit_spec
from valence.methods.registry import make_spec
from valence.models.base_encoder import _snapshot
from valence.models.config_file import read_config, seal_again
from valence.models.digests import check_digests, digests_of
from valence.models.loader import load_model
from valence.serving.reload import LiveModel, load_warm, signature

TEXTS = ["a good film", "bad food"]


@pytest.fixture(scope="module")
def data(reviews: Path) -> Dataset:
    return load_dataset(DataSpec(name=str(reviews)), seed=1)


def saved(method: str, data: Dataset, folder: Path, settings: dict[str, Any]) -> Path:
    given = settings if method not in ("tfidf-lr", "majority") else {}
    spec = make_spec(method, DataSpec(), settings=given)
    fit_spec(spec, data.without_test()).model.uncached().save(folder)
    return folder


@pytest.fixture(scope="module")
def tfidf(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("tfidf-lr", data, tmp_path_factory.mktemp("tfidf") / "model", {})


@pytest.fixture
def model(tfidf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tfidf, tmp_path / "model"))


def other_model(data: Dataset, folder: Path) -> Path:
    """A model of the same kind and classes, of other rows."""
    half = make_reviews(80, seed=9)
    half.to_csv(folder.with_suffix(".csv"), index=False)
    other = load_dataset(DataSpec(name=str(folder.with_suffix(".csv"))), seed=1)
    return saved("tfidf-lr", other, folder, {})


def change_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change ``config.json`` as one who knows of digests would."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    seal_again(folder)


def refused(folder: Path, words: str) -> bool:
    """Whether a folder is refused in one line that holds the words."""
    with pytest.raises(ModelError) as error:
        Predictor(folder).columns(TEXTS)
    assert re.search(words, str(error.value)), error.value
    return "\n" not in str(error.value)


def test_every_file_has_a_digest_and_is_held_to_it(model: Path) -> None:
    assert check_digests(model)
    digests = digests_of(json.loads((model / "config.json").read_text()))
    assert digests is not None
    own = {p.name for p in model.iterdir()} - {"config.json"}
    assert own == set(digests["files"])
    for name in sorted(own):
        before = (model / name).read_bytes()
        for after in (before[:-1], before + b" ", before.replace(b"a", b"b", 1)):
            if after != before:
                (model / name).write_bytes(after)
                assert refused(model, f"{name} is not the file that was saved with this model")
        (model / name).unlink()
        assert refused(model, f"{name} is missing")
        (model / name).write_bytes(before)
    assert Predictor(model).predict(TEXTS)


def test_half_a_folder_and_two_mixed_ones_are_refused(
    model: Path, data: Dataset, tmp_path: Path
) -> None:
    other = other_model(data, tmp_path / "other")
    differing = [
        path.name for path in other.iterdir()
        if path.read_bytes() != (model / path.name).read_bytes()
    ]  # fmt: skip
    assert "config.json" in differing
    assert len(differing) >= 2
    for name in differing:
        mixed = Path(shutil.copytree(model, tmp_path / f"mixed-{name}"))
        shutil.copyfile(other / name, mixed / name)
        assert refused(mixed, "is not the file that was saved|was changed after")


@pytest.mark.parametrize("name", ["modeling.py", "model.safetensors", "tokenizer.json", "x.pkl"])
def test_a_file_that_does_not_belong_is_refused(name: str, model: Path) -> None:
    (model / name).write_bytes(b"x")
    assert refused(model, f"{name} is not a file of this model")


def test_the_card_and_the_report_are_free_to_edit(model: Path) -> None:
    (model / "README.md").write_text("# My model")
    (model / "LICENSE").write_text("mine")
    (model / "report").mkdir()
    (model / "report" / "page.html").write_text("x")
    (model / ".note").write_text("x")
    (model / "notes.txt").write_text("x")
    assert Predictor(model).predict(TEXTS)


def test_a_changed_config_is_refused(model: Path) -> None:
    path = model / "config.json"
    path.write_text(path.read_text().replace('"good"', '"gut"'))
    assert refused(model, r"config\.json was changed after the model was saved")


def test_a_calibration_comes_and_goes_and_is_of_this_model(
    model: Path, data: Dataset, tmp_path: Path
) -> None:
    write_calibration(no_calibration(read_config(model)), model)
    assert Predictor(model).predict(TEXTS)
    other = other_model(data, tmp_path / "other")
    shutil.copyfile(model / "calibration.json", other / "calibration.json")
    assert refused(other, r"calibration\.json does not belong to this model")
    (model / "calibration.json").unlink()
    assert refused(model, r"calibration\.json is missing")
    write_calibration(no_calibration(read_config(model)), model)
    remove_calibration(model)
    assert Predictor(model).predict(TEXTS)


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "ids with a gap": (lambda v: v.update(id2label={"0": "a", "2": "b", "3": "c"}), "without gaps"),
    "ids from one": (lambda v: v.update(id2label={"1": "a", "2": "b", "3": "c"}), "without gaps"),
    "a name twice": (lambda v: v["id2label"].update({"1": v["id2label"]["0"]}), "the same name"),
    "a name that is empty": (
        lambda v: v.update(
            id2label={"0": "", "1": "b", "2": "c"}, label2id={"": 0, "b": 1, "c": 2}
        ),
        "has no name",
    ),
    "maps that differ": (lambda v: v.update(label2id={"x": 0, "y": 1, "z": 2}), "do not fit"),
    "negative counts": (lambda v: v.update(train_counts=[-1, 2, 3]), "train_counts"),
    "counts of 1e30": (lambda v: v.update(train_counts=[10**30, 2, 3]), "train_counts"),
    "too few counts": (lambda v: v.update(train_counts=[1, 2]), "counts for 3 labels"),
    "a tail beyond": (lambda v: v.update(tail=[7]), "tail"),
    "a negative seed": (lambda v: v["spec"].update(seed=-1), "seed"),
    "a size of 1e11": (
        lambda v: v.update(network={"head": {"hidden_size": 10**11}}),
        "valid network size",
    ),
    "a shift without end": (lambda v: v.update(logit_shift=[1e300, 0, 0]), "logit_shift"),
    "another loader": (lambda v: v.update(kind="os.system"), "kind"),
    "an unknown field": (lambda v: v.update(auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "no labels": (lambda v: v.update(id2label={}, label2id={}, train_counts=[], tail=[]), "no lab"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_and_names_out_of_range_are_refused(name: str, model: Path) -> None:
    change, words = CONFIGS[name]
    change_config(model, change)
    assert refused(model, words)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "[" * 5000, '{"a":' * 5000])
def test_json_that_is_none_is_one_line(text: str, model: Path) -> None:
    path = model / "config.json"
    path.write_text(f'{{"logit_shift": [{text}]}}')
    assert refused(model, r"config\.json")


TENSORS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "nan": (lambda a: np.where(np.arange(a.size).reshape(a.shape) == 0, np.nan, a).astype(a.dtype),
            "not finite"),
    "inf": (lambda a: np.full_like(a, np.inf), "not finite"),
    "a shape that broadcasts": (lambda a: a.ravel()[:1].copy(), "has the shape"),
    "a row more": (lambda a: np.concatenate([a, a[:1]]), "has the shape"),
    "whole numbers": (lambda a: a.astype(np.int64), "has the type"),
    "half numbers": (lambda a: a.astype(np.float16), "has the type"),
}  # fmt: skip


@pytest.mark.parametrize("change", TENSORS)
@pytest.mark.parametrize("tensor", ["bias", "weight"])
def test_tensors_have_the_exact_shape_type_and_finite_numbers(
    change: str, tensor: str, model: Path
) -> None:
    path = model / "regression.safetensors"
    tensors = dict(load_file(path))
    alter, words = TENSORS[change]
    tensors[tensor] = alter(tensors[tensor])
    save_file(tensors, path)
    seal_again(model)
    assert refused(model, words)


@pytest.mark.parametrize("name", ["bias", "head.bias"])
def test_tensors_of_networks_too(
    name: str, data: Dataset, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    folder = saved("linear-probe", data, tmp_path / "m", {**tiny_settings, "train.epochs": 1})
    path = folder / "head.safetensors"
    tensors = dict(load_file(path))
    own = next(n for n in tensors if n.endswith("bias"))
    tensors[own if name == "head.bias" else "extra.bias"] = tensors[own][:1].copy()
    save_file(tensors, path)
    seal_again(folder)
    assert refused(folder, "has the shape|is not in the network")


@pytest.mark.parametrize("target", ["/etc/hostname", "nowhere", "/dev/zero", "."])
def test_links_out_of_the_folder_are_refused(target: str, model: Path) -> None:
    (model / "terms.json").unlink()
    (model / "terms.json").symlink_to(target)
    assert refused(model, r"terms\.json (is a link|cannot be read|is not a regular file)")


def test_a_pipe_does_not_hang(model: Path) -> None:
    (model / "config.json").unlink()
    os.mkfifo(model / "config.json")
    assert refused(model, "is not a regular file")


@pytest.mark.parametrize("file", ["/etc/passwd", "../model.onnx", "", "a/../../x", "x\x00y"])
def test_an_export_names_files_inside_alone(file: str, tmp_path: Path) -> None:
    release = Path(__file__).parents[1] / "fixtures" / "v0.1.0" / "models" / "onnx"
    folder = Path(shutil.copytree(release, tmp_path / "m"))
    settings = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**settings, "file": file}))
    assert refused(folder, "names the file|is not in the folder")


OWN_CODE = "import pathlib; pathlib.Path({mark!r}).write_text('ran')\nclass M: pass\n"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_an_encoder_does_not_run_whatever_stdin_says(
    name: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    mark = tmp_path / "mark"
    (folder / "own.py").write_text(OWN_CODE.format(mark=str(mark)))
    values = json.loads((folder / name).read_text())
    values["auto_map"] = {"AutoConfig": "own.M", "AutoModel": "own.M", "AutoTokenizer": "own.M"}
    (folder / name).write_text(json.dumps({**values, "model_type": "own"}))
    with pytest.raises(ModelError, match=rf"Python code .*\(auto_map in {name}\)"):
        check_source(folder, weights=True)
    make_reviews(40).to_csv(tmp_path / "r.csv", index=False)
    command = [
        sys.executable,
        "-m",
        "valence",
        "train",
        str(tmp_path / "r.csv"),
        "--method",
        "lora",
    ]
    done = subprocess.run(
        [*command, "--encoder", str(folder), "--out", str(tmp_path / "m")],
        input="y\n" * 20, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "auto_map" in done.stderr
    assert not mark.exists()


AUTO_MAP = {"auto_map": {"AutoModel": "own.M"}}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("config.json", {"text_config": AUTO_MAP}), ("config.json", {"parts": [{"a": AUTO_MAP}]}),
        ("config.json", {"auto_map": {"AutoModel": "evil/repo--own.M"}}),
        ("config.json", {"auto_map": "own.M"}), ("generation_config.json", AUTO_MAP),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.M", None]}}),
        ("processor_config.json", {"image_processor": AUTO_MAP}),
        ("preprocessor_config.json", AUTO_MAP), ("video_preprocessor_config.json", AUTO_MAP),
        ("adapter_config.json", AUTO_MAP), ("config_of_a_part.json", AUTO_MAP),
    ],
)  # fmt: skip
def test_code_is_refused_wherever_it_is_named(
    name: str, values: dict[str, Any], tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    check_source(folder, weights=True)
    own = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps({**own, **values}))
    with pytest.raises(ModelError, match=rf"Python code .*\(auto_map in {name}\)"):
        check_source(folder, weights=True)


def test_weights_that_can_hold_code_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    import torch

    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors; other weights"):
        check_source(folder, weights=True)


def test_an_adapter_does_not_fetch_a_base_without_a_revision(tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig

    LoraConfig(base_model_name_or_path="someone/base", task_type="CAUSAL_LM").save_pretrained(
        tmp_path
    )
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="names the base 'someone/base' without a revision"):
        load_adapted(AutoPeftModelForCausalLM, tmp_path)


COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "revision",
    [None, "main", "v1.0", COMMIT[:7], "z" * 40, "refs/heads/" + "a" * 29, COMMIT.upper(), "../x"],
)
@pytest.mark.parametrize(
    "name",
    ["someone/enc", "enc", "https://evil.example/enc", "a/b/c", "../enc", "~/enc", "/enc", "",
     "someone/enc@main", "hf://someone/enc", "someone/enc\n", "-x/enc"],
)  # fmt: skip
def test_an_encoder_of_the_hub_is_fetched_at_a_commit_alone(
    name: str, revision: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    fetched = []

    def snapshot(repo: str, *, revision: str | None = None, local_files_only: bool = False,
                 allow_patterns: object = None) -> str:  # fmt: skip
        if not local_files_only:
            fetched.append((repo, revision))
        raise OSError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="needs the encoder"):
        _snapshot(tmp_path, name, revision)
    assert fetched == []
    with pytest.raises(ModelError, match="needs the encoder"):
        _snapshot(tmp_path, "someone/enc", COMMIT)
    assert fetched == [("someone/enc", COMMIT)]


def test_an_encoder_replaced_under_its_name_is_refused(
    data: Dataset, tiny_encoder: Path, tiny_settings: dict[str, object], tmp_path: Path
) -> None:
    encoder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    settings = {**tiny_settings, "encoder.name": str(encoder), "train.epochs": 1}
    folder = saved("linear-probe", data, tmp_path / "m", settings)
    assert Predictor(folder).predict(TEXTS)
    path = encoder / "model.safetensors"
    tensors = {name: values + 1 for name, values in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    assert refused(folder, "trained with other files of the encoder")


def reloaded(folder: Path, spoil: Callable[[], object]) -> tuple[list[str], list[str], list[str]]:
    """What a server answers before and after a change, and what it counts."""
    outcomes: list[str] = []
    live = LiveModel(folder, outcomes.append)
    before = live.current().predict(TEXTS)
    spoil()
    asyncio.run(live._reload(signature(folder)))
    return before, live.current().predict(TEXTS), outcomes


def test_a_reload_of_half_a_folder_keeps_the_old_model(
    model: Path, data: Dataset, tmp_path: Path
) -> None:
    other = other_model(data, tmp_path / "other")
    before, after, outcomes = reloaded(
        model, lambda: shutil.copyfile(other / "config.json", model / "config.json")
    )
    assert (after, outcomes) == (before, ["failed"])


def test_a_reload_that_answers_no_numbers_keeps_the_old_model(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valence.models.base import Outputs
    from valence.models.baselines import TfidfModel

    whole = TfidfModel.predict

    def broken(self: TfidfModel, *args: Any) -> Outputs:
        outputs = whole(self, *args)
        return Outputs(outputs.logits * np.nan, outputs.features)

    live = LiveModel(model, (outcomes := []).append)
    monkeypatch.setattr(TfidfModel, "predict", broken)
    asyncio.run(live._reload(signature(model)))
    assert outcomes == ["failed"]
    with pytest.raises(ModelError, match="invalid outputs"):
        load_warm(model)


def test_a_folder_without_digests_loads_and_says_so(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = model / "config.json"
    values = json.loads(path.read_text())
    del values["digests"]
    path.write_text(json.dumps(values))
    load_model(model)
    assert sum("has no digests" in message for message in caplog.messages) == 1


def test_every_command_refuses_a_folder_with_one_line(model: Path, valence: Any) -> None:
    (model / "terms.json").write_text("{}")
    for command in (
        ["predict", model, "good"], ["export", model, "--out", model.parent / "x"],
        ["evaluate", model, "demo"], ["calibrate", model], ["explain", model, "good"],
    ):  # fmt: skip
        code, _, error = valence(*map(str, command))
        assert code == 1, command
        assert "is not the file that was saved with this model" in error, command
