#!/bin/sh
# Start SeaweedFS with one S3 identity, taken from the environment.
set -eu
umask 077
cat > /tmp/s3.json <<JSON
{"identities": [{"name": "stillhouse",
  "credentials": [{"accessKey": "$STORE_ACCESS_KEY", "secretKey": "$STORE_SECRET_KEY"}],
  "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
exec weed server -dir=/data -s3 -s3.config=/tmp/s3.json -ip=store -ip.bind=0.0.0.0
