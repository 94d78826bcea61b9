//! As many rules as a tenant may have: they are applied within the time of a statement, and a batch that is not gets smaller.

use tidewire::event::limits::STATEMENT_MAX;
use tokio_postgres::Client;

use super::retention::store;
use crate::support::TestDb;

const DAY: i32 = 86_400;

/// 5,000 old events of a topic each, and 100 rules of which the last one alone stands for them; with a server's settings.
async fn many() -> (TestDb, Client) {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for statement in [
        "SET session_replication_role = replica",
        "INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
         SELECT clock_timestamp() - interval '3 days', 'acme', n::text, 't' || n || '.b.c.d' FROM generate_series(1, 5000) AS n",
        "SET session_replication_role = origin",
        "INSERT INTO tidewire.retention_rules (tenant, pattern, days)
         SELECT 'acme', 'x' || n || '.*.*.a', 2 FROM generate_series(1, 99) AS n UNION ALL SELECT 'acme', '*', 2",
        "UPDATE tidewire.retention_rules SET looked_at = '-infinity' WHERE pattern = '*'",
        "SET plan_cache_mode = force_custom_plan",
        "SET jit = off",
    ] {
        client.batch_execute(statement).await.unwrap();
    }
    let bounded = format!("SET statement_timeout = {}", STATEMENT_MAX.as_millis());
    client.batch_execute(&bounded).await.unwrap();
    (db, client)
}

#[tokio::test]
async fn a_hundred_rules_are_applied_in_the_time_of_a_statement() {
    let (_db, client) = many().await;
    let call = "SELECT removed FROM tidewire.apply_retention(round_at => clock_timestamp())";
    let removed: i64 = client.query_one(call, &[]).await.unwrap().get(0);
    assert_eq!(removed, 5_000);
}

/// Where it has no statistics to go by, the database may take any way; with a join of a chunk with itself one of them is the square of
/// the batch.
#[tokio::test]
async fn a_batch_is_emptied_in_the_time_of_a_statement_however_it_is_gone_about() {
    let (_db, client) = many().await;
    let ways = "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_indexscan = off; SET enable_bitmapscan = off";
    client.batch_execute(ways).await.unwrap();
    let seqs = "SELECT tidewire.redact('acme', array_agg(seq), min(recorded_at), max(recorded_at)) FROM tidewire.events
                 WHERE tenant = 'acme'";
    let emptied: i64 = client.query_one(seqs, &[]).await.unwrap().get(0);
    assert!(emptied >= 5_000, "{emptied}");
}

/// Old ones beyond the batch are not gone through to find where the rule ends.
#[tokio::test]
async fn a_batch_reads_no_more_than_it_empties() {
    let db = TestDb::new().await;
    let mut client = db.connect().await;
    client
        .batch_execute(
            "SET session_replication_role = replica;
             INSERT INTO tidewire.events (recorded_at, tenant, id, topic)
             SELECT date_trunc('day', clock_timestamp()) - interval '3 days' + n * interval '1 second', 'acme', n::text, 'a'
               FROM generate_series(1, 20000) AS n;
             SET session_replication_role = origin;
             ANALYZE tidewire.events;
             INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 1);
             SET plan_cache_mode = force_custom_plan",
        )
        .await
        .unwrap();
    // The cutoff lies in the chunk, before its last hundred.
    let cutoff = "SELECT recorded_at FROM tidewire.events WHERE id = '19900'";
    let cutoff: chrono::DateTime<chrono::Utc> = client.query_one(cutoff, &[]).await.unwrap().get(0);
    let find = "SELECT f.looked, f.young_at IS NOT NULL FROM tidewire.retention_rules AS r,
                       tidewire.find_due(r, 1000000, $2, $1, 1000000) AS f
                 WHERE r.tenant = 'acme'";
    let read = "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_xact_user_tables
                 WHERE schemaname = '_timescaledb_internal'";
    for (limit, looked, is_ended) in [(10_i64, 10_i64, false), (30_000, 19_899, true)] {
        let transaction = client.transaction().await.unwrap();
        // What this session has counted and not told of yet is in it as well.
        let rows = async || -> i64 { transaction.query_one(read, &[]).await.unwrap().get(0) };
        let before = rows().await;
        let row = transaction.query_one(find, &[&limit, &cutoff]).await;
        let row = row.unwrap();
        assert_eq!((row.get(0), row.get(1)), (looked, is_ended));
        let read = rows().await - before;
        assert!(is_ended || read < 1_000, "{read} were read");
    }
}

#[tokio::test]
async fn a_chunk_of_many_topics_goes_by_a_hundred_rules_in_the_time_of_a_statement() {
    let (_db, client) = many().await;
    let remove = "SELECT tidewire.retain_by_rules()";
    assert!(
        client
            .query_one(remove, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    let told = "SELECT removed FROM tidewire.retention_rules WHERE pattern = '*'";
    let told: i64 = client.query_one(told, &[]).await.unwrap().get(0);
    assert_eq!(told, 5_000);
}

/// Rules and topics of a few words, at every place: the rule that counts is the first in the order of exactness that stands for the
/// topic, as the server has it (`tidewire.topic_matches`).
#[tokio::test]
async fn the_rule_that_counts_is_the_most_exact_that_stands_for_a_topic() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let paths = |words: &str, most: i32| {
        format!(
            "WITH RECURSIVE path(text, size) AS (
                 SELECT w.word, 1 FROM unnest('{words}'::text[]) AS w(word)
                 UNION ALL SELECT p.text || '.' || w.word, p.size + 1 FROM path AS p, unnest('{words}'::text[]) AS w(word)
                  WHERE p.size < {most})"
        )
    };
    // Two of three, so that there are topics for which the most exact that could be is not there.
    let rules = format!(
        "INSERT INTO tidewire.retention_rules (tenant, pattern, days)
         {} SELECT 'acme', p.text, 400 FROM path AS p WHERE hashtext(p.text) % 3 <> 0",
        paths("{a,b,*,tidewire}", 3)
    );
    client.batch_execute(&rules).await.unwrap();
    let compared = format!(
        "{}, topic AS (
             SELECT p.text AS name FROM path AS p UNION ALL SELECT p.text || '.a.b.c.d' FROM path AS p WHERE p.size = 4
         ), counted AS (
             SELECT t.name, (SELECT r.pattern FROM tidewire.retention_rules AS r WHERE tidewire.topic_matches(t.name, r.pattern)
                              ORDER BY r.specificity DESC LIMIT 1) AS pattern
               FROM topic AS t
         )
         SELECT count(c.pattern), count(DISTINCT c.pattern), count(*) FILTER (WHERE c.pattern IS DISTINCT FROM r.pattern)
           FROM counted AS c
           LEFT JOIN tidewire.rules_by_topic('acme', ARRAY(SELECT t.name FROM topic AS t)) AS r ON r.topic = c.name",
        paths("{a,b,c,tidewire}", 4)
    );
    let row = client.query_one(&compared, &[]).await.unwrap();
    let (topics, rules, wrong): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(topics > 500 && rules > 30, "{topics} {rules}");
    assert_eq!(wrong, 0);
}

/// Each event takes 50 ms to empty, and a statement may take half a second.
#[tokio::test]
async fn a_batch_that_takes_too_long_is_halved_and_grows_again() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    for n in 0..40 {
        store(&client, "acme", "x", 3 * DAY, &n.to_string()).await;
    }
    client
        .batch_execute(
            "INSERT INTO tidewire.retention_rules (tenant, pattern, days) VALUES ('acme', '*', 2);
             CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;
             CREATE TRIGGER slowly BEFORE UPDATE ON tidewire.events FOR EACH ROW EXECUTE FUNCTION public.slowly();
             SET statement_timeout = '500ms'",
        )
        .await
        .unwrap();
    let call = async |client: &Client| -> (i64, Option<bool>, Option<i32>) {
        let call =
            "SELECT removed, is_complete FROM tidewire.apply_retention(40, clock_timestamp())";
        let rows = "SELECT batch_rows FROM tidewire.retention_rules";
        let row = client.query_one(call, &[]).await.unwrap();
        let rows = client.query_one(rows, &[]).await.unwrap();
        (row.get(0), row.get(1), rows.get(0))
    };
    assert_eq!(call(&client).await, (0, None, Some(20)));
    assert_eq!(call(&client).await, (0, None, Some(10)));
    let mut removed = 0;
    for calls in 1.. {
        let (some, is_complete, _) = call(&client).await;
        removed += some;
        assert!(removed == 40 || is_complete != Some(true), "{removed}");
        if removed == 40 {
            break;
        }
        assert!(calls < 100, "{removed}");
    }
    // After what the log has said meanwhile, which is too young.
    client
        .batch_execute(
            "SET statement_timeout = 0;
             DROP TRIGGER slowly ON tidewire.events;
             UPDATE tidewire.retention_rules SET batch_rows = 5, through_at = NULL, applied_seq = (SELECT max(seq) FROM tidewire.events)",
        )
        .await
        .unwrap();
    for n in 40..80 {
        store(&client, "acme", "x", 3 * DAY, &n.to_string()).await;
    }
    assert_eq!(call(&client).await, (5, Some(false), Some(10)));
    assert_eq!(call(&client).await, (10, Some(false), Some(20)));
    assert_eq!(call(&client).await, (20, Some(false), None));
    assert_eq!(call(&client).await, (5, Some(true), None));
}
