//! What a migrate applies if the database has it not, or has it otherwise, in this order: functions, triggers, views, grants.
//!
//! A test fails when a file of those folders is not listed.

macro_rules! definitions {
    ($($file:literal),* $(,)?) => {
        /// Name and text of each file.
        pub const DEFINITIONS: &[(&str, &str)] =
            &[$(($file, include_str!(concat!("../../sql/", $file)))),*];
    };
}

definitions![
    "functions/idempotency_key.sql",
    "functions/erased_key.sql",
    "functions/floor_class.sql",
    "functions/claim_floor.sql",
    "functions/wake_servers.sql",
    "functions/record_append.sql",
    "functions/record_sql_appends.sql",
    "functions/refuse_change.sql",
    "functions/refuse_truncate.sql",
    "functions/watermark.sql",
    "functions/cursor.sql",
    "functions/cursor_seq.sql",
    "functions/current_tenant.sql",
    "functions/sees_reserved.sql",
    "functions/is_reserved.sql",
    "functions/may_act_for_log.sql",
    "functions/writing_tenant.sql",
    "functions/new_id.sql",
    "functions/has_short_writer.sql",
    "functions/append_many.sql",
    "functions/topic_matches.sql",
    "functions/default_priority.sql",
    "functions/check_admission.sql",
    "functions/append.sql",
    "functions/my_subject.sql",
    "functions/refuse_strong_role.sql",
    "functions/record_tenant_role.sql",
    "functions/create_tenant_role.sql",
    "functions/drop_tenant_role.sql",
    "functions/users_of.sql",
    "functions/retain_oldest.sql",
    "functions/retain.sql",
    "functions/expire_keys.sql",
    "functions/redact.sql",
    "functions/erase_subject.sql",
    "functions/forget_samples.sql",
    "functions/record_subject_read.sql",
    "functions/undue_locks.sql",
    "functions/rules_by_topic.sql",
    "functions/find_due.sql",
    "functions/apply_retention.sql",
    "functions/lost_by_rules.sql",
    "functions/rules_of.sql",
    "functions/retain_by_rules.sql",
    "functions/record_retention_rule.sql",
    "functions/begin_epoch.sql",
    "functions/close_chunks.sql",
    "functions/prepare_chunks.sql",
    "functions/announce_credential_change.sql",
    "functions/record_credential.sql",
    "functions/announce_setting_change.sql",
    "functions/record_setting.sql",
    "functions/withdraw_topic.sql",
    "functions/withdraw_revocation.sql",
    "functions/claim_watches.sql",
    "functions/record_watch.sql",
    "functions/watch_signs.sql",
    "functions/judge_watched.sql",
    "triggers/events.sql",
    "triggers/credentials.sql",
    "triggers/settings.sql",
    "triggers/tenant_roles.sql",
    "triggers/retention_rules.sql",
    "triggers/watches.sql",
    "views/writers.sql",
    "views/my_events.sql",
    "views/tenant_role_issues.sql",
    "grants/grants.sql",
];

/// Roles belong to the cluster: applied by the embedded server and the tests, otherwise by an operator.
pub const ROLES: &str = include_str!("../../sql/roles/roles.sql");

/// What TimescaleDB leaves open to everybody: closed in the embedded database, otherwise by an operator.
pub const TIMESCALE_CLOSED: &str = include_str!("../../sql/roles/timescaledb.sql");

/// PostgreSQL's functions that take advisory locks: closed in the embedded database to those who have no use for them, otherwise by
/// an operator.
pub const LOCKS_CLOSED: &str = include_str!("../../sql/roles/locks.sql");

/// The roles of [`ROLES`]: an operator may create them later, or never.
pub const OPTIONAL_ROLES: [&str; 4] = [
    "tidewire_writer",
    "tidewire_loader",
    "tidewire_analyst",
    "tidewire_monitor",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed() {
        for folder in ["functions", "triggers", "views", "grants"] {
            let path = format!("{}/sql/{folder}", env!("CARGO_MANIFEST_DIR"));
            for entry in std::fs::read_dir(path).unwrap() {
                let name = format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy());
                assert!(
                    DEFINITIONS.iter().any(|(file, _)| *file == name),
                    "{name} is not listed"
                );
            }
        }
    }

    #[test]
    fn the_optional_roles_are_those_of_the_file() {
        let list = OPTIONAL_ROLES.map(|role| format!("'{role}'")).join(", ");
        assert!(ROLES.contains(&format!("ARRAY[{list}]")), "{list}");
    }

    #[test]
    fn every_function_fixes_its_search_path_or_is_a_plain_expression() {
        for (file, text) in DEFINITIONS
            .iter()
            .filter(|(file, _)| file.starts_with("functions/"))
        {
            let is_expression = text.contains("\nRETURN ") || text.contains("SAFE RETURN ");
            assert!(is_expression || text.contains("SET search_path"), "{file}");
        }
    }
}
