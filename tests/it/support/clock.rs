//! A clock that can be set while programs run that look at it: libfaketime, told by a file. Time that only passes
//! (`CLOCK_MONOTONIC`) is left alone, as on a machine whose clock is set.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::skip::skip;

/// Where Debian's package puts it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// See the module.
pub struct FakeClock {
    folder: TempDir,
    library: String,
}

impl FakeClock {
    /// One that shows the right time. `None`, said plainly, where there is no libfaketime.
    pub fn right() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "a setting of the tests")]
        let library = std::env::var("TIDEWIRE_FAKETIME").unwrap_or(LIBRARY.to_owned());
        if !Path::new(&library).exists() {
            skip(
                "a clock cannot be set without libfaketime (TIDEWIRE_FAKETIME=$(script/faketime))",
                &format!("{library} is missing"),
                true,
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // PostgreSQL's user reads the file, and runs what is below.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let clock = Self { folder, library };
        clock.set(0);
        Some(clock)
    }

    /// From now on it shows so many seconds more than the right time.
    pub fn set(&self, seconds: i64) {
        let new = self.folder.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("clock")
    }

    /// The environment of a program that looks at it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    /// PostgreSQL's programs, as they stand in `bin`, with this clock for the server.
    pub fn postgres(&self, bin: &Path) -> PathBuf {
        let bin = fs::canonicalize(bin).unwrap();
        // Beside the programs their other files are looked for, at the same distance.
        let root = self.folder.path().join("root");
        let installed = bin
            .ancestors()
            .find(|folder| folder.join("share").exists())
            .unwrap();
        let own = root.join(bin.strip_prefix(installed).unwrap());
        fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(installed.join("share"), root.join("share")).unwrap();
        for program in fs::read_dir(&bin).unwrap().flatten() {
            let (path, name) = (program.path(), program.file_name());
            if name == "postgres" {
                let set = self.environment().into_iter();
                let set: Vec<String> = set
                    .map(|(name, value)| format!("{name}='{value}'"))
                    .collect();
                let (set, path) = (set.join(" "), path.display());
                let script = format!("#!/bin/sh\nexec env {set} '{path}' \"$@\"\n");
                fs::write(own.join(&name), script).unwrap();
                fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o755)).unwrap();
            } else {
                std::os::unix::fs::symlink(path, own.join(name)).unwrap();
            }
        }
        own
    }
}
