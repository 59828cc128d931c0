#!/usr/bin/env bash
# sql.sh OPTIONS: genodl serve in a container, with the password of `analyst` and of the keystore from the environment.
# Unless a keystore.p12 with a certificate of your own lies in the working directory, one is made that nobody has signed;
# sql.pem is the certificate for clients to trust.
set -euo pipefail

umask 077
: "${GENODL_SQL_PASSWORD:?has no value}" "${GENODL_KEYSTORE_PASSWORD:?has no value}"
genodl serve --set-password analyst --passwords passwords <<<"$GENODL_SQL_PASSWORD"
unset GENODL_SQL_PASSWORD
if [ ! -e keystore.p12 ]; then
    keytool -genkeypair -alias sql -keyalg EC -groupname secp256r1 -dname CN=sql -ext san=dns:sql,dns:localhost \
        -validity 825 -storetype PKCS12 -keystore keystore.p12.part -storepass:env GENODL_KEYSTORE_PASSWORD
    mv keystore.p12.part keystore.p12
fi
keytool -exportcert -rfc -alias sql -keystore keystore.p12 -storepass:env GENODL_KEYSTORE_PASSWORD -file sql.pem || true
exec genodl serve --passwords passwords --keystore keystore.p12 "$@"
