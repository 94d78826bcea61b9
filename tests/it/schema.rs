//! Bringing a database up: any number of times, by any number at once, with a sentence when it cannot be.

use std::process::{Output, Stdio};

use tidewire::pg::{Connector, schema};
use tidewire::tasks::Tasks;
use tokio::net::TcpListener;

use crate::support::TestDb;

/// `tidewire migrate` on this database.
async fn migrate(url: &str) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["migrate", "--database-url", url])
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap()
}

/// What it says on standard error; it must have failed, in one line that does not show the password.
async fn refusal(url: &str) -> String {
    let output = migrate(url).await;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    let secret = url::Url::parse(url).unwrap();
    assert!(!said.contains(secret.password().unwrap()), "{said}");
    said
}

/// The schema as `script/snapshot` shows it.
async fn dump(url: &str) -> String {
    let script = format!("{}/script/snapshot", env!("CARGO_MANIFEST_DIR"));
    let output = tokio::process::Command::new(script)
        .args(["--dump", url])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn applying_twice_equals_applying_once() {
    let db = TestDb::new().await;
    db.connect()
        .await
        .execute("SELECT tidewire.append('a.b', '1')", &[])
        .await
        .unwrap();
    let once = dump(&db.url).await;
    let mut client = Connector::parse(&db.url, &Tasks::new())
        .unwrap()
        .connect("test")
        .await
        .unwrap();
    for _ in 0..2 {
        schema::apply(&mut client, schema::Plan::default())
            .await
            .unwrap();
    }
    assert_eq!(dump(&db.url).await, once);
    assert_eq!(db.log().await.len(), 1);
    let epochs = client
        .query("SELECT FROM tidewire.epochs", &[])
        .await
        .unwrap();
    assert_eq!(epochs.len(), 1);
}

#[tokio::test]
async fn the_schema_is_the_one_in_the_snapshot() {
    let db = TestDb::new().await;
    let version = "SELECT current_setting('server_version_num')::int / 10000";
    let version: i32 = db
        .connect()
        .await
        .query_one(version, &[])
        .await
        .unwrap()
        .get(0);
    if version != 17 {
        eprintln!(
            "not compared: PostgreSQL {version} prints a schema otherwise than 17, which made the snapshot"
        );
        return;
    }
    let file = format!("{}/sql/schema.snapshot.sql", env!("CARGO_MANIFEST_DIR"));
    let snapshot = std::fs::read_to_string(file).unwrap();
    let dump = dump(&db.url).await;
    let difference = snapshot.lines().zip(dump.lines()).find(|(a, b)| a != b);
    assert_eq!(
        difference, None,
        "the schema has changed: run script/snapshot and look at the difference"
    );
    assert_eq!(snapshot.trim_end(), dump.trim_end());
}

#[tokio::test]
async fn four_processes_may_apply_it_at_the_same_time() {
    let db = TestDb::empty().await;
    let (a, b, c, d) = tokio::join!(
        migrate(&db.url),
        migrate(&db.url),
        migrate(&db.url),
        migrate(&db.url)
    );
    for output in [a, b, c, d] {
        assert!(output.status.success(), "{output:?}");
    }
    let client = db.connect().await;
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM tidewire.schema_migrations), (SELECT count(*) FROM tidewire.epochs),
                    (SELECT count(*) FROM tidewire.log)",
            &[],
        )
        .await
        .unwrap();
    let counts: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let migrations = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(counts, (i64::try_from(migrations).unwrap(), 1, 1));
}

#[tokio::test]
async fn a_database_without_timescaledb_is_told_what_to_install() {
    let db = TestDb::empty().await;
    // The machine has the extension's files, so a view of the catalogue that lacks them stands in.
    db.connect()
        .await
        .batch_execute(
            "CREATE SCHEMA fake;
             CREATE VIEW fake.pg_available_extensions AS
                SELECT * FROM pg_catalog.pg_available_extensions WHERE name <> 'timescaledb'",
        )
        .await
        .unwrap();
    let url = format!("{}?options=-csearch_path%3Dfake,pg_catalog", db.url);
    let said = refusal(&url).await;
    assert!(
        said.contains("this PostgreSQL has no TimescaleDB: install the timescaledb extension"),
        "{said}"
    );
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_described_in_a_sentence() {
    let db = TestDb::empty().await;
    let at = |change: &dyn Fn(&mut url::Url)| {
        let mut url = url::Url::parse(&db.url).unwrap();
        change(&mut url);
        url.to_string()
    };
    let wrong_password = at(&|url| url.set_password(Some("mistaken")).unwrap());
    let said = refusal(&wrong_password).await;
    assert!(
        said.contains("password authentication failed") && said.contains("check user and password"),
        "{said}"
    );
    let no_database = at(&|url| url.set_path("tidewire_nowhere"));
    let said = refusal(&no_database).await;
    assert!(said.contains("create it first"), "{said}");
    let free_port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let nothing_listens = at(&|url| url.set_port(Some(free_port)).unwrap());
    let said = refusal(&nothing_listens).await;
    assert!(said.contains("is it running"), "{said}");
    // The kernel takes the connection; nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let host_is_silent = at(&|url| url.set_port(Some(port)).unwrap());
    let said = refusal(&host_is_silent).await;
    assert!(said.contains("did not answer within"), "{said}");
}

#[tokio::test]
async fn a_role_that_may_not_create_the_schema_is_told_so() {
    let db = TestDb::empty().await;
    let client = db.connect().await;
    client
        .batch_execute("CREATE EXTENSION timescaledb")
        .await
        .unwrap();
    let role = db.login("pg_read_all_stats").await;
    let mut url = url::Url::parse(&db.url).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("x")).unwrap();
    client
        .batch_execute(&format!("ALTER ROLE {role} PASSWORD 'x'"))
        .await
        .unwrap();
    let output = migrate(url.as_str()).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("this role may not create the schema tidewire"),
        "{said}"
    );
}

/// Each costs every writer of the table, and answers nothing that the other does not.
#[tokio::test]
async fn no_index_is_there_twice() {
    let db = TestDb::new().await;
    let twice =
        "SELECT string_agg(i.indexname, ' = ') FROM pg_indexes AS i WHERE i.schemaname = 'tidewire'
                  GROUP BY i.tablename, substring(i.indexdef FROM ' USING .*') HAVING count(*) > 1";
    let rows = db.connect().await.query(twice, &[]).await.unwrap();
    let twice: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
