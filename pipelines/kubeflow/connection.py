"""A connection to Kubeflow Pipelines: host, namespace and token as its own client finds them, errors in one line.

Flags win over the environment. The variables are those of the `kfp` command line (KFP_ENDPOINT, KFP_NAMESPACE,
KFP_EXISTING_TOKEN) and of its Python client (KF_PIPELINES_ENDPOINT, KF_PIPELINES_UI_ENDPOINT, the OAuth clients of
Identity-Aware Proxy, KF_PIPELINES_SA_TOKEN_PATH). Without a host, a pod of the cluster finds the service by name;
others go through the kubeconfig. `kfp.Client` itself is not used: it sets no time-outs, tries again and logs with
tracebacks, and takes a login page for an empty answer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.shared.errors import UserError
from pipelines.kubeflow.faults import ClusterError, explained
from pipelines.kubeflow.options import ClusterOptions

if TYPE_CHECKING:
    import kfp_server_api as api

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONTEXT = Path("~/.config/kfp/context.json")
IN_CLUSTER = "ml-pipeline.{}.svc.cluster.local:8888"
THROUGH_KUBERNETES = "api/v1/namespaces/{}/services/ml-pipeline:http/proxy/"
PAGE_SIZE = 100
# seconds to connect
CONNECT = 10.0


def connect(options: ClusterOptions, page: str | None = None) -> Connection:
    """Find the cluster; nothing is sent yet.

    Args:
        options: which cluster, and as whom.
        page: address of the Kubeflow page that a cluster's settings name.

    Raises:
        UserError: no cluster is named, or a token, certificate or kubeconfig can't be read.
    """
    if not 0 < options.timeout <= 3600:
        raise UserError(f"--timeout = {options.timeout:g}: must be more than 0 and at most 3600 seconds")
    host = options.host or os.environ.get("KFP_ENDPOINT") or os.environ.get("KF_PIPELINES_ENDPOINT")
    configuration = _configuration(host, options)
    namespace = options.namespace or os.environ.get("KFP_NAMESPACE") or str(_context().get("namespace") or "")
    shown = os.environ.get("KF_PIPELINES_UI_ENDPOINT") or options.ui_host or page or host
    return Connection(configuration, namespace, shown, options.timeout)


class Connection:
    """The services of Kubeflow Pipelines, and how to call them.

    Args:
        configuration: of `kfp_server_api`.
        namespace: of the user; empty asks the server whether it needs one.
        page: address of the Kubeflow page, None if it is not known.
        timeout: seconds that an answer may take.
    """

    def __init__(self, configuration: api.Configuration, namespace: str, page: str | None, timeout: float):
        import kfp_server_api as api

        context = _context()
        self._client = api.ApiClient(
            configuration,
            cookie=context.get("client_authentication_cookie"),
            header_name=context.get("client_authentication_header_name"),
            header_value=context.get("client_authentication_header_value"),
        )
        self._configuration, self._namespace, self._timeout = configuration, namespace, timeout
        self._page = page.rstrip("/") if page else None
        self.pipelines = api.PipelineServiceApi(self._client)
        self.uploads = api.PipelineUploadServiceApi(self._client)
        self.experiments = api.ExperimentServiceApi(self._client)
        self.runs = api.RunServiceApi(self._client)
        self.recurring = api.RecurringRunServiceApi(self._client)
        self.health = api.HealthzServiceApi(self._client)

    @property
    def host(self) -> str:
        """The server's address, without a password that may be part of it."""
        return re.sub(r"//[^/@]*@", "//", self._configuration.host)

    @cached_property
    def namespace(self) -> str | None:
        """The user's namespace, None where Kubeflow is not shared.

        Raises:
            UserError: it is shared and none is given, or the server does not answer.
        """
        if self._namespace:
            return self._namespace
        if not self.call(self.health.healthz_service_get_healthz).multi_user:
            return None
        try:
            return (SERVICE_ACCOUNT / "namespace").read_text().strip()
        except OSError:
            raise UserError(
                f"{self.host}: is shared by several users; say whose with --namespace or KFP_NAMESPACE"
            ) from None

    def call(self, method: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a method of one of the services.

        Args:
            method: such as `self.runs.run_service_get_run`.
            arguments, keywords: for it; a keyword of None is left out.

        Returns:
            What the method returns: a model of `kfp_server_api`, or a dict for an empty answer.

        Raises:
            ClusterError: the server can't be reached, refused, failed, or does not speak this language.
        """
        given = {name: value for name, value in keywords.items() if value is not None}
        try:
            answer = method(*arguments, **given, _request_timeout=(min(CONNECT, self._timeout), self._timeout))
            if not str(self._client.last_response.data).lstrip().startswith("{"):
                # the client turns any text into an empty answer: a login page would be taken for "no runs"
                raise ValueError("not JSON")
        except Exception as error:
            raise explained(error, self.host, self._timeout, self._secrets()) from None
        return answer

    def pages(self, method: Callable[..., Any], of: str, *arguments: Any, **keywords: Any) -> Iterator[Any]:
        """Everything that a method lists, page after page.

        Args:
            method: of one of the services, with `page_token` and `page_size`.
            of: name of the answer's list, such as "runs".
            arguments, keywords: for the method.
        """
        token = None
        while True:
            answer = self.call(method, *arguments, **{"page_size": PAGE_SIZE, **keywords}, page_token=token)
            yield from getattr(answer, of) or []
            token = answer.next_page_token
            if not token:
                return

    def link(self, *parts: str) -> str | None:
        """Address of something on the Kubeflow page, such as ("runs", "details", id); None if it is not known."""
        return f"{self._page}/#/{'/'.join(parts)}" if self._page else None

    def _secrets(self) -> list[str]:
        password = urlsplit(self._configuration.host).password
        found = [*self._configuration.api_key.values(), self._client.cookie, password]
        return [secret for secret in found if secret]


def _context() -> dict[str, Any]:
    """What KFP's own client remembered on this machine; nothing if it never did."""
    import json

    try:
        found = json.loads(CONTEXT.expanduser().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _configuration(host: str | None, options: ClusterOptions) -> api.Configuration:
    import kfp_server_api as api
    import urllib3

    configuration = api.Configuration()
    # a broken connection is tried once more where nothing was sent; the rest is for the caller to decide
    configuration.retries = urllib3.Retry(
        total=1, connect=1, read=0, redirect=0, status=0, other=0, raise_on_redirect=False
    )
    configuration.verify_ssl = not options.no_verify_ssl
    certificate = options.ssl_ca_cert or os.environ.get("KFP_SSL_CA_CERT")
    if certificate:
        if not Path(certificate).is_file():
            raise UserError(
                f"--ssl-ca-cert = {certificate}: no such file; name a PEM file, or unset KFP_SSL_CA_CERT"
            )
        configuration.ssl_ca_cert = certificate
    if not host:
        return _without_host(configuration, options)
    configuration.host = _address(host)
    token = options.existing_token or os.environ.get("KFP_EXISTING_TOKEN") or _proxy_token(host)
    if token:
        configuration.api_key["authorization"] = token.strip()
        configuration.api_key_prefix["authorization"] = "Bearer"
    return configuration


def _address(host: str) -> str:
    address = host if re.match("https?://", host) else f"https://{host}"
    try:
        parts = urlsplit(address)
        valid = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or re.search(r"\s", address):
        raise UserError(f"--host = {host}: is no address; write it as https://kubeflow.example.org/pipeline")
    return address.rstrip("/")


def _proxy_token(host: str) -> str | None:
    """A token for Google's proxies, as KFP's client gets it."""
    client = os.environ.get("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID")
    if not client and not re.match(r"\S+.googleusercontent.com/?$", host):
        return None
    from kfp.client import auth

    try:
        if not client:
            return auth.get_gcp_access_token()
        found = auth.get_auth_token(
            client,
            os.environ.get("KF_PIPELINES_APP_OAUTH2_CLIENT_ID"),
            os.environ.get("KF_PIPELINES_APP_OAUTH2_CLIENT_SECRET"),
        )[0]
        return str(found) if found else None
    except Exception as error:
        raise UserError(f"{host}: Google gave no token: {str(error)[:200]}; log in with gcloud first") from None


def _without_host(configuration: api.Configuration, options: ClusterOptions) -> api.Configuration:
    from kubernetes import config as kubernetes
    from kubernetes.config import ConfigException

    given = options.existing_token or os.environ.get("KFP_EXISTING_TOKEN")
    try:
        kubernetes.load_incluster_config()
    except ConfigException:
        pass
    else:
        configuration.host = "http://" + IN_CLUSTER.format(options.system_namespace)
        _service_account(configuration, given)
        return configuration
    try:
        kubernetes.load_kube_config(client_configuration=configuration, context=options.kube_context)
    except Exception as error:
        context = f"the kubeconfig's context {options.kube_context}" if options.kube_context else "the kubeconfig"
        raise UserError(
            f"no cluster: give --host or set KFP_ENDPOINT, for {context} can't be used ({_first(error)})"
        ) from None
    configuration.host = f"{configuration.host.rstrip('/')}/{THROUGH_KUBERNETES.format(options.system_namespace)}"
    configuration.host = configuration.host.rstrip("/")
    if given:
        configuration.api_key["authorization"] = given.strip()
        configuration.api_key_prefix["authorization"] = "Bearer"
    return configuration


def _service_account(configuration: api.Configuration, given: str | None) -> None:
    from kfp.client import KF_PIPELINES_SA_TOKEN_ENV, KF_PIPELINES_SA_TOKEN_PATH

    path = Path(os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) or KF_PIPELINES_SA_TOKEN_PATH)
    if given:
        configuration.api_key["authorization"] = given.strip()
    elif path.is_file():

        def refresh(found: api.Configuration) -> None:
            # the kubelet replaces the token every hour or so
            found.api_key["authorization"] = path.read_text().strip()

        configuration.refresh_api_key_hook = refresh
        refresh(configuration)
    configuration.api_key_prefix["authorization"] = "Bearer"


def _first(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


__all__ = ["ClusterError", "Connection", "connect"]
