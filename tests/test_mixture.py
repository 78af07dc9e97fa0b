"""Mixtures: several sources in shares, no molecule of one source's test split among another's training molecules."""

import gzip
import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Cli
from rdkit import Chem, DataStructs
from rdkit.Chem import rdMolDescriptors
from rdkit.rdBase import BlockLogs

from molgen.chem.pool import Workers
from molgen.config import load_config
from molgen.data.batches import Corpus, Mixture
from molgen.data.dataset import Dataset, build_dataset
from molgen.data.sources import read_source
from molgen.errors import MolgenError
from molgen.runs import Run
from molgen.runtime.signals import TerminatedError
from molgen.training.callbacks import Checkpoint

ALCOHOLS = ["C" * n + "O" for n in range(1, 31)]


def dataset_of(pool: Workers, pattern: str, shares: dict[str, float], **settings: object) -> Dataset:
    data = {"data.sources": shares, "data.min_token_count": 1, "data.charges": "keep"}
    config = load_config(options=data | {f"data.{name}": value for name, value in settings.items()})
    return build_dataset(read_source(config.data), config.data, 64, pattern, pool)


def without(pool: Workers, pattern: str, answers: Path, smiles: list[str], **settings: object) -> Dataset:
    """The dataset of some molecules without those of a file."""
    source = answers.parent / "mine.smi"
    source.write_text("\n".join(smiles) + "\n")
    data = {"data.source": str(source), "data.exclude": [str(answers)], "data.min_token_count": 1}
    config = load_config(options=data | {f"data.{name}": value for name, value in settings.items()})
    return build_dataset(read_source(config.data), config.data, 64, pattern, pool)


def table(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("\n".join(["smiles,split", *(f"{smiles},{split}" for smiles, split in rows)]) + "\n")
    return str(path)


def reasons(dataset: Dataset) -> dict[str, str]:
    return {dropped.smiles: dropped.reason for dropped in dataset.dropped}


def test_an_epoch_shows_each_source_in_its_share_and_its_molecules_equally_often() -> None:
    mixture = Mixture(np.array([0] * 8 + [1] * 2), (0.5, 0.5), seed=0)
    epochs = [mixture.rows(epoch).tolist() for epoch in range(8)]
    assert [sum(row < 8 for row in rows) for rows in epochs] == [5] * 8
    assert [len(rows) for rows in epochs] == [10] * 8
    seen = Counter(row for rows in epochs for row in rows)
    assert [seen[row] for row in range(10)] == [5] * 8 + [20, 20]  # 40 draws of 8 molecules, 40 of 2
    assert len(set(epochs[0][:5])) == 5  # a large source repeats nothing before all of it was shown
    assert not set(epochs[0][:5]) & set(epochs[1][:3])


def test_the_share_of_a_source_without_training_molecules_goes_to_the_others() -> None:
    rows = Mixture(np.array([1, 1, 2, 2]), (0.5, 0.25, 0.25), seed=0).rows(0)
    assert sorted(rows.tolist()) == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_epochs_and_another_seed_others() -> None:
    sources = np.array([0] * 50 + [1] * 50)
    first, again, other = (Mixture(sources, (0.9, 0.1), seed).rows(3).tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_selected_molecules_are_those_of_the_rows_repeats_too() -> None:
    corpus = Corpus.of([[5, 6], [7], [8, 9, 10]], 20)
    chosen = corpus.select(np.array([2, 0, 2]))
    assert [chosen.ids[a:b].tolist() for a, b in zip(chosen.offsets, chosen.offsets[1:], strict=False)] == [
        [corpus.ids[0], 8, 9, 10, corpus.ids[3]],
        [corpus.ids[0], 5, 6, corpus.ids[3]],
        [corpus.ids[0], 8, 9, 10, corpus.ids[3]],
    ]


def test_what_one_source_holds_out_is_no_training_molecule_of_another(
    pool: Workers, pattern: str, tmp_path: Path
) -> None:
    filler = [(smiles, "train") for smiles in ALCOHOLS[:20]] + [("CCCCN", "validation")]
    one = table(tmp_path / "one.csv", [*filler, ("C[C@H](O)c1ccccc1", "train"), ("NCCS", "train")])
    two = table(
        tmp_path / "two.csv",
        [("C[C@@H](O)c1ccccc1", "test"), ("[NH3+]CCS", "test"), ("CCOCC", "train"), ("CCOCCC", "validation")],
    )
    dataset = dataset_of(pool, pattern, {one: 0.5, two: 0.5})
    held_out = "held out elsewhere in the mixture"  # the other enantiomer, and the same amine protonated
    assert reasons(dataset) == {"C[C@H](O)c1ccccc1": held_out, "NCCS": held_out}
    assert dataset.sizes_by_source == {
        one: {"train": 20, "validation": 1},
        two: {"train": 1, "validation": 1, "test": 2},
    }


def test_a_held_out_row_that_is_dropped_itself_holds_out_its_other_forms(
    pool: Workers, pattern: str, tmp_path: Path
) -> None:
    acid, mixed = "C" * 36 + "(=O)O", "C" * 36 + "(=O)O.CCO"  # 41 and 45 tokens
    fillers = [(smiles, "train") for smiles in ALCOHOLS[:20]] + [
        ("CC(N)=O", "valid"),
        ("C1CCN1", "valid"),
        ("CC(=O)C", "train"),
    ]
    one = table(
        tmp_path / "one.csv", [*fillers, (acid, "train"), ("CC(O)c1ccccc1", "training"), ("Cc1ccccc1", "train")]
    )
    two = table(
        tmp_path / "two.csv",
        [(mixed, "test"), ("C[C@H](O)c1ccccc1", "test"), ("x", "test"), ("NCN.NC", "train"), ("NCO.NC", "val")],
    )
    settings = {"max_tokens": 42, "min_token_count": 2, "fragments": "keep"}
    why = reasons(dataset_of(pool, pattern, {one: 0.5, two: 0.5}, **settings))
    held_out = "held out elsewhere in the mixture"
    assert why.pop("x") == "not losslessly tokenisable"
    assert why == {
        mixed: "too long",
        "C[C@H](O)c1ccccc1": "rare token",
        acid: held_out,
        "CC(O)c1ccccc1": held_out,
    }


def test_a_molecule_in_the_training_split_of_one_source_and_the_test_split_of_another_is_a_test_molecule(
    pool: Workers, pattern: str, tmp_path: Path
) -> None:
    rows = [(smiles, "train") for smiles in ALCOHOLS] + [("CCN", "validation")]
    one = table(tmp_path / "one.csv", [*rows, ("c1ccncc1", "train")])
    two = table(tmp_path / "two.csv", [("CCS", "train"), ("CCSC", "validation"), ("n1ccccc1", "test")])
    dataset = dataset_of(pool, pattern, {one: 0.9, two: 0.1})
    assert [(m.split, m.source) for m in dataset.molecules if m.smiles == "c1ccncc1"] == [("test", two)]
    assert [(d.reason, d.source) for d in dataset.dropped] == [("duplicate", one)]


def test_molecules_to_exclude_go_with_their_salts_stereoisomers_and_charged_forms(
    pool: Workers, pattern: str, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.smi"
    answers.write_text("C[C@@H](N)C(=O)O alanine\nnonsense x\n")
    relatives = ["CC(N)C(=O)O", "C[C@H]([NH3+])C(=O)[O-]", "CC(N)C(=O)O.Cl"]
    rows = [*ALCOHOLS, *relatives, "CC(N)C(=O)OC"]
    dataset = without(pool, pattern, answers, rows, charges="keep", fragments="keep")
    assert reasons(dataset) == dict.fromkeys(relatives, "in data.exclude: answers.smi")
    assert len(dataset.molecules) == 31


def ecfp4_similarity(one: str, other: str, bits: bool) -> float:
    """By RDKit's older functions."""
    block = BlockLogs()
    first, second = Chem.MolFromSmiles(one), Chem.MolFromSmiles(other)
    if bits:
        prints = [rdMolDescriptors.GetMorganFingerprintAsBitVect(m, 2, 2048) for m in (first, second)]
    else:
        prints = [rdMolDescriptors.GetMorganFingerprint(m, 2) for m in (first, second)]
    del block
    return float(DataStructs.TanimotoSimilarity(*prints))


def test_what_is_to_be_excluded_is_read_before_anything_is_cleaned(pool: Workers, pattern: str, tmp_path: Path) -> None:
    source = tmp_path / "own.smi"
    source.write_text("no molecule\n" * 3)  # the cleaning would refuse it
    settings = [f"data.source={source}", f"data.exclude=['{tmp_path / 'absent.csv'}']"]
    data = load_config(None, settings).data
    with pytest.raises(MolgenError, match="absent"):
        build_dataset(read_source(data), data, 128, pattern, pool)


def test_a_column_of_similarities_excludes_what_is_as_similar(pool: Workers, pattern: str, tmp_path: Path) -> None:
    answers, source = tmp_path / "answers.csv", tmp_path / "mine.smi"
    unlike = ["Brc1ccccc1", "c1ccsc1", "N#CC#N", "FC(F)(F)F", "S=C=S", "Clc1ccncc1"]
    source.write_text("\n".join([*ALCOHOLS, *unlike, "CCCCCCN"]) + "\n")
    left = {}
    for threshold in (0.99, 0.5, 0.01):
        answers.write_text(f"smiles,ecfp4\nCCCCCCCCO,{threshold}\n")
        settings = {"data.source": str(source), "data.exclude": [str(answers)], "data.min_token_count": 1}
        config = load_config(options=settings)
        dataset = build_dataset(read_source(config.data), config.data, 64, pattern, pool)
        left[threshold] = {m.smiles for m in dataset.molecules}
        assert set(reasons(dataset).values()) <= {
            "in data.exclude: answers.csv",
            "similar to a molecule in data.exclude",
        }
    count, bits = (partial(ecfp4_similarity, "CCCCCCCCO", bits=bits) for bits in (False, True))
    for threshold, smiles in left.items():
        unlike_enough = {s for s in (*ALCOHOLS, *unlike, "CCCCCCN") if max(count(s), bits(s)) < threshold}
        assert smiles == unlike_enough - {"CCCCCCCCO"}
    assert len(left[0.99]) > len(left[0.5]) > len(left[0.01]) > 0
    for cell, problem in (("near", "ecfp4 'near' is no number"), ("32.3", "no similarity"), ("nan", "no similarity")):
        answers.write_text(f"smiles,ecfp4\nCCO,{cell}\n")
        with pytest.raises(MolgenError, match=f"line 2: .*{problem}"):
            build_dataset(read_source(config.data), config.data, 64, pattern, pool)


def test_a_charged_form_of_what_is_similar_is_excluded_too(pool: Workers, pattern: str, tmp_path: Path) -> None:
    target = "CC(COc1ccc(Cl)cc1)CN1CCC(Cc2ccccc2)CC1"
    neutral = "OC(COc1ccc(Cl)cc1)CN1CCC(Cc2ccccc2)CC1"
    charged = "O[C@H](COc1ccc(Cl)cc1)C[NH+]1CCC(Cc2ccccc2)CC1"  # which is in ZINC 250k
    near, far = (max(ecfp4_similarity(target, s, bits) for bits in (False, True)) for s in (neutral, charged))
    assert far < near
    answers = tmp_path / "answers.csv"
    answers.write_text(f"smiles,ecfp4\n{target},{(near + far) / 2}\n")
    for smiles in ([charged], [neutral, charged]):
        dataset = without(pool, pattern, answers, [*smiles, *ALCOHOLS], charges="keep")
        assert reasons(dataset) == dict.fromkeys(smiles, "similar to a molecule in data.exclude")


def test_a_tautomer_of_what_is_similar_is_excluded_too(pool: Workers, pattern: str, tmp_path: Path) -> None:
    target, similar, tautomer = "Cc1cccc(O)n1", "CCc1cccc(O)n1", "CCc1cccc(=O)[nH]1"
    near, far = (max(ecfp4_similarity(target, s, bits) for bits in (False, True)) for s in (similar, tautomer))
    assert far < near
    answers = tmp_path / "answers.csv"
    answers.write_text(f"smiles,ecfp4\n{target},{(near + far) / 2}\n")
    for smiles, excluded in (([tautomer], []), ([similar, tautomer], [similar, tautomer])):
        dataset = without(pool, pattern, answers, [*smiles, *ALCOHOLS])
        assert reasons(dataset) == dict.fromkeys(excluded, "similar to a molecule in data.exclude")


def test_a_molecule_with_atom_maps_is_said_to_exclude_nothing(
    pool: Workers, pattern: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers, source = tmp_path / "answers.smi", tmp_path / "mine.smi"
    answers.write_text("[CH3:1][CH2:2][OH:3]\n")
    source.write_text("\n".join(ALCOHOLS) + "\n")
    config = load_config(
        options={"data.source": str(source), "data.exclude": [str(answers)], "data.min_token_count": 1}
    )
    assert len(build_dataset(read_source(config.data), config.data, 64, pattern, pool).molecules) == len(ALCOHOLS)
    assert "1 of 1 rows" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data.sources": {"tox21": 0.5, "moses-mini": 0.4}}, "the shares sum to 0.9, not to 1"),
        ({"data.sources": {"tox21": 1.0}, "data.source": "moses"}, "leave one of them out"),
        ({"data.sources": {"tox21": 1.0}, "data.where": "x > 1"}, "where: not for a mixture"),
        ({"data.sources": {"tox21": 1.0}, "data.train_size": 5}, "train_size: not for a mixture"),
        ({"data.sources": {"tox21": 0.0}}, "greater than 0"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(MolgenError, match=message):
        load_config(options=options)


def test_a_training_on_a_mixture_says_the_nll_of_each_source_and_goes_on_exactly(
    cli: Cli, moses_mini: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    charged = [f"{'C' * n}[N+](C)(C)C" for n in range(2, 42)]
    Path("quats.smi").write_text("\n".join(charged) + "\n")
    Path("mini.smi").write_text("\n".join(moses_mini[:160]) + "\n")
    recipe = Path("mix.yaml")
    recipe.write_text("data:\n  sources: {mini.smi: 0.5, quats.smi: 0.5}\n  charges: keep\n  min_token_count: 1\n")
    settings = [*SMALL[:-2], "training.randomized=0.5", "training.epochs=2", "training.batch_size=16"]
    options = ["--config", recipe, *(part for setting in settings for part in ("--set", setting))]
    assert cli("train", *options, "--out", "whole").code == 0
    report = json.loads(Path("whole/report.json").read_text())
    assert report["source"] == "mini.smi+quats.smi"
    assert report["sources"]["quats.smi"] == {"train": 32, "validation": 4, "test": 4}
    by_source = report["validation_by_source"]
    assert {name: figures["n"] for name, figures in by_source.items()} == {"mini.smi": 16, "quats.smi": 4}
    mean = sum(figures["n"] * figures["nll"] for figures in by_source.values()) / 20
    assert mean == pytest.approx(report["validation"]["nll"])
    heading, first, *_ = gzip.decompress(Path("whole/molecules.csv.gz").read_bytes()).decode().splitlines()
    assert heading == "smiles,name,row,split,source" and first.endswith(",mini.smi")
    steps = Checkpoint.after_step
    calls = []

    def stop(self: Checkpoint, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == 15:
            self._save_within_epoch(*arguments)  # type: ignore[arg-type]
            raise TerminatedError
        steps(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "after_step", stop)
        assert cli("train", *options, "--out", "parts").code == 143
    assert cli("train", "--resume", "--out", "parts").code == 0
    assert Path("parts/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert Run("parts").molecules == Run("whole").molecules
    assert cli("eval", "parts", "-n", 20).code == 0
    card = Path("whole/README.md").read_text()
    assert "- 50% of an epoch: quats.smi" in card and "molecules.csv.gz" in card  # somebody's own molecules
    refused = cli("train", "tox21", "--config", recipe)
    assert refused.code == 2 and "leave one of them out" in refused.err
    done = cli("data", "describe", "--config", recipe)
    assert done.code == 0 and "of quats.smi: train 32, validation 4, test 4" in done.out


def test_a_mixture_cannot_be_encoded(pool: Workers, tmp_path: Path) -> None:
    from molgen.data.prepare import write_encoded

    config = load_config(options={"data.sources": {"moses-mini": 1.0}})
    with pytest.raises(MolgenError, match="cannot hold a mixture"):
        write_encoded(config, tmp_path / "x.molgen", pool)
