# detrx on a CPU: detect, webcam, bench and demo with ONNX Runtime. Build from the root of the repository:
#   docker build -f docker/cpu.Dockerfile -t detrx:cpu .
#   docker run --rm -v "$PWD/runs:/data/runs" detrx:cpu demo
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.11-slim
COPY --from=build /wheels /wheels
RUN wheel=$(ls /wheels/detrx-*.whl) && pip install --no-cache-dir "${wheel}[cpu]" && rm -rf /wheels
RUN useradd --create-home detrx && mkdir /data && chown detrx /data
USER detrx
WORKDIR /data
ENTRYPOINT ["detrx"]
CMD ["demo"]
