//! The figures of docs/BENCHMARKS.md: each a ratio whose two sides are measured in the same run.
//!
//! `script/bench [figure…]`; without names all of them. Prints one table. `soak` and `overload` are runs of their own with
//! verdicts, which the exit code says.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::missing_docs_in_private_items,
    reason = "a measurement that fails should stop, and its numbers are rounded anyway"
)]

mod append;
mod history;
mod latency;
mod live;
mod machine;
mod noisy;
mod overload;
mod readers;
mod server;
mod soak;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

/// One line of the table.
struct Figure {
    what: &'static str,
    ours: String,
    against: String,
    ratio: f64,
    reach: &'static str,
}

impl Figure {
    fn print(&self) {
        println!(
            "| {} | {} | {} | {:.2} | {} |",
            self.what, self.ours, self.against, self.ratio, self.reach
        );
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // `cargo bench` adds flags of its own.
    let mut wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let mut have_passed = true;
    let mut runs = |name: &str| {
        let at = wanted
            .iter()
            .position(|one| one.split('=').next() == Some(name))?;
        Some(wanted.remove(at))
    };
    let (overload, soak) = (runs("overload"), runs("soak"));
    if overload.is_some() {
        have_passed &= overload::run().await;
    }
    if let Some(soak) = &soak {
        let seconds = soak
            .split('=')
            .nth(1)
            .map_or(600, |text| text.parse().unwrap());
        have_passed &= soak::run(Duration::from_secs(seconds)).await;
    }
    if wanted.is_empty() && (overload.is_some() || soak.is_some()) {
        return if have_passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    figures(&wanted).await;
    if have_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn figures(wanted: &[String]) {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    println!("| what | ours | against | ratio | reach |\n|---|---|---|---|---|");
    if is_wanted("posts") {
        append::posts().await.print();
    }
    if is_wanted("ndjson") {
        append::ndjson().await.print();
    }
    if is_wanted("latency") {
        for figure in latency::run().await {
            figure.print();
        }
    }
    if is_wanted("fanout") {
        live::fanout().await.print();
    }
    if is_wanted("memory") {
        live::memory().await.print();
    }
    if is_wanted("storm") {
        live::storm().await.print();
    }
    if is_wanted("noisy") {
        for figure in noisy::run().await {
            figure.print();
        }
    }
    if is_wanted("history") {
        history::run().await.print();
    }
}

/// The value below which the share `p` of the sorted values lies.
fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * p).round() as usize]
}
