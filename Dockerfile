# byzshield_exp in a container, for CPUs or with CUDA (the driver is the host's):
#   docker build -t byzshield .
#   docker build -t byzshield:cuda --build-arg TORCH=cuda .
#   docker run --rm -v "$PWD/outputs:/runs/outputs" byzshield run steps=3
#   docker run --rm --gpus all byzshield:cuda doctor
FROM python:3.13-slim-bookworm AS wheel
COPY . /src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.13-slim-bookworm
ARG TORCH=cpu
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# Triton, which torch has with CUDA, compiles kernels with a C compiler. Debian keeps no old versions.
# hadolint ignore=DL3008
RUN if [ "$TORCH" = cuda ]; then \
      apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && \
      rm -rf /var/lib/apt/lists/*; \
    fi
# The wheel says which versions it needs.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    case "$TORCH" in \
      cpu) options=(--extra-index-url https://download.pytorch.org/whl/cpu) ;; \
      cuda) options=() ;; \
      *) echo "TORCH=$TORCH must be cpu or cuda" >&2; exit 1 ;; \
    esac; \
    pip install --no-cache-dir "${options[@]}" /wheels/*.whl
RUN useradd --create-home --uid 1000 byzshield && install -d -o byzshield /runs/outputs
USER 1000
WORKDIR /runs
ENTRYPOINT ["byzshield"]
CMD ["--help"]
