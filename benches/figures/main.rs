//! The figures of docs/BENCHMARKS.md: each a ratio whose two sides are measured in the same run.
//!
//! `script/bench [figure…]`; without names all of them. Prints one table.
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
mod noisy;
mod server;
mod wire;

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
async fn main() {
    // `cargo bench` adds flags of its own.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
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
