#!/bin/sh
# Run a command that trusts the proxy's CA, in a container or anywhere Python may be missing.
#
#   install-trust.sh CA_CERT.pem COMMAND [ARGUMENT...]
#
# Builds one bundle (the system's CAs and ours) in a private temporary folder and names it in the environment.
set -eu

if [ $# -lt 2 ] || [ ! -r "$1" ]; then
    echo "usage: install-trust.sh CA_CERT.pem COMMAND [ARGUMENT...]" >&2
    exit 2
fi
ca=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
shift

umask 077
bundle=$(mktemp "${TMPDIR:-/tmp}/alter-ca-XXXXXX")
for system in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
    if [ -r "$system" ]; then
        cat "$system" >>"$bundle"
        break
    fi
done
printf '\n' >>"$bundle"
cat "$ca" >>"$bundle"

unset SSL_CERT_DIR || true
for name in SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE AWS_CA_BUNDLE GIT_SSL_CAINFO PIP_CERT CARGO_HTTP_CAINFO \
    DENO_CERT npm_config_cafile GRPC_DEFAULT_SSL_ROOTS_FILE_PATH; do
    export "$name=$bundle"
done
export "NODE_EXTRA_CA_CERTS=$ca" NODE_USE_ENV_PROXY=1 GIT_HTTP_PROXY_AUTHMETHOD=basic
exec "$@"
