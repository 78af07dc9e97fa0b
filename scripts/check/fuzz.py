"""Fuzzes whatever reads a file or a setting, guided by coverage: bytes in, an answer or one line of refusal out.

    pip install atheris==3.0.0
    python scripts/check/fuzz.py --seconds 600 --corpus runs/fuzz --json runs/fuzz.json

One process per target, one after the other, each with a corpus that begins with sound files and grows from run to run.
A finding is an input that ends in anything but an answer or a MolgenError; it is kept beside the corpus. Linux only, as
atheris is. tests/test_fuzz.py asks the same of inputs that Hypothesis makes up.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["molgen", "yaml", "csv", "json"]):
    from molgen.checkpoint import load_state, load_weights, save_state, save_weights
    from molgen.chem.conditions import Condition
    from molgen.config import Config, DataConfig, load_config, parse_yaml, to_yaml, validate
    from molgen.data.encoded_file import CorpusFile, corpus_writer
    from molgen.data.readers import read_rows, read_samples
    from molgen.errors import MolgenError
    from molgen.model.build import build_model
    from molgen.tokenizer import SmilesTokenizer, deepchem_pattern
    from molgen.training.optim import build_optimizer

SETTINGS = load_config(
    None, [f"model.{s}" for s in ("width=8", "blocks=1", "heads=1", "head_width=8", "feedforward=8", "dropout=0.0")]
)
PATTERN = deepchem_pattern()
TABLES = (".csv", ".tsv", ".smi", ".txt", ".sdf", ".csv.gz")
Target = Callable[[bytes], object]


def targets(folder: Path) -> dict[str, tuple[Target, list[bytes]]]:
    """What is fuzzed, each with sound inputs to begin with; files are written into `folder`."""
    model = build_model(SETTINGS.model, 9, 0)
    optimizer = build_optimizer(model, SETTINGS.training)
    weights, state, encoded = (folder / name for name in ("model.safetensors", "state.safetensors", "x.molgen"))
    save_weights(weights, model, {"vocabulary": "x"})
    save_state(state, {"model": model}, optimizer, {"epoch": 1}, {"tokenizer": "x"})
    tokenizer = SmilesTokenizer.of_corpus(["CCN", "c1ccccc1[NH3+]"], PATTERN)
    with corpus_writer(encoded, tokenizer, DataConfig(source="made")) as writer:
        for split in ("train", "validation"):
            writer.add(split, "CCN")
            writer.add(split, "c1ccccc1[NH3+]")

    def with_file(path: Path, read: Callable[[], object]) -> Target:
        def target(data: bytes) -> object:
            path.write_bytes(data)
            return read()

        return target

    def encoded_strings() -> object:
        file = CorpusFile(encoded)
        file.check(128)
        return file.strings("train")

    def table(data: bytes) -> None:
        path = folder / f"x{TABLES[data[0] % len(TABLES)] if data else '.csv'}"
        path.write_bytes(data[1:])
        for row in read_rows(str(path)):
            assert isinstance(row.smiles, str)
        read_samples(str(path))

    def settings(data: bytes) -> None:
        config = validate(parse_yaml(data.decode("utf-8", "replace"), "x"), "x")
        assert validate(parse_yaml(to_yaml(config), "x"), "x") == config

    def vocabulary(data: bytes) -> None:
        try:
            read = SmilesTokenizer.of_json(data.decode("utf-8", "replace"))
        except ValueError:  # which `Run` refuses with the file's name
            return
        assert SmilesTokenizer.of_json(read.to_json()).fingerprint == read.fingerprint

    def smiles(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        ids = tokenizer.encode(text)
        assert ids is None or "".join(tokenizer.splitter.split(text) or ()) == text

    sound = "smiles,name,split\nCCO,one,train\n\"C[N+](C)(C)C\",'two',test\n"
    record = "x\n  RDKit\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n    0.0  0.0  0.0 C   0  0\nM  END\n$$$$\n"
    tables = [bytes([i]) + sound.encode() for i in range(4)] + [b"\x04" + record.encode()]
    return {
        "weights": (
            with_file(weights, lambda: load_weights(weights, lambda: model, model.num_parameters, {"vocabulary": "x"})),
            [weights.read_bytes()],
        ),
        "state": (
            with_file(state, lambda: load_state(state, {"model": model}, optimizer)),
            [state.read_bytes()],
        ),
        "encoded": (with_file(encoded, encoded_strings), [encoded.read_bytes()]),
        "table": (table, tables),
        "settings": (settings, [to_yaml(Config()).encode(), to_yaml(load_config("tomczak")).encode()]),
        "vocabulary": (vocabulary, [tokenizer.to_json().encode()]),
        "condition": (
            lambda data: Condition(data.decode("utf-8", "replace")).holds({"a": "3", "b": "x"}),
            [b"a > 3 and not (b == 'x' or a in (1, 2))"],
        ),
        "tokens": (smiles, [b"CCN", b"c1ccccc1[NH3+]"]),
    }


def fuzz_one(name: str, corpus: Path, seconds: int) -> None:
    """One target until its time is over; does not return: libFuzzer ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        call, sound = targets(Path(folder))[name]
        corpus.mkdir(parents=True, exist_ok=True)
        for i, content in enumerate(sound):
            (corpus / f"sound-{i}").write_bytes(content)

        def answer_or_refusal(data: bytes) -> None:
            try:
                call(data)
            except MolgenError as error:
                assert "\n" not in str(error), error

        options = [f"-max_total_time={seconds}", "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=4096"]
        options += ["-max_len=16384", f"-artifact_prefix={corpus.parent}/finding-{name}-"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], answer_or_refusal)
        atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help="all of them if none is named")
    parser.add_argument(
        "--here", action="store_true", help="the one that is named in this process, as libFuzzer has it"
    )
    parser.add_argument("--corpus", type=Path, default=Path("runs/fuzz"), help="for inputs and findings (runs/fuzz)")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--json", type=Path, help="also write the results here")
    chosen = parser.parse_args()
    if chosen.here:
        (name,) = chosen.targets
        fuzz_one(name, chosen.corpus / name, chosen.seconds)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        names = list(targets(Path(folder)))
    for name in chosen.targets or names:
        own = [name, "--here", "--corpus", str(chosen.corpus), "--seconds", str(chosen.seconds)]
        done = subprocess.run([sys.executable, __file__, *own], capture_output=True, text=True, check=False)
        executions = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
        results[name] = {
            "executions": int(executions[1]) if executions else 0,
            "corpus": len(list(chosen.corpus.glob(f"{name}/*"))),
            "exit_code": done.returncode,
            "findings": [path.name for path in chosen.corpus.glob(f"finding-{name}-*")],
        }
        print(name, json.dumps(results[name]), flush=True)
        if done.returncode:
            print(done.stdout[-500:], done.stderr[-3_000:], file=sys.stderr)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(result["exit_code"] or result["findings"] for result in results.values()))


if __name__ == "__main__":
    main()
