//! Deals with what an earlier server left behind when it was killed: its postmaster, the postmaster's
//! children, or a `postmaster.pid` whose number now belongs to some other process.
//!
//! # Invariants
//! - Called with the data directory's lock held, so that no other server's postmaster can be meant.
//! - Only a process that is a PostgreSQL of this data directory is ever signalled, and by `pg_ctl`.
//! - `postmaster.pid` guards shared memory that children of a dead postmaster may still use: it is
//!   removed only when no such child can exist. In doubt it stays, and PostgreSQL decides.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::pause;
use super::cluster::Cluster;
use super::directory::at;
use super::error::EmbeddedError;
use super::postmaster::pg_ctl_stop;

const FAST_STOP: Duration = Duration::from_secs(30);
const IMMEDIATE_STOP: Duration = Duration::from_secs(10);
/// How long the children of a dead postmaster may take to notice.
const CHILDREN_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a process relates to this data directory.
#[derive(Debug, PartialEq, Eq)]
enum Relation {
    /// A PostgreSQL process of this data directory.
    Ours,
    /// A PostgreSQL process; of which directory, we may not know.
    Unknown,
    /// Gone, a zombie, or something else.
    Foreign,
}

/// Leaves the data directory free for a new postmaster.
pub(super) async fn clear(cluster: &Cluster) -> Result<(), EmbeddedError> {
    let data = cluster.directory.cluster();
    let pid_file = data.join("postmaster.pid");
    let Some(pid) = first_number(&pid_file) else {
        return Ok(());
    };
    let proc = Path::new("/proc");
    if !proc.join("self").exists() {
        return Ok(()); // not Linux: PostgreSQL's own check has to do
    }
    if relation(proc, pid, &data) == Relation::Ours {
        stop(cluster, proc, pid).await?;
    }
    let deadline = Instant::now() + CHILDREN_MAX;
    while let Some(pid) = find(proc, &data, &Relation::Ours) {
        if Instant::now() > deadline {
            return Err(EmbeddedError::Orphan { pid });
        }
        pause(LOOK_AGAIN).await;
    }
    // The number was given to another process meanwhile (after a restart of the machine or the
    // container), or its zombie is still listed: PostgreSQL would refuse to start for ever.
    let is_taken = proc.join(pid.to_string()).exists();
    if is_taken && find(proc, &data, &Relation::Unknown).is_none() {
        tracing::warn!(
            pid,
            "removing postmaster.pid, whose process is no PostgreSQL of ours"
        );
        match fs::remove_file(&pid_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(at("remove", &pid_file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Stops an orphaned postmaster. It can't be adopted: only a parent learns of its child's end.
async fn stop(cluster: &Cluster, proc: &Path, pid: u32) -> Result<(), EmbeddedError> {
    let data = cluster.directory.cluster();
    tracing::warn!(
        pid,
        "stopping the PostgreSQL that an earlier tidewire left running"
    );
    for (mode, patience) in [("fast", FAST_STOP), ("immediate", IMMEDIATE_STOP)] {
        pg_ctl_stop(cluster, mode).await?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if relation(proc, pid, &data) != Relation::Ours {
                return Ok(());
            }
            pause(LOOK_AGAIN).await;
        }
    }
    Err(EmbeddedError::Orphan { pid })
}

/// The first process of that relation.
fn find(proc: &Path, data: &Path, wanted: &Relation) -> Option<u32> {
    let entries = fs::read_dir(proc).ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|pid| relation(proc, *pid, data) == *wanted)
}

fn relation(proc: &Path, pid: u32, data: &Path) -> Relation {
    let folder = proc.join(pid.to_string());
    let is_postgres = fs::read_to_string(folder.join("stat")).is_ok_and(|stat| {
        // "12 (postgres) S …"; a zombie has ended, whatever its name.
        stat.split_once(" (")
            .and_then(|(_, rest)| rest.rsplit_once(") "))
            .is_some_and(|(name, rest)| name == "postgres" && !rest.starts_with(['Z', 'X']))
    });
    if !is_postgres {
        return Relation::Foreign;
    }
    // A cluster is run by its owner and nobody else.
    let owner = |path: &Path| fs::metadata(path).map(|metadata| metadata.uid()).ok();
    if owner(&folder) != owner(data) {
        return Relation::Foreign;
    }
    // Every PostgreSQL process works in its data directory, but not everybody may ask (root in a
    // container without the right to trace). The command line is public; only a postmaster's names
    // the directory.
    let is_named = fs::read(folder.join("cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| Path::new(&*String::from_utf8_lossy(word)) == data)
    });
    match fs::read_link(folder.join("cwd")) {
        _ if is_named => Relation::Ours,
        Ok(cwd) if Some(&cwd) == fs::canonicalize(data).ok().as_ref() => Relation::Ours,
        Ok(_) => Relation::Foreign,
        Err(error) if error.kind() == ErrorKind::NotFound => Relation::Foreign,
        Err(_) => Relation::Unknown,
    }
}

fn first_number(pid_file: &Path) -> Option<u32> {
    fs::read_to_string(pid_file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::Relation::{Foreign, Ours, Unknown};
    use super::*;

    fn process(proc: &Path, pid: u32, stat: &str, cmdline: &str, cwd: &Path) {
        let folder = proc.join(pid.to_string());
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("stat"), stat).unwrap();
        fs::write(folder.join("cmdline"), cmdline).unwrap();
        symlink(cwd, folder.join("cwd")).unwrap();
    }

    #[test]
    fn tells_our_processes_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let (proc, data) = (folder.path(), folder.path().join("data"));
        fs::create_dir(&data).unwrap();
        let data = fs::canonicalize(data).unwrap();
        let named = format!("/bin/postgres\0-D\0{}\0", data.display());
        process(proc, 1, "1 (postgres) S 0", &named, Path::new("/"));
        process(
            proc,
            2,
            "2 (postgres) S 1",
            "postgres: checkpointer\0",
            &data,
        );
        process(
            proc,
            3,
            "3 (postgres) S 1",
            "postgres: other\0",
            Path::new("/"),
        );
        process(proc, 4, "4 (bash) S 1", "bash\0", &data);
        process(proc, 5, "5 (postgres) Z 1", "", &data);
        let relations = [1, 2, 3, 4, 5, 6].map(|pid| relation(proc, pid, &data));
        assert_eq!(relations, [Ours, Ours, Foreign, Foreign, Foreign, Foreign]);
        assert!(find(proc, &data, &Ours).is_some());
        assert_eq!(find(proc, &data, &Unknown), None);
    }
}
