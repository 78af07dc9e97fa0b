"""The shape of the package: which module may import which, and what is not imported at all."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "molgen"
# From the bottom to the top; a module imports only from rows above its own in this list, or from its own row.
LAYERS = [
    {
        "errors",
        "runtime.cache",
        "runtime.files",
        "runtime.hashing",
        "runtime.distributed",
        "runtime.threads",
        "runtime.signals",
        "__init__",
    },
    {"config", "chem.conditions"},
    {
        "data.download",
        "chem.smiles",
        "tokenizer",
        "model.positions",
        "model.attention",
        "model.feedforward",
        "model.dropout",
        "training.optim",
        "checkpoint",
        "training.curves",
        "training.model_card",
    },
    {"data.rows", "data.lines"},
    {"chem.counterions"},
    {
        "chem.standardize",
        "chem.clean",
        "chem.descriptors",
        "chem.properties",
        "evaluation.charts",
        "model.decoder",
        "data.columns",
        "data.compared",
    },
    {"data.delimited", "data.parquet_rows", "data.sdfile", "data.smifile"},
    {"chem.pool", "data.readers", "model.build", "data.batches"},
    {"metrics.profile", "metrics.known", "metrics.similarity", "metrics.chemnet"},
    {"metrics.basic", "metrics.moses", "metrics.guacamol", "metrics.chem"},
    {"metrics.moses_statistics", "data.dataset", "model.likelihood", "generation.decode", "data.augmentation"},
    {"data.encoded_file"},
    {"metrics.references", "runs", "generation.notebook"},
    {"training.finetune", "training.resume"},
    {"training.setup"},
    {"evaluation.benchmarks", "training.trainer", "generation.generator"},
    {"generation.sample_table"},
    {"evaluation.evaluate", "data.prepare", "generation.score", "generation.writers"},
    {"evaluation.text_table"},
    {"evaluation.report"},
    {"cli.options"},
    {"cli.data"},
    {"cli.main"},
    {"__main__"},
]
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path: Path) -> list[tuple[str, bool]]:
    """(imported module, whether at the top level) of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"molgen.{alias.name}" for alias in node.names] if node.module == "molgen" else [node.module]
            found += [(name, id(node) in top) for name in names]
    return found


SOURCES = [
    path
    for path in sorted(PACKAGE.glob("*.py")) + sorted(PACKAGE.glob("[!a]*/*.py"))
    if module_name(path) not in tuple(f"{package.name}.__init__" for package in PACKAGE.iterdir())
]


# the package itself loads its names lazily, from anywhere
@pytest.mark.parametrize("path", [p for p in SOURCES if module_name(p) != "__init__"], ids=module_name)
def test_every_import_points_downwards(path: Path) -> None:
    own = RANK[module_name(path)]
    for name, _ in imports(path):
        if name.startswith("molgen.") and (below := name.removeprefix("molgen.")) in RANK:
            assert RANK[below] <= own, f"{module_name(path)} imports {below} from a layer above"


def test_deepchem_is_imported_in_one_function_only() -> None:
    places = [
        (module_name(path), top) for path in SOURCES for name, top in imports(path) if name.startswith("deepchem")
    ]
    assert places == [("tokenizer", False)]


@pytest.mark.parametrize("command", ["import molgen", "import molgen.cli.main", "import molgen.config"])
def test_importing_the_command_line_loads_nothing_heavy(command: str) -> None:
    heavy = "{'torch', 'rdkit', 'deepchem', 'pandas', 'matplotlib', 'numpy'}"
    script = f"{command}; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy_and_names_the_three_commands() -> None:
    script = (
        "import sys; from molgen.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'rdkit', 'deepchem', 'pydantic', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert all(command in done.stdout for command in ("train", "sample", "eval"))


def test_the_layers_list_no_module_that_is_gone() -> None:
    assert set(RANK) == {module_name(path) for path in SOURCES}


def test_no_source_file_uses_what_may_execute_data() -> None:
    # pickletools only decodes: nothing in it imports or calls
    banned = ("pickle.", "Unpickler", "torch.load", "yaml.load", "eval(", "exec(")
    for path in SOURCES:
        names = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        calls = {name + "(" for name in names}
        assert not any(name.startswith(b) or f"{b}" == name for name in calls for b in banned), path


def test_layers_are_ordered_without_repetition() -> None:
    assert all(not (a & b) for a, b in pairwise(LAYERS))
