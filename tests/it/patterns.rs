//! Topic patterns, in SQL as in the server.

use tidewire::event::TopicPattern;

use crate::support::TestDb;

#[tokio::test]
async fn a_pattern_in_sql_is_the_servers_pattern() {
    let db = TestDb::new().await;
    let client = db.connect().await;
    let segments = ["a", "b", "*", "tidewire"];
    let mut patterns: Vec<String> = segments.iter().map(|&one| one.to_owned()).collect();
    for _ in 0..2 {
        let longer: Vec<String> = patterns
            .iter()
            .flat_map(|start| segments.map(|end| format!("{start}.{end}")))
            .collect();
        patterns.extend(longer);
    }
    patterns.sort();
    patterns.dedup();
    let topics: Vec<String> = patterns
        .iter()
        .filter(|text| !text.contains('*'))
        .cloned()
        .collect();
    let query = "SELECT t, p, tidewire.topic_matches(t, p) FROM unnest($1::text[]) AS t, unnest($2::text[]) AS p";
    let rows = client.query(query, &[&topics, &patterns]).await.unwrap();
    assert!(rows.len() > 1_000);
    for row in rows {
        let (topic, pattern): (&str, &str) = (row.get(0), row.get(1));
        let matches = TopicPattern::parse(pattern).unwrap().matches(topic);
        assert_eq!(row.get::<_, bool>(2), matches, "{topic} {pattern}");
    }
}
