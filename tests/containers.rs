//! What `docker-compose.yml` and the `Dockerfile` ask of the program, it knows.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};
use tidewire::cli::Cli;

const COMPOSE: &str = include_str!("../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../Dockerfile");
const MANIFEST: &str = include_str!("../Cargo.toml");

/// Every variable that a command reads.
fn variables() -> BTreeSet<String> {
    let cli = Cli::command();
    let of_commands = cli.get_subcommands().flat_map(clap::Command::get_arguments);
    of_commands
        .filter_map(|arg| Some(arg.get_env()?.to_string_lossy().into_owned()))
        .collect()
}

#[test]
fn variables_are_those_that_the_program_reads() {
    let known = variables();
    // Compose puts it into the other variables; the program never sees it.
    let of_compose = "TIDEWIRE_DB_PASSWORD";
    let mut seen = BTreeSet::new();
    for text in [COMPOSE, DOCKERFILE] {
        let is_other = |c: char| !(c.is_ascii_uppercase() || c == '_');
        for word in text.split(is_other) {
            let is_ours = word.starts_with("TIDEWIRE_") || word == "DATABASE_URL";
            if is_ours && word != of_compose {
                assert!(known.contains(word), "{word} is read by no command");
                seen.insert(word);
            }
        }
    }
    let wanted = [
        "DATABASE_URL",
        "TIDEWIRE_JWT_SECRET",
        "TIDEWIRE_LISTEN",
        "TIDEWIRE_METRICS_LISTEN",
        "TIDEWIRE_TOKEN",
    ];
    assert_eq!(seen, BTreeSet::from(wanted));
}

#[test]
fn commands_are_those_that_the_program_knows() {
    let health = DOCKERFILE
        .lines()
        .find_map(|line| line.split_once("HEALTHCHECK")?.1.split_once("CMD "))
        .map(|(_, command)| serde_json::from_str::<Vec<String>>(command).unwrap())
        .unwrap();
    Cli::try_parse_from(&health).unwrap();
    Cli::try_parse_from(["tidewire", "serve"]).unwrap();
    let in_shell = COMPOSE
        .lines()
        .filter_map(|line| Some(&line[line.find("tidewire ")?..]))
        .map(|command| command.trim_end_matches(')'))
        .filter(|command| {
            command.starts_with("tidewire token") || command.starts_with("tidewire demo")
        });
    let mut count = 0;
    for command in in_shell {
        Cli::try_parse_from(command.split(' ')).unwrap_or_else(|e| panic!("{command}: {e}"));
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn the_image_is_built_with_a_toolchain_that_the_manifest_accepts() {
    let version = |text: &str| -> Vec<u32> {
        let number = text.split(|c: char| !c.is_ascii_digit()).take(2);
        number.map(|part| part.parse().unwrap()).collect()
    };
    let image = DOCKERFILE.split_once("FROM rust:").unwrap().1;
    let wanted = MANIFEST.split_once("rust-version = \"").unwrap().1;
    assert!(version(image) >= version(wanted));
}
