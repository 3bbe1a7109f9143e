# One image for the app and the prediction API; what it runs is the command that follows its name:
#
#   docker build -t readloop .
#   docker run --user $(id -u):$(id -g) -v $PWD/W:/workspace -p 127.0.0.1:8000:8000 \
#       -e READLOOP_API_TOKEN=… readloop api /workspace --host 0.0.0.0
#
# Inside a container 127.0.0.1 is the container itself: --host 0.0.0.0 is needed, and a token with
# it. The workspace is mounted writable, since readers of an SQLite ledger keep a file beside it.

FROM python:3.12-slim AS build
WORKDIR /build
COPY requirements.lock pyproject.toml README.md ./
# uv itself, then everything else: exactly the versions and hashes of the lock. Given as constraints,
# it leaves out what only developers need.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.lock \
    && python -m venv /opt/uv \
    && /opt/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check \
       --require-hashes -r uv.lock
RUN python -m venv --without-pip /opt/readloop \
    && /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode \
       --python /opt/readloop/bin/python --require-hashes -c requirements.lock -r pyproject.toml
COPY app app
COPY connectors connectors
COPY ssl_core ssl_core
# hatchling, which builds the wheel, is no part of what runs and so not of the lock.
RUN /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --no-deps \
       --python /opt/readloop/bin/python .

FROM python:3.12-slim
LABEL org.opencontainers.image.title="Readloop" org.opencontainers.image.licenses="MIT"
RUN useradd --uid 10001 --create-home readloop
COPY --from=build /opt/readloop /opt/readloop
# Caches go to /tmp, which any user may write: the container is often run as the workspace's owner.
ENV PATH=/opt/readloop/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp \
    NUMBA_CACHE_DIR=/tmp
USER 10001
WORKDIR /workspace
EXPOSE 8000 8501
# Whichever of the two runs: the API's answer is 503 until there is a trained model.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import sys, urllib.request as u\ndef ok(a):\n  try: return u.urlopen('http://127.0.0.1:' + a, timeout=4).status == 200\n  except OSError: return False\nsys.exit(not any(map(ok, ('8000/health', '8501/_stcore/health'))))"]
ENTRYPOINT ["readloop"]
CMD ["--help"]
