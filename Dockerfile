# The image holds one static binary and two directories; `make image` stages them
# under dist/image and then builds this. There is no shell and no package.
FROM scratch

# Where `make image` staged the files, relative to the build context.
ARG FILES=dist/image
ARG VERSION=dev

LABEL org.opencontainers.image.title="eventpusher" \
      org.opencontainers.image.description="Publishes the events of any XMPP server to Amazon SNS, HTTP and RabbitMQ" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"

COPY ${FILES}/root/ /
# The owner of this directory becomes the owner of a new volume.
COPY --chown=65532:65532 ${FILES}/volume/ /var/lib/eventpusher/

# [outbox] path is relative to the working directory, so the default is in the volume.
WORKDIR /var/lib/eventpusher
VOLUME ["/var/lib/eventpusher"]

# Numeric, for runAsNonRoot and because there is no /etc/passwd.
USER 65532:65532

# No EXPOSE: the only listener is [admin] listen, which is off unless configured.
ENTRYPOINT ["/eventpusher"]
CMD ["run", "-config", "/etc/eventpusher/config.toml"]

# Needs [admin] listen; any address does, 127.0.0.1:9090 is enough.
HEALTHCHECK --interval=15s --timeout=6s --start-period=20s --retries=3 \
  CMD ["/eventpusher", "health", "-config", "/etc/eventpusher/config.toml"]
