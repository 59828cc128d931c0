"""Serves the lake's views to JDBC and ODBC clients, read-only, until it is stopped."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from genodl_spark.core.errors import InputError
from genodl_spark.job.cli import Arguments, parser, pipeline, run_job

if TYPE_CHECKING:
    from genodl_spark.job.run import Run


def serve(run: Run, given: Arguments) -> None:
    if given.set_password is not None:
        pipeline("serve:set_password")(given.passwords, given.set_password)
        return
    if not given.lake:
        raise InputError("the following arguments are required: --lake; see genodl serve --help", "arguments")
    keystore = (given.keystore, given.keystore_password)
    pipeline("serve:serve")(run, given.port, given.host, given.passwords, *keystore)


def main(argv: list[str] | None = None) -> int:
    made = parser("serve", __doc__)
    made.add_argument("--lake", metavar="URI", default="", help="where the tables are: a path or any Hadoop URI")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1")
    made.add_argument("--port", type=int, default=10000, metavar="N", help="0 for any that is free; default: 10000")
    made.add_argument(
        "--passwords", metavar="FILE", help="who may ask; without it everybody who has an account on this machine"
    )
    made.add_argument(
        "--set-password",
        metavar="NAME",
        help="writes a line of --passwords, from a password that is typed, or a line of standard input; then ends",
    )
    made.add_argument("--keystore", metavar="FILE", help="certificate and key for TLS, as PKCS12 or JKS")
    made.add_argument(
        "--keystore-password",
        metavar="FILE",
        help="file of the keystore's password; default: what GENODL_KEYSTORE_PASSWORD says in the environment",
    )
    return run_job("serve", made, serve, argv)


if __name__ == "__main__":
    sys.exit(main())
