"""`molgen export`: what stock transformers makes of the folder, and the folder as a run again."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, Cli

from molgen import MoleculeGenerator
from molgen.config import load_config
from molgen.errors import MolgenError
from molgen.export import huggingface
from molgen.export.huggingface import export
from molgen.generation.decode import SamplingParams, decode
from molgen.model.build import build_model
from molgen.runs import Run, create_run
from molgen.tokenizer import SmilesTokenizer
from molgen.training.finetune import initial_model

transformers = pytest.importorskip("transformers", reason="needs the extra hf")

LEARNED = ["model.positions=learned"]
KINDS = {
    "rotary": [],
    "rotary, heads wider than the model": ["model.head_width=24"],
    "rotary, grouped queries": ["model.kv_heads=1"],
    "rotary, biases": ["model.biases=true"],
    "rotary, untied": ["model.tied_head=false"],
    "learned": LEARNED,
    "learned, biases": [*LEARNED, "model.biases=true"],
    "learned, untied": [*LEARNED, "model.tied_head=false"],
    "learned, no final norm": [*LEARNED, "model.final_norm=false"],
    "learned, post-norm": [*LEARNED, "model.norm=after", "model.final_norm=false", "model.biases=true"],
}
REFUSED = {
    "bias": ["model.tied_head=false", "model.biases=true"],
    "sinusoidal": ["model.positions=sinusoidal"],
    "rotary positions with post-norm": ["model.norm=after", "model.final_norm=false"],
    "without a final norm": ["model.final_norm=false"],
    "post-norm with a final norm": [*LEARNED, "model.norm=after"],
    "must be the width": [*LEARNED, "model.head_width=24"],
    "grouped-query": [*LEARNED, "model.kv_heads=1"],
    "window attention": ["model.attention=window"],
    "experts": ["model.feedforward_kind=switch"],
}


def make_run(path: Path, pattern: str, molecules: list[str], settings: list[str], randomized: bool = False) -> Run:
    """A run with arbitrary weights, no two layers alike, and no molecules."""
    config = load_config(None, [*SMALL, *settings], {"data.source": str(path / "my-secret-project" / "mine.smi")})
    tokenizer = SmilesTokenizer.of_corpus(molecules, pattern, randomized)
    run = create_run(path, config, tokenizer, None, None)
    model = build_model(config.model, len(tokenizer))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.2)
    run.save_model(model)
    return run


@pytest.fixture
def run(tmp_path: Path, pattern: str, moses_mini: list[str]) -> Run:
    return make_run(tmp_path / "run", pattern, moses_mini[:200], [])


@pytest.fixture(scope="module")
def exported(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a trained run."""
    folder = tmp_path_factory.mktemp("export") / "small"
    export(small_run.path, folder)
    yield folder


def loaded(folder: Path) -> tuple:
    return (
        transformers.AutoModelForCausalLM.from_pretrained(folder).eval(),
        transformers.AutoTokenizer.from_pretrained(folder),
    )


@pytest.mark.parametrize("settings", KINDS.values(), ids=list(KINDS))
def test_transformers_computes_the_same_and_the_folder_is_the_run_again(
    settings: list[str], tmp_path: Path, pattern: str, moses_mini: list[str]
) -> None:
    made = make_run(tmp_path / "run", pattern, moses_mini[:200], settings, randomized=bool(len(settings) % 2))
    assert export(made.path, tmp_path / "folder").difference <= 1e-4
    model, tokenizer = loaded(tmp_path / "folder")
    for smiles in moses_mini[:50]:
        assert tokenizer(smiles)["input_ids"] == [1, *(made.tokenizer.encode(smiles) or [])]
    ours, ids = made.model(torch.device("cpu")), tokenizer(moses_mini[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, ours(ids), atol=1e-4, rtol=0)
    again = Run(tmp_path / "folder")
    assert again.tokenizer.to_json() == made.tokenizer.to_json()
    assert again.config.model == made.config.model
    for one, other in zip(ours.parameters(), again.model(torch.device("cpu")).parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_without_a_stock_architecture_is_refused_with_the_reason(
    reason: str, tmp_path: Path, pattern: str, moses_mini: list[str], cli: Cli
) -> None:
    make_run(tmp_path / "run", pattern, moses_mini[:20], REFUSED[reason])
    code, _, err = cli("export", "run", "folder")
    assert code == 2
    assert reason in err
    assert "--set model." in err
    assert not (tmp_path / "folder").exists()


def test_generate_draws_what_molgen_draws(exported: Path, small_run: Run) -> None:
    model, tokenizer = loaded(exported)
    start = tokenizer(["", ""], return_tensors="pt")
    assert start["input_ids"].tolist() == [[1], [1]]
    greedy = model.generate(**start, do_sample=False)
    params, random = SamplingParams(temperature=0), torch.Generator()
    ids = decode(small_run.model(torch.device("cpu")), [], 2, params, small_run.tokenizer.suppressed_ids, random)
    (ours, _) = small_run.tokenizer.decode(ids.numpy())
    assert tokenizer.batch_decode(greedy, skip_special_tokens=True) == [ours, ours]
    transformers.set_seed(0)
    drawn = model.generate(**tokenizer([""] * 64, return_tensors="pt"))
    assert drawn.shape[1] <= small_run.config.model.context + 2
    texts = tokenizer.batch_decode(drawn, skip_special_tokens=True)
    assert len(set(texts)) > 32
    assert all(small_run.tokenizer.encode(text) for text in texts if text)


def test_the_probability_of_a_padded_batch_is_molgens(exported: Path, moses_mini: list[str]) -> None:
    model, tokenizer = loaded(exported)
    smiles = moses_mini[:8]
    batch = tokenizer([one + "<eos>" for one in smiles], padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits.log_softmax(dim=-1)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    steps = logits[:, :-1].gather(2, ids[:, 1:, None])[..., 0] * (mask[:, :-1] * mask[:, 1:])
    expected = MoleculeGenerator.load(exported, "cpu").log_likelihood(smiles)
    np.testing.assert_allclose(steps.sum(dim=1).numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("text", ["[Og]", "CC€", "C C", "CC!", "Zz"])
def test_text_without_known_tokens_raises(exported: Path, text: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    with pytest.raises(Exception, match="UNK"):
        tokenizer(text)


def test_samples_of_the_folder_are_those_of_the_run(cli: Cli, exported: Path, small_run: Run) -> None:
    of_run, of_folder = (cli("sample", path, "-n", 20, "--seed", 3) for path in (small_run.path, exported))
    assert of_folder.code == 0, of_folder.err
    assert of_folder.out == of_run.out


def test_a_training_starts_from_the_folder_as_from_the_run(cli: Cli, exported: Path, small_run: Run) -> None:
    from_run, from_folder = (initial_model(r.config, r.tokenizer, r) for r in (small_run, Run(exported)))
    for one, other in zip(from_run.parameters(), from_folder.parameters(), strict=True):
        assert torch.equal(one, other)
    Path("mine.smi").write_text("\n".join(["CCO", "CCN", "CCCO", "CCCN", "CCOC", "CNC", "CCCCO", "OCCO"] * 4))
    done = cli("train", "mine.smi", "--init", exported, "--out", "tuned", "--set", "training.epochs=1")
    assert done.code == 0, done.err


def test_what_transformers_saves_again_is_taken_back(exported: Path, tmp_path: Path, small_run: Run) -> None:
    model, tokenizer = loaded(exported)
    with torch.no_grad():
        model.model.norm.weight.mul_(2)  # as after a training
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again, before = (r.model(torch.device("cpu")) for r in (Run(tmp_path / "again"), small_run))
    assert torch.equal(again.norm.weight, 2 * before.norm.weight)
    assert torch.equal(again.embedding.weight, before.embedding.weight)
    with torch.no_grad():
        model.model.norm.bias.add_(1)
    model.save_pretrained(tmp_path / "again")
    with pytest.raises(MolgenError, match=r"model\.norm\.bias is not zero"):
        Run(tmp_path / "again").model(torch.device("cpu"))


def test_the_folder_names_no_path_and_has_a_card(run: Run, tmp_path: Path) -> None:
    export(run.path, tmp_path / "folder")
    for path in (tmp_path / "folder").iterdir():
        assert b"my-secret-project" not in path.read_bytes()
        assert path.suffix in {".json", ".safetensors", ".md"}
    card = (tmp_path / "folder" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert all(f"## {part}" in card for part in ("Use", "Licences", "Check"))
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["model_type"] == "starcoder2"


def test_the_card_of_a_trained_run_has_its_data_figures_and_limits(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert all(f"## {part}" in card for part in ("Data", "Training", "Figures", "Use and limits", "Licences"))
    assert "molecules.csv.gz" not in card


def test_a_folder_that_exists_is_kept_unless_forced(cli: Cli, run: Run) -> None:
    Path("folder").mkdir()
    Path("folder/mine.txt").write_text("mine")
    code, _, err = cli("export", run.path, "folder")
    assert (code, "exists" in err) == (2, True)
    assert cli("export", run.path, "folder", "--force").code == 0
    assert Path("folder/mine.txt").read_text() == "mine"
    assert cli("export", run.path, run.path, "--force").code == 2


def test_an_export_that_differs_is_not_written(cli: Cli, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molgen.export.huggingface._TOLERANCE", 0.0)
    code, _, err = cli("export", run.path, "folder")
    assert (code, "logits" in err) == (1, True)

    def swapped(tokenizer: SmilesTokenizer) -> dict:
        values = right(tokenizer)
        vocabulary = values["model"]["vocab"]
        vocabulary["C"], vocabulary["c"] = vocabulary["c"], vocabulary["C"]
        return values

    right = huggingface._tokenizer
    monkeypatch.setattr(huggingface, "_tokenizer", swapped)
    assert "the ids" in cli("export", run.path, "folder").err
    assert not Path("folder").exists()


def test_without_transformers_nothing_is_exported(cli: Cli, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molgen.export.huggingface.find_spec", lambda _: None)
    code, _, err = cli("export", run.path, "folder")
    assert (code, "extra `hf`" in err, Path("folder").exists()) == (2, True, False)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"molgen": 3}',
        '{"molgen": {}}',
        '{"molgen": {"config": {}, "tokenizer": {"pattern": "("}}}',
        '{"molgen": {"config": {"model": {"width": "wide"}}}}',
        "[" * 100_000,
    ],
)
def test_a_damaged_or_foreign_folder_is_refused_in_one_line(cli: Cli, exported: Path, content: str) -> None:
    Path("folder").mkdir()
    Path("folder/model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    Path("folder/config.json").write_text(content)
    code, _, err = cli("sample", "folder", "-n", 1)
    assert code == 2
    assert err.count("\n") == 1


def test_a_folder_with_weights_of_another_model_is_refused(cli: Cli, exported: Path, run: Run) -> None:
    export(run.path, "other")
    Path("other/model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    values = json.loads(Path("other/config.json").read_text())
    values["molgen"]["config"]["model"]["blocks"] = 1
    Path("other/config.json").write_text(json.dumps(values))
    code, _, err = cli("sample", "other", "-n", 1)
    assert code == 2
    assert "model.safetensors" in err
