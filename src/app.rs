//! Builds each floor from the one below, and takes them down from the top.
//!
//! # Invariants
//! - Start: port, database, schema, log, feed, HTTP. Stop: no new connections, readers told to come back, appends that
//!   were accepted finished, then the log, then the embedded database; each with a deadline.
//! - Every failure of the start is a sentence that says what to do.

mod credentials;
mod error;
mod listening;
mod traces;
mod validation;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use credentials::{CredentialsError, development_secret};
pub use error::StartError;
use listening::{LISTEN, METRICS_LISTEN, listen, tls, watched};

use crate::access::{Access, Registry, Secret, Trust};
use crate::backoff::Backoff;
use crate::config;
use crate::consume::runner::Consumer as _;
use crate::consume::{self, Standing, Watch};
use crate::event::{Seq, Tenant};
use crate::feed::Hub;
use crate::feed::hub::WindowLimits;
use crate::http::app::AppParts;
use crate::http::audit::{self, Audit};
use crate::http::drain::Drain;
use crate::http::entrance::Entrance;
use crate::http::ingest::IngestLimits;
use crate::http::origin::Origins;
use crate::http::pulse;
use crate::http::serve::{Patience, serve};
use crate::http::sessions::Room;
use crate::http::tls::Tls;
use crate::http::{self, App};
use crate::log::inbox::Inbox;
use crate::log::listener::Listener;
use crate::log::tail::Tail;
use crate::log::wakeup::NotifyMode;
use crate::log::{Appender, AppenderSettings, History, Identity, Unavailable, erasure, upkeep};
use crate::pg::embedded::{Embedded, EmbeddedConfig};
use crate::pg::schema::{self, Plan, SchemaError};
use crate::pg::{Connector, Resource, Shortages};
use crate::tasks::{Tasks, pause};
use crate::telemetry::Metrics;

/// How long open requests and readers may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the floors below may take after that.
const STOP: Duration = Duration::from_secs(5);

/// A start that the database has no connection for is tried again after so long.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long reading the newest events at the start may take.
const PRELOAD: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// The floors, for the banner and tests.
    pub app: App,
    /// The database: a `psql` line for the embedded one.
    pub psql: Option<String>,
    /// The secret that signs development tokens; none in production.
    pub development_secret: Option<Secret>,
    /// How long clients are waited for.
    pub patience: Patience,
    tls: Option<Tls>,
    listener: TcpListener,
    /// For whoever watches, without credentials.
    watching: Option<TcpListener>,
    readers: Tasks,
    log_tasks: Tasks,
    /// Send what was traced, to the very end.
    exports: Tasks,
    embedded: Option<Embedded>,
}

impl Server {
    /// Starts all floors.
    ///
    /// # Errors
    /// If one of them cannot.
    pub async fn start(config: config::Serve) -> Result<Self, StartError> {
        let listener = listen(config.listen, LISTEN)?;
        let watched_at = config.observation.metrics_listen;
        let watching = watched_at.map(|at| listen(at, METRICS_LISTEN));
        let watching = watching.transpose()?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(config.listen, LISTEN, error))?;
        let (readers, exports) = (Tasks::new(), Tasks::new());
        let tls = tls(&config, &readers).await?;
        let (trust, development_secret) = credentials::trust(&config, &readers)?;
        let metrics = traces::metrics(&config.traces, &exports)?;
        let (embedded, url) = if let Some(url) = &config.database.database_url {
            (None, url.clone())
        } else {
            let folders = config.database.folders()?;
            let postgres_bin = config.database.postgres_bin.clone();
            let embedded = EmbeddedConfig {
                data_dir: folders.data,
                postgres_bin,
                cache_dir: folders.cache,
            };
            let embedded = Embedded::start(embedded).await?;
            let url = Secret::new(embedded.connection_url());
            (Some(embedded), url)
        };
        let psql = embedded.as_ref().map(Embedded::psql_hint);
        let floors = (trust, metrics);
        match build_patiently(&config, &url, embedded.is_some(), floors, &readers).await {
            Ok((app, log_tasks)) => Ok(Self {
                address,
                app,
                psql,
                development_secret,
                patience: Patience::default(),
                tls,
                listener,
                watching,
                readers,
                log_tasks,
                exports,
                embedded,
            }),
            Err(error) => {
                if let Some(embedded) = embedded {
                    embedded.stop().await;
                }
                Err(error)
            }
        }
    }

    /// Where clients reach it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `stop` ends, then takes the floors down.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self {
            app,
            tls,
            listener,
            watching,
            readers,
            log_tasks,
            exports,
            embedded,
            patience,
            ..
        } = self;
        let embedded_stop = tokio_util::sync::CancellationToken::new();
        let supervised = embedded.map(|mut embedded| {
            let stop = embedded_stop.clone();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            log_tasks.spawn(async move {
                embedded.supervise(stop).await;
                embedded.stop().await;
                let _ = sender.send(());
            });
            receiver
        });
        let (entrance, router) = (Entrance::new(listener), http::router(app.clone()));
        let closing = (&readers, &app.drain);
        let serving = serve(entrance, tls, router, patience, closing, DRAIN);
        let mut serving = std::pin::pin!(serving);
        if let Some(listener) = watching {
            watched(listener, &app, patience, &readers);
        }
        // Serving ends with the readers' token alone.
        tokio::select! {
            () = stop => {}
            () = &mut serving => tracing::error!("the HTTP server ended"),
        }
        tracing::info!("stopping: readers are told to come back, accepted appends are finished");
        app.drain.begin();
        tokio::select! {
            _ = tokio::time::timeout(app.drain.window(), app.all_seats_free()) => {}
            () = &mut serving => {}
        }
        readers.token().cancel();
        let _ = tokio::time::timeout(DRAIN, async {
            serving.await;
            app.all_seats_free().await;
        })
        .await;
        readers.stop(STOP).await;
        app.access.registry().write_used().await;
        audit::finish(&app).await;
        // Before the database goes: its goodbye would be a warning.
        app.history.pool().close();
        log_tasks.token().cancel();
        embedded_stop.cancel();
        if let Some(stopped) = supervised {
            let _ = stopped.await;
        }
        log_tasks.stop(STOP).await;
        exports.stop(STOP).await;
    }
}

/// Builds the floors, and again for as long as nothing is in the way but that the database has no connection to spare.
async fn build_patiently(
    config: &config::Serve,
    url: &Secret,
    is_embedded: bool,
    (trust, metrics): (Trust, Metrics),
    readers: &Tasks,
) -> Result<(App, Tasks), StartError> {
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    loop {
        let (log_tasks, shortages) = (Tasks::new(), Shortages::default());
        let tasks = (&log_tasks, readers);
        let own = (trust.clone(), metrics.clone());
        let built = build(config, url, is_embedded, own, tasks, &shortages).await;
        match built {
            Ok(app) => return Ok((app, log_tasks)),
            Err(error) if shortages.gravest() == Some(Resource::Connections) => {
                tracing::warn!(%error, "not started yet: trying again until the database lets this server connect");
                log_tasks.stop(STOP).await;
                pause(backoff.next_delay()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn build(
    config: &config::Serve,
    url: &Secret,
    is_embedded: bool,
    (trust, metrics): (Trust, Metrics),
    (log_tasks, readers): (&Tasks, &Tasks),
    shortages: &Shortages,
) -> Result<App, StartError> {
    let connector = Connector::parse(url.reveal(), log_tasks)?.noting(shortages);
    let direct = match &config.database.listen_database_url {
        Some(url) => Connector::parse(url.reveal(), log_tasks)?.noting(shortages),
        None => connector.clone(),
    };
    let mut client = direct.connect("migrate").await?;
    if is_embedded {
        schema::create_roles(&client)
            .await
            .map_err(SchemaError::Query)?;
    }
    let versions = if config.no_migrate {
        schema::verify(&client).await?
    } else {
        schema::apply(&mut client, Plan::default()).await?
    };
    if is_embedded {
        schema::close_to_others(&client)
            .await
            .map_err(SchemaError::Query)?;
    }
    tracing::info!(
        postgres = versions.postgres,
        timescaledb = versions.timescale,
        license = versions.license,
        "the log is ready"
    );
    let identity = Identity::load(&client).await.map_err(Unavailable::Lost)?;
    drop(client);

    let listens = config.notify != NotifyMode::Never;
    let registry = Registry::start(direct.clone(), listens, log_tasks).await?;
    let access = Access::new(trust, registry);
    let standing = watch(direct.clone(), log_tasks, &metrics);
    let log = feed(config, connector, direct, identity, log_tasks, &metrics).await?;
    let ingest = IngestLimits {
        data_bytes: config.data_bytes_max,
        ..IngestLimits::default()
    };
    let origins = Origins {
        allowed: config.allowed_origins.clone(),
        is_development: access.is_development(),
    };
    let interval = Some(config.audit_interval_s).filter(|seconds| *seconds > 0);
    let app = App::new(AppParts {
        log,
        access,
        origins,
        ingest,
        allowances: config.limits.allowances(),
        room: Room {
            bytes: config.memory.session_bytes,
            idle: config.memory.session_idle(),
        },
        audit: Audit::new(interval.map(Duration::from_secs)),
        metrics,
        consumers: vec![standing],
        operators: config.limits.administration.operator_tenant.clone(),
        notify: config.notify,
        validator: Arc::new(validation::Validation::default()),
        tasks: readers.clone(),
        drain: Drain::new(config.drain.window(), readers.token().clone()),
    });
    log_tasks.spawn_until_stop(pulse::run(app.clone()));
    log_tasks.spawn_until_stop(audit::run(app.clone()));
    Ok(app)
}

/// The log's writers and its tail, and the hub that the tail fills.
async fn feed(
    config: &config::Serve,
    connector: Connector,
    direct: Connector,
    identity: Identity,
    log_tasks: &Tasks,
    metrics: &Metrics,
) -> Result<(Arc<Hub>, Appender, History), StartError> {
    let inbox = Arc::new(Inbox::default());
    let listener = Listener::start(config.notify, direct, Arc::clone(&inbox), log_tasks);
    let appender = Appender::start(
        &connector,
        &identity,
        &inbox,
        &listener,
        log_tasks,
        metrics,
        AppenderSettings {
            batch_events_max: config.load.batch_events_max,
            breaker: config.breaker.settings(),
            region: config.privacy.region.clone(),
        },
    );
    let history = History::new(&connector, &identity)?;
    let (tail, status) = Tail::open(
        connector.clone(),
        identity.clone(),
        listener,
        Arc::clone(&inbox),
        config.notify,
    )
    .await?;
    let hub = Hub::new(
        (tail.begins_at(), tail.present()),
        WindowLimits {
            events: config.memory.window_events,
            bytes: config.memory.window_bytes,
        },
        status,
        identity.clone(),
        history.clone(),
        inbox,
        metrics.clone(),
    );
    let hub = Arc::new(hub.guarded_by(appender.breaker().clone()));
    let tail = tail.guarded_by(appender.breaker().clone());
    let (sink, present) = (Arc::clone(&hub), tail.present());
    log_tasks.spawn_until_stop(async move { tail.run(|page| sink.publish(&page)).await });
    let sink = Arc::clone(&hub);
    let forget = move |tenant: &Tenant, through| sink.forget(tenant, through);
    log_tasks.spawn_until_stop(erasure::watch(connector, forget));
    preload(&hub, present).await?;
    log_tasks.spawn_until_stop(upkeep::run(
        history.clone(),
        identity,
        config.retention_days,
    ));
    Ok((hub, appender, history))
}

/// The dead-man watch, over a direct connection: its lock is the session's.
fn watch(direct: Connector, tasks: &Tasks, metrics: &Metrics) -> Standing {
    let standing = Standing::new(Watch::NAME);
    let watch = Watch::new(metrics.clone());
    tasks.spawn_until_stop(consume::run(direct, watch, standing.clone()));
    standing
}

/// Waits until the newest events are in the window: whoever asks for `latest` must not be given what was there before
/// the server.
async fn preload(hub: &Hub, present: Seq) -> Result<(), Unavailable> {
    if hub.wait_for(present, PRELOAD).await {
        Ok(())
    } else {
        Err(Unavailable::Silent)
    }
}
