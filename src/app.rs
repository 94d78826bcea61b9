//! Builds each floor from the one below, and takes them down from the top.
//!
//! # Invariants
//! - Start: port, database, schema, log, feed, HTTP. Stop: no new connections, readers told to come back, appends that
//!   were accepted finished, then the log, then the embedded database; each with a deadline.
//! - Every failure of the start is a sentence that says what to do.

mod credentials;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use credentials::{CredentialsError, development_secret};

use crate::access::{Access, Registry, RegistryError, Secret, Trust};
use crate::config::{self, NoHome};
use crate::event::{Seq, Tenant};
use crate::feed::Hub;
use crate::feed::hub::WindowLimits;
use crate::http::audit::{self, Audit};
use crate::http::entrance::{self, Entrance};
use crate::http::ingest::IngestLimits;
use crate::http::origin::Origins;
use crate::http::serve::{Patience, serve};
use crate::http::tls::{Tls, TlsError};
use crate::http::{self, App};
use crate::log::inbox::Inbox;
use crate::log::listener::Listener;
use crate::log::tail::Tail;
use crate::log::wakeup::NotifyMode;
use crate::log::{Appender, History, Identity, Unavailable, erasure, upkeep};
use crate::pg::embedded::{Embedded, EmbeddedConfig, EmbeddedError};
use crate::pg::schema::{self, Plan, SchemaError};
use crate::pg::{ConnectError, Connector};
use crate::tasks::Tasks;

/// How long open requests and readers may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the floors below may take after that.
const STOP: Duration = Duration::from_secs(5);

/// How long reading the newest events at the start may take.
const PRELOAD: Duration = Duration::from_secs(30);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port is taken.
    #[error(
        "{0} is taken by another program: stop it, or choose another port with --listen {1} (TIDEWIRE_LISTEN)"
    )]
    PortTaken(SocketAddr, SocketAddr),
    /// The port may not be used.
    #[error(
        "may not listen on {0}: ports below 1024 need root; choose another with --listen (TIDEWIRE_LISTEN)"
    )]
    PortForbidden(SocketAddr),
    /// The address is not this machine's.
    #[error(
        "cannot listen on {0} ({1}): is this an address of this machine? See --listen (TIDEWIRE_LISTEN)"
    )]
    Listen(SocketAddr, std::io::Error),
    /// The credentials' settings are not usable.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate's settings are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No home folder.
    #[error(transparent)]
    NoHome(#[from] NoHome),
    /// The embedded database did not start.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The schema could not be applied.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// What the database knows of credentials cannot be read.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The log does not answer.
    #[error("the log does not answer: {0}")]
    Log(#[from] Unavailable),
}

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
    readers: Tasks,
    log_tasks: Tasks,
    embedded: Option<Embedded>,
}

impl Server {
    /// Starts all floors.
    ///
    /// # Errors
    /// If one of them cannot.
    pub async fn start(config: config::Serve) -> Result<Self, StartError> {
        let listener = listen(config.listen)?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(config.listen, error))?;
        let log_tasks = Tasks::new();
        let tls = tls(&config, &log_tasks).await?;
        let (trust, development_secret) = credentials::trust(&config, &log_tasks)?;
        let readers = Tasks::new();
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
        match build(
            &config,
            &url,
            embedded.is_some(),
            trust,
            &log_tasks,
            &readers,
        )
        .await
        {
            Ok(app) => Ok(Self {
                address,
                app,
                psql,
                development_secret,
                patience: Patience::default(),
                tls,
                listener,
                readers,
                log_tasks,
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
            readers,
            log_tasks,
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
        let serving = serve(entrance, tls, router, patience, &readers, DRAIN);
        let mut serving = std::pin::pin!(serving);
        // Serving ends with the readers' token alone.
        tokio::select! {
            () = stop => {}
            () = &mut serving => tracing::error!("the HTTP server ended"),
        }
        tracing::info!("stopping: readers are told to come back, accepted appends are finished");
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
    }
}

async fn build(
    config: &config::Serve,
    url: &Secret,
    is_embedded: bool,
    trust: Trust,
    log_tasks: &Tasks,
    readers: &Tasks,
) -> Result<App, StartError> {
    let connector = Connector::parse(url.reveal(), log_tasks)?;
    let direct = match &config.database.listen_database_url {
        Some(url) => Connector::parse(url.reveal(), log_tasks)?,
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
        schema::close_timescale(&client)
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
    let log = feed(config, connector, direct, identity, log_tasks).await?;
    let ingest = IngestLimits {
        data_bytes: config.data_bytes_max,
        ..IngestLimits::default()
    };
    let origins = Origins {
        allowed: config.allowed_origins.clone(),
        is_development: access.is_development(),
    };
    let interval = Some(config.audit_interval_s).filter(|seconds| *seconds > 0);
    let interval = interval.map(Duration::from_secs);
    let app = App::new(
        log,
        access,
        origins,
        ingest,
        &config.limits.allowances(),
        Audit::new(interval),
        readers.clone(),
    );
    log_tasks.spawn_until_stop(audit::run(app.clone(), interval));
    Ok(app)
}

/// The log's writers and its tail, and the hub that the tail fills.
async fn feed(
    config: &config::Serve,
    connector: Connector,
    direct: Connector,
    identity: Identity,
    log_tasks: &Tasks,
) -> Result<(Arc<Hub>, Appender, History), StartError> {
    let inbox = Arc::new(Inbox::default());
    let listener = Listener::start(config.notify, direct, Arc::clone(&inbox), log_tasks);
    let appender = Appender::start(&connector, &identity, &inbox, &listener, log_tasks)
        .in_region(config.privacy.region.clone());
    let history = History::new(&connector, &identity)?;
    let (tail, status) = Tail::open(
        connector.clone(),
        identity.clone(),
        listener,
        Arc::clone(&inbox),
        config.notify,
    )
    .await?;
    let hub = Arc::new(Hub::new(
        tail.begins_at(),
        WindowLimits {
            events: config.window_events,
            bytes: config.window_bytes,
        },
        status,
        identity.clone(),
        history.clone(),
        inbox,
    ));
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

/// Waits until the newest events are in the window: whoever asks for `latest` must not be given what was there before
/// the server.
async fn preload(hub: &Hub, present: Seq) -> Result<(), Unavailable> {
    if hub.wait_for(present, PRELOAD).await {
        Ok(())
    } else {
        Err(Unavailable::Silent)
    }
}

/// TLS for clients, if the settings ask for it.
async fn tls(config: &config::Serve, tasks: &Tasks) -> Result<Option<Tls>, TlsError> {
    let files = config.tls.clone();
    let tls = Tls::load(files.tls_cert, files.tls_key).await?;
    match &tls {
        Some(tls) => tasks.spawn_until_stop(tls.clone().watch()),
        None if !config.listen.ip().is_loopback() => tracing::warn!(
            "other machines reach this server without TLS: set TIDEWIRE_TLS_CERT and TIDEWIRE_TLS_KEY, unless a proxy before it terminates TLS"
        ),
        None => {}
    }
    Ok(tls)
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    entrance::listen(address).map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            let mut other = address;
            other.set_port(address.port().checked_add(1).unwrap_or(8080));
            StartError::PortTaken(address, other)
        }
        ErrorKind::PermissionDenied => StartError::PortForbidden(address),
        _ => StartError::Listen(address, error),
    })
}
