"""The one exception that a user is meant to read, how a command line shows it, and what it must not show."""

from __future__ import annotations

import atexit
import gc
import os
import re
import select
import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input, told in one line that names the file or field, the value and what to do.

    Command lines print it without a traceback and exit with status 2.
    """


class RefusedError(Exception):
    """Why a model is not registered, in one line. It is what a step finds, not a failure of the step."""


def redacted(text: str) -> str:
    """A text without the passwords in its addresses, nor MLflow's password and token wherever they stand."""
    text = re.sub(r"(\w://[^/\s:@]*):[^\s'\"]+@", r"\1:***@", text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "***")
    return text


def without_account(address: str) -> str:
    """An address to show or to open in a browser: without user, password and the slash at its end."""
    return re.sub(r"//[^/@\s]*@", "//", address).rstrip("/")


def first_line(said: BaseException | str, longest: int = 200) -> str:
    """The first line of what an error or a server says, cut at `longest` characters, without secrets."""
    lines = str(said).strip().splitlines()
    if lines:
        return redacted(lines[0][: longest + 100])[:longest]
    return type(said).__name__ if isinstance(said, BaseException) else ""


def one_line(error: UserError) -> str:
    """All that an error says, in one line, without secrets."""
    return redacted(" ".join(str(error).split()))


def exit_cleanly(main: Callable[[], int | None]) -> None:
    """Run `main` and exit.

    The status is 0 or what `main` returns, 2 for a `UserError` or a missing package, 130 for Ctrl-C, and 141 where
    who reads the output, such as `head`, has read enough: as of programs that SIGINT and SIGPIPE end.
    """
    # at its end Python looks through all objects for garbage several times: seconds, where TensorFlow is among them
    atexit.register(gc.freeze)
    try:
        code = main()
        # None where it is closed
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "models", "components", "pipelines"):
            raise
        print(
            f"error: {package}: is not installed; `make env` installs what requirements.lock lists, "
            f"`uv pip install {package}` anything else, such as another backend of Keras",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: nothing half-written is left; run the same command to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        if not drop_unread():
            raise
        sys.exit(141)
    sys.exit(code or 0)


def drop_unread() -> bool:
    """Throw away what is left to write where nobody reads the output any more; returns whether that is so.

    Python would complain again when it flushes at its end.
    """
    poll, output = select.poll(), sys.stdout.fileno()
    poll.register(output, select.POLLOUT)
    # Linux tells the first, macOS the second
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True
