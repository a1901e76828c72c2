# Serves a bundle: docker build -f serve.Dockerfile -t waggle-serve . && \
#   docker run --rm -p 127.0.0.1:8000:8000 -v BUNDLE:/bundle:ro --read-only --tmpfs /tmp waggle-serve
FROM python:3.12-slim-bookworm

WORKDIR /app
COPY constraints.txt ./
# What src.serve and src.predict import, without torch and all that trains.
RUN pip install --no-cache-dir -c constraints.txt \
      numpy pillow tqdm onnxruntime fastapi uvicorn python-multipart \
    && useradd --uid 1000 --create-home waggle
COPY src ./src

USER 1000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["python", "-m", "src.serve", "/bundle", "--host", "0.0.0.0"]
