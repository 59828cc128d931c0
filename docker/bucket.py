"""bucket.py NAME: makes a bucket on the object store that the environment names, unless it is there."""

from __future__ import annotations

import os
import sys

from pyarrow import fs


def main(name: str) -> int:
    scheme, _, host = os.environ["AWS_ENDPOINT_URL_S3"].partition("://")
    fs.S3FileSystem(endpoint_override=host, scheme=scheme, allow_bucket_creation=True).create_dir(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
