# The node in a container. Its data is the volume; a dcmpress.yaml in the working folder is its
# configuration, and without one everything becomes HTJ2K in data/archive.
FROM python:3.12-slim AS build
COPY . /source
RUN PIP_NO_CACHE_DIR=1 /source/scripts/install /opt/dcmpress

FROM python:3.12-slim
RUN useradd --system --uid 10104 --create-home --home-dir /var/lib/dcmpress dcmpress \
    && install --directory --owner dcmpress --group dcmpress /var/lib/dcmpress/data
COPY --from=build /opt/dcmpress /opt/dcmpress
ENV PATH=/opt/dcmpress/bin:$PATH PYTHONUNBUFFERED=1
USER dcmpress
WORKDIR /var/lib/dcmpress
VOLUME /var/lib/dcmpress/data
EXPOSE 11112
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["dcmpress", "status", "--running"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["dcmpress"]
CMD ["serve"]
