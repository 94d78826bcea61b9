//! The embedded PostgreSQL where something is in its way: ports, paths, users, versions, settings.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tidewire::pg::embedded::{Embedded, EmbeddedError};

use super::{config, connect, folder, start};

#[tokio::test]
async fn a_taken_port_is_exchanged_for_another_one() {
    let folder = folder();
    start(folder.path()).await.stop().await;
    let port_file = folder.path().join("port");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    fs::write(&port_file, port.to_string()).unwrap();
    let embedded = start(folder.path()).await;
    assert_ne!(
        fs::read_to_string(&port_file).unwrap().trim(),
        port.to_string()
    );
    assert!(connect(&embedded.connection_url()).await.is_ok());
    embedded.stop().await;
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_no_obstacle() {
    let folder = folder();
    let data_dir = folder.path().join("x".repeat(120));
    let embedded = start(&data_dir).await;
    let url = embedded.connection_url();
    assert!(url.contains("%2Ftmp%2Ftidewire-"), "{url}");
    assert!(connect(&url).await.is_ok());
    embedded.stop().await;
    let socket_dir = url.split(['@', ':']).nth(2).unwrap().replace("%2F", "/");
    assert_eq!(
        fs::metadata(&socket_dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    fs::remove_dir(socket_dir).unwrap();
}

#[tokio::test]
async fn a_directory_closed_to_postgres_is_named_with_a_way_out() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return; // only root hands its database to another user
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let data_dir = folder.path().join("inner/data");
    let error = Embedded::start(config(&data_dir)).await.unwrap_err();
    assert!(
        matches!(error, EmbeddedError::NotTraversable { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("TIDEWIRE_DATA_DIR"));
}

#[tokio::test]
async fn a_machine_without_postgres_is_told_to_run_setup() {
    let folder = folder();
    let mut config = config(&folder.path().join("data"));
    config.postgres_bin = Some(folder.path().join("no-such-bin"));
    let error = Embedded::start(config).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::NoPostgres { .. }));
    let text = error.to_string();
    assert!(
        text.contains("run script/setup") && text.contains("no-such-bin"),
        "{text}"
    );
}

#[tokio::test]
async fn data_of_another_major_version_is_left_alone() {
    let folder = folder();
    start(folder.path()).await.stop().await;
    let version = folder.path().join("postgres/PG_VERSION");
    fs::write(&version, "14\n").unwrap();
    let error = Embedded::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::OtherMajor { .. }));
    assert!(
        error.to_string().contains("was made by PostgreSQL 14"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failing_start_shows_the_end_of_the_log() {
    let folder = folder();
    start(folder.path()).await.stop().await;
    let settings = folder.path().join("postgres/postgresql.auto.conf");
    fs::write(&settings, "max_connections = nonsense\n").unwrap();
    let error = Embedded::start(config(folder.path())).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Start { .. }));
    let text = error.to_string();
    assert!(
        text.contains("max_connections") && text.contains("exit status: 1"),
        "{text}"
    );
}
