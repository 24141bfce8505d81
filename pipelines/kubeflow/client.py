"""KFP's own client, with a time-out on every call and every failure in one line.

The environment variables are those of the `kfp` command line (see `options.Access`) and of `kfp.Client`
(KF_PIPELINES_UI_ENDPOINT, the OAuth clients of Identity-Aware Proxy, KF_PIPELINES_SA_TOKEN_PATH). Without a host, a
pod of the cluster finds the service by name; others go through the kubeconfig.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
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
# by status, or by its first digit
_REFUSED = {
    300: "sends one on elsewhere, often to log in; give a token with KFP_EXISTING_TOKEN, or that address as --host",
    400: "refused the request as wrong; where Kubeflow is shared by several users, say whose with --namespace",
    401: "does not know who you are; give a valid token with KFP_EXISTING_TOKEN (it may have expired)",
    403: "does not allow you to do this; check --namespace, or ask its owner to make you a contributor",
    404: "found no such thing; check the name, and that --host is Kubeflow Pipelines 2",
    409: "says that it is there already; look at it, then repeat the command",
    413: "finds the pipeline too large",
    429: "is asked too often; try again later",
    500: "failed; try again, or read the log of the pod ml-pipeline",
}
# the first that fits
_LOST = {
    (http.SSLError,): "its certificate can't be trusted ({reason}); name the one that signed it with --ssl-ca-cert",
    (http.NewConnectionError, http.ConnectTimeoutError, http.LocationParseError): (
        "can't be reached: {reason}; check --host and the network"
    ),
    (http.TimeoutError,): "no answer within {timeout:g} s; try again, or raise --timeout",
    (Exception,): "the connection was cut: {reason}; try again",
}


class ClusterError(UserError):
    """A call to Kubeflow Pipelines failed.

    Args:
        text: one line for the user.
        status: of HTTP; 0 where there was no answer.
    """

    def __init__(self, text: str, status: int = 0):
        super().__init__(text)
        self.status = status

    @property
    def transient(self) -> bool:
        """Whether trying again may help."""
        return self.status in (0, 408, 425, 429) or self.status >= 500


class Client(kfp.Client):
    """`kfp.Client` for a command line: it waits no longer than it is told, and raises nothing but `UserError`.

    Args:
        access: where to go.
        page: address of the Kubeflow page that a cluster's settings name.

    Raises:
        UserError: no cluster is named, or a token, certificate or kubeconfig can't be read.
        ClusterError: the server did not say whether it is shared.
    """

    def __init__(self, access: Access, page: str | None = None):
        if access.ssl_ca_cert and not Path(access.ssl_ca_cert).is_file():
            raise UserError(
                f"--ssl-ca-cert = {access.ssl_ca_cert}: no such file; name a PEM file, or unset KFP_SSL_CA_CERT"
            )
        host = access.host if not access.host or "://" in access.host else f"https://{access.host}"
        self._timeout = access.timeout
        try:
            with warnings.catch_warnings():
                # that it is for version 2
                warnings.simplefilter("ignore")
                super().__init__(
                    host=host,
                    namespace=access.namespace or "kubeflow",
                    existing_token=access.existing_token and access.existing_token.strip(),
                    ssl_ca_cert=access.ssl_ca_cert,
                    ui_host=page,
                )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{host or 'the cluster'}: no way in ({first_line(error)}); check --host, log in, and look at "
                "~/.config/kfp/context.json"
            ) from None
        self._guard()

    @property
    def host(self) -> str:
        """The server's address, without a password that may be part of it."""
        return without_account(str(self._existing_config.host))

    @property
    def namespace(self) -> str:
        """The user's namespace, empty where Kubeflow is not shared."""
        return str(self.get_user_namespace() or "")

    def link(self, *parts: str) -> str:
        """Address of something on the Kubeflow page, such as ("runs", "details", id)."""
        return f"{self._get_url_prefix()}/#/{'/'.join(parts)}"

    def create_pipeline(self, name: str) -> str:
        """Make a pipeline without a version, and return its id.

        KFP's own method makes a first version of the pipeline's name.
        """
        wanted = {"display_name": name, "namespace": self.namespace}
        return str(self.pipelines.pipeline_service_create_pipeline(wanted).pipeline_id)

    def retry_run(self, run_id: str) -> None:
        """Let a run that ended badly go on from the tasks that failed; KFP's client has no method for it."""
        self._run_api.run_service_retry_run(run_id)

    def log_of(self, run_id: str, pod: str) -> str:
        """A pod's log, which the server reads for whoever asks.

        Args:
            run_id: whose pod it is.
            pod: its name.

        Raises:
            ClusterError: the server refused or was lost, or has no log of it any more.
        """
        # the generated API lacks it
        answer = self._healthz_api.api_client.call_api(
            "/apis/v1alpha1/runs/{run}/nodes/{pod}/log",
            "GET",
            path_params={"run": run_id, "pod": pod},
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        try:
            text = bytes(answer.data).decode(errors="replace")
        except (http.HTTPError, OSError) as error:
            raise self._lost(error) from None
        if not answer.headers.get("Content-Type", "").startswith("text/plain"):
            raise ClusterError(f"{self.host}: has no log of {pod}", status=404)
        return text

    def _get_url_prefix(self) -> str:
        # KFP's client prints links that begin with it
        return without_account(super()._get_url_prefix()).rstrip("/")

    def get_kfp_healthz(self, sleep_duration: int = 0) -> Any:
        """Ask once how the server is; KFP's own method tries five times and logs tracebacks."""
        self._guard()
        return self._healthz_api.healthz_service_get_healthz()

    def set_user_namespace(self, namespace: str) -> None:
        """Use a namespace; KFP's own method also writes it into the home folder, for every program."""
        self._context_setting["namespace"] = namespace.strip()

    def _load_config(self, host: str, client_id: Any, namespace: str, *more: Any) -> kfp_server_api.Configuration:
        """As KFP does, but the namespace of the user is not that of Kubeflow Pipelines itself."""
        # it prints that there is no kubeconfig, and goes on to localhost
        with contextlib.redirect_stdout(io.StringIO()):
            config = super()._load_config(host, client_id, "kubeflow", *more)
        if not host and config.host == kfp_server_api.Configuration().host:
            raise UserError("no cluster: give --host or set KFP_ENDPOINT, or a kubeconfig that works and no token")
        config.host = config.host.rstrip("/")
        # a broken connection is tried once more where nothing was sent; the rest is for the caller to decide
        config.retries = urllib3.Retry(
            total=1, connect=1, read=0, redirect=0, status=0, other=0, raise_on_redirect=False
        )
        return config

    def _guard(self) -> None:
        """Let every call of the generated API go through `_request`."""
        self._healthz_api.api_client.request = self._request

    def _request(self, *arguments: Any, **keywords: Any) -> Any:
        api_client = self._healthz_api.api_client
        keywords["_request_timeout"] = (min(CONNECT, self._timeout), self._timeout)
        try:
            response = kfp_server_api.ApiClient.request(api_client, *arguments, **keywords)
        except ApiException as error:
            if not error.status:
                raise self._lost(error) from None
            raise self._refused(error) from None
        except (OpenApiException, http.HTTPError, OSError) as error:
            raise self._lost(error) from None
        if keywords.get("_preload_content", True) and not bytes(response.data).lstrip().startswith(b"{"):
            # the generated client turns any text into an empty answer: a login page would be taken for "no runs"
            raise ClusterError(
                f"{self.host}: answered, but not as Kubeflow Pipelines does; check --host (often it ends in "
                "/pipeline), and give a token if it asks to log in",
                status=200,
            )
        return response

    def _refused(self, error: ApiException) -> ClusterError:
        """A status that is no success, in one line with what to do about it."""
        status = int(error.status)
        advice = _REFUSED.get(status) or _REFUSED.get(status // 100 * 100, "refused")
        try:
            # the upload service has a name of its own for it
            answer = json.loads(error.body)
            message = str(answer.get("error_message") or answer["message"])
        except (ValueError, TypeError, LookupError, AttributeError):
            # a proxy in front of it
            message = str(error.reason or "")
        config, cookie = self._existing_config, self._healthz_api.api_client.cookie
        for secret in filter(None, (*config.api_key.values(), cookie, urlsplit(config.host).password)):
            message = message.replace(secret, "…")
        return ClusterError(f"{self.host}: {advice} [{status}: {' '.join(message.split())[:300]}]", status=status)

    def _lost(self, error: Exception) -> ClusterError:
        """What the transport raised, in one line with what to do about it."""
        if isinstance(error, http.MaxRetryError) and error.reason is not None:
            error = error.reason
        text = next(text for kinds, text in _LOST.items() if isinstance(error, kinds))
        return ClusterError(f"{self.host}: {text.format(reason=reason_of(error), timeout=self._timeout)}")


def reason_of(error: BaseException) -> str:
    """What lies below all that a transport wrapped it in, such as "Connection refused"."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return getattr(error, "strerror", None) or first_line(error)


def every(lister: Callable[..., Any], field: str, **keywords: Any) -> Iterator[Any]:
    """Everything that a method lists, page after page.

    Args:
        lister: such as `client.list_recurring_runs`.
        field: name of the answer's list, such as "recurring_runs".
        keywords: for the method.
    """
    token = ""
    while True:
        answer = lister(page_size=PAGE_SIZE, page_token=token, **keywords)
        yield from getattr(answer, field) or []
        token = answer.next_page_token
        if not token:
            return


def by_name(name: str) -> str:
    """Filter of a list by display name, as the API wants it."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
