# The gateway's image. Reads well with the classic builder and with BuildKit.
#
#   docker build -t modelmux .
#   docker build -t modelmux --build-arg MODEL_PACKAGES="" .
#
# Models bring their packages themselves: what the image lacks is installed by uv into environments
# below /var/lib/modelmux, which belongs on a volume. MODEL_PACKAGES, pinned by constraints.txt, are
# the gateway's own packages: versions that need exactly these start without a build.
#
# What changes most often comes last: after a change of code nothing is downloaded.

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /build \
    && /build/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt hatchling
COPY pyproject.toml ./
# A file of its own, so that only a change of what is needed makes the image below install anew.
RUN mkdir /dist && /build/bin/python -c "import tomllib; \
project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
print(*project['dependencies'], *project['optional-dependencies']['capture'], sep='\n')" \
    > /dist/requirements.txt
COPY README.md LICENSE ./
COPY gateway gateway
COPY registry_sync registry_sync
COPY deployments deployments
COPY examples examples
RUN /build/bin/pip wheel --no-cache-dir --disable-pip-version-check \
    --no-deps --no-build-isolation --wheel-dir /dist .

FROM python:3.11-slim
# By number, so that a platform can see that it isn't root.
RUN groupadd --gid 10001 modelmux \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp modelmux \
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/modelmux \
    && python -m venv /opt/modelmux
ENV PATH=/opt/modelmux/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp

# Where models' packages come from, if not from pip's usual place: PyTorch has builds for processors
# alone on an index of its own.
ARG PIP_EXTRA_INDEX_URL=""
COPY constraints.txt /opt/modelmux/
COPY --from=wheel /dist/requirements.txt /opt/modelmux/
RUN pip install --no-cache-dir --disable-pip-version-check \
    -c /opt/modelmux/constraints.txt -r /opt/modelmux/requirements.txt
ARG MODEL_PACKAGES="scikit-learn skops"
RUN test -z "$MODEL_PACKAGES" || pip install --no-cache-dir --disable-pip-version-check \
    -c /opt/modelmux/constraints.txt $MODEL_PACKAGES

COPY deploy/compose/with-secret /usr/local/bin/
COPY --from=wheel /dist/*.whl /opt/modelmux/
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps /opt/modelmux/*.whl \
    # For shells that set a PATH of their own.
    && ln -s /opt/modelmux/bin/modelmux /opt/modelmux/bin/ray /opt/modelmux/bin/serve /usr/local/bin/

USER 10001:10001
WORKDIR /tmp
# The container's own addresses: where its port is published is not for it to say. Without keys it
# wants to be told that (MODELMUX_PUBLISHED_HOST).
ENV MODELMUX_HOST=0.0.0.0 MODELMUX_STATE_DIR=/var/lib/modelmux
# Other Pythons, where uv is let download them: beside the environments, which need them.
ENV UV_PYTHON_INSTALL_DIR=/var/lib/modelmux/pythons
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["modelmux"]
CMD ["up"]
