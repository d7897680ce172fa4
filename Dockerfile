# The speech API without the page. docs/deploy.md says how to build it:
# by default torch's CUDA build, with TORCH_INDEX its CPU build, which is several gigabytes smaller.
FROM python:3.12-slim
ARG TORCH_INDEX=https://pypi.org/simple
# The compiled engine on a CPU needs a C++ compiler; recordings are decoded by PyAV's own libraries.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /lab
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir --index-url $TORCH_INDEX -c constraints.txt torch torchaudio \
 && pip install --no-cache-dir -c constraints.txt -r requirements.txt
COPY . .
RUN useradd --create-home lab && mkdir /models && chown lab /models
USER lab
ENV HF_HOME=/models PYTHONUNBUFFERED=1
VOLUME /models
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
 "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["python", "-m", "app.api", "--host", "0.0.0.0", "--port", "8000"]
