//! The operating-system user PostgreSQL runs as. It refuses root, so a server started as root hands
//! its database to an unprivileged user.
//!
//! # Invariants
//! - A child started through [`command`] has that user's ids, no supplementary groups, and none of
//!   the server's environment (no secret, no `PG…` variable reaches it).
//! - Nobody else's files are taken over: only what this module is given is chowned.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::error::EmbeddedError;

const ROOT: u32 = 0;

/// Whom PostgreSQL runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// The server's own user, who is not root.
    Own,
    /// An unprivileged user, since the server runs as root.
    Other { name: String, uid: u32, gid: u32 },
}

impl Account {
    /// Chooses whoever owns the existing cluster, else `postgres`, else `nobody`.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        if !is_root() {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        if let Ok(metadata) = fs::metadata(cluster)
            && metadata.uid() != ROOT
        {
            let (uid, gid) = (metadata.uid(), metadata.gid());
            return Ok(Self::Other {
                name: name_of(&passwd, uid),
                uid,
                gid,
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| find(&passwd, name))
            .ok_or(EmbeddedError::NoUnprivilegedUser)
    }

    /// The name for messages, if it is not the server's own user.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Own => None,
            Self::Other { name, .. } => Some(name),
        }
    }

    /// Gives a file or folder of ours to this user.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid, .. } => chown(path, Some(*uid), Some(*gid)),
        }
    }

    /// Whether a file with this owner is this user's (or, before the drop, still root's).
    pub(super) fn owns(&self, uid: u32) -> bool {
        match self {
            Self::Own => own_uid().is_none_or(|own| own == uid),
            Self::Other { uid: theirs, .. } => *theirs == uid || uid == ROOT,
        }
    }
}

/// A command that runs as `account`, in `/`, silent and with a clean environment.
pub(super) fn command(program: &Path, account: &Account) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Account::Other { uid, gid, .. } = account {
        // The standard library drops the supplementary groups when root sets a user id.
        command.uid(*uid).gid(*gid);
    }
    command
}

pub(super) fn is_root() -> bool {
    own_uid() == Some(ROOT)
}

/// Linux only; elsewhere nobody is taken for root and PostgreSQL itself refuses.
fn own_uid() -> Option<u32> {
    fs::metadata("/proc/self")
        .ok()
        .map(|metadata| metadata.uid())
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        (uid != ROOT).then(|| Account::Other {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

fn name_of(passwd: &str, uid: u32) -> String {
    let wanted = uid.to_string();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == wanted).then(|| name.to_owned())
        })
        .unwrap_or(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
                          postgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/sh\n\
                          broken\n";

    #[test]
    fn finds_ids_by_name_and_names_by_id() {
        let found = Account::Other {
            name: "postgres".to_owned(),
            uid: 101,
            gid: 104,
        };
        assert_eq!(find(PASSWD, "postgres"), Some(found));
        assert_eq!(find(PASSWD, "nobody"), None);
        assert_eq!(name_of(PASSWD, 101), "postgres");
        assert_eq!(name_of(PASSWD, 4242), "4242");
    }

    #[test]
    fn never_drops_to_root() {
        assert_eq!(find(PASSWD, "root"), None);
    }
}
