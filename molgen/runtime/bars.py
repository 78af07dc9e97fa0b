"""Progress bars that start no process."""

import logging
from threading import RLock
from typing import TYPE_CHECKING, Any, NoReturn

from tqdm import tqdm

from molgen.runtime.distributed import this_process

if TYPE_CHECKING:
    _Tqdm = tqdm[NoReturn]
else:
    _Tqdm = tqdm


def bars_disabled() -> bool | None:
    """The value for tqdm's `disable`: only the main process shows bars, not in quiet, and only on a terminal (None)."""
    return None if this_process().is_main and logging.getLogger("molgen").level <= logging.INFO else True


class Bar(_Tqdm):
    """tqdm's bar, which disappears when it is done, is shown where bars are wanted, and has a lock for threads alone.

    tqdm's own lock is for processes too. Since Python 3.14 such a lock starts a process, whose Python imports modules
    from the current folder.
    """

    _lock = RLock()

    def __init__(self, **settings: Any) -> None:
        """`settings` are those of tqdm."""
        super().__init__(**{"leave": False, "disable": bars_disabled(), **settings})
