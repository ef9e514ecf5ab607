from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.causal import make_causal
from tests.conftest import make_reviews
from tests.together import alone, launched
from valence.config.data import DataSpec
from valence.config.sections import EncoderSpec
from valence.data.examples import Examples
from valence.errors import DataError, ModelError, RunError
from valence.llm.align import self_align
from valence.llm.finetune import finetune
from valence.llm.finetune_spec import FinetuneSpec, read_finetune_result
from valence.llm.instruct import make_instructions
from valence.llm.local import load_language_model, load_weights
from valence.llm.merge import merge
from valence.llm.pseudo_labels import AlignSpec
from valence.llm.records import read_instructions_info
from valence.llm.retrieval import Embedder
from valence.llm.sft_data import SFTData, read_sft_data
from valence.llm.sft_session import FineTuneSession
from valence.reports.curves import write_curves

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def embedder(tiny_encoder: Path) -> Embedder:
    return Embedder(EncoderSpec(name=str(tiny_encoder)), device="cpu")


@pytest.fixture(scope="module")
def instructions(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> Path:
    place = tmp_path_factory.mktemp("instructions")
    rows = make_reviews(42).assign(language=["en", "de"] * 21)
    rows.to_csv(place / "rows.csv", index=False)
    make_instructions(DataSpec(name=str(place / "rows.csv")), place / "made", embedder=embedder)
    return place / "made"


@pytest.fixture
def spec(causal: Path) -> FinetuneSpec:
    return FinetuneSpec(model=str(causal), max_steps=4, accumulation=2, learning_rate=5e-3,
                        device="cpu", validation_share=0.2, save_steps=2)  # fmt: skip


@pytest.fixture
def sft_data(instructions: Path, spec: FinetuneSpec) -> SFTData:
    return read_sft_data(instructions, spec)


def test_instructions_by_language(instructions: Path) -> None:
    about = read_instructions_info(instructions)
    assert set(about.groups) == {"en", "de"}
    rows = json.loads((instructions / "en/train.json").read_text())
    assert set(rows[0]) == {"instruction", "input", "output"}
    info = json.loads((instructions / "dataset_info.json").read_text())
    for entry in info.values():
        assert (instructions / entry["file_name"]).exists()
    assert "valence_de_test_chat" in info
    chat = (instructions / "en/train.chat.jsonl").read_text().splitlines()
    messages = json.loads(chat[0])["messages"]
    assert messages[0]["content"] == f"{rows[0]['instruction']}\n{rows[0]['input']}"
    assert messages[-1] == {"role": "assistant", "content": rows[0]["output"]}
    plain = json.loads((instructions / "en/train.completion.jsonl").read_text().splitlines()[0])
    assert plain["prompt"] == messages[0]["content"] + "\nAnswer:"
    assert sum(c["train"] for c in about.groups.values()) == 34, "validation goes back to train"


def _history(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_train_merge_and_ask(
    sft_data: SFTData, spec: FinetuneSpec, causal: Path, tmp_path: Path
) -> None:
    told = finetune(spec, sft_data, tmp_path / "adapter")
    history = _history(tmp_path / "adapter")
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3, 4]
    assert told.steps == 4
    assert 0 <= (told.validation["macro_f1"] or 0.0) <= 1
    assert write_curves(tmp_path / "adapter").stat().st_size > 0
    checked = merge(tmp_path / "adapter", tmp_path / "model")
    assert checked.gap < 1e-4
    assert checked.trained_gap is not None
    assert checked.trained_gap < 1e-4, "the same format, so the trained answers"
    assert checked.trained_format == checked.merged_format == "fp32"
    merged = load_weights(str(tmp_path / "model"))
    assert not any("lora" in name for name, _ in merged.named_parameters())
    base = load_language_model(str(causal), device="cpu")
    tuned = load_language_model(str(tmp_path / "model"), device="cpu")
    answers = base.answer_ids(told.checks[0], told.answers)
    prompts = base.encode(told.checks)
    before, after = (m.likelihoods(prompts, answers) for m in (base, tuned))
    assert after.max(1).mean() > before.max(1).mean(), "answers became likelier"
    with pytest.raises(RunError, match="is not empty"):
        merge(tmp_path / "adapter", tmp_path / "model")
    with pytest.raises(ModelError, match="not an adapter of valence llm finetune"):
        merge(tmp_path / "model", tmp_path / "other")


def test_a_stopped_training_goes_on_to_the_same_end(
    sft_data: SFTData, spec: FinetuneSpec, tmp_path: Path
) -> None:
    whole = finetune(spec, sft_data, tmp_path / "whole")

    def stop(share: float, words: str) -> None:
        if words.startswith("step 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(spec, sft_data, tmp_path / "halted", progress=stop)
    assert not (tmp_path / "halted").exists()
    seen: list[str] = []
    again = finetune(
        spec, sft_data, tmp_path / "halted", progress=lambda _, words: seen.append(words)
    )
    assert [words.split()[1] for words in seen] == ["3", "4"]
    assert again.validation == pytest.approx(whole.validation, abs=1e-6)
    history = _history(tmp_path / "halted")
    assert [row["step"] for row in history if "loss" in row] == [1, 2, 3, 4]
    assert not list(tmp_path.glob(".*unfinished"))


def test_only_the_answer_is_learned_and_none_is_cut(
    sft_data: SFTData, spec: FinetuneSpec, causal: Path, tmp_path: Path
) -> None:
    short = spec.model_copy(update={"cutoff": 200})
    model = load_language_model(str(causal), device="cpu", max_length=200)
    session = FineTuneSession(short, sft_data, model, tmp_path, None)
    rows = session.rows()
    assert session.shortened > 0
    assert max(map(len, rows["input_ids"])) <= 200
    for ids, learned, example in zip(rows["input_ids"], rows["completion_mask"], sft_data.train,
                                     strict=True):  # fmt: skip
        said = model.tokenizer.decode([i for i, one in zip(ids, learned, strict=True) if one])
        assert said == sft_data.renderer.answers[example.label] + "<|end|>"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(RunError, match="not empty and not an adapter"):
        finetune(spec, sft_data, tmp_path / "full")


def test_folders_that_hold_nothing(tmp_path: Path, spec: FinetuneSpec) -> None:
    with pytest.raises(DataError, match="has no instructions; create them"):
        read_sft_data(tmp_path, spec)
    with pytest.raises(ModelError, match="not an adapter"):
        read_finetune_result(tmp_path)


def test_rounds_go_on_only_while_validation_gains(
    sft_data: SFTData, spec: FinetuneSpec, embedder: Embedder, tmp_path: Path
) -> None:
    texts = make_reviews(12, seed=5)["text"].tolist()
    how = AlignSpec(rounds=1, threshold=0.34, sets=2)
    told, rounds = self_align(
        spec.model_copy(update={"max_steps": 2}), how, sft_data, Examples(texts), tmp_path / "out",
        embedder=embedder,
    )  # fmt: skip
    scores = [r.macro_f1 for r in rounds if r.improved]
    assert scores == sorted(scores)
    assert told.validation["macro_f1"] == max(scores)
    assert rounds[0].improved
    assert all(r.improved for r in rounds[:-1])
    assert (tmp_path / "out/adapter_config.json").exists()
    assert (tmp_path / "out/rounds.csv").exists()
    assert not list(tmp_path.glob(".*rounds"))


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(
    instructions: Path, causal: Path, tmp_path: Path
) -> None:
    words = ["llm", "finetune", instructions, "--model", causal, "--device", "cpu", "--json"]
    for setting in ("max_steps=4", "accumulation=4", "learning_rate=5e-3", "validation_share=0.2"):
        words += ["--set", setting]
    ended = [
        started("-m", "valence", *words, "--out", name, where=tmp_path)
        for name, started in (("two", launched), ("one", alone))
    ]
    assert [one.returncode for one in ended] == [0, 0], ended[0].stderr
    scores = [json.loads(one.stdout) for one in ended]
    languages = [one.pop("languages") for one in scores]
    assert set(languages[0]) == set(languages[1]) == {"en", "de"}
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    two, one = (_history(tmp_path / name) for name in ("two", "one"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    assert [r["loss"] for r in two if "loss" in r] == pytest.approx(
        [r["loss"] for r in one if "loss" in r], abs=1e-4
    )
    files = [{f.name for f in (tmp_path / name).iterdir()} for name in ("two", "one")]
    assert files[0] == files[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
