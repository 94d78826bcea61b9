//! Dumps and restores, with TimescaleDB's own steps before and after.

use std::path::Path;

use super::TestDb;

/// Writes a dump of `db`.
pub async fn dump(db: &TestDb, file: &Path) {
    run("pg_dump", &["-Fc", "-f"], file, &db.url).await;
}

/// Restores a dump into `db`, which is empty, with more options of `pg_restore`.
pub async fn restore(file: &Path, db: &TestDb, options: &[&str]) {
    let before = "CREATE EXTENSION timescaledb; SELECT timescaledb_pre_restore()";
    db.connect().await.batch_execute(before).await.unwrap();
    let options = [&["-d", &db.url], options].concat();
    run("pg_restore", &options, file, "").await;
    let after = "SELECT timescaledb_post_restore(); SELECT _timescaledb_functions.stop_background_workers()";
    db.connect().await.batch_execute(after).await.unwrap();
}

async fn run(program: &str, options: &[&str], file: &Path, url: &str) {
    let bin = std::env::var_os("TIDEWIRE_POSTGRES_BIN").expect("run with script/with-postgres");
    let output = tokio::process::Command::new(Path::new(&bin).join(program))
        .args(options)
        .arg(file)
        .args(Some(url).filter(|url| !url.is_empty()))
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}
