"""What went wrong between here and the cluster, in one line with what to do about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, TypeGuard

from components.shared.errors import UserError

_ADVICE = {
    400: "refused the request as wrong",
    401: "does not know who you are; give a valid token with KFP_EXISTING_TOKEN (it may have expired)",
    403: "does not allow you to do this; check --namespace, or ask its owner to make you a contributor",
    404: "found no such thing; check the name, and that --host is Kubeflow Pipelines 2",
    409: "says that it is there already; look at it, then repeat the command",
    413: "finds the pipeline too large",
    429: "is asked too often; try again later",
}
# what passes by itself
_TRANSIENT = (0, 408, 425, 429, 500, 502, 503, 504)


class ClusterError(UserError):
    """A call to Kubeflow Pipelines failed.

    Args:
        text: one line for the user.
        status: of HTTP; 0 where there was no answer.
        sent: whether the request may have been carried out although no answer came.
    """

    def __init__(self, text: str, status: int = 0, sent: bool = False):
        super().__init__(text)
        self.status, self.sent = status, sent

    @property
    def transient(self) -> bool:
        """Whether trying again may help."""
        return self.status in _TRANSIENT


def explained(error: Exception, host: str, timeout: float, secrets: Iterable[str]) -> ClusterError:
    """Turn what a client of `kfp_server_api` raised into one line.

    Args:
        error: what was raised.
        host: the server's address, to be shown.
        timeout: seconds that were waited for an answer.
        secrets: what must not be shown, whatever the server answers.
    """
    import urllib3.exceptions as http
    from kfp_server_api.exceptions import ApiException, OpenApiException

    if isinstance(error, http.MaxRetryError) and error.reason is not None:
        error = error.reason
    if isinstance(error, ApiException) and error.status:
        return _refused(error, host, secrets)
    if isinstance(error, http.SSLError) or "SSLError" in str(getattr(error, "reason", "")):
        reason = _line(str(error).rsplit(":", 2)[-2] if str(error).count(":") > 1 else str(error), secrets)
        return ClusterError(
            f"{host}: its certificate can't be trusted ({reason.strip(' ()')}); name the one that signed it with "
            "--ssl-ca-cert",
            status=495,
        )
    if isinstance(error, http.NewConnectionError | http.ConnectTimeoutError | http.LocationParseError):
        return ClusterError(f"{host}: can't be reached: {_reason(error)}; check --host and the network")
    if isinstance(error, http.TimeoutError):
        return ClusterError(f"{host}: no answer within {timeout:g} s; try again, or raise --timeout", sent=True)
    if isinstance(error, http.HTTPError | OSError):
        return ClusterError(f"{host}: the connection was cut: {_reason(error)}; try again", sent=True)
    if isinstance(error, OpenApiException | ValueError | TypeError | AttributeError):
        return ClusterError(
            f"{host}: answered, but not as Kubeflow Pipelines does; check --host (often it ends in /pipeline), and "
            "give a token if it asks to log in",
            status=200,
            sent=True,
        )
    raise error


def _refused(error: Any, host: str, secrets: Iterable[str]) -> ClusterError:
    status = int(error.status)
    if 300 <= status < 400:
        where = (error.headers or {}).get("location", "another address")
        advice = f"sends one on to {where.split('?')[0]}; give a token with KFP_EXISTING_TOKEN, or that as --host"
    elif status >= 500:
        advice = "failed; try again, or read the log of the pod ml-pipeline"
    else:
        advice = _ADVICE.get(status, "refused")
    said = _line(_message(error.body), secrets)
    return ClusterError(
        f"{host}: {advice} [{status}{f': {said}' if said else ''}]", status=status, sent=status >= 500
    )


def _message(body: Any) -> str:
    """What a server says in its own words: gRPC's gateway, the upload service, or a proxy in front of them."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        named = [found.get(key) for key in ("error_message", "message", "error")]
        return next((name for name in named if isinstance(name, str) and name), "")
    return re.sub(r"<[^>]*>", " ", text)


def _line(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…").replace(secret.removeprefix("Bearer "), "…")
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"


def _is_exception(value: object) -> TypeGuard[BaseException]:
    return isinstance(value, BaseException)


def _reason(error: Exception) -> str:
    """Such as `Connection refused`, without addresses of Python objects."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__ or next(filter(_is_exception, cause.args[::-1]), None):
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if "ConnectTimeout" in type(error).__name__:
        return "no answer"
    text = re.sub(r"<[^>]*>", "", str(cause) or type(cause).__name__)
    return " ".join(text.replace("(", " ").replace(")", " ").replace("'", "").split())[:160].strip(" :,")
