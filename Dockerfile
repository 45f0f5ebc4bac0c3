# Three targets: `api` has no torch inside and stays small; `api-teachers` takes uploaded teachers too; `worker` has the
# engine.
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN useradd --system --uid 10001 --create-home stillhouse \
    && mkdir /data && chown stillhouse /data
ENV STILLHOUSE_DATA_DIR=/data STILLHOUSE_LOG_FORMAT=json
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stillhouse ./stillhouse
COPY core ./core
COPY models ./models
COPY migrations ./migrations
COPY operate ./operate

FROM base AS api
COPY ingest ./ingest
COPY api ./api
RUN pip install -c constraints.txt '.[api]'
USER stillhouse
ENV STILLHOUSE_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["python", "-m", "api"]

# An uploaded teacher is read and tried where it arrives, by a process of its own that needs the engine. The API itself
# imports none of it, here neither.
FROM api AS api-teachers
USER root
COPY distill ./distill
RUN pip install -c constraints.txt '.[engine,huggingface]'
USER stillhouse

FROM base AS worker
COPY distill ./distill
COPY worker ./worker
RUN pip install -c constraints.txt '.[worker,huggingface]'
USER stillhouse
# SIGTERM hands the running job back to the queue; it takes a moment, not the length of the job.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["python", "-m", "worker.health"]
CMD ["python", "-m", "worker"]
