"""SampleOptions: all options of sampling in one object, for the command line and for Python code."""

from dataclasses import dataclass, field

from molgen.errors import MolgenError
from molgen.generation.decode import SamplingParams
from molgen.generation.rejection import RejectionRules
from molgen.runtime.device import check_memory
from molgen.runtime.distributed import ProcessGroup

_MOST = 10**15
_LARGEST_BATCH = 1_000_000
_BYTES_PER_KEY = 16  # of `Seen`: 8 for the key, and 8 more while it merges
_MOST_GUIDANCE = 100


@dataclass(frozen=True)
class SampleOptions:
    """How many molecules, how they are drawn, and which draws are kept."""

    n: int = 100
    params: SamplingParams = field(default_factory=SamplingParams)
    rules: RejectionRules = field(default_factory=RejectionRules)
    prompt: str = ""
    """A prefix of tokens, not a substructure."""
    seed: int = 0
    batch_size: int | None = None
    """Maximum number of molecules per batch; None: the default of the device."""
    keep: str = ""
    """Fragments from which all molecules are grown, as `molgen.chem.fragments.numbered` writes them."""
    condition: str = ""
    """The values that the molecules should have, such as `logp = 2.5, pIC50 = 8`."""
    guidance: float = 1.0
    """1: the conditional model; above 1: closer to the condition (classifier-free guidance), in twice the time."""

    @property
    def kept_rules(self) -> RejectionRules:
        """The rules, and that a molecule holds what is kept."""
        return self.rules._replace(filter=self.rules.filter._replace(keep=self.keep)) if self.keep else self.rules

    @property
    def only_keeps(self) -> bool:
        """Whether nothing is asked for but what is kept, so that most draws have it."""
        return bool(self.keep) and self.rules == RejectionRules()

    def check(self, group: ProcessGroup) -> None:
        """Raises MolgenError for a value out of range, and for `unique` with several processes."""
        if not 1 <= self.n <= _MOST:
            raise MolgenError(f"-n {self.n}: out of range", f"ask for 1 to {_MOST:,} molecules")
        if self.rules.unique and group.size > 1:
            raise MolgenError(
                "--unique: one process does not know the draws of the others",
                "sample in one process, or into a .csv without --unique and keep one line of each canonical SMILES",
            )
        if self.rules.unique:
            check_memory(f"--unique: to remember {self.n:,} molecules", _BYTES_PER_KEY * self.n)
        self.kept_rules.filter.checked()
        if self.keep and self.prompt:
            raise MolgenError("--keep and --prompt: one of them", "a fragment that is kept is the prompt")
        if not 0 <= self.guidance <= _MOST_GUIDANCE:
            raise MolgenError(f"--guidance {self.guidance}: out of range", f"0 to {_MOST_GUIDANCE}; 1 is none")
        if self.guidance != 1 and not self.condition:
            raise MolgenError("--guidance: without a condition there is nothing to guide to", "name a --condition")
        if self.batch_size is not None and not 1 <= self.batch_size <= _LARGEST_BATCH:
            raise MolgenError(f"--batch-size {self.batch_size}: out of range", f"1 to {_LARGEST_BATCH:,}")
