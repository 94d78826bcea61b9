//! Finds the PostgreSQL programs: an explicit folder, what `script/setup` fetched, or what the
//! machine has. A folder counts only with TimescaleDB beside it.
//!
//! # Invariants
//! - Looks and asks for versions; changes nothing and fetches nothing.
//! - Data of one major version is only ever given to programs of that version.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::account::{Account, command};
use super::error::EmbeddedError;

/// Newest first.
const MAJORS: [u32; 4] = [18, 17, 16, 15];
const TIMESCALE_MIN: (u32, u32) = (2, 18);

/// A PostgreSQL with TimescaleDB on this machine.
#[derive(Debug, Clone)]
pub(super) struct Installation {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

impl Installation {
    /// Finds one that can read the cluster made by `data_major`, if there already is one.
    pub(super) async fn find(
        explicit: Option<&Path>,
        cache: &Path,
        cluster: &Path,
    ) -> Result<Self, EmbeddedError> {
        let mut found = Vec::new();
        let mut looked_at = String::new();
        for bin in candidates(explicit, cache) {
            match inspect(&bin).await {
                Ok(installation) => found.push(installation),
                Err(lack) => {
                    let comma = if looked_at.is_empty() { "" } else { ", " };
                    // Writing to a String cannot fail.
                    let _ = write!(looked_at, "{comma}{}: {lack}", bin.display());
                }
            }
        }
        let made_by = fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let majors = found
            .iter()
            .map(|one| one.major.to_string())
            .collect::<Vec<_>>();
        let fitting = found.into_iter().find(|one| {
            made_by
                .as_ref()
                .is_none_or(|version| version.trim() == one.major.to_string())
        });
        match (fitting, made_by) {
            (Some(installation), _) => Ok(installation),
            (None, Some(made_by)) if !majors.is_empty() => Err(EmbeddedError::OtherMajor {
                directory: cluster.to_owned(),
                made_by: made_by.trim().to_owned(),
                found: majors.join(", "),
            }),
            (None, _) => Err(EmbeddedError::NoPostgres { looked_at }),
        }
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// An explicit folder is a decision: nothing else is looked at then.
fn candidates(explicit: Option<&Path>, cache: &Path) -> Vec<PathBuf> {
    if let Some(bin) = explicit {
        return vec![bin.to_owned()];
    }
    let system = MAJORS.map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    std::iter::once(cache.join("postgresql-17/bin"))
        .chain(system)
        .collect()
}

/// The installation in `bin`, or what it lacks.
async fn inspect(bin: &Path) -> Result<Installation, &'static str> {
    let Some(version) = ask(&bin.join("postgres"), "--version").await else {
        return Err("no PostgreSQL that runs");
    };
    let major = parse_major(&version).ok_or("an unknown version")?;
    if !MAJORS.contains(&major) {
        return Err("a version outside 15 to 18");
    }
    if !bin.join("initdb").exists() || !bin.join("pg_ctl").exists() {
        return Err("no initdb or pg_ctl");
    }
    let control = timescale_control(bin, major)
        .await
        .ok_or("no TimescaleDB")?;
    match parse_timescale(&control) {
        Some(version) if version >= TIMESCALE_MIN => Ok(Installation {
            bin: bin.to_owned(),
            major,
        }),
        _ => Err("a TimescaleDB older than 2.18"),
    }
}

/// The text of `timescaledb.control`, wherever this layout keeps it.
async fn timescale_control(bin: &Path, major: u32) -> Option<String> {
    let real = fs::canonicalize(bin).ok()?;
    let mut shares = vec![
        real.join("../share"),
        real.join("../share/postgresql"),
        real.join(format!("../../../../share/postgresql/{major}")),
    ];
    if let Some(share) = ask(&bin.join("pg_config"), "--sharedir").await {
        shares.push(PathBuf::from(share.trim()));
    }
    shares
        .into_iter()
        .find_map(|share| fs::read_to_string(share.join("extension/timescaledb.control")).ok())
}

async fn ask(program: &Path, question: &str) -> Option<String> {
    let mut command = command(program, &Account::Own);
    let output = command
        .arg(question)
        .stdout(std::process::Stdio::piped())
        .output()
        .await
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `postgres (PostgreSQL) 17.11 (Debian …)` and `… 18beta1`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_once(") ")?.1;
    let digits = number
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(number.len());
    number.get(..digits)?.parse().ok()
}

/// Major and minor of the line `default_version = '2.19.3'`.
fn parse_timescale(control: &str) -> Option<(u32, u32)> {
    let line = control
        .lines()
        .find(|line| line.trim_start().starts_with("default_version"))?;
    let mut parts = line.split('\'').nth(1)?.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_of_releases_and_betas() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 17.12 (Debian 17.12-0+deb13u1)\n"),
            Some(17)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("something else"), None);
    }

    #[test]
    fn reads_the_default_version_of_the_extension() {
        let control = "# comment\ncomment = 'x'\ndefault_version = '2.19.3'\n";
        assert_eq!(parse_timescale(control), Some((2, 19)));
        assert_eq!(
            parse_timescale("default_version = '2.21.0-dev'"),
            Some((2, 21))
        );
        assert_eq!(parse_timescale("relocatable = false"), None);
    }

    #[test]
    fn an_explicit_folder_is_the_only_candidate() {
        let explicit = Path::new("/opt/pg/bin");
        assert_eq!(candidates(Some(explicit), Path::new("/cache")), [explicit]);
        let first = candidates(None, Path::new("/cache")).into_iter().next();
        assert_eq!(first, Some(PathBuf::from("/cache/postgresql-17/bin")));
    }
}
