# Serves the images of one model over HTTP: docs/guides/serve.md.
#   docker build -t cardigan .
#   docker run -p 8000:8000 -e CARDIGAN_TOKEN=... -v /path/to/run:/model:ro cardigan
FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.8" \
    && /venv/bin/pip install --no-cache-dir ".[serve]" "onnxruntime>=1.20"

FROM python:3.12-slim
COPY --from=build /venv /venv
RUN useradd --system --uid 10001 --no-create-home cardigan
USER cardigan
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
EXPOSE 8000
# At start the server loads PyTorch and generates a few batches, which takes longer on a slow machine.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cardigan", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/model"]
