# One image for each room: docker build --build-arg EXTRAS="--extra postgres --extra s3 --extra imaging" .
FROM python:3.11-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /opt/osler
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
ARG EXTRAS="--extra all"
COPY pyproject.toml uv.lock README.md ./
RUN uv sync --frozen --no-dev --no-install-project ${EXTRAS}
COPY protos protos
COPY pipelines pipelines
COPY models models
COPY services services
RUN uv sync --frozen --no-dev ${EXTRAS}

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --home-dir /var/lib/osler --create-home osler
COPY --from=build /opt/osler /opt/osler
ENV PATH=/opt/osler/.venv/bin:$PATH OSLER_HOME=/var/lib/osler PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["osler"]
CMD ["--help"]
