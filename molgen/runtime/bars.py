"""Progress bars."""

from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from molgen.runtime.log import progress_disabled

if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm


class Bar(_Tqdm):
    """tqdm's bar, which disappears when it is done, is shown where bars are wanted, and has a lock for threads alone.

    tqdm's own lock is for processes too. Since Python 3.14 such a lock starts a process, whose Python imports modules
    from the current folder.
    """

    _lock = RLock()

    def __init__(self, **settings: Any) -> None:
        """`settings` are those of tqdm."""
        super().__init__(**{"leave": False, "disable": progress_disabled(), **settings})
