"""Compiles the log store that commits to S3 with the compiler that Spark brings along: log_store.py SOURCE JAR."""

from __future__ import annotations

import os
import sys
import tempfile
import zipfile
from pathlib import Path

from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway


def main(source: str, jar: str) -> int:
    gateway = launch_gateway(SparkConf(loadDefaults=False))
    java = gateway.jvm
    files = gateway.new_array(java.java.io.File, 1)
    files[0] = java.java.io.File(os.path.abspath(source))
    with tempfile.TemporaryDirectory() as folder:
        compiler = java.org.codehaus.janino.Compiler()
        compiler.setDestinationDirectory(java.java.io.File(folder), False)
        compiler.compile(files)
        gateway.shutdown()
        with zipfile.ZipFile(f"{jar}.part", "w") as out:
            for made in sorted(Path(folder).rglob("*.class")):
                out.write(made, made.relative_to(folder).as_posix())
    os.replace(f"{jar}.part", jar)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
