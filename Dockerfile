# The embedded host, both components and the publisher: see docs/deploying.md.
# Build it with BuildKit (docker), or with `buildah build --format docker` or `podman
# build --format docker`: the format of OCI has no HEALTHCHECK.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
RUN rustup target add wasm32-wasip2
WORKDIR /src
COPY . .
# The profile of the native programs is `dev`, as everywhere: their dependencies are
# optimised in it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --bins && \
    cargo build --locked --release --target wasm32-wasip2 --package sekali && \
    cargo build --locked --release --target wasm32-wasip2 --package sekali \
        --no-default-features --features spin-4-1 --target-dir target/postgres && \
    DESTDIR=/out deploy/install

FROM docker.io/library/debian:bookworm-slim
# An id that is the same in every build, so that volumes keep their owner.
RUN groupadd --gid 10001 sekali && \
    useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sekali \
        --shell /usr/sbin/nologin sekali && \
    install --directory --mode=750 --owner=sekali --group=sekali /var/lib/sekali
# For PostgreSQL, Redis and libSQL over TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/usr/local/bin/ /usr/local/bin/
COPY --from=build /out/opt/sekali/ /opt/sekali/
COPY LICENSE* /usr/share/doc/sekali/

# Where spin.toml is found; `--from spin.postgres.toml` takes the other.
WORKDIR /opt/sekali
USER 10001:10001
ENV SPIN_HTTP_LISTEN_ADDR=0.0.0.0:3000
EXPOSE 3000
VOLUME /var/lib/sekali
# It has 30 s for what is under way, and some for the store: stop it with a timeout of 45 s.
STOPSIGNAL SIGTERM
# There is no curl here, and none is needed.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["bash", "-c", \
    "exec 3<>\"/dev/tcp/127.0.0.1/${SPIN_HTTP_LISTEN_ADDR##*:}\" && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ $status == 200 ]]"]
# Log lines go to stderr alone, which the engine keeps; files of them would grow in the volume.
ENTRYPOINT ["sekali-host", "--no-build", "--state-dir", "/var/lib/sekali", "--log-dir", ""]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sekali" \
      org.opencontainers.image.description="Takes events and log lines over HTTP and stores each exactly once" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
