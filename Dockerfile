# syntax=docker/dockerfile:1
#
# CPU:   docker build -t greenroom .
# CUDA:  docker build -t greenroom:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
#
# PyPI's Linux wheels of torch carry the CUDA libraries themselves, so that the CUDA image needs no other base: the
# host's NVIDIA container toolkit brings the driver. TORCH_INDEX may name any index that has the torch version of
# constraints.txt, for example one of the CUDA-specific indexes of download.pytorch.org.

ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/greenroom
ENV PATH=/opt/greenroom/bin:$PATH
WORKDIR /src
# torch and its dependencies alone first: by far the largest layer, and the one that changes least.
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt \
 && pip install --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple -c constraints.txt -r torch.txt
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY app ./app
COPY greenroom ./greenroom
RUN pip install -c constraints.txt '.[otlp,postgresql]'

FROM ${BASE} AS runtime
LABEL org.opencontainers.image.title="Greenroom" \
      org.opencontainers.image.description="A durable job service for talking-head video" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 greenroom \
 && useradd --uid 10001 --gid greenroom --no-create-home --home-dir /data --shell /usr/sbin/nologin greenroom \
 && install -d -o greenroom -g greenroom /data
COPY --from=build /opt/greenroom /opt/greenroom
COPY samples /opt/greenroom/share/greenroom/samples
# The driver capabilities: compute for torch, utility for NVML, video for NVENC. They mean nothing without a GPU.
ENV PATH=/opt/greenroom/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    GREENROOM_HOST=0.0.0.0 \
    GREENROOM_PORT=8000 \
    GREENROOM_DATA_DIR=/data \
    GREENROOM_LOG_FORMAT=json
USER greenroom
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['GREENROOM_PORT'] + '/health/live', timeout=2)"]
ENTRYPOINT ["greenroom"]
CMD ["serve"]
