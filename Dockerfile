# docker build -t segmentation .           (podman and buildah keep the health check with --format docker)
# docker run --rm -p 7860:7860 --read-only --tmpfs /tmp -v hub:/home/app/hub segmentation
FROM python:3.12-slim AS build
# Another index gives torch without CUDA, a tenth of the size: pytorch.org names it.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 SAM2_BUILD_CUDA=0
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt .
# sam2 is built from source, with the torch that is there.
RUN grep -E '^torch(vision)?[<>=]' requirements.txt > torch.txt \
 && pip install -r torch.txt setuptools wheel \
 && pip install --no-build-isolation -r requirements.txt \
 && pip uninstall --yes pip wheel

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 app && install -d -o app -g app /home/app/hub
COPY --from=build /opt/venv /opt/venv
COPY . /app
WORKDIR /app
# All that is ever written: uploads and results in /tmp, downloaded weights in the volume.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HF_HOME=/home/app/hub GRADIO_TEMP_DIR=/tmp/gradio XDG_CACHE_HOME=/tmp MPLCONFIGDIR=/tmp
VOLUME /home/app/hub
USER app
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/', timeout=9)"]
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
