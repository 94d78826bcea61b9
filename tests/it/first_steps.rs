//! What can go wrong when somebody starts Tidewire for the first time: each failure is one line that says what to do.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::Command;

use crate::crash::Cluster;
use crate::history::writers::connect;
use crate::support::keys::KeyPair;
use crate::support::{TestDb, eventually};

const PATIENCE: Duration = Duration::from_secs(30);

/// `tidewire serve` with these words, on any port unless they say.
pub fn serve(program: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("serve").args(words);
    if !words.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What it says at the end of standard error; it must have failed, in one line that has all of `parts`.
pub async fn fails(mut command: Command, parts: &[&str]) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("it ends").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("tidewire: ") && last.len() < 400, "{said}");
    for part in parts {
        assert!(last.contains(part), "{part:?} is not in {last:?}");
    }
    assert!(last.matches("os error").count() <= 1, "twice: {last:?}");
    for noise in ["db error", "(os error 0)", "panicked", "Some(", "hush"] {
        assert!(!last.contains(noise), "{noise:?} is in {last:?}");
    }
}

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tidewire"))
}

/// `tidewire serve` on a database that it must refuse.
async fn refuses(url: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().display().to_string();
    let words = ["--database-url", url, "--data-dir", &data_dir];
    fails(serve(program(), &words), parts).await;
}

/// A URL with another user, database or options.
fn changed(url: &str, change: impl FnOnce(&mut url::Url)) -> String {
    let mut url = url::Url::parse(url).unwrap();
    change(&mut url);
    url.to_string()
}

#[tokio::test]
async fn a_port_that_is_taken_and_an_address_that_is_not_ours() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let next = format!("--listen 127.0.0.1:{}", address.port() + 1);
    let listen = ["--listen", &address.to_string()];
    let parts = ["is taken by another program: stop it", &next];
    fails(serve(program(), &listen), &parts).await;
    // Addresses for documentation are nobody's.
    let listen = ["--listen", "192.0.2.1:0"];
    let parts = ["is this an address of this machine?", "TIDEWIRE_LISTEN"];
    fails(serve(program(), &listen), &parts).await;
    let listen = ["--listen", "0.0.0.0:0"];
    let parts = ["set TIDEWIRE_JWT_SECRET (openssl rand -base64 32)"];
    fails(serve(program(), &listen), &parts).await;
    let output = serve(program(), &["--listen", "localhost:8080"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("an IP address and a port, such as 127.0.0.1:8080"),
        "{said}"
    );
}

#[tokio::test]
async fn api_keys_alone_and_yet_tokens() {
    for (also, setting) in [
        (
            ["--jwt-secret", "secret-secret-secret-secret-secret"],
            "TIDEWIRE_JWT_SECRET",
        ),
        (
            ["--jwks-url", "https://id.example/keys"],
            "TIDEWIRE_JWKS_URL",
        ),
        (["--jwt-public-keys", "key.pem"], "TIDEWIRE_JWT_PUBLIC_KEYS"),
    ] {
        let words = [&["--api-keys-only"][..], &also].concat();
        let parts = ["TIDEWIRE_API_KEYS_ONLY lets in no tokens", setting];
        fails(serve(program(), &words), &parts).await;
    }
}

#[tokio::test]
async fn keys_that_verify_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let name = path.display().to_string();
    let words = ["--jwt-public-keys", &name];
    let setting = "TIDEWIRE_JWT_PUBLIC_KEYS";
    fails(
        serve(program(), &words),
        &["cannot read the public key", &name, setting],
    )
    .await;
    let pair = KeyPair::ec();
    for (text, said) in [
        ("hush", "begins with -----BEGIN PUBLIC KEY-----"),
        (&pair.private_pem, "openssl pkey -pubout"),
        (&KeyPair::rsa(1024).public_pem, "RSA (2048 bits or more)"),
        (
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "openssl x509 -pubkey -noout",
        ),
        (&pair.public_pem.replace('A', "B"), "none of RSA"),
    ] {
        std::fs::write(&path, text).unwrap();
        fails(serve(program(), &words), &[said, &name, setting]).await;
    }
    for url in [
        "http://id.example/keys",
        "ftp://127.0.0.1/keys",
        "id.example",
    ] {
        let parts = ["TIDEWIRE_JWKS_URL must begin with https://"];
        fails(serve(program(), &["--jwks-url", url]), &parts).await;
    }
}

#[tokio::test]
async fn a_database_url_that_leads_nowhere() {
    let db = TestDb::empty().await;
    let form = "write it as postgres://user:password@host:5432/database";
    for url in ["mysql://root:hush@localhost/x", "localhost:5432", "hush"] {
        refuses(url, &["DATABASE_URL is not a PostgreSQL URL", form]).await;
    }
    for url in ["", "postgres:///db"] {
        refuses(url, &["DATABASE_URL names no host", form, "unset it"]).await;
    }
    let nobody = "postgres://u:hush@no-such-host.invalid/db";
    refuses(nobody, &["no-such-host.invalid", "check the host's name"]).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let down = format!("postgres://u:hush@127.0.0.1:{port}/db");
    let parts = ["refused", "is it running", "host and port in DATABASE_URL"];
    refuses(&down, &parts).await;
    let wrong = changed(&db.url, |url| url.set_password(Some("hush")).unwrap());
    let parts = ["authentication failed", "check user and password"];
    refuses(&wrong, &parts).await;
    let none = changed(&db.url, |url| url.set_password(None).unwrap());
    refuses(&none, &["password missing", "write it into DATABASE_URL"]).await;
    let nowhere = changed(&db.url, |url| url.set_path("nowhere"));
    let parts = [
        "database \"nowhere\" does not exist",
        "create it first (createdb)",
    ];
    refuses(&nowhere, &parts).await;
    for (query, parts) in [
        (
            "sslmode=require",
            ["does not support TLS", "sslmode=disable goes without"],
        ),
        ("sslmode=allow", ["sslmode in DATABASE_URL", "verify-full"]),
        (
            "sslmode=verify-full",
            ["say by whom", "sslrootcert=/path/to/ca.pem"],
        ),
        (
            "sslrootcert=/nowhere/ca.pem",
            ["cannot read /nowhere/ca.pem", "sslrootcert"],
        ),
    ] {
        refuses(&format!("{}?{query}", db.url), &parts).await;
    }
}

/// The machine has one PostgreSQL only: a schema that is searched before the catalogue says that it is another.
#[tokio::test]
async fn a_postgresql_that_is_too_old_or_a_standby_or_has_an_old_timescaledb() {
    for (definition, parts) in [
        (
            "FUNCTION fake.current_setting(text) RETURNS text LANGUAGE sql AS
             $$ SELECT CASE $1 WHEN 'server_version_num' THEN '140012' ELSE '14.12' END $$",
            [
                "this is PostgreSQL 14.12",
                "upgrade, or name another database in DATABASE_URL",
            ],
        ),
        (
            "FUNCTION fake.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'",
            [
                "this database is a standby",
                "name the primary in DATABASE_URL",
            ],
        ),
        (
            "VIEW fake.pg_extension AS SELECT 'timescaledb' AS extname, '2.9.3' AS extversion",
            [
                "this database has TimescaleDB 2.9.3",
                "ALTER EXTENSION timescaledb UPDATE",
            ],
        ),
    ] {
        let db = TestDb::empty().await;
        let sql = format!("CREATE SCHEMA fake; CREATE {definition}");
        db.connect().await.batch_execute(&sql).await.unwrap();
        let url = format!("{}?options=-csearch_path%3Dfake,pg_catalog", db.url);
        refuses(&url, &parts).await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_create_the_extension_or_the_schema() {
    let db = TestDb::empty().await;
    let role = db.login("pg_read_all_stats").await;
    let url = changed(&db.url, |url| {
        url.set_username(&role).unwrap();
        url.set_password(Some(&role)).unwrap();
    });
    let parts = [
        "this role may not create it",
        "as a superuser run CREATE EXTENSION timescaledb",
    ];
    refuses(&url, &parts).await;
    let client = db.connect().await;
    let create = "CREATE EXTENSION timescaledb";
    client.batch_execute(create).await.unwrap();
    let parts = [
        "may not create the schema tidewire",
        "run GRANT CREATE ON DATABASE",
    ];
    refuses(&url, &parts).await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().display().to_string();
    let words = [
        "--no-migrate",
        "--database-url",
        &url,
        "--data-dir",
        &data_dir,
    ];
    fails(serve(program(), &words), &["run `tidewire migrate`"]).await;
}

/// Who does not migrate changes nothing, and so is in nobody's way who does.
#[tokio::test]
async fn a_database_where_nothing_is_yet_stays_so_for_who_only_looks() {
    let db = TestDb::empty().await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().display().to_string();
    let words = [
        "--no-migrate",
        "--database-url",
        &db.url,
        "--data-dir",
        &data_dir,
    ];
    fails(serve(program(), &words), &["run `tidewire migrate`"]).await;
    let mut key = Command::new(program());
    key.args([
        "key",
        "create",
        "--name",
        "ops",
        "--tenant",
        "acme",
        "--in-database",
        &db.url,
    ]);
    fails(key, &["run `tidewire migrate`"]).await;
    let created = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'";
    let client = db.connect().await;
    let created: i64 = client.query_one(created, &[]).await.unwrap().get(0);
    assert_eq!(created, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgresql_that_does_not_load_timescaledb() {
    let cluster = Cluster::start().await;
    connect(&cluster.url, "test")
        .await
        .batch_execute("CREATE DATABASE other TEMPLATE template0")
        .await
        .unwrap();
    connect(&cluster.url, "test")
        .await
        .batch_execute("ALTER SYSTEM SET shared_preload_libraries = 'plpgsql'")
        .await
        .unwrap();
    // It is started again with the new setting.
    cluster.kill().await;
    eventually(PATIENCE, async || {
        let connected = tokio_postgres::connect(&cluster.url, tokio_postgres::NoTls).await;
        connected.map(|_| ())
    })
    .await;
    let url = changed_database(&cluster.url, "other");
    let parts = [
        "set shared_preload_libraries = 'timescaledb' in postgresql.conf",
        "start PostgreSQL again",
    ];
    refuses(&url, &parts).await;
    cluster.stop().await;
}

/// The URL of a socket's folder is none that `url` takes.
fn changed_database(url: &str, name: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

#[tokio::test]
async fn a_data_directory_that_may_not_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder.path(), 0o755);
    mode(&closed, 0o555);
    // Root may write anywhere, so the program runs as somebody else, who must be able to reach it.
    let copy = folder.path().join("tidewire");
    std::fs::copy(program(), &copy).unwrap();
    let data_dir = closed.join("data").display().to_string();
    let mut command = serve(&copy, &["--data-dir", &data_dir]);
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    let parts = [
        &data_dir,
        "let this user write there",
        "--data-dir (TIDEWIRE_DATA_DIR)",
    ];
    fails(command, &parts).await;
    // With a secret of its own the database is the first to write there.
    let secret = "hush".repeat(8);
    let words = ["--data-dir", &data_dir, "--jwt-secret", &secret];
    let mut command = serve(&copy, &words);
    if is_root {
        command.uid(65_534).gid(65_534);
    }
    let parts = [&data_dir, "see to permissions", "TIDEWIRE_DATA_DIR"];
    fails(command, &parts).await;
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let data_dir = file.join("data").display().to_string();
    let parts = [&data_dir, "--data-dir (TIDEWIRE_DATA_DIR)"];
    fails(serve(program(), &["--data-dir", &data_dir]), &parts).await;
}

#[tokio::test]
async fn a_data_directory_that_another_server_uses() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let data_dir = folder.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let lock = std::fs::File::create(data_dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let data_dir = data_dir.display().to_string();
    let parts = [
        "another tidewire uses this data directory",
        &data_dir,
        "stop it, or set TIDEWIRE_DATA_DIR to another folder",
    ];
    fails(serve(program(), &["--data-dir", &data_dir]), &parts).await;
}
