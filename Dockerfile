# sppdet on torch's CPU build: no CUDA libraries, a third of the usual size.
#
#   docker build -t sppdet .
#   docker run --rm -v "$PWD/photos:/photos" sppdet detect /photos --out /photos/found
FROM python:3.12-slim

# What OpenCV's wheel takes from the system.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*

# First, so that the next step finds torch installed and does not take the one with CUDA.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu

COPY pyproject.toml README.md LICENSE /source/
COPY sppdet /source/sppdet
RUN pip install --no-cache-dir /source && rm -rf /source

# Compiled loops, for processors like the one that this is built on; others compile once more.
ENV NUMBA_CACHE_DIR=/var/cache/sppdet
RUN sppdet doctor --warm-up && chmod -R a+rwX /var/cache/sppdet

WORKDIR /photos
ENTRYPOINT ["sppdet"]
CMD ["--help"]
