//! A file that remembers where a reader stands.
//!
//! # Invariants
//! - It holds a cursor as a whole or is not there: what is written appears in one step, and stays after a power cut.
//! - It is never ahead of what was printed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::ensure;
use tokio::time::Instant;

use super::advise::Advise as _;

/// What a killed reader may see again: so long the file may lag behind what was printed.
const LAG_MAX: Duration = Duration::from_millis(200);

/// The file and what it does not hold yet.
#[derive(Debug)]
pub struct CursorFile {
    path: PathBuf,
    unsaved: Option<(String, Instant)>,
}

impl CursorFile {
    /// Opens the file at `path`, and what it holds if it is there.
    ///
    /// # Errors
    /// If it holds no cursor or cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Option<String>)> {
        let shown = path.display();
        let cursor = match fs::read_to_string(path) {
            Ok(text) => {
                let text = text.trim();
                ensure!(
                    is_cursor(text),
                    "{shown} holds no cursor. Name another file, or remove it to begin with --after."
                );
                Some(text.to_owned())
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => {
                return Err(err).or_advise(
                    format_args!("{shown} cannot be read"),
                    "Name a file in a folder of yours with --cursor-file.",
                );
            }
        };
        let file = Self {
            path: path.to_owned(),
            unsaved: None,
        };
        Ok((file, cursor))
    }

    /// Everything up to `cursor` has been printed.
    pub fn keep(&mut self, cursor: String) {
        let due = self
            .unsaved
            .take()
            .map_or_else(|| Instant::now() + LAG_MAX, |(_, due)| due);
        self.unsaved = Some((cursor, due));
    }

    /// When it must be saved at the latest.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.unsaved.as_ref().map(|(_, due)| *due)
    }

    /// Saves what was kept.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&mut self) -> anyhow::Result<()> {
        if let Some((cursor, _)) = self.unsaved.take() {
            write(&self.path, &cursor).or_advise(
                format_args!("{} cannot be written", self.path.display()),
                format_args!("Free some space, or name a file in a folder of yours with --cursor-file, and go on with --after {cursor}"),
            )?;
        }
        Ok(())
    }
}

/// Whether `text` can be a cursor; whose it is, only the server can say.
#[must_use]
pub fn is_cursor(text: &str) -> bool {
    !text.is_empty()
        && text.len() < 64
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'))
}

fn write(path: &Path, cursor: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = File::create(&temporary)?;
    writeln!(file, "{cursor}")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cursor");
        let (mut file, cursor) = CursorFile::open(&path).unwrap();
        assert_eq!(cursor, None);
        file.keep("00a".to_owned());
        file.keep("00b".to_owned());
        assert!(file.due().is_some() && !path.exists());
        file.save().unwrap();
        assert_eq!(CursorFile::open(&path).unwrap().1.as_deref(), Some("00b"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "my notes").unwrap();
        let err = CursorFile::open(&path).unwrap_err();
        assert!(err.to_string().contains("remove it to begin"), "{err}");
        assert!(CursorFile::open(folder.path()).is_err());
    }
}
