//! Ways to find out by trying: what another tenant's ids, places, names and numbers are.

use super::fixture::Tenants;
use super::session::Session;

/// The planner's guess at how many rows a condition has, as EXPLAIN shows it.
async fn estimate(session: &Session, condition: &str) -> String {
    let plan = session
        .run(&format!(
            "EXPLAIN SELECT FROM tidewire.my_events WHERE {condition}"
        ))
        .await;
    assert_eq!(plan.state, "ok", "{}", plan.said);
    let estimate = plan.said.split("rows=").nth(1).unwrap();
    estimate.split(' ').next().unwrap().to_owned()
}

/// Samples of all tenants' rows lie in the planner's statistics. What it makes of a value must not depend on whether
/// somebody has it: else names could be tried, and found letter by letter with `<`.
#[tokio::test]
async fn estimates_do_not_tell_a_value_that_exists_from_one_that_does_not() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    for (column, theirs) in [
        ("topic", "s3ntinel.stage.1"),
        ("subject", "s3ntinel-deal-1"),
        ("source", "s3ntinel-source"),
        ("region", "s3ntinel-region"),
        ("id", "s3ntinel-id-7"),
        ("content_type", "s3ntinel/type"),
    ] {
        for operator in ["=", "<>", "<", ">="] {
            let with = estimate(&reader, &format!("{column} {operator} '{theirs}'")).await;
            let without = estimate(&reader, &format!("{column} {operator} 'zzz'")).await;
            assert_eq!(with, without, "{column} {operator}");
        }
    }
    let (early, late) = ("occurred_at < '2001-01-01'", "occurred_at < '2101-01-01'");
    assert_eq!(
        estimate(&reader, early).await,
        estimate(&reader, late).await
    );
    for value in ["critical", "normal"] {
        assert_eq!(
            estimate(&reader, &format!("priority = '{value}'")).await,
            estimate(&reader, "priority = 'low'").await
        );
    }
    // Statistics that the owner has of them: none but of the columns that plans need.
    let query = "SELECT string_agg(DISTINCT s.attname, ' ' ORDER BY s.attname) FROM pg_stats AS s
                  WHERE s.tablename = 'events' OR s.tablename LIKE '\\_hyper%'";
    let columns: String = tenants.owner.query_one(query, &[]).await.unwrap().get(0);
    assert_eq!(columns, "recorded_at seq subject tenant");
}

/// An id is unique within its tenant: another tenant's is free, and says nothing.
#[tokio::test]
async fn an_id_that_another_tenant_has_used_is_free() {
    let tenants = Tenants::new().await;
    let writer = tenants.login("writer", true).await;
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        for id in ["shared", "s3ntinel-id-7", "never-used"] {
            let outcome = writer
                .attempt(&format!(
                    "BEGIN ISOLATION LEVEL {level}; SELECT duplicate FROM tidewire.append('a.b', '1', id => '{id}')"
                ))
                .await;
            assert_eq!(
                (outcome.state.as_str(), outcome.said.as_str()),
                ("ok", "f|\n"),
                "{level} {id}"
            );
        }
    }
    // Nor does it wait for another tenant's open transaction with the same id.
    tenants
        .owner
        .batch_execute(
            "BEGIN; SELECT tidewire.append('a.b', '1', id => 'open', tenant => 'tenant-s3ntinel')",
        )
        .await
        .unwrap();
    let outcome = writer
        .attempt("SET lock_timeout = '1ms'; SELECT duplicate FROM tidewire.append('a.b', '1', id => 'open')")
        .await;
    assert_eq!(
        (outcome.state.as_str(), outcome.said.as_str()),
        ("ok", "f|\n")
    );
}

#[tokio::test]
async fn a_cursor_of_another_tenant_names_a_place_and_no_event() {
    let tenants = Tenants::new().await;
    let writer = tenants.login("writer", true).await;
    let query = "SELECT tidewire.cursor(seq, recorded_at) FROM tidewire.events WHERE id = 'shared'";
    let theirs: String = tenants.owner.query_one(query, &[]).await.unwrap().get(0);
    for (subject, expect, state) in [
        ("s3ntinel-new", theirs.as_str(), "TW409"),
        ("s3ntinel-new", "none", "ok"),
        ("nobody's", theirs.as_str(), "TW409"),
        ("nobody's", "none", "ok"),
    ] {
        let outcome = writer
            .attempt(&format!(
                "SELECT duplicate FROM tidewire.append('a.b', '1', subject => $${subject}$$, expect => '{expect}')"
            ))
            .await;
        assert_eq!(outcome.state, state, "{subject} {expect}");
        // The same words, whether another tenant has the subject or nobody.
        assert!(
            state == "ok" || outcome.said.contains("detail: Some(\"none\")"),
            "{}",
            outcome.said
        );
        assert!(!outcome.leaks());
    }
    let after = format!(
        "SELECT count(*) FROM tidewire.my_events WHERE seq > tidewire.cursor_seq('{theirs}')"
    );
    assert_eq!(writer.value(&after).await, "2", "its own");
    let around = "SELECT count(*) FROM tidewire.my_subject('s3ntinel-new', -1)";
    assert_eq!(writer.value(around).await, "1", "its own");
    for forged in ["0".repeat(32), "v".repeat(32), "x".to_owned()] {
        let outcome = writer
            .attempt(&format!("SELECT tidewire.cursor_seq('{forged}')"))
            .await;
        assert!(
            ["TW400", "TW409"].contains(&outcome.state.as_str()),
            "{}",
            outcome.state
        );
    }
}

/// Everybody sees which locks are held. The key of a subject's lock must not be one that can be computed from its name.
#[tokio::test]
async fn the_lock_of_a_subject_does_not_tell_its_name() {
    let tenants = Tenants::new().await;
    let writer = tenants.login("writer", true).await;
    tenants
        .owner
        .batch_execute(
            "BEGIN; SELECT tidewire.append('a.b', '1', subject => 'guess', expect => 'none', tenant => 'tenant-s3ntinel')",
        )
        .await
        .unwrap();
    let locks =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1953064035";
    assert_eq!(writer.value(locks).await, "1");
    for key in [
        "hashtext('tenant-s3ntinel/guess')",
        "('x' || left(encode(sha256('tenant-s3ntinel/guess'), 'hex'), 8))::bit(32)::int",
    ] {
        let guess = format!("{locks} AND objid = ({key}::bigint & 4294967295)::oid");
        assert_eq!(writer.value(&guess).await, "0", "{key}");
    }
}

/// Whoever listens learns that somebody has written, and no more; whoever notifies wakes servers, and no more.
#[tokio::test]
async fn notifications_say_nothing() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    reader.run("LISTEN tidewire").await;
    tenants
        .owner
        .batch_execute("SET tidewire.notify = 'always'; SELECT tidewire.append('s3ntinel.x', '\"s3ntinel\"', tenant => 'tenant-s3ntinel')")
        .await
        .unwrap();
    // The answer to a query comes after what was notified before it.
    let heard = reader.run("SELECT 'after'; SELECT 'after'").await.said
        + &reader.run("SELECT 1").await.said;
    assert!(heard.contains("notified \"tidewire\" \"\";"), "{heard}");
    assert!(!heard.contains("s3ntinel"), "{heard}");
    let forged = reader
        .run("NOTIFY tidewire, 'x'; SELECT pg_notify('tidewire', repeat('x', 7000))")
        .await;
    assert_eq!(forged.state, "ok");
}

/// Known and bounded (SECURITY.md): how many events all tenants have together, from places, sizes and plans; never whose.
#[tokio::test]
async fn numbers_of_all_tenants_together_are_all_that_is_to_be_learnt() {
    let tenants = Tenants::new().await;
    let reader = tenants.login("reader", false).await;
    let plan = reader
        .run(
            "SET enable_bitmapscan = off; SET enable_indexscan = off; SET enable_indexonlyscan = off;
             EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM tidewire.my_events WHERE topic = 's3nt'",
        )
        .await;
    assert!(
        plan.said.contains("Rows Removed by Filter"),
        "{}",
        plan.said
    );
    assert!(!plan.leaks(), "{}", plan.said);
    // The same number for a topic that the other tenant has and for one that nobody has.
    let removed = async |topic: &str| -> i64 {
        let plan = reader.run(&format!("EXPLAIN (ANALYZE, TIMING off) SELECT * FROM tidewire.my_events WHERE topic = '{topic}'")).await.said;
        let parts = plan.split("Rows Removed by Filter: ").skip(1);
        parts
            .map(|part| part.split('|').next().unwrap().parse::<i64>().unwrap())
            .sum()
    };
    assert_eq!(
        removed("s3ntinel.stage.1").await,
        removed("s3ntinel.stage.9").await
    );
}
