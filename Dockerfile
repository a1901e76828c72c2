# Trains: docker build -t waggle . && docker run --rm -v DATA:/data:ro -v RUNS:/app/runs waggle \
#   python -m src.train fit --config configs/folder.yaml --data.root /data
# For a GPU: --build-arg BASE=nvidia/cuda:13.0.1-base-ubuntu24.04 --build-arg TORCH_INDEX= , and
# `docker run --gpus all --shm-size 2g`.
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The CUDA base has no Python; the other one has its own.
# hadolint ignore=DL3008
RUN if ! command -v python3 >/dev/null; then \
      apt-get update \
      && apt-get install -y --no-install-recommends python3 python3-venv \
      && rm -rf /var/lib/apt/lists/*; \
    fi \
    && python3 -m venv /opt/venv \
    && useradd --non-unique --uid 1000 --create-home waggle
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/app/cache

WORKDIR /app
# Empty takes PyPI's build, which is the one for GPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE.md ./
COPY src ./src
COPY callbacks ./callbacks
RUN pip install --no-cache-dir --no-deps -c constraints.txt torch ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    && pip install --no-cache-dir -c constraints.txt -e '.[all]' \
    && mkdir -p runs cache \
    && chown waggle runs cache
COPY configs ./configs

USER 1000
CMD ["python", "-m", "src.train", "fit", "--help"]
