# Sourced by docker/setup.sh and docker/s3.sh: jars of Maven Central beside Spark's own, by lists of their SHA-256.

jars_there() { # FOLDER LIST
    (cd "$1" 2>/dev/null && sha256sum --status -c "$2" 2>/dev/null)
}

# Fills FOLDER with the jars of LIST, out of what Spark's Ivy resolves for COORDINATES (comma-separated) without
# EXCLUDED ones; prints what went wrong and returns 1 where it cannot.
jars_resolved() { # FOLDER LIST COORDINATES [EXCLUDED]
    local folder=$1 list=$2 coordinates=$3 excluded=${4:-} ivy found name
    ivy=$(mktemp -d)
    mkdir -p "$folder"
    echo 'import sys; sys.exit()' >"$ivy/nothing.py"
    resolve() { # JVM_OPTION
        SPARK_SUBMIT_OPTS=$1 "$SPARK_HOME/bin/spark-submit" --master 'local[1]' --conf "spark.jars.ivy=$ivy" \
            --packages "$coordinates" ${excluded:+--exclude-packages "$excluded"} "$ivy/nothing.py" >"$ivy/log" 2>&1
    }
    resolve "" \
        || { "$VENV/bin/python" -W ignore docker/truststore.py "$ivy/trusted" \
            && resolve "-Djavax.net.ssl.trustStore=$ivy/trusted"; } \
        || { grep -v '^\sat ' "$ivy/log" | tail -n 20 >&2; rm -rf "$ivy"; return 1; }
    while read -r _ name; do
        found=$(find "$ivy" -name "$name" -o -name "*_$name" | head -n 1)
        [ -n "$found" ] || found=$SPARK_HOME/jars/$name
        cp "$found" "$folder/$name"
    done <"$list"
    rm -rf "$ivy"
    (cd "$folder" && sha256sum --quiet -c "$list")
}

jars_beside_spark() { # FOLDER LIST
    local name
    while read -r _ name; do
        cmp -s "$1/$name" "$SPARK_HOME/jars/$name" && continue
        cp "$1/$name" "$SPARK_HOME/jars/$name.part"
        mv "$SPARK_HOME/jars/$name.part" "$SPARK_HOME/jars/$name"
    done <"$2"
}
