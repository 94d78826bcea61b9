//! What to do when there is no connection.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use rustls::CertificateError;
use tokio_postgres::config::SslMode;

/// What to do about an error of connecting, whose cause `said` tells.
pub(super) fn advice(error: &tokio_postgres::Error, said: &str, ssl_mode: SslMode) -> &'static str {
    if let Some(fault) = tls_fault(error) {
        return tls_advice(fault);
    }
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some("28000") if ssl_mode != SslMode::Require => {
            "check user and password in DATABASE_URL, and pg_hba.conf; if it takes connections over TLS alone, write sslmode=verify-full (or require)"
        }
        Some("28P01" | "28000") => "check user and password in DATABASE_URL, and pg_hba.conf",
        Some("3D000") => "create it first (createdb), or name another one in DATABASE_URL",
        Some("42501") => "GRANT CONNECT on it, or name another role in DATABASE_URL",
        Some("53300") => {
            "end connections that nobody needs (pg_stat_activity), or raise max_connections, or the CONNECTION LIMIT of the role or the database (ALTER ROLE, ALTER DATABASE)"
        }
        Some("57P03") => "it is starting up or stopping: try again in a moment",
        Some(_) => "see the database's log",
        None if said.contains("password missing") => {
            "write it into DATABASE_URL: postgres://user:password@host:5432/database"
        }
        None if said.contains("lookup address") => "check the host's name in DATABASE_URL",
        None if said.contains("does not support TLS") => {
            "set ssl = on in its postgresql.conf; on a private network sslmode=disable goes without"
        }
        None => "is it running, and are host and port in DATABASE_URL right?",
    }
}

/// Beginnings of codes of errors whose text is about the database and quotes no value of a row: classes of PostgreSQL's (appendix A),
/// and what the log says of a call or of its clock. `tidewire.apply_retention()` has the same ones.
const WITHOUT_DATA: [&str; 12] = [
    "08", "25", "28", "3D", "42", "53", "54", "55", "57", "58", "TW400", "TW503",
];

/// An error as a log line may tell it: what the database said if that quotes no data, else where it said it, by which its
/// own log finds the rest.
#[must_use]
pub fn told(error: &tokio_postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let cause = root_cause(error);
        let said = error.to_string();
        return if said.contains(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        };
    };
    let code = db.code().code();
    let mut said = format!("SQLSTATE {code}");
    if WITHOUT_DATA.iter().any(|start| code.starts_with(start)) {
        said.push_str(": ");
        said.push_str(db.message());
    }
    let places = [
        ("constraint", db.constraint()),
        ("table", db.table()),
        ("routine", db.routine()),
    ];
    for (kind, name) in places {
        if let Some(name) = name {
            let _ = write!(said, ", {kind} {name}");
        }
    }
    said
}

/// The innermost cause.
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What TLS says, if it was TLS.
fn tls_fault(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(this) = cause {
        let wrapped = this
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        if let Some(fault) = wrapped.and_then(|inner| inner.downcast_ref()) {
            return Some(fault);
        }
        cause = this.source();
    }
    None
}

fn tls_advice(fault: &rustls::Error) -> &'static str {
    match fault {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer => {
                "its certificate is not issued by who sslrootcert in DATABASE_URL names: name the authority of the database, unless somebody else answers there"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: renew it at the database"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: is this machine's clock right?"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name: connect by a name that it holds as a subject alternative name, or sslmode=verify-ca"
            }
            _ => "its certificate cannot be verified: look at it with openssl x509 -text",
        },
        rustls::Error::AlertReceived(_) => {
            "it has refused TLS: see sslcert and sslkey in DATABASE_URL, and the database's log"
        }
        _ => "TLS does not come about: is this a PostgreSQL that speaks TLS 1.2 or 1.3?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::definitions::DEFINITIONS;

    #[test]
    fn the_database_says_as_much_in_its_own_log() {
        let pattern = format!("SQLSTATE ~ '^({})'", WITHOUT_DATA.join("|"));
        let mut texts = DEFINITIONS.iter();
        let applies = texts.find(|(file, _)| *file == "functions/apply_retention.sql");
        assert!(applies.unwrap().1.contains(&pattern), "{pattern}");
    }
}
