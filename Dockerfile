# The service as a small image: one stripped binary on Debian slim, not root,
# fine with a read-only root file system and without any capability. The first
# build takes about five minutes on two cores.
#
#   docker build -t quantd .
#   docker run --rm -p 127.0.0.1:8080:8080 --read-only --cap-drop ALL --memory 512m quantd
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
# Dependencies first, behind an empty program: this layer is made anew only when they change.
COPY Cargo.toml Cargo.lock ./
COPY crates/quantd-kernels/Cargo.toml crates/quantd-kernels/
COPY crates/quantd-core/Cargo.toml crates/quantd-core/
COPY crates/quantd-codec/Cargo.toml crates/quantd-codec/
RUN mkdir -p src benches crates/quantd-kernels/src crates/quantd-core/src crates/quantd-codec/src \
    && touch src/lib.rs crates/quantd-kernels/src/lib.rs crates/quantd-core/src/lib.rs crates/quantd-codec/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && for name in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name *= *"\(.*\)"/\1/p' Cargo.toml); do \
         echo 'fn main() {}' > "benches/$name.rs"; \
       done \
    && cargo build --release --locked --bin quantd \
    && rm -r src crates
COPY crates crates
COPY src src
# The empty program must look older than the real one.
RUN find src crates -name '*.rs' -exec touch {} + && cargo build --release --locked --bin quantd

FROM ${RUNTIME_IMAGE}
RUN useradd --system --uid 10001 --no-create-home --home-dir / --shell /usr/sbin/nologin quantd
# A place for a volume of layers: a new volume takes over its owner.
RUN install -d -o 10001 -g 10001 /var/lib/quantd/layers
COPY --from=build /src/target/release/quantd /usr/local/bin/quantd
USER 10001:10001
ENV QUANTD_HOST=0.0.0.0 QUANTD_PORT=8080
EXPOSE 8080
# SIGTERM drains; give `docker stop` more time than QUANTD_DRAIN_SECONDS.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 CMD ["quantd", "healthcheck"]
ENTRYPOINT ["quantd"]
CMD ["serve"]
