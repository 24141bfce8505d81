"""KFP's own client, with a time-out on every call and every failure in one line.

Flags win over the environment, whose variables are those of the `kfp` command line (KFP_ENDPOINT, KFP_NAMESPACE,
KFP_EXISTING_TOKEN) and of `kfp.Client` (KF_PIPELINES_ENDPOINT, KF_PIPELINES_UI_ENDPOINT, the OAuth clients of
Identity-Aware Proxy, KF_PIPELINES_SA_TOKEN_PATH). Without a host, a pod of the cluster finds the service by name;
others go through the kubeconfig.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import kfp
import kfp_server_api
import urllib3
from kfp_server_api.exceptions import ApiException, OpenApiException
from urllib3 import exceptions as http

from components.shared.errors import UserError, first_line, without_account
from pipelines.kubeflow.options import Access

PAGE_SIZE = 100
# seconds to connect
CONNECT = 10.0
_ADVICE = {
    400: "refused the request as wrong",
    401: "does not know who you are; give a valid token with KFP_EXISTING_TOKEN (it may have expired)",
    403: "does not allow you to do this; check --namespace, or ask its owner to make you a contributor",
    404: "found no such thing; check the name, and that --host is Kubeflow Pipelines 2",
    409: "says that it is there already; look at it, then repeat the command",
    413: "finds the pipeline too large",
    429: "is asked too often; try again later",
}
# what passes by itself; 0 is no answer at all
_TRANSIENT = (0, 408, 425, 429, 500, 502, 503, 504)

Found = TypeVar("Found")


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


class Client(kfp.Client):
    """`kfp.Client` for a command line: it waits no longer than it is told, and raises nothing but `UserError`.

    Args:
        access: where to go.
        page: address of the Kubeflow page that a cluster's settings name.

    Raises:
        UserError: no cluster is named, a token, certificate or kubeconfig can't be read, or Kubeflow is shared and
            no namespace is given.
        ClusterError: the server did not say whether it is shared.
    """

    def __init__(self, access: Access, page: str | None = None):
        if not 0 < access.timeout <= 3600:
            raise UserError(f"--timeout = {access.timeout:g}: must be more than 0 and at most 3600 seconds")
        host = access.host or os.environ.get("KFP_ENDPOINT") or os.environ.get("KF_PIPELINES_ENDPOINT")
        if host and "://" not in host:
            host = f"https://{host}"
        if host and re.search(r"\s", host):
            raise UserError(f"--host = {host}: is no address; write it as https://kubeflow.example.org/pipeline")
        namespace = access.namespace or os.environ.get("KFP_NAMESPACE")
        token = access.existing_token or os.environ.get("KFP_EXISTING_TOKEN")
        certificate = access.ssl_ca_cert or os.environ.get("KFP_SSL_CA_CERT")
        if certificate and not Path(certificate).is_file():
            raise UserError(
                f"--ssl-ca-cert = {certificate}: no such file; name a PEM file, or unset KFP_SSL_CA_CERT"
            )
        self._access, self._token, self._shared = access, token.strip() if token else None, False
        try:
            with warnings.catch_warnings():
                # that it is for version 2
                warnings.simplefilter("ignore")
                super().__init__(
                    host=host,
                    namespace=namespace or "kubeflow",
                    existing_token=self._token if host else None,
                    ssl_ca_cert=certificate,
                    kube_context=access.kube_context,
                    ui_host=access.ui_host or page,
                    verify_ssl=not access.no_verify_ssl,
                )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{host or 'the cluster'}: no way in ({first_line(error)}); log in, and look at "
                "~/.config/kfp/context.json"
            ) from None
        if namespace:
            self._context_setting["namespace"] = namespace
        if self._shared and not self.namespace:
            raise UserError(f"{self.host}: is shared by several users; say whose with --namespace or KFP_NAMESPACE")
        self._guard()

    @property
    def host(self) -> str:
        """The server's address, without a password that may be part of it."""
        return without_account(str(self._existing_config.host))

    @property
    def namespace(self) -> str:
        """The user's namespace, empty where Kubeflow is not shared."""
        return str(self._context_setting.get("namespace") or "")

    def link(self, *parts: str) -> str | None:
        """Address of something on the Kubeflow page, such as ("runs", "details", id); None if it is not known."""
        return f"{self._uihost.rstrip('/')}/#/{'/'.join(parts)}" if self._uihost else None

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once how the server is; KFP's own method tries five times and logs tracebacks."""
        self._guard()
        answer = self._healthz_api.healthz_service_get_healthz()
        self._shared = bool(answer.multi_user)
        return answer

    def set_user_namespace(self, namespace: str) -> None:
        """Use a namespace; KFP's own method also writes it into the home folder, for every program."""
        self._context_setting["namespace"] = namespace.strip()

    def _load_config(self, host: str, client_id: Any, namespace: str, *more: Any) -> kfp_server_api.Configuration:
        """As KFP does, but the namespace of the user is not that of Kubeflow Pipelines itself."""
        # it prints that there is no kubeconfig, and goes on to localhost
        with contextlib.redirect_stdout(io.StringIO()):
            config = super()._load_config(host, client_id, self._access.system_namespace, *more)
        if not host and config.host == kfp_server_api.Configuration().host:
            context = self._access.kube_context
            where = f"the kubeconfig's context {context}" if context else "the kubeconfig"
            raise UserError(f"no cluster: give --host or set KFP_ENDPOINT, for {where} can't be used")
        config.host = config.host.rstrip("/")
        if self._token and not host:
            config.api_key["authorization"], config.api_key_prefix["authorization"] = self._token, "Bearer"
            config.refresh_api_key_hook = None
        # a broken connection is tried once more where nothing was sent; the rest is for the caller to decide
        config.retries = urllib3.Retry(
            total=1, connect=1, read=0, redirect=0, status=0, other=0, raise_on_redirect=False
        )
        return config

    def _guard(self) -> None:
        """Let every call of the generated API go through `_request`."""
        self._healthz_api.api_client.request = self._request

    def _request(self, *arguments: Any, **keywords: Any) -> Any:
        api_client, timeout = self._healthz_api.api_client, self._access.timeout
        keywords["_request_timeout"] = (min(CONNECT, timeout), timeout)
        password = urlsplit(self._existing_config.host).password
        secrets = [*self._existing_config.api_key.values(), api_client.cookie, password]
        try:
            response = kfp_server_api.ApiClient.request(api_client, *arguments, **keywords)
        except (OpenApiException, http.HTTPError, OSError) as error:
            raise _explained(error, self.host, timeout, list(filter(None, secrets))) from None
        try:
            understood = isinstance(json.loads(response.data), dict)
        except ValueError:
            understood = False
        if not understood:
            # the generated client turns any text into an empty answer: a login page would be taken for "no runs"
            raise ClusterError(
                f"{self.host}: answered, but not as Kubeflow Pipelines does; check --host (often it ends in "
                "/pipeline), and give a token if it asks to log in",
                status=200,
                sent=True,
            )
        return response


def every(lister: Callable[..., Any], field: str, **keywords: Any) -> Iterator[Any]:
    """Everything that a method lists, page after page.

    Args:
        lister: such as `client.list_runs`.
        field: name of the answer's list, such as "runs".
        keywords: for the method.
    """
    token = ""
    while True:
        answer = lister(**{"page_size": PAGE_SIZE, **keywords}, page_token=token)
        yield from getattr(answer, field) or []
        token = answer.next_page_token
        if not token:
            return


def find_by_name(lister: Callable[..., Any], field: str, name: str, **keywords: Any) -> Any:
    """The first that `every` finds of this display name, or None."""
    return next(every(lister, field, filter=by_name(name), **keywords), None)


def by_name(name: str) -> str:
    """Filter of a list by display name, as the API wants it."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def find_or_make(find: Callable[[], Found | None], make: Callable[[], Found]) -> tuple[Found, bool]:
    """What is found or else made, and whether it was made; another one may make it in the same moment."""
    found = find()
    if found is not None:
        return found, False
    try:
        # KFP's client prints links
        with contextlib.redirect_stdout(io.StringIO()):
            return make(), True
    except ClusterError as error:
        found = find() if error.status == 409 else None
        if found is None:
            raise
        return found, False


def _explained(error: Exception, host: str, timeout: float, secrets: list[str]) -> ClusterError:
    """What the generated client or its transport raised, in one line with what to do about it."""
    if isinstance(error, ApiException) and error.status:
        return _refused(error, host, secrets)
    if isinstance(error, http.MaxRetryError) and error.reason is not None:
        error = error.reason
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    reason = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None) or first_line(cause)
    if isinstance(error, http.SSLError):
        return ClusterError(
            f"{host}: its certificate can't be trusted ({reason}); name the one that signed it with --ssl-ca-cert",
            status=495,
        )
    if isinstance(error, http.NewConnectionError | http.ConnectTimeoutError | http.LocationParseError):
        return ClusterError(f"{host}: can't be reached: {reason}; check --host and the network")
    if isinstance(error, http.TimeoutError):
        return ClusterError(f"{host}: no answer within {timeout:g} s; try again, or raise --timeout", sent=True)
    return ClusterError(f"{host}: the connection was cut: {reason}; try again", sent=True)


def _refused(error: ApiException, host: str, secrets: list[str]) -> ClusterError:
    status = int(error.status)
    if 300 <= status < 400:
        where = (error.headers or {}).get("location", "another address")
        advice = f"sends one on to {where.split('?')[0]}; give a token with KFP_EXISTING_TOKEN, or that as --host"
    elif status >= 500:
        advice = "failed; try again, or read the log of the pod ml-pipeline"
    else:
        advice = _ADVICE.get(status, "refused")
    message = " ".join(_message(error.body).split())
    for secret in secrets:
        message = message.replace(secret, "…")
    message = message if len(message) <= 300 else f"{message[:299]}…"
    detail = f"{status}: {message}" if message else str(status)
    return ClusterError(f"{host}: {advice} [{detail}]", status=status, sent=status >= 500)


def _message(body: Any) -> str:
    """What a server says in its own words: gRPC's gateway, the upload service, or a proxy in front of them."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict):
        words = [found.get(key) for key in ("error_message", "message", "error")]
        return next((word for word in words if isinstance(word, str) and word), "")
    return re.sub(r"<[^>]*>", " ", text)
