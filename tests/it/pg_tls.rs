//! TLS between the server and a PostgreSQL that takes nothing else over the network.

mod on_the_way;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tidewire::pg::Connector;
use tidewire::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::Client;

use crate::crash::Cluster;
use crate::first_steps::program;
use crate::history::writers::connect;
use crate::support::authority::{Authority, Issued, peek};
use crate::support::{Server, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// A PostgreSQL that takes connections over TCP by TLS alone, certified for `localhost`.
struct Database {
    cluster: Cluster,
    authority: Authority,
    port: i32,
}

impl Database {
    async fn start() -> Self {
        let cluster = Cluster::start().await;
        let authority = Authority::new("the database's authority");
        let client = connect(&cluster.url, "test").await;
        let roles = "CREATE ROLE app SUPERUSER LOGIN PASSWORD 'hush-hush';
            CREATE ROLE agent SUPERUSER LOGIN";
        client.batch_execute(roles).await.unwrap();
        let port = client
            .query_one("SELECT current_setting('port')::int", &[])
            .await;
        let database = Self {
            port: port.unwrap().get(0),
            cluster,
            authority,
        };
        std::fs::create_dir(database.folder()).unwrap();
        database.write("ca.pem", &database.authority.pem);
        let hba = database.cluster.folder().join("data/pg_hba.conf");
        let of_the_socket: String = std::fs::read_to_string(&hba)
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("local"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let of_the_network = "hostssl all agent all cert\nhostssl all all all scram-sha-256\n";
        std::fs::write(hba, of_the_socket + of_the_network).unwrap();
        let issued = database.authority.issue(&["localhost"]);
        let ca = database.write("clients.pem", &database.authority.pem);
        client
            .batch_execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{ca}'"))
            .await
            .unwrap();
        database.show(&issued).await;
        database
    }

    fn folder(&self) -> PathBuf {
        self.cluster.folder().join("tls")
    }

    /// A file that PostgreSQL may read and nobody else; its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(self.cluster.folder().join("data/postgres")).unwrap();
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        path.display().to_string()
    }

    /// Makes PostgreSQL show this certificate from now on. Its files have a name of their own, so that it is seen when
    /// they are in force.
    async fn show(&self, issued: &Issued) {
        let name = format!("{:x}", rand::random::<u64>());
        let certificate = self.write(&format!("{name}.crt"), &issued.certificate);
        let key = self.write(&format!("{name}.key"), &issued.key);
        let client = connect(&self.cluster.url, "test").await;
        for (setting, value) in [
            ("ssl", "on"),
            ("ssl_cert_file", certificate.as_str()),
            ("ssl_key_file", &key),
        ] {
            let change = format!("ALTER SYSTEM SET {setting} = '{value}'");
            client.batch_execute(&change).await.unwrap();
        }
        client
            .batch_execute("SELECT pg_reload_conf()")
            .await
            .unwrap();
        eventually(PATIENCE, async || {
            let stream = self.handshake().await?;
            if stream.as_deref() == Some(&*der(&issued.certificate)) {
                Ok(())
            } else {
                Err("another certificate".to_owned())
            }
        })
        .await;
    }

    /// The certificate that is shown now, as whoever believes anybody sees it.
    async fn handshake(&self) -> Result<Option<Vec<u8>>, String> {
        let socket =
            tokio::net::TcpStream::connect(("127.0.0.1", u16::try_from(self.port).unwrap()));
        let mut socket = socket.await.map_err(|error| error.to_string())?;
        socket
            .write_all(&[0, 0, 0, 8, 4, 210, 22, 47])
            .await
            .map_err(|error| error.to_string())?;
        let mut answer = [0];
        socket
            .read_exact(&mut answer)
            .await
            .map_err(|error| error.to_string())?;
        if answer != *b"S" {
            return Err("no TLS yet".to_owned());
        }
        Ok(peek(socket).await)
    }

    fn url(&self, user: &str, host: &str, query: &str) -> String {
        let query = query.replace("CA", &self.folder().join("ca.pem").display().to_string());
        format!(
            "postgres://{user}:hush-hush@{host}:{}/tidewire?{query}",
            self.port
        )
    }

    /// Connects as the server does; what went wrong, as it says it.
    async fn connect(&self, host: &str, query: &str) -> Result<Client, String> {
        connect_to(&self.url("app", host, query)).await
    }
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes());
    certificate.unwrap().to_vec()
}

async fn connect_to(url: &str) -> Result<Client, String> {
    let connector = Connector::parse(url, &Tasks::new());
    let connector = connector.map_err(|error| error.to_string())?;
    assert!(!format!("{connector:?}").contains("hush"), "{connector:?}");
    let client = connector.connect("test").await;
    client.map_err(|error| {
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        error.to_string()
    })
}

/// Whether this connection is encrypted.
async fn is_encrypted(client: &Client) -> bool {
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_and_go_and_every_connection_is_encrypted() {
    let database = Database::start().await;
    let url = database.url(
        "app",
        "localhost",
        "sslmode=verify-full&sslrootcert=CA&channel_binding=require",
    );
    let server = Server::start_with(&url, &[]).await;
    let mut stream = server
        .api
        .sse("topics=*&after=earliest", None)
        .await
        .unwrap();
    server
        .api
        .append(&json!({"id": "one", "topic": "a.b"}))
        .await;
    let (events, _) = stream.events().await.unwrap().unwrap();
    assert_eq!(events[0]["id"], "one");
    // A filter that the window does not answer is read from history.
    let page = server.api.page("earliest", "&subjects=nobody").await;
    assert_eq!(page["events"], json!([]));
    let client = connect(&database.cluster.url, "judge").await;
    // Written past the server: its LISTEN connection hears of it.
    let insert = "INSERT INTO tidewire.events (id, tenant, topic) VALUES ('two', 'dev', 'a.b')";
    client.batch_execute(insert).await.unwrap();
    let (events, _) = stream.events().await.unwrap().unwrap();
    assert_eq!(events[0]["id"], "two");
    let query = "SELECT a.application_name, s.ssl FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s USING (pid)
        WHERE a.usename = 'app'";
    let rows = client.query(query, &[]).await.unwrap();
    let purposes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for purpose in ["tidewire listen", "tidewire tail", "tidewire append 0"] {
        assert!(
            purposes.iter().any(|seen| seen == purpose),
            "{purpose}: {purposes:?}"
        );
    }
    assert!(rows.iter().all(|row| row.get(1)), "{rows:?}");
    server.stop().await;
    database.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_mean_what_they_mean_to_libpq() {
    let database = Database::start().await;
    let stranger = database.write("stranger.pem", &Authority::new("a stranger").pem);
    let stranger = |query: &str| query.replace("STRANGER", &stranger);
    for (host, query) in [
        ("localhost", "sslmode=verify-full&sslrootcert=CA"),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=CA&channel_binding=require",
        ),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=CA&sslnegotiation=postgres",
        ),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=CA"),
        ("127.0.0.1", "sslmode=require&sslrootcert=CA"),
        ("127.0.0.1", "sslmode=require"),
        ("127.0.0.1", "sslmode=prefer"),
        ("127.0.0.1", ""),
    ] {
        let client = database.connect(host, query).await.unwrap();
        assert!(is_encrypted(&client).await, "{query}");
    }
    let untrusted = "not issued by who sslrootcert in DATABASE_URL names";
    for (host, query, parts) in [
        (
            "127.0.0.1",
            "sslmode=verify-full&sslrootcert=CA",
            ["is for another name", "localhost"],
        ),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=STRANGER",
            [untrusted, "UnknownIssuer"],
        ),
        (
            "localhost",
            "sslmode=verify-ca&sslrootcert=STRANGER",
            [untrusted, "UnknownIssuer"],
        ),
        (
            "localhost",
            "sslmode=require&sslrootcert=STRANGER",
            [untrusted, "UnknownIssuer"],
        ),
        (
            "localhost",
            "sslmode=prefer&sslrootcert=STRANGER",
            [untrusted, "UnknownIssuer"],
        ),
        (
            "localhost",
            "sslmode=disable",
            ["no encryption", "write sslmode=verify-full (or require)"],
        ),
    ] {
        let said = database.connect(host, &stranger(query)).await.unwrap_err();
        for part in parts {
            assert!(said.contains(part), "{query}: {said}");
        }
    }
    // The machine's authorities: as the program is told them, for every program.
    for (authorities, is_trusted) in [("ca.pem", true), ("stranger.pem", false)] {
        let mut migrate = tokio::process::Command::new(program());
        let url = database.url("app", "localhost", "sslrootcert=system");
        migrate.args(["migrate", "--database-url", &url]);
        let file = database.folder().join(authorities);
        let output = migrate.env("SSL_CERT_FILE", file).output().await.unwrap();
        assert_eq!(output.status.success(), is_trusted, "{output:?}");
    }
    database.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_over_or_renewed_or_sign_themselves() {
    let database = Database::start().await;
    let full = "sslmode=verify-full&sslrootcert=CA";
    let past = SystemTime::now() - Duration::from_hours(48);
    database
        .show(&database.authority.issue_at(&["localhost"], past))
        .await;
    for query in [full, "sslmode=verify-ca&sslrootcert=CA"] {
        let said = database.connect("localhost", query).await.unwrap_err();
        assert!(
            said.contains("has expired: renew it at the database"),
            "{said}"
        );
    }
    // A connector that is there already reads a new root for its next connection.
    let other = Authority::new("another authority");
    database.show(&other.issue(&["localhost"])).await;
    let url = database.url("app", "localhost", full);
    let connector = Connector::parse(&url, &Tasks::new()).unwrap();
    assert!(connector.connect("test").await.is_err());
    database.write("ca.pem", &other.pem);
    connector.connect("test").await.unwrap();
    std::fs::remove_file(database.folder().join("ca.pem")).unwrap();
    let said = connector.connect("test").await.unwrap_err().to_string();
    assert!(
        said.contains("cannot read") && said.contains("see sslrootcert"),
        "{said}"
    );
    // PostgreSQL's manual makes a certificate that is an authority and its own root.
    for (moment, host, is_trusted) in [
        (SystemTime::now(), "localhost", true),
        (SystemTime::now(), "127.0.0.1", false),
        (past, "localhost", false),
    ] {
        let own = Authority::itself("localhost", moment);
        database.show(&own).await;
        database.write("ca.pem", &own.certificate);
        let connected = database.connect(host, full).await;
        assert_eq!(
            connected.is_ok(),
            is_trusted,
            "{host} {:?}",
            connected.err()
        );
    }
    database.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_stands_for_a_password() {
    let database = Database::start().await;
    let words = |name: &str, issued: &Issued| {
        let certificate = database.write(&format!("{name}.crt"), &issued.certificate);
        let key = database.write(&format!("{name}.key"), &issued.key);
        format!("sslmode=verify-full&sslrootcert=CA&sslcert={certificate}&sslkey={key}")
    };
    let agent = words("agent", &database.authority.issue(&["agent"]));
    let client = connect_to(&database.url("agent", "localhost", &agent))
        .await
        .unwrap();
    assert!(is_encrypted(&client).await);
    let elsewhere = words("elsewhere", &Authority::new("a stranger").issue(&["agent"]));
    let other = words("other", &database.authority.issue(&["somebody"]));
    let mixed = agent.replace("agent.key", "other.key");
    for (query, part) in [
        (
            "sslmode=verify-full&sslrootcert=CA",
            "requires a valid client certificate",
        ),
        (&elsewhere, "see sslcert and sslkey in DATABASE_URL"),
        (&other, "check user and password"),
        (&mixed, "does not belong to the certificate"),
    ] {
        let said = connect_to(&database.url("agent", "localhost", query)).await;
        let said = said.unwrap_err();
        assert!(said.contains(part), "{query}: {said}");
    }
    database.cluster.stop().await;
}
