//! A server with a database of its own, as it stands after the first command.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::first_steps::{program, serve};

const PATIENCE: Duration = Duration::from_mins(1);

/// Whoever may connect to a database of Tidewire's own finds no way around its rules.
#[tokio::test]
async fn a_database_of_its_own_is_closed_to_whoever_may_connect() {
    let folder = tempfile::Builder::new()
        .prefix("tw-")
        .tempdir_in("/tmp")
        .unwrap();
    let data_dir = folder.path().display().to_string();
    let mut command = serve(program(), &["--data-dir", &data_dir]);
    let mut child = command.env_remove("DATABASE_URL").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let psql = tokio::time::timeout(PATIENCE, async {
        loop {
            let line = lines.next_line().await.unwrap().expect("it goes on");
            if let Some(at) = line.find("PGPASSFILE=") {
                break line[at..].to_owned();
            }
        }
    });
    let psql = psql.await.expect("it says how to look into the database");
    let open = "SELECT count(*) > 0, count(*) FILTER (WHERE has_function_privilege('public', p.oid, 'EXECUTE'))
                  FROM pg_proc AS p WHERE p.proname = 'drop_chunk'";
    let script = format!("{psql} -XAtc \"{open}\"");
    let output = Command::new("sh").args(["-c", &script]).output().await;
    let output = output.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "t|0",
        "{output:?}"
    );
    let pid = child.id().unwrap();
    let stop = format!("kill -TERM {pid}");
    Command::new("sh")
        .args(["-c", &stop])
        .status()
        .await
        .unwrap();
    assert!(child.wait().await.unwrap().success());
}
