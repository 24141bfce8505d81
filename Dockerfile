# The image in which the steps run, on a laptop's container engine or in Kubeflow: the locked environment and the code.
#
#   make image           for processors
#   make image GPU=1     for NVIDIA cards
#
# Both start from the same slim Python. An nvidia/cuda base would bring a second CUDA beside the one that TensorFlow and
# JAX are built for, which requirements-gpu.lock has as wheels; the driver is the node's, and its runtime mounts it.
# It is named by digest, as a tag may be another image tomorrow; BASE=… takes another one (docs/image.md).
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${BASE} AS build
ARG LOCK=requirements-cpu.lock
# uv as locked, in an environment of its own that stays behind in this stage
COPY requirements.lock /build/
# index and certificates of the machine that builds, where it has its own (see `make image`): no layer keeps a secret
RUN --mount=type=secret,id=packages --mount=type=secret,id=certificates \
    if test -f /run/secrets/packages; then . /run/secrets/packages; fi \
 && awk '/^uv==/ { on = 1 } on { print } on && !/\\$/ { exit }' /build/requirements.lock > /build/uv.lock \
 && python3 -m venv /build/uv \
 && /build/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r /build/uv.lock
COPY ${LOCK} /build/
# the byte code is made here, where it can be written: importing TensorFlow takes three times as long without it
RUN --mount=type=secret,id=packages --mount=type=secret,id=certificates \
    if test -f /run/secrets/packages; then . /run/secrets/packages; fi \
 && python3 -m venv --without-pip /opt/venv \
 && UV_COMPILE_BYTECODE_TIMEOUT=600 /build/uv/bin/uv pip install --quiet --python /opt/venv/bin/python \
    --require-hashes --compile-bytecode -r /build/${LOCK} \
 && /opt/venv/bin/python -c "import pathlib, sysconfig; \
    pathlib.Path(sysconfig.get_path('purelib'), 'app.pth').write_text('/app\n')" \
 && printf '#!/opt/venv/bin/python\nfrom pipelines.__main__ import cli\n\ncli()\n' > /opt/venv/bin/contrastive \
 && chmod 755 /opt/venv/bin/contrastive \
 # headers for compiling against TensorFlow: 290 MB that nothing here can use
 && rm -rf /opt/venv/lib/python3.*/site-packages/tensorflow/include

# the list of all that is installed, for scanners, by a tool that stays behind like uv
COPY mlflow/sbom.lock /build/
RUN --mount=type=secret,id=packages --mount=type=secret,id=certificates \
    if test -f /run/secrets/packages; then . /run/secrets/packages; fi \
 && python3 -m venv --without-pip /build/sbom \
 && /build/uv/bin/uv pip install --quiet --python /build/sbom/bin/python --require-hashes -r /build/sbom.lock \
 && /build/sbom/bin/cyclonedx-py environment --output-reproducible --output-file /opt/venv/sbom.cdx.json \
    /opt/venv/bin/python

# the code, in the same stage: one more would be a second copy of the environment to some engines
WORKDIR /app
COPY params.yaml dvc.yaml ./
COPY conf ./conf
COPY models ./models
COPY components ./components
COPY pipelines ./pipelines
COPY benchmarks/textures10.py ./benchmarks/
# the built-in sample, for a first run on a cluster; then code and data for any user, whatever the umask of the checkout
RUN mkdir -p data/sample \
 && /opt/venv/bin/python -m benchmarks.textures10 data/sample/textures10.zip \
 && /opt/venv/bin/python -m compileall -q . \
 && chmod -R u=rwX,go=rX .

FROM ${BASE}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# everything that a library keeps goes to /tmp, the one place that must be writable. A cluster may choose any user id:
# one without a name or a home
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    USER=pipeline \
    LOGNAME=pipeline \
    XDG_CACHE_HOME=/tmp/cache \
    XDG_CONFIG_HOME=/tmp/config \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/tmp/keras \
    MPLBACKEND=Agg \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TF_CPP_MIN_LOG_LEVEL=3 \
    GX_ANALYTICS_ENABLED=False \
    GIT_PYTHON_REFRESH=quiet \
    MLFLOW_DISABLE_TELEMETRY=true \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /app
USER 1000:0
HEALTHCHECK --interval=5m --timeout=60s --start-period=30s CMD ["contrastive", "health"]
CMD ["contrastive", "--help"]
# last, so that a new commit with the same code makes no new layers
ARG BASE
ARG COMMIT=unknown
ARG CREATED
LABEL org.opencontainers.image.title="contrastive-pipeline" \
      org.opencontainers.image.description="Contrastive pretraining, gated against a supervised baseline" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE}"
ENV GIT_COMMIT=${COMMIT}
