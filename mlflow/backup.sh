#!/usr/bin/env bash
# Backup and restore of the tracking server's database: runs, registered models and accounts, in one file.
#
#   backup.sh save FOLDER    write FOLDER/mlflow-<UTC time>.dump and remove all but the newest KEEP (14)
#   backup.sh restore FILE   put it back into the database, in place of what is there. Stop the server first
#
# MLFLOW_BACKEND_STORE_URI and PGPASSWORD as for serve.sh. Artifacts are the object store's to keep.
set -euo pipefail

stop() {
  echo "error: $*" >&2
  exit 2
}

[ -n "${MLFLOW_BACKEND_STORE_URI:-}" ] || stop "MLFLOW_BACKEND_STORE_URI is not set"
# psql and pg_dump know no driver names such as postgresql+psycopg2
database=$(sed -E 's|^postgresql\+[a-z0-9]+://|postgresql://|' <<< "$MLFLOW_BACKEND_STORE_URI")

save() {
  local folder=$1 name
  name="mlflow-$(date -u +%Y%m%dT%H%M%SZ).dump"
  [ -d "$folder" ] || stop "$folder: no such folder"
  part="$folder/.$name" file="$folder/$name"
  trap 'rm -f "$part"' EXIT
  pg_dump --format=custom --no-owner --no-privileges --file="$part" "$database"
  # a dump that can't be listed can't be restored
  pg_restore --list "$part" > /dev/null
  mv "$part" "$file"
  find "$folder" -maxdepth 1 -name 'mlflow-*.dump' | sort -r | tail -n +$((${KEEP:-14} + 1)) | xargs -r rm --
  echo "saved: $file ($(stat -c %s "$file") bytes)"
}

restore() {
  local file=$1
  [ -f "$file" ] || stop "$file: no such file"
  script=$(mktemp)
  trap 'rm -f "$script"' EXIT
  # what a newer version added must go too
  echo 'DROP SCHEMA public CASCADE; CREATE SCHEMA public;' > "$script"
  pg_restore --no-owner --no-privileges --file=- "$file" | sed '/^CREATE SCHEMA public;$/d' >> "$script"
  # all or nothing: a failure leaves the database as it was
  psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --single-transaction --output=/dev/null --file="$script" "$database"
  echo "restored: $file; run \`serve.sh migrate\` before the server, in case the dump is of an older version"
}

case "${1:-} $#" in
  "save 2" | "restore 2") "$1" "$2" ;;
  *) stop "usage: backup.sh save FOLDER | restore FILE" ;;
esac
