# A repository inside an image, where there is no volume to share: for the server, or for Triton. From the folder that holds `repo`:
#   docker build -f .../deploy/baked.Dockerfile -t espalier-with-tasks:1 .
#   docker build -f .../deploy/baked.Dockerfile --build-arg BASE=nvcr.io/nvidia/tritonserver:24.10-py3 -t triton-with-tasks:1 .
ARG BASE=espalier:0.1.0
# hadolint ignore=DL3006
FROM ${BASE}
COPY repo /models/repo
