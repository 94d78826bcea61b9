//! Login roles of tenants: made, listed and ended.
//!
//! # Invariants
//! - A password never leaves this process: the database gets its SCRAM-SHA-256 verifier.
//! - Who may is decided by the database: everything runs with the connection's own rights.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const CREATE: &str = "SELECT tidewire.create_tenant_role($1, $2, $3, $4, $5, $6)";
const DROP: &str = "SELECT tidewire.drop_tenant_role($1)";
const LIST: &str = "
    SELECT t.role::text, t.tenant, t.is_admin, coalesce(pg_has_role(r.oid, to_regrole('tidewire_writer'), 'MEMBER'), false),
           coalesce(r.rolcanlogin, false), coalesce(r.rolconnlimit, 0)
      FROM tidewire.tenant_roles AS t LEFT JOIN pg_roles AS r ON r.rolname = t.role
     ORDER BY t.tenant, t.role";
const ISSUES: &str =
    "SELECT i.role::text, i.issue FROM tidewire.tenant_role_issues AS i ORDER BY 1 NULLS FIRST, 2";

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The database said no: what it said, and what to do about it if it told.
    #[error("{0}")]
    Refused(String),
    /// This role may not.
    #[error(
        "{0}: making roles needs CREATEROLE, ADMIN on tidewire_analyst and tidewire_writer (whoever ran `tidewire migrate --roles` has it), and the rights of the log's owner"
    )]
    Permission(String),
    /// The schema or its roles are not there.
    #[error("{0}: run `tidewire migrate --roles` first")]
    NotMigrated(String),
    /// The connection failed.
    #[error("the database could not be asked: {0}")]
    Query(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for RoleError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return Self::Query(error);
        };
        let said = match db.hint() {
            Some(hint) => format!("{}. {hint}", db.message()),
            None => db.message().to_owned(),
        };
        match db.code() {
            code if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::Permission(said),
            code if [
                SqlState::UNDEFINED_FUNCTION,
                SqlState::UNDEFINED_TABLE,
                SqlState::UNDEFINED_COLUMN,
                SqlState::UNDEFINED_OBJECT,
                SqlState::INVALID_SCHEMA_NAME,
            ]
            .contains(code) =>
            {
                Self::NotMigrated(said)
            }
            _ => Self::Refused(said),
        }
    }
}

/// A role to make.
#[derive(Debug, Clone)]
pub struct NewRole {
    /// Its name, visible to everybody who may log in to the cluster.
    pub name: String,
    /// Whose events it sees.
    pub tenant: String,
    /// Whether it may append as well.
    pub may_write: bool,
    /// Whether it sees topics under `tidewire.`.
    pub is_admin: bool,
    /// How many connections it may have at once.
    pub connections: i32,
}

/// A role that there is.
#[derive(Debug, Clone)]
pub struct TenantRole {
    /// Its name.
    pub name: String,
    /// Whose events it sees.
    pub tenant: String,
    /// Whether it sees topics under `tidewire.`.
    pub is_admin: bool,
    /// Whether it may append.
    pub may_write: bool,
    /// Whether it can log in.
    pub may_login: bool,
    /// How many connections it may have at once; -1: any number.
    pub connections: i32,
}

/// Something by which a role could get past its tenant.
#[derive(Debug, Clone)]
pub struct Issue {
    /// Which role; all of them without.
    pub role: Option<String>,
    /// A sentence.
    pub text: String,
}

/// Makes a role that logs in with this password.
///
/// # Errors
/// If the database refuses.
pub async fn create(client: &Client, role: &NewRole, password: &str) -> Result<(), RoleError> {
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    client
        .execute(
            CREATE,
            &[
                &role.name,
                &role.tenant,
                &role.may_write,
                &role.is_admin,
                &verifier,
                &role.connections,
            ],
        )
        .await?;
    Ok(())
}

/// Ends a role. Returns whether it is gone; else it is left without tenant and login, since objects depend on it.
///
/// # Errors
/// If the database refuses.
pub async fn drop(client: &Client, name: &str) -> Result<bool, RoleError> {
    Ok(client.query_one(DROP, &[&name]).await?.try_get(0)?)
}

/// The roles of tenants, by tenant.
///
/// # Errors
/// If the database refuses.
pub async fn list(client: &Client) -> Result<Vec<TenantRole>, RoleError> {
    let mut roles = Vec::new();
    for row in client.query(LIST, &[]).await? {
        roles.push(TenantRole {
            name: row.try_get(0)?,
            tenant: row.try_get(1)?,
            is_admin: row.try_get(2)?,
            may_write: row.try_get(3)?,
            may_login: row.try_get(4)?,
            connections: row.try_get(5)?,
        });
    }
    Ok(roles)
}

/// By what roles could get past their tenants: nothing where all is well.
///
/// # Errors
/// If the database refuses.
pub async fn issues(client: &Client) -> Result<Vec<Issue>, RoleError> {
    let mut issues = Vec::new();
    for row in client.query(ISSUES, &[]).await? {
        issues.push(Issue {
            role: row.try_get(0)?,
            text: row.try_get(1)?,
        });
    }
    Ok(issues)
}
