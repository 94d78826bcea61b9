//! Each fault fails the check that is there for it, with its cause, and no other.

use std::collections::BTreeSet;

use tidewire::check::Depth;

use super::outside::{failed, plan, run, server};
use super::tampering::{Harm, Spoil, Tampering, Way};

/// The checks of a quick run.
pub const QUICK: [&str; 22] = [
    "functions/store",
    "functions/select",
    "functions/state",
    "transports/page",
    "transports/long-poll",
    "transports/sse",
    "transports/websocket",
    "transports/websocket-append",
    "batches/array",
    "batches/ndjson",
    "integrity/digests",
    "reliability/retry",
    "reliability/reconnect-sse",
    "reliability/reconnect-websocket",
    "reliability/breaker",
    "reliability/breaker-reset",
    "errors/malformed",
    "errors/cursor",
    "errors/conflict",
    "errors/credential",
    "errors/too-many",
    "isolation/tenants",
];

/// A fault, the checks that fail of it, and what each says.
type Case = (Spoil, &'static [&'static str], &'static str);

/// What reads streams, what reads sockets, and what reads pages of more than one event.
const STREAMS: &[&str] = &[
    "transports/sse",
    "integrity/digests",
    "reliability/reconnect-sse",
];
const SOCKETS: &[&str] = &[
    "transports/websocket",
    "integrity/digests",
    "reliability/reconnect-websocket",
];
const PAGES: &[&str] = &[
    "functions/select",
    "transports/page",
    "transports/websocket-append",
    "batches/array",
    "batches/ndjson",
    "integrity/digests",
    "isolation/tenants",
];

const OF_STREAMS: [Case; 4] = [
    (Spoil::Delivered(Way::Sse, Harm::Drops), STREAMS, "missing"),
    (Spoil::Delivered(Way::Sse, Harm::Repeats), STREAMS, "twice"),
    (
        Spoil::Delivered(Way::Sse, Harm::Alters),
        &["integrity/digests"],
        "not their content",
    ),
    (
        Spoil::Delivered(Way::Sse, Harm::Foreign),
        &[
            "transports/sse",
            "integrity/digests",
            "reliability/reconnect-sse",
            "isolation/tenants",
        ],
        "",
    ),
];

const OF_SOCKETS: [Case; 4] = [
    (
        Spoil::Delivered(Way::Socket, Harm::Drops),
        SOCKETS,
        "missing",
    ),
    (
        Spoil::Delivered(Way::Socket, Harm::Repeats),
        SOCKETS,
        "twice",
    ),
    (
        Spoil::Delivered(Way::Socket, Harm::Alters),
        &["integrity/digests"],
        "not their content",
    ),
    (
        Spoil::Delivered(Way::Socket, Harm::Foreign),
        &[
            "transports/websocket",
            "integrity/digests",
            "reliability/reconnect-websocket",
            "isolation/tenants",
        ],
        "",
    ),
];

const OF_PAGES: [Case; 5] = [
    (Spoil::Delivered(Way::Pages, Harm::Drops), PAGES, "missing"),
    (Spoil::Delivered(Way::Pages, Harm::Repeats), PAGES, "twice"),
    (
        Spoil::Delivered(Way::Pages, Harm::Alters),
        &["functions/store", "integrity/digests"],
        "",
    ),
    (
        Spoil::OneCredential,
        &["errors/credential", "isolation/tenants"],
        "",
    ),
    (
        Spoil::CountsLess,
        &["integrity/digests", "isolation/tenants"],
        "audit counts",
    ),
];

const OF_REQUESTS: [Case; 8] = [
    (
        Spoil::StoresNothing("store"),
        &["functions/store"],
        "missing",
    ),
    (Spoil::StoresNothing("array"), &["batches/array"], "missing"),
    (
        Spoil::StoresNothing(".socket"),
        &["transports/websocket-append"],
        "missing",
    ),
    (Spoil::StoresHalf, &["batches/array"], "refused"),
    (Spoil::StoresAgain, &["reliability/retry"], "as new"),
    (Spoil::LosesAnswer, &["batches/ndjson"], "answers"),
    (Spoil::ForgetsExpectations, &["functions/state"], "409"),
    (
        Spoil::IgnoresSubjects,
        &["functions/select"],
        "nothing is about",
    ),
];

const OF_ANSWERS: [Case; 7] = [
    (Spoil::Nothing, &[], ""),
    (Spoil::DoesNotWait, &["transports/long-poll"], "missing"),
    (
        Spoil::HidesRefusals,
        &[
            "functions/state",
            "batches/array",
            "errors/malformed",
            "errors/cursor",
            "errors/conflict",
            "errors/credential",
            "errors/too-many",
        ],
        "200",
    ),
    (Spoil::OpensBreaker, &["reliability/breaker"], "open"),
    (Spoil::DoesNotReset, &["reliability/breaker-reset"], "500"),
    (Spoil::DoesNotErase, &["cleanup"], "500"),
    (Spoil::SaysItErases, &["cleanup"], "can still be read"),
];

async fn judge(cases: &[Case]) {
    let (_db, server) = server().await;
    for (spoil, wanted, cause) in cases {
        let proxy = Tampering::before(&server.api, *spoil).await;
        let report = run(&plan(&proxy.api, Depth::Quick)).await;
        let failed = failed(&report);
        let names: BTreeSet<&str> = failed.keys().copied().collect();
        let wanted = wanted.iter().copied().collect();
        assert_eq!(names, wanted, "{spoil:?}: {failed:#?}");
        for (name, found) in &failed {
            assert!(found.contains(cause), "{spoil:?} {name}: {found}");
        }
        assert_eq!(report.passed, wanted.is_empty(), "{spoil:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_streams_fails_what_reads_them() {
    judge(&OF_STREAMS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_sockets_fails_what_reads_them() {
    judge(&OF_SOCKETS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_pages_fails_what_reads_them() {
    judge(&OF_PAGES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_writes_fails_what_writes() {
    judge(&OF_REQUESTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_answers_fails_what_looks_at_them() {
    judge(&OF_ANSWERS).await;
}

/// A check that nothing fails checks nothing.
#[test]
fn each_check_has_a_fault() {
    let cases = [
        &OF_STREAMS[..],
        &OF_SOCKETS,
        &OF_PAGES,
        &OF_REQUESTS,
        &OF_ANSWERS,
    ];
    let failing = cases.iter().flat_map(|cases| cases.iter());
    let failing: BTreeSet<&str> = failing
        .flat_map(|(_, names, _)| names.iter().copied())
        .collect();
    let all: BTreeSet<&str> = QUICK.into_iter().chain(["cleanup"]).collect();
    assert_eq!(failing, all);
}
