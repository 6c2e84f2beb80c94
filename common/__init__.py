"""What the commands of `training`, `deploy` and `monitoring` share.

It imports the standard library only, because some steps of workflows run before an environment is made.

Importing it makes an interrupt one line: a command may be interrupted while it still imports its packages, before
`common.command.run`. The packages with commands import it first. Python then ends the process with the signal, which a shell
calls 130.
"""

import sys
from types import TracebackType


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _report
