# The tracking server of the composed stack: MLflow as it is, at the version that modelmux is tested
# with. Its own image, so that the gateway's stays small.

FROM python:3.11-slim
RUN groupadd --gid 10001 mlflow \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp mlflow \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/mlflow \
    && python -m venv /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp
COPY constraints.txt /opt/mlflow/
RUN pip install --no-cache-dir --disable-pip-version-check \
    -c /opt/mlflow/constraints.txt mlflow
COPY deploy/compose/with-secret /usr/local/bin/
USER 10001:10001
WORKDIR /tmp
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow"]
CMD ["server", "--host", "0.0.0.0"]
