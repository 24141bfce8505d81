"""Whether a registry has the images that a cluster's settings name, by the API of registries (OCI distribution)."""

from __future__ import annotations

import sys

import requests
from requests.utils import parse_dict_header

from components.shared.errors import UserError
from pipelines.kubeflow.client import CONNECT, reason_of
from pipelines.kubeflow.cluster import ON_GPU, Cluster

DOCKER_HUB = "docker.io", "registry-1.docker.io"
_MANIFESTS = ", ".join(
    [
        *(f"application/vnd.oci.image.{kind}.v1+json" for kind in ("index", "manifest")),
        *(f"application/vnd.docker.distribution.manifest.{kind}v2+json" for kind in ("list.", "")),
    ]
)
_OTHERWISE = "or leave --check-image out"


def check_images(cluster: Cluster, commit: str | None, timeout: float) -> None:
    """Ask the registry for the images that the tasks run in; warn where only the one for GPUs is missing.

    It may be larger and still on its way: what trains comes late in a run.

    Args:
        cluster: names them.
        commit: tag of an image that has none.
        timeout: of an answer, seconds.

    Raises:
        UserError: the image is not there, or the registry can't be asked or does not tell.
    """
    image = cluster.image_for("compose", commit)
    if not _is_there(image, timeout):
        raise UserError(
            f"cluster.image = {image}: not in the registry; build it with make image and push it, {_OTHERWISE}"
        )
    on_gpu = cluster.image_for("pull", commit)
    if on_gpu != image and not _is_there(on_gpu, timeout):
        print(
            f"warning: {on_gpu}: not in the registry; {', '.join(ON_GPU)} need it: make image GPU=1, and push it",
            file=sys.stderr,
        )


def _is_there(image: str, timeout: float) -> bool:
    host, name, reference = _parts(image)
    scheme = "http" if host.partition(":")[0] in ("localhost", "127.0.0.1") else "https"
    address = f"{scheme}://{host}/v2/{name}/manifests/{reference}"
    try:
        answer = _ask(address, (min(CONNECT, timeout), timeout))
    except (requests.RequestException, ValueError) as error:
        raise UserError(
            f"{image}: {host} can't be asked: {reason_of(error)}; check the name and the network, {_OTHERWISE}"
        ) from None
    status = answer.status_code
    if status in (401, 403):
        raise UserError(
            f"{image}: {host} does not tell without a right to pull it [{status}]; give an account for it in "
            f"~/.netrc, {_OTHERWISE}"
        )
    if status == 404:
        return False
    if status != 200 or not answer.headers.get("Content-Type", "").startswith("application/"):
        raise UserError(f"{image}: {host} answered {status}, but not as a registry does; check it, {_OTHERWISE}")
    return True


def _ask(address: str, timeout: tuple[float, float]) -> requests.Response:
    """A registry's answer; an account of ~/.netrc goes along, to it and to what gives tokens for it."""
    headers = {"Accept": _MANIFESTS}
    answer = requests.head(address, headers=headers, timeout=timeout, allow_redirects=True)
    kind, _, challenge = answer.headers.get("WWW-Authenticate", "").partition(" ")
    if answer.status_code != 401 or kind.lower() != "bearer":
        return answer
    said = parse_dict_header(challenge)
    wanted = {key: said[key] for key in ("service", "scope") if key in said}
    given = requests.get(said.get("realm", ""), params=wanted, timeout=timeout)
    if given.status_code != 200:
        return answer
    found = given.json()
    token = _Bearer(str(found.get("token") or found.get("access_token")))
    return requests.head(address, headers=headers, auth=token, timeout=timeout, allow_redirects=True)


class _Bearer(requests.auth.AuthBase):
    """A token, which an account of ~/.netrc would replace if it were a header."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request


def _parts(image: str) -> tuple[str, str, str]:
    """Registry, name there, and tag or digest, as container engines read an image's name."""
    named, _, digest = image.partition("@")
    host, slash, name = named.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, name = DOCKER_HUB[0], named if slash else f"library/{named}"
    name, _, tag = name.partition(":")
    return DOCKER_HUB[1] if host == DOCKER_HUB[0] else host, name, digest or tag
