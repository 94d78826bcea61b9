//! A log of three days with two tenants, and roles that log in.

use tidewire::pg::definitions;
use tokio_postgres::Client;

use super::session::Session;
use crate::support::TestDb;

/// Everything the other tenant has holds the word; the two share topics and ids in form only.
const FILL: &str = "
    SELECT set_config('tidewire.preparing', 'open', false);
    INSERT INTO tidewire.events (recorded_at, tenant, id, topic, subject, source, region, gdpr, data)
    SELECT now() - interval '2 days' + n * interval '1 minute', t.tenant, t.word || '-id-' || n, t.word || '.stage.' || n % 5,
           t.word || '-deal-' || n % 50, t.word || '-source', t.word || '-region', jsonb_build_object('basis', t.word),
           jsonb_build_object(t.word, n)
      FROM generate_series(1, 2880) AS n, (VALUES ('mine', 'mine'), ('tenant-s3ntinel', 's3ntinel')) AS t(tenant, word);
    INSERT INTO tidewire.events (tenant, id, topic, bytes, content_type)
    VALUES ('tenant-s3ntinel', 's3ntinel-bytes', 's3ntinel.bytes', 's3ntinel', 's3ntinel/type'),
           ('mine', 'mine-bytes', 'mine.bytes', 'mine', 'mine/type');
    SELECT set_config('tidewire.preparing', '', false);
    SELECT tidewire.append('tidewire.audit.read', '\"s3ntinel\"', id => 's3ntinel-audit', tenant => 'mine');
    SELECT tidewire.append('s3ntinel.new', '\"s3ntinel\"', subject => 's3ntinel-new', id => 'shared', tenant => 'tenant-s3ntinel');
    SELECT tidewire.prepare_chunks();
    VACUUM ANALYZE tidewire.events";

/// Two tenants in one log.
pub struct Tenants {
    /// The database.
    pub db: TestDb,
    /// The superuser.
    pub owner: Client,
}

impl Tenants {
    /// The log and no roles.
    pub async fn new() -> Self {
        let db = TestDb::new().await;
        let owner = db.connect().await;
        for statement in FILL.split(';') {
            owner.batch_execute(statement).await.unwrap();
        }
        owner
            .batch_execute(definitions::TIMESCALE_CLOSED)
            .await
            .unwrap();
        owner
            .batch_execute(definitions::LOCKS_CLOSED)
            .await
            .unwrap();
        Self { db, owner }
    }

    /// A role's name, unique to this database.
    pub fn name(&self, role: &str) -> String {
        let url = url::Url::parse(&self.db.url).unwrap();
        format!("{}_{role}", url.path().trim_start_matches('/'))
    }

    /// Creates a role as an operator does; its password is its name.
    pub async fn role(&self, role: &str, tenant: &str, may_write: bool, is_admin: bool) -> String {
        let name = self.name(role);
        self.owner
            .batch_execute(&format!(
                "SELECT tidewire.create_tenant_role('{name}', '{tenant}', {may_write}, {is_admin});
                 ALTER ROLE {name} PASSWORD '{name}'"
            ))
            .await
            .unwrap();
        name
    }

    /// A login of the tenant `mine`.
    pub async fn login(&self, role: &str, may_write: bool) -> Session {
        let name = self.role(role, "mine", may_write, false).await;
        Session::open(&self.db.url, &name).await
    }

    /// What the log is, in a line: it must be the same after whatever was tried.
    pub async fn digest(&self) -> String {
        let query = "SELECT md5(string_agg(e::text, ',' ORDER BY e.seq)) || count(*) FROM tidewire.events AS e";
        self.owner.query_one(query, &[]).await.unwrap().get(0)
    }
}

/// A list of attempts, `(SQLSTATE or ok, statements)`: none may show the word, each ends as it says.
pub async fn try_all(session: &Session, attempts: &[(&str, &str)]) {
    let mut wrong = Vec::new();
    for (expected, statements) in attempts {
        let outcome = session.attempt(statements).await;
        if outcome.leaks() {
            wrong.push(format!("LEAK {statements}: {:.600}", outcome.said));
        } else if outcome.state != *expected {
            wrong.push(format!(
                "{} instead of {expected}: {statements}: {:.300}",
                outcome.state, outcome.said
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
