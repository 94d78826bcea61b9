//! A small disk that can be filled: a tmpfs of the test's own, unmounted with this value. Mounting needs root, and a machine
//! that allows it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// See the module.
pub struct Tmpfs {
    folder: TempDir,
}

impl Tmpfs {
    /// Mounts one of so many megabytes.
    ///
    /// # Errors
    /// Why it cannot be, as `mount` says it.
    pub fn mount(megabytes: usize) -> Result<Self, String> {
        sweep();
        let name = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&name).tempdir_in("/tmp");
        let folder = folder.map_err(|error| error.to_string())?;
        let size = format!("size={megabytes}m,mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let said = mount
            .arg(folder.path())
            .output()
            .map_err(|error| error.to_string())?;
        if said.status.success() {
            Ok(Self { folder })
        } else {
            Err(String::from_utf8_lossy(&said.stderr).trim().to_owned())
        }
    }

    /// Whether this process has the right that mounting takes (`CAP_SYS_ADMIN`): root of a machine, not of a container.
    pub fn may_mount() -> bool {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        rights
            .and_then(|rights| u64::from_str_radix(rights.trim(), 16).ok())
            .is_some_and(|rights| rights & CAP_SYS_ADMIN != 0)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all that is free, to the last block.
    pub fn fill(&self) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 4096] {
            let zeros = vec![0; size];
            let full = loop {
                if let Err(error) = file.write_all(&zeros) {
                    break error;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    /// Gives back what was filled.
    pub fn free(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

const PREFIX: &str = "tidewire-disk-";

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// Whoever still has a file open keeps it until then.
fn unmount(path: &Path) {
    let _ = Command::new("umount").arg("-l").arg(path).status();
}

/// What killed tests have left.
fn sweep() {
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            unmount(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
