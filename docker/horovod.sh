# Sourced by docker/setup.sh: Horovod, of which no wheel exists, from its sdist against the torch of .venv.

# Fills FOLDER with a wheel. `gloo`: ranks talk through the CPU. `nccl`: tensors on GPUs go from GPU to GPU, and what
# is on the CPU by Gloo. CUDA's compiler comes from docker/nccl.lock then, its headers and libraries are those of torch.
horovod_built() { # FOLDER gloo|nccl
    local folder=$1 kind=$2 build
    build=$(mktemp -d)
    local options=(HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
        HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO)
    # Horovod's CMake asks for C++14, torch's headers for 20; the last -std on the line wins. What nvcc has it do for
    # the kernels, which have nothing of torch, stays as nvcc says.
    printf '#!/bin/sh\ncase "$*" in *__CUDA*) exec g++ "$@" ;; esac\nexec g++ "$@" -std=gnu++20\n' >"$build/c++"
    chmod +x "$build/c++"
    if [ "$kind" = nccl ]; then
        horovod_cuda "$build" >"$build/log" 2>&1 || { tail -n 30 "$build/log" >&2; rm -rf "$build"; return 1; }
        # Kernels for every GPU since Turing that torch's build has code for; a later one compiles them as it starts.
        options+=(HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED "HOROVOD_CUDA_HOME=$build/cuda"
            "CUDA_HOME=$build/cuda" "HOROVOD_NCCL_HOME=$build/nccl" HOROVOD_WITHOUT_NVTX=1
            "HOROVOD_BUILD_CUDA_CC_LIST=75,80,86,90,100,120")
    fi
    mkdir -p "$folder"
    env "${options[@]}" PATH="$VENV/bin:$PATH" CXX="$build/c++" MAKEFLAGS="-j$(nproc)" \
        "$VENV/bin/pip" wheel -q --disable-pip-version-check --no-deps --no-build-isolation --require-hashes \
        -r docker/horovod.lock -w "$build/out" >"$build/log" 2>&1 \
        || { tail -n 30 "$build/log" >&2; rm -rf "$build"; return 1; }
    mv "$build"/out/horovod-*.whl "$folder/"
    rm -rf "$build"
}

# FOLDER/cuda and FOLDER/nccl as CMake looks for them: what torch brought as packages, by links, a linker's names added.
horovod_cuda() { # FOLDER
    local folder=$1 found=$SITE/nvidia library
    "$VENV/bin/uv" pip install -q --target "$folder/compiler" --python "$VENV/bin/python" --no-deps --require-hashes \
        -r docker/nccl.lock || return 1
    # The compiler is no link: it looks for the rest beside itself.
    cp -a "$folder/compiler/nvidia/cu13" "$folder/cuda" && mkdir "$folder/nccl" \
        && cp -rsn "$found/cu13/." "$folder/cuda/" && cp -rs "$found/nccl/." "$folder/nccl/" || return 1
    for library in "$folder"/cuda/lib/*.so.* "$folder"/nccl/lib/*.so.*; do
        [ -e "${library%%.so.*}.so" ] || ln -s "$(basename -- "$library")" "${library%%.so.*}.so" || return 1
    done
    ln -s lib "$folder/cuda/lib64"
}
