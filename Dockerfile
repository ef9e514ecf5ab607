# A model folder behind HTTP, on the CPU: make image; see compose.yaml
# The base has no default, so that nothing is built on a tag, whose bytes change: name it by digest,
# docker build --build-arg BASE=python:3.11-slim@sha256:… -t valence . , or let make image look it up.
ARG BASE
FROM $BASE AS build
RUN python -m venv /opt/valence
ENV PATH=/opt/valence/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY requirements-serve.txt ./
# The CPU wheel of torch has an index of its own: the one of PyPI brings gigabytes of GPU libraries.
RUN pip install --require-hashes --extra-index-url https://download.pytorch.org/whl/cpu \
    -r requirements-serve.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation . \
    && find /opt/valence -name __pycache__ -prune -exec rm -rf {} +

FROM $BASE
COPY --from=build /opt/valence /opt/valence
ENV PATH=/opt/valence/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/tmp/hub VALENCE_CACHE=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin valence
USER 10001
WORKDIR /tmp
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["valence"]
CMD ["serve", "/model", "--host", "0.0.0.0"]
