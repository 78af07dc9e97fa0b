"""What is released: versions that agree, packages and licences in the wheel."""

import re
import tomllib
from pathlib import Path

import pytest

import release
from molgen._version import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("citation", "changelog", "said"),
    [
        (__version__, __version__, ""),
        ("9.9.9", __version__, "CITATION.cff says 9.9.9"),
        (__version__, "9.9.9 (unreleased)", "CHANGELOG.md says 9.9.9"),
    ],
)
def test_a_release_needs_one_version_everywhere(tmp_path: Path, citation: str, changelog: str, said: str) -> None:
    (tmp_path / "CITATION.cff").write_text(f"title: x\nversion: {citation}\n")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## {changelog}\n\n## 0.0.1\n")
    assert release.differing_versions(tmp_path) == said


def test_every_package_is_in_the_wheel() -> None:
    there = {"molgen"} | {f"molgen.{path.parent.name}" for path in (ROOT / "molgen").glob("*/__init__.py")}
    named = set(PROJECT["tool"]["setuptools"]["packages"])
    assert there == {name for name in named if ".assets" not in name}
    folders = [path for top in ("objectives", "shipped") for path in (ROOT / top).iterdir() if path.is_dir()]
    importable = {f"molgen.assets.{path.parent.name}.{path.name}" for path in folders if path.name.isidentifier()}
    assert importable == {name for name in named if name.count(".") == 3}  # else setuptools warns of them


def test_deepchem_is_asked_for_only_where_it_can_be_installed() -> None:
    needed = [one for one in PROJECT["project"]["dependencies"] if re.match("deepchem|transformers", one)]
    assert len(needed) == 2
    assert all(one.endswith("; python_version < '3.12'") for one in needed)
    assert (ROOT / "licenses" / "deepchem.txt").read_text().count("PandeLab") == 1


def test_no_document_says_to_install_from_the_registry_before_the_release() -> None:
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        if path.name not in ("CHANGELOG.md", "log.md"):
            assert not re.search(r"pip install ['\"]?molgen", path.read_text(encoding="utf-8")), path


def test_the_container_and_the_repository_have_the_data_that_the_wheel_has() -> None:
    packed = PROJECT["tool"]["setuptools"]["package-data"]["molgen.assets.data"]
    for file in (".dockerignore", ".gitignore"):
        kept = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert {line for line in kept if line.startswith("!data/")} == {f"!data/{one}" for one in packed}, file


def test_the_container_runs_without_privileges_and_with_the_pinned_versions() -> None:
    steps = (ROOT / "Dockerfile").read_text()
    assert steps.index("USER molgen") < steps.index("ENTRYPOINT")
    assert steps.count("--constraint /src/constraints.txt") == 2
    assert "ARG TORCH=cpu" in steps
    assert "bash .ci/run" in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
