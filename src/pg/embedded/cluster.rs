//! One database cluster on disk and how it is reached: programs, user, folders, port. Creates it with
//! `initdb` where there is none.
//!
//! # Invariants
//! - A cluster appears under its name only when `initdb` has finished; a killed one leaves nothing
//!   that a later start would take for data.
//! - Data is never deleted: only an unfinished `initdb`'s folder is.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::account::{Account, command};
use super::directory::{Directory, at};
use super::error::EmbeddedError;
use super::installation::Installation;
use super::{EmbeddedConfig, log_file, orphan, settings};

/// Everything needed to run PostgreSQL on one data directory.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) installation: Installation,
    pub(super) account: Account,
    pub(super) directory: Directory,
    pub(super) socket_dir: PathBuf,
    pub(super) port: u16,
    /// False while another process holds the port: then only the socket is served.
    pub(super) listens_on_tcp: bool,
}

impl Cluster {
    /// Locks the data directory and brings everything but the running server into place.
    pub(super) async fn open(config: &EmbeddedConfig) -> Result<Self, EmbeddedError> {
        let directory = Directory::open(&config.data_dir)?;
        let data = directory.cluster();
        let explicit = config.postgres_bin.as_deref();
        let installation = Installation::find(explicit, &config.cache_dir, &data).await?;
        let account = Account::choose(&data)?;
        directory.admit(&account, &installation.bin).await?;
        let socket_dir = directory.socket_dir(&account)?;
        let mut cluster = Self {
            installation,
            account,
            directory,
            socket_dir,
            port: 0,
            listens_on_tcp: true,
        };
        if data.exists() {
            // Before the port is chosen: it may be the orphan that holds it.
            orphan::clear(&cluster).await?;
        } else {
            cluster.create().await?;
        }
        cluster.port = cluster.directory.choose_port()?;
        cluster
            .directory
            .write("postgresql.conf", 0o644, settings::CONFIG)?;
        cluster
            .directory
            .write("pg_hba.conf", 0o644, settings::HBA)?;
        Ok(cluster)
    }

    /// `initdb` into a folder of another name, then a rename.
    async fn create(&self) -> Result<(), EmbeddedError> {
        let data = self.directory.cluster();
        let unfinished = self.directory.unfinished_cluster();
        tracing::info!(directory = %data.display(), "creating the embedded database");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(at("remove", &unfinished))?;
        }
        let mut folder = fs::DirBuilder::new();
        folder
            .mode(0o700)
            .create(&unfinished)
            .map_err(at("create", &unfinished))?;
        self.account
            .give(&unfinished)
            .map_err(at("hand over", &unfinished))?;

        let program = self.installation.program("initdb");
        let mut initdb = command(&program, &self.account);
        initdb
            .args(settings::initdb_arguments(self.installation.major))
            .arg("--pgdata")
            .arg(&unfinished)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = initdb
            .output()
            .await
            .map_err(|source| EmbeddedError::Spawn { program, source })?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            return Err(EmbeddedError::Initdb {
                directory: self.directory.path().to_owned(),
                output: log_file::last_lines(&String::from_utf8_lossy(&text)),
            });
        }
        fs::rename(&unfinished, &data).map_err(at("rename", &unfinished))?;
        self.directory
            .sync()
            .map_err(at("write", self.directory.path()))
    }

    /// For the server itself: the socket, as the superuser `tidewire`, no password.
    pub(super) fn connection_url(&self) -> String {
        let (name, port) = (settings::NAME, self.port);
        let socket = percent_encode(self.socket_dir.as_os_str().as_bytes());
        format!("postgres://{name}@{socket}:{port}/{name}")
    }

    /// A command line to paste: the password stays in a file that only this user can read, out of
    /// the shell's history and the process list.
    pub(super) fn psql_hint(&self) -> String {
        let bundled = self.installation.program("psql");
        let psql = if bundled.exists() {
            bundled
        } else {
            PathBuf::from("psql")
        };
        let (passfile, psql) = (shell_word(&self.directory.passfile()), shell_word(&psql));
        let (name, port) = (settings::NAME, self.port);
        format!("PGPASSFILE={passfile} {psql} -h 127.0.0.1 -p {port} -U {name} {name}")
    }
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            text.push(char::from(*byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Quoted for a POSIX shell, if it needs to be.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/-._+".contains(c))
    {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_urls_and_shells() {
        assert_eq!(percent_encode("/a b/ä".as_bytes()), "%2Fa%20b%2F%C3%A4");
        assert_eq!(shell_word(Path::new("/usr/bin/psql")), "/usr/bin/psql");
        assert_eq!(shell_word(Path::new("/it's here")), r"'/it'\''s here'");
    }
}
