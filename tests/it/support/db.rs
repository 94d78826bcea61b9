//! A database of its own for each test, copied from a template that is made once.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tidewire::pg::{Connector, definitions, schema};
use tidewire::tasks::Tasks;
use tokio_postgres::{Client, NoTls};

use super::wait::eventually;

/// Under this lock one process at a time makes the template.
const TEMPLATE_LOCK: i64 = 7_469_646_500_002;

/// A migrated database that is dropped with this value.
pub struct TestDb {
    /// For `DATABASE_URL`.
    pub url: String,
    name: String,
}

impl TestDb {
    /// Copies the template.
    pub async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tidewire_test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let admin = admin().await;
        let template = template(&admin).await;
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap();
        let db = Self {
            url: url_of(&name),
            name,
        };
        // A copy would begin a second life: this one is to be in its first.
        let adopt = "UPDATE tidewire.epochs SET database_oid =
            (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())";
        db.connect().await.batch_execute(adopt).await.unwrap();
        db
    }

    /// A database without the schema, or any extension.
    pub async fn empty() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tidewire_empty_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let admin = admin().await;
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        Self {
            url: url_of(&name),
            name,
        }
    }

    /// Drops it and creates it anew, without the schema, or any extension.
    pub async fn empty_again(&self) {
        let (admin, name) = (admin().await, &self.name);
        for statement in [
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE template0"),
        ] {
            admin.batch_execute(&statement).await.unwrap();
        }
    }

    /// A copy as it is, which nobody may be connected to. Our own sessions end soon after their clients; TimescaleDB's, which its
    /// launcher starts once a minute in each database that has the extension, is kept away.
    pub async fn copy_of(db: &Self) -> Self {
        let copy = Self::empty().await;
        let (admin, name, from) = (admin().await, &copy.name, &db.name);
        db.connect()
            .await
            .batch_execute("SELECT _timescaledb_functions.stop_background_workers()")
            .await
            .unwrap();
        // Nor does TimescaleDB's launcher begin another in between.
        let allow = |is_open| format!("ALTER DATABASE {from} ALLOW_CONNECTIONS {is_open}");
        admin.batch_execute(&allow(false)).await.unwrap();
        let sessions = "SELECT format('%s %s: %s', backend_type, application_name, query) FROM pg_stat_activity
                         WHERE datname = $1";
        eventually(Duration::from_secs(10), || async {
            let rows = admin.query(sessions, &[from]).await.unwrap();
            let left: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            left.is_empty().then_some(()).ok_or(left)
        })
        .await;
        for statement in [
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE {from} STRATEGY file_copy"),
            allow(true),
        ] {
            admin.batch_execute(&statement).await.unwrap();
        }
        copy
    }

    /// A connection of the superuser.
    pub async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// A connection as another role (see `login`).
    pub async fn connect_as(&self, role: &str, password: &str) -> Client {
        let mut url = url::Url::parse(&self.url).unwrap();
        url.set_username(role).unwrap();
        url.set_password(Some(password)).unwrap();
        connect(url.as_str()).await
    }

    /// Creates a login role in `group`, unique to this database; returns its name. The password is its name.
    pub async fn login(&self, group: &str) -> String {
        let role = format!("{}_{group}", self.name);
        let admin = self.connect().await;
        admin
            .batch_execute(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD '{role}' IN ROLE {group}"))
            .await
            .unwrap();
        role
    }

    /// The whole log, `(seq, id)` in order: the oracle.
    pub async fn log(&self) -> Vec<(i64, String)> {
        let rows = self
            .connect()
            .await
            .query("SELECT seq, id FROM tidewire.events ORDER BY seq", &[])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let name = self.name.clone();
        // In a thread of its own: a test's runtime cannot be entered twice.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let admin = admin().await;
                let _ = admin
                    .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                    .await;
                let query = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)";
                for row in admin
                    .query(query, &[&format!("{name}_")])
                    .await
                    .unwrap_or_default()
                {
                    let _ = admin
                        .batch_execute(&format!("DROP ROLE IF EXISTS {}", row.get::<_, &str>(0)))
                        .await;
                }
            });
        });
        let _ = dropped.join();
    }
}

/// A connection of the superuser to the server's own database.
pub async fn admin() -> Client {
    connect(&admin_url()).await
}

fn admin_url() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are told by the environment where PostgreSQL is"
    )]
    std::env::var("TEST_DATABASE_URL")
        .expect("run the tests with script/test, or set TEST_DATABASE_URL")
}

fn url_of(database: &str) -> String {
    let mut url = url::Url::parse(&admin_url()).unwrap();
    url.set_path(database);
    url.to_string()
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with its client")]
    tokio::spawn(connection);
    client
}

/// The template's name says what is in it: another schema is another template.
async fn template(admin: &Client) -> String {
    let mut hasher = DefaultHasher::new();
    definitions::DEFINITIONS.hash(&mut hasher);
    definitions::ROLES.hash(&mut hasher);
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap() {
        std::fs::read(entry.unwrap().path())
            .unwrap()
            .hash(&mut hasher);
    }
    let name = format!("tidewire_template_{:016x}", hasher.finish());
    admin
        .execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK])
        .await
        .unwrap();
    let ready = admin
        .query_opt(
            "SELECT FROM pg_database WHERE datname = $1 AND NOT datallowconn",
            &[&name],
        )
        .await
        .unwrap()
        .is_some();
    if !ready {
        admin
            .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await
            .unwrap();
        admin
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .await
            .unwrap();
        let tasks = Tasks::new();
        let mut client = Connector::parse(&url_of(&name), &tasks)
            .unwrap()
            .connect("template")
            .await
            .unwrap();
        schema::create_roles(&client).await.unwrap();
        schema::apply(&mut client, schema::Plan::default())
            .await
            .unwrap();
        // TimescaleDB's scheduler holds a connection to every database that has the extension.
        client
            .batch_execute("SELECT _timescaledb_functions.stop_background_workers()")
            .await
            .unwrap();
        drop(client);
        admin
            .batch_execute(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            .await
            .unwrap();
    }
    admin
        .execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK])
        .await
        .unwrap();
    name
}
