#!/bin/sh
# Make the server's environment: install.sh LOCK FOLDER. The image's first stage.
# Byte code is compiled now: the image's files are read-only later, and each start would take seconds more.
set -eu
lock=$1 folder=$2
python3 -m venv --without-pip "$folder"
# the lock has a hash for each file, so that nothing else can be installed
PYTHONDONTWRITEBYTECODE=1 python3 -m pip --python "$folder/bin/python" install -qq --no-compile \
  --disable-pip-version-check --root-user-action=ignore --require-hashes --requirement "$lock"
# the lock is for some versions of Python only: on another one pip leaves all of it out, and is content
test -x "$folder/bin/mlflow" || {
  echo "error: $lock has nothing for $(python3 --version); take the Python of the Dockerfile" >&2
  exit 1
}
# the list of all that is installed, for scanners, by a tool that stays behind
tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
python3 -m venv --without-pip "$tool"
python3 -m pip --python "$tool/bin/python" install -qq --disable-pip-version-check --root-user-action=ignore \
  --require-hashes --requirement "$(dirname "$lock")/sbom.lock"
"$tool/bin/cyclonedx-py" environment --output-reproducible --output-file "$folder/sbom.cdx.json" "$folder/bin/python"
"$folder/bin/python" -m compileall -q -j 0 "$folder"
