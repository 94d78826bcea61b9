//! What the server needs inside a fresh cluster: a database, TimescaleDB, and a password for `psql`.
//!
//! # Invariants
//! - Every step may be repeated, and is, at each start.
//! - The password is random, and written to a file only once PostgreSQL has accepted it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::cluster::Cluster;
use super::error::EmbeddedError;
use super::settings::NAME;

/// The database that always exists.
const MAINTENANCE: &str = "postgres";
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Whether the server answers a query.
pub(super) async fn answers(cluster: &Cluster) -> bool {
    let ask = session(cluster, MAINTENANCE, async |client| {
        client.batch_execute("SELECT 1").await
    });
    timeout(ANSWER_MAX, ask)
        .await
        .is_ok_and(|result| result.is_ok())
}

/// Creates what is missing.
pub(super) async fn prepare(cluster: &Cluster) -> Result<(), EmbeddedError> {
    let explain = |action: &'static str| {
        let log = cluster.directory.log();
        move |source| EmbeddedError::Prepare {
            action,
            source,
            log,
        }
    };
    session(cluster, MAINTENANCE, create_database)
        .await
        .map_err(explain("create the database tidewire"))?;
    session(cluster, NAME, create_extension)
        .await
        .map_err(explain("load TimescaleDB"))?;
    if !cluster.directory.passfile().exists() {
        let password = format!("{:032x}", rand::random::<u128>());
        session(cluster, MAINTENANCE, async |client| {
            set_password(client, &password).await
        })
        .await
        .map_err(explain("set a password"))?;
        let line = format!("127.0.0.1:*:*:{NAME}:{password}\n");
        cluster.directory.write("pgpass", 0o600, &line)?;
    }
    Ok(())
}

async fn create_database(client: &Client) -> Result<(), Error> {
    let exists = client
        .query("SELECT 1 FROM pg_database WHERE datname = 'tidewire'", &[])
        .await?;
    if exists.is_empty() {
        // From template0, the one template to which TimescaleDB's launcher never connects: a
        // connection to the template makes CREATE DATABASE fail.
        client
            .batch_execute("CREATE DATABASE tidewire TEMPLATE template0")
            .await?;
    }
    Ok(())
}

/// Brings the extension to the version of the installed programs. Must be the first statement of its
/// session: any other could load the old version's library, which an upgrade has removed.
async fn create_extension(client: &Client) -> Result<(), Error> {
    match client
        .batch_execute("ALTER EXTENSION timescaledb UPDATE")
        .await
    {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => {
            client
                .batch_execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
                .await
        }
        result => result,
    }
}

/// `password` is hexadecimal, so it needs no quoting; the statement takes no parameters.
async fn set_password(client: &Client, password: &str) -> Result<(), Error> {
    client
        .batch_execute(&format!("ALTER ROLE tidewire PASSWORD '{password}'"))
        .await
}

/// Runs `work` in a session of its own over the socket.
async fn session<T>(
    cluster: &Cluster,
    database: &str,
    work: impl AsyncFnOnce(&Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut config = Config::new();
    config
        .host_path(&cluster.socket_dir)
        .port(cluster.port)
        .user(NAME)
        .dbname(database);
    config.application_name("tidewire start");
    let (client, connection) = config.connect(NoTls).await?;
    let mut connection = pin!(connection);
    tokio::select! {
        result = work(&client) => result,
        // The connection also does the work of sending; it ends early only with an error.
        Err(error) = &mut connection => Err(error),
    }
}
