# srbench with everything that the demo needs:
#   docker build -t srbench . && docker run --rm -v "$PWD/out:/data/out" srbench eval --all
# With a GPU add --gpus all; with your images, -v "$PWD/photos:/data/photos:ro".
FROM python:3.12-slim
WORKDIR /src
COPY . .
# The package reads its methods and weights from where it is installed, so nothing of /src is needed afterwards.
RUN pip install --no-cache-dir '.[export]' && useradd --create-home srbench && install -d -o srbench /data
USER srbench
WORKDIR /data
ENTRYPOINT ["srbench"]
