# Builds the server and leaves nothing but its binary and root certificates on a slim Debian.
FROM rust:1.95.0-trixie AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin tidewire

FROM debian:13.1-slim
RUN groupadd --system --gid 10001 tidewire \
    && useradd --system --uid 10001 --gid tidewire --no-create-home --shell /usr/sbin/nologin tidewire
# The commands that talk to servers want the roots of trust.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/tidewire /usr/local/bin/tidewire
USER 10001:10001
# Other machines can reach it, so it does not start without TIDEWIRE_JWT_SECRET; nor without DATABASE_URL, since there is
# no PostgreSQL in this image.
ENV TIDEWIRE_LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["tidewire", "check", "--ready"]
ENTRYPOINT ["tidewire"]
CMD ["serve"]
