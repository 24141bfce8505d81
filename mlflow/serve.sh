#!/usr/bin/env bash
# The tracking server as deployed: one script for the image, compose, Kubernetes and the tests.
#
#   serve.sh migrate   bring the database to this version's schema (creating it) and make the bucket
#   serve.sh serve     serve, with accounts on
#   serve.sh health    exit 0 if the server on this machine answers
#
# Settings are environment variables; secrets stand in no address and in no command line:
#   MLFLOW_BACKEND_STORE_URI        postgresql+psycopg2://mlflow@postgres:5432/mlflow  (without a password)
#                                   (the driver must be named: without it SQLAlchemy 2.1 wants another one)
#   PGPASSWORD                      its password; libpq reads it
#   MLFLOW_ARTIFACTS_DESTINATION    s3://mlflow
#   MLFLOW_S3_ENDPOINT_URL          http://s3:8333; unset for Amazon's own
#   AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
#   MLFLOW_SERVER_ALLOWED_HOSTS     every name clients use, with and without the port
#   MLFLOW_FLASK_SERVER_SECRET_KEY  any long random text, the same for every replica
#   MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY  a Fernet key, the same for every replica; only webhooks with a secret need it
#   MLFLOW_AUTH_ADMIN_USERNAME      of the first account (admin)
#   MLFLOW_AUTH_ADMIN_PASSWORD      its password, 12 characters or more; read only while there are no accounts
#   DEFAULT_PERMISSION              what an account may do where nothing says otherwise (READ)
#   HOST, PORT, WORKERS             0.0.0.0, 5000, 2
set -euo pipefail

stop() {
  echo "error: $*" >&2
  exit 2
}

need() {
  local name
  for name in "$@"; do
    case "${!name:-}" in
      "" | REPLACE-ME) stop "$name is not set; mlflow/serve.sh says what it is for" ;;
    esac
  done
}

migrate() {
  need MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION
  python - <<'PYTHON'
import os, subprocess, sys
from urllib.parse import urlsplit

import sqlalchemy

uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
# Accounts lie in the same database, so that one backup holds both and their ids fit. Tracking first: MLflow creates
# its tables only in a database that has none
commands = (
    ["mlflow", "db", "upgrade", uri],
    [sys.executable, "-m", "mlflow.server.auth", "db", "upgrade", "--url", uri],
)
engine = sqlalchemy.create_engine(uri, isolation_level="AUTOCOMMIT")
with engine.connect() as connection:
    if engine.dialect.name == "postgresql":
        # replicas that start together: one migrates, the others wait here and then find nothing to do
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(5000)"))
    for command in commands:
        if status := subprocess.run(command).returncode:
            sys.exit(status)

place = urlsplit(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
if place.scheme == "s3":
    import boto3
    from botocore.exceptions import ClientError

    store = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"))
    try:
        store.head_bucket(Bucket=place.netloc)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            sys.exit(f"error: bucket {place.netloc}: {error}")
        store.create_bucket(Bucket=place.netloc)
print("migrated: the database has this version's schema, and the artifacts their place", flush=True)
PYTHON
}

serve() {
  need MLFLOW_BACKEND_STORE_URI MLFLOW_ARTIFACTS_DESTINATION MLFLOW_SERVER_ALLOWED_HOSTS \
    MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_AUTH_ADMIN_PASSWORD
  [ "${#MLFLOW_AUTH_ADMIN_PASSWORD}" -ge 12 ] || stop "MLFLOW_AUTH_ADMIN_PASSWORD has less than 12 characters"
  # in a file system that is read-only but for /tmp
  MLFLOW_AUTH_CONFIG_PATH="$(mktemp -d)/accounts.ini"
  export MLFLOW_AUTH_CONFIG_PATH MLFLOW_AUTH_ADMIN_USERNAME="${MLFLOW_AUTH_ADMIN_USERNAME:-admin}"
  cat > "$MLFLOW_AUTH_CONFIG_PATH" <<INI
[mlflow]
default_permission = ${DEFAULT_PERMISSION:-READ}
database_uri = ${MLFLOW_BACKEND_STORE_URI//%/%%}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# checking a password takes the time of several requests. A changed password is still good for so long
auth_cache_ttl_seconds = 60
INI
  # the job runner is for evaluations of language models, which nothing here uses
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
  exec mlflow server --app-name basic-auth \
    --host "${HOST:-0.0.0.0}" --port "${PORT:-5000}" --workers "${WORKERS:-2}"
}

health() {
  python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:${PORT:-5000}/health', timeout=4)"
}

case "${1:-}" in
  migrate | serve | health) "$1" ;;
  *) stop "usage: serve.sh migrate | serve | health" ;;
esac
