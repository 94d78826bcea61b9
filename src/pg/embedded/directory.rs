//! The data directory: what lies where, who may enter, and the lock that makes this server its only
//! user.
//!
//! # Invariants
//! - The directory itself stays the server's; only `postgres/` and the socket's folder are handed to
//!   PostgreSQL's user. So that user can't put a link where the server, perhaps root, writes.
//! - The lock is held as long as [`Directory`] lives, and ends with the process however it ends.
//! - The socket's folder is closed to everybody else: whoever reaches the socket is superuser.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::{Account, command, is_root};
use super::error::EmbeddedError;

/// A socket's address holds 108 bytes, the last of them zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Longest name PostgreSQL gives its socket.
const SOCKET_NAME: &str = "/.s.PGSQL.65535";
/// Looked through first, so that the psql line is the same on most machines.
const PORTS: std::ops::RangeInclusive<u16> = 15432..=15499;

/// An opened and locked data directory.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
}

impl Directory {
    /// Creates the directory if need be and takes its lock.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedError> {
        let mode = if is_root() { 0o711 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .map_err(at("create", path))?;
        let root = fs::canonicalize(path).map_err(at("enter", path))?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(at("write", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(EmbeddedError::InUse(root)),
            Err(fs::TryLockError::Error(source)) => Err(at("lock", &lock_path)(source)),
        }
    }

    /// `PGDATA`.
    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join("postgres")
    }

    /// Where `initdb` works before its result is renamed to [`Self::cluster`].
    pub(super) fn unfinished_cluster(&self) -> PathBuf {
        self.root.join("postgres.unfinished")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// The password file `psql` reads; only the server's user can.
    pub(super) fn passfile(&self) -> PathBuf {
        self.root.join("pgpass")
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.root.join("postgresql.conf")
    }

    pub(super) fn hba_file(&self) -> PathBuf {
        self.root.join("pg_hba.conf")
    }

    /// Makes sure that PostgreSQL's user can run the programs and enter the directory.
    pub(super) async fn admit(&self, account: &Account, bin: &Path) -> Result<(), EmbeddedError> {
        let Some(user) = account.name() else {
            return Ok(());
        };
        let postgres = bin.join("postgres");
        let metadata = fs::metadata(&self.root).map_err(at("enter", &self.root))?;
        if metadata.permissions().mode() & 0o001 == 0 {
            let mode = metadata.permissions().mode() | 0o011;
            fs::set_permissions(&self.root, Permissions::from_mode(mode))
                .map_err(at("open to others", &self.root))?;
        }
        let mut probe = command(&postgres, account);
        if !probe
            .arg("--version")
            .status()
            .await
            .is_ok_and(|status| status.success())
        {
            return Err(EmbeddedError::NotExecutable {
                user: user.to_owned(),
                path: postgres,
            });
        }
        // The child changes its user first and its folder second, so this fails where it would.
        if !probe
            .current_dir(&self.root)
            .status()
            .await
            .is_ok_and(|status| status.success())
        {
            let path = self.root.clone();
            return Err(EmbeddedError::NotTraversable {
                user: user.to_owned(),
                path,
            });
        }
        Ok(())
    }

    /// Creates the private folder of the socket, under the temporary folder if this path is long.
    pub(super) fn socket_dir(&self, account: &Account) -> Result<PathBuf, EmbeddedError> {
        let mut path = self.root.join("run");
        if path.as_os_str().as_bytes().len() + SOCKET_NAME.len() > SOCKET_PATH_BYTES_MAX {
            let mut hasher = DefaultHasher::new();
            self.root.hash(&mut hasher);
            path = PathBuf::from(format!("/tmp/tidewire-{:016x}", hasher.finish()));
        }
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // Anyone can create things in /tmp: never follow a link, never use another's folder.
                let metadata = fs::symlink_metadata(&path).map_err(at("read", &path))?;
                if !metadata.is_dir() || !account.owns(metadata.uid()) {
                    return Err(EmbeddedError::ForeignSocketDirectory(path));
                }
                fs::set_permissions(&path, Permissions::from_mode(0o700))
                    .map_err(at("close", &path))?;
            }
            Err(source) => return Err(at("create", &path)(source)),
        }
        account.give(&path).map_err(at("hand over", &path))?;
        Ok(path)
    }

    /// The port of the last start if it is still free, else another, remembered from now on.
    pub(super) fn choose_port(&self) -> Result<u16, EmbeddedError> {
        let file = self.root.join("port");
        let last = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(port) = last.filter(|port| is_free(*port)) {
            return Ok(port);
        }
        let port = match PORTS
            .into_iter()
            .find(|port| Some(*port) != last && is_free(*port))
        {
            Some(port) => port,
            None => any_port().map_err(at("find a free port for", &self.root))?,
        };
        if let Some(last) = last {
            tracing::warn!(port, last, "the PostgreSQL port of the last start is taken");
        }
        self.write("port", 0o644, &format!("{port}\n"))?;
        Ok(port)
    }

    /// Replaces a file of the server's own as a whole. An unchanged one is left alone, so that a
    /// full disk does not keep an old database from starting.
    pub(super) fn write(&self, name: &str, mode: u32, text: &str) -> Result<(), EmbeddedError> {
        let path = self.root.join(name);
        if fs::read(&path).is_ok_and(|bytes| bytes == text.as_bytes()) {
            return Ok(());
        }
        let unfinished = self.root.join(format!("{name}.unfinished"));
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .write(true)
                .truncate(true)
                .mode(mode)
                .open(&unfinished)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            self.sync()
        };
        write().map_err(at("write", &path))
    }

    /// Makes renames in the directory survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    pub(super) fn path(&self) -> &Path {
        &self.root
    }
}

/// Names what was tried on which path.
pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> EmbeddedError {
    let path = path.to_owned();
    move |source| EmbeddedError::Directory {
        action,
        path: path.clone(),
        source,
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn any_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|address| address.port())
}
