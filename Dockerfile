# molgen in a container, for a user without privileges:
#   docker build -t molgen .                                   PyTorch's CPU build
#   docker build -t molgen-cuda --build-arg TORCH=cuda .       its CUDA build, which brings the CUDA libraries
#   docker run --rm -v "$PWD:/work" molgen sample moses-small -n 10
FROM debian:bookworm-slim

# Python 3.11, and the libraries that RDKit draws with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv libxrender1 libxext6 libexpat1 \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/molgen/bin:$PATH
RUN python3 -m venv /opt/molgen && pip install --upgrade "pip>=24"

# PyTorch first: it is large, and its version changes seldom. `cpu` is the name of its index of CPU builds.
ARG TORCH=cpu
COPY constraints.txt /src/
RUN pip install --constraint /src/constraints.txt torch \
    $( [ "$TORCH" = cuda ] || echo --index-url "https://download.pytorch.org/whl/$TORCH" )

COPY . /src/
RUN pip install --constraint /src/constraints.txt "/src[parquet,hf]" && rm -rf /src

RUN useradd --uid 1000 --create-home molgen && install --directory --owner molgen /work
USER molgen
WORKDIR /work
# Datasets that are fetched stay in the mounted folder.
ENV MOLGEN_DATA=/work/data
ENTRYPOINT ["molgen"]
CMD ["--help"]
