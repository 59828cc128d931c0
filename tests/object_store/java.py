"""ConditionalPutLogStore.java in a JVM without Spark's session, which takes two seconds to start.

As a script it is one of several that write versions of one log: java.py LOG NAME VERSIONS. Begins when a line comes on
stdin.
"""

from __future__ import annotations

import sys
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf
from pyspark.java_gateway import launch_gateway

from genodl_spark.core import session

EXISTS = "java.nio.file.FileAlreadyExistsException"


class LogStore:
    """A store with the configuration that sessions have; `changes`: properties of another."""

    def __init__(self, jvm: Any, **changes: str) -> None:
        self._jvm = jvm
        self._configuration = jvm.org.apache.hadoop.conf.Configuration()
        found = {key.removeprefix("spark.hadoop."): value for key, value in session._of_s3().items()}
        for key, value in {**found, **{f"fs.s3a.{name}": value for name, value in changes.items()}}.items():
            self._configuration.set(key, value)
        if changes:
            self._configuration.set("fs.s3a.impl.disable.cache", "true")
        self.java = jvm.genodl.ConditionalPutLogStore(self._configuration)

    def write(self, uri: str, *lines: str, overwrite: bool = False) -> None:
        actions = self._jvm.java.util.ArrayList()
        for line in lines:
            actions.add(line)
        self.java.write(self.path(uri), actions.iterator(), overwrite, self._configuration)

    def partly_visible(self, uri: str) -> bool:
        return bool(self.java.isPartialWriteVisible(self.path(uri), self._configuration))

    def path(self, uri: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(uri)


def gateway() -> Any:
    return launch_gateway(SparkConf(loadDefaults=False))


def main(log: str, name: str, versions: str) -> None:
    opened = gateway()
    store, version = LogStore(opened.jvm), 0
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(versions)):
        while True:
            try:
                store.write(f"{log}/{version:020}.json", f"{name} {number}")
            except Py4JJavaError as error:
                if error.java_exception.getClass().getName() != EXISTS:
                    raise
                version += 1
            else:
                break
    opened.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
