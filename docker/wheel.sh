#!/usr/bin/env bash
# The project's wheel of this platform, for spark-submit --py-files: dist/genodl_spark-VERSION-cp311-cp311-PLATFORM.whl.
# Built from a copy of the files that git has or would take, so that nothing is left in the checkout;
# the same files give the same bytes. Refuses to publish a wheel that lacks any file of genodl_spark/, jobs/ or conf/.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." && pwd -P)
cd "$ROOT"
fail() {
    printf 'wheel: error: %s\n' "$*" >&2
    exit 1
}

[ -x .venv/bin/python ] || fail "no .venv; run 'make setup' first"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/source" "$work/out"

# Everything below the three folders but what git ignores; a checkout without git (a tarball) has nothing
# else than caches to leave out.
git ls-files -z --cached --others --exclude-standard -- genodl_spark jobs conf >"$work/files" 2>/dev/null \
    || find genodl_spark jobs conf -type f ! -path '*/__pycache__/*' -print0 >"$work/files"
while IFS= read -r -d '' file; do
    [ -f "$file" ] || continue # removed, but not yet from git
    printf '%s\n' "$file" >>"$work/list"
    mkdir -p "$work/source/$(dirname -- "$file")"
    cp -- "$file" "$work/source/$file"
done <"$work/files"
cp pyproject.toml "$work/source/"
[ ! -f README.md ] || cp README.md "$work/source/"

# Zip cannot hold dates before 1980; a fixed one keeps the bytes the same.
SOURCE_DATE_EPOCH=315532800 .venv/bin/python -m build --wheel --no-isolation --outdir "$work/out" "$work/source" \
    >"$work/log" 2>&1 \
    || { tail -n 20 "$work/log" >&2; fail "the build failed; the lines above say why"; }
.venv/bin/python - "$work"/out/*.whl "$work/list" <<'EOF_PYTHON' \
    || fail "mend packages or package-data in pyproject.toml"
import sys
import zipfile

held = set(zipfile.ZipFile(sys.argv[1]).namelist())
wanted = [line.rstrip("\n") for line in open(sys.argv[2], encoding="utf-8")]
lacking = [name for name in wanted if (f"genodl_spark/{name}" if name.startswith("conf/") else name) not in held]
for name in lacking:
    print(f"wheel: error: the wheel lacks {name}", file=sys.stderr)
sys.exit(bool(lacking))
EOF_PYTHON

mkdir -p dist
name=$(basename -- "$work"/out/*.whl)
cp "$work/out/$name" "dist/$name.part"
# An older version must not be shipped by a glob.
find dist -maxdepth 1 -name 'genodl_spark-*.whl' ! -name "$name" -delete
mv "dist/$name.part" "dist/$name"
printf 'dist/%s\n' "$name"
