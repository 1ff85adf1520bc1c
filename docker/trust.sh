# shellcheck shell=sh
# Where a proxy signs what it passes on, its certificates come as the build secret `ca`: docker build --secret id=ca,src=ca.crt
if [ -s /run/secrets/ca ]; then
    export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
