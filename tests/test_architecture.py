"""The shape of the package: which module may import which, and what is not imported at all."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "molgen"
# From the bottom to the top. What stands in a row imports from the rows above it in this list only; packages of one row
# do not import each other.
LAYERS = [
    {"errors", "_version"},
    {"runtime"},
    {"config"},
    {"tokenizer"},
    {"chem"},
    {"machine"},
    {"data"},
    {"model", "metrics"},
    {"checkpoint"},
    {"runs"},
    {"prediction"},
    {"training", "generation"},
    {"evaluation", "export", "doctor"},
    {"optimize"},
    {"cli"},
    {"__init__", "__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if "assets" not in path.parts]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room(path: Path) -> str:
    """The package that a file is in, or the file itself where it is in none."""
    return module_name(path).partition(".")[0]


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


# the public names load lazily, from anywhere
@pytest.mark.parametrize("path", [p for p in SOURCES if module_name(p) != "__init__"], ids=module_name)
def test_every_import_points_downwards(path: Path) -> None:
    own = room(path)
    for name, _ in imports(path):
        if name.startswith("molgen."):
            below = name.split(".")[1]
            assert below == own or RANK[below] < RANK[own], f"{module_name(path)} imports {name}"


def test_no_two_modules_of_a_package_import_each_other() -> None:
    graph = {
        module_name(path): {
            name.removeprefix("molgen.") for name, _ in imports(path) if name.startswith(f"molgen.{room(path)}.")
        }
        for path in SOURCES
    }
    reached: dict[str, set[str]] = {}

    def below(module: str, above: tuple[str, ...]) -> set[str]:
        assert module not in above, " imports ".join((*above, module))
        if module not in reached:
            reached[module] = set().union(*({m} | below(m, (*above, module)) for m in graph.get(module, ())))
        return reached[module]

    for module in graph:
        below(module, ())


def test_the_layers_name_what_there_is() -> None:
    assert set(RANK) == {room(path) for path in SOURCES}


def test_a_package_is_one_level_deep_and_its_top_is_short() -> None:
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in SOURCES)
    assert len([path for path in SOURCES if path.parent == PACKAGE]) <= 10


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


def test_no_source_file_uses_what_may_execute_data() -> None:
    # pickletools only decodes: nothing in it imports or calls
    banned = ("pickle.", "Unpickler", "torch.load", "yaml.load", "eval(", "exec(")
    for path in SOURCES:
        names = [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        calls = {name + "(" for name in names}
        assert not any(name.startswith(b) or f"{b}" == name for name in calls for b in banned), path
